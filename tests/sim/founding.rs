//! A first boot that a power failure cuts short: at each of its effects in turn, at either end of it, with whatever may be
//! left of what was not synced. The member must found its cluster at its next start, which may be cut short as well, by
//! itself: nobody has been told anything, so there is nothing that an operator would have to decide.

use std::{panic::catch_unwind, path::Path, time::Duration};

use bytes::Bytes;
use ringd::{
    host::{Disk, Host},
    testing::{Moment, Operation, PathPart, Sim, SimHost, Trap, Unsynced},
    wire::proto::etcdserverpb::{PutRequest, RangeRequest},
};

use crate::{
    ask::ask,
    client::Channel,
    history::{Answer, Request},
    planted,
    server::{ADDRESS, Server, ServerOptions, check_directory},
    workload::within,
};

const OPERATIONS: [Operation; 4] = [
    Operation::Write,
    Operation::Sync,
    Operation::Rename,
    Operation::SyncDirectory,
];
const MOMENTS: [Moment; 2] = [Moment::Begin, Moment::End];
/// The torn ones with several seeds each, since there are several ways to tear.
const LEFT: [(Unsynced, u64); 3] = [(Unsynced::Lost, 1), (Unsynced::Kept, 1), (Unsynced::Torn, 6)];
/// How long a member may take to serve.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Operations of a kind in a first boot, at most.
const NUMBER_MAX: u32 = 100;

/// Cuts first boots short at every effect; whether every member began again by itself, and whether it would be seen if one
/// did not.
pub fn check() -> bool {
    let mut is_sound = match cut_all() {
        Ok(cuts) => {
            println!("first boots: {cuts} cut short");
            cuts > 300
        }
        Err(what) => {
            println!("{what}");
            false
        }
    };
    for bug in ["FoundingCutShort", "SegmentNameUnsynced"] {
        match planted::with(bug, || catch_unwind(cut_all)) {
            Some(Ok(Ok(_))) => {
                println!("no first boot that is cut short shows {bug}");
                is_sound = false;
            }
            Some(Ok(Err(what))) => println!("first boots show {bug}: {what:.160}"),
            Some(Err(_)) | None => {}
        }
    }
    is_sound
}

/// How many were cut short.
fn cut_all() -> Result<u32, String> {
    let mut cuts = 0;
    for operation in OPERATIONS {
        for moment in MOMENTS {
            for (unsynced, seeds) in LEFT {
                for seed in 1..=seeds {
                    cuts += cut_at_each(operation, moment, unsynced, seed).map_err(|what| {
                        format!(
                            "a first boot cut short at {operation:?} ({moment:?}, {unsynced:?}, seed {seed}), {what}"
                        )
                    })?;
                }
            }
        }
    }
    Ok(cuts)
}

/// How many operations of that kind a first boot has; it was cut short at each.
fn cut_at_each(operation: Operation, moment: Moment, unsynced: Unsynced, seed: u64) -> Result<u32, String> {
    for number in 1..NUMBER_MAX {
        let trap = Trap {
            operation,
            path: PathPart::Anywhere("/data".to_owned()),
            number,
            moment,
            unsynced,
        };
        if !play(trap, seed).map_err(|what| format!("number {number}: {what}"))? {
            return Ok(number - 1);
        }
    }
    Err("a first boot has no end".to_owned())
}

/// Whether the trap closed before the member served.
fn play(trap: Trap, seed: u64) -> Result<bool, String> {
    let sim = Sim::new(seed);
    let mut random = sim.random(1);
    let host = sim.host("server");
    let asker = sim.host("asker");
    let options = ServerOptions::fixed(
        &[
            format!("--listen-client-urls=http://{ADDRESS}"),
            format!("--advertise-client-urls=http://{ADDRESS}"),
        ],
        32_768,
    );
    sim.run_until(async {
        Server::prepare(&host).await;
        // The process makes an empty directory for the log before it begins; of an earlier start it may be lost again.
        if random.chance(0.5) {
            let made = host.disk().create_directory(Path::new("/data/member/wal")).await;
            made.map_err(|error| error.to_string())?;
        }
        sim.crash_at(&host, trap.clone());
        if !start_until_cut(&host, &asker, &options).await? {
            return Ok(false);
        }
        let host = sim.restart(&host);
        look_at(&host).await?;
        let next = Trap {
            operation: OPERATIONS[random.index(4)],
            number: 1 + random.below(12) as u32,
            moment: MOMENTS[random.index(2)],
            ..trap
        };
        sim.crash_at(&host, next);
        if !start_until_cut(&host, &asker, &options).await? {
            sim.crash_with(&host, trap.unsynced);
            let host = sim.restart(&host);
            if is_unfounded(&host).await {
                return Err("it served, and what it was founded with is gone".to_owned());
            }
            sim.kill(&host);
        }
        let host = sim.restart(&host);
        look_at(&host).await?;
        let server = Server::start(&host, &options);
        serve(&server, &asker).await?;
        server.request_stop();
        if within(&asker, START_LIMIT, server.ended()).await.is_none() {
            return Err("it did not stop".to_owned());
        }
        sim.kill(&host);
        let host = sim.restart(&host);
        match check_directory(&host).await {
            findings if findings.is_empty() => Ok(true),
            findings => Err(format!("after a stop: {findings}")),
        }
    })
}

/// Starts the member; whether its machine lost power before it served.
async fn start_until_cut(host: &SimHost, asker: &SimHost, options: &ServerOptions) -> Result<bool, String> {
    let server = Server::start(host, options);
    let served = serve(&server, asker).await;
    if !host.is_alive() {
        return Ok(true);
    }
    served.map(|()| false)
}

/// A put, and what comes of it.
async fn serve(server: &Server, asker: &SimHost) -> Result<(), String> {
    let until = asker.now() + START_LIMIT;
    let put = Request::Put(PutRequest {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        ..PutRequest::default()
    });
    let range = Request::Range(RangeRequest {
        key: Bytes::from_static(b"k"),
        ..RangeRequest::default()
    });
    while server.host.is_alive() && asker.now() < until {
        if let Some(outcome) = server.outcome() {
            return Err(format!("it ended: {outcome:?}"));
        }
        let limit = Duration::from_millis(50);
        let Some(channel) = Channel::connect(asker, Server::address(), limit).await else {
            continue;
        };
        if !matches!(ask(&channel, &put, START_LIMIT).await, Ok(Answer::Put(_))) {
            asker.sleep_until(asker.now() + limit).await;
            continue;
        }
        let read = ask(&channel, &range, START_LIMIT).await;
        channel.close();
        return match read {
            Ok(Answer::Range(answer)) if answer.count == 1 => Ok(()),
            _ if !server.host.is_alive() => Ok(()),
            other => Err(format!("what was put is not there: {other:?}")),
        };
    }
    Err("it does not serve".to_owned())
}

/// What is left is whole, or shows that nothing was founded.
async fn look_at(host: &SimHost) -> Result<(), String> {
    let findings = check_directory(host).await;
    match findings.is_empty() || is_unfounded(host).await {
        true => Ok(()),
        false => Err(format!("a damaged directory: {findings}")),
    }
}

/// Whether a directory is that of a member which has founded nothing yet: its database has no name, or its log has no
/// segment. A member makes the former, then the latter, and has promised nothing before both are durable.
pub async fn is_unfounded(host: &SimHost) -> bool {
    let disk = host.disk();
    let names_in = async |directory: &str| disk.list(Path::new(directory)).await.unwrap_or_default();
    let has_database = names_in("/data/member/snap").await.contains(&"db".to_owned());
    let has_segment = names_in("/data/member/wal")
        .await
        .iter()
        .any(|name| name.ends_with(".wal"));
    !has_database || !has_segment
}
