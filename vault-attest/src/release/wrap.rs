//! The DEK on its way to the enclave: HPKE (RFC 9180) base mode, X-Wing, HKDF-SHA512, AES-256-GCM. The `hpke` crate does it all.

use super::{Binding, ID_LEN};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha512;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use vault_core::recipient::broker::Released;
use vault_core::secret::Secret;

/// Bytes of an enclave's public key.
pub const PUBLIC_KEY_LEN: usize = 1216;
/// Bytes of HPKE's encapsulated key.
pub const ENC_LEN: usize = 1120;
/// Bytes of a wrapped DEK.
const WRAPPED_LEN: usize = 48;

type PublicKey = <XWing as Kem>::PublicKey;
type PrivateKey = <XWing as Kem>::PrivateKey;

/// The key of one release, made inside the enclave.
pub struct EnclaveKey(Secret);

impl EnclaveKey {
    /// A new key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        Self(Secret::random(32, rng))
    }

    /// Its public half: [`PUBLIC_KEY_LEN`] bytes.
    pub fn public(&self) -> Vec<u8> {
        self.private().map(|key| XWing::sk_to_pk(&key).to_bytes().to_vec()).unwrap_or_default()
    }

    /// Opens a grant `[R-21]`; `None` if it is not for this key, binding and decision.
    pub fn open(&self, binding: &Binding, id: &[u8; ID_LEN], enc: &[u8], wrapped: &[u8]) -> Option<Secret> {
        let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).ok()?;
        let key = self.private()?;
        let (mode, info) = (OpModeR::Base, binding.info());
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha512, XWing>(&mode, &key, &enc, &info, wrapped, id);
        opened.ok().map(|mut dek| Secret::take(&mut dek))
    }

    fn private(&self) -> Option<PrivateKey> {
        PrivateKey::from_bytes(self.0.expose()).ok()
    }
}

/// Whether these bytes are a public key.
pub(super) fn is_key(public_key: &[u8]) -> bool {
    PublicKey::from_bytes(public_key).is_ok()
}

/// Wraps a DEK to an enclave: `(enc, wrapped DEK)`; `None` if the key is none.
pub fn wrap_dek(
    released: Released,
    public_key: &[u8],
    binding: &Binding,
    id: &[u8; ID_LEN],
    mut rng: &mut dyn CryptoRng,
) -> Option<(Vec<u8>, [u8; WRAPPED_LEN])> {
    let key = PublicKey::from_bytes(public_key).ok()?;
    let (dek, info) = (released.into_secret(), binding.info());
    let sealed = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha512, XWing>(
        &OpModeS::Base,
        &key,
        &info,
        dek.expose(),
        id,
        &mut rng,
    );
    let (enc, wrapped) = sealed.ok()?;
    Some((enc.to_bytes().to_vec(), wrapped.try_into().ok()?))
}
