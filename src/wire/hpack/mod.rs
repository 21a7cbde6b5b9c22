//! HPACK (RFC 7541): header blocks to fields and back. Owns the peer's dynamic table; knows nothing of frames, of which
//! fields a request must have, or of what a field means beyond its [`Token`].
//!
//! Decoding hands each field to a [`FieldSink`] as slices of the block, the table or a scratch buffer: no field costs an
//! allocation. Encoding uses the static table and literals alone, so that a block can be encoded once and sent on any
//! connection.

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod table;
mod token;

pub use decoder::{Decoder, HpackError, Outcome};
pub use encoder::{encode_field, encode_indexed, encode_literal_with_static_name, encode_status};
pub use huffman::{decode as huffman_decode, encode as huffman_encode};
pub use integer::encode as encode_integer;
pub use table::{DYNAMIC_TABLE_BYTES_DEFAULT, STATIC_TABLE};
pub use token::Token;

/// What RFC 7541 section 4.1 adds to a field's name and value to get its size.
pub const FIELD_OVERHEAD_BYTES: usize = 32;

/// One decoded field, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What the name is, if it is one that we look at.
    pub token: Token,
    /// Whether the name has only characters that HTTP/2 allows (lower case; RFC 9113 section 8.2.1).
    pub name_valid: bool,
    /// Whether the value has only characters that HTTP/2 allows.
    pub value_valid: bool,
    /// The name.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Takes the fields of a block in order.
pub trait FieldSink {
    /// One field.
    fn field(&mut self, field: Field<'_>);
}

impl<F: FnMut(Field<'_>)> FieldSink for F {
    fn field(&mut self, field: Field<'_>) {
        self(field)
    }
}

/// Runs arbitrary bytes through a decoder with a small table, as several blocks; must not panic.
pub fn fuzz_hpack(input: &[u8]) {
    let mut decoder = Decoder::new(256);
    for block in input.split(|byte| *byte == 0xff) {
        let mut bytes = 0usize;
        let outcome = decoder.decode(block, 1024, &mut |field: Field<'_>| {
            bytes += field.name.len() + field.value.len() + FIELD_OVERHEAD_BYTES;
        });
        assert!(bytes <= 1024, "the list limit holds");
        if outcome.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
