"""What is measured, and the bars that the results are held against.

A case is measured in pairs, ringd and etcd one after the other in the same seconds; a pair is what is kept, repeated and
resumed. SECONDS in a command stands for the length of one measurement, so that the length of a whole run is known.
"""
from dataclasses import dataclass, field

KEYS = "--key-size 16 --val-size 128 --key-space-size 100000"
FEW = "--key-size 16 --key-space-size 1000"
LISTED = "/registry/"
# Of the store with many keys: 256 bytes each, key and value.
MANY = f"--key-prefix {LISTED} --key-size 30 --val-size 226"


@dataclass
class Case:
    name: str
    about: str
    # load: `ringd bench`; and those that need more: lone, clients, stalled, h2load, keys, beside.
    kind: str
    words: str = ""
    operation: str = "put"
    # Of one measurement: in a full run, and in a quick one.
    seconds: tuple = (3, 2)
    # What a pair takes besides its measurements: starting servers, loading keys, making connections.
    besides: float = 5
    # What goes on meanwhile, for cases `beside`: BENCH or CTL and their words.
    meanwhile: tuple = ()
    # Measured only when asked for: no bar is about it.
    extra: bool = False


RATE = f"put --rate 1000 --clients 200 --conns 20 --duration SECONDSs --warm-up 1s {KEYS}"


def beside(name, about, *meanwhile):
    return Case(name, about, "beside", RATE, seconds=(8, 4), besides=9, meanwhile=meanwhile)


CASES = [
    Case("lone-put", "one put at a time, between two looks at the bare device", "lone", f"put --clients 1 --duration SECONDSs --warm-up 300ms {KEYS}"),
    Case("put-16x4", "64 puts on their way, 16 connections", "load", f"put --clients 64 --conns 16 --duration SECONDSs --warm-up 300ms {KEYS}"),
    Case("put-100x10", "1,000 puts on their way, 100 connections", "load", f"put --clients 1000 --conns 100 --duration SECONDSs --warm-up 300ms {KEYS}"),
    Case("put-1000x1", "1,000 connections", "load", f"put --clients 1000 --conns 1000 --duration SECONDSs --warm-up 500ms {KEYS}"),
    Case("put-16000x1", "16,000 connections, and what they cost when they rest", "clients",
         f"put --clients 16000 --conns 16000 --duration SECONDSs --warm-up 2s --dial-timeout 60s --retry-too-many-requests {KEYS}", seconds=(5, 4), besides=30),
    Case("range-100x10", "linearizable", "load", f"range --load --clients 1000 --conns 100 --duration SECONDSs --warm-up 300ms {FEW}", "range"),
    Case("range-serializable-100x10", "serializable", "load",
         f"range --load --consistency s --clients 1000 --conns 100 --duration SECONDSs --warm-up 300ms {FEW}", "range"),
    Case("range-disk-stalled", "linearizable, the filesystem frozen and puts waiting for it; ringd alone", "stalled",
         f"range --clients 1000 --conns 100 --duration SECONDSs {FEW}", "range", besides=4),
    Case("range-serializable-disk-stalled", "the same, serializable", "stalled",
         f"range --consistency s --clients 1000 --conns 100 --duration SECONDSs {FEW}", "range", besides=4),
    Case("watch-10000", "10,000 watchers of one key, 100 streams", "load",
         "watch --streams 100 --watch-per-stream 100 --put-total 200 --conns 100 --val-size 256", "event", seconds=(3, 3)),
    Case("lease-keepalive", "100 streams", "load", "lease-keepalive --clients 100 --conns 10 --total 10000000 --duration SECONDSs --warm-up 300ms", "keepalive"),
    Case("lease-grant-revoke", "grant and revoke in turns", "load", "lease-revoke --clients 100 --conns 10 --total 10000000 --duration SECONDSs --warm-up 300ms", "revoke"),
    Case("keys", "many keys: memory of their own, restart, and what a list of all adds", "keys", seconds=(2, 1), besides=14),
    Case("rate-1000", "1,000 puts a second in an open loop, nothing else", "beside", RATE, seconds=(8, 4), besides=9),
    beside("rate-during-commits", "beside 3,000 puts a second of 1 KiB to random keys: large commits",
           "BENCH", f"put --rate 3000 --clients 100 --conns 4 --key-prefix {LISTED} --key-size 30 --val-size 1024 --key-space-size COUNT"),
    beside("rate-during-compaction", "beside 2,000 puts a second and a compaction twice a second",
           "BENCH", f"put --rate 2000 --clients 50 --compact-interval 500ms --compact-index-delta 10 {KEYS}"),
    beside("rate-during-defragmentation", "beside one defragmentation after the other", "CTL", "defrag --command-timeout=60s"),
    beside("rate-during-snapshots", "beside one snapshot after the other", "CTL", "snapshot save FILE"),
    beside("rate-during-lists", "beside lists of all keys", "BENCH", f"range {LISTED} /registry0 --clients 1"),
    beside("rate-during-transactions", "beside five transactions of 1 MiB a second",
           "BENCH", "txn-put --txn-ops 100 --key-space-size 1000 --val-size 10000 --clients 1 --rate 5"),
    Case("h2load-put-16x4", "the generator against h2load", "h2load", f"put --clients 64 --conns 16 --duration SECONDSs {KEYS}", seconds=(2, 1), besides=8),
    Case("h2load-range-100x10", "the generator against h2load", "h2load", f"range --load --clients 1000 --conns 100 --duration SECONDSs {FEW}", "range", seconds=(2, 1), besides=8),
    Case("lone-range", "one range at a time", "load", f"range --load --clients 1 --duration SECONDSs --warm-up 300ms {FEW}", "range", extra=True),
    Case("watch-latency", "from a put's start to its event", "load", "watch-latency --put-total 600 --put-rate 200", "event", extra=True),
    Case("kubernetes", "renewals by compare-and-swap, paged lists, watches", "load",
         "kubernetes --objects 20000 --clients 50 --conns 10 --duration SECONDSs", "update", seconds=(5, 3), extra=True),
]
BY_NAME = {case.name: case for case in CASES}


@dataclass
class Bar:
    """`ours` is to be at most (or at least) `factor` times `of`, plus `more`."""
    case: str
    figure: str
    factor: float
    # etcd: the same figure of etcd's. A pair (case, figure): ours there. `figure NAME`: another figure of the same runs.
    of: object = "etcd"
    more: float = 0
    at_least: bool = False
    says: str = field(default="")


def against_etcd(case):
    return [Bar(case, "server_us", 1 / 6), Bar(case, "per_second", 2.5, at_least=True), Bar(case, "p99_us", 1 / 3)]


BARS = [
    Bar("lone-put", "mean_us", 1, "figure device_us", more=80), Bar("lone-put", "mean_us", 0.5),
    *against_etcd("put-16x4"), *against_etcd("put-100x10"), *against_etcd("put-1000x1"),
    Bar("put-16000x1", "per_second", 1, ("put-1000x1", "per_second"), at_least=True),
    Bar("put-16000x1", "per_second", 3, at_least=True), Bar("put-16000x1", "resident_mib", 1 / 4),
    Bar("put-16000x1", "max_us", 10, "figure p50_us"),
    Bar("range-100x10", "server_us", 1 / 7), Bar("range-100x10", "p99_us", 1 / 3),
    Bar("range-serializable-100x10", "server_us", 1 / 7), Bar("range-serializable-100x10", "p99_us", 1 / 3),
    Bar("range-disk-stalled", "p99_us", 1 / 3, ("range-100x10", "p99_us", "etcd")),
    Bar("range-serializable-disk-stalled", "p99_us", 1 / 3, ("range-serializable-100x10", "p99_us", "etcd")),
    Bar("watch-10000", "server_us_event", 1 / 8),
    Bar("rate-1000", "p99.9_us", 1 / 3),
    *[Bar(case.name, "p99.9_us", 2, ("rate-1000", "p99.9_us")) for case in CASES if case.meanwhile],
    Bar("keys", "anon_mib", 1 / 3), Bar("keys", "anon_listing_mib", 1.2, "figure anon_mib"), Bar("keys", "restart_s", 1 / 4),
    Bar("lease-keepalive", "server_us", 1 / 5), Bar("lease-grant-revoke", "server_us", 1 / 5),
]
