//! Passphrases: FORMAT.md section 4.1. Floor and ceiling are enforced before any Argon2 work, so that a
//! hostile header costs seconds; the KEK commitment keeps one stanza from serving two passphrases.

use super::{Identity, Recipient, unwrap, wrap};
use crate::error::{Error, Result, refused, require};
use crate::header::{Section, section};
use crate::keys::Dek;
use crate::secret::Secret;
use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha512;
use subtle::ConstantTimeEq;

/// Bytes of the stanza's body.
pub const BODY_LEN: usize = 12 + 16 + 32 + super::WRAPPED_LEN;
/// Most passphrase stanzas in a header `[F-15]`.
const MAX_STANZAS: usize = 8;
/// Most memory times passes over all stanzas, in KiB `[F-15]`: 8 GiB.
const MAX_TOTAL_COST: u64 = 8 * 1024 * 1024;

/// Argon2id cost. Only values that [`Cost::check`] accepts are ever computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// RFC 9106's second recommendation.
    fn default() -> Self {
        Self { memory_kib: 65_536, passes: 3, lanes: 4 }
    }
}

impl Cost {
    fn parse(body: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let four = body.get(at..at + 4)?;
            Some(u32::from_be_bytes(four.try_into().ok()?))
        };
        Some(Self { memory_kib: word(0)?, passes: word(4)?, lanes: word(8)? })
    }

    fn total(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }

    /// Floor and ceiling `[F-14]`.
    pub fn check(self) -> Result<()> {
        let ok = (65_536..=2_097_152).contains(&self.memory_kib)
            && (1..=16).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
            && self.total() >= 196_608;
        require(ok, 14, || {
            format!(
                "argon2id cost out of bounds: {} KiB, {} passes, {} lanes",
                self.memory_kib, self.passes, self.lanes
            )
        })
    }
}

/// Checks every passphrase stanza of a header before any is computed `[F-14]` `[F-15]`.
pub(crate) fn check_cost(sections: &[Section]) -> Result<()> {
    let (mut count, mut total) = (0, 0);
    for stanza in sections.iter().filter(|s| s.kind == section::ARGON2ID) {
        let cost = Cost::parse(&stanza.body).ok_or_else(|| refused(12, "argon2id stanza too short"))?;
        cost.check()?;
        count += 1;
        total += cost.total();
    }
    require(count <= MAX_STANZAS && total <= MAX_TOTAL_COST, 15, || {
        format!("{count} passphrase stanzas that cost {total} KiB-passes; the limits are 8 and {MAX_TOTAL_COST}")
    })
}

/// A passphrase, as recipient and as identity.
pub struct Passphrase {
    secret: Secret,
    cost: Cost,
}

impl Passphrase {
    /// A passphrase with the default cost.
    pub fn new(secret: Secret) -> Self {
        Self { secret, cost: Cost::default() }
    }

    /// A passphrase with another cost for what it seals.
    pub fn with_cost(secret: Secret, cost: Cost) -> Result<Self> {
        cost.check()?;
        Ok(Self { secret, cost })
    }

    /// `KEK || KEK commitment`.
    fn stretch(&self, cost: Cost, own_salt: &[u8], salt: &[u8; 32]) -> Result<(Secret, [u8; 32])> {
        let broken = |e: argon2::Error| Error::Usage(format!("argon2id: {e}"));
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(broken)?;
        let mut stretched = Secret::zeroed(32);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(self.secret.expose(), own_salt, stretched.expose_mut()).map_err(broken)?;
        let hkdf = Hkdf::<Sha512>::new(Some(salt), stretched.expose());
        let (mut kek, mut both) = (Secret::zeroed(32), Secret::zeroed(64));
        hkdf.expand(b"mvault/v1/argon2id\0", both.expose_mut()).expect("64 bytes are derived");
        let mut commitment = [0; 32];
        kek.expose_mut().copy_from_slice(&both.expose()[..32]);
        commitment.copy_from_slice(&both.expose()[32..]);
        Ok((kek, commitment))
    }

    /// The stanza body around any 32-byte secret; key files use it too (FORMAT.md section 9).
    pub(crate) fn wrap_secret(
        &self,
        kind: u16,
        salt: &[u8; 32],
        secret: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>> {
        let mut own_salt = [0; 16];
        rng.fill_bytes(&mut own_salt);
        let (kek, commitment) = self.stretch(self.cost, &own_salt, salt)?;
        let Cost { memory_kib, passes, lanes } = self.cost;
        let mut before = [memory_kib, passes, lanes].map(u32::to_be_bytes).concat();
        before.extend_from_slice(&own_salt);
        before.extend_from_slice(&commitment);
        Ok(wrap(&kek, kind, salt, &before, secret))
    }

    /// The secret in a body that [`Self::wrap_secret`] made with this passphrase `[F-16]`.
    pub(crate) fn unwrap_secret(&self, kind: u16, salt: &[u8; 32], body: &[u8]) -> Result<Option<Secret>> {
        let (Some(cost), Some(own_salt), Some(expected)) = (Cost::parse(body), body.get(12..28), body.get(28..60))
        else {
            return Ok(None);
        };
        cost.check()?;
        require(cost.total() <= MAX_TOTAL_COST, 15, || format!("argon2id cost of {} KiB-passes", cost.total()))?;
        let (kek, commitment) = self.stretch(cost, own_salt, salt)?;
        if !bool::from(commitment.ct_eq(expected)) {
            return Ok(None);
        }
        let secret = unwrap(&kek, kind, salt, body);
        secret.map(Some).ok_or_else(|| refused(16, "the passphrase matches, but the wrapped key was changed"))
    }
}

impl Recipient for Passphrase {
    fn wrap_dek(&self, salt: &[u8; 32], dek: &Dek, rng: &mut dyn CryptoRng) -> Result<Section> {
        let body = self.wrap_secret(section::ARGON2ID, salt, dek.expose(), rng)?;
        Ok(Section { kind: section::ARGON2ID, body })
    }
}

impl Identity for Passphrase {
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> Result<Option<Dek>> {
        if stanza.kind != section::ARGON2ID {
            return Ok(None);
        }
        Ok(self.unwrap_secret(stanza.kind, salt, &stanza.body)?.and_then(Dek::from_secret))
    }

    fn describe(&self) -> String {
        "the passphrase".into()
    }
}
