//! The host of a plain thread: file calls block in place, and a small executor runs the few tasks of the thread. The
//! store thread commits, compacts and writes snapshots here, where a call of milliseconds holds up nobody else.
//!
//! Wakers may be woken from any thread: they set the task's flag and unpark the thread. No lock, no queue: a turn looks
//! at every task's flag, since there are few tasks.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File as SystemFile,
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use super::{
    buffer::AlignedBuffer,
    executor::{machine_random, machine_wall_time, monotonic_since, time_origin},
    files,
    map::FileMap,
    system,
};
use crate::{
    base::{Monotonic, WallTime},
    host::{DIRECT_ALIGN, Disk, File, Host, Listener, Net, OpenMode, Stream},
};

/// The machine as seen by the tasks of one plain thread.
#[derive(Clone)]
pub struct ThreadHost {
    disk: ThreadDisk,
    net: NoNet,
    origin: Instant,
    tasks: Rc<Tasks>,
}

#[derive(Default)]
struct Tasks {
    spawned: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
    timers: RefCell<BinaryHeap<Reverse<Timer>>>,
}

struct Timer {
    at: Monotonic,
    waker: Waker,
}

/// One task's flag.
struct Flag {
    is_raised: AtomicBool,
    thread: Thread,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_raised.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

impl Flag {
    fn raised() -> Arc<Flag> {
        Arc::new(Flag {
            is_raised: AtomicBool::new(true),
            thread: thread::current(),
        })
    }

    fn lower(&self) -> bool {
        self.is_raised.swap(false, Ordering::AcqRel)
    }
}

struct Task {
    flag: Arc<Flag>,
    waker: Waker,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

impl ThreadHost {
    /// Runs `main` on this thread to its end, and meanwhile what it spawns; tasks that still run then are dropped.
    pub fn run<F: Future>(main: impl FnOnce(ThreadHost) -> F) -> F::Output {
        let host = ThreadHost {
            disk: ThreadDisk { _private: () },
            net: NoNet { _private: () },
            origin: time_origin(),
            tasks: Rc::default(),
        };
        let main_flag = Flag::raised();
        let main_waker = Waker::from(Arc::clone(&main_flag));
        let mut main = pin!(main(host.clone()));
        let mut tasks: Vec<Task> = Vec::new();
        loop {
            let mut is_idle = true;
            if main_flag.lower() {
                is_idle = false;
                if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&main_waker)) {
                    return result;
                }
            }
            tasks.retain_mut(|task| {
                if !task.flag.lower() {
                    return true;
                }
                is_idle = false;
                task.future
                    .as_mut()
                    .poll(&mut Context::from_waker(&task.waker))
                    .is_pending()
            });
            host.start_spawned(&mut tasks, &mut is_idle);
            let next = host.fire_timers(&mut is_idle);
            match (is_idle, next) {
                (false, _) => {}
                // A wake-up between the look at its flag and here makes the park return at once.
                (true, None) => thread::park(),
                (true, Some(at)) => thread::park_timeout(at.since(host.now())),
            }
        }
    }

    fn start_spawned(&self, tasks: &mut Vec<Task>, is_idle: &mut bool) {
        for future in self.tasks.spawned.borrow_mut().drain(..) {
            *is_idle = false;
            let flag = Flag::raised();
            let waker = Waker::from(Arc::clone(&flag));
            tasks.push(Task { flag, waker, future });
        }
    }

    /// Wakes whose time has come; when the next one's will.
    fn fire_timers(&self, is_idle: &mut bool) -> Option<Monotonic> {
        let mut timers = self.tasks.timers.borrow_mut();
        let now = self.now();
        while let Some(Reverse(timer)) = timers.peek() {
            if timer.at > now {
                return Some(timer.at);
            }
            timer.waker.wake_by_ref();
            timers.pop();
            *is_idle = false;
        }
        None
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Timer) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Timer) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Timer) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Host for ThreadHost {
    type Disk = ThreadDisk;
    type Net = NoNet;

    fn disk(&self) -> &ThreadDisk {
        &self.disk
    }

    fn net(&self) -> &NoNet {
        &self.net
    }

    fn now(&self) -> Monotonic {
        monotonic_since(self.origin)
    }

    fn wall_time(&self) -> WallTime {
        machine_wall_time()
    }

    fn sleep_until(&self, at: Monotonic) -> impl Future<Output = ()> + 'static {
        let host = self.clone();
        let mut is_armed = false;
        std::future::poll_fn(move |context| {
            if host.now() >= at {
                return Poll::Ready(());
            }
            // The waker of the first poll stays: a task that hands a sleep to another task has not been seen here.
            if !is_armed {
                is_armed = true;
                let waker = context.waker().clone();
                host.tasks.timers.borrow_mut().push(Reverse(Timer { at, waker }));
            }
            Poll::Pending
        })
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        futures_lite::future::yield_now()
    }

    fn random_u64(&self) -> u64 {
        machine_random()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawned.borrow_mut().push(Box::pin(async move {
            let _guard = super::executor::AbortOnPanic;
            task.await;
        }));
    }
}

/// Files, by blocking calls.
#[derive(Clone)]
pub struct ThreadDisk {
    _private: (),
}

/// An open file, by blocking calls.
pub struct ThreadFile {
    file: SystemFile,
    is_direct: bool,
}

impl Disk for ThreadDisk {
    type File = ThreadFile;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<ThreadFile> {
        let files::Opened { file, is_direct } = files::open(path, mode)?;
        Ok(ThreadFile { file, is_direct })
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        files::list(directory)
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        files::create_directory(path)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        files::sync_directory(path)
    }
}

impl ThreadFile {
    /// The open file, for calls that the host does not have.
    pub fn system_file(&self) -> &SystemFile {
        &self.file
    }
}

impl File for ThreadFile {
    type Buffer = AlignedBuffer;
    type Map = FileMap;

    async fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn is_direct(&self) -> bool {
        self.is_direct
    }

    fn buffer(&self, len: usize) -> AlignedBuffer {
        assert!(len > 0 && len.is_multiple_of(DIRECT_ALIGN), "buffer of {len} bytes");
        AlignedBuffer::new(len)
    }

    async fn write_at(&self, offset: u64, buffer: AlignedBuffer) -> (io::Result<()>, AlignedBuffer) {
        use std::os::unix::fs::FileExt;
        (self.file.write_all_at(buffer.as_ref(), offset), buffer)
    }

    async fn write_bytes_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        assert!(!self.is_direct, "borrowed bytes cannot be written to a direct file");
        self.file.write_all_at(bytes, offset)
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if !self.is_direct {
            return files::read_at(&self.file, offset, len);
        }
        let mut buffer = AlignedBuffer::new(len);
        let filled = files::read_into(&self.file, offset, buffer.as_mut())?;
        Ok(buffer.as_ref()[..filled].to_vec())
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    async fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        system::write_back(&self.file, offset, len)
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        system::allocate(&self.file, len)
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn try_lock(&self) -> io::Result<()> {
        files::try_lock(&self.file)
    }

    fn map(&self, capacity: u64) -> io::Result<FileMap> {
        FileMap::new(&self.file, capacity)
    }
}

/// The sockets of a thread that has none: every call is refused.
#[derive(Clone)]
pub struct NoNet {
    _private: (),
}

/// A listener or connection that cannot exist.
pub enum Never {}

fn no_sockets<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "a plain thread has no sockets",
    ))
}

impl Net for NoNet {
    type Listener = Never;
    type Stream = Never;
    type Moved = Never;

    fn listen(&self, _address: SocketAddr) -> io::Result<Never> {
        no_sockets()
    }

    async fn connect(&self, _address: SocketAddr) -> io::Result<Never> {
        no_sockets()
    }

    fn release(&self, stream: Never) -> Never {
        match stream {}
    }

    fn adopt(&self, moved: Never) -> io::Result<Never> {
        match moved {}
    }
}

impl Listener for Never {
    type Stream = Never;

    async fn accept(&self) -> io::Result<(Never, SocketAddr)> {
        match *self {}
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}

impl Stream for Never {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs, time::Duration};

    use super::*;
    use crate::host::{Map, Notify, mailbox};

    #[test]
    fn messages_from_another_thread_wake_the_loop_and_sleeps_end() {
        let (mut sender, mut receiver) = mailbox::<u32>(4);
        let thread = thread::spawn(move || {
            ThreadHost::run(|host| async move {
                let ticks = Rc::new(Cell::new(0));
                let counted = Rc::clone(&ticks);
                let ticker = host.clone();
                host.spawn(async move {
                    loop {
                        ticker.sleep_until(ticker.now() + Duration::from_millis(2)).await;
                        counted.set(counted.get() + 1);
                    }
                });
                let mut sum = 0;
                while let Some(number) = receiver.receive().await {
                    sum += number;
                }
                (sum, ticks.get())
            })
        });
        for number in 0..100 {
            futures_lite::future::block_on(sender.send(number)).unwrap();
            if number % 10 == 0 {
                thread::sleep(Duration::from_millis(3));
            }
        }
        drop(sender);
        let (sum, ticks) = thread.join().unwrap();
        assert_eq!(sum, 4950);
        assert!(ticks > 5, "{ticks}");
    }

    #[test]
    fn tasks_of_one_thread_take_turns() {
        let turns = ThreadHost::run(|host| async move {
            let done = Rc::new(Notify::new());
            let turns = Rc::new(RefCell::new(Vec::new()));
            for name in ["a", "b"] {
                let (host, done, turns) = (host.clone(), Rc::clone(&done), Rc::clone(&turns));
                host.clone().spawn(async move {
                    for _ in 0..3 {
                        turns.borrow_mut().push(name);
                        host.yield_now().await;
                    }
                    done.notify();
                });
            }
            while turns.borrow().len() < 6 {
                done.notified().await;
            }
            turns.take()
        });
        assert_eq!(turns, ["a", "b", "a", "b", "a", "b"]);
    }

    #[test]
    fn files_of_the_thread_do_as_asked() {
        let scratch = tempfile::tempdir().unwrap();
        ThreadHost::run(|host| async move {
            let path = scratch.path().join("db");
            let file = host.disk().open(&path, OpenMode::CreateNew).await.unwrap();
            file.allocate(1 << 20).await.unwrap();
            let map = file.map(1 << 30).unwrap();
            file.write_bytes_at(4096, &[1; 8192]).await.unwrap();
            file.write_back(4096, 8192).await.unwrap();
            file.sync_data().await.unwrap();
            assert_eq!(map.bytes(4096, 8192), vec![1; 8192]);
            map.populate(0, 1 << 20).unwrap();
            file.try_lock().unwrap();
            let direct = host.disk().open(&path, OpenMode::DirectDurable).await.unwrap();
            assert_eq!(direct.try_lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let mut buffer = direct.buffer(4096);
            buffer.as_mut().fill(2);
            let (result, buffer) = direct.write_at(8192, buffer).await;
            result.unwrap();
            assert_eq!(direct.read_at(8192, 4096).await.unwrap(), buffer.as_ref());
            assert_eq!(map.bytes(8192, 4096), vec![2; 4096]);
            assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
            let error = host.net().listen("127.0.0.1:0".parse().unwrap()).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        });
    }
}
