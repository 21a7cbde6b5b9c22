//! The log's files: creates, opens, repairs, writes, begins segments, releases and purges them. What the bytes mean is
//! decided elsewhere.
//!
//! A segment gets its name when its first batch is durable: no reader ever finds one without its head. Every segment that
//! may still be needed is locked (flock), as etcd does, so that two processes never write one log.

use crate::base::planted::{Planted, is_planted};
use std::{
    cell::{Cell, RefCell},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use super::{
    Batch, LogEncoder, Replay, WalFault, WalSnapshot,
    choice::Choice,
    decoder::LogDecoder,
    fault::io_fault,
    prepare::{self, Preparation},
    read,
    replay::{Replayer, SnapshotScan},
    segment::{self, SegmentName},
};
use crate::{
    base::LogIndex,
    host::{DIRECT_ALIGN, Disk, File, Host, OpenMode},
    limits::{WAL_CUT_MARGIN_BYTES, WAL_SEGMENT_BYTES},
};

type DiskFile<H> = <<H as Host>::Disk as Disk>::File;
type Buffer<H> = <DiskFile<H> as File>::Buffer;

/// How a batch becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// One of the next two, whichever serves better at the moment (`choice.rs`).
    Auto,
    /// One write to a file opened O_DSYNC.
    Dsync,
    /// A write and an fdatasync behind it, as one request where the host can.
    WriteThenSync,
    /// A write alone (`--unsafe-no-fsync`): what is acknowledged may be lost with the machine.
    None,
}

impl WalSync {
    pub(super) fn open_mode(self) -> OpenMode {
        match self {
            WalSync::Dsync => OpenMode::DirectDurable,
            WalSync::Auto | WalSync::WriteThenSync | WalSync::None => OpenMode::Direct,
        }
    }
}

/// What an operator, or a test, may choose.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// How a batch becomes durable.
    pub sync: WalSync,
    /// Bytes of a segment; a multiple of 4096.
    pub segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions {
            sync: WalSync::Auto,
            segment_bytes: WAL_SEGMENT_BYTES,
        }
    }
}

impl WalOptions {
    fn cut_at(self) -> u64 {
        assert!(self.segment_bytes.is_multiple_of(DIRECT_ALIGN as u64));
        self.segment_bytes - WAL_CUT_MARGIN_BYTES.min(self.segment_bytes / 4)
    }
}

/// What one write took, for the caller's metrics.
#[derive(Clone, Copy, Debug)]
pub struct WriteReport {
    /// Bytes written, filler included.
    pub bytes: u64,
    /// From the call to durability.
    pub duration: Duration,
    /// Of that, the write alone; all of it where the write and its sync are one request.
    pub write: Duration,
    /// Whether a segment was begun.
    pub began_segment: bool,
}

struct Held<F> {
    name: SegmentName,
    /// Open, therefore locked.
    _locked: Rc<F>,
}

/// The file that is written.
struct TailFile<F> {
    file: Rc<F>,
    /// The same, opened O_DSYNC, where the way is chosen batch by batch.
    at_once: Option<Rc<F>>,
    path: Rc<Path>,
}

/// The log's files. Share it as `Rc`: `release_to` and `purge` may be called while a write is in flight.
pub struct Wal<H: Host> {
    host: H,
    directory: PathBuf,
    options: WalOptions,
    tail: RefCell<TailFile<DiskFile<H>>>,
    choice: RefCell<Choice>,
    /// Locked segments, oldest first; the last is the tail.
    held: RefCell<Vec<Held<DiskFile<H>>>>,
    is_writing: Cell<bool>,
    preparation: Rc<Preparation<H>>,
}

impl<H: Host> Wal<H> {
    /// Whether `directory` holds a log.
    pub async fn exists(host: &H, directory: &Path) -> Result<bool, WalFault> {
        if !is_there(host, directory).await? {
            return Ok(false);
        }
        let names = list(host, directory).await?;
        Ok(names.iter().any(|name| name.ends_with(".wal")))
    }

    /// Creates a log with its first records durable; atomic: it exists with its head, or not at all.
    pub async fn create(
        host: &H,
        directory: &Path,
        metadata: &[u8],
        options: WalOptions,
    ) -> Result<(Wal<H>, LogEncoder), WalFault> {
        if Wal::exists(host, directory).await? {
            return Err(WalFault::Exists(directory.to_path_buf()));
        }
        let unfinished = unfinished_path(directory);
        empty_directory(host, &unfinished).await?;
        empty_directory(host, directory).await?;

        let mut encoder = LogEncoder::create(metadata);
        encoder.set_cut_at(options.cut_at());
        let path = unfinished.join(SegmentName::FIRST.to_string());
        let file = prepare::prepare_at_once(host, &path, options).await?;
        let head = encoder
            .seal(|len| file.buffer(len))
            .expect("a new log has a head to write");
        write_durably(host, &file, &path, (head.offset, head.bytes), options.sync).await?;

        let disk = host.disk();
        disk.sync_directory(&unfinished)
            .await
            .map_err(io_fault("sync", &unfinished))?;
        disk.rename(&unfinished, directory)
            .await
            .map_err(io_fault("rename", &unfinished))?;
        sync_names(host, directory).await?;

        let file = Rc::new(file);
        let held = vec![Held {
            name: SegmentName::FIRST,
            _locked: file.clone(),
        }];
        let path = directory.join(SegmentName::FIRST.to_string());
        let tail = TailFile::open(host, file, &path, options.sync).await?;
        Ok((Wal::start(host, directory, options, tail, held), encoder))
    }

    /// Opens a log behind a snapshot (default: from the start), repairs a torn tail once, and says what was in it.
    pub async fn open(
        host: &H,
        directory: &Path,
        from: &WalSnapshot,
        options: WalOptions,
    ) -> Result<(Wal<H>, LogEncoder, Replay), WalFault> {
        let names = list(host, directory).await?;
        let segments = segment::segments_in(&names);
        let needed = segment::segments_from(&segments, from.index).ok_or_else(|| WalFault::FileNotFound {
            directory: directory.to_path_buf(),
            snapshot_index: from.index,
        })?;
        let mut files = Vec::new();
        for name in needed {
            let path = directory.join(name.to_string());
            let file = open(host, &path, OpenMode::Write).await?;
            lock(&file, &path)?;
            files.push((*name, path, file));
        }
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            prepare::remove_if_there(host, &directory.join(name)).await?;
        }

        let mut decoder = LogDecoder::new();
        let mut replayer = Replayer::new(from);
        let mut repaired = false;
        for (place, (name, path, file)) in files.iter().enumerate() {
            let is_last = place + 1 == files.len();
            match read::read_segment(file, path, *name, is_last, &mut decoder, &mut replayer).await {
                Err(WalFault::UnexpectedEof(at)) if is_last => {
                    tracing::info!(path = %path.display(), position = at.offset, "repairing");
                    read::keep_broken(host, path, file).await?;
                    repaired = true;
                }
                other => other?,
            }
        }
        let (last_name, path, file) = files.last().expect("at least one segment is needed");
        let (mut replay, tail) = replayer.finish(&decoder, *last_name)?;
        replay.repaired = repaired;

        let block_len = tail.position % DIRECT_ALIGN as u64;
        let block = read::read_exactly(file, path, tail.position - block_len, block_len as usize).await?;
        read::clear_behind(file, path, tail.position, options.segment_bytes).await?;
        if options.sync != WalSync::None {
            // What was read may be in memory alone, and so may the names: a killed process's last write or rename was
            // seen by this one, which will act on it, and a power failure could still take it back.
            file.sync_data().await.map_err(io_fault("sync", path))?;
            sync_names(host, directory).await?;
        }
        if repaired {
            tracing::info!(path = %path.display(), "repaired");
        }
        let mut encoder = LogEncoder::resume(tail, &block);
        encoder.set_cut_at(options.cut_at());
        let written = Rc::new(open(host, path, options.sync.open_mode()).await?);
        let written = TailFile::open(host, written, path, options.sync).await?;
        let held = files
            .into_iter()
            .map(|(name, _, file)| Held {
                name,
                _locked: Rc::new(file),
            })
            .collect();
        Ok((Wal::start(host, directory, options, written, held), encoder, replay))
    }

    fn start(
        host: &H,
        directory: &Path,
        options: WalOptions,
        tail: TailFile<DiskFile<H>>,
        held: Vec<Held<DiskFile<H>>>,
    ) -> Wal<H> {
        Wal {
            host: host.clone(),
            directory: directory.to_path_buf(),
            options,
            tail: RefCell::new(tail),
            choice: RefCell::default(),
            held: RefCell::new(held),
            is_writing: Cell::new(false),
            preparation: Preparation::start(host, directory, options),
        }
    }

    /// Snapshots that the log knows of and that are committed, oldest first: a `.snap` that is not among them does not
    /// count. Reads only; takes no lock.
    pub async fn valid_snapshots(host: &H, directory: &Path) -> Result<Vec<WalSnapshot>, WalFault> {
        let mut scan = SnapshotScan::default();
        read::read_log(host, directory, &mut scan).await?;
        Ok(scan.finish())
    }

    /// Memory for [`LogEncoder::seal`].
    pub fn buffer(&self, len: usize) -> Buffer<H> {
        self.tail.borrow().file.buffer(len)
    }

    /// Makes a batch durable. One at a time, in the order of sealing. After an error, or when the future was dropped
    /// before its end, what is on the disk is unknown: the process must end, and a further write panics.
    pub async fn write(&self, batch: Batch<Buffer<H>>) -> Result<WriteReport, WalFault> {
        let before = self.is_writing.replace(true);
        assert!(!before, "one write in flight, and none after a failed one");
        let started = self.host.now();
        let bytes = batch.bytes.as_ref().len() as u64;
        let write = match batch.begins {
            Some(name) => self.write_first(name, batch.bytes).await?,
            None => self.write_next(batch.offset, batch.bytes).await?,
        };
        self.is_writing.set(false);
        Ok(WriteReport {
            bytes,
            duration: self.host.now().since(started),
            write,
            began_segment: batch.begins.is_some(),
        })
    }

    async fn write_next(&self, offset: u64, bytes: Buffer<H>) -> Result<Duration, WalFault> {
        let (file, path, sync) = {
            let tail = self.tail.borrow();
            let (file, sync) = match &tail.at_once {
                Some(file) if self.choice.borrow_mut().is_at_once() => (file, WalSync::Dsync),
                _ => (&tail.file, self.options.sync),
            };
            (file.clone(), tail.path.clone(), sync)
        };
        let took = write_durably(&self.host, &*file, &path, (offset, bytes), sync).await?;
        if sync == WalSync::Dsync {
            self.choice.borrow_mut().took(took);
        }
        Ok(took)
    }

    /// Begins a segment with its first batch. The name comes when the bytes are durable, and is durable itself before
    /// the batch counts.
    async fn write_first(&self, name: SegmentName, bytes: Buffer<H>) -> Result<Duration, WalFault> {
        let file = Rc::new(self.preparation.take().await?);
        let prepared = self.preparation.path();
        let write = write_durably(&self.host, &*file, &prepared, (0, bytes), self.options.sync).await?;
        let path = self.directory.join(name.to_string());
        let disk = self.host.disk();
        disk.rename(&prepared, &path)
            .await
            .map_err(io_fault("rename", &prepared))?;
        if self.options.sync != WalSync::None {
            disk.sync_directory(&self.directory)
                .await
                .map_err(io_fault("sync", &self.directory))?;
        }
        tracing::info!(path = %path.display(), "created a new WAL segment");
        self.held.borrow_mut().push(Held {
            name,
            _locked: file.clone(),
        });
        let tail = TailFile::open(&self.host, file, &path, self.options.sync).await?;
        *self.tail.borrow_mut() = tail;
        self.preparation.begin_next();
        Ok(write)
    }

    /// Gives up the segments that hold only entries before `index`. The caller has a `.snap` at or beyond `index`
    /// synced and recorded, and the tree's durable applied index is there too.
    pub fn release_to(&self, index: LogIndex) {
        let mut held = self.held.borrow_mut();
        let names: Vec<SegmentName> = held.iter().map(|held| held.name).collect();
        held.drain(..segment::releasable(&names, index));
    }

    /// Removes the oldest released segments beyond `wals_max` (0: never). Returns how many.
    pub async fn purge(&self, wals_max: usize) -> Result<usize, WalFault> {
        if wals_max == 0 {
            return Ok(0);
        }
        let segments = segment::segments_in(&list(&self.host, &self.directory).await?);
        let held_from = self.held.borrow().first().expect("the tail is always held").name;
        let surplus = segment::purgeable(&segments, held_from, wals_max);
        for name in surplus {
            let path = self.directory.join(name.to_string());
            self.host
                .disk()
                .remove(&path)
                .await
                .map_err(io_fault("remove", &path))?;
            tracing::info!(path = %path.display(), "purged");
        }
        if !surplus.is_empty() {
            self.host
                .disk()
                .sync_directory(&self.directory)
                .await
                .map_err(io_fault("sync", &self.directory))?;
        }
        Ok(surplus.len())
    }

    /// Ends the background task and removes the segment that was prepared; before this directory is opened again by the
    /// same process. What has gathered in the encoder is the caller's to write before.
    pub async fn close(&self) {
        self.preparation.close().await;
    }
}

impl<H: Host> Drop for Wal<H> {
    fn drop(&mut self) {
        self.preparation.stop();
    }
}

impl<F: File> TailFile<F> {
    async fn open<H: Host>(host: &H, file: Rc<F>, path: &Path, sync: WalSync) -> Result<TailFile<F>, WalFault>
    where
        H::Disk: Disk<File = F>,
    {
        let at_once = match sync {
            WalSync::Auto => Some(Rc::new(open(host, path, OpenMode::DirectDurable).await?)),
            _ => None,
        };
        let path = Rc::from(path);
        Ok(TailFile { file, at_once, path })
    }
}

/// Takes a segment's lock.
pub(super) fn lock<F: File>(file: &F, path: &Path) -> Result<(), WalFault> {
    file.try_lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => WalFault::Locked(path.to_path_buf()),
        _ => io_fault("lock", path)(error),
    })
}

/// Writes `bytes` at an offset and makes them durable; how long the write took, with its sync where the two are one request.
async fn write_durably<H: Host, F: File>(
    host: &H,
    file: &F,
    path: &Path,
    (offset, bytes): (u64, F::Buffer),
    sync: WalSync,
) -> Result<Duration, WalFault> {
    let started = host.now();
    let (written, _) = match sync {
        WalSync::Auto | WalSync::WriteThenSync if !is_planted(Planted::LogSyncSkipped) => {
            file.write_durably_at(offset, bytes).await
        }
        _ => file.write_at(offset, bytes).await,
    };
    if !is_planted(Planted::WriteErrorIgnored) {
        written.map_err(io_fault("write", path))?;
    }
    Ok(host.now().since(started))
}

/// Makes the names of the segments durable, and the log's own.
async fn sync_names<H: Host>(host: &H, directory: &Path) -> Result<(), WalFault> {
    if is_planted(Planted::SegmentNameUnsynced) {
        return Ok(());
    }
    for directory in [directory, parent_of(directory)] {
        let synced = host.disk().sync_directory(directory).await;
        synced.map_err(io_fault("sync", directory))?;
    }
    Ok(())
}

async fn open<H: Host>(host: &H, path: &Path, mode: OpenMode) -> Result<DiskFile<H>, WalFault> {
    host.disk().open(path, mode).await.map_err(io_fault("open", path))
}

pub(super) async fn list<H: Host>(host: &H, directory: &Path) -> Result<Vec<String>, WalFault> {
    host.disk().list(directory).await.map_err(io_fault("list", directory))
}

async fn is_there<H: Host>(host: &H, path: &Path) -> Result<bool, WalFault> {
    host.disk().exists(path).await.map_err(io_fault("look for", path))
}

/// Where a log is created before it gets its name.
fn unfinished_path(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_os_string();
    name.push(".tmp");
    PathBuf::from(name)
}

fn parent_of(directory: &Path) -> &Path {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Sees to it that a directory is there and empty. What is in it was left by a creation that did not end.
async fn empty_directory<H: Host>(host: &H, directory: &Path) -> Result<(), WalFault> {
    let disk = host.disk();
    disk.create_directory(directory)
        .await
        .map_err(io_fault("create", directory))?;
    for name in list(host, directory).await? {
        let path = directory.join(name);
        disk.remove(&path).await.map_err(io_fault("remove", &path))?;
    }
    Ok(())
}
