//! The load: writers with keys of their own, one compactor, and the end of the server in the middle of it.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use ringd::wire::proto::etcdserverpb::{
    self as pb,
    compare::{CompareResult, CompareTarget},
};

use crate::{
    model::{Change, LeaseChange, Model, Random, Request},
    support::{
        calls::{delete_op, op, put, put_op},
        client::Client,
        status::Status,
        world::World,
    },
};

const WRITERS: usize = 16;
const KEYS_PER_WRITER: u64 = 6;

/// Runs the writers for a while, then `end`s the server under them.
pub async fn run(world: Rc<dyn World>, model: &mut Model, random: &mut Random, load_for: Duration, end: impl FnOnce()) {
    let shared = Rc::new(RefCell::new(std::mem::replace(model, Model::new())));
    let mut tasks = Vec::new();
    for index in 0..WRITERS {
        let client = Client::connect(&world).await;
        let keys = shared.borrow().keys_of(index);
        let random = Random::new(random.below(u64::MAX - 1) + 1);
        let writer = Writer {
            index,
            client,
            keys,
            random,
            model: shared.clone(),
        };
        tasks.push(tokio::task::spawn_local(writer.run()));
    }
    let compactor = Client::connect(&world).await;
    tasks.push(tokio::task::spawn_local(compact(compactor, shared.clone())));
    tokio::time::sleep(load_for).await;
    end();
    for task in tasks {
        task.await.expect("a writer ends with the server");
    }
    *model = Rc::into_inner(shared).expect("the writers are gone").into_inner();
}

async fn compact(client: Client, model: Rc<RefCell<Model>>) {
    loop {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let Some(revision) = model.borrow().settled_revision(WRITERS) else {
            continue;
        };
        match client
            .try_compact(pb::CompactionRequest {
                revision,
                physical: false,
            })
            .await
        {
            Ok(_) => model.borrow_mut().compacted(revision),
            Err(status) if status.message.contains("compacted") => {}
            Err(_) => {
                model.borrow_mut().compacted_maybe(revision);
                return;
            }
        }
    }
}

struct Writer {
    index: usize,
    client: Client,
    /// Present keys and their leases.
    keys: BTreeMap<String, i64>,
    random: Random,
    model: Rc<RefCell<Model>>,
}

impl Writer {
    async fn run(mut self) {
        while self.step().await {}
    }

    fn key(&mut self) -> String {
        format!("crash/{:02}/{}", self.index, self.random.below(KEYS_PER_WRITER))
    }

    /// Sends one request; false when the server is gone.
    async fn step(&mut self) -> bool {
        match self.random.below(10) {
            0..=4 => self.put().await,
            5 => self.delete().await,
            6..=7 => self.txn().await,
            8 => self.grant().await,
            _ => self.revoke().await,
        }
    }

    fn note(&mut self, request: Request, answer: Result<i64, Status>) -> bool {
        let mut model = self.model.borrow_mut();
        match answer {
            Ok(revision) => {
                for change in &request.changes {
                    match &change.put {
                        Some((_, lease)) => self.keys.insert(change.key.clone(), *lease),
                        None => self.keys.remove(&change.key),
                    };
                }
                model.acknowledge(request, revision);
                true
            }
            Err(_) => {
                model.lose(request);
                false
            }
        }
    }

    fn request(&self, changes: Vec<Change>, lease: LeaseChange) -> Request {
        Request {
            writer: self.index,
            changes,
            lease,
        }
    }

    async fn put(&mut self) -> bool {
        let key = self.key();
        let value = self.model.borrow_mut().fresh_value();
        let own_leases: Vec<_> = self.leases();
        let lease = match own_leases.len() as u64 {
            0 => 0,
            count => own_leases
                .get(self.random.below(count + 1) as usize)
                .copied()
                .unwrap_or(0),
        };
        let answer = self
            .client
            .try_put(pb::PutRequest {
                lease,
                ..put(key.clone(), value.clone())
            })
            .await;
        let request = self.request(
            vec![Change {
                key,
                put: Some((value, lease)),
            }],
            LeaseChange::None,
        );
        self.note(request, answer.map(|answer| answer.header.expect("a header").revision))
    }

    async fn delete(&mut self) -> bool {
        let key = self.key();
        let present = self.keys.contains_key(&key);
        let request = pb::DeleteRangeRequest {
            key: key.clone().into(),
            ..Default::default()
        };
        let answer = self.client.try_delete(request).await;
        if let Ok(answer) = &answer {
            assert_eq!(answer.deleted, i64::from(present), "delete of {key}");
        }
        let changes = if present {
            vec![Change { key, put: None }]
        } else {
            vec![]
        };
        let request = self.request(changes, LeaseChange::None);
        self.note(request, answer.map(|answer| answer.header.expect("a header").revision))
    }

    /// Puts one key and deletes another, if the first is as it should be.
    async fn txn(&mut self) -> bool {
        let key = self.key();
        let other = self.key();
        if other == key {
            return true;
        }
        let value = self.model.borrow_mut().fresh_value();
        let mut changes = vec![Change {
            key: key.clone(),
            put: Some((value.clone(), 0)),
        }];
        if self.keys.contains_key(&other) {
            changes.push(Change {
                key: other.clone(),
                put: None,
            });
        }
        let present = self.keys.contains_key(&key);
        let compare = pb::Compare {
            result: if present {
                CompareResult::Greater
            } else {
                CompareResult::Equal
            } as i32,
            target: CompareTarget::Version as i32,
            key: key.clone().into(),
            ..Default::default()
        };
        let success = vec![put_op(key, value), delete_op(other, "")];
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success,
            failure: vec![],
        };
        // Wrapped in another transaction now and then.
        let txn = match self.random.below(3) {
            0 => pb::TxnRequest {
                success: vec![op(pb::request_op::Request::RequestTxn(txn))],
                ..Default::default()
            },
            _ => txn,
        };
        let answer = self.client.try_txn(txn).await;
        if let Ok(answer) = &answer {
            assert!(answer.succeeded, "the writer knows its keys");
        }
        let request = self.request(changes, LeaseChange::None);
        self.note(request, answer.map(|answer| answer.header.expect("a header").revision))
    }

    fn leases(&self) -> Vec<i64> {
        let own = 1_000_000 * (self.index as i64 + 1);
        self.model
            .borrow()
            .leases()
            .range(own..own + 1_000_000)
            .copied()
            .collect()
    }

    async fn grant(&mut self) -> bool {
        let id = 1_000_000 * (self.index as i64 + 1) + self.random.below(1_000_000) as i64;
        if self.leases().len() >= 3 || self.leases().contains(&id) {
            return true;
        }
        let answer = self.client.try_grant(pb::LeaseGrantRequest { ttl: 100_000, id }).await;
        let request = self.request(vec![], LeaseChange::Grant(id));
        self.note(request, answer.map(|answer| answer.header.expect("a header").revision))
    }

    /// Revokes a lease and with it, in one revision and in key order, the keys attached to it.
    async fn revoke(&mut self) -> bool {
        let Some(id) = self.leases().first().copied() else {
            return true;
        };
        let attached = self.keys.iter().filter(|(_, lease)| **lease == id);
        let changes = attached
            .map(|(key, _)| Change {
                key: key.clone(),
                put: None,
            })
            .collect();
        let answer = self.client.try_revoke(pb::LeaseRevokeRequest { id }).await;
        let request = self.request(changes, LeaseChange::Revoke(id));
        self.note(request, answer.map(|answer| answer.header.expect("a header").revision))
    }
}
