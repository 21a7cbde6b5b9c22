//! The host on the real machine: glommio's io_uring executors for the cores, and plain blocking calls for the store
//! thread. Together with `node/` the only place that names glommio.
//!
//! ```text
//!   RingHost (one per executor)                     ThreadHost (the store thread)
//!   ├─ RingDisk: direct files on the ring,          ├─ ThreadDisk: every call blocks
//!   │            the rest on a blocking thread      └─ NoNet: the store thread has no sockets
//!   └─ RingNet:  our sockets, our readiness
//!              both: files.rs (calls), map.rs (mappings), system.rs (what std has no name for)
//! ```
//!
//! glommio 0.9.0 is used as published; what it lacks is made up for from outside: [`setup`] adds a ring flag,
//! [`enter`] keeps needless calls from the kernel and has a write and its sync made one request, [`executor`] keeps a guard timer against its lost wake-up, and [`net`] binds
//! and awaits its own sockets.

pub mod disk;
pub mod enter;
pub mod executor;
pub mod facts;
pub mod map;
pub mod net;
pub mod placement;
pub mod probe;
pub mod setup;
pub mod sync_probe;
pub mod thread;

mod buffer;
mod detached;
mod files;
mod gated;
mod queue;
mod readiness;
mod system;
mod vigil;

pub use disk::{RingBuffer, RingDisk, RingFile};
pub use executor::{ExecutorConfig, RingHost};
pub use map::FileMap;
pub use net::{RingListener, RingNet, RingStream};
pub use thread::{NoNet, ThreadDisk, ThreadFile, ThreadHost};
