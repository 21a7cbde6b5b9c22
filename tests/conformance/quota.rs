//! A full database: refused, cleaned up, and in use again.

use ringd::wire::proto::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};

use crate::{
    fixture::{Fixture, refusal},
    support::{
        calls::{put, span},
        status::Code,
        world::{Stop, Target},
    },
};

bodies! {
    fresh {
        a_full_database_refuses_until_it_is_cleaned_and_disarmed => ["--quota-backend-bytes=16777216"],
        a_negative_quota_is_no_quota => ["--quota-backend-bytes=-1"],
    }
}

async fn a_full_database_refuses_until_it_is_cleaned_and_disarmed(t: Target) {
    let f = Fixture::new(&t).await;
    let no_space = refusal(Code::ResourceExhausted, "mvcc: database space exceeded");
    let value = vec![b'v'; 256 * 1024];
    let mut written = 0;
    let refused = loop {
        assert!(written < 200, "200 values of 256 KiB fit into 16 MiB");
        match f
            .try_put(put(t.key(&format!("{:02}", written % 10)), value.clone()))
            .await
        {
            Ok(_) => written += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(refused, no_space);
    assert!(written >= 20, "refused after {written} values of 256 KiB");
    let get = pb::AlarmRequest {
        action: AlarmAction::Get as i32,
        ..Default::default()
    };
    let raised = pb::AlarmMember {
        member_id: f.member_id(),
        alarm: AlarmType::Nospace as i32,
    };
    assert_eq!(f.try_alarm(get).await.unwrap().alarms, [raised]);
    assert_eq!(
        f.try_put(put(t.key("tiny"), "1")).await,
        Err(no_space.clone()),
        "whatever its size"
    );
    assert_eq!(
        f.status().await.errors,
        [format!("memberID:{} alarm:NOSPACE ", f.member_id())]
    );
    t.restart(Stop::Clean).await;

    let f = Fixture::new(&t).await;
    assert_eq!(
        f.try_put(put(t.key("tiny"), "1")).await,
        Err(no_space.clone()),
        "also after a restart"
    );
    let (key, range_end) = t.all();
    f.try_delete(pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    })
    .await
    .expect("deletes pass");
    f.compact(f.base + 1).await;
    let before = f.status().await;
    f.try_defragment(pb::DefragmentRequest {})
        .await
        .expect("defragmentation passes");
    let after = f.status().await;
    assert!(
        after.db_size < before.db_size / 4,
        "{} became {}",
        before.db_size,
        after.db_size
    );
    assert!(after.db_size_in_use <= after.db_size);
    assert_eq!(
        f.try_put(put(t.key("tiny"), "1")).await,
        Err(no_space),
        "space alone does not disarm"
    );
    let disarm = pb::AlarmRequest {
        action: AlarmAction::Deactivate as i32,
        member_id: f.member_id(),
        alarm: AlarmType::Nospace as i32,
    };
    assert_eq!(f.try_alarm(disarm).await.unwrap().alarms, [raised]);
    f.put_at("tiny", "1", 2).await;
    assert_eq!(f.range(span(t.all())).await.count, 1);
    if f.is_36().await {
        assert_eq!(after.db_size_quota, 16 << 20);
    }
}

async fn a_negative_quota_is_no_quota(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    assert_eq!(f.try_alarm(pb::AlarmRequest::default()).await.unwrap().alarms, []);
}
