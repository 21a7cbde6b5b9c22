//! A database file as plain memory: read whole, or received from elsewhere.

use std::io;

use bytes::Bytes;

use crate::host::Map;

/// A file's bytes, which nobody changes.
#[derive(Clone, Debug)]
pub struct Image(Bytes);

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Image {
        Image(Bytes::from(bytes))
    }
}

impl From<Bytes> for Image {
    fn from(bytes: Bytes) -> Image {
        Image(bytes)
    }
}

impl Map for Image {
    fn capacity(&self) -> u64 {
        self.0.len() as u64
    }

    fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let offset = usize::try_from(offset).expect("an offset within memory");
        &self.0[offset..offset + len]
    }

    fn populate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}
