//! System calls that std has no name for, each as a safe function. Knows nothing of rings, paths or modes.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs::File,
    io, mem,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::Duration,
};

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn signed(number: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// Reserves blocks for bytes `0..len` and makes the file at least that long. Filesystems that cannot reserve are only
/// lengthened.
pub fn allocate(file: &File, len: u64) -> io::Result<()> {
    let size = signed(len)?;
    if size == 0 {
        return Ok(());
    }
    // SAFETY: takes a descriptor that `file` keeps open, and numbers.
    let result = check(unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, size) });
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            if file.metadata()?.len() < len {
                file.set_len(len)?;
            }
            Ok(())
        }
        result => result,
    }
}

/// Starts writeback of a range and waits for it; neither metadata nor the device's cache are flushed.
pub fn write_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes a descriptor that `file` keeps open, and numbers.
    let result = check(unsafe { libc::sync_file_range(file.as_raw_fd(), signed(offset)?, signed(len)?, flags) });
    match result {
        // Not every filesystem can (ESPIPE, EINVAL, ENOSYS); since the call promises nothing, nothing is lost.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESPIPE | libc::EINVAL | libc::ENOSYS)) => Ok(()),
        result => result,
    }
}

/// An exclusive lock on the whole file that belongs to the open file (F_OFD_SETLK); the error's kind is `WouldBlock`
/// if another open file has it.
pub fn lock_open_file(file: &File) -> io::Result<()> {
    // SAFETY: `flock` is a plain C struct of integers, for which all zeros is a value.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: takes a descriptor that `file` keeps open and a pointer to a struct that outlives the call.
    let result = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) });
    match result {
        // POSIX allows either code for a lock that somebody else has.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Err(io::ErrorKind::WouldBlock.into()),
        result => result,
    }
}

/// The flags that a file was opened with (F_GETFL).
pub fn status_flags(file: impl AsFd) -> io::Result<libc::c_int> {
    // SAFETY: takes a descriptor that is borrowed for the call.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}

/// A second descriptor of what another owner has open.
pub fn duplicate(owner: &impl AsRawFd) -> io::Result<OwnedFd> {
    borrow(owner).try_clone_to_owned()
}

/// The descriptor that `owner` keeps open, borrowed for as long as the owner is.
pub fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: glommio's files and sockets own their descriptor and close it only when dropped or consumed, which the
    // borrow of `owner` excludes.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Changes how many connections may wait to be accepted.
pub fn set_backlog(listener: &TcpListener, connections: i32) -> io::Result<()> {
    // SAFETY: takes a descriptor that `listener` keeps open, and a number.
    check(unsafe { libc::listen(listener.as_raw_fd(), connections) })
}

/// Receives what is there without waiting.
pub fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a slice that is ours to write.
    let count = unsafe {
        let pointer = buffer.as_mut_ptr().cast();
        libc::recv(socket.as_raw_fd(), pointer, buffer.len(), libc::MSG_DONTWAIT)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Sends what there is room for without waiting.
pub fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and length are those of a slice that outlives the call.
    let count = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// A new epoll.
pub fn epoll() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes a number.
    match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and nobody else's.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Something that an epoll told of.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct EpollEvent(libc::epoll_event);

impl EpollEvent {
    /// What happened, as the kernel's flags.
    pub fn what(&self) -> u32 {
        self.0.events
    }

    /// The name that it was added under.
    pub fn name(&self) -> u64 {
        self.0.u64
    }
}

/// Adds a descriptor to an epoll, which forgets it when it is closed.
pub fn epoll_add(epoll: &OwnedFd, fd: RawFd, wanted: libc::c_int, name: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: wanted as u32,
        u64: name,
    };
    // SAFETY: takes descriptors as numbers and a pointer to a struct that outlives the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })
}

/// Gives the core to whoever else is ready to run on it.
pub fn yield_core() {
    // SAFETY: takes nothing.
    _ = unsafe { libc::sched_yield() };
}

/// Takes a descriptor out of an epoll.
pub fn epoll_remove(epoll: &OwnedFd, fd: RawFd) -> io::Result<()> {
    // SAFETY: takes descriptors as numbers; the kernel wants no event here.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) })
}

/// Waits until an epoll has something to tell, at most for `limit`; as many events as `events` has room for.
pub fn epoll_wait(epoll: &OwnedFd, events: &mut Vec<EpollEvent>, limit: Option<Duration>) -> io::Result<()> {
    events.clear();
    let room = events.capacity();
    let pointer = events.as_mut_ptr();
    let time = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(limit.subsec_nanos() as i32),
    });
    // SAFETY: the kernel writes at most `room` events at the pointer, which is the vector's own memory (the struct around an
    // event is transparent), and reads the time, which outlives the call.
    let mut count = unsafe {
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let signals = std::ptr::null::<libc::sigset_t>();
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            pointer,
            room,
            time,
            signals,
            0,
        )
    };
    // Linux before 5.11 does not have the call, and some sandboxes do not know it.
    if count < 0
        && matches!(
            io::Error::last_os_error().raw_os_error(),
            Some(libc::ENOSYS | libc::EPERM)
        )
    {
        let millis = limit.map_or(-1, |limit| {
            limit.as_micros().div_ceil(1000).min(i32::MAX as u128) as libc::c_int
        });
        // SAFETY: as above.
        count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), pointer.cast(), room as libc::c_int, millis) }.into();
    }
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written so many, and there was room for them.
    unsafe { events.set_len(count) };
    Ok(())
}

/// Fills `bytes` from the operating system's generator; waits for it to be seeded, early in a machine's life.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and length are those of a slice that is ours to write.
        match unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            count => filled += count as usize,
        }
    }
    Ok(())
}

/// Processor time that this thread has used.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: takes a number and a pointer to a struct that outlives the call.
    match check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }) {
        Ok(()) => Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        Err(_) => Duration::ZERO,
    }
}

/// Ticks in which `/proc` counts processor time, in a second.
pub fn ticks_per_second() -> u64 {
    // SAFETY: takes a number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).map_or(100, |ticks| ticks.max(1))
}

/// Soft and hard limit of a resource.
pub fn resource_limit(resource: libc::__rlimit_resource_t) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: takes a number and a pointer to a struct that outlives the call.
    check(unsafe { libc::getrlimit(resource, &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises a resource's soft limit to its hard one; what it is afterwards.
pub fn raise_limit(resource: libc::__rlimit_resource_t) -> io::Result<u64> {
    let (soft, hard) = resource_limit(resource)?;
    let limit = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: takes a number and a pointer to a struct that outlives the call.
    match check(unsafe { libc::setrlimit(resource, &limit) }) {
        Ok(()) => Ok(hard),
        Err(_) => Ok(soft),
    }
}

/// Opens the smallest ring there is and closes it: the error tells why io_uring cannot be had.
pub fn try_ring() -> io::Result<()> {
    use std::os::fd::FromRawFd;
    // `struct io_uring_params` has 120 bytes; all zeros asks for nothing special.
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes at the pointer, which outlives the call.
    match unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        fd => {
            // SAFETY: the descriptor is new and nobody else's.
            drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
            Ok(())
        }
    }
}

/// How many operations io_uring knows here, and the feature bits that it tells.
pub fn ring_abilities() -> io::Result<(usize, u32)> {
    use std::os::fd::FromRawFd;
    let mut parameters = [0u64; 15];
    // SAFETY: as in `try_ring`.
    match unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and nobody else's.
        fd => drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
    }
    // The sixth 32-bit word: entries (two words), flags, the poller's core and idle time stand before it.
    let features = parameters[2].to_ne_bytes();
    let features = u32::from_ne_bytes([features[4], features[5], features[6], features[7]]);
    Ok((ring_operations()?.len(), features))
}

/// Bytes that an unprivileged process may still write to a file's filesystem.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    // SAFETY: an all-zero statvfs is a valid value of the plain struct.
    let mut facts: libc::statvfs = unsafe { mem::zeroed() };
    // SAFETY: takes a descriptor that `file` keeps open, and a pointer to a struct that outlives the call.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), &mut facts) })?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Alignment that O_DIRECT asks for on a file: of memory and of offsets; zeros where the kernel does not say.
pub fn direct_align(file: &File) -> io::Result<(u32, u32)> {
    // SAFETY: an all-zero statx is a valid value of the plain struct.
    let mut facts: libc::statx = unsafe { mem::zeroed() };
    // SAFETY: takes a descriptor that `file` keeps open, an empty path, and a pointer to a struct that outlives the call.
    check(unsafe {
        let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
        libc::statx(file.as_raw_fd(), path, flags, libc::STATX_DIOALIGN, &mut facts)
    })?;
    Ok((facts.stx_dio_mem_align, facts.stx_dio_offset_align))
}

/// Numbers of the operations that io_uring knows here (IORING_REGISTER_PROBE).
pub fn ring_operations() -> io::Result<Vec<u8>> {
    use std::os::fd::FromRawFd;
    const REGISTER_PROBE: libc::c_uint = 8;
    const OPERATIONS_MAX: usize = 256;
    const OPERATION_SUPPORTED: u16 = 1;
    let mut parameters = [0u64; 15];
    // SAFETY: as in `try_ring`.
    let ring = match unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and nobody else's.
        fd => unsafe { OwnedFd::from_raw_fd(fd as RawFd) },
    };
    // A head of 16 bytes, then 8 bytes per operation: number, reserved byte, flags (16 bits), reserved.
    let mut answer = [0u64; 2 + OPERATIONS_MAX];
    // SAFETY: the kernel writes at most the head and 256 operations at the pointer, which outlives the call.
    let result = unsafe {
        let pointer = answer.as_mut_ptr();
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_PROBE,
            pointer,
            OPERATIONS_MAX,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let operations = answer[2..].iter().map(|word| word.to_ne_bytes());
    let supported = operations.filter(|bytes| u16::from_ne_bytes([bytes[2], bytes[3]]) & OPERATION_SUPPORTED != 0);
    Ok(supported.map(|bytes| bytes[0]).collect())
}

/// The cores that this thread may run on.
pub fn affinity() -> io::Result<BTreeSet<usize>> {
    let mut words = [0u64; AFFINITY_WORDS];
    let len = mem::size_of_val(&words);
    // SAFETY: the kernel writes at most `len` bytes at the pointer, which outlives the call.
    if unsafe { libc::sched_getaffinity(0, len, words.as_mut_ptr().cast()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let is_set = |core: &usize| words[core / 64] >> (core % 64) & 1 == 1;
    Ok((0..AFFINITY_WORDS * 64).filter(is_set).collect())
}

/// Keeps this thread to `cores`.
pub fn set_affinity(cores: &BTreeSet<usize>) -> io::Result<()> {
    let mut words = [0u64; AFFINITY_WORDS];
    for &core in cores {
        let word = words.get_mut(core / 64).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (core % 64);
    }
    let len = mem::size_of_val(&words);
    // SAFETY: the kernel reads `len` bytes at the pointer, which outlives the call.
    check(unsafe { libc::sched_setaffinity(0, len, words.as_ptr().cast()) })
}

/// Keeps the kernel's workers of a ring to the core to which this thread is pinned; nothing if it is not (Linux 5.14).
pub fn keep_workers_here(ring: RawFd) -> io::Result<()> {
    let cores = affinity()?;
    let (Some(&core), 1) = (cores.first(), cores.len()) else {
        return Ok(());
    };
    let mut words = [0u64; AFFINITY_WORDS];
    words[core / 64] = 1 << (core % 64);
    // SAFETY: the kernel reads the words, which outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            REGISTER_WORKERS_AFFINITY,
            words.as_ptr(),
            mem::size_of_val(&words),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// IORING_REGISTER_IOWQ_AFF.
const REGISTER_WORKERS_AFFINITY: libc::c_uint = 17;
/// Words of a set of cores: 4,096 of them, the kernel's own limit on most builds (8,192 at most).
const AFFINITY_WORDS: usize = 64;

/// Whether the process may write to a directory or file (access with W_OK).
pub fn may_write(path: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: takes a pointer to a string that ends with zero and outlives the call.
    check(unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) })
}

/// Device number of the filesystem that holds an open file.
pub fn device_of(file: &File) -> io::Result<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let device = file.metadata()?.dev();
    Ok((libc::major(device), libc::minor(device)))
}

/// An integer socket option.
#[cfg(test)]
pub fn socket_option(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: takes a descriptor that `socket` keeps open and pointers to an integer and its length.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &mut len) })?;
    Ok(value)
}

/// The descriptor's own flags (F_GETFD).
#[cfg(test)]
pub fn descriptor_flags(file: impl AsFd) -> io::Result<libc::c_int> {
    // SAFETY: takes a descriptor that is borrowed for the call.
    match unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFD) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}
