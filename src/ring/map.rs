//! A file seen as memory, read only, with room to grow: one mapping as long as the file may ever become, of which only
//! what lies before the file's end may be read.
//!
//! The kernel keeps a shared mapping and the page cache the same pages, so that what is written through a buffered
//! file is seen at once. Invariant: no byte is written through the mapping.
#![allow(unsafe_code)]

use std::{fs::File, io, slice, sync::Arc};

use memmap2::{MmapOptions, MmapRaw};

use crate::host::Map;

/// Bytes of a page, the granule of residency.
const PAGE_BYTES: u64 = 4096;

/// A mapped file. Clones share the mapping, which lasts until the last of them is gone.
#[derive(Clone)]
pub struct FileMap {
    shared: Arc<Shared>,
}

struct Shared {
    mapping: MmapRaw,
    capacity: u64,
    // To ask for the length: reading past the end of the file is a bus error.
    file: File,
}

impl FileMap {
    /// Maps `file` for reading, with addresses for `capacity` bytes. No memory is taken for what is not read.
    pub fn new(file: &File, capacity: u64) -> io::Result<FileMap> {
        let len = usize::try_from(capacity).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mapping = MmapOptions::new().len(len).map_raw_read_only(file)?;
        let shared = Shared {
            mapping,
            capacity,
            file: file.try_clone()?,
        };
        Ok(FileMap {
            shared: Arc::new(shared),
        })
    }

    /// Locks what the file holds now of these bytes into memory (mlock). Fails with ENOMEM beyond RLIMIT_MEMLOCK.
    pub fn lock_memory(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some((start, len)) = self.resident_range(offset, len)? else {
            return Ok(());
        };
        let address = self.shared.mapping.as_ptr().wrapping_add(start);
        // SAFETY: the range lies within the mapping (`resident_range`); locking changes no content.
        match unsafe { libc::mlock(address.cast(), len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whole pages of `offset..offset + len` that the file holds now: start and length in bytes.
    fn resident_range(&self, offset: u64, len: u64) -> io::Result<Option<(usize, usize)>> {
        let limit = self.shared.file.metadata()?.len().min(self.shared.capacity);
        let start = offset - offset % PAGE_BYTES;
        let end = offset.saturating_add(len).min(limit);
        if start >= end {
            return Ok(None);
        }
        Ok(Some((start as usize, (end - start) as usize)))
    }

    fn populate_by_touch(&self, start: usize, len: usize) {
        let base = self.shared.mapping.as_ptr();
        for at in (start..start + len).step_by(PAGE_BYTES as usize) {
            // SAFETY: `at` lies within the mapping and before the end of the file (`resident_range`). The value is
            // thrown away, so that a writer of the same byte does no harm; volatile keeps the read.
            unsafe { base.add(at).read_volatile() };
        }
    }
}

impl Map for FileMap {
    fn capacity(&self) -> u64 {
        self.shared.capacity
    }

    fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let end = offset
            .checked_add(len as u64)
            .expect("offset and length of a map overflow");
        assert!(
            end <= self.shared.capacity,
            "bytes {offset}..{end} of a map of {}",
            self.shared.capacity
        );
        // SAFETY: the range lies within the mapping, which lives as long as `self`. That it lies before the end of the
        // file, and that nothing writes there while the slice lives, is the caller's part of `Map::bytes`.
        unsafe { slice::from_raw_parts(self.shared.mapping.as_ptr().add(offset as usize), len) }
    }

    fn lock(&self, offset: u64, len: u64) -> io::Result<()> {
        self.lock_memory(offset, len)
    }

    fn populate(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some((start, len)) = self.resident_range(offset, len)? else {
            return Ok(());
        };
        match self
            .shared
            .mapping
            .advise_range(memmap2::Advice::PopulateRead, start, len)
        {
            Ok(()) => Ok(()),
            // Kernels before 5.14 do not know the advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.populate_by_touch(start, len);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_map_sees_what_is_written_after_it_was_made_and_past_the_old_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"first", 0).unwrap();
        let map = FileMap::new(&file, 1 << 30).unwrap();
        assert_eq!(map.bytes(0, 5), b"first");
        file.write_all_at(b"later", 1 << 20).unwrap();
        assert_eq!(map.bytes(1 << 20, 5), b"later");
        file.write_all_at(b"FIRST", 0).unwrap();
        assert_eq!(map.clone().bytes(0, 5), b"FIRST");
        assert_eq!(map.capacity(), 1 << 30);
    }

    #[test]
    fn populate_and_lock_stop_at_the_end_of_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        let map = FileMap::new(&file, 1 << 24).unwrap();
        map.populate(0, 1 << 24).unwrap();
        map.populate(5_000, 100).unwrap();
        map.populate(1 << 23, 4096).unwrap();
        map.populate_by_touch(0, 10_000);
        map.lock_memory(0, 1 << 24).unwrap();
    }

    #[test]
    #[should_panic(expected = "of a map of")]
    fn bytes_beyond_the_capacity_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let map = FileMap::new(&file, 4096).unwrap();
        map.bytes(4000, 97);
    }
}
