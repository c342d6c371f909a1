//! Decisions in one transaction: nonces, quotas, entries, tree, checkpoint. What is in the database already is
//! checked against the last checkpoint before anything is signed on top of it.

use super::{Counted, Database, Head, Row, StateError, Transaction};
use crate::advice;
use crate::config::Quotas;
use crate::judge::{Judged, QuotaKeys};
use crate::ledger::Settled;
use vault_attest::tlog::tree::{Frontier, Plan, leaf_hash, node_count};
use vault_attest::tlog::{LogProof, LogSigner};
use vault_attest::{Refusal, Step};

/// Seconds that a quota counts over.
const WINDOW_S: u64 = 3600;
/// Seconds that a used nonce is kept after it expired: for `why`, and for replicas whose clocks differ.
const KEEP_NONCES_S: u64 = 3600;

/// What decides besides the database.
pub struct Limits<'a> {
    /// Releases an hour.
    pub quotas: &'a Quotas,
    /// Seconds since 1970.
    pub now_s: u64,
}

/// Decides all of `batch`, in order, in one transaction.
pub fn decide(
    database: &mut dyn Database,
    signer: &LogSigner,
    limits: &Limits<'_>,
    batch: Vec<Judged>,
) -> Result<Vec<Settled>, StateError> {
    let mut transaction = database.begin()?;
    let mut frontier = frontier(&mut *transaction, signer)?;
    let mut logged = Vec::with_capacity(batch.len());
    for judged in batch {
        let (index, decision) = (frontier.size(), settle(&mut *transaction, limits, judged)?);
        let new = frontier.append(leaf_hash(&decision.entry));
        transaction.put_nodes(node_count(index), &new)?;
        transaction.append(&Row { index, id: decision.id, entry: decision.entry.clone() })?;
        logged.push((index, decision));
    }
    let size = frontier.size();
    let checkpoint = signer.sign(size, frontier.root());
    transaction.set_head(&Head { size, checkpoint: checkpoint.clone() })?;
    let mut settled = Vec::with_capacity(logged.len());
    for (index, decision) in logged {
        let proof = prove(&mut *transaction, index, size, &checkpoint)?;
        let Decision { entry, refused, wait_s, .. } = decision;
        settled.push(Settled { entry, proof, refused, wait_s });
    }
    let now = limits.now_s;
    transaction.forget(now.saturating_sub(KEEP_NONCES_S), (now / WINDOW_S).saturating_sub(1))?;
    transaction.commit()?;
    Ok(settled)
}

/// The tree as it is, after its root was found to be that of the last checkpoint `[L-3]`.
pub(super) fn frontier(transaction: &mut dyn Transaction, signer: &LogSigner) -> Result<Frontier, StateError> {
    let head = transaction.head()?;
    let nodes = transaction.nodes(&Frontier::positions(head.size))?;
    let frontier = Frontier::new(head.size, nodes).ok_or(StateError::Row("tree"))?;
    if head == Head::default() && transaction.row_count()? == 0 {
        return Ok(frontier);
    }
    let last = signer.verifier().verify(&head.checkpoint)?;
    if last.size() != head.size || *last.root() != frontier.root() {
        let expected = format!("the tree of {} entries that was signed", last.size());
        let found = format!("another tree, of {} entries", head.size);
        return Err(Refusal::new(Step::L(3), "release log", expected, found).into());
    }
    Ok(frontier)
}

fn prove(transaction: &mut dyn Transaction, index: u64, size: u64, checkpoint: &str) -> Result<String, StateError> {
    let plan = Plan::inclusion(index, size).ok_or(StateError::Row("tree"))?;
    let nodes = transaction.nodes(&plan.positions())?;
    let path = plan.finish(&nodes).ok_or(StateError::Row("tree"))?;
    Ok(LogProof { index, path, checkpoint: checkpoint.to_owned() }.to_string())
}

struct Decision {
    id: [u8; 16],
    entry: Vec<u8>,
    refused: Option<Step>,
    wait_s: Option<u64>,
}

///
fn settle(transaction: &mut dyn Transaction, limits: &Limits<'_>, judged: Judged) -> Result<Decision, StateError> {
    let Judged { id, nonce, mut entry, quota, mut refused, .. } = judged;
    let mut wait_s = None;
    let unused = nonce.map_or(Ok(true), |(nonce, expiry)| transaction.use_nonce(&nonce, expiry))?;
    let source = entry.source.clone().unwrap_or_default();
    let late = if refused.is_some() {
        None
    } else if !unused {
        Some(Refusal::new(Step::R(11), "nonce", "one that was not used before", "one that was"))
    } else if let Some(keys) = &quota {
        count(transaction, limits, keys, &source)?
    } else {
        None
    };
    if let Some(refusal) = late {
        if refusal.step == Step::R(12) {
            wait_s = Some(WINDOW_S - limits.now_s % WINDOW_S);
        }
        refused = Some(refusal.step);
        entry.refuse(&refusal, Some(advice::fix(&refusal)));
    }
    Ok(Decision { id, entry: entry.to_bytes(), refused, wait_s })
}

/// `[R-12]`: counts a grant, unless one of its quotas is used up.
fn count(
    transaction: &mut dyn Transaction,
    limits: &Limits<'_>,
    keys: &QuotaKeys,
    source: &str,
) -> Result<Option<Refusal>, StateError> {
    let quotas = limits.quotas;
    let all = [
        (Counted::Key, &keys.key[..], quotas.per_key, "of this broker key"),
        (Counted::Measurement, &keys.pcr0[..], quotas.per_measurement, "of this PCR0"),
        (Counted::Source, source.as_bytes(), quotas.per_source, "of this source"),
    ];
    let window = limits.now_s / WINDOW_S;
    for (what, subject, most, name) in all {
        let counted = if most == 0 { 0 } else { transaction.count(what, subject, window)? };
        if most > 0 && counted >= most {
            let expected = format!("fewer than {most} an hour");
            return Ok(Some(Refusal::new(Step::R(12), format!("releases {name}"), expected, counted)));
        }
    }
    for (what, subject, most, _) in all {
        if most > 0 {
            transaction.add_count(what, subject, window)?;
        }
    }
    Ok(None)
}
