//! Fields to header blocks, without state: indexed entries of the static table and literals that join no table.

use bytes::{BufMut, BytesMut};

use super::{STATIC_TABLE, integer};

/// Appends an entry of the tables as it stands there: 1 to 61 is the static one.
pub fn encode_indexed(index: usize, output: &mut BytesMut) {
    debug_assert!(index > 0);
    integer::encode(index, 7, 0x80, output);
}

/// Appends a field whose name is that of a static entry.
pub fn encode_literal_with_static_name(static_index: usize, value: &[u8], output: &mut BytesMut) {
    debug_assert!((1..=STATIC_TABLE.len()).contains(&static_index));
    integer::encode(static_index, 4, 0x00, output);
    string(value, output);
}

/// Appends a field. The name must be in lower case; if it or the pair is in the static table, that is used.
pub fn encode_field(name: &str, value: &[u8], output: &mut BytesMut) {
    let mut name_index = None;
    for (position, (static_name, static_value)) in STATIC_TABLE.iter().enumerate() {
        if *static_name == name {
            if static_value.as_bytes() == value && !value.is_empty() {
                return encode_indexed(position + 1, output);
            }
            name_index.get_or_insert(position + 1);
        }
    }
    match name_index {
        Some(index) => encode_literal_with_static_name(index, value, output),
        None => {
            output.put_u8(0x00);
            string(name.as_bytes(), output);
            string(value, output);
        }
    }
}

/// Appends `:status` with a code of three digits.
pub fn encode_status(status: u16, output: &mut BytesMut) {
    assert!((100..=999).contains(&status));
    let digits = [
        b'0' + (status / 100) as u8,
        b'0' + (status / 10 % 10) as u8,
        b'0' + (status % 10) as u8,
    ];
    match status {
        200 => encode_indexed(8, output),
        204 => encode_indexed(9, output),
        206 => encode_indexed(10, output),
        304 => encode_indexed(11, output),
        400 => encode_indexed(12, output),
        404 => encode_indexed(13, output),
        500 => encode_indexed(14, output),
        _ => encode_literal_with_static_name(8, &digits, output),
    }
}

fn string(text: &[u8], output: &mut BytesMut) {
    integer::encode(text.len(), 7, 0x00, output);
    output.extend_from_slice(text);
}
