//! A real etcd reads what our log and snapshot encoders write. Runs when `ETCD_BIN` names an etcd; `etcdctl` stands beside
//! it.
//!
//! etcd makes a data directory; its log is written anew by our encoder, in batches that end with filler and in segments
//! of a few kilobytes, its snapshots by ours too; etcd starts on it, has every key, and appends; then we append to what
//! etcd left, in mid-block, and it starts once more.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use prost::Message;
use raft::eraftpb::{Entry, HardState};
use ringd::{
    snapshot,
    wal::{
        LogEncoder, Replay, Tail, WalSnapshot,
        decoder::LogDecoder,
        replay::{SnapshotScan, replay, walk},
        segment::{SegmentName, segments_from, segments_in},
    },
    wire::proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader},
};

struct Etcd {
    child: Child,
    endpoint: String,
    ctl: PathBuf,
}

impl Etcd {
    fn start(binary: &Path, directory: &Path, ports: &[u16; 2], snapshot_count: u32) -> Etcd {
        let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let child = Command::new(binary)
            .args(["--name", "one", "--data-dir"])
            .arg(directory)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .args(["--snapshot-count", &snapshot_count.to_string()])
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.with_extension("log")).unwrap())
            .spawn()
            .expect("ETCD_BIN starts");
        let etcd = Etcd {
            child,
            endpoint: client,
            ctl: binary.with_file_name("etcdctl"),
        };
        for _ in 0..100 {
            if etcd.ctl(&["endpoint", "health"]).is_some() {
                return etcd;
            }
            sleep(Duration::from_millis(100));
        }
        let log = fs::read_to_string(directory.with_extension("log")).unwrap();
        panic!("etcd does not start:\n{log}");
    }

    fn ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new(&self.ctl)
            .args(["--endpoints", &self.endpoint])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }

    fn put(&self, keys: std::ops::Range<u32>) {
        for key in keys {
            let value = "v".repeat((key * 97 % 3000) as usize + 1);
            self.ctl(&["put", &format!("key{key:03}"), &value])
                .expect("a put succeeds");
        }
    }

    fn has(&self, keys: u32) {
        let text = self.ctl(&["get", "key", "--prefix"]).expect("a get succeeds");
        let mut lines = text.lines();
        for key in 0..keys {
            assert_eq!(lines.next(), Some(format!("key{key:03}").as_str()));
            assert_eq!(lines.next().map(str::len), Some((key * 97 % 3000) as usize + 1));
        }
        assert_eq!(lines.next(), None);
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().is_ok());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Segments = Vec<(SegmentName, Vec<u8>)>;

fn read_log(directory: &Path) -> (Replay, Tail, Vec<WalSnapshot>, Segments) {
    let names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let segments: Segments = segments_in(&names)
        .into_iter()
        .map(|name| (name, fs::read(directory.join(name.to_string())).unwrap()))
        .collect();
    let borrowed: Vec<(SegmentName, &[u8])> = segments.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let mut scan = SnapshotScan::default();
    walk(&borrowed, &mut LogDecoder::new(), &mut scan).expect("etcd's log is whole");
    let snapshots = scan.finish();
    // etcd purges segments that it does not need any more.
    let from = match segments[0].0.sequence {
        0 => WalSnapshot::default(),
        _ => snapshots.last().expect("what is purged is covered").clone(),
    };
    let names: Vec<SegmentName> = segments.iter().map(|(name, _)| *name).collect();
    let needed = segments_from(&names, from.index).expect("nothing is missing").len();
    let (replay, tail) = replay(&borrowed[borrowed.len() - needed..], &from).expect("etcd's log is whole");
    (replay, tail, snapshots, segments)
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.vote, hard_state.commit) = (term, vote, commit);
    hard_state
}

/// Writes the log anew: batches of one to five entries, segments of 16 KiB.
fn rewrite_log(directory: &Path) -> usize {
    let (replay, _, snapshots, old) = read_log(directory);
    let mut segments = Segments::new();
    let mut encoder = LogEncoder::create(&replay.metadata);
    encoder.set_cut_at(16 * 1024);
    let mut batches = 0;
    let mut seal = |encoder: &mut LogEncoder| {
        let Some(batch) = encoder.seal(|len| vec![0; len]) else {
            return;
        };
        if let Some(name) = batch.begins {
            segments.push((name, Vec::new()));
        }
        let (_, bytes) = segments.last_mut().unwrap();
        assert_eq!(batch.offset, bytes.len() as u64);
        bytes.extend_from_slice(&batch.bytes);
        batches += 1;
    };
    seal(&mut encoder);
    let vote = replay.hard_state.vote;
    let mut rest = &replay.entries[..];
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(rest.len().min(1 + rest.len() % 5));
        let last = batch.last().unwrap();
        encoder.append(batch, Some(&hard_state(last.term, vote, last.index)));
        for snapshot in snapshots.iter().filter(|snapshot| {
            let covered = batch[0].index..=last.index;
            covered.contains(&snapshot.index.0)
        }) {
            encoder.append_snapshot(snapshot);
        }
        seal(&mut encoder);
        rest = behind;
    }
    encoder.append(&[], Some(&replay.hard_state));
    seal(&mut encoder);
    segments.last_mut().unwrap().1.resize(256 * 1024, 0);
    for (name, _) in old {
        fs::remove_file(directory.join(name.to_string())).unwrap();
    }
    for (name, bytes) in &segments {
        fs::write(directory.join(name.to_string()), bytes).unwrap();
    }
    assert!(segments.len() > 3 && batches > segments.len());
    segments.len()
}

/// Writes every snapshot anew, its store from what we understand of it.
fn rewrite_snapshots(directory: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "snap") {
            continue;
        }
        let mut saved = snapshot::file::decode(&fs::read(&path).unwrap()).unwrap();
        let image = snapshot::v2store::decode(&saved.data).unwrap();
        assert_eq!(
            (image.members.len(), image.cluster_version.as_deref()),
            (1, Some("3.5.0"))
        );
        saved.data = snapshot::v2store::encode(&image).into();
        fs::write(&path, snapshot::file::encode(&saved)).unwrap();
        count += 1;
    }
    count
}

/// Appends a put to what etcd left: a log that ends in mid-block.
fn append_put(directory: &Path, key: &str, value_len: usize) {
    let (replay, tail, _, segments) = read_log(directory);
    let last = replay.entries.last();
    assert!(last.is_none_or(|entry| entry.index == tail.last_index.0));
    let request = InternalRaftRequest {
        header: Some(RequestHeader {
            id: 1,
            ..RequestHeader::default()
        }),
        put: Some(PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: vec![b'v'; value_len].into(),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    };
    let mut entry = Entry::default();
    (entry.index, entry.term) = (tail.last_index.0 + 1, tail.hard_state.term);
    entry.data = request.encode_to_vec().into();
    let state = hard_state(tail.hard_state.term, tail.hard_state.vote, entry.index);
    let (name, bytes) = segments.last().unwrap();
    let position = tail.position as usize;
    assert_ne!(position % 4096, 0);
    let mut encoder = LogEncoder::resume(tail, &bytes[position / 4096 * 4096..position]);
    encoder.append(&[entry], Some(&state));
    let batch = encoder.seal(|len| vec![0; len]).unwrap();
    assert_eq!(batch.begins, None);
    let mut bytes = bytes.clone();
    let end = batch.offset as usize + batch.bytes.len();
    bytes[batch.offset as usize..end].copy_from_slice(&batch.bytes);
    fs::write(directory.join(name.to_string()), bytes).unwrap();
}

fn two_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn run(snapshot_count: u32) {
    let Some(binary) = std::env::var_os("ETCD_BIN").map(PathBuf::from) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    let (wal, snap) = (directory.join("member/wal"), directory.join("member/snap"));
    let ports = two_ports();

    let etcd = Etcd::start(&binary, &directory, &ports, snapshot_count);
    etcd.put(0..60);
    etcd.stop();
    let segments = rewrite_log(&wal);
    let snapshots = rewrite_snapshots(&snap);
    if snapshots == 0 {
        // Everything comes from the log then.
        fs::remove_file(snap.join("db")).unwrap();
    }
    println!("{segments} segments and {snapshots} snapshots rewritten");

    let etcd = Etcd::start(&binary, &directory, &ports, snapshot_count);
    etcd.has(60);
    etcd.put(60..80);
    etcd.has(80);
    etcd.stop();

    append_put(&wal, "key080", 80 * 97 % 3000 + 1);
    let etcd = Etcd::start(&binary, &directory, &ports, snapshot_count);
    etcd.has(81);
    etcd.stop();
}

#[test]
fn etcd_replays_our_log_from_the_start_without_a_database() {
    run(100_000);
}

#[test]
fn etcd_replays_our_log_behind_our_snapshot() {
    run(10);
}
