//! The publisher's signature: FORMAT.md section 4.6. ECDSA P-256 with SHA-256, keys as OpenSSF Model Signing
//! uses them. It covers ciphertext, identity and version, never the recipients.

use crate::error::{Error, Result, refused, require};
use crate::header::{Prelude, Section, VERSION, section};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of the section's body.
pub const BODY_LEN: usize = SIGNED_LEN + 64;
const SIGNED_LEN: usize = 32 + 32 + 8 + 32;

/// A publisher's private key.
pub struct PublisherKey(SigningKey);

impl PublisherKey {
    /// A new key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        loop {
            let seed = crate::secret::Secret::random(32, rng);
            if let Ok(key) = SigningKey::from_slice(seed.expose()) {
                return Self(key); // all but 2^-32 of seeds are valid scalars
            }
        }
    }

    /// From PEM: PKCS#8 or SEC 1.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let pem = pem.trim(); // secrets of a CI come with blank lines
        let sec1 = || p256::SecretKey::from_sec1_pem(pem).map(SigningKey::from).ok();
        SigningKey::from_pkcs8_pem(pem).ok().or_else(sec1).map(Self).ok_or_else(|| {
            let protected = pem.contains("ENCRYPTED");
            let why = if protected { "it is encrypted; give the decrypted key" } else { "expected P-256 in PEM" };
            Error::Usage(format!("not a usable signing key: {why}"))
        })
    }

    /// PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        self.0.to_pkcs8_pem(LineEnding::LF).map_err(|e| Error::Usage(format!("encode the key: {e}")))
    }

    /// The public half.
    pub fn public(&self) -> PublisherPublicKey {
        PublisherPublicKey(*self.0.verifying_key())
    }

    /// ECDSA-Sig-Value in DER over SHA-256 of `message` (SIGNATURES.md section 1).
    pub(crate) fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    /// Names a job of a CI to this key's holder alone: where a vault keeps what it published `[F-49]`.
    pub fn job_mark(&self, name: &str, job: &str) -> [u8; 32] {
        self.job_digest(&[b"mark", name.as_bytes(), job.as_bytes()])
    }

    /// Shows this key's holder that a job published this artifact `[F-49]`; nobody else can make or check it.
    pub fn job_proof(&self, name: &str, job: &str, version: u64, salt: &[u8; 32]) -> [u8; 32] {
        self.job_digest(&[b"proof", name.as_bytes(), job.as_bytes(), &version.to_be_bytes(), salt])
    }

    fn job_digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let scalar = Zeroizing::new(<[u8; 32]>::from(self.0.to_bytes()));
        let key = Zeroizing::new(blake3::derive_key("mvault v1 publishing jobs", &*scalar));
        let mut hasher = blake3::Hasher::new_keyed(&key);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Signs an artifact `[F-20]`.
    pub(crate) fn sign(&self, prelude: &Prelude, identity: [u8; 32], payload: &PayloadDigest) -> Section {
        let mut body = self.public().key_id().to_vec();
        body.extend_from_slice(&identity);
        body.extend_from_slice(&payload.len.to_be_bytes());
        body.extend_from_slice(&payload.digest);
        let signature: Signature = self.0.sign(&statement(prelude, &body));
        body.extend_from_slice(&signature.to_bytes());
        Section { kind: section::SIGNATURE, body }
    }
}

/// A publisher's public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherPublicKey(VerifyingKey);

impl PublisherPublicKey {
    /// From PEM or DER SubjectPublicKeyInfo.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let key = VerifyingKey::from_public_key_pem(pem);
        key.map(Self).map_err(|_| Error::Usage("not a P-256 public key in PEM (SubjectPublicKeyInfo)".into()))
    }

    /// From DER SubjectPublicKeyInfo.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let key = VerifyingKey::from_public_key_der(der);
        key.map(Self).map_err(|_| Error::Usage("not a P-256 public key in DER".into()))
    }

    /// PEM SubjectPublicKeyInfo.
    pub fn to_pem(&self) -> Result<String> {
        let pem = self.0.to_public_key_pem(LineEnding::LF);
        pem.map_err(|e| Error::Usage(format!("encode the key: {e}")))
    }

    /// DER SubjectPublicKeyInfo.
    pub fn to_der(&self) -> Result<Vec<u8>> {
        let der = self.0.to_public_key_der();
        der.map(|d| d.as_bytes().to_vec()).map_err(|e| Error::Usage(format!("encode the key: {e}")))
    }

    /// Whether this key made the ECDSA-Sig-Value in DER over SHA-256 of `message` (SIGNATURES.md [M-8]).
    pub(crate) fn verifies_der(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature).is_ok_and(|s| self.0.verify(message, &s).is_ok())
    }

    /// SHA-256 of the DER encoding.
    pub fn key_id(&self) -> [u8; 32] {
        self.to_der().map(|der| Sha256::digest(der).into()).unwrap_or_default()
    }
}

/// Length and digest of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadDigest {
    /// Ciphertext bytes.
    pub len: u64,
    /// `payload digest` of FORMAT.md section 4.6.
    pub digest: [u8; 32],
}

/// The payload digest of leaves that come in order, in constant memory.
pub struct PayloadHasher {
    root: Sha256,
    len: u64,
}

impl PayloadHasher {
    /// Of nothing yet.
    #[expect(clippy::new_without_default)] // a digest of nothing is no sensible default
    pub fn new() -> Self {
        Self { root: Sha256::new_with_prefix(b"mvault/v1/payload\0"), len: 0 }
    }

    /// The next chunk: its leaf and its bytes with the tag.
    pub fn push(&mut self, leaf: &[u8; 32], chunk_len: usize) {
        self.root.update(leaf);
        self.len += chunk_len as u64;
    }

    /// Counts bytes whose leaves nobody asked for.
    pub(crate) fn skip(&mut self, len: usize) {
        self.len += len as u64;
    }

    /// The digest of all chunks.
    pub fn finish(self) -> PayloadDigest {
        let digest = self.root.chain_update(self.len.to_be_bytes()).finalize();
        PayloadDigest { len: self.len, digest: digest.into() }
    }
}

/// A signature section, parsed. Nothing in it is verified until [`SignatureSection::verify`].
#[derive(Debug, Clone)]
pub struct SignatureSection {
    /// SHA-256 of the signer's DER public key.
    pub key_id: [u8; 32],
    /// Commitment to name and version.
    pub identity: [u8; 32],
    /// The payload it was made for.
    pub payload: PayloadDigest,
    body: Vec<u8>,
}

impl SignatureSection {
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let array = |at: usize| body.get(at..at + 32)?.try_into().ok();
        let len = u64::from_be_bytes(body.get(64..72)?.try_into().ok()?);
        (body.len() == BODY_LEN).then_some(())?;
        let payload = PayloadDigest { len, digest: array(72)? };
        Some(Self { key_id: array(0)?, identity: array(32)?, payload, body: body.to_vec() })
    }

    /// Checks that one of `signers` made this statement `[F-20]`. The payload is still to be compared.
    pub fn verify<'k>(&self, prelude: &Prelude, signers: &'k [PublisherPublicKey]) -> Result<&'k PublisherPublicKey> {
        let short = |id: &[u8; 32]| crate::header::hex(&id[..8]);
        let key = signers.iter().find(|k| k.key_id() == self.key_id).ok_or_else(|| {
            let demanded: Vec<_> = signers.iter().map(|k| short(&k.key_id())).collect();
            refused(20, format!("signed by key {}…, demanded: {}…", short(&self.key_id), demanded.join("…, ")))
        })?;
        let (signed, rs) = self.body.split_at_checked(SIGNED_LEN).unwrap_or_default();
        let signature = Signature::from_slice(rs).ok();
        let verified = signature.is_some_and(|s| key.0.verify(&statement(prelude, signed), &s).is_ok());
        require(verified, 20, || "the publisher's signature does not verify".into())?;
        Ok(key)
    }

    /// Compares the payload that was read with the one that was signed `[F-21]`.
    pub fn check_payload(&self, read: &PayloadDigest) -> Result<()> {
        require(*read == self.payload, 21, || {
            format!("the payload ({} bytes) is not the one that was signed ({} bytes)", read.len, self.payload.len)
        })
    }

    /// Compares name and version with the signed commitment `[F-22]`.
    pub fn check_identity(&self, salt: &[u8; 32], name: &str, model_version: u64) -> Result<()> {
        require(identity_commitment(salt, name, model_version) == self.identity, 22, || {
            format!("name {name:?} version {model_version} is not what was signed")
        })
    }
}

/// `identity commitment` of FORMAT.md section 4.6.
pub fn identity_commitment(salt: &[u8; 32], name: &str, model_version: u64) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"mvault/v1/identity\0")
        .chain_update(salt)
        .chain_update(model_version.to_be_bytes())
        .chain_update(name)
        .finalize()
        .into()
}

fn statement(prelude: &Prelude, signed: &[u8]) -> Vec<u8> {
    let mut out = b"mvault/v1/signature\0".to_vec();
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&prelude.chunk_size.to_be_bytes());
    out.extend_from_slice(&prelude.salt);
    out.extend_from_slice(&prelude.commitment);
    out.extend_from_slice(signed);
    out
}
