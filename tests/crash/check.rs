//! Reads back everything that a server holds: the present, the compaction's past, each change between, and the leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use ringd::wire::proto::{etcdserverpb as pb, mvccpb};

use crate::{
    model::{Change, Found},
    support::{client::Client, world::World},
};

fn everything() -> pb::RangeRequest {
    let zero = Bytes::from_static(b"\0");
    pb::RangeRequest {
        key: zero.clone(),
        range_end: zero,
        ..Default::default()
    }
}

/// Asks a server for all it has.
pub async fn read_back(world: Rc<dyn World>) -> Found {
    let client = Client::connect(&world).await;
    let now = client.range(everything()).await;
    let revision = now.header.expect("a header").revision;
    let hash = client
        .try_hash_kv(pb::HashKvRequest { revision: 0 })
        .await
        .expect("a hash");
    let compact_revision = hash.compact_revision;
    let (at_compaction, below_is_gone) = if compact_revision > 0 {
        let past = client
            .range(pb::RangeRequest {
                revision: compact_revision,
                ..everything()
            })
            .await;
        let below = pb::RangeRequest {
            revision: compact_revision - 1,
            ..everything()
        };
        (
            past.kvs,
            compact_revision == 1 || client.try_range(below).await.is_err(),
        )
    } else {
        (vec![], true)
    };
    let leases = client
        .try_leases(pb::LeaseLeasesRequest {})
        .await
        .expect("the leases")
        .leases;
    Found {
        revision,
        compact_revision,
        events: events(&client, compact_revision.max(1) + 1, revision).await,
        now: now.kvs,
        at_compaction,
        leases: leases.iter().map(|lease| lease.id).collect::<BTreeSet<_>>(),
        below_is_gone,
    }
}

/// All changes from one revision to another, as a watcher is told of them.
async fn events(client: &Client, first: i64, last: i64) -> BTreeMap<i64, Vec<Change>> {
    let mut events: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    if first > last {
        return events;
    }
    let mut stream = client.watch().await;
    let pb::RangeRequest { key, range_end, .. } = everything();
    stream.create(pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: first,
        ..Default::default()
    });
    assert!(stream.watched().await.created);
    let mut newest = 0;
    while newest < last {
        let response = tokio::time::timeout(Duration::from_secs(20), stream.watched())
            .await
            .expect("events in time");
        assert!(!response.canceled, "{response:?}");
        for event in response.events {
            let deleted = event.r#type == mvccpb::event::EventType::Delete as i32;
            let kv = event.kv.expect("an event has a record");
            assert!(kv.mod_revision >= newest, "revision {} after {newest}", kv.mod_revision);
            newest = kv.mod_revision;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the load writes text");
            let put = (!deleted).then(|| (text(&kv.value), kv.lease));
            events.entry(newest).or_default().push(Change {
                key: text(&kv.key),
                put,
            });
        }
    }
    events
}
