//! The release protocol's messages and cryptography, docs/KEY_RELEASE.md section 4. Both sides use this module; what a
//! broker decides is in vault-broker, how an enclave asks in vault-enclave.

mod messages;
mod nonce;
mod wrap;

pub use messages::{Challenge, Grant, RefusalMessage, Request, Retry, decode, encode};
pub use nonce::{NONCE_LIFE_S, NonceKey};
pub use wrap::{ENC_LEN, EnclaveKey, PUBLIC_KEY_LEN, wrap_dek};

use sha2::{Digest, Sha256};
use vault_core::header::Section;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 32;
/// Bytes of a decision id.
pub const ID_LEN: usize = 16;
/// Largest request in bytes.
pub const MAX_REQUEST: usize = 96 * 1024;
/// Largest header, without its zeros, in a request.
pub const MAX_HEADER: usize = 64 * 1024;
/// Largest answer in bytes that an enclave reads.
pub const MAX_ANSWER: usize = 64 * 1024;
/// The content type of requests and answers.
pub const MEDIA_TYPE: &str = "application/cbor";

/// What evidence is bound to; it is the document's user_data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding([u8; 32]);

impl Binding {
    /// The hash of nonce, enclave key, artifact and stanza.
    pub fn new(nonce: &[u8; NONCE_LEN], public_key: &[u8], salt: &[u8; 32], stanza: &Section) -> Self {
        let len = u16::try_from(stanza.body.len()).unwrap_or(u16::MAX); // a section's length is a u16
        let section = Sha256::new()
            .chain_update(stanza.kind.to_be_bytes())
            .chain_update(len.to_be_bytes())
            .chain_update(&stanza.body)
            .finalize();
        let digest = Sha256::new()
            .chain_update(b"mvault/v1/release\0")
            .chain_update(nonce)
            .chain_update(public_key)
            .chain_update(salt)
            .chain_update(section)
            .finalize();
        Self(digest.into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// HPKE's info.
    fn info(&self) -> Vec<u8> {
        [b"mvault/v1/release\0", &self.0[..]].concat()
    }
}

/// What a log entry says of an answer: SHA-256(enc || wrapped DEK).
pub fn answer_digest(enc: &[u8], wrapped: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(enc).chain_update(wrapped).finalize().into()
}

#[cfg(test)]
mod tests;
