//! The Huffman code of RFC 7541 appendix B.
//!
//! The code is canonical: among symbols of one length, codes ascend with the symbol, and longer codes follow shorter ones.
//! So the lengths say everything, and both tables are made from them when the crate is compiled.
//!
//! Decoding looks at the next twelve bits at once. [`PAIRS`] says which one or two symbols they begin with, which covers
//! nearly all text; the rest (codes of 13 to 30 bits) are found by their length's range of codes.

use super::HpackError;

const LOOKUP_BITS: u32 = 12;
const EOS: usize = 256;
const CODE_BITS_MAX: usize = 30;

/// Appends the text that `input` encodes. Padding must be the first bits of EOS and shorter than a byte (section 5.2).
pub fn decode(input: &[u8], output: &mut Vec<u8>) -> Result<(), HpackError> {
    let start = output.len();
    // The shortest code has five bits; two more bytes because symbols are written in pairs.
    output.resize(start + input.len() * 8 / 5 + 2, 0);
    let result = decode_into(input, &mut output[start..]);
    output.truncate(start + *result.as_ref().unwrap_or(&0));
    result.map(|_| ())
}

fn decode_into(mut input: &[u8], output: &mut [u8]) -> Result<usize, HpackError> {
    let mut written = 0;
    // The bits not yet decoded, left-aligned; what is below `held` bits is zero.
    let mut bits: u64 = 0;
    let mut held: u32 = 0;
    loop {
        if let Some((word, rest)) = input.split_first_chunk() {
            bits |= u64::from(u32::from_be_bytes(*word)) << (32 - held);
            held += 32;
            input = rest;
        } else {
            for &byte in std::mem::take(&mut input) {
                bits |= u64::from(byte) << (56 - held);
                held += 8;
            }
        }
        // At the end of this loop at most 29 bits are held: room for a word.
        while held >= LOOKUP_BITS {
            let pair = PAIRS[(bits >> (64 - LOOKUP_BITS)) as usize];
            if pair == 0 {
                if held < CODE_BITS_MAX as u32 {
                    break;
                }
                let (symbol, len) = decode_long(bits)?;
                output[written] = symbol;
                written += 1;
                bits <<= len;
                held -= len;
                continue;
            }
            output[written..written + 2].copy_from_slice(&(pair as u16).to_le_bytes());
            written += pair_symbols(pair);
            bits <<= pair_bits(pair);
            held -= pair_bits(pair);
        }
        if input.is_empty() {
            return decode_tail(bits, held, output, written);
        }
    }
}

/// Decodes symbol by symbol until only padding is left.
fn decode_tail(mut bits: u64, mut held: u32, output: &mut [u8], mut written: usize) -> Result<usize, HpackError> {
    while held > 0 {
        // Ones behind the end make padding look like the beginning of EOS, which no symbol's code is.
        let padded = bits | (u64::MAX >> held);
        if padded == u64::MAX && held < 8 {
            return Ok(written);
        }
        let pair = PAIRS[(padded >> (64 - LOOKUP_BITS)) as usize];
        let (symbol, len) = if pair != 0 {
            (pair as u8, pair_first_bits(pair))
        } else {
            // EOS that is not whole is too much padding.
            let whole_eos = held >= CODE_BITS_MAX as u32;
            decode_long(padded).map_err(|error| if whole_eos { error } else { HpackError::HuffmanPadding })?
        };
        if len > held {
            // Not a whole symbol, so padding, and not all ones.
            return Err(HpackError::HuffmanPadding);
        }
        output[written] = symbol;
        written += 1;
        bits <<= len;
        held -= len;
    }
    Ok(written)
}

/// A symbol whose code is longer than the lookup's bits, and its length.
#[cold]
fn decode_long(bits: u64) -> Result<(u8, u32), HpackError> {
    for len in LOOKUP_BITS as usize + 1..=CODE_BITS_MAX {
        let code = (bits >> (64 - len)) as u32;
        let offset = code.wrapping_sub(CANON.first_code[len]);
        if offset < CANON.count[len] {
            let symbol = CANON.by_code[CANON.first_rank[len] as usize + offset as usize];
            return match u8::try_from(symbol) {
                Ok(symbol) => Ok((symbol, len as u32)),
                Err(_) => Err(HpackError::HuffmanEos),
            };
        }
    }
    Err(HpackError::HuffmanPadding)
}

/// Appends the encoding of `text`, padded with ones. The server never does; tests and fuzzers do.
pub fn encode(text: &[u8], output: &mut Vec<u8>) {
    let mut bits: u64 = 0;
    let mut held = 0;
    for &byte in text {
        let len = u32::from(LENGTHS[usize::from(byte)]);
        bits = (bits << len) | u64::from(CANON.codes[usize::from(byte)]);
        held += len;
        while held >= 8 {
            held -= 8;
            output.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        output.push(((bits << (8 - held)) | (0xff >> held)) as u8);
    }
}

/// What twelve bits begin with; 0 if not with a whole symbol:
///
/// ```text
/// | bits of the first symbol 8 | symbols (1 or 2) 3, bits of all 5 | second symbol 8 | first symbol 8 |
/// ```
static PAIRS: [u32; 1 << LOOKUP_BITS] = pairs();

const fn pair_bits(pair: u32) -> u32 {
    pair >> 16 & 31
}

const fn pair_symbols(pair: u32) -> usize {
    (pair >> 21 & 7) as usize
}

const fn pair_first_bits(pair: u32) -> u32 {
    pair >> 24
}

const fn pairs() -> [u32; 1 << LOOKUP_BITS] {
    let mut table = [0; 1 << LOOKUP_BITS];
    let mut symbol = 0;
    while symbol < EOS {
        let len = LENGTHS[symbol] as u32;
        if len <= LOOKUP_BITS {
            let spare = LOOKUP_BITS - len;
            let begin = (CANON_VALUE.codes[symbol] << spare) as usize;
            let mut index = begin;
            while index < begin + (1 << spare) {
                table[index] = len << 24 | 1 << 21 | len << 16 | symbol as u32;
                index += 1;
            }
        }
        symbol += 1;
    }
    let singles = table;
    let mut index = 0;
    while index < 1 << LOOKUP_BITS {
        let first = singles[index];
        if first != 0 {
            let second = singles[(index << pair_bits(first)) & ((1 << LOOKUP_BITS) - 1)];
            let bits = pair_bits(first) + pair_bits(second);
            if second != 0 && bits <= LOOKUP_BITS {
                table[index] = first & 0xff00_00ff | 2 << 21 | bits << 16 | (second & 0xff) << 8;
            }
        }
        index += 1;
    }
    table
}

/// The code by symbol, and by length.
struct Canon {
    codes: [u32; 257],
    /// Symbols in the order of their codes.
    by_code: [u16; 257],
    /// For each length: its first code, how many there are, and the rank of the first in `by_code`.
    first_code: [u32; CODE_BITS_MAX + 1],
    count: [u32; CODE_BITS_MAX + 1],
    first_rank: [u16; CODE_BITS_MAX + 1],
}

static CANON: Canon = CANON_VALUE;
const CANON_VALUE: Canon = canon();

const fn canon() -> Canon {
    let mut canon = Canon {
        codes: [0; 257],
        by_code: [0; 257],
        first_code: [0; CODE_BITS_MAX + 1],
        count: [0; CODE_BITS_MAX + 1],
        first_rank: [0; CODE_BITS_MAX + 1],
    };
    let mut code = 0u32;
    let mut rank = 0;
    let mut len = 1;
    while len <= CODE_BITS_MAX {
        code <<= 1;
        canon.first_code[len] = code;
        canon.first_rank[len] = rank as u16;
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol] as usize == len {
                canon.codes[symbol] = code;
                canon.by_code[rank] = symbol as u16;
                code += 1;
                rank += 1;
            }
            symbol += 1;
        }
        canon.count[len] = code - canon.first_code[len];
        len += 1;
    }
    assert!(rank == 257);
    // A complete code: the last one, EOS, is all ones.
    assert!(code == 1 << CODE_BITS_MAX);
    canon
}

/// Code lengths in bits, by symbol; the last is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
