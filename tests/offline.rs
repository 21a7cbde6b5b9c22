//! The offline commands on real files. With `ETCD_BIN` (an etcd; `etcdctl` and `etcdutl` stand beside it) a real etcd makes
//! the snapshot and judges what was restored.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use bytes::Bytes;
use ringd::{
    backend::{Backend, Bucket, Store, StoreEvent, StoreOptions, StoreRequest},
    cli::{Invocation, invocation, run},
    host::Host,
    replica::drive::MapOf,
    ring::ThreadHost,
};

fn offline(words: &[&str]) -> Result<String, String> {
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let Invocation::Offline(command) = invocation(&words, &[], &no_file) else {
        panic!("{words:?} is no command")
    };
    let mut text = String::new();
    let mut print = |line: &str| text.push_str(line);
    ThreadHost::run(async |host| run(&host, &command, &mut print).await)
        .map(|()| text.clone())
        .map_err(|error| text + &error)
}

struct Tools {
    etcd: PathBuf,
    ctl: PathBuf,
    utl: PathBuf,
}

fn tools() -> Option<Tools> {
    let etcd = PathBuf::from(std::env::var_os("ETCD_BIN")?);
    let beside = |name: &str| etcd.with_file_name(name);
    Some(Tools {
        ctl: beside("etcdctl"),
        utl: beside("etcdutl"),
        etcd,
    })
}

struct Etcd {
    child: Child,
    endpoint: String,
    ctl: PathBuf,
}

impl Etcd {
    fn start(tools: &Tools, name: &str, data_dir: &Path, peer: &str) -> Etcd {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = format!("http://127.0.0.1:{port}");
        let log = fs::File::create(data_dir.with_extension("log")).unwrap();
        let child = Command::new(&tools.etcd)
            .args(["--name", name, "--data-dir"])
            .arg(data_dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("{name}={peer}")])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let etcd = Etcd {
            child,
            endpoint: client,
            ctl: tools.ctl.clone(),
        };
        for _ in 0..100 {
            if etcd.ctl(&["endpoint", "health"]).is_some() {
                return etcd;
            }
            sleep(Duration::from_millis(100));
        }
        panic!(
            "etcd does not come up: {}",
            fs::read_to_string(data_dir.with_extension("log")).unwrap()
        );
    }

    fn ctl(&self, words: &[&str]) -> Option<String> {
        let output = Command::new(&self.ctl)
            .args(["--endpoints", &self.endpoint])
            .args(words)
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn stop(mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_peer() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

fn utl(tools: &Tools, words: &[&str]) -> String {
    let output = Command::new(&tools.utl).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_snapshot_of_etcd_is_counted_and_restored_so_that_etcd_starts_on_it() {
    let Some(tools) = tools() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let etcd = Etcd::start(&tools, "one", Path::new(&path("one")), &free_peer());
    for index in 0..200 {
        etcd.ctl(&["put", &format!("key-{:03}", index % 50), &format!("value-{index}")])
            .unwrap();
    }
    etcd.ctl(&["del", "key-007"]).unwrap();
    etcd.ctl(&["compaction", "100"]).unwrap();
    etcd.ctl(&["lease", "grant", "1000"]).unwrap();
    let saved = path("saved.db");
    etcd.ctl(&["snapshot", "save", &saved]).unwrap();
    let all = etcd.ctl(&["get", "", "--prefix"]).unwrap();
    etcd.stop();
    assert_checks_clean(&path("one"));

    let theirs: serde_json::Value =
        serde_json::from_str(&utl(&tools, &["snapshot", "status", &saved, "-w", "json"])).unwrap();
    let ours: serde_json::Value =
        serde_json::from_str(&offline(&["snapshot", "status", &saved, "-w", "json"]).unwrap()).unwrap();
    for field in ["hash", "revision", "totalSize"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    // etcdutl 3.5 counts the pairs of all buckets, 3.6 the keys that are there.
    assert_eq!(ours["totalKey"], 49);

    let peer = free_peer();
    let restored = path("restored");
    let cluster = format!("two={peer}");
    let flags = [
        "--name",
        "two",
        "--initial-cluster",
        &cluster,
        "--initial-advertise-peer-urls",
        &peer,
    ];
    let line = [&["snapshot", "restore", &saved, "--data-dir", &restored][..], &flags].concat();
    offline(&line).unwrap();
    assert!(offline(&line).unwrap_err().contains("not empty or could not be read"));
    assert_checks_clean(&restored);

    // The same by etcdutl: databases with the same content, logs with the same records.
    let judged = path("judged");
    let line = [&["snapshot", "restore", &saved, "--data-dir", &judged][..], &flags].concat();
    utl(&tools, &line);
    assert_checks_clean(&judged);
    let hash = |dir: &str| {
        let status = utl(
            &tools,
            &["snapshot", "status", &format!("{dir}/member/snap/db"), "-w", "json"],
        );
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["hash"].clone()
    };
    assert_eq!(hash(&restored), hash(&judged));
    let records = |dir: &str| {
        let dump = offline(&["wal", "dump", dir]).unwrap();
        let text = |line: &str| line.split_once('\t').map(|(_, record)| record.to_string());
        let records: Vec<String> = dump.lines().filter_map(text).collect();
        records
            .into_iter()
            .filter(|record| !record.starts_with("crc") && !record.starts_with("filler"))
            .collect()
    };
    let (ours, theirs): (Vec<String>, Vec<String>) = (records(&restored), records(&judged));
    assert_eq!(ours, theirs);
    let snap = |dir: &str| fs::read(format!("{dir}/member/snap/0000000000000001-0000000000000001.snap")).unwrap();
    assert_eq!(snap_members(&snap(&restored)), snap_members(&snap(&judged)));

    let etcd = Etcd::start(&tools, "two", Path::new(&restored), &peer);
    assert_eq!(etcd.ctl(&["get", "", "--prefix"]).unwrap(), all);
    assert!(etcd.ctl(&["member", "list"]).unwrap().contains(&peer));
    etcd.ctl(&["put", "new", "key"]).unwrap();
    etcd.stop();
    assert_checks_clean(&restored);
    utl(&tools, &["snapshot", "status", &format!("{restored}/member/snap/db")]);
}

/// The store's JSON in a `.snap` file, without times.
fn snap_members(bytes: &[u8]) -> ringd::snapshot::StoreImage {
    let snapshot = ringd::snapshot::file::decode(bytes).unwrap();
    ringd::snapshot::v2store::decode(&snapshot.data).unwrap()
}

#[test]
fn a_raised_revision_is_compacted_on_an_etcd_as_etcdutl_s_is() {
    let Some(tools) = tools() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    let etcd = Etcd::start(&tools, "one", Path::new(&path("one")), &free_peer());
    etcd.ctl(&["put", "a", "b"]).unwrap();
    let saved = path("saved.db");
    etcd.ctl(&["snapshot", "save", &saved]).unwrap();
    etcd.stop();
    let peer = free_peer();
    let (restored, cluster) = (path("restored"), format!("two={peer}"));
    offline(&[
        "snapshot",
        "restore",
        &saved,
        "--data-dir",
        &restored,
        "--name",
        "two",
        "--initial-cluster",
        &cluster,
        "--initial-advertise-peer-urls",
        &peer,
        "--bump-revision",
        "1000",
        "--mark-compacted",
    ])
    .unwrap();
    assert_checks_clean(&restored);
    let etcd = Etcd::start(&tools, "two", Path::new(&restored), &peer);
    let status = etcd.ctl(&["get", "a", "-w", "json"]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(json["header"]["revision"], 1002);
    assert_eq!(json["kvs"][0]["mod_revision"], 2);
    etcd.stop();
}

fn assert_checks_clean(data_dir: &str) {
    let told = offline(&["check", data_dir]).unwrap_or_else(|findings| panic!("{data_dir}: {findings}"));
    assert!(told.ends_with("no findings\n"), "{told}");
}

/// Makes a database or changes one, as the server would.
fn commit_to(database: &Path, change: impl FnOnce(&mut Backend<MapOf<ThreadHost>>)) {
    ThreadHost::run(async |host| {
        let options = StoreOptions {
            populate: false,
            ..StoreOptions::new(database.to_path_buf())
        };
        let (store, opened) = Store::open(host.clone(), options).await.unwrap();
        let mut backend = Backend::new(opened);
        change(&mut backend);
        let sealed = backend.seal([]).unwrap();
        let (mut requests, store_requests) = ringd::host::mailbox(1);
        let (store_events, mut events) = ringd::host::mailbox(1);
        host.spawn(store.run(store_requests, store_events));
        assert!(requests.try_send(StoreRequest::Commit(sealed)).is_ok());
        assert!(matches!(events.receive().await, Some(StoreEvent::Committed(_))));
    });
}

/// A directory restored from a database that ringd itself made, without any tool.
fn restored_directory(scratch: &Path) -> PathBuf {
    let database = scratch.join("source.db");
    commit_to(&database, |backend| {
        let member = Bytes::from_static(b"{\"id\":170,\"peerURLs\":[]}");
        backend.put(Bucket::Members, "00000000000000aa", member);
        backend.put(Bucket::Meta, "consistent_index", Bytes::from_static(&[0; 8]));
    });
    let directory = scratch.join("data");
    let (source, target) = (database.to_str().unwrap(), directory.to_str().unwrap());
    let refused = offline(&["snapshot", "restore", source, "--data-dir", target]).unwrap_err();
    assert_eq!(refused, "snapshot missing hash but --skip-hash-check=false");
    // The refusal has left an empty directory tree behind, as etcdutl's does.
    fs::remove_dir_all(&directory).unwrap();
    offline(&["snapshot", "restore", source, "--data-dir", target, "--skip-hash-check"]).unwrap();
    directory
}

#[test]
fn damage_is_found_with_its_file() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = restored_directory(scratch.path());
    let data_dir = directory.to_str().unwrap();
    assert_checks_clean(data_dir);

    let only = |directory: &str, extension: &str| {
        let mut paths: Vec<PathBuf> = fs::read_dir(scratch.path().join("data").join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        assert_eq!(paths.len(), 1, "{paths:?}");
        paths.remove(0)
    };
    let check_damaged = |path: &Path, offset: usize| {
        let mut whole = Vec::new();
        fs::File::open(path).unwrap().read_to_end(&mut whole).unwrap();
        let mut bytes = whole.clone();
        bytes[offset] ^= 0xff;
        fs::write(path, bytes).unwrap();
        let outcome = offline(&["check", data_dir]);
        fs::write(path, whole).unwrap();
        outcome
    };
    let log = only("member/wal", "wal");
    let found = check_damaged(&log, 40).unwrap_err();
    assert!(found.contains("member/wal: wal: "), "{found}");
    assert!(found.contains("position"), "{found}");
    let snap = only("member/snap", "snap");
    let found = check_damaged(&snap, 30).unwrap_err();
    assert!(found.contains(".snap: "), "{found}");
    // Some of these pages are free, and nobody looks at what is in them.
    let database = directory.join("member/snap/db");
    let found: Vec<String> = (2..5)
        .filter_map(|page| check_damaged(&database, page * 4096 + 8).err())
        .collect();
    assert!(!found.is_empty(), "no damage is found");
    assert!(
        found
            .iter()
            .all(|text| text.contains("member/snap/db: ") && text.contains("file offset")),
        "{found:?}"
    );
    assert_checks_clean(data_dir);
}

#[test]
fn start_says_where_the_entry_is_that_it_cannot_read() {
    let cases: [(Bucket, &[u8], &str); 4] = [
        (
            Bucket::Key,
            b"\0\0\0\0\0\0\0\x27_\0\0\0\0\0\0\0\0",
            "the record at revision 39.0 is damaged",
        ),
        (Bucket::Key, b"zebra", "the key bucket has a key that is no revision"),
        (Bucket::Lease, b"\0\0\0\0\0\0\0\x07", " cannot be read (file offset"),
        (Bucket::Members, b"8e9e05c52164694d", "8e9e05c52164694d"),
    ];
    for (bucket, key, words) in cases {
        let scratch = tempfile::tempdir().unwrap();
        let directory = restored_directory(scratch.path());
        let database = directory.join("member/snap/db");
        let marked = b"\xff\xffnothing that anybody wrote";
        commit_to(&database, |backend| {
            backend.put(bucket, key, Bytes::from_static(marked))
        });
        let ended = Command::new(env!("CARGO_BIN_EXE_ringd"))
            .args(["--data-dir", directory.to_str().unwrap(), "--log-format=console"])
            .args([
                "--listen-client-urls=http://127.0.0.1:0",
                "--advertise-client-urls=http://127.0.0.1:0",
            ])
            .args(["--listen-peer-urls=http://127.0.0.1:0"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{told}");
        let bytes = fs::read(&database).unwrap();
        let places = bytes
            .windows(marked.len())
            .enumerate()
            .filter(|(_, window)| window == marked);
        let is_there = |offset: usize| told.contains(&format!("(file offset {offset})"));
        assert!(places.map(|(offset, _)| offset).any(is_there), "{told}");
        assert!(
            told.contains(words) && told.contains(database.to_str().unwrap()),
            "{told}"
        );
    }
}

#[test]
fn a_changed_snapshot_does_not_restore() {
    use sha2::Digest;
    let scratch = tempfile::tempdir().unwrap();
    let directory = restored_directory(scratch.path());
    let mut bytes = fs::read(directory.join("member/snap/db")).unwrap();
    let hash = sha2::Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes[4096 * 3] ^= 1;
    let saved = scratch.path().join("saved.db");
    fs::write(&saved, &bytes).unwrap();
    let target = scratch.path().join("again");
    let line = [
        "snapshot",
        "restore",
        saved.to_str().unwrap(),
        "--data-dir",
        target.to_str().unwrap(),
    ];
    assert!(offline(&line).unwrap_err().starts_with("expected sha256 "));
}

#[test]
fn wrong_places_are_told_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().to_str().unwrap();
    assert!(
        offline(&["check", path])
            .unwrap_err()
            .contains("holds no member directory")
    );
    assert!(
        offline(&["snapshot", "status", &format!("{path}/none")])
            .unwrap_err()
            .contains("open ")
    );
    assert!(offline(&["wal", "dump", path]).unwrap_err().contains("file not found"));
    let bad = offline(&[
        "snapshot",
        "restore",
        "x",
        "--data-dir",
        &format!("{path}/d"),
        "--name",
        "other",
    ]);
    assert!(bad.unwrap_err().contains("couldn't find local name \"other\""));
}
