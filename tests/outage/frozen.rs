//! A disk that stands still under a server: writes wait, reads are answered all the same, as many as come.

use std::{
    path::PathBuf,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    full::SmallDisk,
    may_mount,
    support::{
        calls::{one, put},
        client::Client,
        process::{Plain, Process, Program, on_this_thread},
        world::World,
    },
};

/// More turns of the server's loop than a task of glommio's may have wakers (2^15): one write waits through all of them.
const READS: usize = 36_000;
/// How long reads go on at most, on a machine that is slow.
const READS_FOR: Duration = Duration::from_secs(60);
/// What a call may take: the writer's waits all the time.
const LONGEST: Duration = Duration::from_secs(90);

/// A filesystem that takes no writes. Thawed when dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(mount: PathBuf) -> Option<Frozen> {
        let frozen = Command::new("fsfreeze").arg("--freeze").arg(&mount).status();
        frozen.is_ok_and(|status| status.success()).then_some(Frozen(mount))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
    }
}

/// etcd's reads wait with its writes, so that only ringd goes through it.
pub fn run(program: Program) -> String {
    if !may_mount() {
        return "skipped: this machine lets nobody mount".to_owned();
    }
    let disk = match SmallDisk::new() {
        Ok(disk) => disk,
        Err(problem) => return format!("skipped, no disk of our own: {problem}"),
    };
    let mut process = Process::start_in(program, &disk.root, &[]);
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    let told = on_this_thread(async {
        let client = Client::connect(&world).await.with_deadline(LONGEST);
        client.put("before", "v").await;
        let Some(frozen) = Frozen::new(disk.root.join("data")) else {
            return "skipped: nothing here freezes a filesystem".to_owned();
        };
        let writer = Client::connect(&world).await.with_deadline(LONGEST);
        let write = tokio::task::spawn_local(async move { writer.try_put(put("during", "v")).await });
        let begun = Instant::now();
        let mut reads = 0;
        while reads < READS && begun.elapsed() < READS_FOR {
            let found = client.range(one("before")).await;
            assert_eq!(found.kvs.len(), 1, "read {reads}");
            reads += 1;
        }
        let took = begun.elapsed();
        drop(frozen);
        let outcome = write.await.expect("the writer ends in peace");
        client.put("after", "v").await;
        format!(
            "{reads} reads in {took:.1?}, and the write beside them: {:?}",
            outcome.map(|_| "done")
        )
    });
    process.stop();
    told
}
