//! Memory for direct writes outside the ring: a vector with its start moved to an aligned address. Invariant: the
//! vector is never grown, so that the address stays.

use crate::host::DIRECT_ALIGN;

/// Zeroed memory whose start is a multiple of [`DIRECT_ALIGN`].
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zero bytes.
    pub fn new(len: usize) -> AlignedBuffer {
        let memory = vec![0; len + DIRECT_ALIGN];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN);
        assert!(start < DIRECT_ALIGN);
        AlignedBuffer { memory, start, len }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for AlignedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_of_the_length_asked_for() {
        for len in [0, 1, 4096, 12288] {
            let mut buffer = AlignedBuffer::new(len);
            assert_eq!(buffer.as_ref().len(), len);
            assert_eq!(buffer.as_mut().as_ptr().align_offset(DIRECT_ALIGN), 0);
            assert!(buffer.as_ref().iter().all(|&byte| byte == 0));
        }
    }
}
