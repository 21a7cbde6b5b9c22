//! Files of one executor. Direct files are written and read on the ring; everything else is a blocking call on the
//! executor's one blocking thread, in the order in which it was asked for.
//!
//! A direct file whose filesystem refuses O_DIRECT (tmpfs among them) is written through the page cache; opened durable,
//! it has O_DSYNC all the same. Dropping the future of an operation that has begun does not cancel it (`detached`).

use std::{
    fs::File as SystemFile,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use glommio::{
    GlommioError,
    io::{DmaBuffer, DmaFile, OpenOptions},
};

use super::{detached::Detached, files, map::FileMap, system};
use crate::host::{DIRECT_ALIGN, Disk, File, OpenMode};

/// Files, as seen by one executor.
#[derive(Clone, Default)]
pub struct RingDisk {
    _private: (),
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
}

/// Runs a call on the executor's blocking thread; it runs to its end even if nobody waits for it any more.
pub async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(call).await
}

impl Disk for RingDisk {
    type File = RingFile;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<RingFile> {
        if let OpenMode::Read | OpenMode::Write | OpenMode::CreateNew = mode {
            let opened = self.with_path(path, move |path| files::open(&path, mode)).await?;
            return Ok(RingFile::buffered(opened.file));
        }
        match open_on_ring(path, mode).await {
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

async fn open_on_ring(path: &Path, mode: OpenMode) -> io::Result<RingFile> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(files::durable_flags(mode))
        .dma_open(path)
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
            let part = file
                .read_at_aligned(at, len - bytes.len())
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

async fn write_on_ring(file: &DmaFile, offset: u64, buffer: &RingBuffer) -> io::Result<()> {
    let len = buffer.0.len();
    let mut written = file
        .write_rc_at(Rc::clone(&buffer.0), offset)
        .await
        .map_err(system_error)?;
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
