//! Sockets of one executor: bound by us, since glommio's own bind shares the port with whoever asks (SO_REUSEPORT) and
//! would hide a second server; awaited by us too ([`readiness`]), since glommio asks anew for each read.
//!
//! What a request costs here: one `recv` when there is something to read (a short read is known to have taken all), one
//! `send` per write, and its part of a call that tells of all sockets that have become ready.

use std::{
    future::poll_fn,
    io,
    net::{Shutdown, SocketAddr, TcpListener as SystemListener, TcpStream as SystemStream},
    task::{Context, Poll},
};

use glommio::net::TcpStream;

use super::{
    enter,
    readiness::{self, Registration},
    system,
};
use crate::host::{Listener, Net, Stream};

/// Connections that may wait to be accepted (the kernel caps this at net.core.somaxconn).
pub const BACKLOG_CONNECTIONS: i32 = 4096;

/// Sockets, as seen by one executor.
#[derive(Clone, Default)]
pub struct RingNet {
    _private: (),
}

/// A bound socket of one executor.
pub struct RingListener {
    // Before the socket, so that it goes before it.
    registration: Registration,
    socket: SystemListener,
}

/// A connection of one executor. Reads and writes are polled by one task.
pub struct RingStream {
    registration: Registration,
    socket: SystemStream,
}

impl RingNet {
    /// The sockets of this thread's executor.
    pub fn new() -> RingNet {
        RingNet::default()
    }

    /// Takes over a socket that listens already ([`bind`]).
    pub fn adopt_listener(&self, socket: SystemListener) -> io::Result<RingListener> {
        socket.set_nonblocking(true)?;
        let registration = readiness::register(&socket)?;
        Ok(RingListener { registration, socket })
    }
}

/// Binds and listens, outside any executor: SO_REUSEADDR, close-on-exec, no SO_REUSEPORT. An address that is taken is an
/// error of kind `AddrInUse` that names it.
pub fn bind(address: SocketAddr) -> io::Result<SystemListener> {
    let listener = SystemListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("listen tcp {address}: {}", bind_reason(&error))))?;
    system::set_backlog(&listener, BACKLOG_CONNECTIONS)?;
    Ok(listener)
}

fn bind_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "bind: address already in use".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "bind: cannot assign requested address".to_owned(),
        Some(libc::EACCES) => "bind: permission denied".to_owned(),
        _ => error.to_string(),
    }
}

impl Net for RingNet {
    type Listener = RingListener;
    type Stream = RingStream;
    type Moved = SystemStream;

    fn listen(&self, address: SocketAddr) -> io::Result<RingListener> {
        self.adopt_listener(bind(address)?)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<RingStream> {
        let stream = TcpStream::connect(address).await.map_err(io::Error::from)?;
        self.adopt(SystemStream::from(system::duplicate(&stream)?))
    }

    fn release(&self, stream: RingStream) -> SystemStream {
        let RingStream { registration, socket } = stream;
        drop(registration);
        socket
    }

    fn adopt(&self, socket: SystemStream) -> io::Result<RingStream> {
        socket.set_nodelay(true)?;
        let registration = readiness::register(&socket)?;
        Ok(RingStream { registration, socket })
    }
}

impl Listener for RingListener {
    type Stream = RingStream;

    /// The next connection. None is lost by dropping the future.
    async fn accept(&self) -> io::Result<(RingStream, SocketAddr)> {
        let mut accepted = None;
        poll_fn(|context| {
            readiness::running();
            enter::relax();
            let call = || {
                accepted = Some(self.socket.accept()?);
                // There may be more.
                Ok(0)
            };
            self.registration.poll_read(context, 0, call)
        })
        .await?;
        let (socket, address) = accepted.expect("a connection was accepted");
        Ok((RingNet::new().adopt(socket)?, address))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl RingStream {
    /// Our address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Stream for RingStream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        readiness::running();
        // A peer that never pauses may keep this core's tasks going without end.
        enter::relax();
        let room = buffer.len();
        self.registration
            .poll_read(context, room, || system::receive(&self.socket, buffer))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.registration
            .poll_write(context, || system::send(&self.socket, buffer))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
        rc::Rc,
        time::Duration,
    };

    use super::*;
    use crate::{host::Host, ring::executor::run_test};

    const LOOPBACK: &str = "127.0.0.1:0";

    async fn read_some(stream: &mut RingStream, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| stream.poll_read(context, buffer)).await
    }

    async fn write_all(stream: &mut RingStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|context| stream.poll_write(context, bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    async fn echo(mut stream: RingStream) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match read_some(&mut stream, &mut buffer).await? {
                0 => return stream.shutdown_write(),
                count => write_all(&mut stream, &buffer[..count]).await?,
            }
        }
    }

    #[test]
    fn a_taken_port_is_refused_plainly() {
        run_test(|host| async move {
            let first = host.net().listen(LOOPBACK.parse().unwrap()).unwrap();
            let address = first.local_address().unwrap();
            let error = host.net().listen(address).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert_eq!(
                error.to_string(),
                format!("listen tcp {address}: bind: address already in use")
            );
            let socket = bind(LOOPBACK.parse().unwrap()).unwrap();
            assert_eq!(
                crate::ring::system::socket_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT).unwrap(),
                0
            );
            assert_eq!(
                crate::ring::system::socket_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap(),
                1
            );
        });
    }

    #[test]
    fn a_thousand_connections_are_echoed() {
        run_test(|host| async move {
            let listener = host.net().listen(LOOPBACK.parse().unwrap()).unwrap();
            let address = listener.local_address().unwrap();
            let server = host.clone();
            host.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    server.spawn(async move { echo(stream).await.unwrap() });
                }
            });
            let left = Rc::new(std::cell::Cell::new(1000));
            let done = Rc::new(crate::host::Notify::new());
            for number in 0..1000u32 {
                let (host, left, done) = (host.clone(), Rc::clone(&left), Rc::clone(&done));
                host.clone().spawn(async move {
                    let mut stream = host.net().connect(address).await.unwrap();
                    for round in 0..5u32 {
                        let message = (number * 10 + round).to_be_bytes();
                        write_all(&mut stream, &message).await.unwrap();
                        let mut answer = [0; 16];
                        assert_eq!(read_some(&mut stream, &mut answer).await.unwrap(), 4);
                        assert_eq!(answer[..4], message);
                    }
                    stream.shutdown_write().unwrap();
                    assert_eq!(read_some(&mut stream, &mut [0; 16]).await.unwrap(), 0);
                    left.set(left.get() - 1);
                    done.notify();
                });
            }
            while left.get() > 0 {
                done.notified().await;
            }
        });
    }

    #[test]
    fn one_task_reads_and_writes_at_once_while_the_peer_is_slow() {
        run_test(|host| async move {
            let listener = host.net().listen(LOOPBACK.parse().unwrap()).unwrap();
            let address = listener.local_address().unwrap();
            let peer = std::thread::spawn(move || {
                let mut socket = SystemStream::connect(address).unwrap();
                // Writes first and reads late: our side must take in what comes while its own writes are stuck.
                let sent = vec![3u8; 8 << 20];
                socket.write_all(&sent).unwrap();
                let mut received = vec![0; 8 << 20];
                socket.read_exact(&mut received).unwrap();
                received.iter().all(|&byte| byte == 4)
            });
            let (mut stream, _) = listener.accept().await.unwrap();
            let outgoing = vec![4u8; 8 << 20];
            let (mut written, mut read) = (0, 0);
            let mut buffer = vec![0; 65536];
            poll_fn(|context| {
                loop {
                    let mut is_stuck = true;
                    if written < outgoing.len()
                        && let Poll::Ready(result) = stream.poll_write(context, &outgoing[written..])
                    {
                        written += result.unwrap();
                        is_stuck = false;
                    }
                    if read < 8 << 20
                        && let Poll::Ready(result) = stream.poll_read(context, &mut buffer)
                    {
                        read += result.unwrap();
                        is_stuck = false;
                    }
                    if written == outgoing.len() && read == 8 << 20 {
                        return Poll::Ready(());
                    }
                    if is_stuck {
                        return Poll::Pending;
                    }
                }
            })
            .await;
            assert!(peer.join().unwrap());
        });
    }

    #[test]
    fn a_dropped_stream_is_closed_for_the_peer_and_an_accepted_one_can_move() {
        run_test(|host| async move {
            let listener = host.net().listen(LOOPBACK.parse().unwrap()).unwrap();
            let address = listener.local_address().unwrap();
            let mut client = host.net().connect(address).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let socket = host.net().release(accepted);
            assert!(socket.nodelay().unwrap());
            let flags = crate::ring::system::descriptor_flags(&socket).unwrap();
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
            let other = std::thread::spawn(move || {
                run_test(move |host| async move { echo(host.net().adopt(socket).unwrap()).await.unwrap() })
            });
            write_all(&mut client, b"hello").await.unwrap();
            let mut answer = [0; 16];
            assert_eq!(read_some(&mut client, &mut answer).await.unwrap(), 5);
            client.shutdown_write().unwrap();
            assert_eq!(read_some(&mut client, &mut answer).await.unwrap(), 0);
            other.join().unwrap();

            let mut second = host.net().connect(address).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            drop(accepted);
            let end = futures_lite::future::or(read_some(&mut second, &mut answer), async {
                host.sleep_until(host.now() + Duration::from_secs(5)).await;
                Err(io::ErrorKind::TimedOut.into())
            });
            assert_eq!(end.await.unwrap(), 0);
        });
    }

    #[test]
    fn connecting_to_a_closed_port_is_refused() {
        run_test(|host| async move {
            let address = bind(LOOPBACK.parse().unwrap()).unwrap().local_addr().unwrap();
            let error = host.net().connect(address).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
