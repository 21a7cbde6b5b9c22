//! What a server's blocks say, and the status that follows from them.

use crate::wire::{
    grpc::{self, ContentType, Metadata, MetadataBuilder, percent_decode},
    hpack::{Field, FieldSink, Token},
    http1::reason_phrase,
    http2::{BlockKind, BlockSink, ErrorCode},
    status::{Code, Status},
};

/// The block being read.
#[derive(Default)]
pub(super) struct ResponseHead {
    http_status: u16,
    is_grpc: bool,
    grpc_status: Option<u32>,
    grpc_message: Vec<u8>,
    metadata: MetadataBuilder,
    last_metadata: Metadata,
}

impl BlockSink for ResponseHead {
    fn begin(&mut self, _kind: BlockKind) {
        self.http_status = 0;
        self.is_grpc = false;
        self.grpc_status = None;
        self.grpc_message.clear();
        self.metadata.clear();
    }
}

impl FieldSink for ResponseHead {
    #[inline]
    fn field(&mut self, field: Field<'_>) {
        match field.token {
            Token::Status => self.http_status = number(field.value).unwrap_or(0) as u16,
            Token::ContentType => self.is_grpc = matches!(grpc::content_type(field.value), ContentType::Grpc(_)),
            Token::GrpcStatus => self.grpc_status = Some(number(field.value).unwrap_or(Code::Unknown as u32)),
            Token::GrpcMessage => {
                self.grpc_message.clear();
                self.grpc_message.extend_from_slice(field.value);
            }
            _ => self.metadata.push(field.name, field.value),
        }
    }
}

impl ResponseHead {
    /// A response that is not gRPC's.
    pub fn refusal(&self) -> Option<Status> {
        if self.http_status == 200 && self.is_grpc {
            return None;
        }
        if self.grpc_status.is_some() {
            return Some(self.status());
        }
        let code = match self.http_status {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        let (number, words) = (self.http_status, reason_phrase(self.http_status));
        Some(Status::new(
            code,
            format!("unexpected HTTP status code received from server: {number} ({words})"),
        ))
    }

    /// The status in the trailers, or in a head that is all there is.
    pub fn status(&self) -> Status {
        match self.grpc_status {
            Some(0) => Status::OK,
            Some(number) => Status::new(code(number), percent_decode(&self.grpc_message)),
            None => Status::new(Code::Internal, "server ended the call without a status"),
        }
    }

    /// The custom fields.
    pub fn metadata(&mut self) -> Metadata {
        let metadata = self.metadata.build(&self.last_metadata);
        self.last_metadata = metadata.clone();
        metadata
    }
}

/// What a reset stands for (gRPC over HTTP/2, "Errors").
pub(super) fn reset_status(code: ErrorCode) -> Status {
    let class = match code {
        ErrorCode::RefusedStream => Code::Unavailable,
        ErrorCode::Cancel => Code::Canceled,
        ErrorCode::EnhanceYourCalm => Code::ResourceExhausted,
        ErrorCode::InadequateSecurity => Code::PermissionDenied,
        _ => Code::Internal,
    };
    Status::new(
        class,
        format!("stream terminated by RST_STREAM with error code: {code:?}"),
    )
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn code(number: u32) -> Code {
    const CODES: [Code; 17] = [
        Code::Ok,
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
    CODES.get(number as usize).copied().unwrap_or(Code::Unknown)
}
