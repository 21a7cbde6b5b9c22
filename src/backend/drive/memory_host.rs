//! A machine of memory for the tests of this module: files that remember in which order they were written and synced, and a
//! clock that goes on when nothing else does.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    base::{Monotonic, WallTime},
    host::{Disk, File, Host, Listener, Map, Net, OpenMode, Stream},
};

#[derive(Clone, Default)]
pub(super) struct MemoryHost(Rc<Machine>);

#[derive(Default)]
struct Machine {
    disk: MemoryDisk,
    clock: Cell<u64>,
    spawned: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl MemoryHost {
    /// Runs a future with everything it spawns.
    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        let mut tasks = std::mem::take(&mut *self.0.spawned.borrow_mut());
        for _ in 0..10_000_000u64 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                tasks.append(&mut self.0.spawned.borrow_mut());
                self.0.spawned.replace(tasks);
                return value;
            }
            tasks.append(&mut self.0.spawned.borrow_mut());
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            self.0.clock.set(self.0.clock.get() + 10_000);
        }
        panic!("nothing goes on");
    }

    pub(super) fn add_file(&self, path: &str, content: Vec<u8>) {
        let file = Arc::new(Mutex::new(FileState {
            content,
            ..FileState::default()
        }));
        self.0.disk.0.borrow_mut().insert(path.into(), file);
    }

    pub(super) fn content(&self, path: &str) -> Vec<u8> {
        self.0.disk.0.borrow()[Path::new(path)].lock().unwrap().content.clone()
    }

    /// Tells the length of a file, also when another has its name.
    pub(super) fn len_of(&self, path: &str) -> impl Fn() -> usize + use<> {
        let file = self.0.disk.0.borrow()[Path::new(path)].clone();
        move || file.lock().unwrap().content.len()
    }

    /// Lets time pass.
    pub(super) fn rest(&self, duration: Duration) {
        self.run(self.sleep_until(self.now() + duration));
    }

    /// Takes what was done to a file since the last call.
    pub(super) fn take_log(&self, path: &str) -> Vec<Done> {
        std::mem::take(&mut self.0.disk.0.borrow()[Path::new(path)].lock().unwrap().log)
    }

    pub(super) fn file_names(&self) -> Vec<PathBuf> {
        self.0.disk.0.borrow().keys().cloned().collect()
    }

    /// Changes a byte behind everyone's back.
    pub(super) fn damage(&self, path: &str, at: usize, byte: u8) {
        self.0.disk.0.borrow()[Path::new(path)].lock().unwrap().content[at] = byte;
    }

    /// Writes fail from now on.
    pub(super) fn break_file(&self, path: &str) {
        self.0.disk.0.borrow()[Path::new(path)].lock().unwrap().is_broken = true;
    }
}

/// Something that was done to a file.
#[derive(Clone)]
pub(super) enum Done {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

#[derive(Default)]
struct FileState {
    content: Vec<u8>,
    log: Vec<Done>,
    is_locked: bool,
    is_broken: bool,
}

impl FileState {
    fn apply(&mut self, done: Done) {
        apply(&mut self.content, &done);
        self.log.push(done);
    }
}

pub(super) fn apply(content: &mut Vec<u8>, done: &Done) {
    match done {
        Done::Write(offset, bytes) => {
            let end = *offset as usize + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset as usize..end].copy_from_slice(bytes);
        }
        Done::Length(len) => {
            if content.len() < *len as usize {
                content.resize(*len as usize, 0);
            }
        }
        Done::Sync => {}
    }
}

type Files = Rc<RefCell<BTreeMap<PathBuf, Arc<Mutex<FileState>>>>>;

#[derive(Clone, Default)]
pub(super) struct MemoryDisk(Files);

pub(super) struct MemoryFile {
    state: Arc<Mutex<FileState>>,
    has_lock: Cell<bool>,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if self.has_lock.get() {
            self.state.lock().unwrap().is_locked = false;
        }
    }
}

impl Host for MemoryHost {
    type Disk = MemoryDisk;
    type Net = NoNet;

    fn disk(&self) -> &MemoryDisk {
        &self.0.disk
    }

    fn net(&self) -> &NoNet {
        &NoNet
    }

    fn now(&self) -> Monotonic {
        Monotonic(self.0.clock.get())
    }

    fn wall_time(&self) -> WallTime {
        WallTime(self.0.clock.get())
    }

    fn sleep_until(&self, at: Monotonic) -> impl Future<Output = ()> + 'static {
        let host = self.clone();
        poll_fn(move |_| {
            if host.now() >= at {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        self.sleep_until(self.now() + Duration::from_nanos(1))
    }

    fn random_u64(&self) -> u64 {
        4
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawned.borrow_mut().push(Box::pin(task));
    }
}

impl MemoryDisk {
    fn find(&self, path: &Path) -> io::Result<Arc<Mutex<FileState>>> {
        self.0.borrow().get(path).cloned().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<MemoryFile> {
        if mode == OpenMode::CreateNew {
            if self.find(path).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            self.0.borrow_mut().insert(path.to_owned(), Arc::default());
        }
        Ok(MemoryFile {
            state: self.find(path)?,
            has_lock: Cell::new(false),
        })
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.find(path)?.lock().unwrap().content.clone())
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let files = self.0.borrow();
        let within = files.keys().filter_map(|path| path.strip_prefix(directory).ok());
        Ok(within.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.find(path).is_ok())
    }

    async fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.find(from)?;
        self.0.borrow_mut().remove(from);
        self.0.borrow_mut().insert(to.to_owned(), file);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.0.borrow_mut().remove(path);
        Ok(())
    }

    async fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for MemoryFile {
    type Buffer = Vec<u8>;
    type Map = MemoryMap;

    async fn size(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().content.len() as u64)
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn buffer(&self, len: usize) -> Vec<u8> {
        vec![0; len]
    }

    async fn write_at(&self, offset: u64, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        (self.write_bytes_at(offset, &buffer).await, buffer)
    }

    async fn write_bytes_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.is_broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.apply(Done::Write(offset, bytes.to_vec()));
        Ok(())
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let start = (offset as usize).min(state.content.len());
        let end = (start + len).min(state.content.len());
        Ok(state.content[start..end].to_vec())
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.state.lock().unwrap().apply(Done::Sync);
        Ok(())
    }

    async fn write_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.state.lock().unwrap().apply(Done::Length(len));
        Ok(())
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.state.lock().unwrap().content.resize(len as usize, 0);
        Ok(())
    }

    fn try_lock(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.is_locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.is_locked = true;
        self.has_lock.set(true);
        Ok(())
    }

    fn map(&self, capacity: u64) -> io::Result<MemoryMap> {
        Ok(MemoryMap {
            state: self.state.clone(),
            capacity,
            seen: Arc::default(),
        })
    }
}

/// Bytes that were read: a slice of the file must outlive the lock on it, so that each new content is leaked, once.
type Seen = Arc<Mutex<BTreeMap<(u64, usize), &'static [u8]>>>;

#[derive(Clone)]
pub(super) struct MemoryMap {
    state: Arc<Mutex<FileState>>,
    capacity: u64,
    seen: Seen,
}

impl Map for MemoryMap {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let state = self.state.lock().unwrap();
        let start = offset as usize;
        assert!(offset + len as u64 <= self.capacity && start + len <= state.content.len());
        let present = &state.content[start..start + len];
        let mut seen = self.seen.lock().unwrap();
        let slice = seen.entry((offset, len)).or_insert(&[]);
        if *slice != present {
            *slice = Vec::leak(present.to_vec());
        }
        slice
    }

    fn populate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone)]
pub(super) struct NoNet;

pub(super) struct NoSocket;

impl Net for NoNet {
    type Listener = NoSocket;
    type Stream = NoSocket;
    type Moved = NoSocket;

    fn listen(&self, _address: SocketAddr) -> io::Result<NoSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _address: SocketAddr) -> io::Result<NoSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&self, stream: NoSocket) -> NoSocket {
        stream
    }

    fn adopt(&self, moved: NoSocket) -> io::Result<NoSocket> {
        Ok(moved)
    }
}

impl Listener for NoSocket {
    type Stream = NoSocket;

    async fn accept(&self) -> io::Result<(NoSocket, SocketAddr)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Stream for NoSocket {
    fn poll_read(&mut self, _context: &mut Context<'_>, _buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_write(&mut self, _context: &mut Context<'_>, _buffer: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
