//! `snapshot status`: what a saved snapshot holds, counted as etcdutl 3.6 counts.

use std::{collections::BTreeSet, path::Path};

use prost::Message;

use super::{SnapshotStatus, run::open_unused};
use crate::{
    backend::{self, BUCKETS, Bucket, Fault, Root},
    base::Revision,
    host::{File, Host, Map},
    wire::proto::mvccpb::KeyValue,
};

/// Bytes of the SHA-256 that a saved snapshot ends with.
pub(super) const HASH_BYTES: u64 = 32;

/// Whether a file of this length ends with a hash: a database's length is a multiple of its page size.
pub(super) fn has_hash(file_bytes: u64) -> bool {
    file_bytes % 512 == HASH_BYTES
}

pub(super) async fn status<H: Host>(host: &H, path: &Path) -> Result<SnapshotStatus, String> {
    let (file, file_bytes) = open_unused(host, path).await?;
    let size = if has_hash(file_bytes) {
        file_bytes - HASH_BYTES
    } else {
        file_bytes
    };
    let shown = path.display();
    let map = file.map(size).map_err(|error| format!("map {shown}: {error}"))?;
    let report = backend::check(map.clone(), size).map_err(|fault| format!("{shown}: {fault}"))?;
    if !report.faults.is_empty() {
        let lines: Vec<String> = report.faults.iter().map(|fault| format!("{shown}: {fault}")).collect();
        let count = report.faults.len();
        return Err(format!(
            "snapshot file integrity check failed. {count} errors found.\n{}",
            lines.join("\n")
        ));
    }
    let root = backend::open_root(map, size).map_err(|fault| format!("{shown}: {fault}"))?;
    status_of(&root).map_err(|error| format!("{shown}: {error}"))
}

/// Reads a sound tree.
fn status_of<M: Map>(root: &Root<M>) -> Result<SnapshotStatus, String> {
    let mut tally = Tally {
        hash: 0,
        revision: 0,
        live: BTreeSet::new(),
    };
    let mut buckets = BUCKETS;
    buckets.sort_by_key(|bucket| bucket.name());
    for bucket in buckets {
        tally.take_bucket(root, bucket)?;
    }
    let version = root.get(Bucket::Meta, b"storageVersion").map_err(fault_text)?;
    Ok(SnapshotStatus {
        hash: tally.hash,
        revision: tally.revision,
        keys: tally.live.len() as u64,
        size: root.size(),
        version: version
            .map(|version| String::from_utf8_lossy(version).into_owned())
            .unwrap_or_default(),
    })
}

fn fault_text(fault: Fault) -> String {
    fault.to_string()
}

struct Tally {
    hash: u32,
    revision: i64,
    live: BTreeSet<Vec<u8>>,
}

impl Tally {
    fn take_bucket<M: Map>(&mut self, root: &Root<M>, bucket: Bucket) -> Result<(), String> {
        if !root.has_bucket(bucket) {
            return Ok(());
        }
        self.append(bucket.name().as_bytes());
        let mut cursor = root.cursor(bucket);
        let mut pair = cursor.seek_first().map_err(fault_text)?;
        while let Some((key, value)) = pair {
            self.append(key);
            self.append(value);
            if bucket == Bucket::Key {
                self.take_revision(key, value)?;
            }
            pair = cursor.step().map_err(fault_text)?;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        self.hash = crc32c::crc32c_append(self.hash, bytes);
    }

    fn take_revision(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (revision, is_tombstone) =
            Revision::decode(key).ok_or_else(|| format!("cannot parse revision key: {key:02x?}"))?;
        self.revision = revision.main;
        let record = KeyValue::decode(value).map_err(|error| {
            format!(
                "cannot unmarshal value of revision {}.{}: {error}",
                revision.main, revision.sub
            )
        })?;
        match is_tombstone {
            true => self.live.remove(&record.key[..]),
            false => self.live.insert(record.key.to_vec()),
        };
        Ok(())
    }
}
