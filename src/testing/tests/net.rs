//! Tests of simulated connections.

use super::*;

#[test]
fn connections_carry_everything_in_order_however_it_is_cut() {
    for seed in 0..10 {
        let sim = Sim::new(seed);
        let (server, client) = (sim.host("server"), sim.host("client"));
        let address = start_echo(&server, "0.0.0.0:0");
        for host in [&server, &client] {
            let mut faults = Faults::default();
            (faults.net.short_read, faults.net.short_write) = (0.5, 0.5);
            (faults.net.delay, faults.net.delay_for) = (0.05, Duration::from_millis(20));
            sim.set_faults(host, faults);
        }
        sim.run_until(async {
            let stream = Rc::new(RefCell::new(client.net().connect(address).await.unwrap()));
            let message: Vec<u8> = (0..50_000u32).map(|number| (number % 251) as u8).collect();
            let (sender, bytes) = (Rc::clone(&stream), message.clone());
            client.spawn(async move {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let written = poll_fn(|context| sender.borrow_mut().poll_write(context, rest))
                        .await
                        .unwrap();
                    rest = &rest[written..];
                }
                sender.borrow_mut().shutdown_write().unwrap();
            });
            let mut received = Vec::new();
            let mut buffer = [0; 777];
            loop {
                match poll_fn(|context| stream.borrow_mut().poll_read(context, &mut buffer))
                    .await
                    .unwrap()
                {
                    0 => break,
                    count => received.extend_from_slice(&buffer[..count]),
                }
            }
            assert_eq!(received, message);
        });
    }
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    let sim = Sim::new(11);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let listener = server.net().listen("10.0.0.1:80".parse().unwrap()).unwrap();
    let (mut ours, mut theirs) = sim.run_until(async {
        let ours = client.net().connect("10.0.0.1:80".parse().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    });
    let bytes = vec![1; 1 << 20];
    assert!(
        sim.run_until_or_for(write_all(&mut ours, &bytes), Duration::from_secs(9))
            .is_none()
    );
    let capacity = sim.timing().pipe_bytes;
    let mut received = vec![0; capacity];
    sim.run_until(read_exact(&mut theirs, &mut received)).unwrap();
    let more = sim.run_until_or_for(read_some(&mut theirs, &mut received), Duration::from_secs(1));
    assert!(more.is_none(), "nothing beyond the pipe was sent");
}

#[test]
fn a_cut_link_is_silence_and_a_mended_one_delivers() {
    let sim = Sim::new(12);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let address = start_echo(&server, "10.0.0.1:2379");
    let mut stream = sim.run_until(client.net().connect(address)).unwrap();
    sim.cut(&server, &client);
    sim.run_until(write_all(&mut stream, b"hi")).unwrap();
    let mut answer = [0; 2];
    assert!(
        sim.run_until_or_for(read_exact(&mut stream, &mut answer), Duration::from_secs(60))
            .is_none()
    );
    let refused = sim.run_until(client.net().connect(address)).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    sim.mend(&server, &client);
    sim.run_until(read_exact(&mut stream, &mut answer)).unwrap();
    assert_eq!(&answer, b"hi");
}

#[test]
fn a_half_open_connection_is_silent_for_good_and_others_are_not() {
    let sim = Sim::new(15);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let address = start_echo(&server, "10.0.0.1:2379");
    let mut stream = sim.run_until(client.net().connect(address)).unwrap();
    let mut faults = Faults::default();
    faults.net.half_open = 1.0;
    sim.set_faults(&client, faults);
    sim.run_until(write_all(&mut stream, b"hi")).unwrap();
    sim.set_faults(&client, Faults::default());
    let silence = sim.run_until_or_for(read_some(&mut stream, &mut [0; 9]), Duration::from_secs(60));
    assert!(silence.is_none());
    assert_eq!(sim.injected().get("half-open connection"), Some(&1));
    let mut other = sim.run_until(client.net().connect(address)).unwrap();
    sim.run_until(write_all(&mut other, b"hi")).unwrap();
    sim.run_until(read_exact(&mut other, &mut [0; 2])).unwrap();
    // Not even the system of a killed process gets through.
    sim.kill(&server);
    let silence = sim.run_until_or_for(read_some(&mut stream, &mut [0; 9]), Duration::from_secs(60));
    assert!(silence.is_none());
}

#[test]
fn a_killed_peer_is_noticed_at_once_and_a_powerless_one_when_it_is_back() {
    let sim = Sim::new(13);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let address = start_echo(&server, "10.0.0.1:2379");
    let mut stream = sim.run_until(client.net().connect(address)).unwrap();
    sim.kill(&server);
    let error = sim.run_until(read_some(&mut stream, &mut [0; 9])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let error = sim.run_until(client.net().connect(address)).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

    let server = sim.restart(&server);
    start_echo(&server, "10.0.0.1:2379");
    let mut stream = sim.run_until(client.net().connect(address)).unwrap();
    sim.crash(&server);
    sim.run_until(write_all(&mut stream, b"hi")).unwrap();
    assert!(
        sim.run_until_or_for(read_some(&mut stream, &mut [0; 9]), Duration::from_secs(60))
            .is_none()
    );
    let error = sim.run_until(client.net().connect(address)).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let server = sim.restart(&server);
    let error = sim.run_until(read_some(&mut stream, &mut [0; 9])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    start_echo(&server, "10.0.0.1:2379");
    assert!(sim.run_until(client.net().connect(address)).is_ok());
}

#[test]
fn a_taken_address_is_refused_until_its_listener_is_gone() {
    let sim = Sim::new(14);
    let host = sim.host("a");
    let address = "10.0.0.1:2379".parse().unwrap();
    let listener = host.net().listen(address).unwrap();
    assert_eq!(
        host.net().listen(address).err().unwrap().kind(),
        io::ErrorKind::AddrInUse
    );
    drop(listener);
    host.net().listen(address).unwrap();
}

#[test]
fn a_dropped_stream_ends_the_peers_reading() {
    let sim = Sim::new(15);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let listener = server.net().listen("10.0.0.1:80".parse().unwrap()).unwrap();
    sim.run_until(async {
        let mut ours = client.net().connect("10.0.0.1:80".parse().unwrap()).await.unwrap();
        let (mut theirs, from) = listener.accept().await.unwrap();
        assert!(from.ip().to_string().starts_with("10.0.0."));
        write_all(&mut theirs, b"bye").await.unwrap();
        drop(theirs);
        let mut answer = [0; 9];
        assert_eq!(read_some(&mut ours, &mut answer).await.unwrap(), 3);
        assert_eq!(read_some(&mut ours, &mut answer).await.unwrap(), 0);
        write_all(&mut ours, b"to nobody").await.unwrap();
        client.sleep_until(client.now() + Duration::from_millis(10)).await;
        assert_eq!(
            write_all(&mut ours, b"x").await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    });
}

#[test]
fn mailboxes_and_the_accept_loop_run_here_too() {
    let sim = Sim::new(18);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let listener = server.net().listen("10.0.0.1:80".parse().unwrap()).unwrap();
    let stop = Stop::new();
    let (accepting, stopping) = (server.clone(), stop.clone());
    let is_over = Rc::new(Notify::new());
    let over = Rc::clone(&is_over);
    server.spawn(async move {
        let config = AcceptConfig { connections_max: 1 };
        serve(&accepting, listener, config, &stopping, |stream, _| echo(stream)).await;
        over.notify();
    });
    let (mut sender, mut receiver) = mailbox(2);
    for number in 0..3u8 {
        let host = client.clone();
        let mut sender = (number == 0).then(|| std::mem::replace(&mut sender, mailbox(1).0));
        client.spawn(async move {
            let mut stream = host.net().connect("10.0.0.1:80".parse().unwrap()).await.unwrap();
            let mut answer = [0];
            write_all(&mut stream, &[number]).await.unwrap();
            read_exact(&mut stream, &mut answer).await.unwrap();
            assert_eq!(answer, [number]);
            drop(stream);
            if let Some(sender) = &mut sender {
                sender.send(number).await.unwrap();
            }
        });
    }
    assert_eq!(sim.run_until(receiver.receive()), Some(0));
    sim.run_for(Duration::from_millis(100));
    stop.request();
    sim.run_until(is_over.notified());
}

#[test]
fn the_accept_loop_pauses_while_it_cannot_accept_and_then_goes_on() {
    let sim = Sim::new(19);
    let (server, client) = (sim.host("server"), sim.host("client"));
    let net = NetFaults {
        accept_error: 1.0,
        ..NetFaults::default()
    };
    sim.set_faults(
        &server,
        Faults {
            net,
            ..Faults::default()
        },
    );
    let listener = server.net().listen("10.0.0.1:80".parse().unwrap()).unwrap();
    let accepting = server.clone();
    server.spawn(async move {
        let config = AcceptConfig { connections_max: 10 };
        serve(&accepting, listener, config, &Stop::new(), |stream, _| echo(stream)).await;
    });
    let mut stream = sim
        .run_until(client.net().connect("10.0.0.1:80".parse().unwrap()))
        .unwrap();
    sim.run_until(write_all(&mut stream, b"x")).unwrap();
    sim.keep_log();
    assert!(
        sim.run_until_or_for(read_some(&mut stream, &mut [0]), Duration::from_secs(60))
            .is_none()
    );
    // A turn of the loop per second and of the stop's watch per 50 ms, not a busy loop.
    assert!(sim.take_log().len() < 5_000);
    sim.set_faults(&server, Faults::default());
    let start = sim.now();
    assert_eq!(sim.run_until(read_some(&mut stream, &mut [0])).unwrap(), 1);
    assert!(sim.now().since(start) < Duration::from_millis(1100));
}
