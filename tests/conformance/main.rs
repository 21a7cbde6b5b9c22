//! One body per behaviour. Each runs on ringd, on ringd with its connections on another core, and on a real etcd when
//! `ETCD_BIN` names one: that run judges the bodies.
//!
//! Bodies run either on a standing server, one at a time, so that they may count revisions; or on a fresh server of
//! their own with flags of their own. Where etcd 3.6 differs from 3.5 on purpose, ringd answers as 3.6, and the body states both.

#[path = "../support/mod.rs"]
mod support;

mod fixture;
mod run;

macro_rules! bodies {
    (
        $(standing { $($standing:ident),* $(,)? })?
        $(fresh { $($fresh:ident $(=> [$($flag:expr),*])?),* $(,)? })?
    ) => {
        mod on_ringd {
            use crate::{run, support::process::Program::Ringd};
            $($(#[test] fn $standing() { run::standing(Ringd, stringify!($standing), super::$standing); })*)?
            $($(#[test] fn $fresh() { run::fresh(Ringd, stringify!($fresh), &[$($($flag),*)?], super::$fresh); })*)?
        }
        mod on_fronts {
            use crate::{run, support::process::Program::Fronts};
            $($(#[test] fn $standing() { run::standing(Fronts, stringify!($standing), super::$standing); })*)?
            $($(#[test] fn $fresh() { run::fresh(Fronts, stringify!($fresh), &[$($($flag),*)?], super::$fresh); })*)?
        }
        mod on_etcd {
            use crate::{run, support::process::Program::Etcd};
            $($(#[test] fn $standing() { run::standing(Etcd, stringify!($standing), super::$standing); })*)?
            $($(#[test] fn $fresh() { run::fresh(Etcd, stringify!($fresh), &[$($($flag),*)?], super::$fresh); })*)?
        }
    };
}

mod cluster;
mod compaction;
mod grpc;
mod http;
mod kv_delete;
mod kv_put;
mod kv_range;
mod kv_range_past;
mod lease;
mod maintenance;
mod quota;
mod txn;
mod txn_compare;
mod txn_refused;
mod watch;
mod watch_history;
mod watch_streams;
