//! Everything a client can read from a server, and writes of every kind.

use std::{collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use ringd::wire::proto::{etcdserverpb as pb, mvccpb};

use crate::support::{
    calls::{always, delete_op, put, put_op, txn_op},
    client::Client,
    world::World,
};

/// What two servers on the same files must agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    pub cluster_id: u64,
    pub member_id: u64,
    pub revision: i64,
    /// HashKV of the current revision, and the compaction that it counts from.
    pub hash: (u32, i64),
    /// Records and their count at the current revision and at some before it.
    pub at: BTreeMap<i64, Vec<mvccpb::KeyValue>>,
    /// Granted TTL and keys, by id.
    pub leases: BTreeMap<i64, (i64, Vec<Bytes>)>,
    pub alarms: Vec<(u64, i32)>,
    /// Id, name and peer URLs.
    pub members: Vec<(u64, String, Vec<String>)>,
}

impl Content {
    /// Fails with the first difference.
    pub fn assert_same(&self, other: &Content, when: &str, log: &str) {
        let [mine, others] = [self, other].map(|content| Content {
            at: BTreeMap::new(),
            ..content.clone()
        });
        assert_eq!(mine, others, "{when}\n{log}");
        for (revision, records) in &other.at {
            assert_eq!(
                self.at.get(revision),
                Some(records),
                "{when}: records at {revision}\n{log}"
            );
        }
    }
}

fn everything() -> pb::RangeRequest {
    let zero = Bytes::from_static(b"\0");
    pb::RangeRequest {
        key: zero.clone(),
        range_end: zero,
        ..Default::default()
    }
}

/// Reads it all.
pub async fn read(world: Rc<dyn World>) -> Content {
    let client = Client::connect(&world).await;
    let now = client.range(everything()).await;
    let header = now.header.expect("a header");
    let hash = client
        .try_hash_kv(pb::HashKvRequest { revision: 0 })
        .await
        .expect("a hash");
    let first = hash.compact_revision.max(1);
    let mut at = BTreeMap::new();
    for revision in (first..=header.revision).rev().step_by(7).chain([first]) {
        at.insert(
            revision,
            client
                .range(pb::RangeRequest {
                    revision,
                    ..everything()
                })
                .await
                .kvs,
        );
    }
    let mut leases = BTreeMap::new();
    for lease in client
        .try_leases(pb::LeaseLeasesRequest {})
        .await
        .expect("leases")
        .leases
    {
        let mut answer = client.time_to_live(lease.id, true).await;
        answer.keys.sort();
        leases.insert(lease.id, (answer.granted_ttl, answer.keys));
    }
    let mut alarms: Vec<_> = client
        .try_alarm(pb::AlarmRequest::default())
        .await
        .expect("alarms")
        .alarms;
    alarms.sort_by_key(|alarm| (alarm.member_id, alarm.alarm));
    let members = client
        .try_member_list(pb::MemberListRequest { linearizable: true })
        .await
        .expect("members")
        .members;
    Content {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        hash: (hash.hash, hash.compact_revision),
        at,
        leases,
        alarms: alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect(),
        members: members
            .into_iter()
            .map(|member| (member.id, member.name, member.peer_ur_ls))
            .collect(),
    }
}

/// Writes of every kind; `leg` makes them differ.
pub async fn write(world: Rc<dyn World>, leg: i64) {
    let client = Client::connect(&world).await;
    for index in 0..40 {
        client
            .put(format!("k/{:02}", index % 13), format!("leg {leg} value {index}"))
            .await;
    }
    client.put(vec![0, 0xff, b'k'], vec![leg as u8; 300]).await;
    client.put(format!("large/{leg}"), vec![b'l'; 70_000]).await;
    client.put(format!("empty/{leg}"), "").await;
    client.delete(format!("k/{:02}", leg % 13)).await;
    let (kept, gone) = (100 + leg, 200 + leg);
    client.grant(kept, 10_000 + leg).await;
    client.grant(gone, 10_000).await;
    for (key, lease) in [("a", kept), ("b", kept), ("c", gone), ("d", gone)] {
        let request = pb::PutRequest {
            lease,
            ..put(format!("leased/{leg}/{key}"), "v")
        };
        client.try_put(request).await.expect("a put with a lease");
    }
    client.revoke(gone).await;
    let nested = always(vec![
        put_op(format!("nested/{leg}"), "1"),
        delete_op(format!("leased/{leg}/b"), ""),
    ]);
    client
        .txn(always(vec![
            put_op("txn", format!("{leg}")),
            delete_op("k/05", "k/08"),
            txn_op(nested),
        ]))
        .await;
    if leg % 2 == 1 {
        client.compact(client.revision().await - 30).await;
    }
    client.put("last", format!("{leg}")).await;
}
