//! What the bare device takes to make a write durable: plain system calls on a file, from threads of our own. Beside it
//! stands what the log adds.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{buffer::AlignedBuffer, placement, system};
use crate::{bench::tally, host::DIRECT_ALIGN};

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncWay {
    /// One write past the page cache, to a file opened O_DSYNC.
    DirectDsync,
    /// A write past the page cache, then fdatasync.
    DirectThenSync,
    /// A write into the page cache, then fdatasync (etcd's way).
    BufferedThenSync,
}

impl SyncWay {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            SyncWay::DirectDsync => "O_DIRECT|O_DSYNC",
            SyncWay::DirectThenSync => "O_DIRECT, fdatasync",
            SyncWay::BufferedThenSync => "buffered, fdatasync",
        }
    }
}

/// What the blocks hold before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Zeros, written before: a write changes no metadata.
    Zeroed,
    /// Reserved only: each first write changes the file's map, too.
    Allocated,
    /// Nothing: each write makes the file longer.
    Appended,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct SyncProbe {
    /// How.
    pub way: SyncWay,
    /// Where to.
    pub blocks: Blocks,
    /// Bytes of a write; a multiple of 4096 unless it is buffered.
    pub bytes: usize,
    /// Writers at once, each to its own part of the file.
    pub depth: usize,
    /// Writes in all, at most.
    pub writes_max: usize,
    /// Time at most.
    pub time_max: Duration,
    /// Core that the writers keep to.
    pub core: Option<usize>,
}

/// Latencies in nanoseconds. The file is made in `directory`, and removed.
///
/// # Errors
/// What the filesystem says, also that it does not take O_DIRECT.
pub fn run(directory: &Path, probe: SyncProbe) -> io::Result<Histogram<u64>> {
    let path = directory.join(format!("probe.{}.tmp", std::process::id()));
    let result = run_on(&path, probe);
    let removed = fs::remove_file(&path);
    let histogram = result?;
    removed?;
    Ok(histogram)
}

fn run_on(path: &Path, probe: SyncProbe) -> io::Result<Histogram<u64>> {
    let each = probe.writes_max.div_ceil(probe.depth);
    let part = (each * probe.bytes).next_multiple_of(DIRECT_ALIGN) as u64;
    let file = prepare(path, part * probe.depth as u64, probe)?;
    let (file, barrier, stop) = (
        Arc::new(file),
        Arc::new(Barrier::new(probe.depth)),
        Arc::new(AtomicBool::new(false)),
    );
    let writers: Vec<_> = (0..probe.depth as u64)
        .map(|number| {
            let (file, barrier, stop) = (file.clone(), barrier.clone(), stop.clone());
            thread::spawn(move || {
                if let Some(core) = probe.core {
                    placement::keep_to(&[core].into())?;
                }
                barrier.wait();
                let result = write(&file, number * part, each, probe, &stop);
                stop.store(true, Ordering::Relaxed);
                result
            })
        })
        .collect();
    let mut all = tally::histogram();
    for writer in writers {
        let times = writer.join().map_err(|_| io::Error::other("a writer panicked"))??;
        all.add(&times).map_err(io::Error::other)?;
    }
    Ok(all)
}

fn prepare(path: &Path, bytes: u64, probe: SyncProbe) -> io::Result<File> {
    let plain = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    match probe.blocks {
        Blocks::Zeroed => {
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < bytes {
                let len = zeros.len().min((bytes - at) as usize);
                plain.write_all_at(&zeros[..len], at)?;
                at += len as u64;
            }
        }
        Blocks::Allocated => system::allocate(&plain, bytes)?,
        Blocks::Appended => {}
    }
    plain.sync_all()?;
    let flags = match probe.way {
        SyncWay::DirectDsync => libc::O_DIRECT | libc::O_DSYNC,
        SyncWay::DirectThenSync => libc::O_DIRECT,
        SyncWay::BufferedThenSync => 0,
    };
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

fn write(file: &File, start: u64, writes: usize, probe: SyncProbe, stop: &AtomicBool) -> io::Result<Histogram<u64>> {
    let mut buffer = AlignedBuffer::new(probe.bytes);
    let mut times = tally::histogram();
    let began = Instant::now();
    for number in 0..writes {
        buffer.as_mut().fill(number as u8 | 1);
        let before = Instant::now();
        file.write_all_at(buffer.as_ref(), start + (number * probe.bytes) as u64)?;
        if probe.way != SyncWay::DirectDsync {
            file.sync_data()?;
        }
        times.saturating_record(before.elapsed().as_nanos() as u64);
        // Writers end together: the last ones should not have the device to themselves.
        if began.elapsed() >= probe.time_max || stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_measured_and_the_file_is_gone() {
        let scratch = tempfile::tempdir().unwrap();
        let takes_direct = crate::ring::probe::takes_direct(scratch.path()).unwrap();
        for way in [SyncWay::DirectDsync, SyncWay::DirectThenSync, SyncWay::BufferedThenSync] {
            if !takes_direct && way != SyncWay::BufferedThenSync {
                continue;
            }
            for (blocks, depth) in [(Blocks::Zeroed, 1), (Blocks::Allocated, 3), (Blocks::Appended, 1)] {
                let probe = SyncProbe {
                    way,
                    blocks,
                    bytes: 4096,
                    depth,
                    writes_max: 9,
                    time_max: Duration::from_secs(20),
                    core: None,
                };
                let times = run(scratch.path(), probe).unwrap();
                assert!((1..=9).contains(&times.len()), "{way:?} {blocks:?}");
            }
        }
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        let missing = run(
            &scratch.path().join("missing"),
            SyncProbe {
                way: SyncWay::BufferedThenSync,
                blocks: Blocks::Appended,
                bytes: 1,
                depth: 1,
                writes_max: 1,
                time_max: Duration::ZERO,
                core: None,
            },
        );
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
