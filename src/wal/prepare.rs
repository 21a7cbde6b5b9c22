//! The next segment, made ready ahead of time by a task of its own: allocated, written with zeros and synced, so that no
//! later write to it changes metadata of the file. Small steps with a rest in between, since they share the disk with the
//! log. When the log waits for it, the zeros that are still missing stay unwritten: what is allocated reads as zero, and
//! a log that fills a segment in less than two seconds writes batches beside which the metadata costs little.
//!
//! The file is `next.tmp` until its first batch is durable. etcd would name it `0.tmp` or `1.tmp`; but etcd takes such a
//! file as it is, and one that a crash left here with a batch in it, not renamed yet, would become a segment with stale
//! records behind its head. A `.tmp` by any other name etcd passes over in silence.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{WalFault, WalOptions, fault::io_fault};
use crate::{
    host::{Disk, File, Host, Notify, OpenMode},
    limits::{WAL_READ_BYTES, WAL_ZERO_REST, WAL_ZERO_STEP_BYTES},
};

type DiskFile<H> = <<H as Host>::Disk as Disk>::File;

/// Name of the segment that is being prepared.
const PREPARED_NAME: &str = "next.tmp";

enum State<F> {
    /// Wanted; the task is at it, or will be.
    Preparing,
    /// Ready to be written, and locked.
    Ready(F),
    /// It could not be made.
    Failed(WalFault),
    /// The task has ended.
    Stopped,
}

/// The next segment of one log.
pub(super) struct Preparation<H: Host> {
    host: H,
    directory: PathBuf,
    options: WalOptions,
    state: RefCell<State<DiskFile<H>>>,
    is_urgent: Cell<bool>,
    is_stopping: Cell<bool>,
    /// Whether the file goes too: not when the log is only dropped, since another may have been opened by then. Opening
    /// removes what is left.
    is_removing: Cell<bool>,
    /// Wakes the task: something is to be prepared, or it is to stop.
    wanted: Notify,
    /// Wakes who waits for the task: something is ready, has failed or has stopped.
    done: Notify,
}

impl<H: Host> Preparation<H> {
    /// Starts the task.
    pub(super) fn start(host: &H, directory: &Path, options: WalOptions) -> Rc<Preparation<H>> {
        let preparation = Rc::new(Preparation {
            host: host.clone(),
            directory: directory.to_path_buf(),
            options,
            state: RefCell::new(State::Preparing),
            is_urgent: Cell::new(false),
            is_stopping: Cell::new(false),
            is_removing: Cell::new(false),
            wanted: Notify::new(),
            done: Notify::new(),
        });
        host.spawn(preparation.clone().run());
        preparation
    }

    /// Where the prepared segment is.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(PREPARED_NAME)
    }

    /// The prepared segment, without the rest of its zeros if it is not ready. What went wrong ahead of time is tried again, since
    /// there may be space by now. The caller renames the file and then calls [`Preparation::begin_next`].
    pub(super) async fn take(&self) -> Result<DiskFile<H>, WalFault> {
        self.is_urgent.set(true);
        let mut is_second_try = false;
        loop {
            match std::mem::replace(&mut *self.state.borrow_mut(), State::Preparing) {
                State::Ready(file) => {
                    self.is_urgent.set(false);
                    return Ok(file);
                }
                State::Failed(fault) if is_second_try => return Err(fault),
                State::Failed(_) => {
                    is_second_try = true;
                    self.wanted.notify();
                }
                State::Preparing => {}
                State::Stopped => panic!("a log that was closed is written"),
            }
            self.done.notified().await;
        }
    }

    /// The name is free: prepares another.
    pub(super) fn begin_next(&self) {
        self.wanted.notify();
    }

    /// Asks the task to end.
    pub(super) fn stop(&self) {
        self.is_stopping.set(true);
        self.wanted.notify();
    }

    /// Ends the task and removes its file.
    pub(super) async fn close(&self) {
        self.is_removing.set(true);
        self.stop();
        while !matches!(*self.state.borrow(), State::Stopped) {
            self.done.notified().await;
        }
    }

    async fn run(self: Rc<Self>) {
        while !self.is_stopping.get() {
            let state = match self.prepare().await {
                Ok(Some(file)) => State::Ready(file),
                Ok(None) => break,
                Err(fault) => {
                    tracing::warn!(error = %fault, "failed to prepare the next WAL segment");
                    State::Failed(fault)
                }
            };
            *self.state.borrow_mut() = state;
            self.done.notify();
            self.wanted.notified().await;
        }
        // The lock goes with the open file.
        *self.state.borrow_mut() = State::Preparing;
        if self.is_removing.get()
            && let Err(fault) = remove_if_there(&self.host, &self.path()).await
        {
            tracing::warn!(error = %fault, "failed to remove the prepared WAL segment");
        }
        *self.state.borrow_mut() = State::Stopped;
        self.done.notify();
    }

    /// Makes one segment; `None` when it is to stop.
    async fn prepare(&self) -> Result<Option<DiskFile<H>>, WalFault> {
        let path = self.path();
        remove_if_there(&self.host, &path).await?;
        let zeroing = allocate(&self.host, &path, self.options).await?;
        let mut buffer = zeroing.buffer(WAL_ZERO_STEP_BYTES);
        let mut offset = 0;
        while offset < self.options.segment_bytes && !self.is_urgent.get() {
            let (end, returned) = zero_step(&zeroing, &path, offset, buffer, self.options).await?;
            (offset, buffer) = (end, returned);
            if self.is_stopping.get() {
                return Ok(None);
            }
            self.host.sleep_until(self.host.now() + WAL_ZERO_REST).await;
        }
        finish(&self.host, &path, zeroing, self.options).await.map(Some)
    }
}

/// Makes a segment without rests: a new log's first.
pub(super) async fn prepare_at_once<H: Host>(
    host: &H,
    path: &Path,
    options: WalOptions,
) -> Result<DiskFile<H>, WalFault> {
    let zeroing = allocate(host, path, options).await?;
    let mut buffer = zeroing.buffer(WAL_READ_BYTES);
    let mut offset = 0;
    while offset < options.segment_bytes {
        let (end, returned) = zero_step(&zeroing, path, offset, buffer, options).await?;
        (offset, buffer) = (end, returned);
    }
    finish(host, path, zeroing, options).await
}

/// Removes a file that may be there.
pub(super) async fn remove_if_there<H: Host>(host: &H, path: &Path) -> Result<(), WalFault> {
    if host.disk().exists(path).await.map_err(io_fault("look for", path))? {
        host.disk().remove(path).await.map_err(io_fault("remove", path))?;
    }
    Ok(())
}

async fn allocate<H: Host>(host: &H, path: &Path, options: WalOptions) -> Result<DiskFile<H>, WalFault> {
    let created = host
        .disk()
        .open(path, OpenMode::CreateNew)
        .await
        .map_err(io_fault("create", path))?;
    created
        .allocate(options.segment_bytes)
        .await
        .map_err(io_fault("allocate", path))?;
    drop(created);
    host.disk()
        .open(path, OpenMode::Direct)
        .await
        .map_err(io_fault("open", path))
}

/// Writes one buffer of zeros; the last one may be shorter. Returns where it ended, and the buffer.
async fn zero_step<F: File>(
    file: &F,
    path: &Path,
    offset: u64,
    buffer: F::Buffer,
    options: WalOptions,
) -> Result<(u64, F::Buffer), WalFault> {
    let rest = options.segment_bytes - offset;
    let buffer = match buffer.as_ref().len() as u64 <= rest {
        true => buffer,
        false => file.buffer(rest as usize),
    };
    let len = buffer.as_ref().len() as u64;
    let (written, buffer) = file.write_at(offset, buffer).await;
    written.map_err(io_fault("write", path))?;
    if !file.is_direct() {
        // Left in the page cache, all of it would go out with the first sync, in one piece.
        file.write_back(offset, len)
            .await
            .map_err(io_fault("write back", path))?;
    }
    Ok((offset + len, buffer))
}

async fn finish<H: Host>(
    host: &H,
    path: &Path,
    zeroed: DiskFile<H>,
    options: WalOptions,
) -> Result<DiskFile<H>, WalFault> {
    zeroed.sync_data().await.map_err(io_fault("sync", path))?;
    drop(zeroed);
    let file = host
        .disk()
        .open(path, options.sync.open_mode())
        .await
        .map_err(io_fault("open", path))?;
    super::drive::lock(&file, path)?;
    Ok(file)
}
