//! What the broker remembers: used nonces, quotas, and the release log with its tree. docs/KEY_RELEASE.md sections 5 and 6.
//!
//! [`State::decide`] is the only writer: one transaction, on disk when it returns, for a batch of decisions. It trusts the
//! database no more than it must: the head it goes on from has to carry its own log key's signature, and has to
//! go on from the last head it saw. No key and no DEK is ever stored. Clock and log key are arguments.

mod backend;
mod decide;
mod postgres;
mod sqlite;
mod verify;
mod writer;

pub use backend::Row;
pub use decide::{Decided, Decision, QUOTA_WINDOW_S, QuotaUse, Scope};
pub use verify::Report;
pub use writer::Writer;

use crate::config::StateConfig;
use backend::Backend;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vault_attest::Refusal;
use vault_attest::tlog::tree::Plan;
use vault_attest::tlog::{Checkpoint, Hash, LogSigner, LogVerifier};

/// Seconds that a used nonce is kept after it expired.
pub const NONCE_KEPT_S: u64 = 3600;

/// Why the state cannot answer. Nothing was decided then, or nobody knows: nothing may be released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The database fails: the reason in its words.
    #[error("{0}")]
    Unavailable(String),
    /// A newer version of the broker made it.
    #[error("its schema has version {found}, and this broker knows {known}: run the newer version")]
    TooNew {
        /// In the database.
        found: i64,
        /// Here.
        known: i64,
    },
    /// What is asked for cannot be.
    #[error("{0}")]
    Usage(String),
    /// The log in the database is not the one that was written.
    #[error("the release log was changed, or the database was restored: {0}")]
    Tampered(Refusal),
}

impl From<Refusal> for StateError {
    fn from(refusal: Refusal) -> Self {
        Self::Tampered(refusal)
    }
}

/// A database. Replicas open the same one.
pub struct State {
    writing: Mutex<decide::Writing>,
    reading: Mutex<Box<dyn Backend>>,
}

impl State {
    /// A file, made with mode 0600 if it is not there.
    pub fn sqlite(path: &Path) -> Result<Self, StateError> {
        sqlite::make_file(path)?;
        Ok(Self::new(Box::new(sqlite::Sqlite::open(path)?), Box::new(sqlite::Sqlite::open(path)?)))
    }

    /// A server: `host=/run/postgresql dbname=mvault user=broker`. A password comes from PGPASSFILE only.
    pub fn postgres(config: &str) -> Result<Self, StateError> {
        Ok(Self::new(Box::new(postgres::Postgres::open(config)?), Box::new(postgres::Postgres::open(config)?)))
    }

    fn new(writing: Box<dyn Backend>, reading: Box<dyn Backend>) -> Self {
        Self { writing: Mutex::new(decide::Writing::new(writing)), reading: Mutex::new(reading) }
    }

    /// Decides a batch in its order, in one transaction that is on disk when this returns: uses nonces up `[R-11]`,
    /// counts quotas `[R-12]`, appends the entries, signs the head. An empty batch signs an empty log's head and
    /// checks what is there.
    pub fn decide(&self, batch: Vec<Decision>, signer: &LogSigner) -> Result<Vec<Decided>, StateError> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).decide(batch, signer)
    }

    /// Forgets used nonces [`NONCE_KEPT_S`] after they expired, and quotas that no window reaches.
    pub fn clean(&self, now_s: u64) -> Result<(), StateError> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).clean(now_s)
    }

    /// The number of entries.
    pub fn size(&self) -> Result<u64, StateError> {
        Ok(self.read().head(false)?.size)
    }

    /// The latest signed checkpoint; empty before the first decision.
    pub fn checkpoint(&self) -> Result<String, StateError> {
        Ok(self.read().head(false)?.checkpoint)
    }

    /// The entry of a decision.
    pub fn entry(&self, id: &[u8; 16]) -> Result<Option<Row>, StateError> {
        self.read().entry(id)
    }

    /// Up to `max` entries in the order of their indexes, from `from` on.
    pub fn entries(&self, from: u64, max: u32) -> Result<Vec<Row>, StateError> {
        self.read().entries(from, max)
    }

    /// The consistency proof between two sizes; nothing if they are no sizes of this log, in order.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Option<Vec<Hash>>, StateError> {
        let mut backend = self.read();
        match Plan::consistency(from, to) {
            Some(plan) if to <= backend.head(false)?.size => {
                let nodes = backend.nodes(&plan.positions())?;
                Ok(plan.finish(&nodes))
            }
            _ => Ok(None),
        }
    }

    /// The inclusion proof of an entry in the tree of `size` entries; nothing if it is not in it.
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Option<Vec<Hash>>, StateError> {
        let mut backend = self.read();
        match Plan::inclusion(index, size) {
            Some(plan) if size <= backend.head(false)?.size => {
                let nodes = backend.nodes(&plan.positions())?;
                Ok(plan.finish(&nodes))
            }
            _ => Ok(None),
        }
    }

    /// Reads the whole log and checks L-1, L-2, L-3 and L-6, and L-5 against a checkpoint that was kept elsewhere. Memory
    /// does not grow with the log.
    pub fn verify(&self, verifier: &LogVerifier, kept: Option<&Checkpoint>) -> Result<Report, StateError> {
        let mut backend = self.read();
        backend.begin_read()?;
        let report = verify::verify(&mut **backend, verifier, kept);
        backend.rollback();
        report
    }

    /// The database of a configuration. Unless `make`, a SQLite file has to be there.
    pub fn open(config: &StateConfig, make: bool) -> Result<Self, StateError> {
        match (&config.postgres, &config.sqlite) {
            (Some(text), _) => Self::postgres(text),
            (None, Some(path)) if make || path.exists() => Self::sqlite(path),
            (None, Some(path)) => {
                Err(StateError::Usage(format!("{}: not there: the broker has not been started yet", path.display())))
            }
            (None, None) => Err(StateError::Usage("[state] names no database".into())),
        }
    }

    fn read(&self) -> MutexGuard<'_, Box<dyn Backend>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
