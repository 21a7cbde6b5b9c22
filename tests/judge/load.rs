//! Records a history of a real process over real sockets: writers, a watcher of everything, SIGSTOP and SIGKILL.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ringd::{
    testing::Random,
    wire::{
        proto::etcdserverpb::{self as pb, compare},
        status::Status as WireStatus,
    },
};

use crate::{
    history::{Answer, Failure, History, Outcome, Recorder, Request, Told},
    support::{
        calls::{delete_op, one, op, put, put_op},
        client::Client,
        process::{Plain, Process, Program, on_this_thread},
        signals,
        status::{Code, Status},
        world::World,
    },
};

const LIVES: u64 = 4;
const WRITERS: u64 = 6;
const KEYS: u64 = 8;
/// Longer than all of it takes: leases end by being revoked.
const LEASE_SECONDS: i64 = 600;
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a server, uses and kills it several times, and tells all that was asked and answered.
pub fn record(program: Program) -> History {
    let started = Instant::now();
    let recorder = Recorder::with_clock(move || started.elapsed().as_nanos() as u64);
    let mut random = Random::new(7);
    let mut process = Process::start(program, &[]);
    for life in 0..LIVES {
        let world: Rc<dyn World> = Rc::new(Plain {
            address: process.address(),
        });
        on_this_thread(live(world, &recorder, &mut random, life, &mut process));
        process.start_again();
    }
    let world: Rc<dyn World> = Rc::new(Plain {
        address: process.address(),
    });
    on_this_thread(async {
        let client = Client::connect(&world).await;
        let all = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..Default::default()
        };
        ask(&recorder, &client, Request::Range(all)).await;
        let newest = recorder.history().floor;
        let told = tokio::time::timeout(PATIENCE, watch(client, recorder.clone(), newest)).await;
        told.expect("history is told in time");
        let client = Client::connect(&world).await;
        let revision = newest;
        ask(&recorder, &client, Request::HashKv(pb::HashKvRequest { revision })).await;
    });
    drop(process);
    recorder.history().clone()
}

/// One life: it is used, may be stopped and go on, and is killed in the midst of it.
async fn live(world: Rc<dyn World>, recorder: &Recorder, random: &mut Random, life: u64, process: &mut Process) {
    let mut tasks = Vec::new();
    for number in 0..WRITERS {
        let writer = Writer {
            name: format!("{life}-{number}"),
            client: Client::connect(&world).await,
            recorder: recorder.clone(),
            random: random.fork(number),
            count: 0,
            ids: (life * WRITERS + number) as i64 * 10_000,
            lease: 0,
        };
        tasks.push(tokio::task::spawn_local(writer.run()));
    }
    let client = Client::connect(&world).await;
    tasks.push(tokio::task::spawn_local(watch(client, recorder.clone(), i64::MAX)));
    tokio::time::sleep(Duration::from_millis(200 + random.below(300))).await;
    if life % 2 == 1 {
        let pid = process.pid().expect("it runs");
        signals::pause(pid, true);
        tokio::time::sleep(Duration::from_millis(300)).await;
        signals::pause(pid, false);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process.kill();
    for task in tasks {
        let ended = tokio::time::timeout(PATIENCE, task).await;
        ended.expect("clients notice the end").expect("clients do not panic");
    }
}

/// Follows everything until a revision, or the end of the connection.
async fn watch(client: Client, recorder: Recorder, until: i64) {
    let spec = pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: recorder.history().known() + 1,
        watch_id: 1,
        prev_kv: true,
        ..Default::default()
    };
    let mut stream = client.watch().await;
    let session = recorder.watch(None, spec.clone());
    stream.create(spec);
    while recorder.history().known() < until {
        let Ok(Some(response)) = stream.next::<pb::WatchResponse>().await else {
            return;
        };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        assert!(!response.canceled, "{response:?}");
        let told = if response.created {
            Told::Created { revision }
        } else if response.events.is_empty() {
            Told::Progress { revision }
        } else {
            recorder.learn(without_previous(&response));
            Told::Events {
                events: response.events,
                is_fragment: false,
                compacted_maybe: recorder.history().compacted_maybe,
            }
        };
        recorder.tell(session, told);
    }
}

fn without_previous(response: &pb::WatchResponse) -> Vec<ringd::wire::proto::mvccpb::Event> {
    let events = response.events.iter().cloned();
    events
        .map(|mut event| {
            event.prev_kv = None;
            event
        })
        .collect()
}

/// Asks and notes. Whether the connection is still of use.
async fn ask(recorder: &Recorder, client: &Client, request: Request) -> bool {
    let number = recorder.invoke(None, request.clone());
    macro_rules! call {
        ($answer:ident, $call:ident, $request:expr) => {
            client.$call($request).await.map(Answer::$answer)
        };
    }
    let result: Result<Answer, Status> = match request {
        Request::Range(request) => call!(Range, try_range, request),
        Request::Put(request) => call!(Put, try_put, request),
        Request::Delete(request) => call!(Delete, try_delete, request),
        Request::Txn(request) => call!(Txn, try_txn, request),
        Request::Compact(request) => call!(Compact, try_compact, request),
        Request::Grant(request) => call!(Grant, try_grant, request),
        Request::Revoke(request) => call!(Revoke, try_revoke, request),
        Request::TimeToLive(request) => call!(TimeToLive, try_time_to_live, request),
        Request::HashKv(request) => client.try_hash_kv(request).await.map(|mut answer| {
            if answer.hash_revision == 0 {
                // etcd 3.5 does not tell what was asked for.
                answer.hash_revision = request.revision;
            }
            Answer::HashKv(answer)
        }),
        other => unreachable!("nobody asks for {other:?}"),
    };
    let result = result.map_err(|status| {
        let told = WireStatus {
            code: status.code,
            message: status.message.into(),
        };
        match status.code {
            Code::Unavailable | Code::Unknown | Code::Canceled => Failure::Unsettled(told),
            _ => Failure::Refused(told),
        }
    });
    recorder.finish(number, result);
    !matches!(recorder.history().ops[number].outcome, Outcome::Unknown)
}

struct Writer {
    name: String,
    client: Client,
    recorder: Recorder,
    random: Random,
    count: u64,
    /// Its leases are numbered from here on.
    ids: i64,
    /// The last of them.
    lease: i64,
}

impl Writer {
    async fn run(mut self) {
        loop {
            self.count += 1;
            let request = self.draw();
            if !ask(&self.recorder, &self.client, request).await {
                return;
            }
            // A history of some hundred requests is judged in no time, one of many thousands is not.
            tokio::time::sleep(Duration::from_millis(self.random.below(6))).await;
        }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{}", self.random.below(KEYS)))
    }

    fn value(&mut self) -> Bytes {
        Bytes::from(format!("v{}-{}", self.name, self.count))
    }

    fn draw(&mut self) -> Request {
        match self.random.below(20) {
            0..=6 => Request::Put(pb::PutRequest {
                prev_kv: self.random.chance(0.3),
                ..put(self.key(), self.value())
            }),
            7 => Request::Put(pb::PutRequest {
                lease: self.lease,
                ..put(self.key(), self.value())
            }),
            8 | 9 => Request::Delete(pb::DeleteRangeRequest {
                key: self.key(),
                prev_kv: true,
                ..Default::default()
            }),
            10..=12 => Request::Txn(self.txn()),
            13 => {
                self.lease = self.ids + self.count as i64;
                Request::Grant(pb::LeaseGrantRequest {
                    id: self.lease,
                    ttl: LEASE_SECONDS,
                })
            }
            14 => Request::Revoke(pb::LeaseRevokeRequest {
                id: std::mem::take(&mut self.lease),
            }),
            15 => Request::Range(pb::RangeRequest {
                key: Bytes::from_static(b"k"),
                range_end: Bytes::from_static(b"\0"),
                serializable: self.random.chance(0.5),
                ..Default::default()
            }),
            16 => self.draw_past(),
            17 => self.hash(),
            _ => Request::Range(one(self.key())),
        }
    }

    fn hash(&self) -> Request {
        let revision = self.recorder.history().known();
        Request::HashKv(pb::HashKvRequest { revision })
    }

    /// A range of the past, or a compaction behind what the watcher has seen.
    fn draw_past(&mut self) -> Request {
        let (known, compacted) = {
            let history = self.recorder.history();
            (history.known(), history.compacted)
        };
        if self.random.chance(0.3) && known > compacted + 30 {
            return Request::Compact(pb::CompactionRequest {
                revision: known - 20,
                physical: true,
            });
        }
        Request::Range(pb::RangeRequest {
            key: Bytes::from_static(b"k"),
            range_end: Bytes::from_static(b"\0"),
            revision: known,
            ..Default::default()
        })
    }

    fn txn(&mut self) -> pb::TxnRequest {
        let compare = pb::Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Version as i32,
            key: self.key(),
            target_union: Some(compare::TargetUnion::Version(self.random.below(3) as i64)),
            ..Default::default()
        };
        pb::TxnRequest {
            compare: vec![compare],
            success: vec![
                put_op(format!("k{}", self.random.below(KEYS)), self.value()),
                op(pb::request_op::Request::RequestRange(one(self.key()))),
            ],
            failure: vec![delete_op(self.key(), "")],
        }
    }
}
