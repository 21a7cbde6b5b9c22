//! Accepting connections: one loop per listener, a task per connection, and a bound on how many there are at once.
//! Beyond the bound the loop stops accepting, and clients wait in the backlog as they would with etcd.

use std::{cell::Cell, future::Future, io, net::SocketAddr, rc::Rc, time::Duration};

use super::Stop;
use crate::host::{Host, Listener, Net, Notify};

/// First and longest pause after the process ran out of something that a connection needs.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Bounds of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptConfig {
    /// Connections at once; at least 1.
    pub connections_max: usize,
}

type ListenerOf<H> = <<H as Host>::Net as Net>::Listener;
type StreamOf<H> = <<H as Host>::Net as Net>::Stream;

/// Accepts until `stop` is requested, and runs `connection` as a task of this core for each. Tasks go on after the end.
pub async fn serve<H, F>(
    host: &H,
    listener: ListenerOf<H>,
    config: AcceptConfig,
    stop: &Stop,
    connection: impl Fn(StreamOf<H>, SocketAddr) -> F,
) where
    H: Host,
    F: Future<Output = ()> + 'static,
{
    let accepting = accept_loop(host, &listener, config, connection);
    futures_lite::future::or(accepting, stop.requested(host)).await;
}

async fn accept_loop<H, F>(
    host: &H,
    listener: &ListenerOf<H>,
    config: AcceptConfig,
    connection: impl Fn(StreamOf<H>, SocketAddr) -> F,
) where
    H: Host,
    F: Future<Output = ()> + 'static,
{
    assert!(config.connections_max > 0);
    let slots = Rc::new(Slots {
        free: Cell::new(config.connections_max),
        freed: Notify::new(),
    });
    let mut pause = PAUSE_MIN;
    loop {
        let slot = Slot::take(&slots).await;
        match listener.accept().await {
            Ok((stream, address)) => {
                pause = PAUSE_MIN;
                let task = connection(stream, address);
                host.spawn(async move {
                    let _slot = slot;
                    task.await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: accepting again at once would fail again, and starve who could free some.
                tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept; will try again");
                host.sleep_until(host.now() + pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Whether an error of `accept` tells about the connection that was to be accepted, and not about us: Linux reports
/// network errors of a new socket this way (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EAGAIN
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

struct Slots {
    free: Cell<usize>,
    freed: Notify,
}

/// One connection's place among those allowed.
struct Slot(Rc<Slots>);

impl Slot {
    async fn take(slots: &Rc<Slots>) -> Slot {
        while slots.free.get() == 0 {
            slots.freed.notified().await;
        }
        slots.free.set(slots.free.get() - 1);
        Slot(Rc::clone(slots))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.freed.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;
    use crate::{
        host::Stream,
        ring::{RingStream, executor::run_test},
    };

    async fn echo_once(mut stream: RingStream) {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = poll_fn(|context| stream.poll_read(context, &mut buffer)).await {
            let written = poll_fn(|context| stream.poll_write(context, &buffer[..count])).await;
            assert_eq!(written.unwrap(), count);
        }
    }

    fn say(socket: &mut TcpStream) -> io::Result<[u8; 2]> {
        let mut answer = [0; 2];
        socket.write_all(b"hi")?;
        socket.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn connections_beyond_the_bound_wait_until_one_ends() {
        run_test(|host| async move {
            let listener = host.net().listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_address().unwrap();
            let stop = Stop::new();
            let stop_after = stop.clone();
            let clients = std::thread::spawn(move || {
                let connect = || {
                    let socket = TcpStream::connect(address).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    socket
                };
                let (mut first, mut second, mut third) = (connect(), connect(), connect());
                assert_eq!(say(&mut first).unwrap(), *b"hi");
                assert_eq!(say(&mut second).unwrap(), *b"hi");
                third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                assert!(say(&mut third).is_err(), "in the backlog");
                drop(first);
                third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut answer = [0; 2];
                third.read_exact(&mut answer).unwrap();
                assert_eq!(answer, *b"hi");
                stop_after.request();
            });
            let config = AcceptConfig { connections_max: 2 };
            serve(&host, listener, config, &stop, |stream, _| echo_once(stream)).await;
            clients.join().unwrap();
        });
    }

    #[test]
    fn errors_of_one_connection_are_told_from_our_own() {
        let error = io::Error::from_raw_os_error;
        assert!(is_of_one_connection(&error(libc::ECONNABORTED)));
        for ours in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EBADF] {
            assert!(!is_of_one_connection(&error(ours)));
        }
    }
}
