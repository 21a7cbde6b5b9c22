//! One call on a connection: messages out, messages in, and how it ended.

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::HeaderMap;
use prost::Message;

use super::{
    client::framed,
    status::{Code, Status},
};

/// A call. Dropping it resets the stream.
pub struct Call {
    sender: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    receiver: Option<RecvStream>,
    buffer: BytesMut,
    /// HTTP status and headers, once they came.
    pub head: Option<(u16, HeaderMap)>,
    /// Trailers, once they came; those of a trailers-only answer are its headers.
    pub trailers: Option<HeaderMap>,
    ended: Option<Result<(), Status>>,
}

impl Call {
    pub(super) fn new(response: ResponseFuture, sender: SendStream<Bytes>) -> Call {
        Call {
            sender,
            response: Some(response),
            receiver: None,
            buffer: BytesMut::new(),
            head: None,
            trailers: None,
            ended: None,
        }
    }

    /// Sends a message; does not wait for room in the window.
    pub fn send<M: Message>(&mut self, message: &M) {
        self.send_bytes(framed(message), false);
    }

    /// Sends bytes as they are. A server that has ended the call already is seen when reading.
    pub fn send_bytes(&mut self, bytes: Bytes, end: bool) {
        let _ = self.sender.send_data(bytes, end);
    }

    /// Says that no more is sent.
    pub fn half_close(&mut self) {
        self.send_bytes(Bytes::new(), true);
    }

    /// Gives the call up.
    pub fn reset(&mut self) {
        self.sender.send_reset(Reason::CANCEL);
    }

    /// The next message; `None` at an end with OK.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        match self.next_bytes().await? {
            Some(bytes) => Ok(Some(M::decode(bytes).expect("the server's message parses"))),
            None => Ok(None),
        }
    }

    /// The next message, which must come.
    pub async fn expect_next<M: Message + Default>(&mut self) -> M {
        match self.next().await {
            Ok(Some(message)) => message,
            Ok(None) => panic!("the stream ended with OK instead of a message"),
            Err(status) => panic!("the stream ended with {status:?} instead of a message"),
        }
    }

    /// The next message's bytes; `None` at an end with OK. May be dropped and called again without losing anything.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take_message() {
                return Ok(Some(message));
            }
            if let Some(ended) = &self.ended {
                assert!(
                    self.buffer.is_empty() || ended.is_err(),
                    "the stream ended inside a message"
                );
                return ended.clone().map(|()| None);
            }
            if let Err(status) = self.read_more().await {
                self.ended = Some(Err(status));
            }
        }
    }

    /// The one message of a unary answer.
    pub async fn only_message(&mut self) -> Result<Bytes, Status> {
        let message = self.next_bytes().await?;
        let rest = self.next_bytes().await?;
        assert!(rest.is_none(), "a unary answer holds one message");
        message.ok_or_else(|| Status::new(Code::Internal, "the answer ended with OK and without a message"))
    }

    /// Reads to the end and gives how it ended.
    pub async fn end(&mut self) -> Result<(), Status> {
        while self.next_bytes().await?.is_some() {}
        Ok(())
    }

    /// All bytes of an answer that is not gRPC.
    pub async fn body(&mut self) -> Result<Bytes, Status> {
        self.ended = None;
        while self.ended.is_none() {
            self.read_more().await?;
        }
        Ok(self.buffer.split().freeze())
    }

    fn take_message(&mut self) -> Option<Bytes> {
        let length = u32::from_be_bytes(self.buffer.get(1..5)?.try_into().expect("four bytes")) as usize;
        if self.buffer.len() < 5 + length {
            return None;
        }
        assert_eq!(self.buffer[0], 0, "the server compressed a message that may not be");
        let mut frame = self.buffer.split_to(5 + length);
        frame.advance(5);
        Some(frame.freeze())
    }

    async fn read_more(&mut self) -> Result<(), Status> {
        if let Some(response) = &mut self.response {
            let response = response.await.map_err(|error| Call::transport_error(&error))?;
            self.response = None;
            let (parts, body) = response.into_parts();
            let only_trailers = Status::from_headers(&parts.headers);
            self.head = Some((parts.status.as_u16(), parts.headers.clone()));
            self.receiver = Some(body);
            if only_trailers.is_some() {
                self.trailers = Some(parts.headers);
                return self.finish(only_trailers);
            }
            return Ok(());
        }
        let receiver = self.receiver.as_mut().expect("a call has a response or a body");
        match receiver.data().await {
            Some(Ok(data)) => {
                let _ = receiver.flow_control().release_capacity(data.len());
                self.buffer.extend_from_slice(&data);
                Ok(())
            }
            Some(Err(error)) => Err(Call::transport_error(&error)),
            None => {
                let trailers = receiver
                    .trailers()
                    .await
                    .map_err(|error| Call::transport_error(&error))?;
                let status = trailers.as_ref().and_then(Status::from_headers);
                self.trailers = trailers;
                self.finish(status)
            }
        }
    }

    fn finish(&mut self, status: Option<Status>) -> Result<(), Status> {
        let ended = match status {
            Some(Status { code: Code::Ok, .. }) => Ok(()),
            Some(status) => Err(status),
            None => Err(Status::new(
                Code::Unknown,
                format!(
                    "no grpc-status (HTTP status {:?})",
                    self.head.as_ref().map(|head| head.0)
                ),
            )),
        };
        self.ended = Some(ended);
        Ok(())
    }

    /// How the calls of a broken connection or a reset stream end; the text begins with "transport:".
    pub fn transport_error(error: &h2::Error) -> Status {
        Status::new(Code::Unavailable, format!("transport: {error}"))
    }
}
