//! What must hold before a server can run, checked when it starts. Each failure is one sentence that says what is wrong
//! and what to do about it; warnings say what the server will do instead.

use std::{
    ffi::CString,
    fmt, fs, io,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{files, net, system};

pub use super::system::{thread_time, ticks_per_second};
use crate::host::OpenMode;

/// Memory that glommio locks for its rings at the least.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Descriptors that are kept for files, peers and the process itself; clients may use what is above (etcd's number).
pub const DESCRIPTORS_RESERVED: u64 = 150;

/// Why the server cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The kernel has no io_uring, or a filter hides it.
    NoRing,
    /// io_uring is forbidden; the value of `/proc/sys/kernel/io_uring_disabled`.
    RingDisabled {
        /// 1: for the unprivileged, 2: for all; anything else: the ban comes from elsewhere (a seccomp filter).
        setting: Option<u32>,
    },
    /// io_uring failed otherwise.
    RingFailed(String),
    /// The kernel lacks an operation that is needed.
    KernelTooOld {
        /// What it lacks, and since when it has been there.
        feature: &'static str,
    },
    /// Too little memory may be locked, in bytes.
    MemlockTooSmall {
        /// What may be locked now.
        limit: u64,
    },
    /// No descriptors would be left for clients.
    DescriptorsTooFew {
        /// How many there may be now.
        limit: u64,
    },
    /// A directory cannot be written.
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// An address cannot be listened on.
    NotBound {
        /// The message of the attempt, which names the address.
        reason: String,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoRing => write!(
                f,
                "io_uring is not available: the kernel is older than 5.8 or was built without it, or a container's seccomp \
                 profile hides it"
            ),
            Obstacle::RingDisabled { setting: Some(1) } => write!(
                f,
                "io_uring is reserved for privileged processes (kernel.io_uring_disabled is 1): set it to 0 with sysctl, or \
                 add this process to the group of kernel.io_uring_group"
            ),
            Obstacle::RingDisabled { setting: Some(2) } => write!(
                f,
                "io_uring is disabled (kernel.io_uring_disabled is 2): set it to 0 with sysctl"
            ),
            Obstacle::RingDisabled { setting } => write!(
                f,
                "io_uring is not permitted (kernel.io_uring_disabled is {}): most likely a container's seccomp profile \
                 forbids io_uring_setup, which must be allowed",
                setting.map_or_else(|| "not set".to_owned(), |value| value.to_string())
            ),
            Obstacle::RingFailed(reason) => write!(f, "io_uring cannot be used: {reason}"),
            Obstacle::KernelTooOld { feature } => write!(f, "the kernel is too old: it lacks {feature}"),
            Obstacle::MemlockTooSmall { limit } => write!(
                f,
                "only {} KiB of memory may be locked, and each core needs {} KiB: raise the limit (ulimit -l, LimitMEMLOCK= \
                 of systemd, --ulimit memlock= of docker)",
                limit / 1024,
                MEMLOCK_BYTES_MIN / 1024
            ),
            Obstacle::DescriptorsTooFew { limit } => write!(
                f,
                "file descriptor limit of etcd process is too low; please set higher (limit {limit}, set higher than \
                 {DESCRIPTORS_RESERVED}: ulimit -n, LimitNOFILE= of systemd)"
            ),
            Obstacle::NotWritable { path, reason } => {
                write!(f, "directory {} cannot be written: {reason}", path.display())
            }
            Obstacle::NotBound { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for Obstacle {}

/// Whether io_uring can be had at all.
pub fn check_ring() -> Result<(), Obstacle> {
    match system::try_ring() {
        Ok(()) => check_operations(),
        Err(error) => Err(ring_obstacle(&error, read_disabled_setting())),
    }
}

fn read_disabled_setting() -> Option<u32> {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

fn ring_obstacle(error: &io::Error, setting: Option<u32>) -> Obstacle {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Obstacle::NoRing,
        Some(libc::EPERM | libc::EACCES) => Obstacle::RingDisabled { setting },
        Some(libc::ENOMEM) => {
            let limit = system::resource_limit(libc::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
            Obstacle::MemlockTooSmall { limit }
        }
        _ => Obstacle::RingFailed(error.to_string()),
    }
}

/// Operations that glommio ends the process for lack of, newest first, and the kernels that brought them.
const NEEDED_OPERATIONS: &[(u8, &str)] = &[
    (27, "io_uring's RECV (Linux 5.6)"),
    (18, "io_uring's OPENAT (Linux 5.6)"),
    (16, "io_uring's CONNECT (Linux 5.5)"),
    (13, "io_uring's ACCEPT (Linux 5.5)"),
    (11, "io_uring's TIMEOUT (Linux 5.4)"),
];

fn check_operations() -> Result<(), Obstacle> {
    let known = match system::ring_operations() {
        Ok(known) => known,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Err(Obstacle::KernelTooOld {
                feature: "a way to ask what io_uring can do (Linux 5.6)",
            });
        }
        Err(error) => return Err(Obstacle::RingFailed(error.to_string())),
    };
    match NEEDED_OPERATIONS
        .iter()
        .find(|(operation, _)| !known.contains(operation))
    {
        Some(&(_, feature)) => Err(Obstacle::KernelTooOld { feature }),
        None => Ok(()),
    }
}

/// Whether enough memory may be locked for the rings.
pub fn check_memlock() -> Result<(), Obstacle> {
    match system::resource_limit(libc::RLIMIT_MEMLOCK) {
        Ok((limit, _)) => memlock_limit(limit),
        Err(error) => Err(Obstacle::RingFailed(error.to_string())),
    }
}

fn memlock_limit(limit: u64) -> Result<(), Obstacle> {
    if limit < MEMLOCK_BYTES_MIN {
        return Err(Obstacle::MemlockTooSmall { limit });
    }
    Ok(())
}

/// How many clients may be connected at once: the limit of descriptors less those reserved. The soft limit is raised to
/// the hard one first, as Go's runtime does for etcd.
pub fn check_descriptors() -> Result<usize, Obstacle> {
    match system::raise_limit(libc::RLIMIT_NOFILE) {
        Ok(limit) => connections_of_limit(limit),
        Err(error) => Err(Obstacle::RingFailed(error.to_string())),
    }
}

fn connections_of_limit(limit: u64) -> Result<usize, Obstacle> {
    match limit.checked_sub(DESCRIPTORS_RESERVED) {
        None | Some(0) => Err(Obstacle::DescriptorsTooFew { limit }),
        Some(connections) => Ok(usize::try_from(connections).unwrap_or(usize::MAX)),
    }
}

/// Whether files can be made in an existing directory.
pub fn check_writable(directory: &Path) -> Result<(), Obstacle> {
    let obstacle = |reason: String| Obstacle::NotWritable {
        path: directory.to_owned(),
        reason,
    };
    let path =
        CString::new(directory.as_os_str().as_bytes()).map_err(|_| obstacle("its name holds a NUL".to_owned()))?;
    if !directory.is_dir() {
        let reason = if directory.exists() {
            "not a directory"
        } else {
            "no such directory"
        };
        return Err(obstacle(reason.to_owned()));
    }
    system::may_write(&path).map_err(|error| obstacle(error.to_string()))
}

/// Whether the directory's filesystem takes O_DIRECT. If not, the log goes through the page cache, which works and costs
/// some latency. Tried on a file that is removed again.
pub fn takes_direct(directory: &Path) -> io::Result<bool> {
    let path = directory.join(format!(".probe.{}.tmp", std::process::id()));
    let result = files::open(&path, OpenMode::CreateNew).and_then(|_| files::open(&path, OpenMode::Direct));
    let removed = fs::remove_file(&path);
    let opened = result?;
    removed?;
    Ok(opened.is_direct)
}

/// The sentence to log when [`takes_direct`] says no.
pub fn no_direct_warning(directory: &Path) -> String {
    format!(
        "the filesystem of {} does not support O_DIRECT: the log is written through the page cache, with O_DSYNC",
        directory.display()
    )
}

/// Whether an address can be listened on.
pub fn check_address(address: SocketAddr) -> Result<(), Obstacle> {
    match net::bind(address) {
        Ok(_) => Ok(()),
        Err(error) => Err(Obstacle::NotBound {
            reason: error.to_string(),
        }),
    }
}

/// All that can be checked before the configuration is known; how many clients may be connected at once.
pub fn check_machine() -> Result<usize, Obstacle> {
    let connections_max = check_descriptors()?;
    check_memlock()?;
    check_ring()?;
    Ok(connections_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_passes() {
        assert!(check_machine().unwrap() > 0);
        let scratch = tempfile::tempdir().unwrap();
        check_writable(scratch.path()).unwrap();
        takes_direct(scratch.path()).unwrap();
        assert_eq!(
            fs::read_dir(scratch.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }

    #[test]
    fn each_obstacle_says_what_to_do() {
        let code = io::Error::from_raw_os_error;
        assert_eq!(ring_obstacle(&code(libc::ENOSYS), None), Obstacle::NoRing);
        let banned = ring_obstacle(&code(libc::EPERM), Some(2));
        assert!(banned.to_string().contains("kernel.io_uring_disabled is 2"), "{banned}");
        let reserved = ring_obstacle(&code(libc::EPERM), Some(1));
        assert!(reserved.to_string().contains("kernel.io_uring_group"), "{reserved}");
        let filtered = ring_obstacle(&code(libc::EPERM), Some(0)).to_string();
        assert!(filtered.contains("seccomp"), "{filtered}");
        assert!(matches!(
            ring_obstacle(&code(libc::EMFILE), None),
            Obstacle::RingFailed(_)
        ));
        let memlock = memlock_limit(64 * 1024).unwrap_err().to_string();
        assert!(memlock.starts_with("only 64 KiB of memory may be locked"), "{memlock}");
        assert_eq!(memlock_limit(MEMLOCK_BYTES_MIN), Ok(()));
        assert_eq!(connections_of_limit(151), Ok(1));
        let few = connections_of_limit(150).unwrap_err().to_string();
        assert!(few.contains("set higher than 150"), "{few}");
        assert!(connections_of_limit(3).is_err());
    }

    #[test]
    fn a_missing_or_wrong_directory_is_named() {
        let missing = check_writable(Path::new("/nonexistent/place")).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "directory /nonexistent/place cannot be written: no such directory"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = check_writable(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("not a directory"), "{error}");
    }

    #[test]
    fn a_taken_address_is_named() {
        let listener = net::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let error = check_address(address).unwrap_err().to_string();
        assert_eq!(error, format!("listen tcp {address}: bind: address already in use"));
        drop(listener);
        check_address(address).unwrap();
    }
}
