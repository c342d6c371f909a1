//! One chunk: FORMAT.md section 5. The nonce is the segment's base nonce XOR the chunk's index; indices never
//! repeat under one key because a payload is sealed once, front to back.

use crate::aead::{AeadKey, Engine, NONCE_LEN, NotAuthentic, TAG_LEN};
use crate::geometry::SEGMENT_BITS;
use crate::keys::Schedule;

/// Seals and opens chunks by index; keeps the key of the segment it is in.
pub(crate) struct ChunkCipher<'a> {
    schedule: &'a Schedule,
    engine: Engine,
    segment: Option<(u64, AeadKey, [u8; NONCE_LEN])>,
}

impl<'a> ChunkCipher<'a> {
    pub(crate) fn new(schedule: &'a Schedule, engine: Engine) -> Self {
        Self { schedule, engine, segment: None }
    }

    /// Seals chunk `i` into `sealed`, [`TAG_LEN`] longer than `plain`.
    pub(crate) fn seal(&mut self, i: u64, plain: &[u8], sealed: &mut [u8]) {
        let (key, nonce) = self.key(i);
        key.seal_into(nonce, b"", plain, sealed);
    }

    /// Opens chunk `i` into `plain`, [`TAG_LEN`] shorter than `sealed` `[F-25]`.
    pub(crate) fn open(&mut self, i: u64, sealed: &[u8], plain: &mut [u8]) -> Result<(), NotAuthentic> {
        debug_assert_eq!(sealed.len(), plain.len() + TAG_LEN);
        let (key, nonce) = self.key(i);
        key.open(nonce, b"", sealed, plain)
    }

    fn key(&mut self, i: u64) -> (&AeadKey, [u8; NONCE_LEN]) {
        let segment = i >> SEGMENT_BITS;
        if self.segment.as_ref().is_none_or(|(s, ..)| *s != segment) {
            let derived = self.schedule.segment(segment);
            let (key, base) = derived.expose().split_at(32);
            let mut nonce = [0; NONCE_LEN];
            nonce.copy_from_slice(base);
            self.segment = Some((segment, self.engine.key(key), nonce));
        }
        let (_, key, base) = self.segment.as_ref().expect("set above");
        let mut nonce = *base;
        for (n, b) in nonce.iter_mut().skip(4).zip(i.to_be_bytes()) {
            *n ^= b;
        }
        (key, nonce)
    }
}
