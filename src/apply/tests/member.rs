//! Members through the log.

use bytes::Bytes;
use prost::Message;

use crate::apply::testing::*;
use crate::apply::{Applied, ApplyFault, Effect, EntryAt, OpenFault, State, StateConfig, Tree};
use crate::backend::Bucket;
use crate::base::{LogIndex, MemberId, Reject, RequestId};
use crate::member::{ClusterVersion, Member, MemberChange};
use crate::mvcc::{CompactionMarks, Restore};
use crate::wire::proto::etcdserverpb::{self, *};
use crate::wire::proto::membershippb::*;
use crate::wire::proto::raftpb::{ConfChange, ConfState};

fn member(id: u64, is_learner: bool) -> Member {
    Member {
        id: MemberId(id),
        peer_urls: vec![format!("http://127.0.0.1:{id}")],
        is_learner,
        ..Member::default()
    }
}

/// What raft makes of a change.
fn conf_state(state: &State<MemoryTree>, change: &ConfChange) -> ConfState {
    let mut after = state.conf_state().cloned().unwrap_or_default();
    after.auto_leave = Some(false);
    let id = change.node_id();
    if id == 0 {
        return after;
    }
    after.voters.retain(|voter| *voter != id);
    after.learners.retain(|learner| *learner != id);
    match change.r#type() {
        crate::wire::proto::raftpb::ConfChangeType::ConfChangeAddNode => after.voters.push(id),
        crate::wire::proto::raftpb::ConfChangeType::ConfChangeAddLearnerNode => after.learners.push(id),
        crate::wire::proto::raftpb::ConfChangeType::ConfChangeUpdateNode => after.voters.push(id),
        crate::wire::proto::raftpb::ConfChangeType::ConfChangeRemoveNode => {}
    }
    after
}

fn entry(id: u64, change: &MemberChange) -> Bytes {
    let context = change.to_context();
    ConfChange {
        id: Some(id),
        r#type: Some(context.kind as i32),
        node_id: Some(context.member_id.0),
        context: Some(context.context),
    }
    .encode_to_vec()
    .into()
}

fn change_at(rig: &mut Rig, at: EntryAt, change: &MemberChange) -> Applied {
    let plan = rig.state.plan_conf_change(at, &entry(at.index.0, change)).unwrap();
    assert_eq!(plan.change(), change);
    let after = conf_state(&rig.state, &plan.to_raft);
    rig.state.finish_conf_change(plan, after)
}

fn change(rig: &mut Rig, change: &MemberChange) -> Applied {
    let at = rig.next();
    change_at(rig, at, change)
}

fn text(rig: &Rig, bucket: Bucket, key: &str) -> Option<String> {
    let value = rig.state.tree().value(bucket, key.as_bytes())?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn members_come_change_and_go() {
    let mut rig = Rig::new();
    let applied = change(&mut rig, &MemberChange::Add(member(0xa1, false)));
    assert_eq!(applied.request_id, Some(RequestId(1)));
    assert!(matches!(applied.effect, Some(Effect::MembersChanged)));
    let applied = change(&mut rig, &MemberChange::Add(member(0xb2, true)));
    let response = MemberAddResponse::decode(applied.answer.unwrap().unwrap()).unwrap();
    assert_eq!(response.header, header(0), "answers about members show no revision");
    assert_eq!(response.member.unwrap().id, 0xb2);
    assert_eq!(response.members.len(), 2);
    let stored = text(&rig, Bucket::Members, "b2").unwrap();
    assert_eq!(
        stored,
        r#"{"id":178,"peerURLs":["http://127.0.0.1:178"],"isLearner":true}"#
    );

    let applied = change(&mut rig, &MemberChange::Promote(MemberId(0xb2)));
    let response = MemberPromoteResponse::decode(applied.answer.unwrap().unwrap()).unwrap();
    assert!(response.members.iter().all(|member| !member.is_learner));
    let applied = change(
        &mut rig,
        &MemberChange::Update(MemberId(0xb2), vec!["http://moved".into()]),
    );
    let response = MemberUpdateResponse::decode(applied.answer.unwrap().unwrap()).unwrap();
    assert_eq!(response.members[1].peer_ur_ls, ["http://moved"]);
    let stored = text(&rig, Bucket::Members, "b2").unwrap();
    assert_eq!(stored, r#"{"id":178,"peerURLs":["http://moved"]}"#);

    let applied = change(&mut rig, &MemberChange::Remove(MemberId(0xb2)));
    let response = MemberRemoveResponse::decode(applied.answer.unwrap().unwrap()).unwrap();
    assert_eq!(response.members.len(), 1);
    assert_eq!(text(&rig, Bucket::Members, "b2"), None);
    assert_eq!(text(&rig, Bucket::MembersRemoved, "b2").as_deref(), Some("removed"));
    seal(&mut rig.state);
    let stored = text(&rig, Bucket::Meta, "confState").unwrap();
    assert_eq!(stored, r#"{"voters":[161],"auto_leave":false}"#);

    let before = rig.state.members().clone();
    let rig = rig.reopen();
    assert_eq!(*rig.state.members(), before);
    assert_eq!(rig.state.conf_state().unwrap().voters, [161]);
    let listed = MemberListResponse::decode(rig.state.member_list()).unwrap();
    assert_eq!((listed.header, listed.members), (header(0), before.to_proto()));
}

#[test]
fn refused_change_reaches_raft_as_none_and_stores_nothing() {
    let mut rig = Rig::new();
    change(&mut rig, &MemberChange::Add(member(0xa1, false)));
    seal(&mut rig.state);
    let before = rig.state.tree().clone();
    let twice = MemberChange::Add(member(0xa1, false));
    let at = rig.next();
    let plan = rig.state.plan_conf_change(at, &entry(9, &twice)).unwrap();
    assert_eq!(plan.to_raft.node_id(), 0);
    assert_eq!(plan.refusal(), Some(Reject::MemberExists));
    let applied = rig.state.finish_conf_change(plan, ConfState::default());
    assert_eq!(applied.answer, Some(Err(Reject::MemberExists)));
    assert_eq!(applied.request_id, Some(RequestId(9)));
    assert!(applied.effect.is_none());
    assert_eq!(*rig.state.tree(), before);
    assert_eq!(rig.state.applied().index, LogIndex(2));
    assert!(rig.state.seal().iter().all(|(key, _)| *key != b"confState"));
}

#[test]
fn own_removal_is_noticed() {
    let mut rig = Rig::new();
    change(&mut rig, &MemberChange::Add(member(MEMBER.0, false)));
    let applied = change(&mut rig, &MemberChange::Remove(MEMBER));
    assert!(matches!(applied.effect, Some(Effect::RemovedSelf)));
}

#[test]
fn replayed_change_gets_the_verdict_that_it_had() {
    let changes = [
        MemberChange::Add(member(0xa1, false)),
        MemberChange::Add(member(0xb2, false)),
        MemberChange::Remove(MemberId(0xb2)),
        // Refused then, since a removed id never comes back.
        MemberChange::Add(member(0xb2, false)),
        MemberChange::Add(member(0xc3, true)),
        MemberChange::Promote(MemberId(0xc3)),
        MemberChange::Promote(MemberId(0xc3)),
    ];
    let verdicts = |rig: &mut Rig| -> Vec<Option<Reject>> {
        let entries = changes.iter().zip(1..);
        let verdict = entries.map(|(change, index)| {
            let at = EntryAt {
                index: LogIndex(index),
                term: TERM,
            };
            let plan = rig.state.plan_conf_change(at, &entry(index, change)).unwrap();
            let (refusal, after) = (plan.refusal(), conf_state(&rig.state, &plan.to_raft));
            rig.state.finish_conf_change(plan, after);
            refusal
        });
        verdict.collect()
    };
    let mut rig = Rig::new();
    let first = verdicts(&mut rig);
    assert_eq!(first.iter().filter(|refusal| refusal.is_some()).count(), 2);
    let mut rig = rig.reopen();
    let before = (rig.state.tree().clone(), rig.state.members().clone());
    assert_eq!(verdicts(&mut rig), first);
    assert_eq!((rig.state.tree().clone(), rig.state.members().clone()), before);
}

#[test]
fn attributes_and_version_are_set_in_either_form() {
    let published = r#"{"name":"one","clientURLs":["http://c"]}"#;
    let old = |path: &str, val: &str| InternalRaftRequest {
        v2: Some(etcdserverpb::Request {
            id: 1,
            method: "PUT".to_owned(),
            path: path.to_owned(),
            val: val.to_owned(),
            ..etcdserverpb::Request::default()
        }),
        ..InternalRaftRequest::default()
    };
    let attributes = ClusterMemberAttrSetRequest {
        member_id: 0xa1,
        member_attributes: Some(Attributes {
            name: "one".to_owned(),
            client_urls: vec!["http://c".to_owned()],
        }),
    };
    let new = InternalRaftRequest {
        cluster_member_attr_set: Some(attributes),
        ..InternalRaftRequest::default()
    };
    let new_version = InternalRaftRequest {
        cluster_version_set: Some(ClusterVersionSetRequest {
            ver: "3.5.0".to_owned(),
        }),
        ..InternalRaftRequest::default()
    };
    let forms = [
        (old("/0/members/a1/attributes", published), old("/0/version", "3.5.0")),
        (new, new_version),
    ];
    for (attributes, version) in forms {
        let mut rig = Rig::new();
        change(&mut rig, &MemberChange::Add(member(0xa1, false)));
        assert!(matches!(rig.apply(attributes).effect, Some(Effect::MembersChanged)));
        let stored = text(&rig, Bucket::Members, "a1").unwrap();
        let expected = r#"{"id":161,"peerURLs":["http://127.0.0.1:161"],"name":"one","clientURLs":["http://c"]}"#;
        assert_eq!(stored, expected);
        assert!(matches!(
            rig.apply(version.clone()).effect,
            Some(Effect::ClusterVersionChanged)
        ));
        assert!(rig.apply(version).effect.is_none());
        assert_eq!(text(&rig, Bucket::Cluster, "clusterVersion").as_deref(), Some("3.5.0"));
        let rig = rig.reopen();
        assert_eq!(rig.state.members().version(), Some(&ClusterVersion::new(3, 5)));
        assert_eq!(rig.state.members().member(MemberId(0xa1)).unwrap().name, "one");
    }
}

#[test]
fn other_requests_of_the_old_api_change_nothing() {
    let mut rig = Rig::new();
    let before = rig.state.tree().clone();
    for (method, path) in [
        ("SYNC", ""),
        ("DELETE", "/0/version"),
        ("PUT", "/1/key"),
        ("QGET", "/0/members"),
        ("POST", "/1"),
    ] {
        let old = etcdserverpb::Request {
            method: method.to_owned(),
            path: path.to_owned(),
            ..etcdserverpb::Request::default()
        };
        let at = rig.next();
        let applied = rig.state.apply(at, old.encode_to_vec().into(), rig.now).unwrap();
        assert!(applied.commit.is_none() && applied.effect.is_none());
    }
    assert_eq!(*rig.state.tree(), before);
}

#[test]
fn downgrade_is_stored_as_etcd_stores_it() {
    let mut rig = Rig::new();
    let set = |enabled, ver: &str| InternalRaftRequest {
        downgrade_info_set: Some(DowngradeInfoSetRequest {
            enabled,
            ver: ver.to_owned(),
        }),
        ..InternalRaftRequest::default()
    };
    rig.apply(set(true, "3.5.0"));
    let stored = text(&rig, Bucket::Cluster, "downgrade").unwrap();
    assert_eq!(stored, r#"{"target-version":"3.5.0","enabled":true}"#);
    rig.apply(set(false, "3.5.0"));
    let stored = text(&rig, Bucket::Cluster, "downgrade").unwrap();
    assert_eq!(stored, r#"{"target-version":"","enabled":false}"#);
    assert!(!rig.reopen().state.members().downgrade().unwrap().is_enabled);
}

#[test]
fn unsound_entries_are_faults_and_change_nothing() {
    let mut rig = Rig::new();
    let before = rig.state.tree().clone();
    let auth = InternalRaftRequest {
        auth_user_add: Some(AuthUserAddRequest {
            name: "someone".to_owned(),
            ..AuthUserAddRequest::default()
        }),
        ..InternalRaftRequest::default()
    };
    let version = InternalRaftRequest {
        cluster_version_set: Some(ClusterVersionSetRequest { ver: "new".to_owned() }),
        ..InternalRaftRequest::default()
    };
    let stranger = InternalRaftRequest {
        cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
            member_id: 5,
            member_attributes: None,
        }),
        ..InternalRaftRequest::default()
    };
    let index = LogIndex(1);
    let cases = [
        (auth, ApplyFault::AuthUnsupported(index)),
        (version, ApplyFault::BadVersion(index, "new".to_owned())),
        (stranger, ApplyFault::UnknownMember(index, MemberId(5))),
        (InternalRaftRequest::default(), ApplyFault::Malformed(index)),
    ];
    for (request, expected) in cases {
        // An id, so that even the empty request is not the empty entry of a new leader.
        let request = InternalRaftRequest { id: 3, ..request };
        let at = rig.next();
        let fault = rig
            .state
            .apply(at, request.encode_to_vec().into(), rig.now)
            .unwrap_err();
        assert_eq!(fault, expected);
        assert!(!fault.to_string().is_empty());
    }
    assert_eq!(*rig.state.tree(), before);
    assert_eq!(rig.state.applied().index, LogIndex(0));
    let question = InternalRaftRequest {
        auth_user_list: Some(AuthUserListRequest {}),
        ..InternalRaftRequest::default()
    };
    assert!(rig.apply(question).commit.is_none());
}

#[test]
fn database_with_authentication_is_not_opened() {
    let mut tree = MemoryTree::default();
    tree.put(Bucket::Auth, b"authEnabled", Bytes::from_static(&[1]));
    let restored = Restore::new(CompactionMarks::default()).finish();
    let fault = State::open(tree.clone(), restored, config()).err().unwrap();
    assert_eq!(fault, OpenFault::AuthEnabled);
    tree.put(Bucket::Auth, b"authEnabled", Bytes::from_static(&[0]));
    let restored = Restore::new(CompactionMarks::default()).finish();
    let state = State::open(tree, restored, config()).unwrap();
    let revision = state.tree().value(Bucket::Auth, b"authRevision").unwrap();
    assert_eq!(revision[..], [0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn promotion_that_the_bucket_lost_is_taken_from_the_configuration() {
    let mut tree = MemoryTree::default();
    tree.put(
        Bucket::Members,
        b"5",
        Bytes::from_static(br#"{"id":5,"peerURLs":["u"],"isLearner":true}"#),
    );
    tree.put(
        Bucket::Meta,
        b"confState",
        Bytes::from_static(br#"{"voters":[5],"auto_leave":false}"#),
    );
    let state = open(tree, config());
    assert!(!state.members().member(MemberId(5)).unwrap().is_learner);
}

#[test]
fn unreadable_buckets_are_told_apart() {
    for bucket in [Bucket::Members, Bucket::Lease, Bucket::Alarm] {
        let mut tree = MemoryTree::default();
        tree.put(bucket, b"\xff", Bytes::from_static(b"\xff"));
        let restored = Restore::new(CompactionMarks::default()).finish();
        let fault = State::open(tree, restored, config()).err().unwrap();
        assert_eq!(fault.entry(), Some((bucket, &b"\xff"[..])));
    }
}

#[test]
fn snapshot_ahead_of_the_tree_counts_as_applied() {
    let mut tree = MemoryTree::default();
    tree.put(
        Bucket::Meta,
        b"consistent_index",
        Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 3]),
    );
    let snapshot = EntryAt {
        index: LogIndex(8),
        term: TERM,
    };
    let state = open(tree, StateConfig { snapshot, ..config() });
    assert_eq!(state.applied(), snapshot);
}
