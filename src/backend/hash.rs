//! etcd's `Maintenance.Hash`: CRC-32C over all buckets in order of name, each its name and then keys and values, without what
//! members may differ in.

use crate::host::Map;

use super::{
    batch::{Batch, Key},
    bucket::Bucket,
    cursor::Cursor,
    fault::Fault,
    messages::{HashReport, Progress, StoreJob},
    page::{BUCKET_FLAG, LeafElement},
    root::Pin,
};

/// Keys of `meta` that are left out: applied index and term follow the log's internal entries, and the storage version is
/// raised by each member for itself.
const META_IGNORED: [&[u8]; 3] = [b"consistent_index", b"term", b"storageVersion"];

/// Bytes of keys and values that one slice reads.
const SLICE_BYTES: usize = 4 << 20;

/// The checksum, computed in slices over the version that its first slice saw.
pub(super) struct HashJob<M: Map> {
    root: Option<Pin<M>>,
    crc: u32,
    /// The bucket that is being read, and the last key read of it.
    place: Option<(Key, Option<Key>)>,
}

impl<M: Map> HashJob<M> {
    pub(super) fn new() -> HashJob<M> {
        HashJob {
            root: None,
            crc: 0,
            place: None,
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    /// The next bucket's name, in order.
    fn next_bucket(&self, root: &Pin<M>) -> Result<Option<Key>, Fault> {
        let mut buckets = root.root_cursor();
        let mut element = match &self.place {
            None => buckets.first()?,
            Some((name, _)) => match buckets.seek(name.as_slice())? {
                Some(element) if element.key == name.as_slice() => buckets.next()?,
                element => element,
            },
        };
        while let Some(LeafElement { flags, key, .. }) = element {
            if flags & BUCKET_FLAG != 0 {
                return Ok(Some(Key::from(key)));
            }
            element = buckets.next()?;
        }
        Ok(None)
    }

    /// Reads on in the present bucket: whether it came to its end.
    fn read(&mut self, root: &Pin<M>, name: &Key, last: &mut Option<Key>, budget: &mut usize) -> Result<bool, Fault> {
        let bucket = root.find_bucket(name.as_slice())?;
        let mut cursor = Cursor::new(&root.pages, bucket);
        let mut element = match last {
            None => cursor.first()?,
            Some(last) => {
                cursor.seek(last.as_slice())?;
                cursor.next()?
            }
        };
        let is_meta = name.as_slice() == Bucket::Meta.name().as_bytes();
        while let Some(LeafElement { key, value, .. }) = element {
            if !(is_meta && META_IGNORED.contains(&key)) {
                self.append(key);
                self.append(value);
            }
            let len = key.len() + value.len();
            if *budget < len {
                *last = Some(Key::from(key));
                *budget = 0;
                return Ok(false);
            }
            *budget -= len;
            element = cursor.next()?;
        }
        Ok(true)
    }
}

impl<M: Map> StoreJob<M> for HashJob<M> {
    fn step(&mut self, root: &Pin<M>, _changes: &mut Batch) -> Result<Progress, Fault> {
        let root = self.root.get_or_insert_with(|| root.clone()).clone();
        let mut budget = SLICE_BYTES;
        loop {
            let (name, mut last) = match self.place.take() {
                // Within a bucket.
                Some((name, last @ Some(_))) => (name, last),
                ended => {
                    self.place = ended;
                    let Some(name) = self.next_bucket(&root)? else {
                        return Ok(Progress::Done(Box::new(HashReport { hash: self.crc })));
                    };
                    self.append(name.as_slice());
                    (name, None)
                }
            };
            let is_ended = self.read(&root, &name, &mut last, &mut budget)?;
            self.place = Some((name, if is_ended { None } else { last }));
            if !is_ended {
                return Ok(Progress::More);
            }
        }
    }
}
