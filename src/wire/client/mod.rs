//! The other end of the same core: opens calls over one HTTP/2 connection (prior knowledge). Made for the load
//! generator, the simulator and the peers of a cluster; knows nothing of sockets, retries or services.

/// How a client connection behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Largest message taken in, in bytes.
    pub message_bytes_max: u32,
    /// Receive window of a stream, in bytes.
    pub stream_window_bytes: u32,
    /// Receive window of the connection, in bytes.
    pub connection_window_bytes: u32,
    /// `:authority` of every call.
    pub authority: String,
}

/// A method with its header block ready to be sent.
#[derive(Clone, Debug)]
pub struct Method {
    block: Bytes,
}

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A whole message of an answer.
    Message { stream: StreamId, message: Bytes },
    /// The call has ended; nothing follows for the stream.
    Finished { stream: StreamId, status: Status, metadata: Metadata },
    /// The connection takes no new calls; calls above `last_stream` were not looked at.
    GoAway { last_stream: StreamId, error: u32, debug: Bytes },
    /// A stream's queue has drained, or the peer allows more streams.
    Writable { stream: StreamId },
}

impl Method {
    /// Encodes `path` (`/package.Service/Method`) and custom metadata for the connections of `options`.
    pub fn new(options: &ClientOptions, path: &str, metadata: &[(&str, &str)]) -> Method;
}

impl ClientConnection {
    /// A connection whose preface and SETTINGS are in `output()`.
    pub fn new(options: ClientOptions, now: Monotonic) -> ClientConnection;
    /// Opens a call. None: the server allows no more streams now, or the connection ends.
    pub fn open(&mut self, method: &Method, timeout: Option<Duration>) -> Option<StreamId>;
    /// Opens a call, sends its only message and half-closes it.
    pub fn call(&mut self, method: &Method, timeout: Option<Duration>, message: impl Payload) -> Option<StreamId>;
    pub fn send_message(&mut self, stream: StreamId, message: impl Payload);
    pub fn half_close(&mut self, stream: StreamId);
    pub fn cancel(&mut self, stream: StreamId);
    pub fn receive(&mut self, input: &mut BytesMut, now: Monotonic);
    pub fn receive_end(&mut self);
    pub fn next_event(&mut self) -> Option<ClientEvent>;
    pub fn queued_bytes(&self, stream: StreamId) -> usize;
    pub fn output(&mut self) -> &mut BytesMut;
    pub fn calls_open(&self) -> usize;
    pub fn ping(&mut self);
    pub fn is_finished(&self) -> bool;
    pub fn next_deadline(&self) -> Option<Monotonic>;
    pub fn tick(&mut self, now: Monotonic);
}
