//! The field names that a server or client of gRPC looks at, told apart once so that nobody compares strings again.

/// A field's name, as far as anybody here cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Token {
    /// `:authority`
    Authority,
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:scheme`
    Scheme,
    /// `:status`
    Status,
    /// Any other name that begins with a colon.
    OtherPseudo,
    /// `content-type`
    ContentType,
    /// `content-length`
    ContentLength,
    /// `host`
    Host,
    /// `te`
    Te,
    /// `user-agent`
    UserAgent,
    /// `grpc-timeout`
    GrpcTimeout,
    /// `grpc-encoding`
    GrpcEncoding,
    /// `grpc-status`
    GrpcStatus,
    /// `grpc-message`
    GrpcMessage,
    /// A name that only means something between neighbours of an HTTP/1.1 connection (RFC 9113 section 8.2.2).
    ConnectionSpecific,
    /// Anything else.
    Other,
}

impl Token {
    /// The token of a name in lower case.
    pub fn of(name: &[u8]) -> Token {
        match name {
            [b':', rest @ ..] => match rest {
                b"authority" => Token::Authority,
                b"method" => Token::Method,
                b"path" => Token::Path,
                b"scheme" => Token::Scheme,
                b"status" => Token::Status,
                _ => Token::OtherPseudo,
            },
            b"te" => Token::Te,
            b"host" => Token::Host,
            b"user-agent" => Token::UserAgent,
            b"content-type" => Token::ContentType,
            b"content-length" => Token::ContentLength,
            b"grpc-timeout" => Token::GrpcTimeout,
            b"grpc-encoding" => Token::GrpcEncoding,
            b"grpc-status" => Token::GrpcStatus,
            b"grpc-message" => Token::GrpcMessage,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Token::ConnectionSpecific
            }
            _ => Token::Other,
        }
    }

    /// Whether the name begins with a colon.
    pub fn is_pseudo(self) -> bool {
        (self as u8) <= (Token::OtherPseudo as u8)
    }
}
