//! The log, in etcd's format: what raft must not forget, in segments of 64 MB.
//!
//! ```text
//!  wal/0000000000000000-0000000000000000.wal        wal/0000000000000001-00000000000aF3c1.wal
//!  ┌──────────────────── 4 KiB block ───────────┐
//!  │ crc 0 │ metadata │ snapshot 0 │ filler ····│   crc of the segment before │ metadata │ hard state │ entries …
//!  ├────────────────────────────────────────────┤   ▲
//!  │ entry │ entry │ hard state │ filler ·······│   └ one running CRC-32C through all records of all segments
//!  ├────────────────────────────────────────────┤
//!  │ zeros, written ahead of time               │
//! ```
//!
//! * [`record`]: one record as bytes and back.
//! * [`segment`]: names of segments and which of them are needed.
//! * [`encoder`]: gathers records while a write is in flight; a batch is sealed, written, durable.
//! * [`decoder`]: walks segments; tells an interrupted write from corruption.
//! * [`replay`]: a log read back: what raft restarts from, and where appending continues.
//! * [`drive`]: files: create, open, repair, write, begin the next segment, release, purge. `read` reads them back,
//!   `prepare` makes the next segment ready ahead of time.
//! * `choice`: which way to make a batch durable serves better at the moment.
//! * [`dump`]: the log as text.
//!
//! A Put's way: `LogEncoder::append` (synchronous, cheap), then when the write before has ended `LogEncoder::seal`,
//! `Wal::write(batch).await`, and only then may raft be told that its entries persist. Never two writes in flight:
//! replay stops at the first damaged record, so a later batch that is durable before an earlier one would be lost.

mod choice;
pub(crate) mod codec;
pub mod decoder;
pub mod drive;
#[cfg(test)]
mod drive_tests;
pub mod dump;
pub mod encoder;
mod fault;
mod prepare;
mod read;
pub mod record;
pub mod replay;
#[cfg(test)]
mod replay_tests;
pub mod segment;
#[cfg(test)]
pub(crate) mod test_host;

use raft::eraftpb::ConfState;

use crate::base::{LogIndex, Term};

pub use drive::{Wal, WalOptions, WalSync, WriteReport};
pub use encoder::{Batch, LogEncoder, Tail};
pub use fault::{Position, WalFault};
pub use read::read_log;
pub use replay::Replay;

/// A snapshot as the log records it: its file is `snap/<term>-<index>.snap`. The default is the empty start of every
/// log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalSnapshot {
    /// Last log index that the snapshot covers.
    pub index: LogIndex,
    /// Term of the entry at `index`.
    pub term: Term,
    /// Members at `index`. Always written since etcd 3.5 (but at index 0); absent in older logs.
    pub conf_state: Option<ConfState>,
}
