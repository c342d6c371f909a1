//! Which model: docs/ENCLAVE.md E-4 to E-7 and section 5. The parent chooses what it serves; what is taken is the measured
//! configuration's choice.

use crate::Dial;
use crate::config::ModelRule;
use crate::fetch::{Remote, What};
use crate::release::{ReleaseError, ReleasedKey};
use crate::weights::Weights;
use sha2::{Digest, Sha256, Sha384};
use vault_core::aead::Engine;
use vault_core::error::Error;
use vault_core::header::{AuthenticatedHeader, Header, hex};
use vault_core::io::{Input, ReadAt};
use vault_core::manifest::Manifest;
use vault_core::open::{EntrySink, OpenOptions, RangeReader, Release, open};

/// Longest header that is read, in bytes: FORMAT.md F-3.
const MAX_HEADER: u64 = 1024 * 1024;

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The parent does not serve it.
    #[error("[{step}] the parent's model: {source}")]
    Fetch {
        /// `E-n`
        step: &'static str,
        /// What happened.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("[{step}] {source}")]
    Refused {
        /// `E-n`
        step: &'static str,
        /// The rule of FORMAT.md, and what was found.
        source: Error,
    },
    /// There is no key for it.
    #[error("[E-5] {0}")]
    Key(#[from] ReleaseError),
    /// Another model than the configuration wants.
    #[error("[E-6] {what}: expected {expected}, found {found}")]
    Other {
        /// Name or version.
        what: &'static str,
        /// The measured configuration's.
        expected: String,
        /// The manifest's.
        found: String,
    },
}

fn refused(step: &'static str) -> impl Fn(Error) -> ModelError {
    move |source| ModelError::Refused { step, source }
}

/// A sealed model that the pinned signer signed; its key is still to be asked for.
pub struct Sealed<'d, 'r> {
    rule: &'r ModelRule,
    header: Header,
    payload: Remote<'d>,
}

impl<'d, 'r> Sealed<'d, 'r> {
    /// Fetches the header and checks the signature on it `[E-4]`.
    pub fn fetch(dial: &'d dyn Dial, rule: &'r ModelRule) -> Result<Self, ModelError> {
        let fetch = |source| ModelError::Fetch { step: "E-4", source };
        let remote = Remote::open(dial, What::Header).map_err(fetch)?;
        let len = usize::try_from(remote.len().min(MAX_HEADER)).unwrap_or_default();
        let mut bytes = vec![0; len];
        remote.read_exact_at(&mut bytes, 0).map_err(fetch)?;
        let header = Header::read(&mut &bytes[..]).map_err(refused("E-4"))?;
        let signature = header.signature();
        let not_signed = || Error::Usage("it is not signed; the image takes only what its signer signed".into());
        let signature = signature.ok_or_else(not_signed).map_err(refused("E-4"))?;
        signature.verify(header.prelude(), std::slice::from_ref(&rule.signer)).map_err(refused("E-4"))?;
        let payload = Remote::open(dial, What::Payload).map_err(fetch)?;
        Ok(Self { rule, header, payload })
    }

    /// To ask for its key with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Opens the header with the key that was released, reads the manifest and compares it with the configuration `[E-6]`.
    pub fn choose(self, key: &ReleasedKey) -> Result<Chosen<'d>, ModelError> {
        let header = self.header.unlock(&[key.identity()]).map_err(refused("E-6"))?;
        let reader = RangeReader::new(&self.payload, 0, self.payload.len(), &header, Engine::fastest());
        let manifest = reader.map_err(refused("E-6"))?.manifest().clone();
        let other = |what, expected: String, found: String| Err(ModelError::Other { what, expected, found });
        if manifest.name != self.rule.name {
            return other("the model's name", self.rule.name.clone(), manifest.name);
        }
        if manifest.model_version < self.rule.minimum_version {
            let expected = format!("{} or later", self.rule.minimum_version);
            return other("the model's version", expected, manifest.model_version.to_string());
        }
        key.check_version(manifest.model_version).map_err(ReleaseError::from)?;
        let signature = self.header.signature();
        key.check_signature(signature.as_ref()).map_err(ReleaseError::from)?;
        let signature = signature.ok_or_else(|| Error::Usage("it is not signed".into())).map_err(refused("E-6"))?;
        let salt = &self.header.prelude().salt;
        let same = signature.check_identity(salt, &manifest.name, manifest.model_version);
        same.map_err(refused("E-6"))?;
        let statement = Statement {
            name: manifest.name.clone(),
            version: manifest.model_version,
            artifact: *salt,
            payload: signature.payload.digest,
            signer: signature.key_id,
        };
        Ok(Chosen { header, payload: self.payload, manifest, statement, rule: self.rule.clone() })
    }
}

/// The model that the configuration wants, with its key; nothing of it is loaded.
pub struct Chosen<'d> {
    header: AuthenticatedHeader,
    payload: Remote<'d>,
    manifest: Manifest,
    statement: Statement,
    rule: ModelRule,
}

impl Chosen<'_> {
    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What clients will be told, and PCR16 extended with, once it is loaded.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Bytes that come through the parent.
    pub fn sealed_len(&self) -> u64 {
        self.payload.len()
    }

    /// Streams it into memory `[E-7]`. What is in [`Weights`] counts only when this has returned it.
    pub fn load(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Weights, ModelError> {
        let reader = RangeReader::new(&self.payload, 0, self.payload.len(), &self.header, Engine::fastest());
        let weights = reader.and_then(|reader| Weights::plan(&reader)).map_err(refused("E-7"))?;
        self.stream(&weights, threads, progress)?;
        Ok(weights)
    }

    /// Streams it into another sink `[E-7]`.
    pub fn stream(
        &self,
        sink: &dyn EntrySink,
        threads: usize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ModelError> {
        let signers = std::slice::from_ref(&self.rule.signer);
        let options = OpenOptions { signers, threads, progress, ..OpenOptions::default() };
        let input = Input::At { file: &self.payload, offset: 0, len: self.payload.len() };
        open(input, &self.header, &options, Release::Files(sink)).map_err(refused("E-7"))?;
        Ok(())
    }
}

/// The identity of the model that was loaded (docs/ENCLAVE.md section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The manifest's name.
    pub name: String,
    /// The manifest's version.
    pub version: u64,
    /// The artifact's id.
    pub artifact: [u8; 32],
    /// The signed payload digest.
    pub payload: [u8; 32],
    /// The signer's key id.
    pub signer: [u8; 32],
}

const TITLE: &str = "mvault/enclave/model/v1\n";

impl Statement {
    /// Its one form.
    pub fn text(&self) -> String {
        let Self { name, version, artifact, payload, signer } = self;
        let (artifact, payload, signer) = (hex(artifact), hex(payload), hex(signer));
        format!("{TITLE}name={name}\nversion={version}\nartifact={artifact}\npayload={payload}\nsigner={signer}\n")
    }

    /// Parses that form and no other.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_prefix(TITLE)?.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        let (name, version) = (value("name")?, value("version")?.parse().ok()?);
        let mut id = |key: &str| value(key).as_deref().and_then(vault_attest::policy::parse_id);
        let statement =
            Self { name, version, artifact: id("artifact")?, payload: id("payload")?, signer: id("signer")? };
        (statement.text() == text).then_some(statement)
    }

    /// What PCR16 is extended with: SHA-384 of the text.
    pub fn measurement(&self) -> [u8; 48] {
        Sha384::digest(self.text()).into()
    }

    /// PCR16 of an enclave that loaded it and nothing else.
    pub fn pcr16(&self) -> [u8; 48] {
        Sha384::new().chain_update([0; 48]).chain_update(self.measurement()).finalize().into()
    }
}

/// What user_data of an attested-TLS document is: docs/ENCLAVE.md section 6.
pub fn tls_binding(nonce: &[u8; 32], public_key: &[u8]) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(b"mvault/attested-tls/v1");
    hash.chain_update(nonce).chain_update(public_key).finalize().into()
}

#[cfg(test)]
mod tests;
