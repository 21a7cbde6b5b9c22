//! Those who speak to the members: clients, each with one request at a time, and watchers, each with a stream of its own.
//! All on the real wire.

use std::{cell::RefCell, collections::VecDeque, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use prost::Message;
use ringd::{
    host::{Host, Notify},
    testing::SimHost,
    wire::proto::{
        etcdserverpb::{
            WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
        },
        mvccpb::event::EventType,
    },
};

use super::{
    parse::prefix_end,
    steps::{Expected, Outcome, Told, Watch},
};
use crate::{
    ask::ask,
    client::{Call, Channel},
    history::{Answer, Failure, Request, header_of},
    workload::within,
};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// A client gives up on a request after this time; longer than any that a server may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A watcher is told what it is to be told within this time.
const TOLD_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CONNECT_AGAIN: Duration = Duration::from_millis(50);

/// What came back for a request.
pub type Reply = Result<Answer, Failure>;

/// A client.
pub struct Client {
    host: SimHost,
    pending: Option<Rc<Pending>>,
}

#[derive(Default)]
struct Pending {
    reply: RefCell<Option<Reply>>,
    ended: Notify,
}

impl Client {
    pub fn new(host: SimHost) -> Client {
        Client { host, pending: None }
    }

    /// Begins a request to a member, on a connection of its own, as soon as there is anybody to connect to.
    ///
    /// # Errors
    /// When one is under way.
    pub fn begin(&mut self, address: SocketAddr, request: Request) -> Result<(), String> {
        if self.pending.is_some() {
            return Err("this client waits for an answer already".to_owned());
        }
        let pending = Rc::new(Pending::default());
        self.pending = Some(pending.clone());
        let host = self.host.clone();
        self.host.spawn(async move {
            let reply = match connect(&host, address).await {
                None => Err(Failure::NotSent),
                Some(channel) => {
                    let reply = ask(&channel, &request, PATIENCE).await;
                    channel.close();
                    reply
                }
            };
            *pending.reply.borrow_mut() = Some(reply);
            pending.ended.notify();
        });
        Ok(())
    }

    /// The answer to what was begun.
    ///
    /// # Errors
    /// When nothing was.
    pub async fn answer(&mut self) -> Result<Reply, String> {
        let pending = self.pending.take().ok_or("this client has asked nothing")?;
        loop {
            if let Some(reply) = pending.reply.borrow_mut().take() {
                return Ok(reply);
            }
            pending.ended.notified().await;
        }
    }

    /// What has come back already.
    pub fn early(&self) -> Option<Reply> {
        self.pending.as_ref()?.reply.borrow().clone()
    }
}

/// Connects, once and again.
async fn connect(host: &SimHost, address: SocketAddr) -> Option<Channel> {
    let until = host.now() + PATIENCE;
    while host.now() < until {
        if let Some(channel) = Channel::connect(host, address, CONNECT_LIMIT).await {
            return Some(channel);
        }
        host.sleep_until(host.now() + CONNECT_AGAIN).await;
    }
    None
}

impl Expected {
    /// Whether a reply is one of these. `acknowledged` is what the last `fill` came to.
    pub fn fits(&self, reply: &Reply, acknowledged: i64) -> bool {
        self.0.iter().any(|outcome| outcome.fits(reply, acknowledged))
    }
}

impl Outcome {
    fn fits(&self, reply: &Reply, acknowledged: i64) -> bool {
        let answer = match (self, reply) {
            (Outcome::Error, Err(_)) => return true,
            (Outcome::Status(code, text), Err(Failure::Refused(status) | Failure::Unsettled(status))) => {
                let is_code = code.as_ref().is_none_or(|code| *code == format!("{:?}", status.code));
                return is_code && *text == status.message;
            }
            (_, Ok(answer)) => answer,
            _ => return false,
        };
        match (self, answer) {
            (Outcome::Ok, _) => true,
            (Outcome::Value(value), Answer::Range(range)) => {
                range.kvs.len() == 1 && range.kvs[0].value == value.as_bytes()
            }
            (Outcome::NoValue, Answer::Range(range)) => range.count == 0,
            (Outcome::Count(count), Answer::Range(range)) => range.count == *count,
            (Outcome::Acknowledged, Answer::Range(range)) => (acknowledged..=acknowledged + 1).contains(&range.count),
            (Outcome::Count(count), Answer::Snapshot(records)) => records.len() as i64 == *count,
            (Outcome::Deleted(count), Answer::Delete(delete)) => delete.deleted == *count,
            (Outcome::Succeeded(wanted), Answer::Txn(txn)) => txn.succeeded == *wanted,
            (Outcome::Ttl(ttl), Answer::KeepAlive(kept)) => ttl.contains(&kept.ttl),
            (Outcome::Ttl(ttl), Answer::TimeToLive(left)) => ttl.contains(&left.ttl),
            (Outcome::Leases(wanted), Answer::Leases(leases)) => {
                let mut ids: Vec<i64> = leases.leases.iter().map(|lease| lease.id).collect();
                ids.sort_unstable();
                ids == *wanted
            }
            (Outcome::Revision(wanted), answer) => header_of(answer).is_some_and(|header| header.revision == *wanted),
            _ => false,
        }
    }
}

/// A reply in a few words.
pub fn describe(reply: &Reply) -> String {
    let answer = match reply {
        Err(Failure::Refused(status) | Failure::Unsettled(status)) => {
            return format!("error {:?} \"{}\"", status.code, status.message);
        }
        Err(failure) => return format!("nothing: {failure:?}"),
        Ok(answer) => answer,
    };
    let words = match answer {
        Answer::Range(range) if range.kvs.len() == 1 => format!("value {}", text(&range.kvs[0].value)),
        Answer::Range(range) => format!("count {}", range.count),
        Answer::Delete(delete) => format!("deleted {}", delete.deleted),
        Answer::Txn(txn) => format!("succeeded: {}", txn.succeeded),
        Answer::KeepAlive(kept) => format!("ttl {}", kept.ttl),
        Answer::TimeToLive(left) => format!("ttl {}", left.ttl),
        Answer::Leases(leases) => format!("leases {:?}", leases.leases),
        Answer::Snapshot(records) => format!("{} records", records.len()),
        _ => "ok".to_owned(),
    };
    match header_of(answer) {
        Some(header) => format!("{words} at revision {}, term {}", header.revision, header.raft_term),
        None => words,
    }
}

/// A watcher on a stream of its own.
pub struct Watcher {
    channel: Channel,
    call: Call,
    /// What it was told and nobody has asked for yet.
    seen: VecDeque<Seen>,
}

/// One thing that a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Seen {
    Created,
    Put { key: String, value: String, revision: i64 },
    Delete { key: String, revision: i64 },
    Progress(i64),
    Canceled { compact_revision: i64, reason: String },
    End(String),
}

impl Watcher {
    /// Opens it.
    ///
    /// # Errors
    /// When the member cannot be reached.
    pub async fn open(host: &SimHost, address: SocketAddr, watch: &Watch) -> Result<Watcher, String> {
        let channel = connect(host, address).await.ok_or("no connection")?;
        let call = channel.open(WATCH).ok_or("no connection")?;
        let key = Bytes::copy_from_slice(watch.key.as_bytes());
        let create = WatchCreateRequest {
            range_end: if watch.is_prefix {
                prefix_end(&key)
            } else {
                Bytes::new()
            },
            key,
            start_revision: watch.from,
            progress_notify: watch.has_progress,
            prev_kv: watch.has_previous,
            ..WatchCreateRequest::default()
        };
        call.send(&WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        });
        Ok(Watcher {
            channel,
            call,
            seen: VecDeque::new(),
        })
    }

    /// Asks how far its stream has come.
    pub fn ask_progress(&self) {
        self.call.send(&WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        });
    }

    /// Ends its connection.
    pub fn close(self) {
        self.channel.close();
    }

    /// Reads nothing for a while.
    pub fn stop_reading(&self, duration: Duration) {
        self.channel.stop_reading(duration);
    }

    /// The next that it is told within a time.
    async fn next(&mut self, limit: Duration) -> Result<Option<Seen>, String> {
        while self.seen.is_empty() {
            match self.call.next(limit).await {
                Ok(Some(message)) => self.take(&message)?,
                Ok(None) => self.seen.push_back(Seen::End("in peace".to_owned())),
                Err(Failure::TimedOut) => return Ok(None),
                Err(failure) => self.seen.push_back(Seen::End(format!("{failure:?}"))),
            }
        }
        Ok(self.seen.pop_front())
    }

    fn take(&mut self, message: &Bytes) -> Result<(), String> {
        let response = WatchResponse::decode(message.clone()).expect("a server's answer can be read");
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created {
            self.seen.push_back(Seen::Created);
        }
        for event in &response.events {
            let kv = event.kv.as_ref().ok_or("an event without a record")?;
            if kv.mod_revision > revision {
                return Err(format!("an event of {} at revision {revision}", kv.mod_revision));
            }
            let (key, revision) = (text(&kv.key), kv.mod_revision);
            self.seen.push_back(match event.r#type() {
                EventType::Put => Seen::Put {
                    key,
                    value: text(&kv.value),
                    revision,
                },
                EventType::Delete => Seen::Delete { key, revision },
            });
        }
        if response.canceled {
            self.seen.push_back(Seen::Canceled {
                compact_revision: response.compact_revision,
                reason: response.cancel_reason,
            });
        } else if !response.created && response.events.is_empty() {
            self.seen.push_back(Seen::Progress(revision));
        }
        Ok(())
    }

    /// Must be told this next.
    ///
    /// # Errors
    /// What it was told instead.
    pub async fn expect(&mut self, wanted: &Told) -> Result<(), String> {
        if let Told::Revisions(revisions) = wanted {
            for wanted in revisions.clone() {
                match self.next(TOLD_LIMIT).await? {
                    Some(Seen::Put { revision, .. } | Seen::Delete { revision, .. }) if revision == wanted => {}
                    other => return Err(format!("instead of an event of revision {wanted}: {other:?}")),
                }
            }
            return Ok(());
        }
        if let Told::RevisionsUntilCompacted { from, compacted } = wanted {
            return self.expect_compacted(*from, *compacted).await;
        }
        let seen = self.next(TOLD_LIMIT).await?;
        let is_wanted = match (wanted, &seen) {
            (Told::Created, Some(Seen::Created)) | (Told::End, Some(Seen::End(_))) => true,
            (Told::Progress(wanted), Some(Seen::Progress(revision))) => wanted == revision,
            (Told::Compacted(wanted), Some(Seen::Canceled { compact_revision, .. })) => wanted == compact_revision,
            (
                Told::Delete { key, revision },
                Some(Seen::Delete {
                    key: seen_key,
                    revision: at,
                }),
            ) => key == seen_key && revision == at,
            (
                Told::Put { key, value, revision },
                Some(Seen::Put {
                    key: seen_key,
                    value: seen_value,
                    revision: at,
                }),
            ) => key == seen_key && value.as_ref().is_none_or(|value| value == seen_value) && revision == at,
            _ => false,
        };
        match (is_wanted, seen) {
            (true, _) => Ok(()),
            (false, None) => Err(format!("nothing for {TOLD_LIMIT:?}")),
            (false, Some(seen)) => Err(format!("instead: {seen:?}")),
        }
    }

    async fn expect_compacted(&mut self, from: i64, compacted: i64) -> Result<(), String> {
        let mut wanted = from;
        loop {
            match self.next(TOLD_LIMIT).await? {
                Some(Seen::Put { revision, .. } | Seen::Delete { revision, .. }) if revision == wanted => wanted += 1,
                Some(Seen::Canceled { compact_revision, .. })
                    if compact_revision == compacted && wanted < compacted =>
                {
                    return Ok(());
                }
                other => return Err(format!("where revision {wanted} was due: {other:?}")),
            }
        }
    }

    /// Must be told nothing for a while.
    ///
    /// # Errors
    /// What it was told.
    pub async fn expect_silence(&mut self, duration: Duration) -> Result<(), String> {
        match self.next(duration).await? {
            None => Ok(()),
            Some(seen) => Err(format!("it was told {seen:?}")),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A unary call of the stage's own; `None` if there is no good answer within the limit.
pub async fn look<A: Message + Default>(
    host: &SimHost,
    address: SocketAddr,
    path: &'static str,
    request: &impl Message,
    limit: Duration,
) -> Option<A> {
    let asked = async {
        let channel = Channel::connect(host, address, limit).await?;
        let answer = channel.unary(path, request, limit).await.ok();
        channel.close();
        answer
    };
    within(host, limit, asked).await.flatten()
}
