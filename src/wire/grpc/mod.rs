//! gRPC over HTTP/2: message framing, metadata, timeouts, statuses and their texts. Knows nothing of streams.

/// Custom metadata of a call, or header fields of a request: names in lower case, in the order sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    packed: Option<Box<[u8]>>,
}

impl Metadata {
    /// First value of `name`, if it is text.
    pub fn text(&self, name: &str) -> Option<&str>;
    /// First value of `name` (ending in `-bin`), decoded from base64.
    pub fn binary(&self, name: &str) -> Option<Vec<u8>>;
    /// Fields in order.
    pub fn iter(&self) -> MetadataIter<'_>;
}
