//! HTTP/1.1 by hand: one request on one connection, the whole answer.

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::World;

/// An HTTP/1.1 answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Sends a request and reads the answer to the end of the connection.
pub async fn request(world: &Rc<dyn World>, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut io = world
        .dial()
        .await
        .unwrap_or_else(|error| panic!("dialling {}: {error}", world.name()));
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    io.write_all(format!("{head}\r\n{body}").as_bytes())
        .await
        .expect("the request goes out");
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.expect("the answer comes in");
    parsed(&bytes).unwrap_or_else(|| panic!("{method} {path}: not an answer: {:?}", String::from_utf8_lossy(&bytes)))
}

/// GET.
pub async fn get(world: &Rc<dyn World>, path: &str) -> Answer {
    request(world, "GET", path, &[], "").await
}

fn parsed(bytes: &[u8]) -> Option<Answer> {
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..split]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &bytes[split + 4..];
    let body = if chunked { dechunked(body)? } else { body.to_vec() };
    Some(Answer {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn dechunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        let data = rest.get(line + 2..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(data.get(..length)?);
        rest = data.get(length + 2..)?;
    }
}
