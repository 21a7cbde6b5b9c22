//! Any bytes on a connection as the server has it: frames, messages of every method, watch streams, HTTP. A replica that
//! knows nothing answers. Whatever comes in, a session returns, keeps its bounds and ends with its connection.

use std::{rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    desk::Desk,
    http::{Pages, Port},
    route,
    session::{Service, Session, SlowAfter},
    watch::{WatchRoad, Watches},
};
use crate::{
    base::Monotonic,
    config::{AllowList, MetricsLevel},
    limits::Limits,
    ops::process::ProcessFacts,
    propose::{Call, Method, Reply},
    watch::{ResponseIdentity, WatchHub, WatchLimits},
    wire::{
        server::ServerOptions,
        status::{Code, Status},
    },
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const STREAMS_MAX: u32 = 8;
const MESSAGE_BYTES_MAX: u32 = 1000;

fn service() -> Rc<Service> {
    let desk = Rc::new(Desk::new());
    let hub = WatchHub::new(
        ResponseIdentity::default(),
        WatchLimits::new(1000, &Limits::DEFAULT),
        10,
        3,
        1,
    );
    let watches = Watches::new(hub, Duration::from_secs(600), desk.replica_notify().clone());
    let everybody = AllowList(vec!["*".to_owned()]);
    Rc::new(Service {
        wire: ServerOptions {
            message_bytes_max: MESSAGE_BYTES_MAX,
            concurrent_streams_max: STREAMS_MAX,
            ..ServerOptions::default()
        },
        txn_operations_max: 4,
        slow: SlowAfter {
            read: Duration::from_secs(1),
            unary: Duration::from_secs(1),
        },
        desk,
        pump: Rc::default(),
        watches: WatchRoad::Here(Rc::new(watches)),
        http: Pages {
            command_line: Vec::new(),
            fd_limit: 100,
            port: Port::Clients,
            metrics_level: MetricsLevel::Basic,
            cors: everybody.clone(),
            host_whitelist: everybody,
            process_facts: ProcessFacts::default,
        },
    })
}

/// Lets every call that was submitted be answered, one in two with an error.
fn answer_all(service: &Service) -> usize {
    let mut calls = Vec::new();
    service.desk.take_calls(&mut calls);
    let count = calls.len();
    for (number, Call { ticket, .. }) in calls.into_iter().enumerate() {
        let outcome = match number % 2 {
            0 => Ok(Bytes::from_static(b"\x0a\x02\x18\x01")),
            _ => Err(Status::new(Code::Unavailable, "etcdserver: no leader")),
        };
        service.desk.reply(ticket, Reply::whole(ticket, outcome));
    }
    count
}

/// Runs arbitrary bytes through a whole connection, in three pieces, with a replica that answers between them. Inputs
/// that do not begin with `P` or `G` (HTTP/2 and HTTP/1) are frames behind a good preface.
pub fn fuzz_session(input: &[u8]) {
    let service = service();
    let mut session = Session::new(service.clone(), service.desk.open(), Monotonic(1));
    let mut bytes = BytesMut::new();
    if !matches!(input.first(), Some(b'P' | b'G')) {
        bytes.extend_from_slice(PREFACE);
    }
    let third = input.len().div_ceil(3).max(1);
    for (turn, piece) in input.chunks(third).enumerate() {
        let now = Monotonic(2 + turn as u64 * 100_000_000);
        bytes.extend_from_slice(piece);
        session.receive(&mut bytes, now);
        let answered = answer_all(&service);
        assert!(answered <= input.len(), "calls come from bytes");
        session.answer(now);
        session.report();
        assert!(bytes.len() <= input.len() + PREFACE.len());
        if turn == 1 {
            session.output().clear();
            session.refill();
        }
    }
    session.receive_end();
    answer_all(&service);
    session.answer(Monotonic(u64::MAX / 2));
    assert!(session.is_finished());
    drop(session);
    assert_eq!(service.desk.connections(), 0);
    let WatchRoad::Here(watches) = &service.watches else {
        unreachable!("made so");
    };
    assert_eq!(watches.counts().watchers, 0);
}

/// Takes the first byte as a method and the rest as the message of a call, as the session of a connection takes it.
pub fn fuzz_request(input: &[u8]) {
    let Some((method, message)) = input.split_first() else {
        return;
    };
    let method = Method::ALL[usize::from(*method) % Method::ALL.len()];
    let message = Bytes::copy_from_slice(message);
    let service = service();
    let answer = match method {
        Method::LeaseKeepAlive => super::lease::keep_alive(message).err(),
        Method::Snapshot => super::maintenance::snapshot(message).err(),
        Method::Watch => {
            let stream = service.watches.open(&service.desk.open(), 1, Monotonic(1));
            let refusal = stream.take(message).err();
            while stream.pop().is_some() {}
            refusal
        }
        _ => route::unary(method, message, &service).err(),
    };
    if let Some(status) = answer {
        assert_ne!(status.code, Code::Ok, "a refusal says why");
    }
}
