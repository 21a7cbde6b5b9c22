//! Framing, metadata, timeouts and texts.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::wire::{
    status::Code,
    test_support::{Rng, mutated},
};

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.push(0);
        bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
        bytes.extend_from_slice(message);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_survive_any_cut(
        lens in proptest::collection::vec(prop_oneof![0usize..50, 4000..9000usize], 0..12),
        cuts in proptest::collection::vec(1usize..6000, 1..20),
    ) {
        let messages: Vec<Vec<u8>> = lens.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
        let bytes = framed(&messages);
        let (mut deframer, mut small) = (Deframer::default(), SmallMessages::default());
        let mut received: Vec<Bytes> = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            // What stands behind the frame must stay.
            let mut input = BytesMut::from(piece);
            input.extend_from_slice(b"next frame");
            let mut len = piece.len();
            while let Some(message) = deframer.next_message(&mut input, &mut len, &mut small, 10_000).unwrap() {
                received.push(message);
            }
            prop_assert_eq!(&input[..], b"next frame");
            small.release();
        }
        prop_assert!(!deframer.is_inside_message());
        prop_assert_eq!(received, messages);
    }

    #[test]
    fn percent_encoding_round_trips(text in "\\PC{0,40}") {
        let encoded = percent_encode(&text);
        prop_assert!(encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        prop_assert_eq!(percent_decode(encoded.as_bytes()), text);
    }

    #[test]
    fn base64_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
        let mut text = base64_encode(&bytes);
        prop_assert_eq!(base64_decode(text.as_bytes()), Some(bytes.clone()));
        while !text.len().is_multiple_of(4) {
            text.push('=');
        }
        prop_assert_eq!(base64_decode(text.as_bytes()), Some(bytes));
    }

    #[test]
    fn timeouts_round_trip_and_never_shrink(nanos in 0u64..1 << 60) {
        let timeout = Duration::from_nanos(nanos);
        let back = parse_timeout(encode_timeout(timeout).as_bytes()).unwrap();
        prop_assert!(back >= timeout && back.as_secs_f64() <= timeout.as_secs_f64() * 1.000_001);
    }
}

fn first_error(bytes: &[u8]) -> String {
    let mut input = BytesMut::from(bytes);
    let mut len = input.len();
    Deframer::default()
        .next_message(&mut input, &mut len, &mut SmallMessages::default(), 100)
        .unwrap_err()
        .message
        .into_owned()
}

#[test]
fn broken_messages_get_grpc_gos_texts() {
    let too_large = first_error(&[0, 0, 0, 0, 101]);
    assert_eq!(too_large, "grpc: received message larger than max (101 vs. 100)");
    let flag = first_error(&[1, 0, 0, 0, 1]);
    assert_eq!(flag, "grpc: compressed flag set with identity or empty encoding");
    assert_eq!(
        first_error(&[2, 0, 0, 0, 1]),
        "grpc: received unexpected payload format 2"
    );
}

#[test]
fn announced_length_allocates_nothing() {
    let mut deframer = Deframer::default();
    let mut input = BytesMut::from(&[0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3][..]);
    let mut len = input.len();
    let message = deframer.next_message(&mut input, &mut len, &mut SmallMessages::default(), u32::MAX);
    assert_eq!(message, Ok(None));
    assert_eq!(deframer.held_bytes(), 3);
}

#[test]
fn timeouts_are_read_as_the_specification_says() {
    assert_eq!(parse_timeout(b"1H"), Ok(Duration::from_secs(3600)));
    assert_eq!(parse_timeout(b"90S"), Ok(Duration::from_secs(90)));
    assert_eq!(parse_timeout(b"250m"), Ok(Duration::from_millis(250)));
    assert_eq!(parse_timeout(b"99999999H"), Ok(Duration::from_nanos(i64::MAX as u64)));
    let text = |input: &[u8]| parse_timeout(input).unwrap_err().to_string();
    assert_eq!(text(b"S"), "transport: timeout string is too short: \"S\"");
    assert_eq!(
        text(b"123456789S"),
        "transport: timeout string is too long: \"123456789S\""
    );
    assert_eq!(text(b"1s"), "transport: timeout unit is not recognized: \"1s\"");
    assert_eq!(text(b"1xS"), "strconv.ParseUint: parsing \"1x\": invalid syntax");
}

#[test]
fn content_types_are_told_apart() {
    assert_eq!(content_type(b"application/grpc"), ContentType::Grpc(""));
    assert_eq!(content_type(b"application/grpc+proto"), ContentType::Grpc("proto"));
    assert_eq!(content_type(b"application/grpc;x=y"), ContentType::Grpc("x=y"));
    assert_eq!(content_type(b"application/grpcx"), ContentType::GrpcMalformed);
    assert_eq!(content_type(b"application/json"), ContentType::Other);
    assert_eq!(content_type(b""), ContentType::Other);
}

#[test]
fn refusals_have_grpc_gos_texts() {
    let check = |status: crate::wire::status::Status, code, text: &str| {
        assert_eq!((status.code, &status.message[..]), (code, text));
    };
    check(unknown_service("a.B"), Code::Unimplemented, "unknown service a.B");
    check(
        unknown_method("C", "a.B"),
        Code::Unimplemented,
        "unknown method C for service a.B",
    );
    check(
        malformed_method("x"),
        Code::Unimplemented,
        "malformed method name: \"x\"",
    );
    check(
        decoder_missing(b"gzip"),
        Code::Unimplemented,
        "grpc: Decompressor is not installed for grpc-encoding \"gzip\"",
    );
    check(
        invalid_content_type(b"application/grpcx"),
        Code::InvalidArgument,
        "invalid gRPC request content-type \"application/grpcx\"",
    );
    assert_eq!(split_path("/a.B/C"), Some(("a.B", "C")));
    assert_eq!(split_path("/a/b/C"), Some(("a/b", "C")));
    assert_eq!(split_path("a.B/C"), None);
    assert_eq!(split_path("/aB"), None);
    assert_eq!(go_quoted(b"a\"\\\t\x01\xff"), "\"a\\\"\\\\\\t\\x01\\xff\"");
}

#[test]
fn metadata_shares_memory_with_the_same_before() {
    let mut builder = MetadataBuilder::default();
    builder.push(b"token", b"abc");
    builder.push(b"x-bin", b"AQI");
    let first = builder.build(&Metadata::default());
    assert_eq!(first.text("token"), Some("abc"));
    assert_eq!(first.binary("x-bin"), Some(vec![1, 2]));
    assert_eq!(first.text("other"), None);
    let second = builder.build(&first);
    let address = |metadata: &Metadata| metadata.value("token").unwrap().as_ptr();
    assert_eq!(address(&first), address(&second));
}

#[test]
fn thousand_fuzzed_inputs_do_not_panic() {
    let mut rng = Rng::new(2);
    for _ in 0..1000 {
        let messages: Vec<Vec<u8>> = (0..4).map(|_| vec![7; rng.below(40)]).collect();
        let mut seed = Vec::new();
        for piece in framed(&messages).chunks(1 + rng.below(30)) {
            seed.push(piece.len() as u8);
            seed.extend_from_slice(piece);
        }
        fuzz_grpc(&mutated(&mut rng, &[&seed]));
    }
}
