//! What a client sent as a body, remembered as digests: enough to tell whether two bodies differ in what was sent of both.

use blake3::{Hash, Hasher};

/// A digest is kept at each multiple of this.
const STEP: usize = 64 << 10;

/// A body, as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Body {
    hasher: Hasher,
    prefixes: Vec<Hash>,
}

impl Body {
    pub fn len(&self) -> u64 {
        self.hasher.count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no byte is known to differ: of a body that broke off, up to its last 64 KiB.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let whole = self.len() != other.len() || self.hasher.finalize() == other.hasher.finalize();
        whole && self.prefixes.iter().zip(&other.prefixes).all(|(a, b)| a == b)
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = STEP - usize::try_from(self.len() % STEP as u64).unwrap_or(0);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            if now.len() == room {
                self.prefixes.push(self.hasher.finalize());
            }
            bytes = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, STEP};

    fn body(bytes: &[u8]) -> Body {
        let mut body = Body::default();
        bytes.chunks(1000).for_each(|piece| body.push(piece));
        body
    }

    #[test]
    fn bodies_that_differ_taken_for_equal() {
        let long = vec![7; 3 * STEP + 5];
        let with = |at: usize| {
            let mut other = long.clone();
            other[at] ^= 1;
            other
        };
        assert!(body(&long).agrees_with(&body(&long[..2 * STEP + 9])), "it broke off");
        assert!(!body(&long).agrees_with(&body(&with(0)[..STEP])));
        assert!(!body(&long).agrees_with(&body(&with(2 * STEP)[..3 * STEP])));
        assert!(!body(&long).agrees_with(&body(&with(3 * STEP + 4))), "the last byte of whole ones");
        assert_eq!(body(&long).len(), long.len() as u64);
    }
}
