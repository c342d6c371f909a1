//! Ways to wrap the DEK: FORMAT.md section 4. A [`Recipient`] writes a stanza, an [`Identity`] opens it.
//!
//! Both are values passed in; back-ends that need a network (KMS, a key broker) implement the same
//! traits in their own crates.

pub mod argon2id;
pub mod aws_kms;
pub mod broker;
pub mod keyfile;
pub mod xwing;

use crate::aead::Engine;
use crate::error::Result;
use crate::header::Section;
use crate::keys::{DEK_LEN, Dek};
use crate::secret::Secret;
use rand_core::CryptoRng;

/// Bytes of a wrapped DEK: ciphertext and tag.
pub const WRAPPED_LEN: usize = DEK_LEN + 16;

/// Someone who shall be able to open an artifact.
pub trait Recipient {
    /// Wraps the DEK for this recipient.
    fn wrap_dek(&self, salt: &[u8; 32], dek: &Dek, rng: &mut dyn CryptoRng) -> Result<Section>;
}

/// Someone who may be able to open an artifact.
pub trait Identity {
    /// The DEK, if this identity opens the stanza; `None` if the stanza is not for it.
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> Result<Option<Dek>>;
    /// What to call it in an error: never a secret.
    fn describe(&self) -> String;
}

/// `wrapped DEK` of FORMAT.md section 4. The KEK is fresh, so the nonce may be zero.
fn wrap(kek: &Secret, kind: u16, salt: &[u8; 32], before: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut body = Secret::zeroed(secret.len());
    body.expose_mut().copy_from_slice(secret);
    let aad = [&kind.to_be_bytes(), &salt[..], before].concat();
    let tag = Engine::AesGcm.key(kek.expose()).seal([0; 12], &aad, body.expose_mut());
    [before, body.expose(), &tag].concat()
}

/// Opens the last [`WRAPPED_LEN`] bytes of a stanza's body; `None` if they do not authenticate.
fn unwrap(kek: &Secret, kind: u16, salt: &[u8; 32], body: &[u8]) -> Option<Secret> {
    let (before, wrapped) = body.split_last_chunk::<WRAPPED_LEN>()?;
    let aad = [&kind.to_be_bytes(), &salt[..], before].concat();
    let mut secret = Secret::zeroed(DEK_LEN);
    Engine::AesGcm.key(kek.expose()).open([0; 12], &aad, wrapped, secret.expose_mut()).ok()?;
    Some(secret)
}
