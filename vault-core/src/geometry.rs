//! Offset arithmetic: FORMAT.md section 5. Where chunk i lies, which chunk holds byte p, how long the
//! plaintext of a payload is. Every sum is checked against the limits before it is used.

use crate::aead::TAG_LEN;
use crate::error::{Result, require};

/// Most chunks of a payload `[F-24]`.
pub const MAX_CHUNKS: u64 = 1 << 32;
/// Chunks under one key: FORMAT.md section 5.
pub const SEGMENT_BITS: u32 = 20;

/// Chunk arithmetic for one chunk size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    size: u32,
}

impl Chunking {
    /// For chunks of `size` bytes of plaintext.
    pub fn new(size: u32) -> Self {
        Self { size }
    }

    /// C: plaintext bytes of a full chunk.
    pub fn plain(self) -> usize {
        self.size as usize
    }

    /// C + 16: sealed bytes of a full chunk.
    pub fn sealed(self) -> usize {
        self.size as usize + TAG_LEN
    }

    /// Start of sealed chunk `i`, relative to the payload.
    pub fn sealed_offset(self, i: u64) -> u64 {
        i * self.sealed() as u64
    }

    /// The chunk that holds plaintext byte `p`, and where in it.
    pub fn locate(self, p: u64) -> (u64, usize) {
        let size = u64::from(self.size);
        (p / size, usize::try_from(p % size).unwrap_or(usize::MAX))
    }

    /// Lengths of a payload of `sealed_len` bytes `[F-23]` `[F-24]`.
    pub fn payload(self, sealed_len: u64) -> Result<Payload> {
        let step = self.sealed() as u64;
        let (full, last) = (sealed_len / step, sealed_len % step);
        require(last >= TAG_LEN as u64, 23, || {
            format!("the payload is cut off or extended: {sealed_len} bytes leave a last chunk of {last}")
        })?;
        require(full < MAX_CHUNKS, 24, || format!("{full} chunks; the limit is 2^32"))?;
        Ok(Payload { sealed_len, chunks: full + 1, plain_len: sealed_len - (full + 1) * TAG_LEN as u64 })
    }
}

/// Lengths of one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// Ciphertext bytes, tags included.
    pub sealed_len: u64,
    /// Chunks, the short last one included.
    pub chunks: u64,
    /// P: bytes of payload plaintext.
    pub plain_len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_at_a_chunk_edge_shows_in_the_length() {
        let c = Chunking::new(4096);
        for chunks in 1..5 {
            assert_eq!(c.payload(chunks * 4112).unwrap_err().rule().unwrap().0, 23);
            assert_eq!(c.payload(chunks * 4112 + 15).unwrap_err().rule().unwrap().0, 23);
            assert_eq!(c.payload(chunks * 4112 + 16).unwrap().plain_len, chunks * 4096);
        }
        assert!(c.payload(0).is_err() && c.payload(u64::MAX).is_err());
    }
}
