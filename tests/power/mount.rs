//! An ext4 on a loop device on a disk whose power we hold, seen by this process and its children alone: the mounts are in a
//! namespace of their own and end with the process, and the loop device goes with its mount.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    ptr, thread,
    time::{Duration, Instant},
};

use crate::{disk::Damage, fuse, plug::Plug, support::process::scratch};

/// How long the kernel may take to let go of a mount.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(60);

/// The machine: a disk, and the filesystem on it while it is mounted.
pub struct Machine {
    plug: Plug,
    /// The disk as a file.
    image: PathBuf,
    /// Where a server's directory is; its `data` is the mount.
    pub root: PathBuf,
    is_mounted: bool,
}

impl Machine {
    /// An empty disk; what is missing on this machine is said. To be called before there is a second thread.
    pub fn new() -> Result<Machine, String> {
        let root = scratch("power");
        let image = root.join("disk");
        let attempt = || -> io::Result<Plug> {
            File::create(&image)?;
            fs::create_dir(root.join("data"))?;
            let device = File::options().read(true).write(true).open("/dev/fuse")?;
            let mut plug = Plug::new(&device)?;
            own_namespace()?;
            mount_fuse(&device, &image)?;
            plug.serve();
            Ok(plug)
        };
        let plug = attempt().map_err(|error| format!("no disk of our own through FUSE: {error}"))?;
        Ok(Machine {
            plug,
            image,
            root,
            is_mounted: false,
        })
    }

    /// A new filesystem, mounted.
    pub fn format(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.plug.reset();
        let options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-E", options, text(&self.image)])?;
        self.mount()?;
        // A data directory holds nothing of others.
        let _ = fs::remove_dir(self.data().join("lost+found"));
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    fn mount(&mut self) -> Result<(), String> {
        let data = self.data();
        run(
            "mount",
            &["-t", "ext4", "-o", "loop,nodiscard", text(&self.image), text(&data)],
        )?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + UNMOUNT_WITHIN;
        let data = self.data();
        while self.is_mounted {
            match run("umount", &[text(&data)]) {
                Ok(()) => self.is_mounted = false,
                // The kernel may still hold a dead server's files.
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                Err(problem) => return Err(problem),
            }
        }
        Ok(())
    }

    /// Shuts the filesystem down without letting it write its journal.
    pub fn shut_filesystem_down(&self) {
        const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let directory = File::open(self.data()).expect("the mount");
        // SAFETY: the request reads one word, which outlives the call.
        let result = unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "shutdown of the ext4: {}", io::Error::last_os_error());
    }

    /// Takes the disk's power away; `seed` decides what becomes of each unflushed write.
    pub fn cut(&mut self, seed: u64) -> Damage {
        self.plug.cut(seed)
    }

    /// The machine starts again: the old mount goes, the journal is recovered. No process may be on it.
    pub fn power_on(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.plug.power_on();
        self.mount()
    }

    /// Flushes and writes that the disk has seen.
    pub fn traffic(&mut self) -> (u64, u64) {
        self.plug.traffic()
    }

    /// A filesystem in memory, mounted on a directory of its own.
    pub fn mount_memory(&self, kind: &str) -> Result<PathBuf, String> {
        let directory = self.root.join(kind);
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        run("mount", &["-t", kind, "-o", "size=512m", "none", text(&directory)])?;
        Ok(directory)
    }

    /// Ends it.
    pub fn unmount_memory(&self, directory: &Path) -> Result<(), String> {
        run("umount", &[text(directory)])
    }

    /// Ends the mounts and removes the files.
    pub fn end(mut self) {
        let ended = self.unmount().and_then(|()| run("umount", &[text(&self.image)]));
        if ended.is_ok() {
            self.plug.end();
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// Gives this process mounts of its own.
fn own_namespace() -> io::Result<()> {
    // SAFETY: both calls touch no memory of ours; the strings end with a zero.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        if libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), flags, ptr::null()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Mounts what `device` will answer on `file`.
fn mount_fuse(device: &File, file: &Path) -> io::Result<()> {
    let options = format!(
        "fd={},rootmode={:o},user_id=0,group_id=0,max_read={}",
        device.as_raw_fd(),
        fuse::ROOT_MODE,
        fuse::WRITE_BYTES_MAX
    );
    let target = CString::new(file.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    // SAFETY: all pointers are to strings that end with a zero and outlive the call.
    let result = unsafe {
        libc::mount(
            c"power".as_ptr(),
            target.as_ptr(),
            c"fuse".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}", told.trim()))
}

/// Whether the filesystem lets a file be opened with O_DIRECT.
pub fn takes_direct(file: &Path) -> bool {
    let mut options = File::options();
    options.write(true).create(true).custom_flags(libc::O_DIRECT);
    options.open(file).is_ok()
}

/// `ringd check` of a data directory.
pub fn check(program: &Path, data: &Path) -> Result<(), String> {
    run(text(program), &["check", text(data)])
}
