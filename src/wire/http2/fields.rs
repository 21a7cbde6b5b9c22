//! Whether a block's fields make a well-formed message (RFC 9113 sections 8.1 to 8.3).

use crate::wire::hpack::{Field, FieldSink, Token};

/// What a block is, by where it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// The first block of a client's stream.
    Request,
    /// A block of a server's answer up to and including the one that is not informational.
    Response,
    /// The block behind the content.
    Trailers,
}

/// Checks fields on their way to another sink.
pub(super) struct Checked<'s, S> {
    kind: BlockKind,
    sink: &'s mut S,
    seen: u8,
    regular_seen: bool,
    malformed: bool,
    informational: bool,
    content_length: Option<u64>,
}

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const PATH: u8 = 4;
const AUTHORITY: u8 = 8;
const STATUS: u8 = 16;

/// What the check found out.
#[derive(Default)]
pub(super) struct Verdict {
    pub malformed: bool,
    /// More fields than we take; set by whoever decoded the block.
    pub too_large: bool,
    /// A response with a 1xx status, which another one follows.
    pub informational: bool,
    pub content_length: Option<u64>,
}

impl<'s, S: FieldSink> Checked<'s, S> {
    pub fn new(kind: BlockKind, sink: &'s mut S) -> Checked<'s, S> {
        Checked {
            kind,
            sink,
            seen: 0,
            regular_seen: false,
            malformed: false,
            informational: false,
            content_length: None,
        }
    }

    pub fn verdict(self) -> Verdict {
        let required = match self.kind {
            // CONNECT has neither scheme nor path and is malformed here: nobody tunnels through this server.
            BlockKind::Request => METHOD | SCHEME | PATH,
            BlockKind::Response => STATUS,
            BlockKind::Trailers => 0,
        };
        Verdict {
            malformed: self.malformed || self.seen & required != required,
            too_large: false,
            informational: self.informational,
            content_length: self.content_length,
        }
    }

    fn pseudo(&mut self, field: &Field<'_>) {
        let (bit, kind) = match field.token {
            Token::Method => (METHOD, BlockKind::Request),
            Token::Scheme => (SCHEME, BlockKind::Request),
            Token::Path => (PATH, BlockKind::Request),
            Token::Authority => (AUTHORITY, BlockKind::Request),
            Token::Status => (STATUS, BlockKind::Response),
            _ => (0, BlockKind::Trailers),
        };
        // Pseudo-fields come first, once, and only those of the message's kind (section 8.3).
        let misplaced = bit == 0 || kind != self.kind || self.regular_seen || self.seen & bit != 0;
        let empty = matches!(field.token, Token::Path | Token::Method) && field.value.is_empty();
        self.malformed |= misplaced || empty;
        self.seen |= bit;
        if field.token == Token::Status {
            self.informational = field.value.first() == Some(&b'1');
            self.malformed |= field.value.len() != 3 || !field.value.iter().all(u8::is_ascii_digit);
        }
    }

    fn content_length(&mut self, value: &[u8]) {
        let length = parse_content_length(value);
        let differs = self.content_length.is_some() && self.content_length != length;
        self.malformed |= length.is_none() || differs;
        self.content_length = length;
    }
}

impl<S: FieldSink> FieldSink for Checked<'_, S> {
    #[inline]
    fn field(&mut self, field: Field<'_>) {
        self.malformed |= !field.name_valid || !field.value_valid;
        if field.token.is_pseudo() {
            self.pseudo(&field);
        } else {
            self.regular_seen = true;
            match field.token {
                Token::ConnectionSpecific => self.malformed = true,
                Token::Te => self.malformed |= !field.value.eq_ignore_ascii_case(b"trailers"),
                Token::ContentLength => self.content_length(field.value),
                _ => {}
            }
        }
        if !self.malformed {
            self.sink.field(field);
        }
    }
}

/// A decimal number of at most eighteen digits.
pub(crate) fn parse_content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0u64, |length, digit| {
        digit.is_ascii_digit().then(|| length * 10 + u64::from(digit - b'0'))
    })
}
