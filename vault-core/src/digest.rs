//! Entry digests in pieces: FORMAT.md section 7. Workers hash the pieces they hold in cache into BLAKE3
//! subtrees; joined in order they are the file's ordinary BLAKE3, the one `b3sum` prints.
//!
//! Pieces start at multiples of 4 KiB of the entry, which 4 KiB alignment of entries guarantees.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, max_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{CHUNK_LEN, Hasher};

/// A BLAKE3 digest.
pub type Digest32 = [u8; 32];

/// The hash of one piece of an entry.
pub(crate) enum Piece {
    /// The piece is the whole entry.
    Whole(Digest32),
    /// Subtrees from left to right, each with its length in bytes.
    Subtrees(Vec<(ChainingValue, u64)>),
}

/// Hashes `data`, which starts at byte `offset` of the entry. `whole` says that it is all of it.
pub(crate) fn hash_piece(offset: u64, data: &[u8], whole: bool) -> Piece {
    if whole {
        return Piece::Whole(blake3::hash(data).into());
    }
    let mut subtrees = Vec::new();
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(subtree_len(at, rest.len()));
        let cv = Hasher::new().set_input_offset(at).update(now).finalize_non_root();
        subtrees.push((cv, now.len() as u64));
        at += now.len() as u64;
        rest = later;
    }
    Piece::Subtrees(subtrees)
}

/// The longest complete subtree at `at` within `len` bytes, or what is left of less than a BLAKE3 chunk.
/// The first one of an entry is halved, so that no entry in pieces ends up as a single subtree, which BLAKE3
/// would finalize in another way.
fn subtree_len(at: u64, len: usize) -> usize {
    let power = if len.is_power_of_two() { len } else { (len / 2 + 1).next_power_of_two() };
    match max_subtree_len(at) {
        _ if len < CHUNK_LEN => len,
        Some(max) => usize::try_from(max).unwrap_or(power).min(power),
        None if power > CHUNK_LEN => power / 2,
        None => power,
    }
}

/// Joins pieces that come in order.
#[derive(Default)]
pub(crate) struct Joiner {
    stack: Vec<(ChainingValue, u64)>,
    whole: Option<Digest32>,
}

impl Joiner {
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Whole(digest) => self.whole = Some(digest),
            Piece::Subtrees(subtrees) => {
                for subtree in subtrees {
                    self.merge_equal();
                    self.stack.push(subtree);
                }
            }
        }
    }

    /// Merges finished neighbours of equal length. Never the last two of an entry: it runs only when another
    /// subtree is about to follow.
    fn merge_equal(&mut self) {
        while let [.., (left, l), (right, r)] = self.stack.as_slice() {
            if l != r {
                break;
            }
            let merged = (merge_subtrees_non_root(left, right, Mode::Hash), l + r);
            self.stack.truncate(self.stack.len() - 2);
            self.stack.push(merged);
        }
    }

    pub(crate) fn finish(mut self) -> Digest32 {
        if let Some(digest) = self.whole {
            return digest;
        }
        let Some((mut right, _)) = self.stack.pop() else { return blake3::hash(b"").into() };
        while let Some((left, _)) = self.stack.pop() {
            if self.stack.is_empty() {
                return merge_subtrees_root(&left, &right, Mode::Hash).into();
            }
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        // Unreachable: the first subtree is halved. A wrong digest is refused, never accepted.
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(data: &[u8], first: usize, step: usize) -> Digest32 {
        let mut joiner = Joiner::default();
        let (mut at, mut len) = (0, first.min(data.len()));
        while at < data.len() {
            joiner.push(hash_piece(at as u64, &data[at..at + len], len == data.len()));
            at += len;
            len = step.min(data.len() - at);
        }
        joiner.finish()
    }

    #[test]
    fn pieces_join_to_the_ordinary_blake3() {
        let data: Vec<u8> = (0..600_001_u32).map(|i| (i * 7 + i / 251).to_le_bytes()[0]).collect();
        let sizes = [0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 8192, 12_288, 65_536, 65_537, 131_072, 262_144, 600_001];
        for size in sizes {
            let expected: Digest32 = blake3::hash(&data[..size]).into();
            for first in [4096, 8192, 61_440, 65_536, 126_976, 258_048] {
                for step in [4096, 65_536, 262_144] {
                    assert_eq!(in_pieces(&data[..size], first, step), expected, "{size} {first} {step}");
                }
            }
        }
    }
}
