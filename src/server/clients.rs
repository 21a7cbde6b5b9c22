//! The ports that clients come to: who listens, what is served there, and on which core.

use std::{net::ToSocketAddrs, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use tracing::info;

use super::{AcceptConfig, FrontEnds, Stop, lines, serve};
use crate::{
    config::{Config, Url},
    host::{Host, Net, Notify},
    limits,
    ops::process::ProcessFacts,
    rpc::{
        desk::Desk,
        drive::{Scratch, serve as serve_connection},
        front::{Bridge, Fronts},
        http::{Pages, Port},
        session::{Service, SlowAfter},
        snapshot::Pump,
        watch::{WatchRoad, Watches},
    },
    wire::server::ServerOptions,
};

/// Bytes that one read of a socket may bring.
const READ_BYTES: usize = 64 * 1024;

/// What the services of a core are made of.
pub(super) struct Surface {
    pub(super) config: Arc<Config>,
    /// Connections at once on one port.
    pub(super) clients_max: usize,
    pub(super) process_facts: fn() -> ProcessFacts,
    pub(super) desk: Rc<Desk>,
    pub(super) pump: Rc<Pump>,
}

impl Surface {
    /// What is served on a port.
    pub(super) fn service(&self, port: Port, watches: WatchRoad) -> Rc<Service> {
        let config = &self.config;
        let message_bytes_max = config.request_bytes_max.saturating_add(limits::GRPC_OVERHEAD_BYTES);
        Rc::new(Service {
            wire: ServerOptions {
                message_bytes_max,
                concurrent_streams_max: config.concurrent_streams_max,
                keepalive_time_min: config.grpc_keepalive_min_time,
                keepalive_interval: config.grpc_keepalive_interval.unwrap_or(Duration::ZERO),
                keepalive_timeout: config.grpc_keepalive_timeout,
                ..ServerOptions::default()
            },
            txn_operations_max: config.txn_operations_max,
            slow: SlowAfter {
                read: config.warning_apply_duration,
                unary: config.warning_unary_request_duration,
            },
            desk: self.desk.clone(),
            pump: self.pump.clone(),
            watches,
            http: Pages {
                command_line: std::env::args().collect(),
                fd_limit: self.clients_max as u64,
                port,
                metrics_level: config.metrics,
                cors: config.cors.clone(),
                host_whitelist: config.host_whitelist.clone(),
                process_facts: self.process_facts,
            },
        })
    }
}

/// Memory for reads, one for each core.
pub(super) fn scratch() -> Rc<Scratch> {
    Rc::new(Scratch::new(READ_BYTES))
}

/// Listens on every port that the configuration asks for.
pub(super) fn listen_all<H: Host>(host: &H, config: &Config) -> Result<Listeners<H>, String> {
    let has_http_ports = !config.listen_client_http_urls.is_empty();
    let client_port = if has_http_ports { Port::Grpc } else { Port::Clients };
    let mut listeners = listen(host, &config.listen_client_urls, client_port)?;
    listeners.extend(listen(host, &config.listen_client_http_urls, Port::Http)?);
    listeners.extend(listen(host, &config.listen_metrics_urls, Port::Metrics)?);
    Ok(listeners)
}

/// Sockets that listen, what for, and where.
pub(super) type Listeners<H> = Vec<(<<H as Host>::Net as Net>::Listener, Port, String)>;

fn listen<H: Host>(host: &H, urls: &[Url], port: Port) -> Result<Listeners<H>, String> {
    let mut listeners = Vec::new();
    for url in urls {
        let mut addresses: Vec<_> = match url.socket_address() {
            Some(address) => vec![address],
            None => url
                .host_port()
                .to_socket_addrs()
                .map_err(|error| format!("{}: {error}", url.as_str()))?
                .collect(),
        };
        addresses.dedup();
        // Of a name's addresses one is enough, as Go's listener takes one; IPv4 first.
        addresses.sort_by_key(|address| !address.is_ipv4());
        let address = addresses
            .first()
            .ok_or_else(|| format!("{}: no address", url.as_str()))?;
        let listener = host.net().listen(*address).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => format!("listen tcp {address}: bind: address already in use"),
            // It names the address itself.
            _ => error.to_string(),
        })?;
        listeners.push((listener, port, address.to_string()));
    }
    Ok(listeners)
}

type MovedOf<H> = <<H as Host>::Net as Net>::Moved;

/// Begins to carry to and from each front.
pub(super) fn fronts<H: Host>(
    host: &H,
    desk: &Rc<Desk>,
    watches: &Rc<Watches>,
    ends: Vec<FrontEnds<H>>,
    home_connections: usize,
) -> Fronts<MovedOf<H>> {
    let begin = |(number, ends): (usize, FrontEnds<H>)| {
        let bridge = Bridge::new(number + 1, desk.clone(), watches.clone());
        host.spawn(bridge.clone().run(host.clone(), ends.to_front, ends.from_front));
        bridge
    };
    let bridges = ends.into_iter().enumerate().map(begin).collect();
    Fronts::new(desk.clone(), bridges, home_connections)
}

/// Accepts on every port from the moment when the member is `ready`.
pub(super) fn spawn_accept<H: Host>(
    host: &H,
    stop: &Stop,
    surface: Surface,
    watches: &Rc<Watches>,
    fronts: Rc<Fronts<MovedOf<H>>>,
    ready: Rc<Notify>,
    listeners: Listeners<H>,
) {
    let (task_host, stop, watches, fronts) = (host.clone(), stop.clone(), watches.clone(), fronts);
    host.spawn(async move {
        ready.notified().await;
        info!("ready to serve client requests");
        let scratch = scratch();
        for (listener, port, address) in listeners {
            lines::serving(port, &address);
            let service = surface.service(port, WatchRoad::Here(watches.clone()));
            let (host, stop, scratch, fronts) = (task_host.clone(), stop.clone(), scratch.clone(), fronts.clone());
            let config = AcceptConfig {
                connections_max: surface.clients_max,
            };
            task_host.spawn(async move {
                let serving = host.clone();
                serve(&host, listener, config, &stop, move |stream, _| {
                    begin(serving.clone(), stream, service.clone(), scratch.clone(), &fronts)
                })
                .await;
            });
        }
    });
}

/// A connection's task.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Serves a new connection here, or gives it to a front, until it ends.
fn begin<H: Host>(
    host: H,
    stream: <H::Net as Net>::Stream,
    service: Rc<Service>,
    scratch: Rc<Scratch>,
    fronts: &Fronts<MovedOf<H>>,
) -> Serving {
    match fronts.choose() {
        None => {
            let outbox = service.desk.open();
            Box::pin(serve_connection(host, stream, service, outbox, scratch))
        }
        Some(bridge) => {
            let moved = host.net().release(stream);
            Box::pin(bridge.give(moved, service.http.port))
        }
    }
}
