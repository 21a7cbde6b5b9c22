//! What the tests that speak to whole servers share: processes, a gRPC client over an HTTP/2 that none of us wrote, plain
//! HTTP/1.1, and the world in which a test body runs. Knows nothing of what is tested.
//!
//! A test body sees a [`world::Target`] alone. It dials, sleeps and restarts through it, so the same body can run on a
//! process and on anything else that implements [`world::World`].
#![allow(dead_code)] // Each test binary includes this module and uses a part of it.

pub mod call;
pub mod calls;
pub mod client;
pub mod http1;
pub mod process;
pub mod signals;
pub mod status;
pub mod world;
