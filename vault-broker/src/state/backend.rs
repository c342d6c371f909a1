//! What a database does for the state: the tables, and bulk statements over them. No decisions here.
//!
//! Both back-ends have the same tables; only the names of types differ. Bulk statements let a server decide a whole batch
//! in a handful of round trips.

use super::StateError;
use super::decide::Scope;
use vault_attest::tlog::Hash;

/// The schema's version.
pub const VERSION: i64 = 1;

/// Makes the tables. `BYTES` and `KEY` stand for the types of byte strings and of whole-number keys.
pub const SCHEMA: &str = "
    CREATE TABLE mvault_schema (version BIGINT NOT NULL);
    CREATE TABLE head (one KEY PRIMARY KEY CHECK (one = 1), size BIGINT NOT NULL, root BYTES NOT NULL,
                       checkpoint TEXT NOT NULL);
    CREATE TABLE entry (idx KEY PRIMARY KEY, id BYTES NOT NULL, entry BYTES NOT NULL);
    CREATE UNIQUE INDEX entry_id ON entry (id);
    CREATE TABLE node (position KEY PRIMARY KEY, hash BYTES NOT NULL);
    CREATE TABLE nonce (nonce BYTES PRIMARY KEY, expires BIGINT NOT NULL);
    CREATE INDEX nonce_expires ON nonce (expires);
    CREATE TABLE quota (scope BIGINT NOT NULL, subject BYTES NOT NULL, since BIGINT NOT NULL, used BIGINT NOT NULL,
                        PRIMARY KEY (scope, subject, since));
";

/// The tree's head, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Its signed note; empty before the first.
    pub checkpoint: String,
}

/// An entry, as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its index in the tree.
    pub index: u64,
    /// The decision's id.
    pub id: Vec<u8>,
    /// The entry's bytes.
    pub entry: Vec<u8>,
}

/// Who a quota is for: kind and name.
pub type QuotaKey = (Scope, Vec<u8>);

/// What is used of a quota: how much, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Releases.
    pub count: u64,
    /// The oldest bucket's start, in seconds since 1970.
    pub oldest: u64,
}

/// What a batch adds.
pub struct Added<'a> {
    /// Ids and entries, from the head's size on.
    pub first_index: u64,
    /// Decision ids and entries.
    pub entries: &'a [([u8; 16], Vec<u8>)],
    /// Where the first of the nodes goes.
    pub first_node: u64,
    /// Nodes, in the order of their positions.
    pub nodes: &'a [Hash],
    /// Quotas' buckets, and how much more is used.
    pub quotas: &'a [(QuotaKey, u64, u64)],
    /// The new head.
    pub head: &'a Head,
}

/// A connection. After any error the caller rolls back.
pub trait Backend: Send {
    /// Begins a transaction that will write; takes the place of a connection that broke.
    fn begin_write(&mut self) -> Result<(), StateError>;
    /// Begins a transaction that sees one moment.
    fn begin_read(&mut self) -> Result<(), StateError>;
    /// On disk when it returns.
    fn commit(&mut self) -> Result<(), StateError>;
    /// Forgets the transaction, if there is one.
    fn rollback(&mut self);
    /// The head; `lock` keeps other writers out until the transaction ends.
    fn head(&mut self, lock: bool) -> Result<Head, StateError>;
    /// The nodes at these positions, in this order; all of them, or [`StateError::Tampered`].
    fn nodes(&mut self, positions: &[u64]) -> Result<Vec<Hash>, StateError>;
    /// Uses nonces up; gives those that were unused. They are distinct.
    fn use_nonces(&mut self, nonces: &[([u8; 32], u64)]) -> Result<Vec<[u8; 32]>, StateError>;
    /// What is used of each quota after the given time.
    fn used(&mut self, quotas: &[QuotaKey], after: u64) -> Result<Vec<Used>, StateError>;
    /// Writes a batch.
    fn add(&mut self, added: &Added<'_>) -> Result<(), StateError>;
    /// The entry of a decision.
    fn entry(&mut self, id: &[u8; 16]) -> Result<Option<Row>, StateError>;
    /// Entries in order, from an index on.
    fn entries(&mut self, from: u64, max: u32) -> Result<Vec<Row>, StateError>;
    /// Nodes in order, from a position on.
    fn node_page(&mut self, from: u64, max: u32) -> Result<Vec<(u64, Vec<u8>)>, StateError>;
    /// How many entries and nodes there are.
    fn counts(&mut self) -> Result<(u64, u64), StateError>;
    /// A decision id that stands twice.
    fn repeated_id(&mut self) -> Result<Option<Vec<u8>>, StateError>;
    /// Deletes nonces that expired before one time, and quotas from before another.
    fn clean(&mut self, nonces_before: u64, quotas_before: u64) -> Result<(), StateError>;
}

/// A number for the database; none of ours reaches 2^63.
pub fn to_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number from the database; one below zero was never written, and is none that fits anything.
pub fn to_u64(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
