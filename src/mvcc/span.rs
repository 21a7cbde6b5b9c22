//! Which keys a request means: one, all from one on, or those of a half-open interval.

/// The keys of a request. Borrowed from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// The key, or the first key.
    pub start: &'a [u8],
    /// What else belongs to it.
    pub end: SpanEnd<'a>,
}

/// Where a [`Span`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanEnd<'a> {
    /// With the key itself.
    Single,
    /// Before this key. If it is not above the start, the span is empty.
    Before(&'a [u8]),
    /// With the last key there is.
    Open,
}

impl<'a> Span<'a> {
    /// One key.
    pub const fn key(key: &'a [u8]) -> Span<'a> {
        Span {
            start: key,
            end: SpanEnd::Single,
        }
    }

    /// All keys.
    pub const fn all() -> Span<'static> {
        Span {
            start: b"",
            end: SpanEnd::Open,
        }
    }

    /// The keys that `key` and `range_end` of a request mean: no end for one key, a single zero byte for all keys from
    /// `key` on.
    pub const fn from_request(key: &'a [u8], range_end: &'a [u8]) -> Span<'a> {
        let end = match range_end {
            [] => SpanEnd::Single,
            [0] => SpanEnd::Open,
            _ => SpanEnd::Before(range_end),
        };
        Span { start: key, end }
    }

    /// Whether `key` belongs to the span.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end {
            SpanEnd::Single => key == self.start,
            SpanEnd::Before(end) => key >= self.start && key < end,
            SpanEnd::Open => key >= self.start,
        }
    }

    /// Whether `key`, which is not below the start, lies behind the span.
    pub fn is_past(&self, key: &[u8]) -> bool {
        match self.end {
            SpanEnd::Single => key > self.start,
            SpanEnd::Before(end) => key >= end,
            SpanEnd::Open => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_end_of_a_request_is_read_as_etcd_reads_it() {
        assert!(Span::from_request(b"a", b"").contains(b"a"));
        assert!(!Span::from_request(b"a", b"").contains(b"a\0"));
        assert!(Span::from_request(b"a", b"\0").contains(b"zzz"));
        assert!(!Span::from_request(b"b", b"\0").contains(b"a"));
        assert!(Span::from_request(b"a", b"b").contains(b"az"));
        assert!(!Span::from_request(b"a", b"b").contains(b"b"));
        assert!(!Span::from_request(b"b", b"a").contains(b"b"));
        assert!(Span::from_request(b"\0", b"\0\0").contains(b"\0"));
    }
}
