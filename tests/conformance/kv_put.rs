//! Put: what it answers, its options, and what it refuses.

use ringd::wire::proto::{etcdserverpb as pb, mvccpb};

use crate::support::{
    calls::{one, put, revision_of},
    status::{Code, Status},
    world::Target,
};

bodies! {
    standing {
        put_moves_the_revision_by_one_and_answers_with_a_full_header,
    }
}

async fn put_moves_the_revision_by_one_and_answers_with_a_full_header(t: Target) {
    let client = t.client().await;
    let status = client.status().await;
    let before = client.revision().await;
    let answer = client.put(t.key("a"), "1").await;
    let header = answer.header.expect("a header");
    assert_eq!(header.revision, before + 1);
    assert_eq!(header.cluster_id, status.header.unwrap().cluster_id);
    assert_eq!(header.member_id, status.header.unwrap().member_id);
    assert_eq!(header.raft_term, status.raft_term);
    assert_eq!(answer.prev_kv, None);
}
