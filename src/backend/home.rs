//! What the core that applies reads and writes through: the open batch over the sealed one over the tree.

use std::sync::Arc;

use bytes::Bytes;

use crate::host::Map;

use super::{
    batch::{Batch, Key, SealedBatch},
    bucket::Bucket,
    fault::Fault,
    messages::CommitReport,
    range::Range,
    root::Pin,
};

/// Everything but the open batch: an unchanging version that may be read on any core.
pub struct View<M: Map> {
    root: Pin<M>,
    sealed: Option<Arc<SealedBatch>>,
}

impl<M: Map> Clone for View<M> {
    fn clone(&self) -> View<M> {
        View {
            root: self.root.clone(),
            sealed: self.sealed.clone(),
        }
    }
}

impl<M: Map> View<M> {
    /// A value. Does not allocate.
    #[inline]
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        if let Some(sealed) = &self.sealed
            && let Some(change) = sealed.batch.get(bucket, key)
        {
            return Ok(change.map(|value| &value[..]));
        }
        self.root.get(bucket, key)
    }

    /// A value of its own: shared with the sealed batch, or copied from the tree.
    pub fn get_bytes(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(sealed) = &self.sealed
            && let Some(change) = sealed.batch.get(bucket, key)
        {
            return Ok(change.cloned());
        }
        Ok(self.root.get(bucket, key)?.map(Bytes::copy_from_slice))
    }

    /// Pairs with `from <= key`, and `key < to` if there is an end.
    pub fn range(&self, bucket: Bucket, from: &[u8], to: Option<&[u8]>) -> Range<'_, M> {
        let sealed = self.sealed.as_ref().map(|sealed| sealed.batch.bucket(bucket));
        Range::new([None, sealed], self.root.cursor(bucket), from, to)
    }

    /// The tree under it.
    pub fn root(&self) -> &Pin<M> {
        &self.root
    }
}

/// The database as the applying core sees it. Reads see every change made before them.
pub struct Backend<M: Map> {
    view: View<M>,
    open: Batch,
    sequence: u64,
    size: u64,
    size_in_use: u64,
    commits: u64,
}

impl<M: Map> Backend<M> {
    /// From what opening the store reports.
    pub fn new(opened: CommitReport<M>) -> Backend<M> {
        Backend {
            view: View {
                root: opened.root,
                sealed: None,
            },
            open: Batch::new(),
            sequence: 0,
            size: opened.size,
            size_in_use: opened.size_in_use,
            commits: 0,
        }
    }

    /// A value. Does not allocate.
    #[inline]
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<&[u8]>, Fault> {
        match self.open.get(bucket, key) {
            Some(change) => Ok(change.map(|value| &value[..])),
            None => self.view.get(bucket, key),
        }
    }

    /// A value of its own: shared with a batch if it is in one, else copied from the tree.
    pub fn get_bytes(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.open.get(bucket, key) {
            Some(change) => Ok(change.cloned()),
            None => self.view.get_bytes(bucket, key),
        }
    }

    /// Sets a key. Limits as in [`Batch::put`].
    pub fn put(&mut self, bucket: Bucket, key: impl Into<Key>, value: Bytes) {
        self.open.put(bucket, key, value);
    }

    /// Removes a key, whether it is there or not.
    pub fn delete(&mut self, bucket: Bucket, key: impl Into<Key>) {
        self.open.delete(bucket, key);
    }

    /// Pairs with `from <= key`, and `key < to` if there is an end.
    pub fn range(&self, bucket: Bucket, from: &[u8], to: Option<&[u8]>) -> Range<'_, M> {
        let sealed = self.view.sealed.as_ref().map(|sealed| sealed.batch.bucket(bucket));
        Range::new(
            [Some(self.open.bucket(bucket)), sealed],
            self.view.root.cursor(bucket),
            from,
            to,
        )
    }

    /// Operations in the open batch.
    pub fn operations(&self) -> usize {
        self.open.operations()
    }

    /// Bytes of keys and values in the open batch.
    pub fn open_bytes(&self) -> usize {
        self.open.bytes()
    }

    /// Whether a sealed batch is on its way into the tree. Then no other can be sealed.
    pub fn is_committing(&self) -> bool {
        self.view.sealed.is_some()
    }

    /// Puts `meta` (the applied index and what goes with it) into the `meta` bucket, and closes the open batch: it goes to the
    /// store, and a new one is begun. Not while [`Backend::is_committing`]. `None` if there is nothing to commit.
    pub fn seal(&mut self, meta: impl IntoIterator<Item = (&'static [u8], Bytes)>) -> Option<Arc<SealedBatch>> {
        assert!(!self.is_committing());
        for (key, value) in meta {
            self.open.put(Bucket::Meta, key, value);
        }
        if self.open.is_empty() {
            return None;
        }
        self.sequence += 1;
        let successor = self.open.successor();
        let sealed = Arc::new(SealedBatch {
            batch: std::mem::replace(&mut self.open, successor),
            sequence: self.sequence,
        });
        self.view.sealed = Some(sealed.clone());
        Some(sealed)
    }

    /// Takes the root that a commit made. The sealed batch is let go if it is in it.
    pub fn committed(&mut self, report: CommitReport<M>) {
        assert!(report.root.txid() > self.view.root.txid());
        if let Some(sequence) = report.sequence {
            let sealed = self.view.sealed.take();
            assert!(sealed.is_some_and(|sealed| sealed.sequence == sequence));
        }
        self.view.root = report.root;
        self.size = report.size;
        self.size_in_use = report.size_in_use;
        self.commits += 1;
    }

    /// Holds the committed tree as it is now.
    pub fn pin(&self) -> Pin<M> {
        self.view.root.clone()
    }

    /// Holds everything but the open batch, for reading on any core.
    pub fn view(&self) -> View<M> {
        self.view.clone()
    }

    /// The open batch, to look up what a [`View`] does not have.
    pub fn open_batch(&self) -> &Batch {
        &self.open
    }

    /// Bytes up to the last page in use, as of the last commit (etcd's size; the quota counts it).
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of keys and values that are not in the tree yet.
    pub fn pending_bytes(&self) -> u64 {
        let sealed = self.view.sealed.as_ref().map_or(0, |sealed| sealed.changes().bytes());
        (self.open.bytes() + sealed) as u64
    }

    /// [`Backend::size`] less free pages.
    pub fn size_in_use(&self) -> u64 {
        self.size_in_use
    }

    /// Commits since the start.
    pub fn commits(&self) -> u64 {
        self.commits
    }
}
