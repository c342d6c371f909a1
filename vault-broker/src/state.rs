//! What the broker remembers: used nonces, quotas, the release log. docs/KEY_RELEASE.md sections 5 and 6.
//!
//! A [`Database`] gives transactions of small row operations; [`decide`] makes decisions of them, the same for every
//! back-end. A decision is on disk when [`decide`] returns, or it did not happen.

mod decide;
mod sqlite;
mod verify;
mod writer;

pub use decide::{Limits, decide};
pub use sqlite::Sqlite;
pub use verify::verify;
pub use writer::StateLedger;

use crate::config::StateConfig;
use vault_attest::Refusal;
use vault_attest::tlog::Hash;

/// Version of the tables.
pub const SCHEMA: i64 = 1;

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The database failed.
    #[error("{0}")]
    Database(String),
    /// Another version made the tables.
    #[error(
        "the database has tables of version {found}; this mvault knows version {SCHEMA}: use the mvault that made them, or a newer one"
    )]
    Schema {
        /// Theirs.
        found: i64,
    },
    /// The log in the database is not what this broker wrote.
    #[error("the release log was changed: {0}")]
    Log(#[from] Refusal),
    /// A row is not of its form.
    #[error("the database holds a {0} that this broker did not write")]
    Row(&'static str),
}

/// The log's head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// Number of entries.
    pub size: u64,
    /// The signed checkpoint of that size; empty before the first.
    pub checkpoint: String,
}

/// One row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its index, from 0.
    pub index: u64,
    /// The decision's id.
    pub id: [u8; 16],
    /// The entry's bytes.
    pub entry: Vec<u8>,
}

/// What quotas count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// A broker key.
    Key,
    /// A PCR0.
    Measurement,
    /// A source.
    Source,
}

/// A database that several processes may use at once.
pub trait Database: Send {
    /// A transaction that may write: only one at a time gets past this, in all processes together.
    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StateError>;
    /// A transaction that reads one state of everything.
    fn begin_read(&mut self) -> Result<Box<dyn Transaction + '_>, StateError>;
}

/// A connection to the database that the configuration names. `make` makes a SQLite file that is not there.
pub fn open(config: &StateConfig, make: bool) -> Result<Box<dyn Database>, StateError> {
    match (&config.sqlite, &config.postgres) {
        (Some(path), _) if make => Ok(Box::new(Sqlite::open(path)?)),
        (Some(path), _) => Ok(Box::new(Sqlite::existing(path)?)),
        (None, Some(_)) => Err(StateError::Database("PostgreSQL is not built yet".into())),
        (None, None) => Err(StateError::Database("no database is configured".into())),
    }
}

/// Row operations; nothing is kept unless [`Transaction::commit`] returns.
pub trait Transaction {
    /// The log's head.
    fn head(&mut self) -> Result<Head, StateError>;
    /// Replaces the head.
    fn set_head(&mut self, head: &Head) -> Result<(), StateError>;
    /// The tree's nodes at these positions, all of them.
    fn nodes(&mut self, positions: &[u64]) -> Result<Vec<Hash>, StateError>;
    /// Stores nodes at ascending positions from `first` on.
    fn put_nodes(&mut self, first: u64, nodes: &[Hash]) -> Result<(), StateError>;
    /// Uses a nonce up; false if it was used before.
    fn use_nonce(&mut self, nonce: &[u8; 32], expiry_s: u64) -> Result<bool, StateError>;
    /// How many were counted in a window.
    fn count(&mut self, what: Counted, subject: &[u8], window: u64) -> Result<u64, StateError>;
    /// Counts one more.
    fn add_count(&mut self, what: Counted, subject: &[u8], window: u64) -> Result<(), StateError>;
    /// Appends an entry.
    fn append(&mut self, row: &Row) -> Result<(), StateError>;
    /// The entry of a decision.
    fn find(&mut self, id: &[u8; 16]) -> Result<Option<Row>, StateError>;
    /// At most `most` entries from index `from` on, ascending.
    fn rows(&mut self, from: u64, most: usize) -> Result<Vec<Row>, StateError>;
    /// How many rows the log's table has, whatever the head says.
    fn row_count(&mut self) -> Result<u64, StateError>;
    /// Forgets nonces that expired before, and windows before.
    fn forget(&mut self, nonces_before_s: u64, windows_before: u64) -> Result<(), StateError>;
    /// Makes it last.
    fn commit(self: Box<Self>) -> Result<(), StateError>;
}

#[cfg(test)]
mod tests;
