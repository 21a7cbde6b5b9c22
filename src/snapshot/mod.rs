//! Snapshots as etcd keeps them beside the database: `snap/<term>-<index>.snap` files, how many of them stay, and the
//! v2 store's JSON that etcd 3.5 and 3.6 expect inside.
//!
//! * [`mod@file`]: one `.snap` file as bytes and back; names.
//! * [`v2store`]: the cluster's members and version as the v2 store's JSON, and back.
//! * [`drive`]: saving, loading the newest that is whole, setting broken ones aside, removing what is not needed.
//! * [`receive`]: a database that another member sends.
//!
//! The database itself (`snap/db`) belongs to `backend`.

pub mod drive;
pub mod file;
pub mod receive;
pub mod v2store;

pub use drive::SnapshotFiles;
pub use file::{SnapFault, SnapName};
pub use receive::Reception;
pub use v2store::{StoreImage, StoreMember};
