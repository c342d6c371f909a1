//! Nonces that carry their own expiry and MAC `[R-2]` `[R-3]`: giving one out costs the broker no state.

use super::NONCE_LEN;
use crate::step::{Refusal, Step};
use crate::time::rfc3339;
use hmac::{Hmac, KeyInit, Mac};
use rand_core::CryptoRng;
use sha2::Sha512;
use subtle::ConstantTimeEq;
use vault_core::secret::Secret;

/// Seconds that a nonce lives.
pub const NONCE_LIFE_S: u64 = 120;
/// Bytes before the MAC: expiry and randomness.
const SAID: usize = 16;

/// The key of a broker's nonces; replicas share it.
pub struct NonceKey(Secret);

impl NonceKey {
    /// Bytes of the key.
    pub const LEN: usize = 64;

    /// From [`Self::LEN`] bytes; `None` if there are more or fewer.
    pub fn new(key: Secret) -> Option<Self> {
        (key.expose().len() == Self::LEN).then_some(Self(key))
    }

    /// A new nonce.
    pub fn issue(&self, now_s: u64, rng: &mut dyn CryptoRng) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        let expiry = u32::try_from(now_s + NONCE_LIFE_S).unwrap_or(u32::MAX);
        let (said, mac) = nonce.split_at_mut(SAID);
        said[..4].copy_from_slice(&expiry.to_be_bytes());
        rng.fill_bytes(&mut said[4..]);
        mac.copy_from_slice(&self.mac(said));
        nonce
    }

    /// Whether this key made the nonce `[R-2]` and it still lives `[R-3]`; gives its expiry in seconds since 1970.
    pub fn check(&self, nonce: &[u8; NONCE_LEN], now_s: u64) -> Result<u64, Refusal> {
        let (said, mac) = nonce.split_at(SAID);
        if !bool::from(self.mac(said).ct_eq(mac)) {
            let expected = "a nonce of this broker's challenges";
            return Err(Refusal::new(Step::R(2), "nonce", expected, "one it did not make"));
        }
        let expiry = said.first_chunk::<4>().map_or(0, |four| u64::from(u32::from_be_bytes(*four)));
        if now_s > expiry {
            return Err(Refusal::new(Step::R(3), "nonce", format!("used until {}", rfc3339(expiry)), rfc3339(now_s)));
        }
        Ok(expiry)
    }

    fn mac(&self, said: &[u8]) -> [u8; NONCE_LEN - SAID] {
        let mut hmac = Hmac::<Sha512>::new_from_slice(self.0.expose()).expect("HMAC takes keys of any length");
        hmac.update(b"mvault/v1/nonce\0");
        hmac.update(said);
        let mut mac = [0; NONCE_LEN - SAID];
        mac.copy_from_slice(&hmac.finalize().into_bytes()[..NONCE_LEN - SAID]);
        mac
    }
}
