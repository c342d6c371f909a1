//! Watching a broker's release log from outside: the newest checkpoint, and that it goes on from the last one seen.

use crate::release::{Client, ReleaseError};
use vault_attest::tlog::{Checkpoint, parse_consistency, verify_consistency};

/// A checkpoint whose signature, and growth from the one before, were verified.
pub struct Watched {
    /// The note, to be kept.
    pub note: String,
    /// What it says.
    pub checkpoint: Checkpoint,
}

impl Client {
    /// The newest checkpoint `[L-3]`, consistent with the note that was kept `[L-5]`.
    pub fn watch_log(&self, kept: Option<&str>) -> Result<Watched, ReleaseError> {
        let before = kept.map(|note| self.log().verify(note)).transpose()?;
        let note = self.get("/v1/log/checkpoint")?;
        let checkpoint = self.log().verify(&note)?;
        if let Some(before) = before {
            let path = format!("/v1/log/consistency?from={}&to={}", before.size(), checkpoint.size());
            // A log that got shorter has no proof: verifying an empty one says so.
            let grew = before.size() <= checkpoint.size();
            let proof = if grew { parse_consistency(&self.get(&path)?)? } else { Vec::new() };
            verify_consistency(&before, &checkpoint, &proof)?;
        }
        Ok(Watched { note, checkpoint })
    }
}
