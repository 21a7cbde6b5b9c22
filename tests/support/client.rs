//! A gRPC client over the `h2` crate: one connection, unary calls and streams, typed or raw.

use std::{rc::Rc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use prost::Message;

use super::{call::Call, status::Status, world::World};

/// One connection. Clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Bytes>,
    metadata: HeaderMap,
}

impl Client {
    /// Connects with windows that no test's answer fills.
    pub async fn connect(world: &Rc<dyn World>) -> Client {
        Client::connect_with_window(world, 64 << 20).await
    }

    /// Connects with windows of `window` bytes for the connection and for each stream.
    pub async fn connect_with_window(world: &Rc<dyn World>, window: u32) -> Client {
        let io = world
            .dial()
            .await
            .unwrap_or_else(|error| panic!("dialling {}: {error}", world.name()));
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .initial_connection_window_size(window.max(65_535))
            .max_frame_size(1 << 20)
            .max_header_list_size(1 << 20)
            .handshake(io)
            .await
            .unwrap_or_else(|error| panic!("HTTP/2 preface with {}: {error}", world.name()));
        world.spawn(Box::pin(async move {
            // An error here is seen by every call of the connection.
            let _ = connection.await;
        }));
        Client {
            sender,
            metadata: HeaderMap::new(),
        }
    }

    /// The same connection; its calls carry this metadata too.
    pub fn with_metadata(&self, name: &str, value: &str) -> Client {
        let mut client = self.clone();
        client.metadata.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
            HeaderValue::from_str(value).expect("a header value"),
        );
        client
    }

    /// The same connection; its calls carry this deadline.
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        self.with_metadata("grpc-timeout", &format!("{}m", deadline.as_millis()))
    }

    /// Opens a call with gRPC's usual headers.
    pub async fn open(&self, path: &str) -> Result<Call, Status> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        self.open_with(path, "POST", headers).await
    }

    /// Opens a call with exactly these headers and the client's metadata.
    pub async fn open_with(&self, path: &str, method: &str, headers: HeaderMap) -> Result<Call, Status> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://localhost{path}"))
            .version(http::Version::HTTP_2)
            .body(())
            .expect("a well-formed request");
        *request.headers_mut() = headers;
        for (name, value) in &self.metadata {
            request.headers_mut().append(name, value.clone());
        }
        let mut sender = self
            .sender
            .clone()
            .ready()
            .await
            .map_err(|error| Call::transport_error(&error))?;
        let (response, body) = sender
            .send_request(request, false)
            .map_err(|error| Call::transport_error(&error))?;
        Ok(Call::new(response, body))
    }

    /// One message each way.
    pub async fn unary<Req: Message, Resp: Message + Default>(
        &self,
        path: &str,
        request: &Req,
    ) -> Result<Resp, Status> {
        let bytes = self.unary_bytes(path, framed(request)).await?;
        Ok(Resp::decode(bytes).unwrap_or_else(|error| panic!("{path}: the answer does not parse: {error}")))
    }

    /// Sends bytes as they are, framing included, and gives the one answered message.
    pub async fn unary_bytes(&self, path: &str, body: Bytes) -> Result<Bytes, Status> {
        let mut call = self.open(path).await?;
        call.send_bytes(body, true);
        call.only_message().await
    }

    /// A stream in either or both directions.
    pub async fn stream(&self, path: &str) -> Call {
        self.open(path)
            .await
            .unwrap_or_else(|status| panic!("opening {path}: {status:?}"))
    }
}

/// A message with gRPC's five bytes in front.
pub fn framed<M: Message>(message: &M) -> Bytes {
    framed_bytes(0, &message.encode_to_vec())
}

/// Any bytes with gRPC's five bytes in front; `flag` 1 says compressed.
pub fn framed_bytes(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(flag);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    bytes.freeze()
}
