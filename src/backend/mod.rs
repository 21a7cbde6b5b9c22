//! The tree on disk: bbolt's file format (version 2), with etcd's buckets, at `member/snap/db`.
//!
//! What is where: [`Backend`] belongs to the core that applies, and answers from memory and from the mapped file; the
//! [`Store`] belongs to a thread of its own, and is the only one that writes the file. Between them go batches
//! ([`SealedBatch`]) one way and roots ([`Pin`]) the other.
//!
//! ```text
//!  home:   put, delete ─▶ open batch ──seal──▶ sealed batch ──StoreRequest::Commit──▶ store: plan, runs, meta
//!          get, range  ◀─ open batch ◀ sealed batch ◀ root ◀──StoreEvent::Committed──────────────┘
//! ```
//!
//! Page logic (`page`, `meta`, `cursor`, `node`, `commit`, `freelist`, `check`) is pure and works on byte slices; only
//! `drive` touches files. Nothing here knows what a bucket's values mean, but for the three keys that
//! [`hash`](HashReport) leaves out.
//!
//! Invariants: a page that a living root can reach is never written; the meta page is written when everything it leads
//! to is durable; a batch is either whole in the tree or not there at all.

mod batch;
mod bucket;
mod build;
mod check;
mod commit;
mod cursor;
mod drive;
mod fault;
mod freelist;
mod hash;
mod home;
mod image;
mod messages;
mod meta;
mod node;
mod page;
mod range;
mod root;
mod search;
mod walk;

pub use batch::{Batch, Key, SealedBatch};
pub use bucket::{BUCKETS, Bucket};
pub(crate) use check::fuzz_open;
pub use check::{CheckReport, check, open_root};
pub use cursor::{Cursor, Pair};
pub use drive::{Store, applied_index};
pub use fault::{Fault, FaultKind, OpenFault, StoreFault};
pub use home::{Backend, View};
pub use image::Image;
pub use messages::{
    CommitReport, DefragmentReport, HashReport, JobId, JobResult, Progress, Received, SnapshotPart, StoreEvent,
    StoreJob, StoreOptions, StoreRequest,
};
pub use meta::Meta;
pub(crate) use page::fuzz_page;
pub use range::Range;
pub use root::{Pin, Root};
