//! The whole log in the database, against itself and against a checkpoint that was kept elsewhere: L-1 to L-3, L-5, L-6. Reads it
//! once, in order; memory grows by 16 bytes an entry.

use super::{StateError, Transaction};
use std::collections::HashSet;
use vault_attest::tlog::tree::{Frontier, leaf_hash, node_count};
use vault_attest::tlog::{Checkpoint, LogEntry, LogVerifier};
use vault_attest::{Refusal, Step};

/// Rows read at a time.
const PAGE: usize = 512;

/// Checks everything; gives the head's checkpoint.
pub fn verify(
    transaction: &mut dyn Transaction,
    verifier: &LogVerifier,
    kept: Option<&Checkpoint>,
) -> Result<Checkpoint, StateError> {
    let head = transaction.head()?;
    let signed = verifier.verify(&head.checkpoint)?; // L-3
    let mut tree = Frontier::new(0, Vec::new()).ok_or(StateError::Row("tree"))?;
    let mut ids = HashSet::new();
    check_kept(&tree, kept)?;
    loop {
        let rows = transaction.rows(tree.size(), PAGE)?;
        let Some(last) = rows.last().map(|row| row.index) else { break };
        for row in rows {
            let index = tree.size();
            if row.index != index {
                return Err(refuse(6, format!("entry {index}"), "the next index", row.index));
            }
            check_entry(&row, &mut ids)?;
            let new = tree.append(leaf_hash(&row.entry));
            let positions: Vec<_> = (node_count(index)..).take(new.len()).collect();
            let stored = transaction.nodes(&positions).unwrap_or_default();
            if stored.first() != new.first() {
                return Err(refuse(1, format!("entry {index}"), "the entry that was logged", "another"));
            }
            if stored != new {
                return Err(refuse(2, format!("tree at entry {index}"), "hashes of its leaves", "others"));
            }
            check_kept(&tree, kept)?;
        }
        if last + 1 != tree.size() {
            return Err(StateError::Row("index"));
        }
    }
    if signed.size() != tree.size() || head.size != tree.size() {
        let expected = format!("{} entries, as signed", signed.size());
        return Err(refuse(3, "release log".into(), expected, format!("{} entries", tree.size())));
    }
    if *signed.root() != tree.root() {
        return Err(refuse(3, "release log".into(), "the tree that was signed", "another"));
    }
    match kept {
        Some(kept) if kept.size() > tree.size() => {
            let expected = format!("at least {} entries, as the kept checkpoint has", kept.size());
            Err(refuse(5, "release log".into(), expected, tree.size()))
        }
        Some(kept) if kept.origin() != signed.origin() => {
            Err(refuse(5, "origin".into(), kept.origin(), signed.origin()))
        }
        _ => Ok(signed),
    }
}

/// `[L-5]`: the tree was once what the kept checkpoint says.
fn check_kept(tree: &Frontier, kept: Option<&Checkpoint>) -> Result<(), StateError> {
    match kept {
        Some(kept) if kept.size() == tree.size() && *kept.root() != tree.root() => {
            let what = format!("first {} entries", kept.size());
            Err(refuse(5, what, "those of the kept checkpoint", "others"))
        }
        _ => Ok(()),
    }
}

/// `[L-1]`, `[L-6]`
fn check_entry(row: &super::Row, ids: &mut HashSet<[u8; 16]>) -> Result<(), StateError> {
    let entry = LogEntry::parse(&row.entry)?;
    if entry.id_bytes() != Some(row.id) {
        return Err(refuse(1, format!("id of entry {}", row.index), entry.id, "another in its row"));
    }
    if !ids.insert(row.id) {
        return Err(refuse(6, format!("id of entry {}", row.index), "one that did not occur before", entry.id));
    }
    Ok(())
}

fn refuse(step: u8, what: String, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> StateError {
    Refusal::new(Step::L(step), what, expected, found).into()
}
