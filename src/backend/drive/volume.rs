//! The database file, opened: its newest version, its free pages, and how a plan becomes durable.

use crate::base::planted::{Planted, is_planted};
use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use crate::{
    backend::{
        OpenFault, Pin, StoreFault, StoreOptions,
        batch::Batch,
        check::{freelist_run, open_root},
        commit::{InlineBuckets, PlanPosition, draft},
        freelist::{Freelist, Run},
        meta::{Meta, NO_FREELIST},
        page::{FREELIST, Header, LEAF},
        root::{BucketRoot, Root},
        walk::{Depth, Walk},
    },
    host::{Disk, File, Host, Map, OpenMode},
    limits::BACKEND_WRITE_BYTES_MAX,
};

pub(super) type FileOf<H> = <<H as Host>::Disk as Disk>::File;
pub(super) type MapOf<H> = <FileOf<H> as File>::Map;

/// Pages of a new file: two metas, a free list and an empty root, as bbolt makes it.
const NEW_PAGES: u64 = 4;
/// Bytes of a page in a new file.
const NEW_PAGE_SIZE: u32 = 4096;
/// The file grows by its own size, within these bounds: large steps make fewer changes of the file's metadata.
const GROWTH_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024;
/// How files in the making are named; etcd removes what it finds of them when it starts, and so do we.
pub(super) const TEMPORARY_PREFIX: &str = "db.tmp";

/// An open database file.
pub(super) struct Volume<H: Host> {
    host: H,
    options: StoreOptions,
    pub(super) file: Rc<FileOf<H>>,
    freelist: Freelist,
    /// Pages of the free list that a file of etcd's may have. The next commit gives them up; until then the meta names them.
    list_run: Option<Run>,
    current: Pin<MapOf<H>>,
    /// Every version that may be in use, the current one included, oldest first.
    living: Vec<Arc<Root<MapOf<H>>>>,
    file_size: u64,
}

/// What a commit cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) rebalance: Duration,
    pub(super) spill: Duration,
    pub(super) write: Duration,
    pub(super) bytes_written: u64,
    pub(super) runs: u32,
}

/// Whether a commit waits for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    Synced,
    Unsynced,
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> OpenFault {
    move |error| OpenFault::Io(operation, error)
}

impl<H: Host> Volume<H> {
    /// Opens the file, or makes it. All of etcd's buckets are there afterwards.
    pub(super) async fn open(host: H, options: StoreOptions) -> Result<Volume<H>, OpenFault> {
        let path = options.path.clone();
        let is_new = !host.disk().exists(&path).await.map_err(failed("look for"))?;
        let mode = if is_new { OpenMode::CreateNew } else { OpenMode::Write };
        let file = host.disk().open(&path, mode).await.map_err(failed("open"))?;
        lock(&file)?;
        if is_new || is_unfinished(&file).await? {
            create(&file).await?;
        }
        if options.sync {
            // What is there may be in memory alone, and so may the name: a killed process's last commit or rename is
            // seen by this one, which will build on it, and a power failure could still take it back.
            file.sync_data().await.map_err(failed("sync"))?;
            let synced = host.disk().sync_directory(&directory(&path)).await;
            synced.map_err(failed("sync the directory of"))?;
        }
        remove_leftovers(&host, &path).await?;
        let mut volume = Volume::adopt(host, options, Rc::new(file)).await?;
        let is_missing = |bucket| volume.current.bucket(bucket) == BucketRoot::Absent;
        if crate::backend::BUCKETS.into_iter().any(is_missing) {
            match volume.commit(&[], Durability::Synced).await {
                Ok(_) => {}
                Err(StoreFault::Io(operation, error)) => return Err(OpenFault::Io(operation, error)),
                Err(StoreFault::Page(fault)) => return Err(OpenFault::Page(fault)),
            }
        }
        Ok(volume)
    }

    /// Takes over a file that is locked and has content.
    pub(super) async fn adopt(host: H, options: StoreOptions, file: Rc<FileOf<H>>) -> Result<Volume<H>, OpenFault> {
        let file_size = file.size().await.map_err(failed("read"))?;
        let map = file.map(options.map_bytes.max(file_size * 2)).map_err(failed("map"))?;
        if options.populate && file_size > 0 {
            // Without residency everything still works, more slowly.
            _ = map.populate(0, file_size);
        }
        if options.lock && file_size > 0 {
            map.lock(0, file_size)
                .map_err(failed("lock into memory (--memory-mlock, ulimit -l)"))?;
        }
        let root = open_root(map, file_size)?;
        let walk = Walk::run(&root, Depth::References);
        if let Some(fault) = walk.faults.first() {
            return Err(OpenFault::Page(*fault));
        }
        let list_run = list_run(&root, |id| walk.used.contains(id));
        let is_list = |id| list_run.is_some_and(|run| (run.id..run.id + run.count).contains(&id));
        let freelist = Freelist::rebuild(root.meta.high_water, |id| walk.used.contains(id) || is_list(id));
        let current = Arc::new(root);
        Ok(Volume {
            host,
            options,
            file,
            freelist,
            list_run,
            current: Pin(current.clone()),
            living: vec![current],
            file_size,
        })
    }

    /// Makes the name of the file durable.
    pub(super) async fn sync_name(&self) -> Result<(), StoreFault> {
        let synced = self.host.disk().sync_directory(&directory(&self.options.path)).await;
        synced.map_err(|error| StoreFault::Io("sync the directory of", error))
    }

    /// The newest version.
    pub(super) fn current(&self) -> &Pin<MapOf<H>> {
        &self.current
    }

    pub(super) fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(super) fn size(&self) -> u64 {
        self.current.meta.size()
    }

    pub(super) fn size_in_use(&self) -> u64 {
        self.size() - self.freelist.free_count() * u64::from(self.current.meta.page_size)
    }

    /// Puts changes into the tree: pages first, then the meta, each durable before the next.
    pub(super) async fn commit(&mut self, batches: &[&Batch], durability: Durability) -> Result<Cost, StoreFault> {
        let durability = if self.options.sync {
            durability
        } else {
            Durability::Unsynced
        };
        self.release();
        let started = self.host.now();
        let root = self.current.0.clone();
        let inline = InlineBuckets::default();
        let mut draft = draft(&root, batches, &inline)?;
        draft.give_up(self.list_run.take());
        let drafted = self.host.now();
        let plan = draft.place(&mut self.freelist);
        let placed = self.host.now();
        self.make_room(plan.meta.size())
            .await
            .map_err(|error| StoreFault::Io("grow", error))?;
        let mut cost = Cost {
            rebalance: drafted.since(started),
            spill: placed.since(drafted),
            ..Cost::default()
        };
        let mut position = PlanPosition::default();
        let mut buffer = Vec::new();
        let mut written = Vec::new();
        while let Some(offset) = plan.next_run(&mut position, &mut buffer) {
            write_paced(&*self.file, offset, &buffer)
                .await
                .map_err(|error| StoreFault::Io("write", error))?;
            cost.bytes_written += buffer.len() as u64;
            cost.runs += 1;
            written.push((offset, buffer.len() as u64));
        }
        if !is_planted(Planted::MetaBeforeData) {
            self.sync(durability).await?;
        }
        self.write_meta(&plan.meta).await?;
        self.sync(durability).await?;
        cost.bytes_written += u64::from(plan.meta.page_size);
        cost.write = self.host.now().since(placed);
        self.advance(plan.meta, &written)?;
        Ok(cost)
    }

    async fn sync(&self, durability: Durability) -> Result<(), StoreFault> {
        match durability {
            Durability::Unsynced => Ok(()),
            Durability::Synced if is_planted(Planted::SyncErrorRetried) => match self.file.sync_data().await {
                Ok(()) => Ok(()),
                Err(_) => self
                    .file
                    .sync_data()
                    .await
                    .map_err(|error| StoreFault::Io("sync", error)),
            },
            Durability::Synced => self
                .file
                .sync_data()
                .await
                .map_err(|error| StoreFault::Io("sync", error)),
        }
    }

    async fn write_meta(&self, meta: &Meta) -> Result<(), StoreFault> {
        let (id, page) = meta.page();
        let offset = id * u64::from(meta.page_size);
        self.file
            .write_bytes_at(offset, &page)
            .await
            .map_err(|error| StoreFault::Io("write", error))
    }

    /// Makes a new version the current one.
    fn advance(&mut self, meta: Meta, written: &[(u64, u64)]) -> Result<(), StoreFault> {
        let map = &self.current.pages.map;
        let map = if map.capacity() < meta.size() {
            let capacity = self.options.map_bytes.max(self.file_size * 2);
            self.file.map(capacity).map_err(|error| StoreFault::Io("map", error))?
        } else {
            map.clone()
        };
        if self.options.populate {
            for (offset, len) in written {
                _ = map.populate(*offset, *len);
            }
        }
        if self.options.lock {
            for (offset, len) in written {
                // What the limit leaves out is merely not locked.
                _ = map.lock(*offset, *len);
            }
        }
        let root = Arc::new(Root::new(map, meta)?);
        #[cfg(feature = "verify")]
        assert_eq!(Walk::run(&root, Depth::Keys).faults, []);
        self.living.push(root.clone());
        self.current = Pin(root);
        Ok(())
    }

    /// Frees what only versions needed that nobody can reach any more.
    fn release(&mut self) {
        // The current version has a second owner here, so that it stays. Who has the only reference to another one, as this
        // list may, knows that no reader is left, nor can come.
        self.living.retain_mut(|root| Arc::get_mut(root).is_none());
        let living: Vec<u64> = self.living.iter().map(|root| root.txid()).collect();
        self.freelist.release(&living);
    }

    /// Whether somebody else holds a version of this file.
    pub(super) fn is_held(&mut self) -> bool {
        self.living.retain_mut(|root| Arc::get_mut(root).is_none());
        // The current version has two owners here: nobody can make a third out of those.
        self.living.len() > 1 || Arc::strong_count(&self.current.0) > 2
    }

    /// Bytes of the file, unused ones included.
    pub(super) fn file_size(&self) -> u64 {
        self.file_size
    }

    /// Every page is reached by the newest version, or free, or pending; none that a living version reaches is free.
    #[cfg(test)]
    pub(super) fn assert_accounted(&self) {
        let used = Walk::run(&self.current, Depth::References).used;
        let mut count = (2..self.current.meta.high_water)
            .filter(|id| used.contains(*id))
            .count() as u64;
        count += self.freelist.free_count() + self.freelist.pending_count();
        count += self.list_run.map_or(0, |run| run.count);
        assert_eq!(count, self.current.meta.high_water - 2);
        for root in &self.living {
            let used = Walk::run(root, Depth::References).used;
            for id in self.freelist.extents().flat_map(|run| run.id..run.id + run.count) {
                assert!(
                    id >= root.meta.high_water || !used.contains(id),
                    "page {id} is free and in use"
                );
            }
        }
    }

    async fn make_room(&mut self, size: u64) -> io::Result<()> {
        if size <= self.file_size {
            return Ok(());
        }
        let grown = size + size.clamp(*GROWTH_BYTES.start(), *GROWTH_BYTES.end());
        let page_size = u64::from(self.current.meta.page_size);
        let grown = grown.next_multiple_of(page_size);
        self.file.allocate(grown).await?;
        self.file_size = grown;
        Ok(())
    }
}

/// Writes in pieces that leave the device room for the log in between.
pub(super) async fn write_paced<F: File>(file: &F, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = offset;
    for piece in bytes.chunks(BACKEND_WRITE_BYTES_MAX) {
        file.write_bytes_at(at, piece).await?;
        file.write_back(at, piece.len() as u64).await?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Takes the file's lock.
pub(super) fn lock<F: File>(file: &F) -> Result<(), OpenFault> {
    file.try_lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenFault::Locked,
        _ => OpenFault::Io("lock", error),
    })
}

/// Whether the file is one whose making was cut short: metas are written when the rest is durable, so none is there.
async fn is_unfinished<F: File>(file: &F) -> Result<bool, OpenFault> {
    let size = file.size().await.map_err(failed("read"))?;
    if size > NEW_PAGES * u64::from(NEW_PAGE_SIZE) {
        return Ok(false);
    }
    let metas = file
        .read_at(0, 2 * NEW_PAGE_SIZE as usize)
        .await
        .map_err(failed("read"))?;
    Ok(metas.iter().all(|byte| *byte == 0))
}

/// Makes an empty database as bbolt does, with its last pages first.
async fn create<F: File>(file: &F) -> Result<(), OpenFault> {
    let page_size = NEW_PAGE_SIZE as usize;
    let mut pages = vec![0; 2 * page_size];
    for (id, kind) in [(2, FREELIST), (3, LEAF)] {
        let header = Header {
            id,
            kind,
            count: 0,
            overflow: 0,
        };
        header.write(&mut pages[(id as usize - 2) * page_size..]);
    }
    file.write_bytes_at(2 * page_size as u64, &pages)
        .await
        .map_err(failed("write"))?;
    file.sync_data().await.map_err(failed("sync"))?;
    let meta = Meta {
        page_size: NEW_PAGE_SIZE,
        root: 3,
        sequence: 0,
        freelist: 2,
        high_water: NEW_PAGES,
        txid: 0,
    };
    let mut metas = meta.page_as(0);
    metas.extend(Meta { txid: 1, ..meta }.page_as(1));
    file.write_bytes_at(0, &metas).await.map_err(failed("write"))?;
    file.sync_data().await.map_err(failed("sync"))
}

/// The directory that a path is in.
pub(super) fn directory(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// Removes what an interrupted defragmentation left.
async fn remove_leftovers<H: Host>(host: &H, path: &Path) -> Result<(), OpenFault> {
    let directory = directory(path);
    let names = host
        .disk()
        .list(&directory)
        .await
        .map_err(failed("list the directory of"))?;
    for name in names.iter().filter(|name| name.starts_with(TEMPORARY_PREFIX)) {
        host.disk()
            .remove(&directory.join(name))
            .await
            .map_err(failed("remove leftovers of"))?;
    }
    Ok(())
}

/// Pages of the free list that the meta names, if it names one that is none of the tree's. Its content is not needed: the tree
/// says which pages are free.
fn list_run<M: Map>(root: &Root<M>, is_used: impl Fn(u64) -> bool) -> Option<Run> {
    if root.meta.freelist == NO_FREELIST {
        return None;
    }
    let bytes = freelist_run(&root.pages, root.meta.freelist).ok()?;
    let run = Run {
        id: root.meta.freelist,
        count: (bytes.len() / root.pages.page_size) as u64,
    };
    let is_apart = (run.id..run.id + run.count).all(|id| !is_used(id));
    is_apart.then_some(run)
}
