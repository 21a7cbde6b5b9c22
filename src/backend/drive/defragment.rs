//! Rewrites the file without holes while it is in use: a version is copied to a new file in slices, then the batches
//! that were committed meanwhile are put into that one too, and the new file takes the old one's name.

use crate::base::planted::{Planted, is_planted};
use std::{path::PathBuf, rc::Rc, sync::Arc};

use crate::{
    backend::{
        OpenFault, Pin, SealedBatch, StoreFault,
        batch::{Batch, Key},
        build::Builder,
        cursor::Cursor,
        fault::Fault,
        node::{LeafEntry, Value},
        page::{BUCKET_FLAG, ELEMENT_LEN, HEADER_LEN, LeafElement},
        root::BucketRoot,
    },
    base::Monotonic,
    host::{Disk, Host, Map, OpenMode},
};

use super::volume::{Durability, FileOf, MapOf, TEMPORARY_PREFIX, Volume, directory, lock, write_paced};

/// Bytes copied in one slice.
const SLICE_BYTES: usize = 1 << 20;

/// A rewrite in progress.
pub(super) struct Defragmentation<H: Host> {
    host: H,
    pub(super) started: Monotonic,
    path: PathBuf,
    file: Rc<FileOf<H>>,
    copy: Copy<MapOf<H>>,
    /// What was committed since, in order.
    since: Vec<Missed>,
}

/// Batches of one commit, the deciding one first.
pub(super) struct Missed {
    pub(super) sealed: Option<Arc<SealedBatch>>,
    pub(super) job: Option<Batch>,
}

/// The copying: which version, how far, and the pages that came of it.
struct Copy<M: Map> {
    root: Pin<M>,
    builder: Builder,
    /// The bucket that is being copied, and the last key that was.
    place: Option<(Key, Option<Key>)>,
}

impl<H: Host> Defragmentation<H> {
    /// Makes the new file, beside the old one.
    pub(super) async fn begin(host: &H, volume: &Volume<H>) -> Result<Defragmentation<H>, OpenFault> {
        let root = volume.current().clone();
        let directory = directory(&volume.options().path);
        let path = directory.join(format!("{TEMPORARY_PREFIX}.{}", root.txid()));
        let file = host.disk().open(&path, OpenMode::CreateNew).await;
        let file = file.map_err(|error| OpenFault::Io("create a successor of", error))?;
        lock(&file)?;
        let builder = Builder::new(root.pages.page_size);
        Ok(Defragmentation {
            host: host.clone(),
            started: host.now(),
            path,
            file: Rc::new(file),
            copy: Copy {
                root,
                builder,
                place: None,
            },
            since: Vec::new(),
        })
    }

    /// Takes note of a commit to the old file.
    pub(super) fn missed(&mut self, missed: Missed) {
        if !is_planted(Planted::DefragmentForgets) {
            self.since.push(missed);
        }
    }

    /// Copies a slice: whether the copy is complete.
    pub(super) async fn step(&mut self) -> Result<bool, OpenFault> {
        let is_complete = self.copy.step(SLICE_BYTES)?;
        let (offset, bytes) = self.copy.builder.take_ready();
        self.write(offset, &bytes).await?;
        Ok(is_complete)
    }

    async fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), OpenFault> {
        write_paced(&*self.file, offset, bytes)
            .await
            .map_err(|error| OpenFault::Io("write a successor of", error))
    }

    /// Makes the copy a database and brings it up to date. All of it is durable, but for its name.
    pub(super) async fn finish(&mut self, volume: &Volume<H>) -> Result<Volume<H>, OpenFault> {
        let meta = self
            .copy
            .builder
            .finish(self.copy.root.meta.sequence, self.copy.root.txid());
        let (offset, bytes) = self.copy.builder.take_ready();
        self.write(offset, &bytes).await?;
        let mut metas = meta.page_as(meta.txid % 2);
        let other = crate::backend::Meta {
            txid: meta.txid - 1,
            ..meta
        }
        .page_as((meta.txid + 1) % 2);
        if meta.txid.is_multiple_of(2) {
            metas.extend(other);
        } else {
            metas = [other, metas].concat();
        }
        self.write(0, &metas).await?;
        let mut successor = Volume::adopt(self.host.clone(), volume.options().clone(), self.file.clone()).await?;
        for missed in self.since.drain(..) {
            let sealed = missed.sealed.as_deref().map(SealedBatch::changes);
            let batches: Vec<&Batch> = sealed.into_iter().chain(missed.job.as_ref()).collect();
            successor
                .commit(&batches, Durability::Unsynced)
                .await
                .map_err(open_fault)?;
        }
        // One more, so that the version is newer than any of the old file's; and this one is durable.
        successor.commit(&[], Durability::Synced).await.map_err(open_fault)?;
        assert!(successor.current().txid() > volume.current().txid());
        Ok(successor)
    }

    /// Gives the new file the old one's name. Nothing has happened if it fails.
    pub(super) async fn rename(&self, volume: &Volume<H>) -> Result<(), OpenFault> {
        let renamed = self.host.disk().rename(&self.path, &volume.options().path).await;
        renamed.map_err(|error| OpenFault::Io("replace", error))
    }

    /// Removes what was made.
    pub(super) async fn abandon(self) -> Result<(), OpenFault> {
        let removed = self.host.disk().remove(&self.path).await;
        removed.map_err(|error| OpenFault::Io("remove leftovers of", error))
    }
}

fn open_fault(fault: StoreFault) -> OpenFault {
    match fault {
        StoreFault::Io(operation, error) => OpenFault::Io(operation, error),
        StoreFault::Page(fault) => OpenFault::Page(fault),
    }
}

impl<M: Map> Copy<M> {
    /// Copies about `budget` bytes, in whole leaves: whether everything is copied.
    fn step(&mut self, budget: usize) -> Result<bool, Fault> {
        let root = self.root.clone();
        while self.builder.ready_len() < budget {
            let (name, last) = match self.place.take() {
                Some((name, last @ Some(_))) => (name, last),
                ended => match next_bucket(&root, ended.map(|(name, _)| name))? {
                    Some(name) => (name, None),
                    None => return Ok(true),
                },
            };
            let last = self.copy_bucket(&root, &name, last, budget)?;
            self.place = Some((name, last));
        }
        Ok(false)
    }

    /// Copies on in a bucket, up to the budget: the last key, or `None` if it is complete.
    fn copy_bucket(
        &mut self,
        root: &Pin<M>,
        name: &Key,
        last: Option<Key>,
        budget: usize,
    ) -> Result<Option<Key>, Fault> {
        let bucket = root.find_bucket(name.as_slice())?;
        let sequence = match bucket {
            BucketRoot::Absent => 0,
            BucketRoot::Page { sequence, .. } | BucketRoot::Inline { sequence, .. } => sequence,
        };
        let mut cursor = Cursor::new(&root.pages, bucket);
        let mut element = match &last {
            None => cursor.first()?,
            Some(last) => {
                cursor.seek(last.as_slice())?;
                cursor.next()?
            }
        };
        let mut is_first = last.is_none();
        let mut entries: Vec<LeafEntry<'_>> = Vec::new();
        let mut filled = HEADER_LEN;
        let mut verified = None;
        while let Some(LeafElement { flags, key, value }) = element {
            if let Some((page, _)) = cursor.current()?
                && verified.replace(page.id()) != Some(page.id())
                && matches!(bucket, BucketRoot::Page { .. })
            {
                page.verify_seal()?;
            }
            let len = ELEMENT_LEN + key.len() + value.len();
            if !entries.is_empty() && filled + len > self.builder.leaf_threshold() {
                let last = Key::from(entries[entries.len() - 1].key);
                self.builder.leaf(std::mem::take(&mut entries))?;
                is_first = false;
                filled = HEADER_LEN;
                if self.builder.ready_len() >= budget {
                    return Ok(Some(last));
                }
            }
            filled += len;
            entries.push(LeafEntry {
                flags,
                key,
                value: Value::Bytes(value),
            });
            element = cursor.next()?;
        }
        if is_first && self.builder.end_inline(name.clone(), sequence, &entries) {
            return Ok(None);
        }
        if !entries.is_empty() {
            self.builder.leaf(entries)?;
        }
        self.builder.end_bucket(name.clone(), sequence);
        Ok(None)
    }
}

/// The name of the first bucket, or of the one after `name`.
fn next_bucket<M: Map>(root: &Pin<M>, name: Option<Key>) -> Result<Option<Key>, Fault> {
    let mut cursor = root.root_cursor();
    let mut element = match &name {
        None => cursor.first()?,
        Some(name) => match cursor.seek(name.as_slice())? {
            Some(element) if element.key == name.as_slice() => cursor.next()?,
            element => element,
        },
    };
    while let Some(LeafElement { flags, key, .. }) = element {
        if flags & BUCKET_FLAG != 0 {
            return Ok(Some(Key::from(key)));
        }
        element = cursor.next()?;
    }
    Ok(None)
}
