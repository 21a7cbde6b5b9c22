//! The generator and the server on simulated machines: each workload measures what it asked, a pause of the server shows in
//! an open loop's figures, and what goes wrong is told instead of a result.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use ringd::{
    bench::{
        Control, Plan,
        drive::{self, Measured},
        tally::{Operation, Tally},
    },
    cli::{Invocation, invocation},
    host::Host,
    testing::{Random, Sim, SimHost},
};

use crate::server::{ADDRESS, Server, ServerOptions};

fn plan(line: &str) -> Plan {
    let words = format!("bench {line} --endpoints {ADDRESS}");
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    match invocation(&words, &[], &|_| Err(std::io::ErrorKind::NotFound.into())) {
        Invocation::Bench(plan) => *plan,
        other => panic!("{line}: {other:?}"),
    }
}

/// Runs a load against a new server, two machines with a thread each if the plan has two; `meddle` has the simulation while
/// the load runs.
fn run(seed: u64, line: &str, meddle: impl AsyncFnOnce(&Sim, &SimHost, &SimHost)) -> Result<Vec<Measured>, String> {
    let sim = Sim::new(seed);
    let server_host = sim.host("server");
    let plan = Arc::new(plan(line));
    let control = Arc::new(Control::new(plan.threads));
    let options = ServerOptions::draw(&mut Random::new(seed));
    let outcome = sim.run_until_or_for(
        async {
            Server::prepare(&server_host).await;
            let _server = Server::start(&server_host, &options);
            let results: Rc<RefCell<Vec<Result<Measured, String>>>> = Rc::default();
            let first = sim.host("clients-0");
            // Until it listens.
            first.sleep_until(first.now() + Duration::from_secs(3)).await;
            for thread in 0..plan.threads {
                let host = if thread == 0 {
                    first.clone()
                } else {
                    sim.host("clients-1")
                };
                let (plan, control, results) = (plan.clone(), control.clone(), results.clone());
                host.clone().spawn(async move {
                    let addresses = Arc::new(vec![Server::address()]);
                    let result = drive::crew(host, plan, addresses, thread, control, || Duration::ZERO).await;
                    results.borrow_mut().push(result);
                });
            }
            meddle(&sim, &server_host, &first).await;
            while results.borrow().len() < plan.threads as usize {
                first.sleep_until(first.now() + Duration::from_millis(10)).await;
            }
            results.take()
        },
        Duration::from_secs(600),
    );
    outcome.expect("a run ends").into_iter().collect()
}

async fn nothing(_: &Sim, _: &SimHost, _: &SimHost) {}

fn tally(measured: &[Measured]) -> Tally {
    let mut tally = Tally::default();
    measured.iter().for_each(|part| tally.add(&part.tally));
    tally
}

fn count(tally: &Tally, operation: Operation) -> u64 {
    tally.of(operation).map_or(0, |series| series.latencies.len())
}

#[test]
fn every_workload_measures_what_it_asked() {
    for (line, operations) in [
        ("put --total 200 --clients 7 --conns 3", &[(Operation::Put, 200)][..]),
        (
            "range --load --key-space-size 50 --total 100 --clients 5",
            &[(Operation::Range, 100)],
        ),
        (
            "txn-put --txn-ops 3 --key-space-size 9 --total 60",
            &[(Operation::TxnPut, 60)],
        ),
        (
            "txn-mixed --load --key-space-size 9 --total 60 --rw-ratio 2",
            &[(Operation::TxnRead, 40), (Operation::TxnWrite, 20)],
        ),
        ("lease-grant --total 50 --clients 4", &[(Operation::Grant, 50)]),
        (
            "lease-revoke --total 50",
            &[(Operation::Grant, 25), (Operation::Revoke, 25)],
        ),
        (
            "lease-keepalive --total 90 --clients 6 --conns 2",
            &[(Operation::KeepAlive, 90)],
        ),
        (
            "watch --streams 3 --watch-per-stream 5 --watched-key-total 4 --key-space-size 4 --put-total 40 --conns 2",
            &[(Operation::Put, 40), (Operation::Watch, 15)],
        ),
        (
            "watch-latency --streams 2 --watch-per-stream 3 --put-total 30",
            &[(Operation::Put, 30), (Operation::Event, 180), (Operation::Watch, 6)],
        ),
        (
            "kubernetes --objects 60 --page 7 --total 300 --clients 6 --conns 2 --threads 2 --mix 80,10,10 --watches 2",
            &[(Operation::Watch, 2)],
        ),
    ] {
        let measured = run(3, line, nothing).unwrap_or_else(|error| panic!("{line}: {error}"));
        let tally = tally(&measured);
        for (operation, expected) in operations {
            assert_eq!(count(&tally, *operation), *expected, "{line}: {}", operation.name());
        }
        let versions: Vec<_> = measured.iter().map(|part| &part.server_version).collect();
        assert!(
            versions.iter().any(|version| version.starts_with("3.6.")),
            "{versions:?}"
        );
    }
}

#[test]
fn a_control_plane_s_figures_agree_with_each_other() {
    let line = "kubernetes --objects 60 --page 7 --total 400 --clients 6 --conns 2 --mix 80,10,10 --watches 2 \
                --progress-interval 2ms";
    let tally = tally(&run(5, line, nothing).unwrap());
    let of = |operation| count(&tally, operation);
    assert_eq!(of(Operation::Update) + of(Operation::Get) + of(Operation::List), 400);
    assert_eq!(
        of(Operation::Event),
        2 * of(Operation::Update),
        "each update is told to both streams"
    );
    assert_eq!(
        of(Operation::Page),
        9 * of(Operation::List),
        "60 objects are nine pages of 7"
    );
    assert!(of(Operation::Progress) > 1);
    assert_eq!(tally.conflicts, 0, "nobody else changes a client's objects");
}

#[test]
fn an_open_loop_keeps_its_times_and_a_pause_of_the_server_is_in_its_figures() {
    let line = "put --rate 1000 --duration 2s --clients 50 --conns 4 --warm-up 200ms";
    let quiet = tally(&run(7, line, nothing).unwrap());
    let puts = quiet.of(Operation::Put).unwrap();
    assert!(
        (1999..=2001).contains(&puts.latencies.len()),
        "{}",
        puts.latencies.len()
    );
    assert!(puts.latencies.max() < 100_000_000, "{}", puts.latencies.max());
    let delay = &quiet.own_delay.as_ref().unwrap().latencies;
    assert!(delay.max() < 1_000_000, "simulated timers are exact: {}", delay.max());

    let paused = run(7, line, async |sim: &Sim, server: &SimHost, first: &SimHost| {
        first.sleep_until(first.now() + Duration::from_millis(1000)).await;
        sim.pause(server);
        first.sleep_until(first.now() + Duration::from_millis(400)).await;
        sim.resume(server);
    });
    let paused = tally(&paused.unwrap());
    let puts = &paused.of(Operation::Put).unwrap().latencies;
    assert!((1999..=2001).contains(&puts.len()), "{}", puts.len());
    // 400 were to start within the pause, spread over it, though only 50 clients were there to send them.
    let late = puts.count_between(100_000_000, u64::MAX);
    assert!((280..=420).contains(&late), "{late}");
    assert!(puts.max() > 380_000_000);
}

#[test]
fn requests_that_belong_before_the_end_are_sent_though_the_server_pauses_over_it() {
    let line = "put --rate 1000 --duration 1s --clients 20 --conns 4";
    let paused = run(8, line, async |sim: &Sim, server: &SimHost, first: &SimHost| {
        first.sleep_until(first.now() + Duration::from_millis(800)).await;
        sim.pause(server);
        first.sleep_until(first.now() + Duration::from_secs(1)).await;
        sim.resume(server);
    });
    let paused = tally(&paused.unwrap());
    let puts = &paused.of(Operation::Put).unwrap().latencies;
    assert!((999..=1001).contains(&puts.len()), "{}", puts.len());
    assert!(
        puts.count_between(500_000_000, u64::MAX) > 100,
        "they waited for the server"
    );
}

#[test]
fn the_rate_is_kept_by_strangers_too() {
    let line = "range --load --key-space-size 10 --rate 2000 --arrivals poisson --duration 1s --clients 100 --conns 5";
    let tally = tally(&run(9, line, nothing).unwrap());
    let ranges = count(&tally, Operation::Range);
    assert!((1800..2200).contains(&ranges), "{ranges}");
}

#[test]
fn a_server_that_dies_leaves_no_result() {
    let line = "put --duration 5s --clients 10 --conns 2";
    let outcome = run(11, line, async |sim: &Sim, server: &SimHost, first: &SimHost| {
        first.sleep_until(first.now() + Duration::from_secs(1)).await;
        sim.kill(server);
    });
    let error = outcome.err().expect("no result");
    assert!(
        error.contains("put failed: Unavailable") || error.contains("ended a connection"),
        "{error}"
    );
}

#[test]
fn a_server_that_says_nothing_any_more_leaves_no_result() {
    let line = "put --total 100000 --clients 10";
    let outcome = run(13, line, async |sim: &Sim, server: &SimHost, first: &SimHost| {
        first.sleep_until(first.now() + Duration::from_secs(1)).await;
        sim.pause(server);
    });
    let error = outcome.err().expect("no result");
    assert!(error.contains("have had no answer for 60s"), "{error}");
}

#[test]
fn a_refused_request_leaves_no_result() {
    let error = run(15, "put --total 10 --val-size 3000000", nothing)
        .err()
        .expect("no result");
    assert!(error.starts_with("put failed: ResourceExhausted: "), "{error}");
}
