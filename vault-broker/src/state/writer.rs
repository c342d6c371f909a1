//! One thread that decides for all: what waits while a transaction is being written to disk goes into the next one together.
//!
//! So a flush of the disk is shared by everyone who waits for it. Answers leave after the commit, never before.

use super::decide::{Decided, Decision, QuotaUse, Scope};
use super::{State, StateError};
use crate::config::Quotas;
use crate::judge::Judged;
use crate::ledger::{Ledger, Settled, Unavailable};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use vault_attest::time::parse_rfc3339;
use vault_attest::tlog::{Hash, LogSigner};

/// Most decisions in a transaction.
const BATCH: usize = 256;
/// Most decisions that wait.
const QUEUE: usize = 1024;
/// Seconds, as decisions count them, between two cleanings.
const CLEAN_S: u64 = 60;

type Answer = Result<Decided, Unavailable>;

struct Job {
    decision: Decision,
    answer: SyncSender<Answer>,
}

/// The state, with its thread.
pub struct Writer {
    state: Arc<State>,
    quotas: Quotas,
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Checks the head that is there, signs an empty log's, and starts.
    pub fn start(state: Arc<State>, signer: LogSigner, quotas: Quotas) -> Result<Self, StateError> {
        state.decide(Vec::new(), &signer)?;
        let (queue, jobs) = sync_channel(QUEUE);
        let deciding = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("state".into()).spawn(move || run(&deciding, &signer, &jobs));
        let thread = thread.map_err(|e| StateError::Unavailable(format!("no thread: {e}")))?;
        Ok(Self { state, quotas, queue: Some(queue), thread: Some(thread) })
    }

    /// The state, for reading.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Decides; returns when the decision is on disk.
    pub fn decide(&self, decision: Decision) -> Answer {
        let (answer, answered) = sync_channel(1);
        let gone = || Unavailable("its thread has ended".into());
        match self.queue.as_ref().ok_or_else(gone)?.try_send(Job { decision, answer }) {
            Ok(()) => answered.recv().map_err(|_| gone())?,
            Err(TrySendError::Full(_)) => Err(Unavailable(format!("{QUEUE} decisions wait already"))),
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }

    /// What a grant counts against; a limit of 0 is none.
    fn quota_uses(&self, judged: &Judged) -> Vec<QuotaUse> {
        let Some(keys) = &judged.quota else { return Vec::new() };
        let source = judged.entry.source.clone().unwrap_or_default().into_bytes();
        let uses = [
            (Scope::Key, keys.key.to_vec(), self.quotas.per_key),
            (Scope::Measurement, keys.pcr0.to_vec(), self.quotas.per_measurement),
            (Scope::Source, source, self.quotas.per_source),
        ];
        let limited = uses.into_iter().filter(|(_, _, limit)| *limit > 0);
        limited.map(|(scope, subject, limit)| QuotaUse { scope, subject, limit }).collect()
    }
}

impl Ledger for Writer {
    fn settle(&self, judged: Judged) -> Result<Settled, Unavailable> {
        let quotas = self.quota_uses(&judged);
        let decided = self.decide(Decision { entry: judged.entry, nonce: judged.nonce, quotas })?;
        let refused = decided.refused.or(judged.refused);
        Ok(Settled { entry: decided.entry, proof: decided.proof, refused, wait_s: decided.wait_s })
    }

    fn checkpoint(&self) -> Result<String, Unavailable> {
        Ok(self.state.checkpoint()?)
    }

    fn consistency(&self, from: u64, to: u64) -> Result<Option<Vec<Hash>>, Unavailable> {
        Ok(self.state.consistency(from, to)?)
    }

    fn size(&self) -> Result<u64, Unavailable> {
        Ok(self.state.size()?)
    }
}

impl Drop for Writer {
    /// What waits is decided before the thread ends.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // whoever waited for a thread that panicked got an error
        }
    }
}

impl From<StateError> for Unavailable {
    fn from(e: StateError) -> Self {
        Self(e.to_string())
    }
}

fn run(state: &State, signer: &LogSigner, jobs: &Receiver<Job>) {
    let mut cleaned = 0;
    while let Ok(first) = jobs.recv() {
        let batch = std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1));
        let (decisions, answers): (Vec<_>, Vec<_>) = batch.map(|job| (job.decision, job.answer)).unzip();
        let now = decisions.iter().filter_map(|d| parse_rfc3339(&d.entry.time)).max().unwrap_or(0);
        // An answer that nobody waits for any more is in the log all the same.
        match state.decide(decisions, signer) {
            Ok(decided) => {
                for (answer, decided) in answers.iter().zip(decided) {
                    drop(answer.send(Ok(decided)));
                }
            }
            Err(e) => {
                let failed = Unavailable::from(e);
                for answer in &answers {
                    drop(answer.send(Err(failed.clone())));
                }
                continue;
            }
        }
        if now >= cleaned + CLEAN_S {
            cleaned = now;
            if let Err(e) = state.clean(now) {
                tracing::warn!(error = %e, "used nonces and old quotas are not cleaned up");
            }
        }
    }
}
