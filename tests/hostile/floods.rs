//! Frames that cost the sender nothing, and bytes that lie. The server answers each with the right error and forgets it.

use std::{net::SocketAddr, time::Duration};

use crate::{
    Held, MIB,
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw, SETTINGS, call_fields, field,
        frame,
    },
    withstand,
};

const ENHANCE_YOUR_CALM: u8 = 11;
const SILENCE: Duration = Duration::from_secs(2);

/// The error of the GOAWAY among the frames heard.
fn goaway(mut heard: &[u8]) -> Option<u8> {
    while heard.len() >= 9 {
        let length = u32::from_be_bytes([0, heard[0], heard[1], heard[2]]) as usize;
        if heard[3] == 7 && heard.len() >= 17 {
            return Some(heard[16]);
        }
        heard = heard.get(9 + length..)?;
    }
    None
}

/// Sends the same bytes until the server has enough, and asks how it said so.
async fn flood(address: SocketAddr, what: &str, rounds: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> Held {
    let mut raw = Raw::connect(address, 65_535).await;
    for round in 0..rounds {
        if !raw.send(&bytes(round)).await {
            break;
        }
    }
    let (heard, closed) = raw.hear(SILENCE).await;
    assert!(closed, "{what}: the connection is still open");
    // A reset may have overtaken the farewell.
    assert!(
        matches!(goaway(&heard), None | Some(ENHANCE_YOUR_CALM)),
        "{what}: GOAWAY with {:?}",
        goaway(&heard)
    );
    Box::new(raw)
}

#[test]
fn floods_of_pings_settings_and_empty_frames_end_their_connection() {
    withstand("PING flood", 2 * MIB, |address| async move {
        let burst = frame(PING, 0, 0, &[0; 8]).repeat(1000);
        flood(address, "PING", 200, |_| burst.clone()).await
    });
    withstand("SETTINGS flood", 2 * MIB, |address| async move {
        let burst = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(1000);
        flood(address, "SETTINGS", 200, |_| burst.clone()).await
    });
    withstand("empty DATA flood", 2 * MIB, |address| async move {
        let opening = frame(HEADERS, END_HEADERS, 1, &call_fields("/etcdserverpb.Watch/Watch"));
        let burst = frame(DATA, 0, 1, b"").repeat(1000);
        flood(address, "empty DATA", 200, |round| {
            if round == 0 { opening.clone() } else { burst.clone() }
        })
        .await
    });
    withstand("CONTINUATION flood", 2 * MIB, |address| async move {
        let opening = frame(HEADERS, 0, 1, &call_fields("/etcdserverpb.KV/Range"));
        let burst = frame(CONTINUATION, 0, 1, b"").repeat(1000);
        flood(address, "CONTINUATION", 200, |round| {
            if round == 0 { opening.clone() } else { burst.clone() }
        })
        .await
    });
}

#[test]
fn rapid_resets_end_their_connection() {
    withstand("rapid reset", 4 * MIB, |address| async move {
        let fields = call_fields("/etcdserverpb.KV/Range");
        flood(address, "resets", 200, |round| {
            let mut burst = Vec::new();
            for index in 0..500 {
                let stream = (round * 500 + index) as u32 * 2 + 1;
                burst.extend(frame(HEADERS, END_HEADERS, stream, &fields));
                burst.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
            }
            burst
        })
        .await
    });
}

#[test]
fn huge_headers_and_header_bombs_are_refused() {
    withstand("8 MiB of header in CONTINUATION", 2 * MIB, |address| async move {
        let mut raw = Raw::connect(address, 65_535).await;
        raw.send(&frame(HEADERS, 0, 1, &call_fields("/etcdserverpb.KV/Range")))
            .await;
        let part = field("x-filling", &"x".repeat(100)).repeat(140);
        for _ in 0..512 {
            if !raw.send(&frame(CONTINUATION, 0, 1, &part)).await {
                break;
            }
        }
        let (_, closed) = raw.hear(SILENCE).await;
        assert!(closed, "the connection with the endless header is still open");
        Box::new(raw) as Held
    });
    // 4 KiB are put into the table once and named 16,000 times in each block: 64 MiB of fields in 16 KiB.
    withstand("HPACK bomb", 4 * MIB, |address| async move {
        let mut raw = Raw::connect(address, 65_535).await;
        let mut first = call_fields("/etcdserverpb.KV/Range");
        first.extend([0x40, 1, b'x', 0x7f, 0xa0 - 0x7f + 0x80, 0x1e]);
        first.extend(vec![b'y'; 0x7f + 0x21 + (0x1e << 7)]);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &first)).await;
        for index in 1..200u32 {
            let mut bomb = call_fields("/etcdserverpb.KV/Range");
            bomb.extend(vec![0x80 | 62; 16_000]);
            if !raw
                .send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * index + 1, &bomb))
                .await
            {
                break;
            }
        }
        let (heard, closed) = raw.hear(SILENCE).await;
        assert!(closed || !heard.is_empty(), "the bombs are answered");
        Box::new(raw) as Held
    });
}

#[test]
fn lies_about_length_and_compression_are_refused() {
    withstand("gRPC lengths of 4 GiB", 2 * MIB, |address| async move {
        let mut connections = Vec::new();
        for _ in 0..100 {
            let mut raw = Raw::connect(address, 65_535).await;
            raw.open(1, "/etcdserverpb.KV/Put").await;
            raw.send(&frame(DATA, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]))
                .await;
            connections.push(raw);
        }
        let (heard, _) = connections[0].hear(Duration::from_millis(300)).await;
        let text = String::from_utf8_lossy(&heard);
        assert!(text.contains("larger than max"), "the lie is named: {text:?}");
        Box::new(connections) as Held
    });
    withstand("compressed messages", 2 * MIB, |address| async move {
        let mut raw = Raw::connect(address, 65_535).await;
        for index in 0..1000u32 {
            raw.open(2 * index + 1, "/etcdserverpb.KV/Put").await;
            raw.send(&frame(DATA, END_STREAM, 2 * index + 1, &[1, 0, 0, 0, 3, 1, 2, 3]))
                .await;
        }
        let (heard, _) = raw.hear(Duration::from_millis(300)).await;
        assert!(!heard.is_empty(), "compressed messages are answered");
        Box::new(raw) as Held
    });
}
