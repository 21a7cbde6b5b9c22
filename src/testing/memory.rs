//! A file as memory: a fixed allocation that a simulated disk keeps up, read through shared references.
//!
//! The bytes are only ever touched through the raw pointer. A slice given out covers its own range, and by the contract
//! of [`crate::host::Map::bytes`] nothing is written there while it lives; writes elsewhere do not touch it.
#![allow(unsafe_code)]

use std::{
    io, slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use memmap2::{MmapMut, MmapRaw};

use crate::host::Map;

/// Zeroed memory of a fixed size. Untouched pages cost nothing: the system gives zeroed memory lazily, which an allocator
/// that had freed as much before would clear itself.
#[derive(Debug)]
pub struct Region {
    memory: MmapRaw,
    // Bytes that the file has; reading beyond is a bug that the real host answers with a signal.
    len: AtomicU64,
}

impl Region {
    /// A region of `capacity` bytes.
    pub fn new(capacity: u64) -> Arc<Region> {
        let size = usize::try_from(capacity.max(1)).expect("a capacity that memory can have");
        let memory = MmapMut::map_anon(size).expect("memory for a map");
        Arc::new(Region {
            memory: MmapRaw::from(memory),
            len: AtomicU64::new(0),
        })
    }

    /// Bytes that it may have.
    pub fn capacity(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Copies bytes in; what lies beyond the capacity is left out.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let room = self.capacity().saturating_sub(offset);
        let count = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if count == 0 {
            return;
        }
        // SAFETY: `offset + count` is within the allocation; `bytes` is not part of it, since slices of the region are
        // shared and nothing is written under them.
        unsafe {
            self.memory
                .as_mut_ptr()
                .add(offset as usize)
                .copy_from(bytes.as_ptr(), count)
        };
    }

    /// Says how long the file is; what is cut off becomes zero.
    pub fn set_len(&self, len: u64) {
        let before = self.len.swap(len, Ordering::Relaxed);
        let (first, last) = (len.min(self.capacity()), before.min(self.capacity()));
        if first < last {
            // SAFETY: the range is within the allocation.
            unsafe {
                self.memory
                    .as_mut_ptr()
                    .add(first as usize)
                    .write_bytes(0, (last - first) as usize)
            };
        }
    }

    /// `len` bytes at `offset`, which must lie before the end of the file.
    pub fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let end = offset
            .checked_add(len as u64)
            .expect("offset and length of a map overflow");
        let limit = self.len.load(Ordering::Relaxed).min(self.capacity());
        assert!(end <= limit, "bytes {offset}..{end} of a file of {limit}");
        // SAFETY: the range is within the allocation, which lives as long as `self`; that nothing is written there
        // meanwhile is the caller's part.
        unsafe { slice::from_raw_parts(self.memory.as_ptr().add(offset as usize), len) }
    }
}

/// A map of a simulated file.
#[derive(Clone, Debug)]
pub struct SimMap {
    region: Arc<Region>,
    capacity: u64,
}

impl SimMap {
    /// A map over a region that a file keeps up.
    pub fn new(region: Arc<Region>, capacity: u64) -> SimMap {
        SimMap { region, capacity }
    }
}

impl Map for SimMap {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        self.region.bytes(offset, len)
    }

    fn populate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_while_other_bytes_are_written() {
        let region = Region::new(8192);
        region.set_len(8192);
        region.write(0, b"first");
        let slice = region.bytes(0, 5);
        region.write(4096, b"second");
        region.write(8190, b"cut");
        assert_eq!(slice, b"first");
        assert_eq!(region.bytes(8190, 2), b"cu");
        region.set_len(4098);
        region.set_len(8192);
        assert_eq!(region.bytes(4096, 6), b"se\0\0\0\0");
    }

    #[test]
    #[should_panic(expected = "of a file of 10")]
    fn reading_past_the_end_of_the_file_is_caught() {
        let region = Region::new(4096);
        region.set_len(10);
        region.bytes(8, 3);
    }
}
