//! Shows a [`Disk`] to the kernel as one file, over FUSE: a loop device on that file is a disk whose power we hold.
//!
//! The mount's root is the file itself, so there are no names to look up. Requests are answered one after the other by one
//! thread: a flush covers exactly the writes that were answered before it.

use std::{
    fs::File,
    io::{Read, Write},
    sync::Mutex,
    thread,
    time::Duration,
};

use crate::disk::{Disk, Off};

/// How long a flush takes, and with it how much stands in the cache when the power goes.
const FLUSH_TAKES: Duration = Duration::from_millis(2);
/// The file is a plain one.
pub const ROOT_MODE: u32 = 0o100_600;
/// The longest read or write that the kernel sends, in bytes.
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
const IN_HEADER_BYTES: usize = 40;
const OUT_HEADER_BYTES: usize = 16;

/// Requests, by the numbers of the kernel's `fuse.h`.
mod request {
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

/// Answers the kernel until the file is unmounted.
pub fn serve(mut device: &File, disk: &Mutex<Disk>) {
    let mut buffer = vec![0; WRITE_BYTES_MAX as usize + (64 << 10)];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => continue,
            Err(error) => panic!("/dev/fuse: {error}"),
        };
        let bytes = &buffer[..length];
        let unique = u64_at(bytes, 8);
        let answer = match u32_at(bytes, 4) {
            request::FORGET | request::BATCH_FORGET | request::INTERRUPT => continue,
            opcode => answer(opcode, &bytes[IN_HEADER_BYTES..], disk),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno, vec![]),
        };
        let mut message = Vec::with_capacity(OUT_HEADER_BYTES + body.len());
        message.extend_from_slice(&((OUT_HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&error.to_ne_bytes());
        message.extend_from_slice(&unique.to_ne_bytes());
        message.extend_from_slice(&body);
        match device.write_all(&message) {
            Ok(()) => {}
            // The one who asked was killed.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => panic!("/dev/fuse: {error}"),
        }
    }
}

fn answer(opcode: u32, body: &[u8], shared: &Mutex<Disk>) -> Result<Vec<u8>, i32> {
    let mut disk = shared.lock().expect("the disk's lock");
    let off = |Off| libc::EIO;
    match opcode {
        request::INIT => Ok(init(body)),
        request::GETATTR | request::SETATTR => Ok(attributes(disk.size_bytes() as u64)),
        // Direct IO: nothing of the disk stays in the page cache behind its back.
        request::OPEN => Ok(words(&[0, 0, 1, 0])),
        request::READ => {
            let (offset, length) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
            disk.read(offset, length).map(<[u8]>::to_vec).map_err(off)
        }
        request::WRITE => {
            let (offset, length) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
            disk.write(offset, &body[IN_HEADER_BYTES..][..length]).map_err(off)?;
            Ok(words(&[length as u32, 0]))
        }
        request::FSYNC => {
            // A flush takes its time, and the power may go while it does.
            let covered = disk.unflushed();
            drop(disk);
            thread::sleep(FLUSH_TAKES);
            let mut disk = shared.lock().expect("the disk's lock");
            disk.flush(covered).map(|()| vec![]).map_err(off)
        }
        request::STATFS => {
            let blocks = disk.size_bytes() as u64 / 4096;
            let mut bytes: Vec<u8> = [blocks, 0, 0, 1, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
            bytes.extend(words(&[4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0]));
            Ok(bytes)
        }
        request::RELEASE | request::FLUSH | request::DESTROY => Ok(vec![]),
        _ => Err(libc::ENOSYS),
    }
}

/// The answer to the kernel's greeting: version, large writes, many in flight.
fn init(body: &[u8]) -> Vec<u8> {
    const ASYNC_READ: u32 = 1;
    const BIG_WRITES: u32 = 1 << 5;
    const ASYNC_DIO: u32 = 1 << 15;
    const MAX_PAGES: u32 = 1 << 22;
    let flags = u32_at(body, 12) & (ASYNC_READ | BIG_WRITES | ASYNC_DIO | MAX_PAGES);
    let background = 64 | 48 << 16;
    let pages = WRITE_BYTES_MAX / 4096;
    let mut bytes = words(&[7, 31, 0, flags, background, WRITE_BYTES_MAX, 1, pages]);
    bytes.resize(64, 0);
    bytes
}

fn attributes(size_bytes: u64) -> Vec<u8> {
    let mut bytes = words(&[0, 0, 0, 0]);
    let long = [1, size_bytes, size_bytes / 512, 0, 0, 0];
    bytes.extend(long.iter().flat_map(|number| number.to_ne_bytes()));
    bytes.extend(words(&[0, 0, 0, ROOT_MODE, 1, 0, 0, 0, 4096, 0]));
    bytes
}

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
