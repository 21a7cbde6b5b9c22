//! Every parser by name, for whoever has bytes to try: the fuzzer's targets in `tests/fuzz` and the seeded runs of
//! `cargo test`. An entry must return, whatever it is given.

use crate::{apply, backend, bench, config, lease, member, mvcc, ops, ring, rpc, snapshot, wal, wire};

/// What takes any bytes.
pub type Entry = fn(&[u8]);

/// What is to be tried, by the name of its target and of its corpus.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("arguments", config::fuzz_arguments),
    ("bench_arguments", bench::fuzz_arguments),
    // The other side of a connection: what a server may say.
    ("client_connection", wire::client::fuzz_client),
    ("conf_change", member::change::fuzz_change),
    ("config_file", config::fuzz_file),
    ("database", backend::fuzz_open),
    ("duration", config::fuzz_duration),
    ("entry", apply::fuzz_request),
    ("grpc", wire::grpc::fuzz_grpc),
    ("health", ops::health::fuzz_request),
    ("hpack", wire::hpack::fuzz_hpack),
    ("http1", wire::http1::fuzz_http1),
    // A connection: preface, frames, headers, messages.
    ("http2_connection", wire::server::fuzz_server),
    ("lease_record", lease::record::fuzz_lease_record),
    ("member_json", member::json::fuzz_member_json),
    ("page", backend::fuzz_page),
    ("placement", ring::placement::fuzz_placement),
    ("process", ops::process::fuzz_texts),
    ("protobuf", wire::protobuf::fuzz_protobuf),
    ("record", mvcc::fuzz_record),
    // A method, and the message of a call of it.
    ("request", rpc::fuzz::fuzz_request),
    ("restore", mvcc::fuzz_restore),
    // A whole connection with everything above it: calls, watches, HTTP, and a replica that answers.
    ("session", rpc::fuzz::fuzz_session),
    ("snap_file", snapshot::file::fuzz_decode),
    ("url", config::fuzz_url),
    ("v2store", snapshot::v2store::fuzz_decode),
    ("wal", wal::replay::fuzz_replay),
];

/// The entry of that name.
///
/// # Panics
/// If there is none.
pub fn entry(name: &str) -> Entry {
    let found = ENTRIES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("nothing is called {name}")).1
}
