//! A host in memory for the tests of `wal` and `snapshot`: files with a durable and a volatile side, and crashes that lose
//! any sectors that were not synced. No network.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::{
    base::{Monotonic, WallTime},
    host::{Disk, File, Host, Listener, Map, Net, OpenMode, Stream},
};

const SECTOR: usize = 512;

#[derive(Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    locked_by: Option<u64>,
}

type Names = BTreeMap<PathBuf, Rc<RefCell<Inode>>>;

#[derive(Default)]
struct Machine {
    names: RefCell<Names>,
    durable_names: RefCell<Names>,
    directories: RefCell<Vec<PathBuf>>,
    tasks: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
    now: Cell<u64>,
    random: Cell<u64>,
    handles: Cell<u64>,
    /// Fails the operations that allocate space.
    is_full: Cell<bool>,
    /// Writes that may still succeed before the machine dies.
    writes_left: Cell<u64>,
}

/// The host.
#[derive(Clone)]
pub(crate) struct TestHost(Rc<Machine>);

impl TestHost {
    pub(crate) fn new(seed: u64) -> TestHost {
        let machine = Machine {
            random: Cell::new(seed.wrapping_mul(2).wrapping_add(1)),
            writes_left: Cell::new(u64::MAX),
            ..Machine::default()
        };
        TestHost(Rc::new(machine))
    }

    /// Runs `main` and the tasks it spawns, until `main` ends.
    pub(crate) fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000_000 {
            if let Poll::Ready(result) = main.as_mut().poll(&mut context) {
                return result;
            }
            let mut tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            self.0.tasks.borrow_mut().append(&mut tasks);
        }
        panic!("nothing moves any more");
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.0.is_full.set(is_full);
    }

    /// The machine dies after this many more writes: the one behind them reaches the disk in part, and fails.
    pub(crate) fn die_after(&self, writes: u64) {
        self.0.writes_left.set(writes);
    }

    /// What is left after power was lost: all that was synced, and any sectors and names that were not.
    pub(crate) fn crash(&self) {
        self.0.tasks.borrow_mut().clear();
        self.0.writes_left.set(u64::MAX);
        if self.0.next_random().is_multiple_of(2) {
            *self.0.names.borrow_mut() = self.0.durable_names.borrow().clone();
        }
        *self.0.durable_names.borrow_mut() = self.0.names.borrow().clone();
        for inode in self.0.names.borrow().values() {
            let mut inode = inode.borrow_mut();
            inode.locked_by = None;
            let Inode { content, durable, .. } = &mut *inode;
            durable.resize(durable.len().max(content.len()), 0);
            for (kept, lost) in durable.chunks_mut(SECTOR).zip(content.chunks(SECTOR)) {
                if self.0.next_random().is_multiple_of(2) {
                    kept[..lost.len()].copy_from_slice(lost);
                }
            }
            *content = durable.clone();
        }
    }

    pub(crate) fn file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let names = self.0.names.borrow();
        names.get(path.as_ref()).map(|inode| inode.borrow().content.clone())
    }

    pub(crate) fn put_file(&self, path: impl AsRef<Path>, content: &[u8]) {
        let inode = Inode {
            content: content.to_vec(),
            durable: content.to_vec(),
            locked_by: None,
        };
        let inode = Rc::new(RefCell::new(inode));
        self.0.names.borrow_mut().insert(path.as_ref().into(), inode.clone());
        self.0.durable_names.borrow_mut().insert(path.as_ref().into(), inode);
    }

    pub(crate) fn names(&self, directory: impl AsRef<Path>) -> Vec<String> {
        let names = self.0.names.borrow();
        let in_directory = names.keys().filter(|path| path.parent() == Some(directory.as_ref()));
        in_directory
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_string())
            .collect()
    }
}

impl Machine {
    fn next_random(&self) -> u64 {
        // xorshift64*
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}

impl Host for TestHost {
    type Disk = TestHost;
    type Net = TestHost;

    fn disk(&self) -> &TestHost {
        self
    }
    fn net(&self) -> &TestHost {
        self
    }
    fn now(&self) -> Monotonic {
        self.0.now.set(self.0.now.get() + 1000);
        Monotonic(self.0.now.get())
    }
    fn wall_time(&self) -> WallTime {
        WallTime(self.0.now.get())
    }
    fn sleep_until(&self, at: Monotonic) -> impl Future<Output = ()> + 'static {
        self.0.now.set(self.0.now.get().max(at.0));
        self.yield_now()
    }
    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        let mut yielded = false;
        poll_fn(move |_| match std::mem::replace(&mut yielded, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
    }
    fn random_u64(&self) -> u64 {
        self.0.next_random()
    }
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.tasks.borrow_mut().push(Box::pin(task));
    }
}

/// An open file.
pub(crate) struct TestFile {
    machine: Rc<Machine>,
    inode: Rc<RefCell<Inode>>,
    mode: OpenMode,
    handle: u64,
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let mut inode = self.inode.borrow_mut();
        if inode.locked_by == Some(self.handle) {
            inode.locked_by = None;
        }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for TestHost {
    type File = TestFile;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<TestFile> {
        let present = self.0.names.borrow().get(path).cloned();
        let inode = match (present, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::CreateNew) => {
                let inode = Rc::new(RefCell::new(Inode::default()));
                self.0.names.borrow_mut().insert(path.into(), inode.clone());
                inode
            }
            (None, _) => return Err(not_found()),
        };
        self.0.handles.set(self.0.handles.get() + 1);
        Ok(TestFile {
            machine: self.0.clone(),
            inode,
            mode,
            handle: self.0.handles.get(),
        })
    }
    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path).ok_or_else(not_found)
    }
    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        Ok(self.names(directory))
    }
    async fn exists(&self, path: &Path) -> io::Result<bool> {
        let is_directory = self.0.directories.borrow().iter().any(|directory| directory == path);
        Ok(is_directory || self.0.names.borrow().contains_key(path))
    }
    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.0.directories.borrow_mut().push(path.into());
        Ok(())
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.0.names.borrow_mut();
        let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let inode = names.remove(&path).expect("listed");
            let rest = path.strip_prefix(from).expect("starts with it");
            let target = match rest.as_os_str().is_empty() {
                true => to.to_path_buf(),
                false => to.join(rest),
            };
            names.insert(target, inode);
        }
        for directory in self.0.directories.borrow_mut().iter_mut() {
            if directory == from {
                *directory = to.to_path_buf();
            }
        }
        Ok(())
    }
    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.names.borrow_mut().remove(path).map(drop).ok_or_else(not_found)
    }
    async fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        *self.0.durable_names.borrow_mut() = self.0.names.borrow().clone();
        Ok(())
    }
}

impl TestFile {
    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_ne!(self.mode, OpenMode::Read);
        let left = self.machine.writes_left.get();
        self.machine.writes_left.set(left.saturating_sub(1));
        let mut inode = self.inode.borrow_mut();
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if inode.content.len() < end {
            inode.content.resize(end, 0);
        }
        inode.content[start..end].copy_from_slice(bytes);
        if left == 0 {
            return Err(io::Error::other("the machine is dead"));
        }
        if self.mode == OpenMode::DirectDurable {
            if inode.durable.len() < end {
                inode.durable.resize(end, 0);
            }
            inode.durable[start..end].copy_from_slice(bytes);
        }
        Ok(())
    }
}

impl File for TestFile {
    type Buffer = Vec<u8>;
    type Map = NoMap;

    async fn size(&self) -> io::Result<u64> {
        Ok(self.inode.borrow().content.len() as u64)
    }
    fn is_direct(&self) -> bool {
        matches!(self.mode, OpenMode::Direct | OpenMode::DirectDurable)
    }
    fn buffer(&self, len: usize) -> Vec<u8> {
        assert_eq!(len % 4096, 0);
        vec![0; len]
    }
    async fn write_at(&self, offset: u64, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        assert!(offset.is_multiple_of(4096));
        futures_lite::future::yield_now().await;
        (self.put(offset, &buffer), buffer)
    }
    async fn write_bytes_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.is_direct());
        self.put(offset, bytes)
    }
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let inode = self.inode.borrow();
        let start = inode.content.len().min(offset as usize);
        let end = inode.content.len().min(start.saturating_add(len));
        Ok(inode.content[start..end].to_vec())
    }
    async fn sync_data(&self) -> io::Result<()> {
        if self.machine.writes_left.get() == 0 {
            return Err(io::Error::other("the machine is dead"));
        }
        let mut inode = self.inode.borrow_mut();
        inode.durable = inode.content.clone();
        Ok(())
    }
    async fn write_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    async fn allocate(&self, len: u64) -> io::Result<()> {
        if self.machine.is_full.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut inode = self.inode.borrow_mut();
        let len = inode.content.len().max(len as usize);
        inode.content.resize(len, 0);
        Ok(())
    }
    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.inode.borrow_mut().content.resize(len as usize, 0);
        Ok(())
    }
    fn try_lock(&self) -> io::Result<()> {
        let mut inode = self.inode.borrow_mut();
        match inode.locked_by {
            Some(handle) if handle != self.handle => Err(io::ErrorKind::WouldBlock.into()),
            _ => {
                inode.locked_by = Some(self.handle);
                Ok(())
            }
        }
    }
    fn map(&self, _capacity: u64) -> io::Result<NoMap> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// There are no maps here.
#[derive(Clone)]
pub(crate) struct NoMap(Infallible);

impl Map for NoMap {
    fn capacity(&self) -> u64 {
        match self.0 {}
    }
    fn bytes(&self, _offset: u64, _len: usize) -> &[u8] {
        match self.0 {}
    }
    fn populate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        match self.0 {}
    }
}

/// There is no network here.
pub(crate) struct NoNet(Infallible);

impl Net for TestHost {
    type Listener = NoNet;
    type Stream = NoNet;
    type Moved = NoNet;

    fn listen(&self, _address: SocketAddr) -> io::Result<NoNet> {
        Err(io::ErrorKind::Unsupported.into())
    }
    async fn connect(&self, _address: SocketAddr) -> io::Result<NoNet> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&self, stream: NoNet) -> NoNet {
        stream
    }

    fn adopt(&self, moved: NoNet) -> io::Result<NoNet> {
        Ok(moved)
    }
}

impl Listener for NoNet {
    type Stream = NoNet;

    async fn accept(&self) -> io::Result<(NoNet, SocketAddr)> {
        match self.0 {}
    }
    fn local_address(&self) -> io::Result<SocketAddr> {
        match self.0 {}
    }
}

impl Stream for NoNet {
    fn poll_read(&mut self, _context: &mut Context<'_>, _buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }
    fn poll_write(&mut self, _context: &mut Context<'_>, _buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}
