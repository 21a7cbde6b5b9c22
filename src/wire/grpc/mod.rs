//! gRPC over HTTP/2: message framing, metadata, timeouts, statuses and their texts. Knows nothing of streams or services.
//! Texts are grpc-go's, since that is what etcd's clients have always seen.

mod deframer;
mod metadata;
mod text;
mod timeout;

pub use deframer::{Deframer, SHARED_MESSAGE_BYTES_MIN, SmallMessages, fuzz_grpc};
pub use metadata::{Metadata, MetadataBuilder, MetadataIter, base64_decode, base64_encode};
pub use text::{
    ContentType, content_type, decoder_missing, go_quoted, invalid_content_type, malformed_method, method_not_post,
    percent_decode, percent_encode, split_path, unknown_method, unknown_service,
};
pub use timeout::{TimeoutError, encode_timeout, parse_timeout};

/// Bytes in front of each message: the compressed flag and the length.
pub const MESSAGE_PREFIX_BYTES: usize = 5;

#[cfg(test)]
mod tests;
