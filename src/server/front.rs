//! A front: a core that has connections and nothing else. Told by home which, and when the end has come.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{
    Stop,
    clients::{Surface, scratch},
};
use crate::{
    config::Config,
    host::{Host, Net, Receiver, Sender, mailbox},
    limits::Limits,
    ops::process::ProcessFacts,
    rpc::{
        desk::Desk,
        drive::serve as serve_connection,
        front::{Arrival, FRONT_MAILBOX, Inward, Link, Outward, link},
        http::Port,
        snapshot::Pump,
        watch::WatchRoad,
    },
};

/// Time that connections have to send what they were told last, after home has gone.
const FAREWELL: Duration = Duration::from_millis(100);
const FAREWELL_STEP: Duration = Duration::from_millis(5);

type MovedOf<H> = <<H as Host>::Net as Net>::Moved;

/// Home's ends of the ways to a front.
pub struct FrontEnds<H: Host> {
    /// What is for it.
    pub to_front: Sender<Outward<MovedOf<H>>>,
    /// What it asks for.
    pub from_front: Receiver<Inward>,
}

/// A front's ends of the ways to home.
pub struct FrontChannels<H: Host> {
    /// What it asks for.
    pub to_home: Sender<Inward>,
    /// What is for it.
    pub from_home: Receiver<Outward<MovedOf<H>>>,
}

/// The ways between home and a front.
pub fn front_ends<H: Host>() -> (FrontEnds<H>, FrontChannels<H>) {
    let (to_front, from_home) = mailbox(FRONT_MAILBOX);
    let (to_home, from_front) = mailbox(FRONT_MAILBOX);
    (FrontEnds { to_front, from_front }, FrontChannels { to_home, from_home })
}

/// A core of connections, until home is gone.
pub async fn front<H: Host>(
    host: H,
    stop: Stop,
    config: Arc<Config>,
    channels: FrontChannels<H>,
    clients_max: usize,
    process_facts: fn() -> ProcessFacts,
    limits: Limits,
) {
    let desk = Rc::new(Desk::of_front(limits));
    let pump = Rc::new(Pump::default());
    host.spawn(pump.clone().run());
    host.spawn(link::tick(host.clone(), desk.clone()));
    let (stop_host, stop_desk) = (host.clone(), desk.clone());
    host.spawn(async move {
        stop.requested(&stop_host).await;
        stop_desk.close_all();
    });
    let surface = Surface {
        config,
        clients_max,
        process_facts,
        desk: desk.clone(),
        pump,
    };
    let service = |port| surface.service(port, WatchRoad::Home(desk.clone()));
    let services = [Port::Clients, Port::Grpc, Port::Http, Port::Metrics].map(|port| (port, service(port)));
    let scratch = scratch();
    let begin = |arrival: Arrival<MovedOf<H>>| {
        // There is one for each port.
        let Some((_, service)) = services.iter().find(|(port, _)| *port == arrival.port) else {
            return;
        };
        let outbox = desk.adopt(arrival.place, arrival.incarnation);
        match host.net().adopt(arrival.connection) {
            Ok(stream) => host.spawn(serve_connection(
                host.clone(),
                stream,
                service.clone(),
                outbox,
                scratch.clone(),
            )),
            Err(error) => {
                tracing::debug!(%error, "connection failed");
                desk.close(&outbox);
            }
        }
    };
    Link::new(desk.clone(), channels.to_home, channels.from_home)
        .run(begin)
        .await;
    desk.close_all();
    let farewell = host.now() + FAREWELL;
    while desk.connections() > 0 && host.now() < farewell {
        host.sleep_until(host.now() + FAREWELL_STEP).await;
    }
}
