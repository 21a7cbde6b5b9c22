//! The static table (RFC 7541 appendix A) and the peer's dynamic table (section 2.3.2).
//!
//! The dynamic table keeps its texts end to end in one buffer, oldest first, and its entries in a ring beside it:
//!
//! ```text
//! texts    [..dead..|name value|name value|name value]      entries: newest is index 62
//!                    ^ oldest live           ^ newest
//! ```
//!
//! An insertion appends; when as much is dead as alive, the live part moves to the front. So an insertion costs a
//! copy of its own bytes and, amortised, as much again, and no allocation once the buffer has grown to twice the
//! table's size.

use std::collections::VecDeque;

use super::{FIELD_OVERHEAD_BYTES, Field, Token};

/// A dynamic table's size unless SETTINGS say otherwise, in bytes as section 4.1 counts them.
pub const DYNAMIC_TABLE_BYTES_DEFAULT: usize = 4096;

struct Entry {
    start: u32,
    name_len: u16,
    value_len: u16,
    token: Token,
    name_valid: bool,
    value_valid: bool,
}

/// The dynamic table of one direction.
pub struct DynamicTable {
    entries: VecDeque<Entry>,
    texts: Vec<u8>,
    size: usize,
    size_max: usize,
}

impl DynamicTable {
    /// An empty table that may grow to `size_max` bytes.
    pub fn new(size_max: usize) -> DynamicTable {
        DynamicTable {
            entries: VecDeque::new(),
            texts: Vec::new(),
            size: 0,
            size_max,
        }
    }

    /// The entry at `index`, where 0 is the newest.
    #[inline]
    pub fn field(&self, index: usize) -> Option<Field<'_>> {
        let position = self.entries.len().checked_sub(index + 1)?;
        let entry = &self.entries[position];
        let text = &self.texts[entry.start as usize..];
        let (name, rest) = text.split_at(usize::from(entry.name_len));
        Some(Field {
            token: entry.token,
            name_valid: entry.name_valid,
            value_valid: entry.value_valid,
            name,
            value: &rest[..usize::from(entry.value_len)],
        })
    }

    /// Adds an entry and evicts the oldest ones until it fits; one that is larger than the table empties it.
    pub fn insert(&mut self, field: Field<'_>) {
        let size = field.name.len() + field.value.len() + FIELD_OVERHEAD_BYTES;
        if size > self.size_max {
            self.evict_to(0);
            return;
        }
        self.evict_to(self.size_max - size);
        self.compact();
        self.entries.push_back(Entry {
            start: self.texts.len() as u32,
            name_len: field.name.len() as u16,
            value_len: field.value.len() as u16,
            token: field.token,
            name_valid: field.name_valid,
            value_valid: field.value_valid,
        });
        self.texts.extend_from_slice(field.name);
        self.texts.extend_from_slice(field.value);
        self.size += size;
    }

    /// Changes the size and evicts what no longer fits.
    pub fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict_to(size_max);
        self.compact();
    }

    /// Present size in bytes as section 4.1 counts them.
    pub fn size(&self) -> usize {
        self.size
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else { return };
            self.size -= usize::from(entry.name_len) + usize::from(entry.value_len) + FIELD_OVERHEAD_BYTES;
        }
    }

    fn compact(&mut self) {
        let live_start = self
            .entries
            .front()
            .map_or(self.texts.len(), |entry| entry.start as usize);
        if live_start == 0 || live_start < self.texts.len() - live_start {
            return;
        }
        self.texts.drain(..live_start);
        for entry in &mut self.entries {
            entry.start -= live_start as u32;
        }
    }
}

/// The static entry at `index` (1 to 61), as a field.
#[inline]
pub fn static_field(index: usize) -> Field<'static> {
    let (name, value) = STATIC_TABLE[index - 1];
    Field {
        token: STATIC_TOKENS[index - 1],
        name_valid: true,
        value_valid: true,
        name: name.as_bytes(),
        value: value.as_bytes(),
    }
}

static STATIC_TOKENS: [Token; 61] = static_tokens();

const fn static_tokens() -> [Token; 61] {
    let mut tokens = [Token::Other; 61];
    tokens[0] = Token::Authority;
    tokens[1] = Token::Method;
    tokens[2] = Token::Method;
    tokens[3] = Token::Path;
    tokens[4] = Token::Path;
    tokens[5] = Token::Scheme;
    tokens[6] = Token::Scheme;
    let mut index = 7;
    while index < 14 {
        tokens[index] = Token::Status;
        index += 1;
    }
    tokens[27] = Token::ContentLength;
    tokens[30] = Token::ContentType;
    tokens[37] = Token::Host;
    tokens[56] = Token::ConnectionSpecific;
    tokens[57] = Token::UserAgent;
    tokens
}

/// RFC 7541 appendix A; index 1 stands first.
pub static STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
