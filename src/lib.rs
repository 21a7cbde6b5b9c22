//! ringd: an etcd v3 server for latency-critical deployments on NVMe.
//!
//! The modules stand in the order in which a Put meets them; `ARCHITECTURE.md` beside this file tells the story.
#![doc = include_str!("ARCHITECTURE.md")]
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod base;
pub mod host;
pub mod limits;

pub mod wire;

pub mod rpc;

pub mod propose;

pub mod raft;

pub mod peer;

pub mod wal;

pub mod snapshot;

pub mod replica;

pub mod apply;

pub mod auth;
pub mod lease;
pub mod member;
pub mod mvcc;

pub mod backend;

pub mod watch;

pub mod bench;
pub mod doctor;

pub mod cli;
pub mod config;
pub mod ops;

pub mod server;

pub mod node;
pub mod ring;
pub mod testing;
