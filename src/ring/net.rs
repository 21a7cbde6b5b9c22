//! Sockets of one executor: bound by us, since glommio's own bind shares the port with whoever asks (SO_REUSEPORT) and
//! would hide a second server; awaited by glommio.
//!
//! What a request costs here: one `recv` per readable event (a short read asks the ring to watch for more at once, so
//! that the next poll makes no call in vain) and one `send` per write.

use std::{
    io,
    net::{SocketAddr, TcpListener as SystemListener, TcpStream as SystemStream},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};

use super::system;
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
    listener: TcpListener,
}

/// A connection of one executor. Reads and writes are polled by one task; a waker per direction is kept by glommio.
pub struct RingStream {
    stream: TcpStream,
}

impl RingNet {
    /// The sockets of this thread's executor.
    pub fn new() -> RingNet {
        RingNet::default()
    }

    /// Takes over a connection that another core accepted.
    pub fn adopt(&self, socket: SystemStream) -> io::Result<RingStream> {
        socket.set_nodelay(true)?;
        Ok(RingStream {
            stream: system::glommio_stream(socket),
        })
    }

    /// Takes over a socket that listens already ([`bind`]).
    pub fn adopt_listener(&self, socket: SystemListener) -> RingListener {
        RingListener {
            listener: system::glommio_listener(socket),
        }
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

    fn listen(&self, address: SocketAddr) -> io::Result<RingListener> {
        bind(address).map(|socket| self.adopt_listener(socket))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<RingStream> {
        let stream = TcpStream::connect(address).await.map_err(io::Error::from)?;
        stream.set_nodelay(true).map_err(io::Error::from)?;
        Ok(RingStream { stream })
    }
}

impl Listener for RingListener {
    type Stream = RingStream;

    /// The next connection. Dropping the future may lose a connection that arrives at that moment: the accept loop is
    /// dropped only with the listener.
    async fn accept(&self) -> io::Result<(RingStream, SocketAddr)> {
        loop {
            let stream = self.listener.accept().await.map_err(io::Error::from)?;
            // glommio's first try is an `accept` without close-on-exec.
            system::set_close_on_exec(system::borrow(&stream))?;
            stream.set_nodelay(true).map_err(io::Error::from)?;
            match stream.peer_addr() {
                Ok(address) => return Ok((RingStream { stream }, address)),
                // The peer hung up while it waited in the backlog.
                Err(_) => continue,
            }
        }
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr().map_err(io::Error::from)
    }
}

impl RingStream {
    /// Leaves this executor, to be adopted by another. Nothing may have been read yet that is still wanted.
    pub fn into_socket(self) -> io::Result<SystemStream> {
        system::duplicate(&self.stream).map(SystemStream::from)
    }

    /// Our address.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr().map_err(io::Error::from)
    }
}

impl Stream for RingStream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        // glommio closes the direction in place and never waits.
        match Pin::new(&mut self.stream).poll_close(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => unreachable!("glommio's close of a direction is one system call"),
        }
    }
}
