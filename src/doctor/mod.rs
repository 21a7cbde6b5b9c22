//! `ringd doctor`: what this machine does to the latency of a server with its data in a directory, and what would mend it.
//! Reading is `ring`'s; here is what the facts mean. Changes nothing.

pub mod facts;
mod findings;
#[cfg(test)]
mod tests;

pub use facts::{Activity, DiskFacts, Facts, FilesystemFacts, HostFacts};
pub use findings::{Finding, Grade, Syncs, findings, json, print, profile};
