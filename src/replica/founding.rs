//! How a cluster begins: its members are known beforehand, each starts with the same first entries, and these count as
//! committed. Ids and bytes are those of etcd's bootstrap, so that members of both kinds may found a cluster.

use bytes::Bytes;
use prost::Message;
use raft::eraftpb::{Entry, EntryType};

use crate::{
    base::MemberId,
    member::{self, Member},
    wire::proto::raftpb::{ConfChange, ConfChangeType},
};

/// The members that a new cluster is made of.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// `--initial-cluster-token`.
    pub token: String,
    /// This member's name.
    pub name: String,
    /// Names and peer URLs of all of them (`--initial-cluster`), this one included.
    pub members: Vec<(String, Vec<String>)>,
}

impl NewCluster {
    /// The founding members in the order of their ids; and which of them this one is, if it is.
    pub fn founders(&self) -> (Option<MemberId>, Vec<Member>) {
        let mut own_id = None;
        let founder = |(name, peer_urls): &(String, Vec<String>)| {
            let id = member::ids::initial_member_id(peer_urls, &self.token);
            if *name == self.name {
                own_id = Some(id);
            }
            Member {
                id,
                name: name.clone(),
                peer_urls: peer_urls.clone(),
                ..Member::default()
            }
        };
        let mut founders: Vec<Member> = self.members.iter().map(founder).collect();
        founders.sort_unstable_by_key(|member| member.id);
        (own_id, founders)
    }

    /// The entries that add the founding members: the first of the log, and committed from the start. All members write
    /// the same, so that their logs agree.
    pub fn entries(&self) -> Vec<Entry> {
        let (_, founders) = self.founders();
        let entry = |(position, member): (usize, &Member)| {
            let change = ConfChange {
                id: Some(0),
                r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
                node_id: Some(member.id.0),
                context: Some(member::json::member(member)),
            };
            Entry {
                entry_type: EntryType::EntryConfChange,
                term: 1,
                index: 1 + position as u64,
                data: Bytes::from(change.encode_to_vec()),
                ..Entry::default()
            }
        };
        founders.iter().enumerate().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `etcd --name b --initial-cluster a=http://127.0.0.1:23800,b=http://127.0.0.1:23801,c=http://127.0.0.1:23802` has
    /// these in its log.
    #[test]
    fn a_cluster_begins_as_etcd_begins_it() {
        let member = |name: &str, port| (name.to_owned(), vec![format!("http://127.0.0.1:{port}")]);
        let cluster = NewCluster {
            token: "etcd-cluster".to_owned(),
            name: "b".to_owned(),
            members: vec![member("a", 23800), member("b", 23801), member("c", 23802)],
        };
        let (own_id, founders) = cluster.founders();
        assert_eq!(own_id, Some(MemberId(0xbdae_9bbc_11dd_390d)));
        let ids: Vec<MemberId> = founders.iter().map(|member| member.id).collect();
        assert_eq!(format!("{:x}", member::ids::cluster_id(&ids)), "a351bc39333a7740");

        let node = |bytes: &[u8]| [&[0x08, 0x00, 0x10, 0x00, 0x18], bytes, &[0x22]].concat();
        let expected: [(Vec<u8>, &str); 3] = [
            (
                node(&[0xf3, 0x9e, 0x8b, 0xaf, 0xaf, 0xc2, 0x8c, 0xca, 0x02]),
                "J{\"id\":185828541645115251,\"peerURLs\":[\"http://127.0.0.1:23802\"],\"name\":\"c\"}",
            ),
            (
                node(&[0xc0, 0xc0, 0xca, 0xaf, 0xc1, 0xba, 0x96, 0x89, 0x2e]),
                "K{\"id\":3319814642761637952,\"peerURLs\":[\"http://127.0.0.1:23800\"],\"name\":\"a\"}",
            ),
            (
                node(&[0x8d, 0xf2, 0xf4, 0x8e, 0xc1, 0xf7, 0xa6, 0xd7, 0xbd, 0x01]),
                "L{\"id\":13668033151171901709,\"peerURLs\":[\"http://127.0.0.1:23801\"],\"name\":\"b\"}",
            ),
        ];
        for (position, (entry, (head, context))) in cluster.entries().iter().zip(expected).enumerate() {
            assert_eq!((entry.index, entry.term), (1 + position as u64, 1));
            assert_eq!(entry.data, [&head[..], context.as_bytes()].concat());
        }
        assert_eq!(cluster.entries().len(), 3);
    }

    #[test]
    fn who_is_not_named_is_no_founder() {
        let cluster = NewCluster {
            token: "t".to_owned(),
            name: "x".to_owned(),
            members: vec![("y".to_owned(), vec!["http://10.0.0.1:2380".to_owned()])],
        };
        assert_eq!(cluster.founders().0, None);
    }
}
