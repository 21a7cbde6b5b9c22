//! Snapshots: saved from one server, judged by etcdutl, restored, and served by the other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    rc::Rc,
};

use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    at_hand, content,
    support::{
        client::Client,
        process::{Process, Program, scratch, tool},
        world::World,
    },
    with,
};

/// The file that a client saves: the stream's blobs, one after the other.
async fn save(world: Rc<dyn World>, path: PathBuf) {
    let client = Client::connect(&world).await;
    let mut stream = client.stream("/etcdserverpb.Maintenance/Snapshot").await;
    stream.send(&pb::SnapshotRequest {});
    stream.half_close();
    let mut file = Vec::new();
    while let Some(response) = stream
        .next::<pb::SnapshotResponse>()
        .await
        .expect("the snapshot goes on")
    {
        file.extend_from_slice(&response.blob);
    }
    fs::write(path, file).expect("room for the snapshot");
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .env_remove("ETCDCTL_API")
        .output()
        .expect("the tool runs");
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn a_saved_snapshot_restores_into_the_other(first: Program, second: Program) {
    if !at_hand(first, second) {
        return;
    }
    let (Some(etcdutl), Some(etcdctl)) = (tool("ETCDUTL_BIN"), tool("ETCDCTL_BIN")) else {
        println!("skipped: ETCDUTL_BIN and ETCDCTL_BIN are not both set");
        return;
    };
    let root = scratch("snapshot");
    let process = Process::start_in(first, &root.join("source").tap_create(), &[]);
    let before = with(&process, |world| async move {
        content::write(world.clone(), 0).await;
        content::write(world.clone(), 1).await;
        content::read(world).await
    });
    let by_stream = root.join("stream.db");
    with(&process, |world| save(world, by_stream.clone()));
    let by_etcdctl = root.join("etcdctl.db");
    let endpoint = format!("--endpoints=127.0.0.1:{}", process.client_port);
    run(
        &etcdctl,
        &[&endpoint, "snapshot", "save", by_etcdctl.to_str().expect("a text path")],
    );
    for (index, file) in [by_stream, by_etcdctl].iter().enumerate() {
        let path = file.to_str().expect("a text path");
        let status = run(&etcdutl, &["snapshot", "status", path, "--write-out=json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
        assert_eq!(status["revision"], before.revision, "{status}");
        // Every bucket's keys are counted: more than the history has records.
        assert!(status["totalKey"].as_i64() > Some(40), "{status}");
        assert_eq!(
            status["totalSize"],
            fs::metadata(file).expect("the snapshot").len() / 4096 * 4096,
            "{status}"
        );

        let restored = root.join(format!("restored-{index}"));
        fs::create_dir_all(&restored).expect("a directory");
        let data = restored.join("data");
        let data_flag = format!("--data-dir={}", data.display());
        let identity = [
            "--name=default",
            "--initial-cluster=default=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        ];
        run(
            &etcdutl,
            &[&["snapshot", "restore", path, &data_flag], &identity[..]].concat(),
        );
        let other = Process::start_in(second, &restored, &[]);
        let found = with(&other, content::read);
        found.assert_same(&before, "restored", &other.log_tail());
        with(&other, |world| content::write(world, 5));
    }
    drop(process);
    let _ = fs::remove_dir_all(root);
}

/// A path whose directory is there.
trait TapCreate {
    fn tap_create(self) -> PathBuf;
}

impl TapCreate for PathBuf {
    fn tap_create(self) -> PathBuf {
        fs::create_dir_all(&self).expect("a directory");
        self
    }
}
