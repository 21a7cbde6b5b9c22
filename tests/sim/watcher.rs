//! Watchers: some of random spans, with all that can be asked for, and one of everything, from which the history is known.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use ringd::{
    host::Host,
    testing::{Random, SimHost},
    wire::proto::{
        etcdserverpb::{
            WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
        },
        mvccpb::Event,
    },
};

use crate::{
    client::{Call, Channel},
    history::{Failure, Recorder, Told, revision_of},
    workload::Plan,
};

const PATH: &str = "/etcdserverpb.Watch/Watch";
/// Silence after which a watcher asks for progress.
const SILENCE: Duration = Duration::from_millis(700);

/// How far a watcher has come, for those who wait for it.
#[derive(Default)]
pub struct Reached {
    /// Everything up to this revision has been told.
    pub revision: Cell<i64>,
}

/// The watcher of everything: asks again from where it was, for as long as it is wanted. Makes the history known.
/// It asks one of the members after the other.
pub async fn watch_everything(
    host: SimHost,
    recorder: Recorder,
    plan: Rc<Plan>,
    reached: Rc<Reached>,
    members: Vec<SocketAddr>,
) {
    for address in members.into_iter().cycle() {
        if is_over(&plan) {
            return;
        }
        host.sleep_until(host.now() + Duration::from_millis(20)).await;
        let Some(channel) = Channel::connect(&host, address, Duration::from_secs(2)).await else {
            continue;
        };
        let Some(call) = channel.open(PATH) else { continue };
        let spec = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: recorder.history().known() + 1,
            ..WatchCreateRequest::default()
        };
        let mut told = Sessions::create(&recorder, &call, channel.place(), vec![spec]);
        let mut whole: Vec<Event> = Vec::new();
        while let Some(response) = next(&call, &plan).await {
            let Some(response) = response else { continue };
            whole.extend(response.events.iter().cloned());
            if !response.fragment {
                recorder.learn(std::mem::take(&mut whole));
            }
            told.take(&recorder, response);
            reached.revision.set(recorder.history().known());
        }
        channel.close();
    }
}

fn is_over(plan: &Plan) -> bool {
    !plan.is_watched.get()
}

/// The next response; `Some(None)` for silence, after which progress was asked for. `None` at the stream's end.
async fn next(call: &Call, plan: &Plan) -> Option<Option<WatchResponse>> {
    if is_over(plan) {
        return None;
    }
    match call.next(SILENCE).await {
        Ok(Some(message)) => Some(Some(
            WatchResponse::decode(message).expect("a server's answer can be read"),
        )),
        Ok(None) => None,
        Err(Failure::TimedOut) => {
            ask_progress(call);
            Some(None)
        }
        Err(_) => None,
    }
}

fn ask_progress(call: &Call) {
    call.send(&WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
    });
}

/// Whether a stream's watchers, told of where they began and what they are to be told next, know all up to a revision. A
/// stream with a watcher of the future tells no progress.
pub fn is_told(watchers: &[(i64, i64)], revision: i64) -> bool {
    let is_early = watchers.iter().any(|(start, _)| *start > revision);
    is_early || watchers.iter().all(|(_, next)| *next == 0 || *next > revision)
}

/// The watchers of one stream.
struct Sessions {
    /// By watch id, which we choose: session and the first revision not yet told whole.
    sessions: Vec<(usize, i64, bool)>,
}

impl Sessions {
    fn create(recorder: &Recorder, call: &Call, place: usize, specs: Vec<WatchCreateRequest>) -> Sessions {
        let mut sessions = Vec::new();
        for (number, mut spec) in specs.into_iter().enumerate() {
            spec.watch_id = number as i64 + 1;
            sessions.push((recorder.watch(Some(place), spec.clone()), spec.start_revision, true));
            call.send(&WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(spec)),
            });
        }
        Sessions { sessions }
    }

    fn take(&mut self, recorder: &Recorder, response: WatchResponse) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let compacted_maybe = recorder.history().compacted_maybe;
        if response.watch_id == -1 {
            if response.created || response.canceled {
                recorder.accuse(format!("a watcher was refused: {response:?}"));
            }
            for (session, next, is_open) in &mut self.sessions {
                if *is_open {
                    recorder.tell(*session, Told::Progress { revision });
                    *next = (*next).max(revision + 1);
                }
            }
            return;
        }
        let Some((session, next, is_open)) = self.sessions.get_mut(response.watch_id as usize - 1) else {
            return recorder.accuse(format!("nobody asked for this watcher: {response:?}"));
        };
        if response.created {
            recorder.tell(*session, Told::Created { revision });
            if *next == 0 {
                *next = revision + 1;
            }
        } else if response.canceled {
            *is_open = false;
            *next = 0;
            let told = Told::Canceled {
                compact_revision: response.compact_revision,
                reason: response.cancel_reason,
                compacted_maybe,
            };
            recorder.tell(*session, told);
        } else if response.events.is_empty() {
            recorder.tell(*session, Told::Progress { revision });
            *next = (*next).max(revision + 1);
        } else {
            let last = response.events.last().map_or(0, revision_of);
            if last > revision {
                recorder.accuse(format!("an event of revision {last} was told at revision {revision}"));
            }
            *next = last + i64::from(!response.fragment);
            let told = Told::Events {
                events: response.events,
                is_fragment: response.fragment,
                compacted_maybe,
            };
            recorder.tell(*session, told);
        }
    }
}

/// A stream of one to three watchers of random spans, opened anew whenever it ends, at times on purpose.
pub async fn watch_some(
    host: SimHost,
    recorder: Recorder,
    plan: Rc<Plan>,
    mut random: Random,
    reached: Rc<RefCell<Vec<(i64, i64)>>>,
    members: Vec<SocketAddr>,
) {
    let mut specs: Vec<WatchCreateRequest> = Vec::new();
    while !is_over(&plan) {
        let pause = random.below(100_000_000);
        host.sleep_until(host.now() + Duration::from_nanos(pause)).await;
        let address = members[if members.len() > 1 {
            random.index(members.len())
        } else {
            0
        }];
        let Some(channel) = Channel::connect(&host, address, Duration::from_secs(2)).await else {
            continue;
        };
        let Some(call) = channel.open(PATH) else { continue };
        if specs.is_empty() || random.chance(0.2) {
            specs = (0..1 + random.below(3))
                .map(|_| spec(&mut random, &plan, &recorder))
                .collect();
        }
        let mut told = Sessions::create(&recorder, &call, channel.place(), specs.clone());
        let mut patience = if random.chance(0.5) {
            5 + random.below(60)
        } else {
            u64::MAX
        };
        while let Some(response) = next(&call, &plan).await {
            if let Some(response) = response {
                told.take(&recorder, response);
            }
            let nexts = told.sessions.iter().map(|(_, next, _)| *next);
            *reached.borrow_mut() = specs.iter().map(|spec| spec.start_revision).zip(nexts).collect();
            if random.chance(0.1) {
                // Progress that is told of its own accord keeps the silence away.
                ask_progress(&call);
            }
            // At rest it is a server's time that is bounded, not a client's.
            if random.chance(0.02) && plan.is_open.get() {
                channel.stop_reading(Duration::from_millis(random.below(2000)));
            }
            patience -= 1;
            if patience == 0 {
                break;
            }
        }
        for (spec, (_, next, _)) in specs.iter_mut().zip(&told.sessions) {
            spec.start_revision = *next;
        }
        drop(call);
        channel.close();
    }
}

fn spec(random: &mut Random, plan: &Plan, recorder: &Recorder) -> WatchCreateRequest {
    let key = Bytes::from(format!("k{:03}", random.below(plan.keys)));
    let range_end = match random.below(4) {
        0 => Bytes::new(),
        1 => Bytes::from(format!("{}~", String::from_utf8_lossy(&key[..3]))),
        _ => Bytes::from_static(b"\0"),
    };
    let history = recorder.history();
    let oldest = history.compacted.max(0) as u64 + 1;
    WatchCreateRequest {
        key: if range_end == b"\0"[..] {
            Bytes::from_static(b"k")
        } else {
            key
        },
        range_end,
        start_revision: match random.below(3) {
            0 => (oldest + random.below((history.floor as u64 + 1).saturating_sub(oldest) + 1)) as i64,
            _ => 0,
        },
        progress_notify: random.chance(0.5),
        filters: match random.below(8) {
            0 => vec![0],
            1 => vec![1],
            _ => Vec::new(),
        },
        prev_kv: random.chance(0.5),
        fragment: random.chance(0.5),
        ..WatchCreateRequest::default()
    }
}

/// Reads the whole history again, as far as it is readable, up to a revision; the answers are noted.
pub async fn read_history(
    host: &SimHost,
    recorder: &Recorder,
    plan: &Plan,
    address: SocketAddr,
    to_revision: i64,
) -> Result<(), String> {
    let deadline = host.now() + Duration::from_secs(60);
    let from = recorder.history().compacted_maybe.max(1) + 1;
    if from > to_revision {
        return Ok(());
    }
    while host.now() < deadline {
        host.sleep_until(host.now() + Duration::from_millis(20)).await;
        let Some(channel) = Channel::connect(host, address, Duration::from_secs(2)).await else {
            continue;
        };
        let Some(call) = channel.open(PATH) else { continue };
        let spec = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: from,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let mut told = Sessions::create(recorder, &call, channel.place(), vec![spec]);
        while told.sessions[0].1 <= to_revision && told.sessions[0].2 {
            match next(&call, plan).await {
                Some(Some(response)) => told.take(recorder, response),
                Some(None) if host.now() < deadline => {}
                _ => break,
            }
        }
        let is_done = told.sessions[0].1 > to_revision || !told.sessions[0].2;
        drop(call);
        channel.close();
        if is_done {
            return Ok(());
        }
    }
    Err(format!("history up to {to_revision} could not be read within a minute"))
}
