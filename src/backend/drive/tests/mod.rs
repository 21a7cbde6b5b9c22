//! The store against a model, against crashes, and against bbolt's own checker. What the others share is here.

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;

use super::{
    memory_host::{MemoryHost, MemoryMap},
    volume::{Durability, Volume},
};
use crate::backend::{
    BUCKETS, Batch, Bucket, HashReport, Image, OpenFault, Pin, Progress, StoreJob, StoreOptions, check, open_root,
};

mod crash;
mod model;
mod speed;
mod store;

const PATH: &str = "snap/db";

type Model = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

fn options() -> StoreOptions {
    StoreOptions::new(PathBuf::from(PATH))
}

fn open(host: &MemoryHost) -> Volume<MemoryHost> {
    host.run(Volume::open(host.clone(), options())).expect("a sound file")
}

fn commit(host: &MemoryHost, volume: &mut Volume<MemoryHost>, batch: &Batch) {
    host.run(volume.commit(&[batch], Durability::Synced)).expect("a commit");
}

fn contents(root: &Pin<MemoryMap>) -> Model {
    let mut found = Model::new();
    for bucket in BUCKETS {
        let mut cursor = root.cursor(bucket);
        let mut pair = cursor.seek_first().unwrap();
        while let Some((key, value)) = pair {
            found.insert((bucket, key.to_vec()), value.to_vec());
            pair = cursor.step().unwrap();
        }
    }
    found
}

fn contents_backwards(root: &Pin<MemoryMap>) -> Model {
    let mut found = Model::new();
    for bucket in BUCKETS {
        let mut cursor = root.cursor(bucket);
        let mut pair = cursor.seek_last().unwrap();
        while let Some((key, value)) = pair {
            found.insert((bucket, key.to_vec()), value.to_vec());
            pair = cursor.step_back().unwrap();
        }
    }
    found
}

/// Our check, and bbolt's if `BBOLT_CHECK` names a program that takes a file.
fn assert_sound(image: Vec<u8>) {
    let size = image.len() as u64;
    let report = check(Image::from(image.clone()), size).expect("a database");
    assert_eq!(report.faults, [], "{report:?}");
    let Some(program) = std::env::var_os("BBOLT_CHECK") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    std::fs::write(&path, image).unwrap();
    let output = std::process::Command::new(program).arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn deleting_everything_leaves_small_inline_buckets() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut batch = Batch::new();
    for n in 0..5000u32 {
        batch.put(Bucket::Lease, n.to_be_bytes(), Bytes::from(vec![1; 100]));
    }
    commit(&host, &mut volume, &batch);
    assert!(volume.size_in_use() > 500_000);
    for step in [3u32, 2, 1] {
        let mut batch = Batch::new();
        for n in (0..5000u32).filter(|n| n % step == 0) {
            batch.delete(Bucket::Lease, n.to_be_bytes());
        }
        commit(&host, &mut volume, &batch);
        assert_sound(host.content(PATH));
    }
    commit(&host, &mut volume, &Batch::new());
    assert!(contents(volume.current()).is_empty());
    assert!(volume.size_in_use() < 10 * 4096, "{}", volume.size_in_use());
}

/// A small generator, the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) ^ (self.0 << 20)
    }
}

#[test]
fn a_file_in_use_and_files_that_are_none_are_refused() {
    let host = MemoryHost::default();
    let volume = open(&host);
    let second = host.run(Volume::open(host.clone(), options())).err();
    assert!(matches!(second, Some(OpenFault::Locked)));
    drop(volume);
    drop(open(&host));
    let other = MemoryHost::default();
    other.add_file(PATH, vec![7; 100_000]);
    let fault = other.run(Volume::open(other.clone(), options())).err();
    assert!(matches!(fault, Some(OpenFault::NotDatabase)));
}

/// Commits of 2,000 puts and 200 deletes each: runs per commit, and the volume that came of it.
fn churn(host: &MemoryHost, mut delete: impl FnMut(u64) -> u64) -> (Volume<MemoryHost>, u32) {
    let mut volume = open(host);
    let mut runs = 0;
    for round in 0..40u64 {
        let mut batch = Batch::new();
        for n in 0..2000 {
            batch.put(Bucket::Key, (round * 2000 + n).to_be_bytes(), Bytes::from(vec![1; 256]));
        }
        for _ in 0..200 {
            batch.delete(Bucket::Key, delete(round * 2000 + 1).to_be_bytes());
        }
        let cost = host.run(volume.commit(&[&batch], Durability::Synced)).unwrap();
        runs += cost.runs;
    }
    (volume, runs)
}

#[test]
fn commits_lie_together_while_a_compaction_follows_them() {
    let host = MemoryHost::default();
    let mut next = 0;
    let (volume, runs) = churn(&host, |_| {
        next += 9;
        next
    });
    // Three writes of 256 KiB are what the puts need.
    assert!(runs <= 40 * 6, "{runs}");
    assert!(
        volume.size() < volume.size_in_use() * 3 / 2,
        "{} of {}",
        volume.size_in_use(),
        volume.size()
    );
    assert_sound(host.content(PATH));
}

#[test]
fn the_file_stays_bounded_when_free_pages_are_scattered() {
    let host = MemoryHost::default();
    let mut numbers = Numbers(11);
    let (volume, _) = churn(&host, |end| numbers.next() % end);
    assert!(
        volume.size() < volume.size_in_use() * 2,
        "{} of {}",
        volume.size_in_use(),
        volume.size()
    );
    assert_sound(host.content(PATH));
}

#[test]
fn two_batches_of_one_commit_keep_their_order_of_decision() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let (mut first, mut second) = (Batch::new(), Batch::new());
    first.put(Bucket::Lease, "a", Bytes::from_static(b"first"));
    first.delete(Bucket::Lease, "c");
    second.put(Bucket::Lease, "a", Bytes::from_static(b"second"));
    second.put(Bucket::Lease, "b", Bytes::from_static(b"second"));
    second.put(Bucket::Lease, "c", Bytes::from_static(b"second"));
    host.run(volume.commit(&[&first, &second], Durability::Synced)).unwrap();
    let found = contents(volume.current());
    let expected = [("a", "first"), ("b", "second")]
        .map(|(key, value)| ((Bucket::Lease, key.as_bytes().to_vec()), value.as_bytes().to_vec()));
    assert_eq!(found, Model::from(expected));
}

/// With `ETCD_DB` naming a database file of a real etcd: reads it, changes it, and leaves the result beside it, as
/// `$ETCD_DB.changed`, for other tools to judge. `ETCD_HASH` is what that etcd answered to `Maintenance.Hash`.
#[test]
fn a_file_made_by_etcd_is_sound_and_can_be_changed() {
    let Some(path) = std::env::var_os("ETCD_DB").map(PathBuf::from) else {
        return;
    };
    let image = std::fs::read(&path).unwrap();
    assert_sound(image.clone());
    let host = MemoryHost::default();
    host.add_file(PATH, image);
    let mut volume = open(&host);
    let mut model = contents(volume.current());
    if let Ok(expected) = std::env::var("ETCD_HASH") {
        let mut job = crate::backend::hash::HashJob::new();
        let report = loop {
            match StoreJob::step(&mut job, volume.current(), &mut Batch::new()).unwrap() {
                Progress::Done(report) => break report.downcast::<HashReport>().unwrap(),
                Progress::More | Progress::Pause(_) => {}
            }
        };
        assert_eq!(report.hash, expected.parse::<u32>().unwrap());
    }
    println!(
        "{} keys, {} of {} bytes in use",
        model.len(),
        volume.size_in_use(),
        volume.size()
    );
    let keys: Vec<_> = model
        .keys()
        .filter(|(bucket, _)| *bucket == Bucket::Key)
        .cloned()
        .collect();
    for chunk in keys.chunks(keys.len().div_ceil(7).max(1)) {
        let mut batch = Batch::new();
        // Every value is written anew, as it was: the file changes, what it says does not.
        for key in chunk {
            batch.put(Bucket::Key, &key.1[..], Bytes::from(model[key].clone()));
        }
        for n in 0..50u8 {
            batch.put(Bucket::AuthRoles, [b'x', n], Bytes::from(vec![n; 100]));
        }
        commit(&host, &mut volume, &batch);
        assert_sound(host.content(PATH));
    }
    let mut batch = Batch::new();
    for n in 0..50u8 {
        batch.delete(Bucket::AuthRoles, [b'x', n]);
        model.remove(&(Bucket::AuthRoles, vec![b'x', n]));
    }
    commit(&host, &mut volume, &batch);
    assert_eq!(contents(volume.current()), model);
    std::fs::write(path.with_extension("changed"), host.content(PATH)).unwrap();
}

#[test]
fn files_of_other_page_sizes_are_read_and_changed() {
    use crate::backend::{
        build::Builder,
        node::{LeafEntry, Value},
    };
    for page_size in [1024usize, 4096, 16384, 65536] {
        let mut builder = Builder::new(page_size);
        let keys: Vec<_> = (0..5000u32).map(|n| n.to_be_bytes()).collect();
        for chunk in keys.chunks(page_size / 64) {
            let entry = |key: &'static [u8; 4]| LeafEntry {
                flags: 0,
                key,
                value: Value::Bytes(b"twenty bytes of data"),
            };
            let chunk: &'static [[u8; 4]] = Vec::leak(chunk.to_vec());
            builder.leaf(chunk.iter().map(entry).collect()).unwrap();
        }
        builder.end_bucket("lease".into(), 7);
        let meta = builder.finish(0, 4);
        let (offset, pages) = builder.take_ready();
        assert_eq!(offset as usize, 2 * page_size);
        let image = [meta.page_as(0), vec![0; page_size], pages].concat();
        let host = MemoryHost::default();
        host.add_file(PATH, image.clone());
        let mut volume = open(&host);
        assert_eq!(contents(volume.current()).len(), 5000);
        let mut batch = Batch::new();
        for n in (0..5000u32).step_by(3) {
            batch.put(Bucket::Lease, n.to_be_bytes(), Bytes::from(vec![1; 200]));
            batch.delete(Bucket::Lease, (n + 1).to_be_bytes());
        }
        commit(&host, &mut volume, &batch);
        volume.assert_accounted();
        assert_eq!(contents(volume.current()).len(), 3333);
        assert_sound(host.content(PATH));
        // A damaged first meta leaves the second, wherever the page size puts it.
        let mut damaged = host.content(PATH);
        damaged[30] ^= 1;
        let size = damaged.len() as u64;
        assert!(open_root(Image::from(damaged), size).is_ok());
    }
}

#[test]
fn a_file_that_outgrows_its_mapping_is_mapped_anew_and_old_versions_stay() {
    let host = MemoryHost::default();
    let options = StoreOptions {
        map_bytes: 64 * 1024,
        ..options()
    };
    let mut volume = host.run(Volume::open(host.clone(), options)).unwrap();
    let first = volume.current().clone();
    let mut versions = Vec::new();
    for round in 0..8u64 {
        let mut batch = Batch::new();
        for n in 0..500 {
            batch.put(Bucket::Key, (round * 500 + n).to_be_bytes(), Bytes::from(vec![1; 256]));
        }
        commit(&host, &mut volume, &batch);
        versions.push(volume.current().clone());
    }
    assert!(contents(&first).is_empty());
    for (round, version) in versions.iter().enumerate() {
        assert_eq!(contents(version).len(), (round + 1) * 500);
    }
}

#[test]
fn a_value_of_megabytes_takes_a_run_that_is_given_back() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut batch = Batch::new();
    for n in 0..3u8 {
        batch.put(Bucket::Key, [n], Bytes::from(vec![n; 3 << 20]));
    }
    commit(&host, &mut volume, &batch);
    assert_sound(host.content(PATH));
    for n in 0..3u8 {
        assert_eq!(
            volume.current().get(Bucket::Key, &[n]).unwrap(),
            Some(&vec![n; 3 << 20][..])
        );
    }
    let mut batch = Batch::new();
    for n in 0..3u8 {
        batch.delete(Bucket::Key, [n]);
    }
    commit(&host, &mut volume, &batch);
    commit(&host, &mut volume, &Batch::new());
    volume.assert_accounted();
    assert!(volume.size_in_use() < 100_000);
    assert_sound(host.content(PATH));
}

#[test]
fn a_new_file_is_what_bbolt_would_make() {
    let host = MemoryHost::default();
    drop(open(&host));
    let mut image = Vec::new();
    // Up to the second sync: that is the making; buckets come after it.
    let mut syncs = 0;
    for done in host.take_log(PATH) {
        super::memory_host::apply(&mut image, &done);
        syncs += usize::from(matches!(done, super::memory_host::Done::Sync));
        if syncs == 2 {
            break;
        }
    }
    assert_eq!(image.len(), 4 * 4096);
    let report = check(Image::from(image.clone()), 16384).unwrap();
    assert_eq!((report.txid, report.used_count, report.faults.len()), (1, 4, 0));
    assert_sound(image);
}

#[test]
fn long_keys_make_a_deep_tree_that_shrinks_again() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut numbers = Numbers(2);
    let mut model = Model::new();
    for round in 0..12 {
        let mut batch = Batch::new();
        for _ in 0..40 {
            let mut key = (numbers.next() % 300).to_be_bytes().to_vec();
            key.resize(1000 + (key[7] as usize * 53) % 3000, 5);
            if round > 8 || numbers.next().is_multiple_of(4) {
                batch.delete(Bucket::Members, key.clone());
                model.remove(&(Bucket::Members, key));
            } else {
                batch.put(Bucket::Members, key.clone(), Bytes::from_static(b"value"));
                model.insert((Bucket::Members, key), b"value".to_vec());
            }
        }
        commit(&host, &mut volume, &batch);
        volume.assert_accounted();
        assert_eq!(contents(volume.current()), model);
        assert_sound(host.content(PATH));
    }
}

#[test]
fn buckets_that_are_not_etcds_stay_as_they_are() {
    use crate::backend::{
        build::Builder,
        node::{LeafEntry, Value},
    };
    let mut builder = Builder::new(4096);
    let entry = LeafEntry {
        flags: 0,
        key: b"a",
        value: Value::Bytes(&[1; 3000]),
    };
    builder.leaf(vec![entry]).unwrap();
    builder.end_bucket("foreign".into(), 3);
    let small = [LeafEntry {
        flags: 0,
        key: b"b",
        value: Value::Bytes(b"small"),
    }];
    assert!(builder.end_inline("test".into(), 4, &small));
    let meta = builder.finish(9, 2);
    let (_, pages) = builder.take_ready();
    let host = MemoryHost::default();
    host.add_file(PATH, [meta.page_as(0), vec![0; 4096], pages].concat());
    let mut volume = open(&host);
    for n in 0..20u64 {
        let mut batch = Batch::new();
        batch.put(Bucket::Key, n.to_be_bytes(), Bytes::from(vec![1; 500]));
        commit(&host, &mut volume, &batch);
    }
    assert_sound(host.content(PATH));
    let root = volume.current();
    assert_eq!(root.meta.sequence, 9);
    for (name, key, len, expected) in [("foreign", "a", 3000, 3), ("test", "b", 5, 4)] {
        let bucket = root.find_bucket(name.as_bytes()).unwrap();
        let mut cursor = crate::backend::Cursor::new(&root.pages, bucket);
        let (found, value) = cursor.seek_first().unwrap().unwrap();
        assert_eq!((found, value.len()), (key.as_bytes(), len));
        match bucket {
            crate::backend::root::BucketRoot::Page { sequence, .. }
            | crate::backend::root::BucketRoot::Inline { sequence, .. } => assert_eq!(sequence, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_written_free_list_is_checked_and_given_up_by_the_next_commit() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    for round in 0..6u32 {
        let mut batch = Batch::new();
        for n in 0..500u32 {
            batch.put(Bucket::Lease, (n * 6 + round).to_be_bytes(), Bytes::from(vec![1; 100]));
        }
        commit(&host, &mut volume, &batch);
    }
    let root = volume.current();
    let mut image = host.content(PATH);
    let list_page = root.meta.high_water;
    image.truncate(list_page as usize * 4096);
    // The list as bbolt would write it, behind everything else.
    let used = crate::backend::walk::Walk::run(root, crate::backend::walk::Depth::References).used;
    let free: Vec<u64> = (2..list_page).filter(|id| !used.contains(*id)).collect();
    assert!(free.len() > 10 && free.len() < 500);
    let mut page = vec![0; 4096];
    let header = crate::backend::page::Header {
        id: list_page,
        kind: 0x10,
        count: free.len() as u16,
        overflow: 0,
    };
    header.write(&mut page);
    for (index, id) in free.iter().enumerate() {
        page[16 + index * 8..24 + index * 8].copy_from_slice(&id.to_le_bytes());
    }
    image.extend(&page);
    let meta = crate::backend::Meta {
        freelist: list_page,
        high_water: list_page + 1,
        txid: root.txid() + 1,
        ..root.meta
    };
    let (id, meta_page) = meta.page();
    image[id as usize * 4096..(id as usize + 1) * 4096].copy_from_slice(&meta_page);
    assert_sound(image.clone());
    let size = image.len() as u64;
    for (at, value) in [(16, 3u64), (16, meta.root), (16, free[1]), (16, list_page)] {
        let mut damaged = image.clone();
        let at = list_page as usize * 4096 + at;
        damaged[at..at + 8].copy_from_slice(&value.to_le_bytes());
        assert_eq!(check(Image::from(damaged), size).unwrap().faults.len(), 1, "{value}");
    }
    let other = MemoryHost::default();
    other.add_file(PATH, image);
    let mut reopened = open(&other);
    reopened.assert_accounted();
    assert_eq!(contents(reopened.current()), contents(root));
    for _ in 0..2 {
        commit(&other, &mut reopened, &Batch::new());
        reopened.assert_accounted();
    }
    assert_sound(other.content(PATH));
}
