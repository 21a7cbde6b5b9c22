//! Integers with a prefix (RFC 7541 section 5.1).

use bytes::{BufMut, BytesMut};

use super::HpackError;

/// Largest integer taken in. Far above any string that a block can hold, far below any overflow.
pub const INTEGER_MAX: u32 = 1 << 28;

/// Reads an integer whose first byte's low `prefix_bits` bits belong to it; `input` starts at that byte and is advanced.
#[inline]
pub fn decode(input: &mut &[u8], prefix_bits: u32) -> Result<u32, HpackError> {
    let (&first, rest) = input.split_first().ok_or(HpackError::Truncated)?;
    *input = rest;
    let mask = (1u32 << prefix_bits) - 1;
    let value = u32::from(first) & mask;
    if value < mask {
        return Ok(value);
    }
    decode_continued(input, value)
}

#[cold]
fn decode_continued(input: &mut &[u8], mut value: u32) -> Result<u32, HpackError> {
    let mut shift = 0;
    loop {
        let (&byte, rest) = input.split_first().ok_or(HpackError::Truncated)?;
        *input = rest;
        // Five groups of seven bits are enough for INTEGER_MAX; more can only be zeros in disguise or an overflow.
        if shift > 28 {
            return Err(HpackError::IntegerOverflow);
        }
        let group = u64::from(byte & 0x7f) << shift;
        let sum = u64::from(value) + group;
        if sum > u64::from(INTEGER_MAX) {
            return Err(HpackError::IntegerOverflow);
        }
        value = sum as u32;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
        shift += 7;
    }
}

/// Writes an integer; `pattern` holds the bits of the first byte above the prefix.
pub fn encode(value: usize, prefix_bits: u32, pattern: u8, output: &mut BytesMut) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        output.put_u8(pattern | value as u8);
        return;
    }
    output.put_u8(pattern | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        output.put_u8((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    output.put_u8(rest as u8);
}
