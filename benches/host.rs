//! What the host on io_uring costs: a lone durable write beside a raw one, and an echo over sockets.
//!
//! `cargo bench --bench host -- [write|echo] [--plain] [--core N]`; `--plain` leaves the cooperative flag away. Run by
//! `cargo test` it does a few rounds, to stay alive.

use std::{
    fs,
    future::poll_fn,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use ringd::{
    host::{DIRECT_ALIGN, Disk, File, Host, Listener, Net, OpenMode, Stream},
    ring::{
        RingHost, RingStream,
        executor::{self, ExecutorConfig},
        placement, setup,
    },
};

const BLOCK: usize = DIRECT_ALIGN;

struct Plan {
    core: Option<usize>,
    rounds: usize,
    echo_for: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let is_full = has("--bench");
    if has("--plain") {
        setup::disable();
    }
    let core = arguments.iter().skip_while(|argument| *argument != "--core").nth(1);
    let plan = Plan {
        core: core.map(|number| number.parse().expect("a core number")),
        rounds: if is_full { 3000 } else { 20 },
        echo_for: Duration::from_millis(if is_full { 2000 } else { 20 }),
    };
    let all = !has("write") && !has("echo");
    if all || has("write") {
        write(&plan);
    }
    if all || has("echo") {
        echo(&plan);
    }
    println!("rings with the flag, without: {:?}", setup::rings());
}

fn home(plan: &Plan, directory: &Path) -> usize {
    let allowed = placement::allowed_cores().expect("cores");
    let chosen = placement::choose(&allowed, &placement::queues_of(Path::new("/"), directory));
    plan.core.unwrap_or(chosen.home)
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1000.0;
    println!("{name}: p50 {:.1} us, p90 {:.1}, p99 {:.1}", at(0.5), at(0.9), at(0.99));
}

/// One 4 KiB durable write at a time to a file written with zeros before: through the host, and by a plain call.
fn write(plan: &Plan) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("segment");
    fs::write(&path, vec![0; (plan.rounds + 1) * BLOCK]).expect("a file");
    fs::File::open(&path).and_then(|file| file.sync_all()).expect("synced");
    let core = home(plan, directory.path());
    println!("core {core}");
    let rounds = plan.rounds;
    for _ in 0..3 {
        let at = path.clone();
        let config = ExecutorConfig {
            name: "home".to_owned(),
            core: Some(core),
        };
        let run = executor::spawn(config, move |host| ring_writes(host, at, rounds)).expect("a thread");
        percentiles("host write", run.join().expect("an executor"));
        let at = path.clone();
        let raw = std::thread::spawn(move || raw_writes(core, &at, rounds));
        percentiles("raw  write", raw.join().expect("a thread"));
    }
}

async fn ring_writes(host: RingHost, path: std::path::PathBuf, rounds: usize) -> Vec<Duration> {
    let file = host.disk().open(&path, OpenMode::DirectDurable).await.expect("opened");
    let mut buffer = file.buffer(BLOCK);
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        buffer.as_mut().fill(round as u8);
        let start = Instant::now();
        let (result, back) = file.write_at((round * BLOCK) as u64, buffer).await;
        times.push(start.elapsed());
        result.expect("written");
        buffer = back;
    }
    times
}

fn raw_writes(core: usize, path: &Path, rounds: usize) -> Vec<Duration> {
    placement::keep_to(&[core].into()).expect("pinned");
    let mut options = fs::OpenOptions::new();
    options.write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let file = options.open(path).expect("opened");
    let mut memory = vec![1u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = &mut memory[start..start + BLOCK];
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        block.fill(round as u8);
        let start = Instant::now();
        file.write_all_at(block, (round * BLOCK) as u64).expect("written");
        times.push(start.elapsed());
    }
    times
}

/// 64 bytes there and back, over 1, 16 and 64 connections, one request in flight on each.
fn echo(plan: &Plan) {
    let core = home(plan, &std::env::temp_dir());
    let (sender, receiver) = mpsc::channel();
    let config = ExecutorConfig {
        name: "home".to_owned(),
        core: Some(core),
    };
    executor::spawn(config, move |host| async move {
        let listener = host
            .net()
            .listen("127.0.0.1:0".parse().expect("an address"))
            .expect("bound");
        sender
            .send(listener.local_address().expect("bound"))
            .expect("main lives");
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            host.spawn(echo_stream(stream));
        }
        #[allow(unreachable_code)]
        ()
    })
    .expect("a thread");
    let address = receiver.recv().expect("the server starts");
    let mut cores = placement::allowed_cores().expect("cores");
    if cores.len() > 1 {
        cores.remove(&core);
    }
    placement::keep_to(&cores).expect("pinned");
    for _ in 0..3 {
        for connections in [1, 16, 64] {
            echo_load(address, connections, plan.echo_for);
        }
    }
}

async fn echo_stream(mut stream: RingStream) {
    let mut buffer = [0; 16384];
    loop {
        match poll_fn(|context| stream.poll_read(context, &mut buffer)).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    match poll_fn(|context| stream.poll_write(context, rest)).await {
                        Ok(written) => rest = &rest[written..],
                        Err(_) => return,
                    }
                }
            }
        }
    }
}

fn echo_load(address: SocketAddr, connections: usize, lasting: Duration) {
    let mut streams: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("connected");
            stream.set_nodelay(true).expect("an option");
            stream
        })
        .collect();
    let mut message = [7u8; 64];
    let before = server_time();
    let start = Instant::now();
    let mut requests = 0u64;
    let mut times = Vec::new();
    while start.elapsed() < lasting {
        let round = Instant::now();
        for stream in &mut streams {
            stream.write_all(&message).expect("sent");
        }
        for stream in &mut streams {
            stream.read_exact(&mut message).expect("echoed");
        }
        times.push(round.elapsed());
        requests += connections as u64;
    }
    let rate = requests as f64 / start.elapsed().as_secs_f64();
    let cost = (server_time() - before).as_secs_f64() * 1e6 / requests as f64;
    print!(
        "echo c={connections}: {:.1} k/s, server {cost:.2} us each; ",
        rate / 1000.0
    );
    percentiles("round", times);
}

/// Time on a core of the threads called `home`.
fn server_time() -> Duration {
    let mut total = 0;
    for entry in fs::read_dir("/proc/self/task").expect("tasks").flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim() == "home" {
            let stat = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            total += stat
                .split(' ')
                .next()
                .and_then(|nanos| nanos.parse().ok())
                .unwrap_or(0u64);
        }
    }
    Duration::from_nanos(total)
}
