//! Maintenance: status, alarms, defragmentation, snapshots of the database, leadership and downgrades of a lone member.

use bytes::BytesMut;
use ringd::wire::proto::etcdserverpb::{
    self as pb, AlarmType, alarm_request::AlarmAction, downgrade_request::DowngradeAction,
};
use sha2::{Digest, Sha256};

use crate::{
    fixture::{Fixture, invalid, refusal},
    support::{
        calls::{always, delete_op, get_op, put, put_op, span},
        status::{Code, Status},
        world::{Stop, Target},
    },
};

bodies! {
    standing {
        status_tells_versions_sizes_and_the_raft_position,
        status_moves_with_each_write,
        defragment_answers_without_a_header_and_loses_nothing,
        defragment_beside_writes_loses_nothing,
        a_snapshot_is_the_database_and_its_sha256,
        a_snapshot_counts_down_its_bytes,
        moving_the_leadership_of_a_lone_member,
        a_downgrade_wants_a_version_one_below,
    }
    fresh {
        alarms_are_kept_by_member_and_kind,
        an_alarm_for_space_refuses_what_takes_space,
        an_alarm_for_corruption_refuses_writes,
        alarms_outlive_a_restart,
        health_tells_of_alarms,
    }
}

fn alarm(action: AlarmAction, member_id: u64, alarm: AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest {
        action: action as i32,
        member_id,
        alarm: alarm as i32,
    }
}

fn alarm_member(member_id: u64, alarm: AlarmType) -> pb::AlarmMember {
    pb::AlarmMember {
        member_id,
        alarm: alarm as i32,
    }
}

/// Alarms of an answer, sorted: etcd keeps them in a map.
async fn alarms(f: &Fixture, kind: AlarmType) -> Vec<(u64, i32)> {
    let answer = f
        .try_alarm(alarm(AlarmAction::Get, 0, kind))
        .await
        .expect("a get of alarms");
    let mut alarms: Vec<_> = answer
        .alarms
        .iter()
        .map(|alarm| (alarm.member_id, alarm.alarm))
        .collect();
    alarms.sort_unstable();
    alarms
}

fn no_space() -> Status {
    refusal(Code::ResourceExhausted, "mvcc: database space exceeded")
}

fn corrupt() -> Status {
    refusal(Code::DataLoss, "corrupt cluster")
}

async fn status_tells_versions_sizes_and_the_raft_position(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let status = f.status().await;
    assert_eq!(status.header, f.header(f.base + 1));
    assert_eq!((status.leader, status.raft_term), (f.member_id(), f.raft_term()));
    assert!(
        status.raft_applied_index >= f.base as u64 && status.raft_index >= status.raft_applied_index,
        "{status:?}"
    );
    assert!(status.db_size > 0 && status.db_size_in_use > 0, "{status:?}");
    assert!(
        status.db_size_in_use <= status.db_size && status.db_size % 4096 == 0,
        "{status:?}"
    );
    assert_eq!((status.is_learner, status.errors), (false, vec![]));
    let parts: Vec<u32> = status
        .version
        .split('.')
        .map(|part| part.parse().expect("numbers alone"))
        .collect();
    assert_eq!((parts.len(), parts[0]), (3, 3), "{}", status.version);
    if f.is_36().await {
        assert_eq!(status.db_size_quota, 2 << 30);
        assert_eq!(
            status.downgrade_info,
            Some(pb::DowngradeInfo {
                enabled: false,
                target_version: String::new()
            })
        );
    } else {
        assert_eq!(
            (
                status.db_size_quota,
                status.downgrade_info,
                status.storage_version.as_str()
            ),
            (0, None, "")
        );
    }
}

async fn status_moves_with_each_write(t: Target) {
    let f = Fixture::new(&t).await;
    let before = f.status().await;
    for step in 1..=5 {
        f.put_at("a", "v", step).await;
    }
    let after = f.status().await;
    assert_eq!(after.raft_index, before.raft_index + 5);
    assert_eq!(after.raft_applied_index, before.raft_applied_index + 5);
    f.get(t.key("a")).await;
    f.txn(always(vec![get_op(t.key("a"))])).await;
    assert_eq!(
        f.status().await.raft_index,
        after.raft_index,
        "reads are not in the log"
    );
}

async fn defragment_answers_without_a_header_and_loses_nothing(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("a", "2", 2).await;
    let hash = f.try_hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap();
    let answer = f.try_defragment(pb::DefragmentRequest {}).await;
    assert_eq!(answer, Ok(pb::DefragmentResponse { header: None }));
    assert_eq!(f.try_hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap(), hash);
    let old = f
        .range(pb::RangeRequest {
            key: t.key("a"),
            revision: f.base + 1,
            ..Default::default()
        })
        .await;
    assert_eq!(old.kvs, [f.kv("a", "1", 1, 1, 1)]);
    f.put_at("a", "3", 3).await;
}

async fn defragment_beside_writes_loses_nothing(t: Target) {
    let f = Fixture::new(&t).await;
    let writer = {
        let (client, t) = (t.client().await, t.clone());
        tokio::task::spawn_local(async move {
            for index in 0..400 {
                client.put(t.key(&format!("{index:03}")), format!("{index}")).await;
            }
        })
    };
    for _ in 0..3 {
        f.try_defragment(pb::DefragmentRequest {})
            .await
            .expect("defragmentation");
    }
    writer.await.expect("the writer ends");
    let all = f.range(span(t.all())).await;
    assert_eq!(all.count, 400);
    for (index, kv) in all.kvs.iter().enumerate() {
        assert_eq!(
            (kv.value.as_ref(), kv.mod_revision),
            (format!("{index}").as_bytes(), f.base + 1 + index as i64)
        );
    }
}

async fn snapshot(f: &Fixture) -> Vec<pb::SnapshotResponse> {
    let mut stream = f.stream("/etcdserverpb.Maintenance/Snapshot").await;
    stream.send(&pb::SnapshotRequest {});
    stream.half_close();
    let mut responses = Vec::new();
    while let Some(response) = stream.next().await.expect("the snapshot goes on") {
        responses.push(response);
    }
    responses
}

async fn a_snapshot_is_the_database_and_its_sha256(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put(t.key("b"), vec![7; 100_000]).await;
    let responses = snapshot(&f).await;
    let (digest, blobs) = responses.split_last().expect("at least the digest");
    let mut database = BytesMut::new();
    for response in blobs {
        database.extend_from_slice(&response.blob);
    }
    assert_eq!(digest.blob.as_ref(), Sha256::digest(&database).as_slice());
    assert_eq!(digest.remaining_bytes, 0);
    assert_eq!(database.len() % 4096, 0, "whole pages");
    assert_eq!(database.len() as i64, f.status().await.db_size);
    // A bbolt file: the magic number of the first page's meta.
    assert_eq!(database[16..20], 0xED0C_DAEDu32.to_le_bytes());
    assert!(database.windows(5).any(|window| window == [7; 5]), "the value is in it");
}

async fn a_snapshot_counts_down_its_bytes(t: Target) {
    let f = Fixture::new(&t).await;
    f.put(t.key("b"), vec![7; 500_000]).await;
    let responses = snapshot(&f).await;
    let (_, blobs) = responses.split_last().expect("at least the digest");
    let mut left: u64 = blobs.iter().map(|response| response.blob.len() as u64).sum();
    for (index, response) in blobs.iter().enumerate() {
        assert_eq!(response.header, None);
        left -= response.blob.len() as u64;
        assert_eq!(response.remaining_bytes, left);
        let last = index + 1 == blobs.len();
        assert!(
            response.blob.len() == 32 * 1024 || last && !response.blob.is_empty(),
            "{}",
            response.blob.len()
        );
    }
    assert!(
        !f.is_36().await
            || responses
                .iter()
                .all(|response| response.version == responses[0].version)
    );
}

async fn moving_the_leadership_of_a_lone_member(t: Target) {
    let f = Fixture::new(&t).await;
    let to = async |target_id| f.try_move_leader(pb::MoveLeaderRequest { target_id }).await;
    let refused = Err(refusal(Code::FailedPrecondition, "bad leader transferee"));
    assert_eq!(to(77).await, refused);
    assert_eq!(to(0).await, refused);
    assert_eq!(to(f.member_id()).await, Ok(pb::MoveLeaderResponse { header: None }));
    f.put_at("a", "1", 1).await;
}

async fn a_downgrade_wants_a_version_one_below(t: Target) {
    let f = Fixture::new(&t).await;
    let ask = async |action: DowngradeAction, version: &str| {
        f.try_downgrade(pb::DowngradeRequest {
            action: action as i32,
            version: version.into(),
        })
        .await
    };
    let format = Err(invalid("wrong downgrade target version format"));
    assert_eq!(ask(DowngradeAction::Validate, "").await, format);
    assert_eq!(ask(DowngradeAction::Validate, "abc").await, format);
    assert_eq!(ask(DowngradeAction::Enable, "3").await, format);
    let target = Err(invalid("invalid downgrade target version"));
    // The cluster version is 3.5 on both: ringd does not raise it by itself.
    assert_eq!(ask(DowngradeAction::Validate, "3.3.0").await, target);
    assert_eq!(ask(DowngradeAction::Enable, "3.6.0").await, target);
    let allowed = pb::DowngradeResponse {
        header: f.header(f.base),
        version: "3.5.0".into(),
    };
    assert_eq!(ask(DowngradeAction::Validate, "3.4.0").await, Ok(allowed.clone()));
    assert_eq!(ask(DowngradeAction::Validate, "3.4").await, Ok(allowed));
    let unknown = f
        .try_downgrade(pb::DowngradeRequest {
            action: 5,
            version: "3.4.0".into(),
        })
        .await;
    assert_eq!(unknown, Err(refusal(Code::Unknown, "unknown method")));
    if !f.is_36().await {
        let none = Err(refusal(Code::FailedPrecondition, "no inflight downgrade job"));
        assert_eq!(ask(DowngradeAction::Cancel, "").await, none);
    }
}

async fn alarms_are_kept_by_member_and_kind(t: Target) {
    use AlarmAction::{Activate, Deactivate};
    use AlarmType::{Corrupt, None, Nospace};
    let f = Fixture::new(&t).await;
    let own = f.member_id();
    let answered = async |request, expected: &[pb::AlarmMember]| {
        let answer = f.try_alarm(request).await;
        assert_eq!(
            answer,
            Ok(pb::AlarmResponse {
                header: f.header(f.base),
                alarms: expected.to_vec()
            }),
            "{request:?}"
        );
    };
    answered(alarm(AlarmAction::Get, 0, None), &[]).await;
    answered(alarm(Activate, own, Nospace), &[alarm_member(own, Nospace)]).await;
    answered(alarm(Activate, own, Nospace), &[alarm_member(own, Nospace)]).await;
    answered(alarm(Activate, 1, Nospace), &[alarm_member(1, Nospace)]).await;
    answered(alarm(Activate, 1, Corrupt), &[alarm_member(1, Corrupt)]).await;
    answered(alarm(Activate, 1, None), &[]).await;
    assert_eq!(alarms(&f, None).await, [(1, 1), (1, 2), (own, 1)]);
    assert_eq!(alarms(&f, Nospace).await, [(1, 1), (own, 1)]);
    assert_eq!(alarms(&f, Corrupt).await, [(1, 2)]);
    let mut errors = f.status().await.errors;
    errors.sort();
    let expected = [
        "memberID:1 alarm:CORRUPT ".into(),
        "memberID:1 alarm:NOSPACE ".into(),
        format!("memberID:{own} alarm:NOSPACE "),
    ];
    assert_eq!(errors, expected);
    answered(alarm(Deactivate, 1, None), &[]).await;
    answered(alarm(Deactivate, 1, Corrupt), &[alarm_member(1, Corrupt)]).await;
    answered(alarm(Deactivate, 1, Corrupt), &[]).await;
    answered(alarm(Deactivate, 1, Nospace), &[alarm_member(1, Nospace)]).await;
    let left = f.try_put(put(t.key("a"), "1")).await;
    if f.is_36().await {
        assert_eq!(left, Err(no_space()), "one alarm is left");
    } else {
        // 3.5 forgets the one gate when the other is opened.
        assert!(left.is_ok());
    }
    let disarmed = f.try_alarm(alarm(Deactivate, own, Nospace)).await.unwrap();
    assert_eq!(disarmed.alarms, [alarm_member(own, Nospace)]);
    assert_eq!(alarms(&f, None).await, []);
    assert_eq!(f.status().await.errors, Vec::<String>::new());
    f.put(t.key("a"), "1").await;
}

async fn an_alarm_for_space_refuses_what_takes_space(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    f.put_at("b", "1", 2).await;
    let lease = f.grant(0, 3600).await.id;
    f.try_alarm(alarm(AlarmAction::Activate, 9, AlarmType::Nospace))
        .await
        .unwrap();
    assert_eq!(f.try_put(put(t.key("a"), "2")).await, Err(no_space()));
    assert_eq!(
        f.try_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await,
        Err(no_space())
    );
    assert_eq!(f.try_txn(always(vec![put_op(t.key("a"), "2")])).await, Err(no_space()));
    let hidden = pb::TxnRequest {
        failure: vec![put_op(t.key("a"), "2")],
        ..Default::default()
    };
    assert_eq!(f.try_txn(hidden).await, Err(no_space()), "the dearer branch counts");
    assert_eq!(f.revision().await, f.base + 2);
    // What takes none goes on.
    assert_eq!(f.get(t.key("a")).await.count, 1);
    assert!(f.txn(always(vec![get_op(t.key("a"))])).await.succeeded);
    assert!(f.txn(always(vec![delete_op(t.key("b"), "")])).await.succeeded);
    assert_eq!(f.delete(t.key("a")).await.header, f.header(f.base + 4));
    f.revoke(lease).await;
    f.compact(f.base + 4).await;
    f.try_defragment(pb::DefragmentRequest {}).await.unwrap();
    f.try_alarm(alarm(AlarmAction::Deactivate, 9, AlarmType::Nospace))
        .await
        .unwrap();
    f.put_at("a", "3", 5).await;
}

async fn an_alarm_for_corruption_refuses_writes(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let lease = f.grant(0, 3600).await.id;
    f.try_alarm(alarm(AlarmAction::Activate, f.member_id(), AlarmType::Corrupt))
        .await
        .unwrap();
    assert_eq!(f.try_put(put(t.key("a"), "2")).await, Err(corrupt()));
    let delete = pb::DeleteRangeRequest {
        key: t.key("a"),
        ..Default::default()
    };
    assert_eq!(f.try_delete(delete).await, Err(corrupt()));
    assert_eq!(f.try_txn(always(vec![put_op(t.key("a"), "2")])).await, Err(corrupt()));
    assert_eq!(
        f.try_compact(pb::CompactionRequest {
            revision: f.base,
            physical: false
        })
        .await,
        Err(corrupt())
    );
    assert_eq!(
        f.try_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await,
        Err(corrupt())
    );
    assert_eq!(f.try_revoke(pb::LeaseRevokeRequest { id: lease }).await, Err(corrupt()));
    // Reads do not pass the gate.
    assert_eq!(f.get(t.key("a")).await.kvs, [f.kv("a", "1", 1, 1, 1)]);
    f.try_alarm(alarm(AlarmAction::Deactivate, f.member_id(), AlarmType::Corrupt))
        .await
        .unwrap();
    f.put_at("a", "2", 2).await;
    f.revoke(lease).await;
}

async fn alarms_outlive_a_restart(t: Target) {
    let f = Fixture::new(&t).await;
    f.try_alarm(alarm(AlarmAction::Activate, f.member_id(), AlarmType::Nospace))
        .await
        .unwrap();
    f.try_alarm(alarm(AlarmAction::Activate, 5, AlarmType::Corrupt))
        .await
        .unwrap();
    f.try_alarm(alarm(AlarmAction::Deactivate, 5, AlarmType::Corrupt))
        .await
        .unwrap();
    for stop in [Stop::Kill, Stop::Clean] {
        t.restart(stop).await;
        let again = Fixture::new(&t).await;
        assert_eq!(
            alarms(&again, AlarmType::None).await,
            [(f.member_id(), AlarmType::Nospace as i32)]
        );
        assert_eq!(again.try_put(put(t.key("a"), "1")).await, Err(no_space()));
    }
}

async fn health_tells_of_alarms(t: Target) {
    use crate::support::http1;
    let f = Fixture::new(&t).await;
    f.try_alarm(alarm(AlarmAction::Activate, f.member_id(), AlarmType::Nospace))
        .await
        .unwrap();
    let health = http1::get(t.world(), "/health").await;
    assert_eq!(
        (health.status, health.body.as_str()),
        (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n")
    );
    let excluded = http1::get(t.world(), "/health?exclude=NOSPACE").await;
    assert_eq!(
        (excluded.status, excluded.body.as_str()),
        (200, r#"{"health":"true","reason":""}"#)
    );
    let ready = http1::get(t.world(), "/readyz").await;
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (200, "ok\n"),
        "a full disk is no reason to send requests elsewhere"
    );
    f.try_alarm(alarm(AlarmAction::Activate, f.member_id(), AlarmType::Corrupt))
        .await
        .unwrap();
    assert_eq!(http1::get(t.world(), "/readyz").await.status, 503);
    assert_eq!(http1::get(t.world(), "/readyz/data_corruption").await.status, 503);
    assert_eq!(
        http1::get(t.world(), "/readyz?exclude=data_corruption").await.status,
        200
    );
    assert_eq!(http1::get(t.world(), "/livez").await.status, 200);
    for kind in [AlarmType::Corrupt, AlarmType::Nospace] {
        f.try_alarm(alarm(AlarmAction::Deactivate, f.member_id(), kind))
            .await
            .unwrap();
    }
    assert_eq!(http1::get(t.world(), "/health").await.status, 200);
}
