//! Where decisions become final: the seam between the server and the database.

use crate::judge::Judged;
use vault_attest::Step;
use vault_attest::tlog::Hash;

/// A decision that is on disk.
#[derive(Debug)]
pub struct Settled {
    /// The log entry's bytes.
    pub entry: Vec<u8>,
    /// The log proof's text.
    pub proof: String,
    /// The step that refused, in the end.
    pub refused: Option<Step>,
    /// Seconds until a quota has room again.
    pub wait_s: Option<u64>,
}

/// The database cannot decide: nothing is released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker's database: {0}")]
pub struct Unavailable(pub String);

/// Decides what only state can and logs it. Calls block; replicas may share what is behind it.
pub trait Ledger: Send + Sync {
    /// Uses the nonce up, counts quotas and appends the entry, in one transaction that is on disk when this returns.
    fn settle(&self, judged: Judged) -> Result<Settled, Unavailable>;
    /// The latest signed checkpoint.
    fn checkpoint(&self) -> Result<String, Unavailable>;
    /// A consistency proof; `None` if `from` and `to` are no sizes of this log in order.
    fn consistency(&self, from: u64, to: u64) -> Result<Option<Vec<Hash>>, Unavailable>;
    /// The number of entries.
    fn size(&self) -> Result<u64, Unavailable>;
}
