//! What nearly every body begins with: a connection, who answers on it, and the revision before the body's first write.

use std::ops::Deref;

use bytes::Bytes;
use ringd::wire::proto::{etcdserverpb as pb, mvccpb};

use crate::support::{
    calls::{put, revision_of},
    client::Client,
    status::{Code, Status},
    world::Target,
};

/// A connection with what is needed to expect whole answers.
pub struct Fixture {
    client: Client,
    pub target: Target,
    /// The revision before the body's first write.
    pub base: i64,
    header: pb::ResponseHeader,
}

impl Deref for Fixture {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Fixture {
    pub async fn new(target: &Target) -> Fixture {
        let client = target.client().await;
        let header = client.get("any").await.header.expect("a range has a header");
        assert!(
            header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0,
            "{header:?}"
        );
        Fixture {
            client,
            target: target.clone(),
            base: header.revision,
            header,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// This server's header at a revision.
    pub fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            revision,
            ..self.header
        })
    }

    pub fn member_id(&self) -> u64 {
        self.header.member_id
    }

    pub fn raft_term(&self) -> u64 {
        self.header.raft_term
    }

    /// A key of this body.
    pub fn key(&self, suffix: &str) -> Bytes {
        self.target.key(suffix)
    }

    /// All keys of this body.
    pub fn all(&self) -> (Bytes, Bytes) {
        self.target.all()
    }

    /// Puts a key of this body; the answer must have the revision after `self.base` by `steps`.
    pub async fn put_at(&self, suffix: &str, value: &str, steps: i64) {
        let answer = self.put(self.key(suffix), value.to_string()).await;
        assert_eq!(
            revision_of(&answer.header),
            self.base + steps,
            "revision of the put of {suffix}"
        );
    }

    /// Puts a key of this body with a lease.
    pub async fn put_leased(&self, suffix: &str, value: &str, lease: i64) -> pb::PutResponse {
        let request = pb::PutRequest {
            lease,
            ..put(self.key(suffix), value.to_string())
        };
        self.try_put(request).await.expect("a put with a lease")
    }

    /// A record of this body; revisions count from `self.base`.
    pub fn kv(&self, suffix: &str, value: &str, create: i64, modified: i64, version: i64) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: self.key(suffix),
            create_revision: self.base + create,
            mod_revision: self.base + modified,
            version,
            value: Bytes::copy_from_slice(value.as_bytes()),
            lease: 0,
        }
    }

    /// A put event of a record.
    pub fn put_event(&self, kv: mvccpb::KeyValue) -> mvccpb::Event {
        mvccpb::Event {
            r#type: mvccpb::event::EventType::Put as i32,
            kv: Some(kv),
            prev_kv: None,
        }
    }

    /// A delete event: the key and where it ended, no more.
    pub fn delete_event(&self, suffix: &str, modified: i64) -> mvccpb::Event {
        let kv = mvccpb::KeyValue {
            key: self.key(suffix),
            mod_revision: self.base + modified,
            ..Default::default()
        };
        mvccpb::Event {
            r#type: mvccpb::event::EventType::Delete as i32,
            kv: Some(kv),
            prev_kv: None,
        }
    }

    /// Whether the server answers as etcd 3.6.
    pub async fn is_36(&self) -> bool {
        self.target.is_36(&self.client).await
    }
}

/// A refusal with one of etcd's texts; all begin with "etcdserver: ".
pub fn refusal(code: Code, text: &str) -> Status {
    Status::new(code, format!("etcdserver: {text}"))
}

/// InvalidArgument with one of etcd's texts.
pub fn invalid(text: &str) -> Status {
    refusal(Code::InvalidArgument, text)
}

/// OutOfRange for revisions that are gone.
pub fn compacted() -> Status {
    refusal(Code::OutOfRange, "mvcc: required revision has been compacted")
}

/// OutOfRange for revisions that are not yet there.
pub fn future() -> Status {
    refusal(Code::OutOfRange, "mvcc: required revision is a future revision")
}

/// NotFound for leases.
pub fn no_lease() -> Status {
    refusal(Code::NotFound, "requested lease not found")
}

/// Keys of records, for shorter comparisons.
pub fn keys(kvs: &[mvccpb::KeyValue]) -> Vec<&str> {
    kvs.iter()
        .map(|kv| {
            std::str::from_utf8(&kv.key)
                .expect("test keys are text")
                .rsplit('/')
                .next()
                .unwrap()
        })
        .collect()
}
