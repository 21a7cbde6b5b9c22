//! Watch streams of a run: which watcher watches what, how many events a put must lead to, what an event says.

use bytes::{Bytes, BytesMut};

use super::{
    crew::{STAMP_BYTES, decoded, write},
    kubernetes::Objects,
    plan::{Plan, Workload},
    random::KeySource,
};
use crate::{
    base::Monotonic,
    wire::{
        proto::etcdserverpb::{
            WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
        },
        protobuf::{FieldValue, take_field},
    },
};

/// What there is to watch, and what has come of it.
pub(super) struct Watching {
    streams: u32,
    watchers_per_stream: u32,
    watched_keys: u64,
    has_prev_kv: bool,
    is_of_objects: bool,
    /// Watchers that this thread has asked for and that are not made yet.
    pub unmade: u64,
    expected: u64,
    seen: u64,
}

/// A response of a watch stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A watcher is made.
    Created,
    /// Events.
    Events,
    /// Up to here everything was told.
    Progress,
}

impl Watching {
    pub fn new(plan: &Plan) -> Watching {
        let (streams, watchers_per_stream, watched_keys, has_prev_kv, is_of_objects) = match &plan.workload {
            Workload::Watch(watch) => {
                let keys = watch.watched_keys;
                (watch.streams, watch.watchers_per_stream, keys, watch.has_prev_kv, false)
            }
            Workload::Kubernetes(kubernetes) => (kubernetes.watches, 1, 1, false, true),
            _ => (0, 0, 1, false, false),
        };
        Watching {
            streams,
            watchers_per_stream,
            watched_keys,
            has_prev_kv,
            is_of_objects,
            unmade: 0,
            expected: 0,
            seen: 0,
        }
    }

    /// The streams of connection `connection` among `connections`.
    pub fn streams_of(&self, connection: u32, connections: u32) -> impl Iterator<Item = u32> + use<> {
        (connection..self.streams).step_by(connections as usize)
    }

    /// The requests that make a stream's watchers.
    pub fn creations(&self, stream: u32, keys: &KeySource) -> impl Iterator<Item = BytesMut> {
        (0..self.watchers_per_stream).map(move |at| {
            let number = u64::from(stream) * u64::from(self.watchers_per_stream) + u64::from(at);
            let (key, range_end) = match self.is_of_objects {
                true => Objects::span(),
                false => (keys.key(number % self.watched_keys), Bytes::new()),
            };
            let create = WatchCreateRequest {
                key,
                range_end,
                prev_kv: self.has_prev_kv,
                ..WatchCreateRequest::default()
            };
            request(RequestUnion::CreateRequest(create))
        })
    }

    /// Watchers that are told of key `number`.
    pub fn watchers_of(&self, number: u64) -> u64 {
        let watchers = u64::from(self.streams) * u64::from(self.watchers_per_stream);
        if number >= self.watched_keys {
            return 0;
        }
        watchers / self.watched_keys + u64::from(watchers % self.watched_keys > number)
    }

    /// An acknowledged put has to lead to so many events.
    pub fn expect(&mut self, events: u64) {
        self.expected += events;
    }

    /// So many events of the load came.
    pub fn count(&mut self, events: u64) {
        self.seen += events;
    }

    /// Events expected and seen since this was asked last.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.expected), std::mem::take(&mut self.seen))
    }
}

/// A request for progress.
pub(super) fn progress_request() -> BytesMut {
    request(RequestUnion::ProgressRequest(WatchProgressRequest {}))
}

fn request(union: RequestUnion) -> BytesMut {
    let mut output = BytesMut::new();
    let request = WatchRequest {
        request_union: Some(union),
    };
    write(&request, &mut output);
    output
}

/// Reads a response of a watch stream; `stamped` is told when the put behind each of its events was to start, if its value
/// says so.
///
/// Events are read in place: a generator that decoded each into a message of its own would cost more than the server that
/// encodes it once for all watchers.
pub(super) fn told(message: &Bytes, mut stamped: impl FnMut(Monotonic)) -> Result<Told, String> {
    let mut rest = &message[..];
    let mut events = 0;
    while !rest.is_empty() {
        match take_field(&mut rest) {
            // Made, or cancelled: rare enough to be read whole.
            Some((3 | 4, _)) => return answered(message.clone()),
            Some((11, FieldValue::Delimited(event))) => {
                events += 1;
                if let Some(stamp) = stamp(event) {
                    stamped(stamp);
                }
            }
            Some(_) => {}
            None => return Err("an answer of a watch cannot be read".to_owned()),
        }
    }
    Ok(if events == 0 { Told::Progress } else { Told::Events })
}

fn answered(message: Bytes) -> Result<Told, String> {
    let response: WatchResponse = decoded(message)?;
    if response.canceled {
        let reason = response.cancel_reason;
        return Err(format!("a watcher was cancelled: {reason}"));
    }
    Ok(if response.created {
        Told::Created
    } else {
        Told::Progress
    })
}

/// The stamp in an event's value: field 5 of the key-value, which is field 2 of the event.
fn stamp(event: &[u8]) -> Option<Monotonic> {
    let kv = field(event, 2)?;
    let value = field(kv, 5)?;
    Some(Monotonic(u64::from_be_bytes(
        value.get(..STAMP_BYTES)?.try_into().ok()?,
    )))
}

fn field(mut message: &[u8], wanted: u32) -> Option<&[u8]> {
    while !message.is_empty() {
        match take_field(&mut message)? {
            (number, FieldValue::Delimited(bytes)) if number == wanted => return Some(bytes),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::proto::mvccpb::{Event, KeyValue};

    fn response(values: &[&[u8]]) -> WatchResponse {
        let event = |value: &&[u8]| Event {
            kv: Some(KeyValue {
                key: Bytes::from_static(b"key"),
                value: Bytes::copy_from_slice(value),
                mod_revision: 7,
                ..KeyValue::default()
            }),
            ..Event::default()
        };
        WatchResponse {
            watch_id: 3,
            events: values.iter().map(event).collect(),
            ..WatchResponse::default()
        }
    }

    fn read(response: &WatchResponse) -> (Result<Told, String>, Vec<u64>) {
        let mut stamps = Vec::new();
        let told = told(&response.encode_to_vec().into(), |stamp| stamps.push(stamp.0));
        (told, stamps)
    }

    #[test]
    fn stamps_are_found_and_foreign_values_passed_over() {
        let (told, stamps) = read(&response(&[&[0, 0, 0, 0, 0, 0, 1, 2, 9, 9], b"short", b""]));
        assert_eq!((told, stamps), (Ok(Told::Events), vec![0x0102]));
        assert_eq!(read(&response(&[])).0, Ok(Told::Progress));
    }

    #[test]
    fn a_cancelled_watcher_fails_the_run() {
        let created = WatchResponse {
            created: true,
            ..response(&[])
        };
        assert_eq!(read(&created).0, Ok(Told::Created));
        let cancelled = WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: "because".to_owned(),
            ..response(&[])
        };
        assert_eq!(read(&cancelled).0, Err("a watcher was cancelled: because".to_owned()));
        let torn = Bytes::from_static(&[0x5a, 0x10, 1]);
        assert!(super::told(&torn, |_| ()).is_err());
    }
}
