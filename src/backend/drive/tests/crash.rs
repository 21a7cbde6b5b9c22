//! Crashes between any two effects of a commit, and damage of any byte.

use super::*;
use crate::backend::drive::memory_host::{Done, apply};

#[test]
fn a_crash_between_any_two_writes_leaves_the_old_version_or_the_new() {
    let host = MemoryHost::default();
    let mut numbers = Numbers(7);
    let mut durable = Vec::new();
    let mut volume = open(&host);
    for done in host.take_log(PATH) {
        apply(&mut durable, &done);
    }
    let mut before = contents(volume.current());
    let mut states = 0;
    let rounds = if std::env::var_os("RINGD_SLOW").is_some() {
        60
    } else {
        10
    };
    for round in 0..rounds {
        let mut batch = Batch::new();
        for n in 0..200 {
            let key = (numbers.next() % 1000).to_be_bytes();
            let bucket = BUCKETS[(n % 4) as usize];
            if numbers.next().is_multiple_of(3) {
                batch.delete(bucket, key);
            } else {
                batch.put(
                    bucket,
                    key,
                    Bytes::from(vec![round as u8; (numbers.next() % 400) as usize]),
                );
            }
        }
        commit(&host, &mut volume, &batch);
        let after = contents(volume.current());
        let log = host.take_log(PATH);
        for end in 0..=log.len() {
            for choice in 0..3u64 {
                let image = crash(&durable, &log[..end], choice, &mut numbers);
                let crashed = MemoryHost::default();
                crashed.add_file(PATH, image);
                let reopened = open(&crashed);
                let found = contents(reopened.current());
                assert!(found == before || found == after, "round {round}, crash at {end}");
                if end == log.len() {
                    assert!(found == after, "a commit that was acknowledged is there");
                }
                states += 1;
            }
        }
        for done in &log {
            apply(&mut durable, done);
        }
        before = after;
    }
    assert!(states > rounds * 10);
}

/// The file after a crash at the end of `log`: what was synced, and of the rest all, nothing, or some sectors.
pub(super) fn crash(durable: &[u8], log: &[Done], choice: u64, numbers: &mut Numbers) -> Vec<u8> {
    let mut image = durable.to_vec();
    let synced = log
        .iter()
        .rposition(|done| matches!(done, Done::Sync))
        .map_or(0, |index| index + 1);
    for done in &log[..synced] {
        apply(&mut image, done);
    }
    for done in &log[synced..] {
        match done {
            Done::Write(offset, bytes) => {
                for (index, sector) in bytes.chunks(512).enumerate() {
                    let is_written = match choice {
                        0 => false,
                        1 => true,
                        _ => numbers.next().is_multiple_of(2),
                    };
                    let at = offset + index as u64 * 512;
                    // A sector beyond the old end that was lost reads as zeros.
                    apply(&mut image, &Done::Length(at + sector.len() as u64));
                    if is_written {
                        apply(&mut image, &Done::Write(at, sector.to_vec()));
                    }
                }
            }
            other => apply(&mut image, other),
        }
    }
    image
}

#[test]
fn an_interrupted_creation_is_begun_anew() {
    let host = MemoryHost::default();
    drop(open(&host));
    let log = host.take_log(PATH);
    let mut numbers = Numbers(3);
    for end in 0..log.len() {
        for choice in 0..3 {
            let crashed = MemoryHost::default();
            crashed.add_file(PATH, crash(&[], &log[..end], choice, &mut numbers));
            let volume = open(&crashed);
            assert!(contents(volume.current()).is_empty());
            assert_sound(crashed.content(PATH));
        }
    }
}

#[test]
fn damaged_bytes_are_told_of_and_never_a_panic() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut batch = Batch::new();
    for n in 0..400u32 {
        batch.put(Bucket::Lease, n.to_be_bytes(), Bytes::from(vec![n as u8; 50]));
        batch.put(Bucket::Key, n.to_be_bytes(), Bytes::from(vec![n as u8; 150]));
    }
    commit(&host, &mut volume, &batch);
    let mut image = host.content(PATH);
    image.truncate(volume.size() as usize);
    let mut numbers = Numbers(5);
    for seed in 0..1000 {
        let mut damaged = image.clone();
        for _ in 0..1 + numbers.next() % 4 {
            let page = numbers.next() % (damaged.len() as u64 / 4096);
            // Headers and elements stand at a page's start: most of the damage goes there.
            let within = if seed % 3 == 0 {
                numbers.next() % 4096
            } else {
                numbers.next() % 80
            };
            damaged[(page * 4096 + within) as usize] = numbers.next() as u8;
        }
        if seed % 50 == 0 {
            damaged.truncate((numbers.next() % damaged.len() as u64) as usize);
        }
        crate::backend::check::fuzz_open(&damaged);
        let page = (numbers.next() % (damaged.len() as u64 / 4096).max(1)) as usize * 4096;
        let end = (page + 4096).min(damaged.len());
        crate::backend::page::fuzz_page(&damaged[page.min(end)..end]);
        let other = MemoryHost::default();
        other.add_file(PATH, damaged);
        let opened = other.run(Volume::open(other.clone(), options()));
        if let Ok(mut volume) = opened {
            _ = other.run(volume.commit(&[&batch], Durability::Synced));
        }
    }
}

#[test]
fn a_seal_tells_of_a_flipped_bit_anywhere_in_a_page() {
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let mut batch = Batch::new();
    for n in 0..100u32 {
        batch.put(Bucket::Key, n.to_be_bytes(), Bytes::from(vec![n as u8; 100]));
    }
    commit(&host, &mut volume, &batch);
    let image = host.content(PATH);
    let report = check(Image::from(image.clone()), image.len() as u64).unwrap();
    assert_eq!(report.sealed_count, report.run_count);
    let size = volume.size() as usize;
    let root_page = volume.current().meta.root as usize * 4096;
    let mut damaged = image.clone();
    damaged[root_page + 3000] ^= 4;
    let report = check(Image::from(damaged), image.len() as u64).unwrap();
    assert!(!report.faults.is_empty() && size > root_page);
    assert!(report.faults[0].to_string().contains("checksum"));
}
