//! Every key derivation of the format, in one place: FORMAT.md section 3.
//!
//! A [`Dek`] is unwrapped from a stanza; `Dek::unlock` checks commitment and header MAC, and only
//! its result can derive the about key and payload keys.

use crate::error::{Result, refused};
use crate::header::{Prelude, VERSION};
use crate::secret::Secret;
use hkdf::Hkdf;
use hmac::{KeyInit, Mac};
use rand_core::CryptoRng;
use sha2::Sha512;
use subtle::ConstantTimeEq;

type HmacSha512 = hmac::Hmac<Sha512>;

/// Bytes of a data encryption key.
pub const DEK_LEN: usize = 32;

/// The data encryption key of one artifact.
pub struct Dek(Secret);

impl Dek {
    /// A fresh key. Every artifact has its own.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        Self(Secret::random(DEK_LEN, rng))
    }

    /// A key that a stanza gave; `None` if it is not 32 bytes.
    pub fn from_secret(secret: Secret) -> Option<Self> {
        (secret.expose().len() == DEK_LEN).then_some(Self(secret))
    }

    /// The key's bytes, for wrapping.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// The key's bytes, to be wrapped for someone who may have it.
    pub(crate) fn into_secret(self) -> Secret {
        self.0
    }

    /// A second copy in locked memory of its own.
    pub(crate) fn duplicate(&self) -> Self {
        let mut copy = Secret::zeroed(DEK_LEN);
        copy.expose_mut().copy_from_slice(self.0.expose());
        Self(copy)
    }

    /// The schedule of a new artifact, whose header this DEK's owner is about to write.
    pub(crate) fn schedule(&self, salt: &[u8; 32], chunk_size: u32) -> Schedule {
        Schedule::new(self, salt, chunk_size)
    }

    /// Checks the header's commitment `[F-7]` and MAC `[F-8]`, in constant time.
    pub(crate) fn unlock(&self, prelude: &Prelude, authenticated: &[u8], mac: &[u8]) -> Result<Schedule> {
        let schedule = Schedule::new(self, &prelude.salt, prelude.chunk_size);
        if !bool::from(schedule.commitment().ct_eq(&prelude.commitment)) {
            return Err(refused(7, "the key commitment is not that of the unwrapped key"));
        }
        if !bool::from(schedule.header_mac(authenticated).ct_eq(mac)) {
            return Err(refused(8, "the header was changed: its MAC does not verify"));
        }
        Ok(schedule)
    }
}

/// The keys derived from a DEK. Outside this crate it is reachable only through
/// [`crate::header::AuthenticatedHeader`].
pub struct Schedule {
    prk: Secret,
    chunk_size: u32,
}

impl Schedule {
    fn new(dek: &Dek, salt: &[u8; 32], chunk_size: u32) -> Self {
        let (mut prk, _) = Hkdf::<Sha512>::extract(Some(salt), dek.expose());
        Self { prk: Secret::take(&mut prk), chunk_size }
    }

    fn derive(&self, label: &str, context: &[u8], out: &mut [u8]) {
        let hkdf = Hkdf::<Sha512>::from_prk(self.prk.expose()).expect("a PRK has 64 bytes");
        let info = [b"mvault/v1/", label.as_bytes(), &[0], context];
        hkdf.expand_multi_info(&info, out).expect("at most 64 bytes are derived");
    }

    pub(crate) fn commitment(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let context = [VERSION.to_be_bytes(), self.chunk_size.to_be_bytes()].concat();
        self.derive("commitment", &context, &mut out);
        out
    }

    pub(crate) fn header_mac(&self, authenticated: &[u8]) -> [u8; 32] {
        let mut key = Secret::zeroed(64);
        self.derive("header", b"", key.expose_mut());
        let mut mac = HmacSha512::new_from_slice(key.expose()).expect("HMAC takes any key length");
        mac.update(authenticated);
        let full = mac.finalize().into_bytes();
        let mut out = [0; 32];
        out.copy_from_slice(&full[..32]);
        out
    }

    pub(crate) fn about_key(&self, about_salt: &[u8; 32]) -> Secret {
        let mut key = Secret::zeroed(32);
        self.derive("about", about_salt, key.expose_mut());
        key
    }

    /// Key (32 bytes) and base nonce (12) of segment `segment`: chunks `segment << 20` and on.
    pub(crate) fn segment(&self, segment: u64) -> Secret {
        let mut out = Secret::zeroed(44);
        let context = [&self.chunk_size.to_be_bytes()[..], &segment.to_be_bytes()].concat();
        self.derive("payload", &context, out.expose_mut());
        out
    }
}
