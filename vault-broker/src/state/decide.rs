//! The transaction that decides, and the entry. The same for every database.
//!
//! Proofs need no reading: whatever the path of a new entry wants is new itself, or was on the edge of the tree before.

use super::backend::{Added, Backend, Head, QuotaKey, Used};
use super::{NONCE_KEPT_S, StateError};
use crate::advice;
use std::collections::{HashMap, HashSet};
use vault_attest::time::parse_rfc3339;
use vault_attest::tlog::tree::{Frontier, Plan, leaf_hash, node_count, verify_consistency};
use vault_attest::tlog::{Hash, LogEntry, LogProof, LogSigner, MAX_ENTRY, Outcome};
use vault_attest::{Refusal, Step};

/// Quotas count the releases of this many seconds.
pub const QUOTA_WINDOW_S: u64 = 3600;
/// Releases are counted together that fall in the same minute.
const BUCKET_S: u64 = 60;

/// What a quota limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Stanzas of one broker key.
    Key = 1,
    /// Images of one PCR0.
    Measurement = 2,
    /// One source address.
    Source = 3,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "broker key",
            Self::Measurement => "measurement",
            Self::Source => "source",
        }
    }
}

/// One quota that a grant counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaUse {
    /// What kind it is.
    pub scope: Scope,
    /// Whose: a key id, a PCR0, an address.
    pub subject: Vec<u8>,
    /// Releases in [`QUOTA_WINDOW_S`].
    pub limit: u64,
}

/// What only the state can still turn into a refusal. The entry's time is the time it is decided at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Granted, or refused by an earlier step.
    pub entry: LogEntry,
    /// The nonce to use up, and when it expires, in seconds since 1970.
    pub nonce: Option<([u8; 32], u64)>,
    /// What a grant counts against.
    pub quotas: Vec<QuotaUse>,
}

/// A decision that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The entry's index.
    pub index: u64,
    /// The entry's bytes.
    pub entry: Vec<u8>,
    /// The log proof's text.
    pub proof: String,
    /// The step that refused here.
    pub refused: Option<Step>,
    /// Seconds until a quota has room.
    pub wait_s: Option<u64>,
}

/// A connection that writes, and the last head it saw.
pub struct Writing {
    backend: Box<dyn Backend>,
    seen: Option<(u64, Hash)>,
}

impl Writing {
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self { backend, seen: None }
    }

    pub fn decide(&mut self, batch: Vec<Decision>, signer: &LogSigner) -> Result<Vec<Decided>, StateError> {
        let done = self.transaction(batch, signer);
        match done {
            Ok((decided, head)) => {
                self.seen = Some((head.size, head.root));
                Ok(decided)
            }
            Err(e) => {
                self.backend.rollback();
                Err(e)
            }
        }
    }

    pub fn clean(&mut self, now_s: u64) -> Result<(), StateError> {
        let before = |kept: u64| now_s.saturating_sub(kept);
        let cleaned = self
            .backend
            .begin_write()
            .and_then(|()| self.backend.clean(before(NONCE_KEPT_S), before(QUOTA_WINDOW_S + BUCKET_S)))
            .and_then(|()| self.backend.commit());
        if cleaned.is_err() {
            self.backend.rollback();
        }
        cleaned
    }

    fn transaction(&mut self, batch: Vec<Decision>, signer: &LogSigner) -> Result<(Vec<Decided>, Head), StateError> {
        let backend = &mut *self.backend;
        backend.begin_write()?;
        let old = backend.head(true)?;
        let mut frontier = trusted_frontier(backend, &old, signer)?;
        goes_on(backend, self.seen, &old)?;
        if batch.is_empty() && !old.checkpoint.is_empty() {
            backend.rollback();
            return Ok((Vec::new(), old));
        }
        let mut known: HashMap<u64, Hash> = Frontier::positions(old.size).into_iter().zip(frontier.nodes()).collect();

        let mut ledger = Counting::load(backend, &batch)?;
        let mut judged = Vec::with_capacity(batch.len());
        for decision in batch {
            judged.push(ledger.judge(decision)?);
        }

        let first_node = node_count(old.size);
        let (mut nodes, mut entries) = (Vec::new(), Vec::with_capacity(judged.len()));
        for (decided, id) in &judged {
            nodes.extend(frontier.append(leaf_hash(&decided.entry)));
            entries.push((*id, decided.entry.clone()));
        }
        known.extend((first_node..).zip(nodes.iter().copied()));
        let (size, root) = (frontier.size(), frontier.root());
        let head = Head { size, root, checkpoint: signer.sign(size, root) };
        let quotas = ledger.added();
        let first_index = old.size;
        let added = Added { first_index, entries: &entries, first_node, nodes: &nodes, quotas: &quotas, head: &head };
        backend.add(&added)?;
        backend.commit()?; // on disk: from here on, answers may leave

        let prove = |(at, (mut decided, _)): (u64, (Decided, _))| {
            decided.index = at;
            decided.proof = proof(at, &head, &known)?;
            Ok(decided)
        };
        let decided: Result<_, StateError> = (first_index..).zip(judged).map(prove).collect();
        Ok((decided?, head))
    }
}

/// The edge of the tree, which this broker or a replica signed `[L-2]` `[L-3]`.
fn trusted_frontier(backend: &mut dyn Backend, head: &Head, signer: &LogSigner) -> Result<Frontier, StateError> {
    if head.size > vault_attest::tlog::MAX_SIZE {
        return Err(Refusal::new(Step::L(3), "size", "below 2^62", head.size).into());
    }
    if head.size == 0 && head.checkpoint.is_empty() {
        if backend.counts()? != (0, 0) {
            return Err(Refusal::new(Step::L(3), "head", "a checkpoint of the entries", "none").into());
        }
    } else {
        let checkpoint = signer.verifier().verify(&head.checkpoint)?;
        if (checkpoint.size(), checkpoint.root()) != (head.size, &head.root) {
            return Err(Refusal::new(Step::L(3), "head", "size and root as they are signed", "others").into());
        }
    }
    let nodes = backend.nodes(&Frontier::positions(head.size))?;
    match Frontier::new(head.size, nodes) {
        Some(frontier) if frontier.root() == head.root => Ok(frontier),
        _ => Err(Refusal::new(Step::L(2), "tree", "the root that is signed", "another").into()),
    }
}

/// Whether the head goes on from the one seen last: a database that went back has forgotten nonces `[L-5]`.
fn goes_on(backend: &mut dyn Backend, seen: Option<(u64, Hash)>, head: &Head) -> Result<(), StateError> {
    let Some((size, root)) = seen else { return Ok(()) };
    let refuse = |why| Refusal::new(Step::L(5), "head", format!("a tree that goes on from {size} entries"), why);
    let plan = Plan::consistency(size, head.size).ok_or_else(|| refuse("a tree that shrank"))?;
    let proof = plan.finish(&backend.nodes(&plan.positions())?).unwrap_or_default();
    verify_consistency(size, &root, head.size, &head.root, &proof).map_err(|why| refuse(why).into())
}

/// The text of an entry's proof in the tree of `head`.
fn proof(index: u64, head: &Head, known: &HashMap<u64, Hash>) -> Result<String, StateError> {
    let path = Plan::inclusion(index, head.size).and_then(|plan| {
        let nodes: Option<Vec<_>> = plan.positions().iter().map(|at| known.get(at).copied()).collect();
        plan.finish(&nodes?)
    });
    let path = path.ok_or_else(|| StateError::Unavailable(format!("no proof of entry {index}")))?;
    Ok(LogProof { index, path, checkpoint: head.checkpoint.clone() }.to_string())
}

/// Nonces and quotas, as the batch goes.
struct Counting {
    unused: HashSet<[u8; 32]>,
    used: HashMap<QuotaKey, Used>,
    added: HashMap<(QuotaKey, u64), u64>,
}

impl Counting {
    fn load(backend: &mut dyn Backend, batch: &[Decision]) -> Result<Self, StateError> {
        let nonces: HashMap<_, _> = batch.iter().filter_map(|decision| decision.nonce).collect();
        let nonces: Vec<_> = nonces.into_iter().collect();
        let unused = if nonces.is_empty() { Vec::new() } else { backend.use_nonces(&nonces)? };
        let keys: HashSet<_> = batch.iter().flat_map(|d| &d.quotas).map(|q| (q.scope, q.subject.clone())).collect();
        let keys: Vec<_> = keys.into_iter().collect();
        let mut used = Vec::new();
        if !keys.is_empty() {
            let now = batch.iter().filter_map(|d| parse_rfc3339(&d.entry.time)).max().unwrap_or(0);
            used = backend.used(&keys, now.saturating_sub(QUOTA_WINDOW_S))?;
        }
        let used = keys.into_iter().zip(used).collect();
        Ok(Self { unused: unused.into_iter().collect(), used, added: HashMap::new() })
    }

    /// Decides one: its entry is final then. Index and proof are not known yet.
    fn judge(&mut self, decision: Decision) -> Result<(Decided, [u8; 16]), StateError> {
        let Decision { mut entry, nonce, quotas } = decision;
        let form = || StateError::Usage("an entry without a decision id and a time".into());
        let (id, now) = entry.id_bytes().zip(parse_rfc3339(&entry.time)).ok_or_else(form)?;
        // Used up by whoever comes first, granted or not.
        let first = nonce.is_none_or(|(nonce, _)| self.unused.remove(&nonce));
        let (mut refused, mut wait_s) = (None, None);
        if entry.outcome == Outcome::Granted {
            let refusal = if first {
                self.over(&quotas, now).map(|(refusal, wait)| {
                    wait_s = Some(wait);
                    refusal
                })
            } else {
                Some(Refusal::new(Step::R(11), "nonce", "one that was not used", "one that was"))
            };
            match refusal {
                Some(refusal) => {
                    entry.refuse(&refusal, Some(advice::fix(&refusal)));
                    refused = Some(refusal.step);
                }
                None => self.count(quotas, now),
            }
        }
        let mut bytes = entry.to_bytes();
        if bytes.len() > MAX_ENTRY {
            (entry.policy_line, entry.fix) = (None, None); // what a policy says at length is in the policy
            bytes = entry.to_bytes();
        }
        Ok((Decided { index: 0, entry: bytes, proof: String::new(), refused, wait_s }, id))
    }

    /// The first quota without room `[R-12]`, and the seconds until it has.
    fn over(&self, quotas: &[QuotaUse], now: u64) -> Option<(Refusal, u64)> {
        quotas.iter().find_map(|quota| {
            let used = self.used.get(&(quota.scope, quota.subject.clone())).copied().unwrap_or_default();
            let what = format!("releases of this {} in an hour", quota.scope.name());
            let refusal = Refusal::new(Step::R(12), what, format!("at most {}", quota.limit), used.count + 1);
            let oldest = if used.count == 0 { now } else { used.oldest };
            let wait = (oldest + QUOTA_WINDOW_S).saturating_sub(now).clamp(1, QUOTA_WINDOW_S);
            (used.count >= quota.limit).then_some((refusal, wait))
        })
    }

    fn count(&mut self, quotas: Vec<QuotaUse>, now: u64) {
        let bucket = now - now % BUCKET_S;
        for quota in quotas {
            let key = (quota.scope, quota.subject);
            let used = self.used.entry(key.clone()).or_default();
            used.oldest = if used.count == 0 { bucket } else { used.oldest.min(bucket) };
            used.count += 1;
            *self.added.entry((key, bucket)).or_default() += 1;
        }
    }

    fn added(self) -> Vec<(QuotaKey, u64, u64)> {
        let mut added: Vec<_> = self.added.into_iter().map(|((key, since), used)| (key, since, used)).collect();
        added.sort(); // one order for all replicas
        added
    }
}
