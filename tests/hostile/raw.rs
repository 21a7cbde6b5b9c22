//! HTTP/2 by hand, for what no library would send: frames byte by byte, and a socket that is read only when asked.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// How long a peer that does not take our bytes is written to.
const PATIENCE: Duration = Duration::from_secs(2);

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field that is not put into the table (RFC 7541 section 6.2.2); both parts shorter than 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend(name.as_bytes());
    bytes.push(value.len() as u8);
    bytes.extend(value.as_bytes());
    bytes
}

/// The fields of a call.
pub fn call_fields(path: &str) -> Vec<u8> {
    [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "localhost"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ]
    .concat()
}

/// A connection that has said its preface.
pub struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Connects; each stream's window for the server's answers is `window` bytes.
    pub async fn connect(address: SocketAddr, window: u32) -> Raw {
        let socket = TcpStream::connect(address).await.expect("the server listens");
        let mut raw = Raw { socket };
        let mut setting = vec![0, 4];
        setting.extend(window.to_be_bytes());
        let hello = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &setting),
        ]
        .concat();
        raw.send(&hello).await;
        raw
    }

    /// Opens the connection's own window.
    pub async fn widen(&mut self, bytes: u32) {
        self.send(&frame(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes())).await;
    }

    /// Opens a call.
    pub async fn open(&mut self, stream: u32, path: &str) -> bool {
        self.send(&frame(HEADERS, END_HEADERS, stream, &call_fields(path)))
            .await
    }

    /// Sends a whole unary call.
    pub async fn call(&mut self, stream: u32, path: &str, message: &[u8]) -> bool {
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &call_fields(path));
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        let last = body.chunks(16_384).count() - 1;
        for (number, part) in body.chunks(16_384).enumerate() {
            bytes.extend(frame(DATA, if number == last { END_STREAM } else { 0 }, stream, part));
        }
        self.send(&bytes).await
    }

    /// Writes; false when the server has closed or takes no more.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(PATIENCE, self.socket.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Reads until the server closes or says nothing for a while: all that it said, and whether it closed.
    pub async fn hear(&mut self, silence: Duration) -> (Vec<u8>, bool) {
        let mut heard = Vec::new();
        let mut part = vec![0; 64 << 10];
        loop {
            match timeout(silence, self.socket.read(&mut part)).await {
                Ok(Ok(0)) => return (heard, true),
                Ok(Ok(length)) => heard.extend(&part[..length]),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return (heard, true),
                Ok(Err(error)) => panic!("reading: {error}"),
                Err(_) => return (heard, false),
            }
        }
    }
}
