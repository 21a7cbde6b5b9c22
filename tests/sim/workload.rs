//! What clients do: requests drawn from the seed, one after the other on one connection, until they are told to stop.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures_lite::future::or;
use ringd::{
    host::Host,
    testing::{Random, SimHost},
    wire::proto::etcdserverpb::*,
};

use crate::{
    ask::ask,
    client::Channel,
    history::{Failure, Recorder, Request},
};

/// What all clients of a run share.
pub struct Plan {
    /// Keys are numbered below this.
    pub keys: u64,
    /// Longest pause between two requests.
    pub pause: Duration,
    /// Longest value, in bytes.
    pub value_bytes_max: u64,
    /// Share of values that are long.
    pub long_share: f64,
    /// Snapshots are read slowly, while others write.
    pub is_snapshot_slow: bool,
    /// Shares of what is not a put, a read, a deletion or a transaction.
    pub lease_share: f64,
    /// Of compactions.
    pub compact_share: f64,
    /// Of HashKV, defragmentation, snapshots.
    pub maintenance_share: f64,
    /// How long a client waits for an answer.
    pub timeout: Duration,
    /// Only puts, deletions and ranges, each of one key or of all: then every key has a history of its own to be judged.
    pub is_plain: bool,
    /// Clients go on.
    pub is_open: Cell<bool>,
    /// Watchers go on.
    pub is_watched: Cell<bool>,
    /// Leases that were granted, whether or not they still are.
    pub leases: RefCell<Vec<i64>>,
}

/// A client and what it draws from.
pub struct Client {
    /// Its number.
    pub number: u64,
    /// Its machine.
    pub host: SimHost,
    /// What is noted.
    pub recorder: Recorder,
    /// What it draws from.
    pub random: Random,
    /// What is common.
    pub plan: Rc<Plan>,
    /// Requests so far.
    pub count: u64,
    /// Where the members are found.
    pub members: Vec<SocketAddr>,
}

impl Client {
    /// Works until the plan is closed.
    pub async fn run(mut self) {
        let mut channel: Option<Channel> = None;
        while self.plan.is_open.get() {
            let pause = self.random.below(self.plan.pause.as_nanos() as u64 + 1);
            self.host
                .sleep_until(self.host.now() + Duration::from_nanos(pause))
                .await;
            let usable = match channel.take().filter(|channel| !channel.is_lost()) {
                Some(channel) => Some(channel),
                None => self.connect().await,
            };
            let Some(usable) = usable.filter(|_| self.plan.is_open.get()) else {
                continue;
            };
            self.count += 1;
            if self.random.chance(0.01) {
                usable.stop_reading(Duration::from_millis(self.random.below(1000)));
            }
            let timeout = self.timeout();
            let is_sound = if self.random.chance(0.1) {
                // Several at once, whose order is the server's to choose.
                let (first, second, third) = (self.draw(), self.draw(), self.draw());
                let (one, two) = (
                    call(&self.recorder, &usable, first, timeout),
                    call(&self.recorder, &usable, second, timeout),
                );
                let both = futures_lite::future::zip(one, two);
                let three = call(&self.recorder, &usable, third, timeout);
                let ((one, two), three) = futures_lite::future::zip(both, three).await;
                one && two && three
            } else {
                let request = self.draw();
                if request == Request::Snapshot && self.plan.is_snapshot_slow {
                    usable.stop_reading(Duration::from_millis(self.random.below(2_000)));
                }
                call(&self.recorder, &usable, request, timeout).await
            };
            if is_sound && !self.random.chance(self.fickleness()) {
                channel = Some(usable);
            } else {
                usable.close();
            }
        }
        if let Some(channel) = channel {
            channel.close();
        }
    }

    /// A connection to one of the members.
    async fn connect(&mut self) -> Option<Channel> {
        let (place, patience) = match self.members.len() {
            1 => (0, Duration::from_secs(2)),
            count => (self.random.index(count), Duration::from_millis(500)),
        };
        Channel::connect(&self.host, self.members[place], patience).await
    }

    /// How long it waits for an answer: with several members, at times too short for an election.
    fn timeout(&mut self) -> Duration {
        match self.members.len() {
            1 => self.plan.timeout,
            _ => Duration::from_millis(200 + self.random.below(8_000)),
        }
    }

    /// How often it leaves a sound connection.
    fn fickleness(&self) -> f64 {
        if self.members.len() == 1 { 0.005 } else { 0.02 }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{:03}", self.random.below(self.plan.keys)))
    }

    fn value(&mut self) -> Bytes {
        let mut value = format!("v{}-{}-{:x}", self.number, self.count, self.random.next_u64()).into_bytes();
        if self.random.chance(self.plan.long_share) {
            let len = self.random.below(self.plan.value_bytes_max) as usize;
            value.resize(value.len().max(len), b'.');
        }
        value.into()
    }

    fn lease(&mut self) -> i64 {
        let leases = self.plan.leases.borrow();
        if leases.is_empty() {
            return 0;
        }
        leases[leases.len() - 1 - self.random.index(leases.len().min(6))]
    }

    fn span(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        match self.random.below(4) {
            0 => (key, Bytes::from_static(b"\0")),
            1 => {
                let end = self.key();
                if key < end { (key, end) } else { (end, key) }
            }
            _ => (key, Bytes::new()),
        }
    }

    fn put(&mut self) -> PutRequest {
        let lease = if self.random.chance(self.plan.lease_share * 2.0) {
            self.lease()
        } else {
            0
        };
        PutRequest {
            key: self.key(),
            value: self.value(),
            lease,
            prev_kv: self.random.chance(0.2),
            ..PutRequest::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = if self.random.chance(0.2) {
            self.span()
        } else {
            (self.key(), Bytes::new())
        };
        DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.random.chance(0.3),
        }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.span();
        let (newest, oldest) = {
            let history = self.recorder.history();
            (history.floor.max(1), history.compacted)
        };
        let revision = match self.random.below(10) {
            0..=5 => 0,
            6 => newest + 1 + self.random.below(3) as i64,
            7 => (oldest - self.random.below(4) as i64).max(0),
            _ => oldest.max(1) + self.random.below((newest - oldest.max(1) + 1) as u64) as i64,
        };
        RangeRequest {
            key,
            range_end,
            limit: if self.random.chance(0.2) {
                self.random.below(10) as i64
            } else {
                0
            },
            revision,
            sort_order: if self.random.chance(0.2) {
                self.random.below(3) as i32
            } else {
                0
            },
            sort_target: if self.random.chance(0.2) {
                [0, 3][self.random.index(2)]
            } else {
                0
            },
            serializable: self.random.chance(0.3),
            keys_only: self.random.chance(0.1),
            count_only: self.random.chance(0.1),
            ..RangeRequest::default()
        }
    }

    fn compare(&mut self) -> Compare {
        use compare::{CompareTarget, TargetUnion};
        let newest = self.recorder.history().floor;
        let (target, union) = match self.random.below(4) {
            0 => (
                CompareTarget::Version,
                TargetUnion::Version(self.random.below(4) as i64),
            ),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
            2 => (
                CompareTarget::Mod,
                TargetUnion::ModRevision(newest - self.random.below(20) as i64),
            ),
            _ => (CompareTarget::Value, TargetUnion::Value(self.value())),
        };
        Compare {
            result: self.random.below(4) as i32,
            target: target as i32,
            key: self.key(),
            target_union: Some(union),
            ..Compare::default()
        }
    }

    fn txn(&mut self) -> TxnRequest {
        let compare = (0..self.random.below(3)).map(|_| self.compare()).collect();
        TxnRequest {
            compare,
            success: self.txn_ops(),
            failure: self.txn_ops(),
        }
    }

    /// Operations of which no two write one key.
    fn txn_ops(&mut self) -> Vec<RequestOp> {
        use request_op::Request as Op;
        let mut written: Vec<Bytes> = Vec::new();
        let mut ops = Vec::new();
        for _ in 0..self.random.below(5) {
            let op = match self.random.below(4) {
                0 => Op::RequestRange(RangeRequest {
                    revision: 0,
                    ..self.range()
                }),
                1 => Op::RequestDeleteRange(DeleteRangeRequest {
                    range_end: Bytes::new(),
                    ..self.delete()
                }),
                _ => Op::RequestPut(self.put()),
            };
            let key = match &op {
                Op::RequestPut(put) => Some(&put.key),
                Op::RequestDeleteRange(delete) => Some(&delete.key),
                _ => None,
            };
            if let Some(key) = key {
                if written.contains(key) {
                    continue;
                }
                written.push(key.clone());
            }
            ops.push(RequestOp { request: Some(op) });
        }
        ops
    }

    fn draw(&mut self) -> Request {
        if self.random.chance(self.plan.lease_share) {
            return self.draw_lease();
        }
        if self.random.chance(self.plan.compact_share) {
            let history = self.recorder.history();
            // What the watcher of everything has not seen must stay readable for it.
            let known = history.known();
            let back = self.random.below(12) as i64;
            drop(history);
            return Request::Compact(CompactionRequest {
                revision: (known - back).max(1),
                physical: self.random.chance(0.5),
            });
        }
        if self.random.chance(self.plan.maintenance_share) {
            let (newest, oldest) = {
                let history = self.recorder.history();
                (history.floor.max(1), history.compacted)
            };
            return match self.random.below(6) {
                0 => Request::Defragment,
                1 | 2 => Request::Snapshot,
                _ => Request::HashKv(HashKvRequest {
                    revision: match self.random.below(3) {
                        0 => oldest.max(1) + self.random.below((newest - oldest.max(1) + 1) as u64) as i64,
                        _ => 0,
                    },
                }),
            };
        }
        if self.plan.is_plain {
            return self.draw_plain();
        }
        match self.random.below(20) {
            0..=7 => Request::Put(self.put()),
            8..=9 => Request::Delete(self.delete()),
            10..=13 => Request::Txn(self.txn()),
            _ => Request::Range(self.range()),
        }
    }

    fn draw_plain(&mut self) -> Request {
        let key = self.key();
        match self.random.below(10) {
            0..=4 => Request::Put(PutRequest {
                key,
                value: self.value(),
                lease: match self.random.chance(self.plan.lease_share) {
                    true => self.lease(),
                    false => 0,
                },
                ..PutRequest::default()
            }),
            5 => Request::Delete(DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            }),
            6..=8 => Request::Range(RangeRequest {
                key,
                serializable: self.random.chance(0.3),
                ..RangeRequest::default()
            }),
            _ => Request::Range(RangeRequest {
                key: Bytes::from_static(b"k"),
                range_end: Bytes::from_static(b"l"),
                serializable: self.random.chance(0.3),
                ..RangeRequest::default()
            }),
        }
    }

    fn draw_lease(&mut self) -> Request {
        match self.random.below(8) {
            0..=2 => {
                let id = self.plan.leases.borrow().len() as i64 + 1;
                self.plan.leases.borrow_mut().push(id);
                Request::Grant(LeaseGrantRequest {
                    ttl: 1 + self.random.below(6) as i64,
                    id,
                })
            }
            3..=5 => match self.lease() {
                0 => Request::Leases,
                id => Request::KeepAlive(id),
            },
            6 => Request::TimeToLive(LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.random.chance(0.7),
            }),
            _ => match self.lease() {
                0 => Request::Leases,
                id => Request::Revoke(LeaseRevokeRequest { id }),
            },
        }
    }
}

/// Carries a request out and notes it. Whether the connection is still of use.
pub async fn call(recorder: &Recorder, channel: &Channel, request: Request, timeout: Duration) -> bool {
    let op = recorder.invoke(Some(channel.place()), request.clone());
    let result = ask(channel, &request, timeout).await;
    if let Err(Failure::Damaged(what)) = &result {
        recorder.accuse(format!("a snapshot is damaged: {what}"));
    }
    let is_sound = matches!(result, Ok(_) | Err(Failure::Refused(_)));
    recorder.finish(op, result);
    is_sound
}

/// Waits, but not longer than so.
pub async fn within<T>(host: &SimHost, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    or(async { Some(future.await) }, async {
        host.sleep_until(host.now() + limit).await;
        None
    })
    .await
}
