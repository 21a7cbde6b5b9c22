//! A disk that fills up under a server. Puts fail or the process ends, with a sentence that says why; with room again
//! everything acknowledged is there.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    may_mount,
    support::{
        calls::{one, put},
        client::Client,
        process::{Plain, Process, Program, on_this_thread, scratch, tool},
        world::World,
    },
};

/// Room for two segments of the log (64 MiB each) and a database.
const DISK_BYTES: u64 = 288 << 20;
const WRITERS: usize = 4;
const VALUE_BYTES: usize = 48 * 1024;
/// How long a server on a full disk may take to say so: the room of the segment in use has to be written first.
const NOTICED_WITHIN: Duration = Duration::from_secs(120);
/// How much is left when the filler is done: nothing, and not enough for a page of the database to grow into.
const LEFT_BYTES: [u64; 2] = [0, 1 << 20];

/// The disk: an image, mounted. Unmounted when dropped.
pub struct SmallDisk {
    pub root: PathBuf,
}

impl SmallDisk {
    pub fn new() -> Result<SmallDisk, String> {
        let root = scratch("full");
        let image = root.join("disk");
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
                Err(error) => Err(format!("{program}: {error}")),
            }
        };
        let make = || -> io::Result<()> {
            File::create(&image)?.set_len(DISK_BYTES)?;
            fs::create_dir(root.join("data"))
        };
        make().map_err(|error| error.to_string())?;
        let (image, data) = (image.display().to_string(), root.join("data").display().to_string());
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        run("mount", &["-o", "loop", &image, &data])?;
        Ok(SmallDisk { root })
    }

    fn filler(&self) -> PathBuf {
        self.root.join("data/filler")
    }

    /// Takes all room but so many bytes.
    fn fill(&self, left_bytes: u64) {
        let mut file = File::create(self.filler()).expect("a file on a disk with room");
        let zeros = vec![0; 256 * 1024];
        let mut len = 0;
        let mut piece = zeros.len();
        while piece >= 512 {
            match file.write(&zeros[..piece]) {
                Ok(count) => len += count as u64,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => piece /= 2,
                Err(error) => panic!("{error}"),
            }
        }
        file.set_len(len.saturating_sub(left_bytes))
            .expect("a file can be shortened");
        file.sync_all().expect("a sound disk");
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let data = self.root.join("data");
        let _ = Command::new("umount").arg("-l").arg(&data).status();
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

pub fn run(program: Program) -> String {
    if !may_mount() {
        return "skipped: this machine lets nobody mount".to_owned();
    }
    let mut told = Vec::new();
    for left_bytes in LEFT_BYTES {
        let disk = match SmallDisk::new() {
            Ok(disk) => disk,
            Err(problem) => return format!("skipped, no disk of our own: {problem}"),
        };
        told.push(fill_up(program, &disk, left_bytes));
    }
    told.join("; ")
}

fn fill_up(program: Program, disk: &SmallDisk, left_bytes: u64) -> String {
    let mut process = Process::start_in(program, &disk.root, &[]);
    let acknowledged = Rc::new(RefCell::new(BTreeMap::new()));
    load(&process, &acknowledged, 0, Some(Duration::from_millis(500)));
    let before = acknowledged.borrow().len();
    assert!(before > 0, "puts on a disk with room");
    disk.fill(left_bytes);
    let answer = load(&process, &acknowledged, 1, None);
    let ended = ended(&mut process);
    if ended.is_some() {
        assert!(process.log().contains("no space left on device") || process.log().contains("No space left on device"));
    } else {
        let text = answer.as_deref().unwrap_or_default();
        assert!(text.contains("database space exceeded") || !text.is_empty(), "{text}");
    }
    process.kill();
    // Once more, without room: it serves, or says the same.
    let again = match process.try_start() {
        Ok(()) => "serves".to_owned(),
        Err(_) => {
            let tail = process.log_tail();
            assert!(tail.to_lowercase().contains("no space left on device"), "{tail}");
            "ends".to_owned()
        }
    };
    process.kill();
    disk.make_room();
    process.start_again();
    let expected = acknowledged.borrow().clone();
    on_this_thread(verify(&process, &expected));
    process.stop();
    check(program, &process.data_dir());
    let last_words = last_words(&process.log());
    format!(
        "{left_bytes} bytes left: {} of {} puts came after; it {} ({:?}; clients were told {:?}), and started on the full disk it {again}; with room all is there",
        acknowledged.borrow().len() - before,
        acknowledged.borrow().len(),
        if ended.is_some() { "ended" } else { "went on" },
        last_words,
        answer.unwrap_or_default(),
    )
}

/// How the process ended, if it does within a few seconds.
fn ended(process: &mut Process) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(status) = process.exited() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

/// The log's line on it, shortened.
fn last_words(log: &str) -> String {
    let is_about = |line: &&str| line.to_lowercase().contains("no space left on device");
    let line = log.lines().find(is_about).unwrap_or_default();
    line.chars().take(240).collect()
}

/// Puts new keys until one fails, or for so long. What the first failure said.
fn load(
    process: &Process,
    acknowledged: &Rc<RefCell<BTreeMap<String, Bytes>>>,
    phase: u32,
    limit: Option<Duration>,
) -> Option<String> {
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    on_this_thread(async {
        let deadline = Instant::now() + limit.unwrap_or(NOTICED_WITHIN);
        let failure = Rc::new(RefCell::new(None));
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let client = Client::connect(&world).await.with_deadline(Duration::from_secs(20));
            let (acknowledged, failure) = (acknowledged.clone(), failure.clone());
            writers.push(tokio::task::spawn_local(async move {
                for count in 0.. {
                    if Instant::now() > deadline || failure.borrow().is_some() {
                        return;
                    }
                    let key = format!("{phase}/{number}/{count}");
                    let mut value = key.clone().into_bytes();
                    value.resize(VALUE_BYTES, b'.');
                    let value = Bytes::from(value);
                    match client.try_put(put(key.clone(), value.clone())).await {
                        Ok(_) => drop(acknowledged.borrow_mut().insert(key, value)),
                        Err(status) => *failure.borrow_mut() = Some(format!("{:?}: {}", status.code, status.message)),
                    }
                }
            }));
        }
        for writer in writers {
            writer.await.expect("a writer ends in peace");
        }
        let failure = failure.borrow().clone();
        assert!(limit.is_some() || failure.is_some(), "a full disk was never noticed");
        failure
    })
}

async fn verify(process: &Process, acknowledged: &BTreeMap<String, Bytes>) {
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    let client = Client::connect(&world).await;
    for (key, value) in acknowledged {
        let found = client.range(one(key.clone())).await;
        let found = found.kvs.first().unwrap_or_else(|| panic!("{key} was acknowledged"));
        assert!(found.value == *value, "{key} has another value");
    }
    client.put("after", "all").await;
}

/// The files are sound: by `ringd check`, and by bbolt's own check where that is at hand.
fn check(program: Program, data: &Path) {
    let ringd = Program::Ringd.path().expect("built");
    if program.name() == "ringd" {
        let output = Command::new(ringd).arg("check").arg(data).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    if let Some(bbolt) = tool("BBOLT_CHECK") {
        let output = Command::new(bbolt)
            .arg(data.join("member/snap/db"))
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
