//! Header blocks of a client's calls. The fields of a method join the server's table with its first call; later calls are
//! a byte for each field.
//!
//! The table never evicts: what does not fit stays a literal. So an entry's index changes only when another is added, and a
//! method's block is encoded anew only then.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::hpack::{
    DYNAMIC_TABLE_BYTES_DEFAULT, FIELD_OVERHEAD_BYTES, STATIC_TABLE, encode_field, encode_indexed, encode_integer,
};

/// A method of one client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodId(pub(super) usize);

type OwnedField = (Box<str>, Box<[u8]>);

#[derive(Default)]
pub(super) struct Blocks {
    methods: Vec<Method>,
    /// What the server's table holds, oldest first.
    table: Vec<OwnedField>,
    table_bytes: usize,
    /// The server wants a smaller table than the default: we use none, and say so once.
    literals_only: bool,
}

struct Method {
    fields: Vec<OwnedField>,
    /// Its block, and for how many entries of the table it holds.
    block: Bytes,
    block_table_len: usize,
}

const UNENCODED: usize = usize::MAX;

impl Blocks {
    pub fn add(&mut self, fields: Vec<OwnedField>) -> MethodId {
        self.methods.push(Method {
            fields,
            block: Bytes::new(),
            block_table_len: UNENCODED,
        });
        MethodId(self.methods.len() - 1)
    }

    /// The block of a call.
    #[inline]
    pub fn block(&mut self, method: MethodId, peer_table_bytes: u32, output: &mut BytesMut) {
        if !self.literals_only && (peer_table_bytes as usize) < DYNAMIC_TABLE_BYTES_DEFAULT {
            self.literals_only = true;
            self.table.clear();
            for method in &mut self.methods {
                method.block_table_len = UNENCODED;
            }
            // A size update to 0 (RFC 7541 section 6.3).
            output.put_u8(0x20);
        }
        let known = &self.methods[method.0];
        if known.block_table_len == self.table.len() {
            output.extend_from_slice(&known.block);
            return;
        }
        self.encode(method, output);
    }

    #[cold]
    fn encode(&mut self, method: MethodId, output: &mut BytesMut) {
        let before = self.table.len();
        let mut block = BytesMut::new();
        let fields = std::mem::take(&mut self.methods[method.0].fields);
        for (name, value) in &fields {
            self.encode_field(name, value, &mut block);
        }
        output.extend_from_slice(&block);
        let method = &mut self.methods[method.0];
        method.fields = fields;
        if self.table.len() == before {
            method.block = block.freeze();
            method.block_table_len = before;
        }
    }

    fn encode_field(&mut self, name: &str, value: &[u8], block: &mut BytesMut) {
        let is_static = STATIC_TABLE
            .iter()
            .any(|(static_name, static_value)| *static_name == name && static_value.as_bytes() == value);
        if is_static || self.literals_only {
            return encode_field(name, value, block);
        }
        let found = self.table.iter().position(|(n, v)| &**n == name && &**v == value);
        if let Some(position) = found {
            return encode_indexed(STATIC_TABLE.len() + self.table.len() - position, block);
        }
        let size = name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        if self.table_bytes + size > DYNAMIC_TABLE_BYTES_DEFAULT {
            return encode_field(name, value, block);
        }
        self.table_bytes += size;
        self.table.push((name.into(), value.into()));
        block.put_u8(0x40);
        for text in [name.as_bytes(), value] {
            encode_integer(text.len(), 7, 0, block);
            block.extend_from_slice(text);
        }
    }
}
