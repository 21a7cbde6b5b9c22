//! A database made on a real disk, judged by bbolt's own checker when `BBOLT_CHECK` names it (a program that takes a file).

use std::{path::Path, process::Command};

use bytes::Bytes;
use ringd::{
    backend::{
        Backend, Bucket, Image, JobId, SnapshotPart, Store, StoreEvent, StoreOptions, StoreRequest, check, open_root,
    },
    base::Revision,
    host::{Map, Receiver, Sender, mailbox},
    ring::{FileMap, ThreadHost},
};

/// Home's side of a store that runs on a thread of its own.
struct Home {
    backend: Backend<FileMap>,
    requests: Sender<StoreRequest<FileMap>>,
    events: Receiver<StoreEvent<FileMap>>,
    store: std::thread::JoinHandle<()>,
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    futures_lite::future::block_on(future)
}

impl Home {
    fn start(path: &Path) -> Home {
        let options = StoreOptions::new(path.to_owned());
        let (requests, store_requests) = mailbox(16);
        let (store_events, events) = mailbox(16);
        let (report_sender, report) = std::sync::mpsc::channel();
        let store = std::thread::spawn(move || {
            ThreadHost::run(|host| async move {
                let (store, report) = Store::open(host, options).await.expect("a sound file");
                report_sender.send(report).expect("home waits");
                store.run(store_requests, store_events).await;
            });
        });
        let backend = Backend::new(report.recv().expect("the store opens"));
        Home {
            backend,
            requests,
            events,
            store,
        }
    }

    fn commit(&mut self) {
        let sealed = self.backend.seal([]).expect("changes");
        self.send(StoreRequest::Commit(sealed));
        self.committed();
    }

    fn send(&mut self, request: StoreRequest<FileMap>) {
        assert!(self.requests.try_send(request).is_ok());
    }

    fn committed(&mut self) {
        match wait(self.events.receive()) {
            Some(StoreEvent::Committed(report)) => {
                if std::env::var_os("RINGD_SLOW").is_some() {
                    println!(
                        "{:?} rebalance {:?} spill {:?} write {:?}, {} bytes in {} runs",
                        report.total, report.rebalance, report.spill, report.write, report.bytes_written, report.runs
                    );
                }
                self.backend.committed(report);
            }
            _ => panic!("a commit was due"),
        }
    }

    fn stop(self) {
        drop(self.requests);
        self.store.join().expect("the store ends well");
    }
}

fn assert_sound(path: &Path) {
    let image = std::fs::read(path).unwrap();
    let size = image.len() as u64;
    let report = check(Image::from(image), size).unwrap();
    assert_eq!(report.faults, []);
    if let Some(program) = std::env::var_os("BBOLT_CHECK") {
        let output = Command::new(program).arg(path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

fn key(revision: u64) -> [u8; 17] {
    Revision::new(revision as i64, 0).encode()
}

#[test]
fn a_store_on_a_real_disk_commits_reopens_snapshots_and_defragments() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("db");
    let mut home = Home::start(&path);
    for round in 0..10 {
        for n in 0..10_000 {
            home.backend
                .put(Bucket::Key, key(round * 10_000 + n), Bytes::from(vec![n as u8; 256]));
        }
        home.commit();
    }
    home.stop();
    assert_sound(&path);
    let mut home = Home::start(&path);
    assert_eq!(home.backend.range(Bucket::Key, &[], None).count(), 100_000);
    for n in (0..100_000).filter(|n| n % 5 != 0) {
        home.backend.delete(Bucket::Key, key(n));
        if n % 10_000 == 9_999 {
            home.commit();
        }
    }
    let (sink, mut parts) = mailbox(4);
    home.send(StoreRequest::Snapshot(sink));
    home.send(StoreRequest::Defragment(JobId(1)));
    let mut image = Vec::new();
    wait(async {
        while let Some(part) = parts.receive().await {
            match part {
                SnapshotPart::Begin(_) => {}
                SnapshotPart::Data(bytes) => image.extend_from_slice(&bytes),
                SnapshotPart::End(_) => return,
                SnapshotPart::Failed(fault) => panic!("{fault}"),
            }
        }
    });
    home.committed();
    match wait(home.events.receive()) {
        Some(StoreEvent::Defragmented(JobId(1), report)) => {
            assert!(report.size_after < report.size_before / 2);
            println!("{report:?}");
        }
        _ => panic!("a defragmentation was due"),
    }
    assert_eq!(home.backend.range(Bucket::Key, &[], None).count(), 20_000);
    home.backend
        .put(Bucket::Meta, "after", Bytes::from_static(b"defragmentation"));
    home.commit();
    home.stop();
    assert_sound(&path);
    let snapshot = directory.path().join("snapshot");
    std::fs::write(&snapshot, &image).unwrap();
    assert_sound(&snapshot);
    let image = Image::from(image);
    let size = image.capacity();
    assert!(
        open_root(image, size)
            .unwrap()
            .get(Bucket::Key, &key(5))
            .unwrap()
            .is_some()
    );
}
