//! The whole log against its checkpoint: L-1, L-2, L-3, L-6, and L-5 against a checkpoint that was kept elsewhere.
//!
//! One pass in the order of the indexes, in pages: memory is that of a page and of the tree's edge.

use super::StateError;
use super::backend::{Backend, Row};
use std::collections::VecDeque;
use vault_attest::tlog::tree::{Frontier, leaf_hash, node_count};
use vault_attest::tlog::{Checkpoint, LogEntry, LogVerifier, Outcome};
use vault_attest::{Refusal, Step};

/// Entries, or nodes, read at a time.
const PAGE: u32 = 256;

/// What a log that passed has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its checkpoint, for keeping.
    pub checkpoint: String,
    /// Entries.
    pub entries: u64,
    /// Grants among them.
    pub granted: u64,
    /// The size of the kept checkpoint that this log goes on from.
    pub goes_on_from: Option<u64>,
}

pub fn verify(
    backend: &mut dyn Backend,
    verifier: &LogVerifier,
    kept: Option<&Checkpoint>,
) -> Result<Report, StateError> {
    let head = backend.head(false)?;
    let signed = verifier.verify(&head.checkpoint)?; // L-3
    let kept = kept.map(|kept| Kept::new(kept, &signed)).transpose()?;
    let goes_on_from = kept.as_ref().map(|kept| kept.size);
    let mut walk = Walk::new(backend, kept);
    while walk.frontier.size() < signed.size() {
        walk.page(signed.size())?;
    }
    let (granted, root) = (walk.granted, walk.frontier.root());
    walk.compare_kept()?;
    nothing_beyond(backend, signed.size())?;
    if root != *signed.root() || (head.size, head.root) != (signed.size(), root) {
        return Err(Refusal::new(Step::L(3), "root", "the tree's, as it is signed", "another").into());
    }
    Ok(Report { checkpoint: head.checkpoint, entries: signed.size(), granted, goes_on_from })
}

/// Counts and ids, over the whole tables `[L-2]` `[L-6]`.
fn nothing_beyond(backend: &mut dyn Backend, size: u64) -> Result<(), StateError> {
    let (entries, nodes) = backend.counts()?;
    if entries != size {
        return Err(Refusal::new(Step::L(6), "number of entries", size, entries).into());
    }
    if nodes != node_count(size) {
        return Err(Refusal::new(Step::L(2), "number of nodes", node_count(size), nodes).into());
    }
    match backend.repeated_id()? {
        Some(id) => Err(Refusal::new(Step::L(6), "decision ids", "each once", format!("{id:02x?} twice")).into()),
        None => Ok(()),
    }
}

/// A checkpoint from elsewhere, until its size is reached.
struct Kept {
    size: u64,
    root: [u8; 32],
}

impl Kept {
    fn new(kept: &Checkpoint, signed: &Checkpoint) -> Result<Self, StateError> {
        let refuse = |what: &str, wanted: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            Refusal::new(Step::L(5), what, wanted, found)
        };
        if kept.origin() != signed.origin() {
            return Err(refuse("origin of the kept checkpoint", &signed.origin(), &kept.origin()).into());
        }
        if kept.size() > signed.size() {
            let wanted = format!("at least the {} of the kept checkpoint", kept.size());
            return Err(refuse("entries", &wanted, &signed.size()).into());
        }
        Ok(Self { size: kept.size(), root: *kept.root() })
    }
}

struct Walk<'a> {
    backend: &'a mut dyn Backend,
    frontier: Frontier,
    kept: Option<Kept>,
    /// Nodes read ahead.
    nodes: VecDeque<(u64, Vec<u8>)>,
    granted: u64,
}

impl<'a> Walk<'a> {
    fn new(backend: &'a mut dyn Backend, kept: Option<Kept>) -> Self {
        Self { backend, frontier: Frontier::default(), kept, nodes: VecDeque::new(), granted: 0 }
    }

    /// The next entries, up to `size`.
    fn page(&mut self, size: u64) -> Result<(), StateError> {
        let rows = self.backend.entries(self.frontier.size(), PAGE)?;
        if rows.is_empty() {
            return Err(Refusal::new(Step::L(6), "index", self.frontier.size(), "none").into());
        }
        for row in rows {
            if self.frontier.size() == size {
                break;
            }
            self.compare_kept()?;
            self.entry(&row)?;
        }
        Ok(())
    }

    fn entry(&mut self, row: &Row) -> Result<(), StateError> {
        let index = self.frontier.size();
        if row.index != index {
            return Err(Refusal::new(Step::L(6), "index", index, row.index).into());
        }
        let position = node_count(index);
        let new = self.frontier.append(leaf_hash(&row.entry));
        for (at, hash) in (position..).zip(new) {
            if self.node(at)?.as_slice() != hash {
                let (step, what) = if at == position {
                    (1, format!("entry {index}"))
                } else {
                    (2, format!("node {at}, after entry {index}"))
                };
                return Err(Refusal::new(Step::L(step), what, "the hash in the tree", "another").into());
            }
        }
        let entry = LogEntry::parse(&row.entry)?; // L-1
        if entry.id_bytes().is_none_or(|id| id[..] != row.id) {
            return Err(Refusal::new(Step::L(6), format!("id of entry {index}"), entry.id, "another").into());
        }
        self.granted += u64::from(entry.outcome == Outcome::Granted);
        Ok(())
    }

    fn node(&mut self, at: u64) -> Result<Vec<u8>, StateError> {
        if self.nodes.is_empty() {
            self.nodes = self.backend.node_page(at, PAGE)?.into();
        }
        match self.nodes.pop_front() {
            Some((position, hash)) if position == at => Ok(hash),
            _ => Err(Refusal::new(Step::L(2), format!("node {at}"), "a hash", "none").into()),
        }
    }

    /// Whether the tree of the kept checkpoint is a prefix of this one: the root where it ends `[L-5]`.
    fn compare_kept(&mut self) -> Result<(), StateError> {
        match self.kept.take_if(|kept| kept.size == self.frontier.size()) {
            Some(kept) if kept.root != self.frontier.root() => {
                let what = format!("root over the first {} entries", kept.size);
                Err(Refusal::new(Step::L(5), what, "that of the kept checkpoint", "another").into())
            }
            _ => Ok(()),
        }
    }
}
