//! The v2 store's JSON. etcd 3.5 and 3.6 keep it in `.snap` files and restore their view of the cluster from it; nobody's
//! keys are in it any more. We build it from members and cluster version, as etcd 3.6 does for each snapshot: a fresh
//! store, to which each of them is written in turn.
//!
//! ```text
//!  /0/members/<id>/raftAttributes   {"peerURLs":[…],"isLearner":true}      id in hexadecimal without leading zeros
//!  /0/members/<id>/attributes       {"name":…,"clientURLs":[…]}            once the member has published them
//!  /0/removed_members/<id>
//!  /0/version                       3.5.0
//!  /1                               where v2 keys were; empty
//! ```
//!
//! Each write has a number, counted from 1: a node carries it, and so does the event of it in the history that watchers
//! once read. The history is a ring of 1000 places; etcd writes into it after restoring, so it must have them all.

use std::{collections::BTreeMap, fmt, fmt::Write};

use serde::Deserialize;

use crate::base::MemberId;

/// What of the v2 store still has a meaning: the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreImage {
    /// Members, in order of id.
    pub members: Vec<StoreMember>,
    /// Members that were removed and must not come back, in order.
    pub removed: Vec<MemberId>,
    /// Cluster version as `3.5.0`, once it is set.
    pub cluster_version: Option<String>,
    /// Whether the store holds v2 keys, which only etcd before 3.6 can serve. Set by [`decode`]; not encoded.
    pub has_user_data: bool,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreMember {
    /// Its id.
    pub id: MemberId,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it does not vote.
    pub is_learner: bool,
    /// Its name; empty before it has published it.
    pub name: String,
    /// Where clients reach it; empty before it has published it.
    pub client_urls: Vec<String>,
}

/// Why the JSON cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault(pub String);

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v2store: {}", self.0)
    }
}

impl std::error::Error for StoreFault {}

impl From<serde_json::Error> for StoreFault {
    fn from(error: serde_json::Error) -> StoreFault {
        StoreFault(error.to_string())
    }
}

/// The JSON that etcd reads. Members without client URLs have not published their attributes, and have none here.
pub fn encode(image: &StoreImage) -> Vec<u8> {
    let mut store = Store::new();
    for member in &image.members {
        let path = format!("/0/members/{:x}", member.id);
        store.write("create", &format!("{path}/raftAttributes"), raft_attributes(member));
        if !member.client_urls.is_empty() {
            store.write("set", &format!("{path}/attributes"), attributes(member));
        }
    }
    for member_id in &image.removed {
        store.write("create", &format!("/0/removed_members/{member_id:x}"), String::new());
    }
    if let Some(version) = &image.cluster_version {
        store.write("set", "/0/version", version.clone());
    }
    store.to_json().into_bytes()
}

/// Reads what etcd or [`encode`] wrote. Empty input is an empty store (etcd 3.7 writes none). A member without peer URLs
/// is left out: it was removed while its attributes were on their way.
pub fn decode(json: &[u8]) -> Result<StoreImage, StoreFault> {
    let mut image = StoreImage::default();
    if json.is_empty() {
        return Ok(image);
    }
    let store: ReadStore = serde_json::from_slice(json)?;
    image.has_user_data = has_user_data(&store.root);
    let Some(cluster) = store.root.child("0") else {
        return Ok(image);
    };
    for (name, node) in cluster.child("members").map(ReadNode::children).into_iter().flatten() {
        if let Some(member) = read_member(member_id_from(name)?, node)? {
            image.members.push(member);
        }
    }
    for (name, _) in cluster
        .child("removed_members")
        .map(ReadNode::children)
        .into_iter()
        .flatten()
    {
        image.removed.push(member_id_from(name)?);
    }
    // Names sort as text, ids as numbers.
    image.members.sort_unstable_by_key(|member| member.id);
    image.members.dedup_by_key(|member| member.id);
    image.removed.sort_unstable();
    image.removed.dedup();
    image.cluster_version = cluster.child("version").map(|version| version.value.clone());
    Ok(image)
}

/// Reads any bytes as a store.
#[doc(hidden)]
pub fn fuzz_decode(bytes: &[u8]) {
    if let Ok(image) = decode(bytes) {
        let again = decode(&encode(&image)).expect("what we write, we read");
        assert_eq!(
            (again.removed, again.cluster_version),
            (image.removed, image.cluster_version)
        );
        assert_eq!(again.members.len(), image.members.len());
    }
}

#[derive(Deserialize)]
struct ReadStore {
    #[serde(rename = "Root")]
    root: ReadNode,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReadNode {
    #[serde(rename = "Value")]
    value: String,
    #[serde(rename = "Children")]
    children: Option<BTreeMap<String, ReadNode>>,
}

impl ReadNode {
    fn child(&self, name: &str) -> Option<&ReadNode> {
        self.children.as_ref()?.get(name)
    }

    fn children(&self) -> impl Iterator<Item = (&String, &ReadNode)> {
        self.children.iter().flatten()
    }

    fn is_empty(&self) -> bool {
        self.children().next().is_none()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReadRaftAttributes {
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner")]
    is_learner: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReadAttributes {
    name: String,
    #[serde(rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}

fn read_member(id: MemberId, node: &ReadNode) -> Result<Option<StoreMember>, StoreFault> {
    let Some(raft_attributes) = node.child("raftAttributes") else {
        return Ok(None);
    };
    let raft_attributes: ReadRaftAttributes = serde_json::from_str(&raft_attributes.value)?;
    let attributes: ReadAttributes = match node.child("attributes") {
        Some(attributes) => serde_json::from_str(&attributes.value)?,
        None => ReadAttributes::default(),
    };
    Ok(Some(StoreMember {
        id,
        peer_urls: raft_attributes.peer_urls.unwrap_or_default(),
        is_learner: raft_attributes.is_learner,
        name: attributes.name,
        client_urls: attributes.client_urls.unwrap_or_default(),
    }))
}

fn member_id_from(name: &str) -> Result<MemberId, StoreFault> {
    let is_hex = !name.is_empty() && name.bytes().all(|digit| digit.is_ascii_hexdigit());
    let id = is_hex.then(|| u64::from_str_radix(name, 16).ok()).flatten();
    id.map(MemberId)
        .ok_or_else(|| StoreFault(format!("not a member id: {name:?}")))
}

/// Whether anything but the cluster and the remains of v2's users is in the store, as etcd decides it.
fn has_user_data(root: &ReadNode) -> bool {
    root.children().any(|(name, node)| match name.as_str() {
        "0" => false,
        "2" => node.children().any(|(_, child)| !child.is_empty()),
        _ => !node.is_empty(),
    })
}

/// A store that is being written.
struct Store {
    root: Node,
    /// Number of the last write.
    index: u64,
    events: Vec<String>,
    sets: u64,
    creates: u64,
}

struct Node {
    index: u64,
    content: Content,
}

enum Content {
    Value(String),
    Children(BTreeMap<String, Node>),
}

/// Places in the ring of events.
const EVENTS_MAX: usize = 1000;

impl Store {
    fn new() -> Store {
        let directory = || Node {
            index: 0,
            content: Content::Children(BTreeMap::new()),
        };
        let mut root = directory();
        root.directory("0", 0);
        root.directory("1", 0);
        Store {
            root,
            index: 0,
            events: Vec::new(),
            sets: 0,
            creates: 0,
        }
    }

    fn write(&mut self, action: &'static str, path: &str, value: String) {
        self.index += 1;
        match action {
            "set" => self.sets += 1,
            _ => self.creates += 1,
        }
        let mut event = format!("{{\"action\":\"{action}\",\"node\":{{\"key\":");
        put_string(&mut event, path);
        event.push_str(",\"value\":");
        put_string(&mut event, &value);
        let index = self.index;
        let _ = write!(event, ",\"modifiedIndex\":{index},\"createdIndex\":{index}}}}}");
        self.events.push(event);

        let (directories, name) = path[1..].rsplit_once('/').expect("nothing is written to the root");
        let mut node = &mut self.root;
        for directory in directories.split('/') {
            node = node.directory(directory, index);
        }
        let content = Content::Value(value);
        node.children_mut().insert(name.to_string(), Node { index, content });
    }

    fn to_json(&self) -> String {
        let mut out = String::with_capacity(8192);
        out.push_str("{\"Root\":");
        self.root.to_json(&mut out, "/");
        out.push_str(",\"WatcherHub\":{\"EventHistory\":{\"Queue\":{\"Events\":[");
        let first = self.events.len().saturating_sub(EVENTS_MAX);
        let kept = &self.events[first..];
        for place in 0..EVENTS_MAX {
            if place > 0 {
                out.push(',');
            }
            out.push_str(kept.get(place).map_or("null", String::as_str));
        }
        let (index, size) = (self.index, kept.len());
        let start_index = if size == 0 { 0 } else { first + 1 };
        let _ = write!(
            out,
            "],\"Size\":{size},\"Front\":0,\"Back\":{back},\"Capacity\":{EVENTS_MAX}}},\"StartIndex\":{start_index},\
             \"LastIndex\":{index}}}}},\"CurrentIndex\":{index},\"Stats\":{{\"getsSuccess\":0,\"getsFail\":0,\
             \"setsSuccess\":{sets},\"setsFail\":0,\"deleteSuccess\":0,\"deleteFail\":0,\"updateSuccess\":0,\
             \"updateFail\":0,\"createSuccess\":{creates},\"createFail\":0,\"compareAndSwapSuccess\":0,\
             \"compareAndSwapFail\":0,\"compareAndDeleteSuccess\":0,\"compareAndDeleteFail\":0,\"expireCount\":0,\
             \"watchers\":0}},\"CurrentVersion\":2}}",
            back = size % EVENTS_MAX,
            sets = self.sets,
            creates = self.creates,
        );
        out
    }
}

impl Node {
    /// The directory `name` in this one, made by write `index` if it is not there.
    fn directory(&mut self, name: &str, index: u64) -> &mut Node {
        self.children_mut().entry(name.to_string()).or_insert_with(|| Node {
            index,
            content: Content::Children(BTreeMap::new()),
        })
    }

    fn children_mut(&mut self) -> &mut BTreeMap<String, Node> {
        match &mut self.content {
            Content::Children(children) => children,
            Content::Value(_) => unreachable!("values are written below directories only"),
        }
    }

    fn to_json(&self, out: &mut String, path: &str) {
        out.push_str("{\"Path\":");
        put_string(out, path);
        let index = self.index;
        let _ = write!(
            out,
            ",\"CreatedIndex\":{index},\"ModifiedIndex\":{index},\"ExpireTime\":\"0001-01-01T00:00:00Z\",\"Value\":"
        );
        match &self.content {
            Content::Value(value) => {
                put_string(out, value);
                out.push_str(",\"Children\":null}");
            }
            Content::Children(children) => {
                out.push_str("\"\",\"Children\":{");
                let parent = path.trim_end_matches('/');
                for (place, (name, child)) in children.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    put_string(out, name);
                    out.push(':');
                    child.to_json(out, &format!("{parent}/{name}"));
                }
                out.push_str("}}");
            }
        }
    }
}

fn raft_attributes(member: &StoreMember) -> String {
    let mut out = String::from("{\"peerURLs\":");
    put_strings(&mut out, &member.peer_urls);
    if member.is_learner {
        out.push_str(",\"isLearner\":true");
    }
    out.push('}');
    out
}

fn attributes(member: &StoreMember) -> String {
    let mut out = String::from("{");
    if !member.name.is_empty() {
        out.push_str("\"name\":");
        put_string(&mut out, &member.name);
        out.push(',');
    }
    out.push_str("\"clientURLs\":");
    put_strings(&mut out, &member.client_urls);
    out.push('}');
    out
}

fn put_strings(out: &mut String, strings: &[String]) {
    out.push('[');
    for (place, string) in strings.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        put_string(out, string);
    }
    out.push(']');
}

/// A string as Go's encoder writes it: it also escapes what HTML would trip over.
fn put_string(out: &mut String, string: &str) {
    out.push('"');
    for character in string.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{0}'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::{super::file, *};
    use proptest::prelude::*;

    fn image() -> StoreImage {
        StoreImage {
            members: vec![
                StoreMember {
                    id: MemberId(0xa),
                    peer_urls: vec!["http://one:2380?a=1&b=<2>".into()],
                    name: "one \"1\"".into(),
                    client_urls: vec!["http://one:2379".into(), "http://one:4001".into()],
                    ..StoreMember::default()
                },
                StoreMember {
                    id: MemberId(0x77f8_7317_045c_6e91),
                    peer_urls: vec!["http://two:2380".into()],
                    is_learner: true,
                    ..StoreMember::default()
                },
            ],
            removed: vec![MemberId(3), MemberId(0x10)],
            cluster_version: Some("3.5.0".into()),
            has_user_data: false,
        }
    }

    #[test]
    fn an_image_reads_back_and_is_json_for_others_too() {
        let json = encode(&image());
        assert_eq!(decode(&json), Ok(image()));
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            value["WatcherHub"]["EventHistory"]["Queue"]["Events"]
                .as_array()
                .unwrap()
                .len(),
            1000
        );
        assert_eq!(value["CurrentIndex"], 6);
        assert_eq!(
            value["Root"]["Children"]["0"]["Children"]["removed_members"]["CreatedIndex"],
            4
        );
        assert_eq!(decode(b""), Ok(StoreImage::default()));
        assert_eq!(decode(&encode(&StoreImage::default())), Ok(StoreImage::default()));
    }

    #[test]
    fn a_store_that_etcd_wrote_is_read_and_written_alike() {
        let first = include_bytes!("../../tests/golden/wal/0000000000000002-000000000000000b.snap");
        let snapshot = file::decode(first).unwrap();
        assert_eq!(file::encode(&snapshot), first);
        let image = decode(&snapshot.data).unwrap();
        assert_eq!((image.members.len(), &*image.members[0].name), (1, "one"));
        let json = String::from_utf8(snapshot.data.to_vec()).unwrap();
        // How often etcd looked into its store is not known to us, and to nobody of interest.
        let unread = json.replace("\"getsSuccess\":2,\"getsFail\":3", "\"getsSuccess\":0,\"getsFail\":0");
        assert_eq!(String::from_utf8(encode(&image)).unwrap(), unread);

        let second = include_bytes!("../../tests/golden/wal/0000000000000002-0000000000000016.snap");
        let image = decode(&file::decode(second).unwrap().data).unwrap();
        assert_eq!(image.removed, [MemberId(0x7be2_d867_3ec5_6b5a)]);
        assert_eq!(image.cluster_version.as_deref(), Some("3.5.0"));
        assert!(!image.has_user_data);
    }

    #[test]
    fn a_thousand_damaged_stores_and_files_are_no_trouble() {
        let golden = include_bytes!("../../tests/golden/wal/0000000000000002-0000000000000016.snap");
        let snapshot = file::decode(golden).unwrap();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for _ in 0..1000 {
            // The cluster is in the first 2000 bytes of the store; what follows is history.
            let mut json = snapshot.data.to_vec();
            let mut whole = golden.to_vec();
            for _ in 0..=next(3) {
                let (place, byte) = (next(2000), next(256) as u8);
                json[place] = byte;
                whole[place] = byte;
            }
            if next(4) == 0 {
                json.truncate(next(2000));
                whole.truncate(next(2000));
            }
            fuzz_decode(&json);
            file::fuzz_decode(&whole);
        }
    }

    #[test]
    fn a_long_history_keeps_the_last_thousand_events() {
        let image = StoreImage {
            removed: (1..=1500).map(MemberId).collect(),
            ..StoreImage::default()
        };
        let json = encode(&image);
        assert_eq!(decode(&json), Ok(image));
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let history = &value["WatcherHub"]["EventHistory"];
        assert_eq!(
            (history["StartIndex"].as_u64(), history["LastIndex"].as_u64()),
            (Some(501), Some(1500))
        );
        assert_eq!(history["Queue"]["Events"][0]["node"]["createdIndex"], 501);
        assert_eq!(
            (history["Queue"]["Size"].as_u64(), history["Queue"]["Back"].as_u64()),
            (Some(1000), Some(0))
        );
    }

    #[test]
    fn user_data_is_noticed_as_etcd_does() {
        let with = |children: &str| {
            let json = format!("{{\"Root\":{{\"Children\":{{{children}}}}}}}");
            decode(json.as_bytes()).unwrap().has_user_data
        };
        assert!(!with(r#""0":{"Children":{"x":{}}},"1":{"Children":{}}"#));
        assert!(with(r#""1":{"Children":{"key":{"Value":"v"}}}"#));
        assert!(!with(
            r#""2":{"Children":{"enabled":{"Value":"false","Children":null},"users":{"Children":{}}}}"#
        ));
        assert!(with(r#""2":{"Children":{"users":{"Children":{"root":{}}}}}"#));
    }

    #[test]
    fn members_half_removed_are_left_out_and_bad_ones_refused() {
        let with = |member: &str| {
            let json = format!(
                r#"{{"Root":{{"Children":{{"0":{{"Children":{{"members":{{"Children":{{{member}}}}}}}}}}}}}}}"#
            );
            decode(json.as_bytes()).map(|image| image.members)
        };
        assert_eq!(with(r#""a":{"Children":{"attributes":{"Value":"{}"}}}"#), Ok(vec![]));
        let member = with(r#""a":{"Children":{"raftAttributes":{"Value":"{\"peerURLs\":null}"}}}"#).unwrap();
        assert_eq!((member[0].id, member[0].peer_urls.len()), (MemberId(10), 0));
        assert!(with(r#""xyz":{}"#).is_err());
        assert!(with(r#""a":{"Children":{"raftAttributes":{"Value":"{"}}}"#).is_err());
        assert!(decode(b"{").is_err());
        assert!(decode("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_in_urls_and_names_survives(name in any::<String>(), url in any::<String>(), id in any::<u64>()) {
            let image = StoreImage {
                members: vec![StoreMember {
                    id: MemberId(id), peer_urls: vec![url.clone()], name, client_urls: vec![url], is_learner: id % 2 == 0,
                }],
                ..StoreImage::default()
            };
            prop_assert_eq!(decode(&encode(&image)), Ok(image));
        }
    }
}
