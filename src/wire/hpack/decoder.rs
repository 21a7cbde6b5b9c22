//! Header blocks to fields (RFC 7541 sections 3 and 6).

use super::{
    FIELD_OVERHEAD_BYTES, Field, FieldSink, Token, huffman, integer,
    table::{DynamicTable, static_field},
};

/// What is wrong with a block. All of them end the connection with COMPRESSION_ERROR: the tables of the two ends may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// An integer is larger than any we accept.
    IntegerOverflow,
    /// Index 0, or beyond both tables.
    UnknownIndex,
    /// The table's size changes behind the first field, thrice, or to more than SETTINGS allow.
    TableSizeUpdate,
    /// A Huffman code holds the EOS symbol.
    HuffmanEos,
    /// A Huffman code ends in something other than fewer than eight ones.
    HuffmanPadding,
}

/// How a block that could be read went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every field went to the sink.
    Complete,
    /// The fields exceed the limit: those from the first that did not fit on were decoded, for the table's sake, and
    /// dropped.
    TooLarge,
}

/// The decoder of one direction of a connection.
pub struct Decoder {
    table: DynamicTable,
    table_bytes_max: usize,
    table_changes: u64,
    name_scratch: Vec<u8>,
    value_scratch: Vec<u8>,
}

const STATIC_ENTRIES: usize = 61;
/// Scratch memory that a connection keeps; a rare huge field is not paid for ever.
const SCRATCH_BYTES_KEPT: usize = 8192;

impl Decoder {
    /// A decoder whose table may have up to `table_bytes_max` bytes (our SETTINGS_HEADER_TABLE_SIZE, at most 65,535).
    pub fn new(table_bytes_max: usize) -> Decoder {
        // Lengths of entries are kept in 16 bits.
        assert!(table_bytes_max <= usize::from(u16::MAX));
        Decoder {
            table: DynamicTable::new(table_bytes_max),
            table_bytes_max,
            table_changes: 0,
            name_scratch: Vec::new(),
            value_scratch: Vec::new(),
        }
    }

    /// Decodes a whole block. At most `list_bytes_max` bytes of fields (with their overhead) reach the sink.
    pub fn decode(
        &mut self,
        block: &[u8],
        list_bytes_max: usize,
        sink: &mut impl FieldSink,
    ) -> Result<Outcome, HpackError> {
        let mut rest = self.table_size_updates(block)?;
        let mut left = list_bytes_max;
        let mut outcome = Outcome::Complete;
        while let Some(&first) = rest.first() {
            let field = if first & 0x80 != 0 {
                let index = integer::decode(&mut rest, 7)?;
                indexed(&self.table, index)?
            } else {
                self.literal(first, &mut rest)?
            };
            let size = field.name.len() + field.value.len() + FIELD_OVERHEAD_BYTES;
            if outcome == Outcome::Complete && size <= left {
                left -= size;
                sink.field(field);
            } else {
                outcome = Outcome::TooLarge;
            }
        }
        self.name_scratch.shrink_to(SCRATCH_BYTES_KEPT);
        self.value_scratch.shrink_to(SCRATCH_BYTES_KEPT);
        Ok(outcome)
    }

    /// How often the table has changed: between two equal numbers, a block means the same.
    pub fn table_changes(&self) -> u64 {
        self.table_changes
    }

    /// Size of the dynamic table now, in bytes as section 4.1 counts them.
    pub fn table_bytes(&self) -> usize {
        self.table.size()
    }

    /// Size updates stand at the beginning of a block, two at the most: the lowest and the last (section 4.2).
    fn table_size_updates<'b>(&mut self, mut block: &'b [u8]) -> Result<&'b [u8], HpackError> {
        let mut updates = 0;
        while let Some(0x20..=0x3f) = block.first() {
            let size = integer::decode(&mut block, 5)? as usize;
            updates += 1;
            if updates > 2 || size > self.table_bytes_max {
                return Err(HpackError::TableSizeUpdate);
            }
            self.table.resize(size);
            self.table_changes += 1;
        }
        Ok(block)
    }

    /// A literal field (section 6.2), which may join the table.
    fn literal<'s, 'b: 's>(&'s mut self, first: u8, rest: &mut &'b [u8]) -> Result<Field<'s>, HpackError> {
        let (prefix_bits, joins_table) = match first {
            0x40..=0x7f => (6, true),
            0x20..=0x3f => return Err(HpackError::TableSizeUpdate),
            _ => (4, false),
        };
        let name_index = integer::decode(rest, prefix_bits)?;
        let (token, name_valid, name) = if name_index == 0 {
            let name = string(rest, &mut self.name_scratch)?;
            (Token::of(name), is_valid_name(name), name)
        } else if name_index as usize <= STATIC_ENTRIES {
            let named = static_field(name_index as usize);
            (named.token, true, named.name)
        } else {
            // Copied, since the insertion that uses a name may evict the entry that it comes from (section 4.4).
            let named = indexed(&self.table, name_index)?;
            self.name_scratch.clear();
            self.name_scratch.extend_from_slice(named.name);
            (named.token, named.name_valid, &self.name_scratch[..])
        };
        let value = string(rest, &mut self.value_scratch)?;
        let field = Field {
            token,
            name_valid,
            value_valid: is_valid_value(value),
            name,
            value,
        };
        if joins_table {
            self.table.insert(field);
            self.table_changes += 1;
        }
        Ok(field)
    }
}

#[inline]
fn indexed(table: &DynamicTable, index: u32) -> Result<Field<'_>, HpackError> {
    match index as usize {
        0 => Err(HpackError::UnknownIndex),
        index @ 1..=STATIC_ENTRIES => Ok(static_field(index)),
        index => table.field(index - STATIC_ENTRIES - 1).ok_or(HpackError::UnknownIndex),
    }
}

/// Reads a string literal (section 5.2).
#[inline]
fn string<'s, 'b: 's>(rest: &mut &'b [u8], scratch: &'s mut Vec<u8>) -> Result<&'s [u8], HpackError> {
    let is_huffman = rest.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer::decode(rest, 7)? as usize;
    let (text, after) = rest.split_at_checked(len).ok_or(HpackError::Truncated)?;
    *rest = after;
    if !is_huffman {
        return Ok(text);
    }
    scratch.clear();
    huffman::decode(text, scratch)?;
    Ok(scratch)
}

/// RFC 9113 section 8.2.1: no controls, space, upper case, DEL or above; a colon only at the front.
fn is_valid_name(name: &[u8]) -> bool {
    let Some((&first, rest)) = name.split_first() else {
        return false;
    };
    (first == b':' && !rest.is_empty() || NAME_BYTES[usize::from(first)])
        && rest
            .iter()
            .fold(true, |valid, byte| valid & NAME_BYTES[usize::from(*byte)])
}

/// RFC 9113 section 8.2.1: no NUL, CR or LF, no space at either end; and no other control, as RFC 9110 has it.
fn is_valid_value(value: &[u8]) -> bool {
    let (Some(first), Some(last)) = (value.first(), value.last()) else {
        return true;
    };
    !matches!(first, b' ' | b'\t')
        && !matches!(last, b' ' | b'\t')
        && value.iter().fold(true, |valid, &byte| {
            valid & ((byte >= b' ' && byte != 0x7f) || byte == b'\t')
        })
}

static NAME_BYTES: [bool; 256] = name_bytes();

const fn name_bytes() -> [bool; 256] {
    let mut valid = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let c = byte as u8;
        valid[byte] = c != b':' && !c.is_ascii_uppercase();
        byte += 1;
    }
    valid
}
