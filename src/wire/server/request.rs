//! The head of a request over HTTP/2, gathered field by field without allocations: its buffers are used again, and what
//! calls of one connection have in common (path, metadata) is kept and shared.

use std::time::Duration;

use super::{HttpRequest, Path};
use crate::wire::{
    grpc::{self, ContentType, Metadata, MetadataBuilder, TimeoutError, base64_decode, go_quoted},
    hpack::{Field, FieldSink, Token},
    http2::{BlockKind, BlockSink},
    status::{Code, Status},
};

/// Paths that a connection remembers: clients use few.
const PATHS_KEPT: usize = 4;
/// What is longer is not remembered.
const PATH_BYTES_KEPT: usize = 256;
const METADATA_BYTES_KEPT: usize = 4096;
/// Memory that each buffer keeps from one request to the next.
const TEXT_BYTES_KEPT: usize = 1024;

/// The request whose block is being read.
#[derive(Default)]
pub(super) struct RequestHead {
    method: Vec<u8>,
    path: Vec<u8>,
    authority: Vec<u8>,
    content_type: Vec<u8>,
    encoding: Vec<u8>,
    timeout: Option<Result<Duration, TimeoutError>>,
    metadata: MetadataBuilder,
    broken_binary: Option<Status>,
    ignores: bool,
    /// The block says what the last request's did.
    repeated: bool,
    last_call: Option<(Path, Metadata, Option<Duration>)>,
    paths: Vec<Path>,
    path_victim: usize,
    last_metadata: Metadata,
    /// Of the latest request that said it.
    pub user_agent: Vec<u8>,
}

/// What a request's head amounts to.
pub(super) enum Request {
    Grpc {
        path: Path,
        metadata: Metadata,
        timeout: Option<Duration>,
        /// Behind `application/grpc` in the content type.
        subtype: Option<Box<str>>,
    },
    /// A call that is refused at once, with this HTTP status beside gRPC's.
    Refused {
        http_status: u16,
        status: Status,
    },
    Http(Box<HttpRequest>),
}

impl BlockSink for RequestHead {
    fn begin(&mut self, kind: BlockKind) {
        // Trailers of a request say nothing in gRPC.
        self.ignores = kind != BlockKind::Request;
        if self.ignores {
            return;
        }
        self.repeated = false;
        for text in [
            &mut self.method,
            &mut self.path,
            &mut self.authority,
            &mut self.content_type,
            &mut self.encoding,
        ] {
            text.clear();
            text.shrink_to(TEXT_BYTES_KEPT);
        }
        self.timeout = None;
        self.metadata.clear();
        self.broken_binary = None;
    }

    fn repeat(&mut self) -> bool {
        // The last request that was looked at, not the last block: one that was malformed does not count.
        self.repeated = self.last_call.is_some();
        self.repeated
    }
}

impl FieldSink for RequestHead {
    #[inline]
    fn field(&mut self, field: Field<'_>) {
        if self.ignores {
            return;
        }
        let text = match field.token {
            Token::Method => &mut self.method,
            Token::Path => &mut self.path,
            Token::Authority => &mut self.authority,
            Token::ContentType => &mut self.content_type,
            Token::GrpcEncoding => &mut self.encoding,
            Token::UserAgent => {
                if self.user_agent != field.value {
                    self.user_agent.clear();
                    self.user_agent.extend_from_slice(field.value);
                }
                return;
            }
            Token::Host => {
                if !self.authority.is_empty() {
                    return;
                }
                &mut self.authority
            }
            Token::GrpcTimeout => {
                self.timeout = Some(grpc::parse_timeout(field.value));
                return;
            }
            Token::Te | Token::Scheme | Token::GrpcStatus | Token::GrpcMessage => return,
            _ => {
                self.metadata.push(field.name, field.value);
                if field.name.ends_with(b"-bin") {
                    self.check_binary(field);
                }
                return;
            }
        };
        text.clear();
        text.extend_from_slice(field.value);
    }
}

impl RequestHead {
    /// What was gathered, in the order in which grpc-go finds fault with it.
    #[inline]
    pub fn request(&mut self) -> Request {
        if self.repeated
            && let Some((path, metadata, timeout)) = &self.last_call
        {
            return Request::Grpc {
                path: path.clone(),
                metadata: metadata.clone(),
                timeout: *timeout,
                subtype: None,
            };
        }
        self.last_call = None;
        let request = self.new_request();
        if let Request::Grpc {
            path,
            metadata,
            timeout,
            subtype: None,
        } = &request
        {
            self.last_call = Some((path.clone(), metadata.clone(), *timeout));
        }
        request
    }

    fn new_request(&mut self) -> Request {
        let subtype = match grpc::content_type(&self.content_type) {
            ContentType::Grpc("") => None,
            ContentType::Grpc(subtype) => Some(Box::from(subtype)),
            ContentType::GrpcMalformed => return refused(415, grpc::invalid_content_type(&self.content_type)),
            ContentType::Other => return Request::Http(Box::new(self.http_request())),
        };
        let timeout = match self.timeout.take() {
            None => None,
            Some(Ok(timeout)) => Some(timeout),
            Some(Err(error)) => {
                let text = format!("malformed grpc-timeout: {error}");
                return refused(400, Status::new(Code::Internal, text));
            }
        };
        if let Some(status) = self.broken_binary.take() {
            return refused(400, status);
        }
        if self.method != b"POST" {
            return refused(405, grpc::method_not_post(&self.method));
        }
        if timeout == Some(Duration::ZERO) {
            return refused(200, Status::new(Code::DeadlineExceeded, "context deadline exceeded"));
        }
        if !self.encoding.is_empty() && self.encoding != b"identity" {
            return refused(200, grpc::decoder_missing(&self.encoding));
        }
        let metadata = self.metadata.build(&self.last_metadata);
        if metadata.packed_len() <= METADATA_BYTES_KEPT {
            self.last_metadata = metadata.clone();
        }
        Request::Grpc {
            path: self.shared_path(),
            metadata,
            timeout,
            subtype,
        }
    }

    fn shared_path(&mut self) -> Path {
        if let Some(known) = self.paths.iter().find(|known| known.as_bytes() == self.path) {
            return known.clone();
        }
        let path = Path::new(&self.path);
        if self.path.len() > PATH_BYTES_KEPT {
            return path;
        }
        if self.paths.len() < PATHS_KEPT {
            self.paths.push(path.clone());
        } else {
            self.path_victim = (self.path_victim + 1) % PATHS_KEPT;
            self.paths[self.path_victim] = path.clone();
        }
        path
    }

    fn http_request(&mut self) -> HttpRequest {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !self.content_type.is_empty() {
            self.metadata.push(b"content-type", &self.content_type);
        }
        if !self.user_agent.is_empty() {
            self.metadata.push(b"user-agent", &self.user_agent);
        }
        HttpRequest {
            method: text(&self.method),
            target: text(&self.path),
            authority: text(&self.authority),
            headers: self.metadata.build(&Metadata::default()),
            body: bytes::Bytes::new(),
        }
    }

    fn check_binary(&mut self, field: Field<'_>) {
        if base64_decode(field.value).is_some() {
            return;
        }
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        let position = field
            .value
            .iter()
            .position(|byte| !is_digit(byte))
            .unwrap_or(field.value.len());
        self.broken_binary = Some(Status::new(
            Code::Internal,
            format!(
                "malformed binary metadata {} in header {}: illegal base64 data at input byte {position}",
                go_quoted(field.value),
                go_quoted(field.name)
            ),
        ));
    }
}

fn refused(http_status: u16, status: Status) -> Request {
    Request::Refused { http_status, status }
}
