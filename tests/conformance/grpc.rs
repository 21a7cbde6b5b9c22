//! What lies below the services: methods that are not there, requests that do not parse, sizes, deadlines, health.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use ringd::wire::proto::{etcdserverpb as pb, healthpb};

use crate::{
    fixture::{Fixture, invalid, refusal},
    support::{
        call::Call,
        calls::{one, put, put_op},
        client::{framed, framed_bytes},
        status::{Code, Status},
        world::Target,
    },
};

bodies! {
    standing {
        unknown_services_and_methods_are_unimplemented,
        there_is_no_reflection,
        other_methods_and_content_types_are_refused_with_http_codes,
        a_request_without_te_is_served,
        content_types_may_name_a_codec,
        a_request_without_a_message_is_refused,
        a_cut_message_is_refused,
        only_the_first_message_of_a_unary_call_counts,
        messages_that_do_not_parse_are_refused,
        unknown_fields_are_skipped,
        strings_need_not_be_utf8,
        compression_that_was_not_declared_is_refused,
        an_unknown_compression_is_refused,
        a_request_above_the_limit_is_refused,
        a_message_above_the_limit_is_refused_unread,
        a_large_message_leaves_its_connection_in_order,
        max_request_bytes_counts_the_whole_request,
        an_expired_deadline_ends_the_call,
        odd_deadlines_are_refused,
        odd_binary_metadata_is_refused,
        answers_have_the_headers_that_clients_expect,
        health_knows_the_whole_server_alone,
        many_calls_share_a_connection,
        a_reset_call_leaves_its_connection_in_order,
    }
    fresh {
        max_request_bytes_is_a_flag => ["--max-request-bytes=10000"],
        at_most_as_many_streams_as_the_flag_says => ["--max-concurrent-streams=3"],
    }
}

const RANGE: &str = "/etcdserverpb.KV/Range";

async fn raw_with(
    f: &Fixture,
    path: &str,
    method: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> (Result<Bytes, Status>, Call) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    let mut call = f.open_with(path, method, map).await.expect("the call opens");
    call.send_bytes(body, true);
    let result = call.only_message().await;
    (result, call)
}

const USUAL: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A call with gRPC's usual headers and a body of one's own.
async fn raw(f: &Fixture, path: &str, body: Bytes) -> Result<Bytes, Status> {
    raw_with(f, path, "POST", &USUAL, body).await.0
}

async fn unknown_services_and_methods_are_unimplemented(t: Target) {
    let f = Fixture::new(&t).await;
    for (path, text) in [
        (
            "/etcdserverpb.KV/Nope",
            "unknown method Nope for service etcdserverpb.KV",
        ),
        (
            "/etcdserverpb.KV/range",
            "unknown method range for service etcdserverpb.KV",
        ),
        ("/etcdserverpb.KV/", "unknown method  for service etcdserverpb.KV"),
        ("/etcdserverpb.Nope/Range", "unknown service etcdserverpb.Nope"),
        ("/a/b/c", "unknown service a/b"),
        ("/nope", "malformed method name: \"/nope\""),
        ("/", "malformed method name: \"/\""),
    ] {
        let body = framed(&one("a"));
        let (result, call) = raw_with(&f, path, "POST", &USUAL, body).await;
        assert_eq!(result, Err(Status::new(Code::Unimplemented, text)), "{path}");
        assert_eq!(call.head.as_ref().unwrap().0, 200);
    }
    f.put_at("a", "1", 1).await;
}

async fn there_is_no_reflection(t: Target) {
    let f = Fixture::new(&t).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let text = format!("unknown service grpc.reflection.{version}.ServerReflection");
        assert_eq!(
            raw(&f, &path, Bytes::new()).await,
            Err(Status::new(Code::Unimplemented, text))
        );
    }
}

async fn other_methods_and_content_types_are_refused_with_http_codes(t: Target) {
    let f = Fixture::new(&t).await;
    let body = framed(&one("a"));
    let (result, call) = raw_with(&f, RANGE, "GET", &USUAL, body.clone()).await;
    let text = "Received a HEADERS frame with :method \"GET\" which should be POST";
    assert_eq!(
        (result, call.head.unwrap().0),
        (Err(Status::new(Code::Internal, text)), 405)
    );
    for content_type in [
        "application/json",
        "application/grpc-web",
        "application/grpcx",
        "text/plain",
        "",
    ] {
        let (result, call) = raw_with(&f, RANGE, "POST", &[("content-type", content_type)], body.clone()).await;
        let text = format!("invalid gRPC request content-type \"{content_type}\"");
        assert_eq!(
            (result, call.head.unwrap().0),
            (Err(Status::new(Code::InvalidArgument, text)), 415)
        );
    }
    let (result, call) = raw_with(&f, RANGE, "POST", &[("te", "trailers")], body).await;
    let text = "invalid gRPC request content-type \"\"";
    assert_eq!(
        (result, call.head.unwrap().0),
        (Err(Status::new(Code::InvalidArgument, text)), 415)
    );
}

async fn a_request_without_te_is_served(t: Target) {
    let f = Fixture::new(&t).await;
    let (result, _) = raw_with(
        &f,
        RANGE,
        "POST",
        &[("content-type", "application/grpc")],
        framed(&one("a")),
    )
    .await;
    assert!(result.is_ok(), "{result:?}");
}

async fn content_types_may_name_a_codec(t: Target) {
    let f = Fixture::new(&t).await;
    for content_type in [
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
        "application/grpc+other",
    ] {
        let (result, _) = raw_with(&f, RANGE, "POST", &[("content-type", content_type)], framed(&one("a"))).await;
        assert!(result.is_ok(), "{content_type}: {result:?}");
    }
}

async fn a_request_without_a_message_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let eof = Err(Status::new(Code::Unknown, "EOF"));
    assert_eq!(raw(&f, RANGE, Bytes::new()).await, eof);
    assert_eq!(
        raw(&f, RANGE, framed(&one("a")).slice(..3)).await,
        eof,
        "a cut prefix counts as none"
    );
}

async fn a_cut_message_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let message = framed(&put(t.key("a"), "1"));
    for length in [6, message.len() - 1] {
        let cut = raw(&f, "/etcdserverpb.KV/Put", message.slice(..length)).await;
        assert_eq!(cut, Err(Status::new(Code::Unknown, "unexpected EOF")));
    }
    assert_eq!(f.revision().await, f.base);
}

async fn only_the_first_message_of_a_unary_call_counts(t: Target) {
    let f = Fixture::new(&t).await;
    let both = [framed(&put(t.key("a"), "1")), framed(&put(t.key("b"), "2"))].concat();
    assert!(raw(&f, "/etcdserverpb.KV/Put", both.into()).await.is_ok());
    assert_eq!(f.revision().await, f.base + 1);
    assert_eq!((f.get(t.key("a")).await.count, f.get(t.key("b")).await.count), (1, 0));
}

async fn messages_that_do_not_parse_are_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let odd: [(&str, &[u8]); 10] = [
        ("wire type 7", &[0x0f]),
        ("a number cut short", &[0x18, 0x80]),
        ("bytes cut short", &[0x0a, 5, 1]),
        ("tag 0", &[0x00, 1]),
        ("a number where bytes belong", &[0x08, 1]),
        ("bytes where a number belongs", &[0x1a, 1, 1]),
        ("the end of a group that did not begin", &[0x0a, 1, b'a', 0xfc, 1]),
        (
            "a number of eleven bytes",
            &[0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ),
        (
            "a negative length",
            &[0x0a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ),
        ("a length beyond the message", &[0x0a, 255, 255, 255, 255, 15]),
    ];
    for (what, message) in odd {
        let refused = raw(&f, RANGE, framed_bytes(0, message)).await.expect_err(what);
        assert_eq!(refused.code, Code::Internal, "{what}: {refused:?}");
        // The rest of the text names Go's structures; no client can depend on it.
        assert!(
            refused.message.starts_with("grpc: error unmarshalling request: "),
            "{what}: {refused:?}"
        );
    }
    f.put_at("a", "1", 1).await;
}

async fn unknown_fields_are_skipped(t: Target) {
    let f = Fixture::new(&t).await;
    f.put_at("a", "1", 1).await;
    let mut message = one(t.key("a")).encode_to_vec();
    // Field 31: a number, eight bytes, some bytes, a group with a number in it, four bytes.
    message.extend([0xf8, 1, 7]);
    message.extend([0xf9, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend([0xfa, 1, 2, 0xff, 0xfe]);
    message.extend([0xfb, 1, 0x08, 1, 0xfc, 1]);
    message.extend([0xfd, 1, 0, 0, 0, 0]);
    let answer = raw(&f, RANGE, framed_bytes(0, &message))
        .await
        .expect("a range with more in it");
    assert_eq!(pb::RangeResponse::decode(answer).unwrap().count, 1);
}

async fn strings_need_not_be_utf8(t: Target) {
    let f = Fixture::new(&t).await;
    let message = framed_bytes(0, &[0x0a, 2, 0xff, 0xfe]);
    let refused = raw(&f, "/etcdserverpb.Cluster/MemberAdd", message.clone())
        .await
        .unwrap_err();
    // etcd's own messages take any bytes for a string; ours refuse them as they refuse other nonsense.
    let lenient = invalid("given member URLs are invalid");
    let strict = refused.code == Code::Internal && refused.message.starts_with("grpc: error unmarshalling request: ");
    assert!(refused == lenient || strict, "{refused:?}");
    let refused = raw(&f, "/grpc.health.v1.Health/Check", message).await.unwrap_err();
    assert_eq!(refused.code, Code::Internal);
    assert!(
        refused.message.starts_with("grpc: error unmarshalling request: "),
        "{refused:?}"
    );
}

async fn compression_that_was_not_declared_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let message = one("a").encode_to_vec();
    let text = "grpc: compressed flag set with identity or empty encoding";
    assert_eq!(
        raw(&f, RANGE, framed_bytes(1, &message)).await,
        Err(Status::new(Code::Internal, text))
    );
    let identity = [USUAL[0], USUAL[1], ("grpc-encoding", "identity")];
    let (result, _) = raw_with(&f, RANGE, "POST", &identity, framed_bytes(1, &message)).await;
    assert_eq!(result, Err(Status::new(Code::Internal, text)));
    let (result, _) = raw_with(&f, RANGE, "POST", &identity, framed_bytes(0, &message)).await;
    assert!(result.is_ok());
    let text = "grpc: received unexpected payload format 2";
    assert_eq!(
        raw(&f, RANGE, framed_bytes(2, &message)).await,
        Err(Status::new(Code::Internal, text))
    );
}

async fn an_unknown_compression_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let refused = |name: &str| {
        Status::new(
            Code::Unimplemented,
            format!("grpc: Decompressor is not installed for grpc-encoding \"{name}\""),
        )
    };
    for flag in [0, 1] {
        let headers = [USUAL[0], USUAL[1], ("grpc-encoding", "zstd")];
        let (result, _) = raw_with(
            &f,
            RANGE,
            "POST",
            &headers,
            framed_bytes(flag, &one("a").encode_to_vec()),
        )
        .await;
        assert_eq!(result, Err(refused("zstd")));
    }
    // gzip: etcd has it, ringd may do without, and says so.
    let headers = [USUAL[0], USUAL[1], ("grpc-encoding", "gzip")];
    let (result, _) = raw_with(&f, RANGE, "POST", &headers, framed_bytes(1, b"not gzip")).await;
    let status = result.unwrap_err();
    let understood = status.code == Code::Internal || status.code == Code::Unknown;
    assert!(status == refused("gzip") || understood, "{status:?}");
}

async fn a_request_above_the_limit_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    // The limit is for the request as it stands in the log, which adds some bytes of its own.
    let overhead = t.key("a").len() + 40;
    assert!(
        f.try_put(put(t.key("a"), vec![b'v'; 1_572_864 - overhead]))
            .await
            .is_ok()
    );
    let refused = Err(invalid("request is too large"));
    assert_eq!(f.try_put(put(t.key("a"), vec![b'v'; 1_572_864])).await, refused);
    assert_eq!(f.try_put(put(t.key("a"), vec![b'v'; 2_000_000])).await, refused);
    let half = vec![b'v'; 800_000];
    let txn = pb::TxnRequest {
        success: vec![put_op(t.key("a"), half.clone())],
        failure: vec![put_op(t.key("b"), half)],
        ..Default::default()
    };
    assert_eq!(f.try_txn(txn).await.unwrap_err(), invalid("request is too large"));
    let delete = pb::DeleteRangeRequest {
        key: vec![b'k'; 1_600_000].into(),
        ..Default::default()
    };
    assert_eq!(f.try_delete(delete).await.unwrap_err(), invalid("request is too large"));
    // A range is in no log.
    assert!(f.try_range(one(vec![b'k'; 1_600_000])).await.is_ok());
    assert_eq!(f.revision().await, f.base + 1);
    f.delete(t.key("a")).await;
}

async fn a_message_above_the_limit_is_refused_unread(t: Target) {
    let f = Fixture::new(&t).await;
    const LIMIT: usize = 1_572_864 + 512 * 1024;
    for length in [LIMIT + 1, 3_000_000] {
        let body = framed_bytes(0, &vec![0x0a; length]);
        let text = format!("grpc: received message larger than max ({length} vs. {LIMIT})");
        assert_eq!(
            raw(&f, RANGE, body).await,
            Err(Status::new(Code::ResourceExhausted, text))
        );
    }
    // The prefix alone is enough to refuse, and no memory is set aside for what it promises.
    let promise = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    let text = format!("grpc: received message larger than max ({} vs. {LIMIT})", u32::MAX);
    assert_eq!(
        raw(&f, RANGE, promise).await,
        Err(Status::new(Code::ResourceExhausted, text))
    );
}

async fn a_large_message_leaves_its_connection_in_order(t: Target) {
    let f = Fixture::new(&t).await;
    let mut stream = f.watch().await;
    stream.create(pb::WatchCreateRequest {
        key: t.key("a"),
        ..Default::default()
    });
    assert!(stream.watched().await.created);
    let refused = raw(&f, "/etcdserverpb.KV/Put", framed_bytes(0, &vec![0; 8_000_000]))
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted);
    f.put_at("a", "1", 1).await;
    assert_eq!(stream.watched().await.events.len(), 1);
}

async fn max_request_bytes_counts_the_whole_request(t: Target) {
    let f = Fixture::new(&t).await;
    // 128 small puts: no single one is large, all together are.
    let value = vec![b'v'; 13_000];
    let ops = (0..128)
        .map(|index| put_op(t.key(&format!("{index}")), value.clone()))
        .collect();
    let txn = pb::TxnRequest {
        success: ops,
        ..Default::default()
    };
    assert_eq!(f.try_txn(txn).await.unwrap_err(), invalid("request is too large"));
}

async fn max_request_bytes_is_a_flag(t: Target) {
    let f = Fixture::new(&t).await;
    assert!(f.try_put(put(t.key("a"), vec![b'v'; 9_900])).await.is_ok());
    assert_eq!(
        f.try_put(put(t.key("a"), vec![b'v'; 10_000])).await,
        Err(invalid("request is too large"))
    );
    let limit = 10_000 + 512 * 1024;
    let text = format!("grpc: received message larger than max ({} vs. {limit})", limit + 1);
    let refused = raw(&f, RANGE, framed_bytes(0, &vec![0; limit + 1])).await;
    assert_eq!(refused, Err(Status::new(Code::ResourceExhausted, text)));
}

async fn at_most_as_many_streams_as_the_flag_says(t: Target) {
    let f = Fixture::new(&t).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = f.watch().await;
        stream.create(pb::WatchCreateRequest {
            key: t.key("a"),
            ..Default::default()
        });
        assert!(stream.watched().await.created);
        streams.push(stream);
    }
    // A fourth waits in the client until one of the three ends.
    let client = f.client().clone();
    let waiting = t.at_most(Duration::from_millis(300), client.get("a")).await;
    assert!(waiting.is_none(), "four streams at once");
    drop(streams.pop());
    t.within(Duration::from_secs(3), "room for a call", client.get("a"))
        .await;
    t.client().await.get("a").await;
}

async fn an_expired_deadline_ends_the_call(t: Target) {
    let f = Fixture::new(&t).await;
    let hasty = f.with_metadata("grpc-timeout", "1n");
    let refused = hasty.try_range(one("a")).await;
    assert_eq!(
        refused,
        Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded"))
    );
    f.with_metadata("grpc-timeout", "10S").put(t.key("a"), "1").await;
    for ample in ["99999999H", "5000m", "5000000u", "5M"] {
        f.with_metadata("grpc-timeout", ample).get("a").await;
    }
}

async fn odd_deadlines_are_refused(t: Target) {
    let f = Fixture::new(&t).await;
    for (timeout, why) in [
        ("x", "transport: timeout string is too short: \"x\""),
        ("123456789S", "transport: timeout string is too long: \"123456789S\""),
        ("10x", "transport: timeout unit is not recognized: \"10x\""),
    ] {
        let refused = f.with_metadata("grpc-timeout", timeout).try_range(one("a")).await;
        assert_eq!(
            refused,
            Err(Status::new(Code::Internal, format!("malformed grpc-timeout: {why}")))
        );
    }
}

async fn odd_binary_metadata_is_refused(t: Target) {
    let f = Fixture::new(&t).await;
    let refused = f.with_metadata("x-bin", "!!!").try_range(one("a")).await.unwrap_err();
    assert_eq!(refused.code, Code::Internal);
    assert!(
        refused
            .message
            .starts_with("malformed binary metadata \"!!!\" in header \"x-bin\""),
        "{refused:?}"
    );
    for fine in ["AAEC", "AAE=", "AAE"] {
        f.with_metadata("x-bin", fine).get("a").await;
    }
}

async fn answers_have_the_headers_that_clients_expect(t: Target) {
    let f = Fixture::new(&t).await;
    let (result, call) = raw_with(&f, RANGE, "POST", &USUAL, framed(&one("a"))).await;
    assert!(result.is_ok());
    let (status, headers) = call.head.unwrap();
    assert_eq!(
        (status, headers["content-type"].as_bytes()),
        (200, &b"application/grpc"[..])
    );
    let trailers = call.trailers.unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    // A refusal comes without data, as headers alone.
    let (result, call) = raw_with(&f, RANGE, "POST", &USUAL, framed(&one(""))).await;
    assert_eq!(result, Err(invalid("key is not provided")));
    let (status, headers) = call.head.unwrap();
    assert_eq!((status, headers["grpc-status"].as_bytes()), (200, &b"3"[..]));
}

async fn health_knows_the_whole_server_alone(t: Target) {
    use healthpb::health_check_response::ServingStatus::Serving;
    let f = Fixture::new(&t).await;
    let check = async |service: &str| {
        let request = healthpb::HealthCheckRequest {
            service: service.into(),
        };
        f.unary::<_, healthpb::HealthCheckResponse>("/grpc.health.v1.Health/Check", &request)
            .await
    };
    assert_eq!(
        check("").await,
        Ok(healthpb::HealthCheckResponse { status: Serving as i32 })
    );
    for service in ["etcdserverpb.KV", "x"] {
        assert_eq!(
            check(service).await,
            Err(Status::new(Code::NotFound, "unknown service"))
        );
    }
    let mut stream = f.stream("/grpc.health.v1.Health/Watch").await;
    stream.send(&healthpb::HealthCheckRequest::default());
    stream.half_close();
    let first: healthpb::HealthCheckResponse = stream.expect_next().await;
    assert_eq!(first.status, Serving as i32);
    assert!(
        t.at_most(Duration::from_millis(100), stream.next_bytes())
            .await
            .is_none(),
        "the stream stays open"
    );
}

async fn many_calls_share_a_connection(t: Target) {
    let f = Fixture::new(&t).await;
    let mut calls = Vec::new();
    for index in 0..100 {
        let (client, key) = (f.client().clone(), t.key(&format!("{index}")));
        calls.push(tokio::task::spawn_local(async move {
            client.put(key.clone(), format!("{index}")).await;
            client.get(key).await.kvs[0].value.clone()
        }));
    }
    for (index, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.expect("the call ends"), format!("{index}"));
    }
}

async fn a_reset_call_leaves_its_connection_in_order(t: Target) {
    let f = Fixture::new(&t).await;
    for step in 0..20 {
        let mut call = f.open(RANGE).await.unwrap();
        if step % 2 == 0 {
            call.send(&one("a"));
        }
        call.reset();
        drop(call);
        let mut put_call = f.open("/etcdserverpb.KV/Put").await.unwrap();
        put_call.send_bytes(framed(&put(t.key("half"), "v")).slice(..4), false);
        drop(put_call);
    }
    assert_eq!(f.revision().await, f.base);
    f.put_at("a", "1", 1).await;
    let missing: Result<pb::RangeResponse, _> = f.unary(RANGE, &one("")).await;
    assert_eq!(
        missing.unwrap_err(),
        refusal(Code::InvalidArgument, "key is not provided")
    );
}
