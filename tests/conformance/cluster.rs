//! The cluster service of a lone member, and the auth service while auth is off.

use ringd::wire::proto::etcdserverpb as pb;

use crate::{
    fixture::{Fixture, invalid, refusal},
    support::{
        status::Code,
        world::{Stop, Target},
    },
};

bodies! {
    standing {
        the_member_list_is_the_member_with_its_urls,
        headers_of_cluster_calls_have_no_revision,
        members_that_are_not_there_cannot_be_changed,
        the_last_member_cannot_be_removed,
        a_voting_member_cannot_be_promoted,
        urls_of_a_new_member_are_checked,
        auth_is_off_and_says_so,
    }
    fresh {
        a_member_keeps_the_peer_urls_it_was_given,
    }
}

const PEER_URL: &str = "http://127.0.0.1:2380";

async fn the_member_list_is_the_member_with_its_urls(t: Target) {
    let f = Fixture::new(&t).await;
    for linearizable in [false, true] {
        let answer = f.try_member_list(pb::MemberListRequest { linearizable }).await.unwrap();
        let [member] = &answer.members[..] else {
            panic!("{answer:?}")
        };
        // Ids are a hash of the peer addresses and the cluster's token, so they are the same everywhere.
        assert_eq!(member.id, 0xb71f75320dc06a6c);
        assert_eq!(answer.header.unwrap().cluster_id, 0x1c45a069f3a1d796);
        assert_eq!((member.id, member.name.as_str()), (f.member_id(), "default"));
        assert_eq!(member.peer_ur_ls, [PEER_URL]);
        assert!(
            matches!(&member.client_ur_ls[..], [url] if url.starts_with("http://127.0.0.1:")),
            "{member:?}"
        );
        assert!(!member.is_learner);
    }
}

async fn headers_of_cluster_calls_have_no_revision(t: Target) {
    let f = Fixture::new(&t).await;
    let answer = f
        .try_member_list(pb::MemberListRequest { linearizable: true })
        .await
        .unwrap();
    assert_eq!(answer.header, f.header(0));
}

async fn members_that_are_not_there_cannot_be_changed(t: Target) {
    let f = Fixture::new(&t).await;
    let missing = refusal(Code::NotFound, "member not found");
    for id in [0, 77] {
        assert_eq!(
            f.try_member_remove(pb::MemberRemoveRequest { id }).await,
            Err(missing.clone())
        );
        assert_eq!(
            f.try_member_promote(pb::MemberPromoteRequest { id }).await,
            Err(missing.clone())
        );
        let peer_ur_ls = vec![String::from("http://127.0.0.1:1")];
        assert_eq!(
            f.try_member_update(pb::MemberUpdateRequest { id, peer_ur_ls }).await,
            Err(missing.clone())
        );
    }
}

async fn the_last_member_cannot_be_removed(t: Target) {
    let f = Fixture::new(&t).await;
    let refused = f.try_member_remove(pb::MemberRemoveRequest { id: f.member_id() }).await;
    // etcd hands out its client-side error here, so that the code is lost on the way.
    assert_eq!(
        refused,
        Err(refusal(
            Code::Unknown,
            "re-configuration failed due to not enough started members"
        ))
    );
    f.put_at("a", "1", 1).await;
}

async fn a_voting_member_cannot_be_promoted(t: Target) {
    let f = Fixture::new(&t).await;
    let refused = f
        .try_member_promote(pb::MemberPromoteRequest { id: f.member_id() })
        .await;
    assert_eq!(
        refused,
        Err(refusal(Code::FailedPrecondition, "can only promote a learner member"))
    );
}

async fn urls_of_a_new_member_are_checked(t: Target) {
    let f = Fixture::new(&t).await;
    let add = async |urls: &[&str]| {
        let peer_ur_ls = urls.iter().map(|url| url.to_string()).collect();
        f.try_member_add(pb::MemberAddRequest {
            peer_ur_ls,
            is_learner: false,
        })
        .await
    };
    let bad = Err(invalid("given member URLs are invalid"));
    let odd = [
        &[][..],
        &["nope"],
        &["http://127.0.0.1"],
        &["ftp://127.0.0.1:2380"],
        &["http://127.0.0.1:2380/path"],
        &["http://127.0.0.1:9999", "nope"],
    ];
    for urls in odd {
        assert_eq!(add(urls).await, bad, "{urls:?}");
    }
    assert_eq!(
        add(&[PEER_URL]).await,
        Err(refusal(Code::FailedPrecondition, "Peer URLs already exists"))
    );
}

async fn auth_is_off_and_says_so(t: Target) {
    let f = Fixture::new(&t).await;
    let status: pb::AuthStatusResponse = f
        .unary("/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {})
        .await
        .expect("auth status");
    assert_eq!(
        status,
        pb::AuthStatusResponse {
            header: f.header(f.base),
            enabled: false,
            auth_revision: 1
        }
    );
    let request = pb::AuthenticateRequest {
        name: "root".into(),
        password: "secret".into(),
    };
    let refused: Result<pb::AuthenticateResponse, _> = f.unary("/etcdserverpb.Auth/Authenticate", &request).await;
    assert_eq!(
        refused,
        Err(refusal(Code::FailedPrecondition, "authentication is not enabled"))
    );
    // A token without auth is no hindrance.
    f.with_metadata("token", "nonsense").put(t.key("a"), "1").await;
}

async fn a_member_keeps_the_peer_urls_it_was_given(t: Target) {
    let f = Fixture::new(&t).await;
    let urls = vec![String::from("http://127.0.0.1:2390"), PEER_URL.into()];
    let update = pb::MemberUpdateRequest {
        id: f.member_id(),
        peer_ur_ls: urls.clone(),
    };
    let answer = match f.try_member_update(update).await {
        // Changes of members are later work of ringd, which says so.
        Err(status) if status.code == Code::Unimplemented && status.message.starts_with("ringd: ") => return,
        answer => answer.expect("the update"),
    };
    assert_eq!(answer.header, f.header(0));
    assert_eq!((answer.members.len(), &answer.members[0].peer_ur_ls), (1, &urls));
    for stop in [Stop::Clean, Stop::Kill] {
        t.restart(stop).await;
        let again = t.client().await;
        let members = again
            .try_member_list(pb::MemberListRequest { linearizable: true })
            .await
            .unwrap()
            .members;
        assert_eq!(
            (members.len(), members[0].id, &members[0].peer_ur_ls),
            (1, f.member_id(), &urls)
        );
    }
}
