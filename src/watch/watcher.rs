//! One watcher: what it asked for, where it stands, and how its events become responses.

use super::{
    encode::{Body, Variant},
    interest::Place,
    response::{Response, ResponseIdentity},
    spec::{Filters, Keys},
    stream::Stream,
};

pub(super) struct Watcher {
    pub stream: usize,
    pub watch_id: i64,
    pub serial: u64,
    /// Changes below it are not told: they were told already, or the client does not want them.
    pub next_revision: i64,
    pub start_revision: i64,
    pub state: State,
    pub filters: Filters,
    pub prev_kv: bool,
    pub progress_notify: bool,
    /// Nothing was told since progress was due last.
    pub is_idle: bool,
    pub fragment: bool,
    pub keys: Keys,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Synced,
    /// Behind, and in the hub's `waiting`.
    Waiting,
    /// Behind, and in its stream's `stalled`.
    Stalled,
    /// Behind, and in the hub's `in_flight`.
    InFlight,
}

impl Watcher {
    pub fn variant(&self, from_revision: i64) -> Variant {
        Variant {
            filters: self.filters,
            prev_kv: self.prev_kv,
            from_revision,
        }
    }

    /// Queues events, in one response or in fragments.
    pub fn tell(
        &mut self,
        stream: &mut Stream,
        body: &Body,
        revision: i64,
        identity: &ResponseIdentity,
        fragment_bytes: usize,
    ) {
        if self.progress_notify {
            self.is_idle = false;
        }
        let whole = Response {
            watch_id: self.watch_id,
            revision,
            events: body.ends.len() as u32,
            body: body.bytes.clone(),
            ..Response::default()
        };
        let is_short = !self.fragment || body.ends.len() < 2 || whole.encoded_len(identity) < fragment_bytes;
        if is_short {
            stream.push(whole);
            return;
        }
        let head_len = whole.encoded_len(identity) - body.bytes.len() + 2;
        let (mut start, mut first) = (0, 0);
        while first < body.ends.len() {
            let mut next = first + 1;
            while next < body.ends.len() && head_len + body.ends[next] - start < fragment_bytes {
                next += 1;
            }
            let end = body.ends[next - 1];
            stream.push(Response {
                is_fragment: next < body.ends.len(),
                events: (next - first) as u32,
                body: body.bytes.slice(start..end),
                ..whole.clone()
            });
            (start, first) = (end, next);
        }
    }
}
