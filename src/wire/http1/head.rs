//! A request's line and fields (RFC 9112 sections 2 to 6).

use super::HttpError;
use crate::wire::{
    grpc::{Metadata, MetadataBuilder},
    http2::parse_content_length,
};

/// What comes behind a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method as sent.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `Host`, or the authority of an absolute target; empty if there is none.
    pub authority: String,
    /// The fields, names in lower case.
    pub headers: Metadata,
    /// HTTP/1.1, not 1.0.
    pub is_version_11: bool,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// What follows.
    pub body: BodyKind,
}

/// Reads a head from the front of `input`; with it its length in bytes. `None`: it is not whole.
pub fn parse_head(input: &[u8], head_bytes_max: usize) -> Result<Option<(Head, usize)>, HttpError> {
    let Some(len) = head_len(input) else {
        return if input.len() > head_bytes_max {
            Err(HttpError::HeadTooLarge)
        } else {
            Ok(None)
        };
    };
    if len > head_bytes_max {
        return Err(HttpError::HeadTooLarge);
    }
    let mut lines = input[..len].split(|byte| *byte == b'\n').map(without_cr);
    // Empty lines in front are the end of a sloppy body before (section 2.2).
    let request_line = lines.find(|line| !line.is_empty()).ok_or(HttpError::Malformed)?;
    let (method, target, is_version_11) = parse_request_line(request_line)?;
    let mut fields = Fields {
        keep_alive: is_version_11,
        ..Fields::default()
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        fields.add(line)?;
    }
    let (target, target_authority) = split_target(&method, target)?;
    let authority = match (target_authority, fields.host) {
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        // Section 3.2.
        (None, None) if is_version_11 => return Err(HttpError::Malformed),
        (None, None) => String::new(),
    };
    let body = match (fields.is_chunked, fields.content_length) {
        (true, None) if is_version_11 => BodyKind::Chunked,
        (true, _) => return Err(HttpError::Malformed),
        (false, length) => BodyKind::Length(length.unwrap_or(0)),
    };
    let head = Head {
        method,
        target,
        authority,
        headers: fields.all.build(&Metadata::default()),
        is_version_11,
        keep_alive: fields.keep_alive,
        expects_continue: fields.expects_continue && is_version_11,
        body,
    };
    Ok(Some((head, len)))
}

/// Bytes up to and including the empty line that ends the head.
fn head_len(input: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    let mut line_seen = false;
    for (position, _) in input.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let is_empty = without_cr(&input[line_start..position]).is_empty();
        if is_empty && line_seen {
            return Some(position + 1);
        }
        line_seen |= !is_empty;
        line_start = position + 1;
    }
    None
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn parse_request_line(line: &[u8]) -> Result<(String, String, bool), HttpError> {
    let text = std::str::from_utf8(line).map_err(|_| HttpError::Malformed)?;
    let mut words = text.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HttpError::Malformed);
    };
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() || !target.bytes().all(is_target) {
        return Err(HttpError::Malformed);
    }
    let is_version_11 = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some(b"1.1") => true,
        Some(b"1.0") => false,
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(HttpError::UnknownVersion);
        }
        _ => return Err(HttpError::Malformed),
    };
    Ok((method.to_owned(), target.to_owned(), is_version_11))
}

/// The path and query of a target, and its authority if it is in absolute form (section 3.2.2).
fn split_target(method: &str, target: String) -> Result<(String, Option<String>), HttpError> {
    if method == "CONNECT" {
        return Err(HttpError::NotImplemented);
    }
    if target.starts_with('/') || target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| {
            let (front, rest) = target.split_at_checked(scheme.len())?;
            front.eq_ignore_ascii_case(scheme).then_some(rest)
        })
        .ok_or(HttpError::Malformed)?;
    let path_start = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_start);
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    Ok((path, Some(authority.to_owned())))
}

#[derive(Default)]
struct Fields {
    all: MetadataBuilder,
    host: Option<String>,
    content_length: Option<u64>,
    is_chunked: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), HttpError> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(HttpError::Malformed)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // This also refuses folded lines, which begin with a space (section 5.2).
        if name.is_empty() || !name.iter().copied().all(is_token) || !value.iter().copied().all(is_value) {
            return Err(HttpError::Malformed);
        }
        let name = name.to_ascii_lowercase();
        match &name[..] {
            b"host" => {
                let host = std::str::from_utf8(value).map_err(|_| HttpError::Malformed)?;
                if self.host.replace(host.to_owned()).is_some() {
                    return Err(HttpError::Malformed);
                }
            }
            b"content-length" => {
                let length = parse_content_length(value).ok_or(HttpError::Malformed)?;
                if self
                    .content_length
                    .replace(length)
                    .is_some_and(|before| before != length)
                {
                    return Err(HttpError::Malformed);
                }
            }
            b"transfer-encoding" => {
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HttpError::NotImplemented);
                }
                self.is_chunked = true;
            }
            b"connection" => self.connection(value),
            b"expect" => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HttpError::UnknownExpectation);
                }
                self.expects_continue = true;
            }
            _ => {}
        }
        self.all.push(&name, value);
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.keep_alive = false;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            }
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

fn is_value(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}
