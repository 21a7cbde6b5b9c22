//! The load generator: in the simulator, where time is exact, and as a program against running servers.

#[path = "../support/mod.rs"]
mod support;

#[path = "../sim/server.rs"]
#[allow(dead_code)]
mod server;

mod compare;
mod program;
mod simulated;
