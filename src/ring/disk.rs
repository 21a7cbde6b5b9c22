//! Files of one executor. Direct files are written and read on the ring; everything else is a blocking call on the
//! executor's one blocking thread, in the order in which it was asked for.
//!
//! A direct file whose filesystem refuses O_DIRECT (tmpfs among them) is written through the page cache; opened durable,
//! it has O_DSYNC all the same. Dropping the future of an operation that has begun does not cancel it (`detached`).

use std::{
    cell::RefCell,
    fs::File as SystemFile,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use glommio::{
    GlommioError,
    io::{DmaBuffer, DmaFile, OpenOptions},
};

use super::{detached::Detached, enter, files, gated::Gated, map::FileMap, system};
use crate::host::{DIRECT_ALIGN, Disk, File, OpenMode};

/// Files, as seen by one executor.
#[derive(Clone, Default)]
pub struct RingDisk {
    // Devices that glommio has been kept from polling.
    settled: Rc<RefCell<Vec<u64>>>,
}

/// An open file of one executor.
pub struct RingFile {
    // A second descriptor of the same open file: what runs on the blocking thread keeps it open by itself.
    file: Arc<SystemFile>,
    // Direct files only, and only where glommio could open them.
    on_ring: Option<Rc<DmaFile>>,
    is_direct: bool,
}

/// Memory for writes, from the executor's registered memory while that lasts.
pub struct RingBuffer(Rc<DmaBuffer>);

impl RingDisk {
    /// The disk of this thread's executor.
    pub fn new() -> RingDisk {
        RingDisk::default()
    }

    async fn with_path<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let path = path.to_owned();
        blocking(move || call(path)).await
    }

    async fn open_on_ring(&self, path: &Path, mode: OpenMode) -> io::Result<RingFile> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(files::durable_flags(mode));
        let device = self.with_path(path, std::fs::metadata).await?.dev();
        if !self.settled.borrow().contains(&device) {
            // The first file opened on a device decides, by a trial read, whether glommio polls it for completions. It
            // must not: a polling core starves the device's own work. And a trial on an empty file succeeds for lack of
            // anything to read, after which every write is refused. A file open for writing alone fails the trial.
            drop(Gated::new(options.dma_open(path)).await.map_err(system_error)?);
            self.settled.borrow_mut().push(device);
        }
        let opened = Gated::new(options.read(true).dma_open(path))
            .await
            .map_err(system_error)?;
        let file = SystemFile::from(system::duplicate(&opened)?);
        // glommio takes tmpfs without O_DIRECT, silently.
        let is_direct = system::status_flags(&file)? & libc::O_DIRECT != 0;
        Ok(RingFile {
            file: Arc::new(file),
            on_ring: Some(Rc::new(opened)),
            is_direct,
        })
    }
}

/// Runs a call on the executor's blocking thread; it runs to its end even if nobody waits for it any more.
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    Gated::new(glommio::executor().spawn_blocking(call)).await
}

impl Disk for RingDisk {
    type File = RingFile;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<RingFile> {
        if let OpenMode::Read | OpenMode::Write | OpenMode::CreateNew = mode {
            let opened = self.with_path(path, move |path| files::open(&path, mode)).await?;
            return Ok(RingFile::buffered(opened.file));
        }
        match self.open_on_ring(path, mode).await {
            // The filesystem refuses O_DIRECT: once more without, and off the ring.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let flags = files::durable_flags(mode);
                let opened = self
                    .with_path(path, move |path| files::open_buffered(&path, mode, flags))
                    .await?;
                Ok(RingFile::buffered(opened.file))
            }
            result => result,
        }
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.with_path(path, std::fs::read).await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.with_path(directory, |path| files::list(&path)).await
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        self.with_path(path, |path| path.try_exists()).await
    }

    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.with_path(path, |path| files::create_directory(&path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        self.with_path(from, move |from| std::fs::rename(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.with_path(path, std::fs::remove_file).await
    }

    async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.with_path(path, |path| files::sync_directory(&path)).await
    }
}

/// The error as the operating system gave it: glommio's own conversion loses the code.
fn system_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::from(other),
    }
}

impl RingFile {
    fn buffered(file: SystemFile) -> RingFile {
        RingFile {
            file: Arc::new(file),
            on_ring: None,
            is_direct: false,
        }
    }

    async fn with_file<T: Send + 'static>(
        &self,
        call: impl FnOnce(&SystemFile) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(&self.file);
        blocking(move || call(&file)).await
    }

    /// The open file, for calls that the host does not have.
    pub fn system_file(&self) -> &SystemFile {
        &self.file
    }
}

impl File for RingFile {
    type Buffer = RingBuffer;
    type Map = FileMap;

    async fn size(&self) -> io::Result<u64> {
        // A call that never waits for the device.
        Ok(self.file.metadata()?.len())
    }

    fn is_direct(&self) -> bool {
        self.is_direct
    }

    fn buffer(&self, len: usize) -> RingBuffer {
        assert!(len > 0 && len.is_multiple_of(DIRECT_ALIGN), "buffer of {len} bytes");
        let mut memory = glommio::allocate_dma_buffer(len);
        memory.as_bytes_mut().fill(0);
        RingBuffer(Rc::new(memory))
    }

    async fn write_at(&self, offset: u64, buffer: RingBuffer) -> (io::Result<()>, RingBuffer) {
        let Some(file) = self.on_ring.clone() else {
            let bytes = buffer.as_ref().to_vec();
            return (write_blocking(&self.file, offset, bytes).await, buffer);
        };
        debug_assert!(offset.is_multiple_of(DIRECT_ALIGN as u64));
        let written = Detached::new(async move { (write_on_ring(&file, offset, &buffer).await, buffer) });
        written.await
    }

    async fn write_durably_at(&self, offset: u64, buffer: RingBuffer) -> (io::Result<()>, RingBuffer) {
        let Some(file) = self.on_ring.clone() else {
            return match self.write_at(offset, buffer).await {
                (Ok(()), buffer) => (self.sync_data().await, buffer),
                failed => failed,
            };
        };
        debug_assert!(offset.is_multiple_of(DIRECT_ALIGN as u64));
        let written = Detached::new(async move { (write_and_sync(&file, offset, &buffer).await, buffer) });
        written.await
    }

    async fn write_bytes_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.is_direct, "borrowed bytes cannot be written to a direct file");
        write_blocking(&self.file, offset, bytes.to_vec()).await
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let Some(file) = self.on_ring.clone() else {
            return self.with_file(move |file| files::read_at(file, offset, len)).await;
        };
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            let part = Gated::new(file.read_at_aligned(at, len - bytes.len()))
                .await
                .map_err(system_error)?;
            bytes.extend_from_slice(&part);
            // A read that ends off the grid ended at the end of the file.
            if part.is_empty() || !part.len().is_multiple_of(DIRECT_ALIGN) {
                break;
            }
        }
        Ok(bytes)
    }

    async fn sync_data(&self) -> io::Result<()> {
        let Some(file) = self.on_ring.clone() else {
            return self.with_file(SystemFile::sync_data).await;
        };
        Detached::new(async move { file.fdatasync().await.map_err(system_error) }).await
    }

    async fn write_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with_file(move |file| system::write_back(file, offset, len)).await
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.with_file(move |file| system::allocate(file, len)).await
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.with_file(move |file| file.set_len(len)).await
    }

    fn try_lock(&self) -> io::Result<()> {
        files::try_lock(&self.file)
    }

    fn map(&self, capacity: u64) -> io::Result<FileMap> {
        FileMap::new(&self.file, capacity)
    }
}

async fn write_blocking(file: &Arc<SystemFile>, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = Arc::clone(file);
    blocking(move || file.write_all_at(&bytes, offset)).await
}

/// A write and an fdatasync that begins when the write has ended: one request where the kernel can be told so.
async fn write_and_sync(file: &DmaFile, offset: u64, buffer: &RingBuffer) -> io::Result<()> {
    let pair = enter::expect(file.as_raw_fd());
    // Polled in this order, they are queued one behind the other.
    let (written, synced) =
        futures_lite::future::zip(file.write_rc_at(Rc::clone(&buffer.0), offset), file.fdatasync()).await;
    let is_linked = pair.is_met();
    drop(pair);
    let written = written.map_err(system_error)?;
    match synced.map_err(system_error) {
        Ok(()) if is_linked && written == buffer.0.len() => return Ok(()),
        Ok(()) => {}
        // The link was broken by a short write: nothing was synced.
        Err(error) if is_linked && error.raw_os_error() == Some(libc::ECANCELED) => {}
        Err(error) => return Err(error),
    }
    write_rest(file, offset, buffer, written).await?;
    file.fdatasync().await.map_err(system_error)
}

async fn write_on_ring(file: &DmaFile, offset: u64, buffer: &RingBuffer) -> io::Result<()> {
    let written = file
        .write_rc_at(Rc::clone(&buffer.0), offset)
        .await
        .map_err(system_error)?;
    write_rest(file, offset, buffer, written).await
}

async fn write_rest(file: &DmaFile, offset: u64, buffer: &RingBuffer, mut written: usize) -> io::Result<()> {
    let len = buffer.0.len();
    // Part of a write may land when the disk fills up; the next part then tells why.
    while written < len {
        if written == 0 || !written.is_multiple_of(DIRECT_ALIGN) {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("{written} of {len} bytes were written"),
            ));
        }
        let mut rest = glommio::allocate_dma_buffer(len - written);
        rest.as_bytes_mut().copy_from_slice(&buffer.as_ref()[written..]);
        match file
            .write_at(rest, offset + written as u64)
            .await
            .map_err(system_error)?
        {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => written += count,
        }
    }
    Ok(())
}

impl AsRef<[u8]> for RingBuffer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl AsMut<[u8]> for RingBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        // A write consumes the buffer and gives it back when the kernel is done with it, so that nobody else has it.
        Rc::get_mut(&mut self.0)
            .expect("a buffer at hand is not being written")
            .as_bytes_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;
    use crate::{
        host::{Host, Map},
        ring::executor::run_test,
    };

    fn blocks(file: &RingFile, byte: u8, count: usize) -> RingBuffer {
        let mut buffer = file.buffer(count * DIRECT_ALIGN);
        assert!(buffer.as_ref().iter().all(|&old| old == 0), "new memory is zeroed");
        buffer.as_mut().fill(byte);
        buffer
    }

    /// Whether the directory's filesystem takes O_DIRECT, asked of the system itself.
    fn takes_direct(directory: &Path) -> bool {
        use std::os::unix::fs::OpenOptionsExt;
        let path = directory.join("probe");
        fs::write(&path, b"").unwrap();
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        opened.is_ok()
    }

    #[test]
    fn durable_direct_writes_land_and_the_flags_are_set() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("segment");
        fs::write(&path, b"").unwrap();
        let is_direct = takes_direct(scratch.path());
        let read_back = path.clone();
        run_test(move |host| async move {
            let file = host.disk().open(&path, OpenMode::DirectDurable).await.unwrap();
            let flags = system::status_flags(file.system_file()).unwrap();
            assert_eq!(flags & libc::O_DSYNC, libc::O_DSYNC);
            assert_eq!(flags & libc::O_DIRECT != 0, is_direct);
            assert_eq!(file.is_direct(), is_direct);
            file.allocate(64 * 1024).await.unwrap();
            assert_eq!(file.size().await.unwrap(), 64 * 1024);
            let mut buffer = blocks(&file, 7, 2);
            for round in 0..3u8 {
                buffer.as_mut().fill(round + 1);
                let (result, back) = file.write_at(u64::from(round) * 4096, buffer).await;
                result.unwrap();
                buffer = back;
            }
            assert_eq!(file.read_at(4096, 4096).await.unwrap(), vec![2; 4096]);
            assert_eq!(
                file.read_at(60 * 1024, 16384).await.unwrap().len(),
                4096,
                "the end cuts a read short"
            );
            assert_eq!(file.read_at(1 << 20, 4096).await.unwrap(), b"");
            file.sync_data().await.unwrap();
        });
        let content = fs::read(read_back).unwrap();
        assert_eq!((content[0], content[4096], content[8192], content[16383]), (1, 2, 3, 3));
        assert_eq!(content[16384..], vec![0; 49152]);
    }

    #[test]
    fn a_durable_write_is_one_request_to_the_kernel() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("segment");
        fs::write(&path, b"").unwrap();
        let is_direct = takes_direct(scratch.path());
        let read_back = path.clone();
        let before = enter::linked();
        run_test(move |host| async move {
            let file = host.disk().open(&path, OpenMode::Direct).await.unwrap();
            let mut buffer = blocks(&file, 1, 3);
            for round in 0..20u8 {
                buffer.as_mut().fill(round + 1);
                let (result, back) = file.write_durably_at(u64::from(round) * 8192, buffer).await;
                result.unwrap();
                buffer = back;
            }
            // Two at once: the second is not linked, and durable all the same.
            let other = blocks(&file, 99, 1);
            let both = futures_lite::future::zip(
                file.write_durably_at(1 << 20, buffer),
                file.write_durably_at(2 << 20, other),
            );
            let (one, two) = both.await;
            one.0.unwrap();
            two.0.unwrap();
        });
        assert!(!is_direct || enter::linked() - before >= 21);
        let content = fs::read(read_back).unwrap();
        assert_eq!(
            (content[0], content[8192], content[1 << 20], content[2 << 20]),
            (1, 2, 20, 99)
        );
    }

    #[test]
    fn a_failed_write_fails_with_its_own_error_and_nothing_is_synced() {
        run_test(|host| async move {
            // Opened for reading and writing, and always full.
            let path = Path::new("/dev/full");
            let Ok(file) = host.disk().open(path, OpenMode::Direct).await else {
                return;
            };
            let buffer = blocks(&file, 1, 1);
            let error = file.write_durably_at(0, buffer).await.0.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        });
    }

    #[test]
    fn several_writes_in_flight_all_land() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("segment");
        fs::write(&path, b"").unwrap();
        let read_back = path.clone();
        run_test(move |host| async move {
            let file = Rc::new(host.disk().open(&path, OpenMode::Direct).await.unwrap());
            let done = Rc::new(crate::host::Notify::new());
            let left = Rc::new(std::cell::Cell::new(64u64));
            for at in 0..64u64 {
                let (file, left, done) = (Rc::clone(&file), Rc::clone(&left), Rc::clone(&done));
                host.spawn(async move {
                    let buffer = blocks(&file, at as u8, 16);
                    file.write_at(at * 65536, buffer).await.0.unwrap();
                    left.set(left.get() - 1);
                    done.notify();
                });
            }
            while left.get() > 0 {
                done.notified().await;
            }
            file.sync_data().await.unwrap();
        });
        let content = fs::read(read_back).unwrap();
        assert_eq!(content.len(), 64 * 65536);
        assert!(
            content
                .chunks(65536)
                .enumerate()
                .all(|(at, chunk)| chunk.iter().all(|&byte| byte == at as u8))
        );
    }

    #[test]
    fn a_write_whose_waiter_is_dropped_is_finished() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("segment");
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let read_back = path.clone();
        run_test(move |host| async move {
            let file = host.disk().open(&path, OpenMode::DirectDurable).await.unwrap();
            for at in 0..256u64 {
                let buffer = blocks(&file, 9, 1);
                let mut write = std::pin::pin!(file.write_at(at * 4096, buffer));
                assert!(futures_lite::future::poll_once(write.as_mut()).await.is_none());
            }
            // They finish by themselves, in any order.
            for _ in 0..1000 {
                if fs::read(&path).unwrap().iter().all(|&byte| byte == 9) {
                    return;
                }
                host.sleep_until(host.now() + std::time::Duration::from_millis(20))
                    .await;
            }
        });
        assert!(fs::read(read_back).unwrap().iter().all(|&byte| byte == 9));
    }

    #[test]
    fn tmpfs_is_written_through_the_page_cache_with_the_durable_flag() {
        let Ok(scratch) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let path = scratch.path().join("segment");
        fs::write(&path, b"").unwrap();
        let read_back = path.clone();
        run_test(move |host| async move {
            let file = host.disk().open(&path, OpenMode::DirectDurable).await.unwrap();
            assert!(!file.is_direct());
            let flags = system::status_flags(file.system_file()).unwrap();
            assert_eq!(flags & libc::O_DSYNC, libc::O_DSYNC);
            let buffer = blocks(&file, 5, 1);
            file.write_at(4096, buffer).await.0.unwrap();
            assert_eq!(file.read_at(4096, 4096).await.unwrap(), vec![5; 4096]);
            file.sync_data().await.unwrap();
        });
        assert_eq!(fs::read(read_back).unwrap().len(), 8192);
    }

    #[test]
    fn a_filesystem_without_direct_writes_is_written_through_the_page_cache() {
        run_test(|host| async move {
            // procfs refuses O_DIRECT.
            let path = Path::new("/proc/self/oom_score_adj");
            let file = host.disk().open(path, OpenMode::DirectDurable).await.unwrap();
            assert!(!file.is_direct());
            let flags = system::status_flags(file.system_file()).unwrap();
            assert_eq!(flags & (libc::O_DSYNC | libc::O_DIRECT), libc::O_DSYNC);
            let content = file.read_at(0, 4096).await.unwrap();
            assert!(content.ends_with(b"\n"), "{content:?}");
        });
    }

    #[test]
    fn buffered_files_and_directories_do_as_asked() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().to_owned();
        run_test(move |host| async move {
            let disk = host.disk();
            let directory = root.join("x/y");
            disk.create_directory(&directory).await.unwrap();
            disk.create_directory(&directory).await.unwrap();
            let path = directory.join("a");
            let missing = disk.open(&path, OpenMode::Write).await.err().unwrap();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            let missing = disk.open(&path, OpenMode::Direct).await.err().unwrap();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            let file = disk.open(&path, OpenMode::CreateNew).await.unwrap();
            let twice = disk.open(&path, OpenMode::CreateNew).await.err().unwrap();
            assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
            file.write_bytes_at(3, b"abc").await.unwrap();
            let map = file.map(1 << 20).unwrap();
            assert_eq!(map.bytes(0, 6), b"\0\0\0abc");
            file.write_back(0, 6).await.unwrap();
            file.sync_data().await.unwrap();
            file.truncate(4).await.unwrap();
            assert_eq!(disk.read_file(&path).await.unwrap(), b"\0\0\0a");
            let buffer = blocks(&file, 1, 1);
            file.write_at(4096, buffer).await.0.unwrap();
            assert_eq!(map.bytes(4096, 4096), vec![1; 4096]);
            disk.rename(&path, &directory.join("b")).await.unwrap();
            disk.sync_directory(&directory).await.unwrap();
            assert_eq!(disk.list(&directory).await.unwrap(), ["b"]);
            assert!(!disk.exists(&path).await.unwrap());
            disk.remove(&directory.join("b")).await.unwrap();
            assert!(disk.list(&directory).await.unwrap().is_empty());
            let read_only = root.join("r");
            fs::write(&read_only, b"r").unwrap();
            let file = disk.open(&read_only, OpenMode::Read).await.unwrap();
            assert!(file.write_bytes_at(0, b"w").await.is_err());
        });
    }

    #[test]
    fn a_full_disk_is_reported_with_its_own_code() {
        run_test(|host| async move {
            let file = host.disk().open(Path::new("/dev/full"), OpenMode::Write).await.unwrap();
            let error = file.write_bytes_at(0, b"x").await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        });
    }

    #[test]
    fn another_process_is_kept_out_by_either_lock() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("db");
        fs::write(&path, b"").unwrap();
        run_test(move |host| async move {
            let file = host.disk().open(&path, OpenMode::DirectDurable).await.unwrap();
            file.try_lock().unwrap();
            let other = host.disk().open(&path, OpenMode::Write).await.unwrap();
            assert_eq!(other.try_lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            // Another process, by flock(1), and etcd's kind of lock alone, from this process: it belongs to the file.
            let status = Command::new("flock").args(["-n"]).arg(&path).arg("true").status();
            if let Ok(status) = status {
                assert!(!status.success());
            }
            let locked = system::lock_open_file(other.system_file()).unwrap_err();
            assert_eq!(locked.kind(), io::ErrorKind::WouldBlock);
            drop(file);
            // glommio closes in its next turn.
            host.sleep_until(host.now() + std::time::Duration::from_millis(50))
                .await;
            other.try_lock().unwrap();
        });
    }

    #[test]
    fn dropped_files_are_closed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("segment");
        fs::write(&path, vec![0; 4096]).unwrap();
        run_test(move |host| async move {
            let open = || {
                let mine = fs::canonicalize(&path).unwrap();
                let entries = fs::read_dir("/proc/self/fd").unwrap();
                entries
                    .filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|to| to == mine))
                    .count()
            };
            for _ in 0..10 {
                drop(host.disk().open(&path, OpenMode::DirectDurable).await.unwrap());
            }
            host.sleep_until(host.now() + std::time::Duration::from_millis(50))
                .await;
            assert_eq!(open(), 0);
        });
    }
}
