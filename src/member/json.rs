//! Members and what belongs to them as JSON, byte for byte as etcd's encoder writes it: fields in its order, empty ones
//! left out where it leaves them out, and `<`, `>`, `&` and the line separators escaped as it escapes them.

use bytes::Bytes;
use serde::Deserialize;

use super::{Downgrade, Member};
use crate::base::MemberId;
use crate::wire::proto::raftpb::ConfState;

/// The key of a member in its bucket, and its name in paths: the id in hexadecimal, without leading zeros.
pub fn member_key(id: MemberId) -> String {
    format!("{id:x}")
}

/// Reads [`member_key`]'s form.
pub fn parse_member_key(key: &[u8]) -> Option<MemberId> {
    let text = std::str::from_utf8(key).ok()?;
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok().map(MemberId))?
}

/// What the bucket of removed members holds under an id.
pub const REMOVED: &[u8] = b"removed";

/// A member as it is stored.
pub fn member(member: &Member) -> Bytes {
    let mut out = String::with_capacity(128);
    out.push('{');
    member_fields(&mut out, member);
    out.push('}');
    out.into()
}

/// The context of a configuration change that adds (or, with `is_promote`, promotes) a member.
pub fn add_context(member: &Member, is_promote: bool) -> Bytes {
    let mut out = String::with_capacity(160);
    out.push('{');
    member_fields(&mut out, member);
    out.push_str(if is_promote {
        ",\"isPromote\":true}"
    } else {
        ",\"isPromote\":false}"
    });
    out.into()
}

/// A member's name and client URLs, as old releases publish them.
pub fn attributes(name: &str, client_urls: &[String]) -> String {
    let mut out = String::from("{");
    attribute_fields(&mut out, name, client_urls);
    out.push('}');
    out
}

/// A member's peer URLs and role, as the v2 store has them.
pub fn raft_attributes(member: &Member) -> String {
    let mut out = String::from("{");
    raft_attribute_fields(&mut out, member);
    out.push('}');
    out
}

/// A downgrade as it is stored.
pub fn downgrade(downgrade: &Downgrade) -> Bytes {
    let mut out = String::from("{\"target-version\":");
    push_text(&mut out, &downgrade.target_version);
    out.push_str(if downgrade.is_enabled {
        ",\"enabled\":true}"
    } else {
        ",\"enabled\":false}"
    });
    out.into()
}

/// raft's configuration as it is stored.
pub fn conf_state(state: &ConfState) -> Bytes {
    let mut out = String::from("{");
    let lists = [
        ("voters", &state.voters),
        ("learners", &state.learners),
        ("voters_outgoing", &state.voters_outgoing),
        ("learners_next", &state.learners_next),
    ];
    for (name, ids) in lists {
        if !ids.is_empty() {
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            out.push_str(&format!("\"{name}\":[{}],", ids.join(",")));
        }
    }
    out.push_str(&format!("\"auto_leave\":{}}}", state.auto_leave()));
    out.into()
}

fn member_fields(out: &mut String, member: &Member) {
    out.push_str(&format!("\"id\":{},", member.id));
    raft_attribute_fields(out, member);
    if !member.name.is_empty() || !member.client_urls.is_empty() {
        out.push(',');
        attribute_fields(out, &member.name, &member.client_urls);
    }
}

fn raft_attribute_fields(out: &mut String, member: &Member) {
    out.push_str("\"peerURLs\":");
    match member.peer_urls.is_empty() {
        // No list is not an empty list to etcd's encoder; a member that was never given one has none.
        true => out.push_str("null"),
        false => push_list(out, &member.peer_urls),
    }
    if member.is_learner {
        out.push_str(",\"isLearner\":true");
    }
}

fn attribute_fields(out: &mut String, name: &str, client_urls: &[String]) {
    if !name.is_empty() {
        out.push_str("\"name\":");
        push_text(out, name);
    }
    if !client_urls.is_empty() {
        if !name.is_empty() {
            out.push(',');
        }
        out.push_str("\"clientURLs\":");
        push_list(out, client_urls);
    }
}

fn push_list(out: &mut String, texts: &[String]) {
    out.push('[');
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_text(out, text);
    }
    out.push(']');
}

fn push_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..'\x20' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[derive(Deserialize)]
struct MemberForm {
    #[serde(default)]
    id: u64,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(default, rename = "isLearner")]
    is_learner: bool,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
    #[serde(default, rename = "isPromote")]
    is_promote: bool,
}

/// Reads a member, and whether the context that it came in promotes it; `None` if it is not one.
pub fn parse_member(json: &[u8]) -> Option<(Member, bool)> {
    let form: MemberForm = serde_json::from_slice(json).ok()?;
    let member = Member {
        id: MemberId(form.id),
        peer_urls: form.peer_urls.unwrap_or_default(),
        is_learner: form.is_learner,
        name: form.name,
        client_urls: form.client_urls.unwrap_or_default(),
    };
    Some((member, form.is_promote))
}

/// Reads a member's name and client URLs.
pub fn parse_attributes(json: &str) -> Option<(String, Vec<String>)> {
    let (member, _) = parse_member(json.as_bytes())?;
    Some((member.name, member.client_urls))
}

/// Reads a downgrade.
pub fn parse_downgrade(json: &[u8]) -> Option<Downgrade> {
    #[derive(Deserialize)]
    struct Form {
        #[serde(default, rename = "target-version")]
        target_version: String,
        #[serde(default)]
        enabled: bool,
    }
    let form: Form = serde_json::from_slice(json).ok()?;
    Some(Downgrade {
        target_version: form.target_version,
        is_enabled: form.enabled,
    })
}

/// Reads raft's configuration.
pub fn parse_conf_state(json: &[u8]) -> Option<ConfState> {
    #[derive(Deserialize)]
    struct Form {
        #[serde(default)]
        voters: Option<Vec<u64>>,
        #[serde(default)]
        learners: Option<Vec<u64>>,
        #[serde(default)]
        voters_outgoing: Option<Vec<u64>>,
        #[serde(default)]
        learners_next: Option<Vec<u64>>,
        #[serde(default)]
        auto_leave: bool,
    }
    let form: Form = serde_json::from_slice(json).ok()?;
    Some(ConfState {
        voters: form.voters.unwrap_or_default(),
        learners: form.learners.unwrap_or_default(),
        voters_outgoing: form.voters_outgoing.unwrap_or_default(),
        learners_next: form.learners_next.unwrap_or_default(),
        auto_leave: Some(form.auto_leave),
    })
}

/// Fuzz entry: any bytes are read or refused, and what is read survives being written.
pub fn fuzz_member_json(bytes: &[u8]) {
    if let Some((read, is_promote)) = parse_member(bytes) {
        assert_eq!(
            parse_member(&add_context(&read, is_promote)),
            Some((read.clone(), is_promote))
        );
        assert_eq!(parse_member(&member(&read)), Some((read, false)));
    }
    if let Some(read) = parse_downgrade(bytes) {
        assert_eq!(parse_downgrade(&downgrade(&read)), Some(read));
    }
    if let Some(read) = parse_conf_state(bytes) {
        assert_eq!(parse_conf_state(&conf_state(&read)), Some(read));
    }
    if let Some(id) = parse_member_key(bytes) {
        assert_eq!(parse_member_key(member_key(id).as_bytes()), Some(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Member {
        Member {
            id: MemberId(0x8e9e_05c5_2164_694d),
            peer_urls: vec!["http://localhost:2380".to_owned()],
            is_learner: false,
            name: "default".to_owned(),
            client_urls: vec!["http://localhost:2379".to_owned()],
        }
    }

    #[test]
    fn member_is_written_as_etcd_writes_it() {
        // From the `members` bucket of a database of etcd 3.5.
        let expected = br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default","clientURLs":["http://localhost:2379"]}"#;
        assert_eq!(member(&sample())[..], expected[..]);
        let learner = Member {
            is_learner: true,
            name: String::new(),
            client_urls: Vec::new(),
            ..sample()
        };
        let expected = br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"isLearner":true}"#;
        assert_eq!(member(&learner)[..], expected[..]);
        let expected =
            br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"isLearner":true,"isPromote":false}"#;
        assert_eq!(add_context(&learner, false)[..], expected[..]);
    }

    #[test]
    fn conf_state_is_written_as_etcd_writes_it() {
        let mut state = ConfState {
            voters: vec![10_276_657_743_932_975_437],
            ..ConfState::default()
        };
        assert_eq!(
            conf_state(&state)[..],
            br#"{"voters":[10276657743932975437],"auto_leave":false}"#[..]
        );
        state.learners = vec![1, 2];
        let expected = br#"{"voters":[10276657743932975437],"learners":[1,2],"auto_leave":false}"#;
        assert_eq!(conf_state(&state)[..], expected[..]);
    }

    #[test]
    fn text_is_escaped_as_etcd_escapes_it() {
        let mut out = String::new();
        push_text(&mut out, "a<b>&\"\\\u{1}\n\u{2028}é");
        assert_eq!(out, "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\u0001\\n\\u2028é\"");
    }

    #[test]
    fn random_bytes_are_read_or_refused() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let template = add_context(&sample(), true);
        for _ in 0..1000 {
            let mut bytes = template.to_vec();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 24) as u8;
            }
            fuzz_member_json(&bytes);
            fuzz_member_json(&bytes[..bytes.len() / 2]);
        }
        for bytes in [&b"{}"[..], b"null", b"[]", b"{\"id\":null}", b"8e9E", b"", b"+5"] {
            fuzz_member_json(bytes);
        }
    }
}
