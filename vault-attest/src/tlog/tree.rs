//! The Merkle tree of RFC 6962 section 2.1: hashes, proofs, and where nodes are stored.
//!
//! Verification is that of RFC 9162 (2.1.3.2 and 2.1.4.2), loops without recursion. Only nodes over complete subtrees
//! are stored, in the order in which appending completes them: leaf `k` is at `2k - popcount(k)`, and the nodes
//! that it completes follow it. A tree of n leaves has `2n - popcount(n)` of them, and they never change.

use sha2::{Digest, Sha256};
use std::ops::Range;

/// A SHA-256: of a leaf, a node, a tree.
pub type Hash = [u8; 32];

/// SHA-256(0x00 || entry) `[L-1]`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// SHA-256(0x01 || left || right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree of no leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Whether `path` leads from a leaf at `index` to the root of a tree of `size` leaves; says why not.
pub fn verify_inclusion(leaf: &Hash, index: u64, path: &[Hash], size: u64, root: &Hash) -> Result<(), &'static str> {
    if index >= size {
        return Err("an index beyond the tree");
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return Err("a path that is too long");
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    match last {
        0 if hash == *root => Ok(()),
        0 => Err("a path to another root"),
        _ => Err("a path that is too short"),
    }
}

/// Whether the tree of `old` leaves is a prefix of the tree of `new` leaves; says why not.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), &'static str> {
    let trivial = |ok: bool, why| {
        if !ok {
            Err(why)
        } else if proof.is_empty() {
            Ok(())
        } else {
            Err("hashes for nothing")
        }
    };
    match old {
        _ if old > new => return Err("a tree that shrank"),
        0 => return trivial(*old_root == empty_root() && (new > 0 || old_root == new_root), "another empty tree"),
        _ if old == new => return trivial(old_root == new_root, "another tree of the same size"),
        _ => {}
    }
    // The old tree is a subtree of the new one if it is complete: its root is then not repeated in the proof.
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (first, rest) = match proof.split_first() {
        _ if old.is_power_of_two() => (old_root, proof),
        Some(split) => split,
        None => return Err("a proof that is too short"),
    };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err("a proof that is too long");
        }
        if at & 1 == 1 || at == last {
            (old_hash, new_hash) = (node_hash(sibling, &old_hash), node_hash(sibling, &new_hash));
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    match last {
        _ if old_hash != *old_root => Err("a proof from another tree"),
        0 if new_hash == *new_root => Ok(()),
        0 => Err("a proof to another tree"),
        _ => Err("a proof that is too short"),
    }
}

/// The parts of a tree whose hashes are a proof: ranges of leaves, each the whole of a subtree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Vec<Range<u64>>);

impl Plan {
    /// The inclusion proof of leaf `index` in a tree of `size` leaves; nothing if it is not in it.
    pub fn inclusion(index: u64, size: u64) -> Option<Self> {
        let (mut low, mut high, mut parts) = (0, size, Vec::new());
        if index >= size {
            return None;
        }
        while high - low > 1 {
            let middle = low + split(high - low);
            if index < middle {
                parts.push(middle..high);
                high = middle;
            } else {
                parts.push(low..middle);
                low = middle;
            }
        }
        parts.reverse();
        Some(Self(parts))
    }

    /// The consistency proof from `old` to `new` leaves; nothing if there is none.
    pub fn consistency(old: u64, new: u64) -> Option<Self> {
        let (mut low, mut high, mut parts) = (0, new, Vec::new());
        if old > new {
            return None;
        }
        if old == 0 {
            return Some(Self(parts)); // every tree goes on from the empty one
        }
        while high != old {
            let middle = low + split(high - low);
            if old <= middle {
                parts.push(middle..high);
                high = middle;
            } else {
                parts.push(low..middle);
                low = middle;
            }
        }
        if low != 0 {
            parts.push(low..high);
        }
        parts.reverse();
        Some(Self(parts))
    }

    /// The whole tree of `size` leaves: one hash, its root.
    pub fn root(size: u64) -> Self {
        Self(std::iter::once(0..size).collect())
    }

    /// The positions of all stored nodes that [`Plan::finish`] needs.
    pub fn positions(&self) -> Vec<u64> {
        self.0.iter().flat_map(complete_subtrees).collect()
    }

    /// The hashes, from the nodes at [`Plan::positions`], in that order; nothing if there are too few.
    pub fn finish(&self, nodes: &[Hash]) -> Option<Vec<Hash>> {
        let mut nodes = nodes.iter();
        let fold = |range: &Range<u64>| {
            let count = complete_subtrees(range).count();
            let part: Vec<_> = nodes.by_ref().take(count).collect();
            (part.len() == count).then(|| fold(part))
        };
        self.0.iter().map(fold).collect()
    }
}

/// What appending needs of a tree: its complete subtrees, largest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// Where the nodes of a tree's frontier are stored.
    pub fn positions(size: u64) -> Vec<u64> {
        complete_subtrees(&(0..size)).collect()
    }

    /// From the nodes at [`Frontier::positions`]; nothing if their number is another.
    pub fn new(size: u64, nodes: Vec<Hash>) -> Option<Self> {
        (nodes.len() == size.count_ones() as usize).then_some(Self { size, nodes })
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        fold(self.nodes.iter().collect())
    }

    /// Appends a leaf. Gives the nodes to store: the leaf, and what it completes.
    pub fn append(&mut self, leaf: Hash) -> Vec<Hash> {
        let (mut hash, mut new) = (leaf, vec![leaf]);
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.nodes.pop() else { break };
            hash = node_hash(&left, &hash);
            new.push(hash);
        }
        self.nodes.push(hash);
        self.size += 1;
        new
    }
}

/// How many nodes a tree of `size` leaves stores; also the position of leaf `size`.
pub fn node_count(size: u64) -> u64 {
    2 * size - u64::from(size.count_ones())
}

/// The largest power of two below `n`, which is over 1.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Positions of the complete subtrees of a range that begins where a subtree of its length may.
fn complete_subtrees(range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    let (mut low, high) = (range.start, range.end);
    std::iter::from_fn(move || {
        let level = (high - low).checked_ilog2()?;
        low += 1 << level;
        Some(node_count(low - 1) + u64::from(level))
    })
}

/// One hash over complete subtrees, largest first.
fn fold(nodes: Vec<&Hash>) -> Hash {
    let joined = nodes.into_iter().rev().copied().reduce(|right, left| node_hash(&left, &right));
    joined.unwrap_or_else(empty_root)
}
