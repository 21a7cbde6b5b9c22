//! Files of a simulated machine. An operation takes virtual time, may go wrong as [`DiskFaults`] says, and acts on the
//! machine's [`Tree`](super::tree::Tree) and [`Storage`](super::storage::Storage).
//!
//! Writes and syncs are begun at once when first polled and finish by themselves, also if their future is dropped: a
//! write under way when the power fails may leave any of its sectors. On a machine that has crashed nothing finishes.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    faults::DiskFaults,
    memory::{Region, SimMap},
    random::Random,
    storage::Begun,
    trap::{Moment, Operation},
    tree::Inode,
    world::{Machine, MachineId, Outcome, Wait, World, digest},
};
use crate::host::{DIRECT_ALIGN, Disk, File, OpenMode};

/// Files of one life of a machine.
#[derive(Clone)]
pub struct SimDisk {
    pub(super) world: Rc<World>,
    pub(super) machine: MachineId,
    pub(super) incarnation: u64,
    /// How often the power had failed when this life began.
    pub(super) boot: u64,
}

/// An open file.
pub struct SimFile {
    disk: SimDisk,
    mode: OpenMode,
    open: Rc<Open>,
}

/// What the system knows of an open file. Whatever is under way on it holds it too.
struct Open {
    disk: SimDisk,
    inode: Inode,
    /// Its name when it was opened.
    path: PathBuf,
    /// Life of the machine and number of the open file: locks belong to it.
    owner: (u64, u64),
}

/// Memory for a write, which what is under way shares until it is changed.
pub struct SimBuffer(Rc<Vec<u8>>);

impl AsRef<[u8]> for SimBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for SimBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        Rc::make_mut(&mut self.0).as_mut_slice()
    }
}

/// Which range of [`Timing`](super::Timing) an operation draws from.
#[derive(Clone, Copy)]
enum Effort {
    Read,
    Write,
    Sync,
}

fn code(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl SimDisk {
    fn is_alive(&self) -> bool {
        self.world.is_alive(self.machine, self.incarnation)
    }

    fn pass_trap(&self, operation: Operation, moment: Moment, path: &Path) {
        self.world.pass_trap(self.machine, operation, moment, path);
    }

    fn faults(&self) -> DiskFaults {
        self.world
            .with_machine(self.machine, |machine| machine.faults.disk.clone())
    }

    fn sync_fails(&self) -> bool {
        self.world.strikes("sync error", self.faults().sync_error)
    }

    fn duration_nanos(&self, effort: Effort) -> u64 {
        let range = {
            let timing = self.world.timing.borrow();
            match effort {
                Effort::Read => timing.read_nanos.clone(),
                Effort::Write => timing.write_nanos.clone(),
                Effort::Sync => timing.sync_nanos.clone(),
            }
        };
        let faults = self.faults();
        let is_stalled = self.world.strikes("disk stall", faults.stall)
            || matches!(effort, Effort::Sync) && self.world.strikes("sync stall", faults.sync_stall);
        let stall = if is_stalled {
            faults.stall_for.as_nanos() as u64
        } else {
            0
        };
        self.world.chaos.borrow_mut().within(range) + stall
    }

    /// An operation that may be given up while it waits. On a machine that has crashed it never ends.
    async fn operation<T>(
        &self,
        what: &'static str,
        effort: Effort,
        path: &Path,
        act: impl FnOnce(&mut super::tree::Tree) -> io::Result<T>,
    ) -> io::Result<T> {
        let nanos = self.duration_nanos(effort);
        Wait::until(&self.world, self.world.now_nanos() + nanos).await;
        if !self.is_alive() {
            std::future::pending::<()>().await;
        }
        let result = self.world.with_machine(self.machine, |machine| act(&mut machine.tree));
        self.world.record(
            what,
            &[
                self.machine.0 as u64,
                digest(path.to_string_lossy().as_bytes()),
                u64::from(result.is_ok()),
            ],
        );
        result
    }

    /// An operation that finishes whether or not it is waited for, unless the power fails first.
    async fn detached<T: 'static>(&self, effort: Effort, finish: impl FnOnce(&SimDisk) -> T + 'static) -> T {
        let outcome = Outcome::new();
        let (disk, result) = (self.clone(), Rc::clone(&outcome));
        self.under_way(|count| *count += 1);
        self.world.after(self.duration_nanos(effort), move |_| {
            if disk.world.with_machine(disk.machine, |machine| machine.boot) == disk.boot {
                let finished = finish(&disk);
                disk.ended();
                Outcome::set(&result, finished);
            }
        });
        Outcome::get(outcome).await
    }

    fn under_way<T>(&self, act: impl FnOnce(&mut u64) -> T) -> T {
        self.world.with_machine(self.machine, |machine| {
            act(machine.under_way.entry(self.incarnation).or_default())
        })
    }

    /// An operation has ended. A killed process is gone, and what it held is free, when its last one has.
    fn ended(&self) {
        let left = self.under_way(|count| {
            *count -= 1;
            *count
        });
        if left > 0 {
            return;
        }
        let free = self.world.with_machine(self.machine, |machine| {
            machine.under_way.remove(&self.incarnation);
            machine.lingering.remove(&self.incarnation)
        });
        for (inode, owner) in free.into_iter().flatten() {
            unlock(&inode, owner);
        }
    }

    /// Whether `len` bytes of one file leave room for its growth to `new_len`.
    fn check_room(&self, inode: &Inode, new_len: u64) -> io::Result<()> {
        let Some(capacity) = self.faults().capacity_bytes else {
            return Ok(());
        };
        let len = inode.borrow().current().len();
        let growth = new_len.saturating_sub(len);
        let used = self.world.with_machine(self.machine, |machine| machine.used_bytes());
        if growth > 0 && used.saturating_add(growth) > capacity {
            self.world.count("disk full");
            return Err(code(libc::ENOSPC));
        }
        Ok(())
    }
}

impl Machine {
    /// Bytes that its files have together.
    pub(super) fn used_bytes(&self) -> u64 {
        self.tree.files().iter().map(|file| file.borrow().current().len()).sum()
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let inode = self
            .operation("open", Effort::Read, path, |tree| match mode {
                OpenMode::CreateNew => tree.create_file(path),
                _ => tree.file(path),
            })
            .await?;
        let handle = self.world.with_machine(self.machine, |machine| {
            machine.next_handle += 1;
            machine.next_handle
        });
        let owner = (self.incarnation, handle);
        Ok(SimFile {
            disk: self.clone(),
            mode,
            open: Rc::new(Open {
                disk: self.clone(),
                inode,
                path: path.to_owned(),
                owner,
            }),
        })
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read).await?;
        let len = file.open.inode.borrow().current().len();
        file.read_at(0, usize::try_from(len).expect("a small file")).await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let list = |tree: &mut super::tree::Tree| Ok(tree.directory(directory)?.list());
        self.operation("list", Effort::Read, directory, list).await
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        self.operation("exists", Effort::Read, path, |tree| match tree.find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.operation("mkdir", Effort::Read, path, |tree| tree.create_directory(path))
            .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass_trap(Operation::Rename, Moment::Begin, to);
        let rename = |tree: &mut super::tree::Tree| tree.rename(from, to);
        let renamed = self.operation("rename", Effort::Read, to, rename).await;
        self.pass_trap(Operation::Rename, Moment::End, to);
        renamed
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.operation("remove", Effort::Read, path, |tree| tree.remove(path))
            .await
    }

    async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if self.sync_fails() {
            return Err(code(libc::EIO));
        }
        self.pass_trap(Operation::SyncDirectory, Moment::Begin, path);
        let sync = |tree: &mut super::tree::Tree| tree.sync_directory(path);
        let synced = self.operation("sync_directory", Effort::Sync, path, sync).await;
        self.pass_trap(Operation::SyncDirectory, Moment::End, path);
        synced
    }
}

impl SimFile {
    fn is_direct_mode(&self) -> bool {
        matches!(self.mode, OpenMode::Direct | OpenMode::DirectDurable)
    }

    fn record(&self, what: &'static str, offset: u64, bytes: &[u8], is_done: bool) {
        let machine = self.disk.machine.0 as u64;
        let numbers = [machine, self.open.owner.1, offset, digest(bytes), u64::from(is_done)];
        self.disk.world.record(what, &numbers);
    }

    async fn write(&self, offset: u64, bytes: Rc<Vec<u8>>) -> io::Result<()> {
        if self.mode == OpenMode::Read {
            return Err(code(libc::EBADF));
        }
        self.disk.check_room(&self.open.inode, offset + bytes.len() as u64)?;
        let is_durable = self.mode == OpenMode::DirectDurable;
        let id = self.disk.world.with_machine(self.disk.machine, |machine| {
            machine.next_write += 1;
            machine.next_write
        });
        self.record("write", offset, &bytes, false);
        self.open.inode.borrow_mut().begin(id, Begun { offset, bytes });
        self.disk.pass_trap(Operation::Write, Moment::Begin, &self.open.path);
        let effort = if is_durable { Effort::Sync } else { Effort::Write };
        let open = Rc::clone(&self.open);
        self.disk
            .detached(effort, move |disk| {
                let Some(Begun { offset, bytes }) = open.inode.borrow_mut().finish(id) else {
                    return Err(code(libc::EIO));
                };
                let finished = finish_write(disk, &open.inode, offset, bytes, is_durable);
                disk.pass_trap(Operation::Write, Moment::End, &open.path);
                finished
            })
            .await
    }
}

fn finish_write(disk: &SimDisk, inode: &Inode, offset: u64, bytes: Rc<Vec<u8>>, is_durable: bool) -> io::Result<()> {
    let (faults, world) = (disk.faults(), &disk.world);
    let mut storage = inode.borrow_mut();
    let mut put = |offset: u64, bytes: Rc<Vec<u8>>| {
        if is_durable {
            storage.write_durable(offset, &bytes);
        } else {
            storage.write(offset, bytes);
        }
    };
    if world.strikes("write error", faults.write_error) {
        let part = world.chaos.borrow_mut().below(bytes.len() as u64 / 512 + 1) as usize * 512;
        put(offset, Rc::new(bytes[..part].to_vec()));
        disk.world.record("write_error", &[offset]);
        return Err(code(libc::EIO));
    }
    if world.strikes("write lost", faults.write_lost) {
        disk.world.record("write_lost", &[offset]);
        return Ok(());
    }
    let place = if world.strikes("write misdirected", faults.write_misdirected) {
        misdirect(offset, &mut world.chaos.borrow_mut())
    } else {
        offset
    };
    disk.world.record("written", &[place, bytes.len() as u64]);
    put(place, bytes);
    Ok(())
}

/// Some blocks before or behind.
fn misdirect(offset: u64, chaos: &mut Random) -> u64 {
    let away = (1 + chaos.below(16)) * DIRECT_ALIGN as u64;
    if chaos.chance(0.5) && offset >= away {
        offset - away
    } else {
        offset + away
    }
}

impl File for SimFile {
    type Buffer = SimBuffer;
    type Map = SimMap;

    async fn size(&self) -> io::Result<u64> {
        Ok(self.open.inode.borrow().current().len())
    }

    fn is_direct(&self) -> bool {
        self.is_direct_mode()
    }

    fn buffer(&self, len: usize) -> SimBuffer {
        assert!(len > 0 && len.is_multiple_of(DIRECT_ALIGN), "buffer of {len} bytes");
        SimBuffer(Rc::new(vec![0; len]))
    }

    async fn write_at(&self, offset: u64, buffer: SimBuffer) -> (io::Result<()>, SimBuffer) {
        if self.is_direct_mode() {
            assert!(offset.is_multiple_of(DIRECT_ALIGN as u64), "direct write at {offset}");
        }
        (self.write(offset, Rc::clone(&buffer.0)).await, buffer)
    }

    async fn write_bytes_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(
            !self.is_direct_mode(),
            "borrowed bytes cannot be written to a direct file"
        );
        self.write(offset, Rc::new(bytes.to_vec())).await
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if self.is_direct_mode() {
            let is_aligned = offset.is_multiple_of(DIRECT_ALIGN as u64) && len.is_multiple_of(DIRECT_ALIGN);
            assert!(is_aligned, "direct read of {len} at {offset}");
        }
        let open = Rc::clone(&self.open);
        let result = self
            .disk
            .detached(Effort::Read, move |disk| {
                let faults = disk.faults();
                if disk.world.strikes("read error", faults.read_error) {
                    return Err(code(libc::EIO));
                }
                let storage = open.inode.borrow();
                let left = storage.current().len().saturating_sub(offset);
                let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(usize::MAX))];
                storage.current().read(offset, &mut bytes);
                if !bytes.is_empty() && disk.world.strikes("read flip", faults.read_flip) {
                    let mut chaos = disk.world.chaos.borrow_mut();
                    let place = chaos.index(bytes.len());
                    bytes[place] ^= 1 << chaos.below(8);
                }
                Ok(bytes)
            })
            .await;
        self.record("read", offset, result.as_deref().unwrap_or_default(), result.is_ok());
        result
    }

    async fn sync_data(&self) -> io::Result<()> {
        let point = self.open.inode.borrow().sync_point();
        self.disk.pass_trap(Operation::Sync, Moment::Begin, &self.open.path);
        let open = Rc::clone(&self.open);
        self.disk
            .detached(Effort::Sync, move |disk| {
                let is_error = disk.sync_fails();
                disk.world
                    .record("sync", &[disk.machine.0 as u64, open.owner.1, u64::from(!is_error)]);
                if is_error {
                    open.inode.borrow_mut().sync_failed(point);
                    return Err(code(libc::EIO));
                }
                open.inode.borrow_mut().sync(point);
                disk.pass_trap(Operation::Sync, Moment::End, &open.path);
                Ok(())
            })
            .await
    }

    async fn write_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.disk.detached(Effort::Write, |_| Ok(())).await
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.check_room(&self.open.inode, len)?;
        let open = Rc::clone(&self.open);
        self.disk
            .detached(Effort::Write, move |_| {
                let mut storage = open.inode.borrow_mut();
                if storage.current().len() < len {
                    storage.set_len(len);
                }
                Ok(())
            })
            .await
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.check_room(&self.open.inode, len)?;
        let open = Rc::clone(&self.open);
        let finish = move |_: &SimDisk| {
            open.inode.borrow_mut().set_len(len);
            Ok(())
        };
        self.disk.detached(Effort::Write, finish).await
    }

    fn try_lock(&self) -> io::Result<()> {
        let mut storage = self.open.inode.borrow_mut();
        let owner = self.open.owner;
        match storage.lock_owner() {
            Some(present) if present != owner => Err(io::ErrorKind::WouldBlock.into()),
            _ => {
                storage.set_lock_owner(Some(owner));
                Ok(())
            }
        }
    }

    fn map(&self, capacity: u64) -> io::Result<SimMap> {
        let region = Region::new(capacity);
        self.open.inode.borrow_mut().attach(&region);
        Ok(SimMap::new(region, capacity))
    }
}

fn unlock(inode: &Inode, owner: (u64, u64)) {
    let mut storage = inode.borrow_mut();
    if storage.lock_owner() == Some(owner) {
        storage.set_lock_owner(None);
    }
}

impl Drop for Open {
    /// Closed by its program it is free at once. A killed process's files stay open until everything that it had begun
    /// has ended, on whatever file: Linux lets a process with requests at the device go no earlier.
    fn drop(&mut self) {
        let (disk, owner) = (&self.disk, self.owner);
        let is_held = self.inode.borrow().lock_owner() == Some(owner);
        if !is_held {
            return;
        }
        let is_lingering = !disk.is_alive()
            && disk.world.with_machine(disk.machine, |machine| {
                let is_busy = machine.under_way.get(&disk.incarnation).is_some_and(|count| *count > 0);
                if is_busy {
                    let held = machine.lingering.entry(disk.incarnation).or_default();
                    held.push((Rc::clone(&self.inode), owner));
                }
                is_busy
            });
        if !is_lingering {
            unlock(&self.inode, owner);
        }
    }
}
