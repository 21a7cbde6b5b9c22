//! Measurements, by hand.

use super::*;

/// Speeds, by hand: `RINGD_SLOW=1 cargo test --release --lib backend:: -- --nocapture speed`.
#[test]
fn speed() {
    if std::env::var_os("RINGD_SLOW").is_none() {
        return;
    }
    use crate::base::Revision;
    use std::time::Instant;
    let host = MemoryHost::default();
    let mut volume = open(&host);
    let key = |n: u64| Revision::new(n as i64, 0).encode();
    let count = 1_000_000u64;
    let value = Bytes::from(vec![7; 256]);
    for batch_index in 0..100 {
        let mut batch = Batch::new();
        for n in 0..10_000 {
            batch.put(Bucket::Key, key(batch_index * 10_000 + n), value.clone());
        }
        commit(&host, &mut volume, &batch);
    }
    let image = Image::from(host.content(PATH));
    let size = crate::host::Map::capacity(&image);
    let root = crate::backend::open_root(image.clone(), size).unwrap();
    let mut numbers = Numbers(1);
    for (name, is_random) in [("random", true), ("ascending", false)] {
        let started = Instant::now();
        let mut sum = 0;
        for n in 0..count {
            let n = if is_random { numbers.next() % count } else { n };
            sum += root.get(Bucket::Key, &key(n)).unwrap().unwrap().len();
        }
        println!(
            "{name} lookups in the tree: {:?} each, {sum}",
            started.elapsed() / count as u32
        );
    }
    let started = Instant::now();
    let mut cursor = root.cursor(Bucket::Key);
    let mut pair = cursor.seek_first().unwrap();
    let mut bytes = 0;
    while let Some((key, value)) = pair {
        bytes += key.len() + value.len();
        pair = cursor.step().unwrap();
    }
    println!("scan: {:?} each, {bytes} bytes", started.elapsed() / count as u32);
    let started = Instant::now();
    let report = check(image, size).unwrap();
    println!(
        "check of {size} bytes: {:?}, {} faults",
        started.elapsed(),
        report.faults.len()
    );
    let started = Instant::now();
    crate::backend::walk::Walk::run(&root, crate::backend::walk::Depth::References);
    println!("walk at open, seals included: {:?}", started.elapsed());
    let started = Instant::now();
    let mut batch = Batch::new();
    for n in 0..10_000 {
        batch.put(Bucket::Key, key(count + n), value.clone());
    }
    println!("10,000 puts into a batch: {:?}", started.elapsed());
    let started = Instant::now();
    let found = (0..10_000)
        .filter(|n| batch.get(Bucket::Key, &key(count + (n * 7919) % 10_000)).is_some())
        .count();
    println!("lookups in the batch: {:?} each, {found}", started.elapsed() / 10_000);
    let mut freelist = crate::backend::freelist::Freelist::default();
    for _ in 0..3 {
        let inline = crate::backend::commit::InlineBuckets::default();
        let started = Instant::now();
        let draft = crate::backend::commit::draft(&root, &[&batch], &inline).unwrap();
        let drafted = started.elapsed();
        let plan = draft.place(&mut freelist);
        let mut position = crate::backend::commit::PlanPosition::default();
        let mut buffer = Vec::new();
        let mut len = 0;
        while plan.next_run(&mut position, &mut buffer).is_some() {
            len += buffer.len();
        }
        println!(
            "commit of them in memory: draft {drafted:?}, all {:?}, {len} bytes",
            started.elapsed()
        );
        freelist = crate::backend::freelist::Freelist::default();
    }
    let mut deletes = Batch::new();
    for n in (0..100_000).step_by(10) {
        deletes.delete(Bucket::Key, key(n));
    }
    let inline = crate::backend::commit::InlineBuckets::default();
    let started = Instant::now();
    crate::backend::commit::draft(&root, &[&deletes], &inline).unwrap();
    println!("10,000 deletes, every tenth of 100,000: draft {:?}", started.elapsed());
}
