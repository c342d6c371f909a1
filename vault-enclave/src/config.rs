//! The measured configuration: docs/ENCLAVE.md section 2. What is in it is the image's, and nobody outside can change it;
//! it is parsed as strictly as if anyone could.

use crate::kms::{PinnedKms, is_url};
use crate::release::Pinned;
use serde::{Deserialize, Serialize};
use std::fmt;
use vault_attest::policy::parse_id;
use vault_attest::tlog::LogVerifier;
use vault_core::recipient::aws_kms::KeyArn;
use vault_core::signature::PublisherPublicKey;

/// Where it is in the image.
pub const PATH: &str = "/etc/mvault/enclave.toml";
/// Largest file, in bytes.
pub const MAX_FILE: usize = 256 * 1024;

/// Why a configuration is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Too large.
    #[error("{0} bytes; at most {MAX_FILE} are read")]
    Size(usize),
    /// Not the TOML that it should be; the line is in the message.
    #[error("{0}")]
    Toml(String),
    /// A value that cannot be.
    #[error("{key}: {message}")]
    Value {
        /// Which.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which model is taken.
    pub model: ModelRule,
    /// Who releases its key.
    pub keys: Keys,
    /// How it is served.
    pub serve: Serve,
    /// When queries look like extraction.
    pub watch: Watch,
    /// Who may ask; anyone if there is none.
    pub clients: Vec<Client>,
}

/// Who releases the model's key: one of the two.
#[derive(Debug, Clone)]
pub enum Keys {
    /// A key broker.
    Broker(Pinned),
    /// AWS KMS.
    Kms(PinnedKms),
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(broker) => write!(f, "broker {}", broker.url),
            Self::Kms(kms) => write!(f, "AWS KMS key {}", kms.key),
        }
    }
}

/// The only model that is taken.
#[derive(Debug, Clone)]
pub struct ModelRule {
    /// The manifest's name.
    pub name: String,
    /// The lowest version.
    pub minimum_version: u64,
    /// Who signed it.
    pub signer: PublisherPublicKey,
    /// The entry that has questions and right answers.
    pub golden: Option<String>,
}

/// Limits of serving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// The engine.
    pub engine: Engine,
    /// Bytes of a request's body.
    pub max_request_bytes: usize,
    /// Texts of a request.
    pub max_texts: usize,
    /// Tokens of a text; what is longer is cut.
    pub max_tokens: usize,
    /// Bytes of an answer's body.
    pub max_answer_bytes: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Requests of one client in a minute.
    pub requests_per_minute: u32,
    /// Tokens of one client in a day.
    pub tokens_per_day: u64,
    /// Seconds that a request may take.
    pub request_timeout_s: u64,
}

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// BERT-type encoders from safetensors, with a tokenizer.
    Bert,
    /// An ONNX graph.
    Onnx,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            engine: Engine::Bert,
            max_request_bytes: 64 * 1024,
            max_texts: 32,
            max_tokens: 256,
            max_answer_bytes: 1024 * 1024,
            max_connections: 64,
            requests_per_minute: 600,
            tokens_per_day: 10_000_000,
            request_timeout_s: 60,
        }
    }
}

/// Scores of a client's day (docs/ENCLAVE.md section 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// From here on the journal says so.
    pub warn: u64,
    /// From here on answers take a second longer.
    pub slow: u64,
    /// From here on there are none.
    pub stop: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { warn: 20_000, slow: 50_000, stop: 100_000 }
    }
}

/// Someone who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// For the journal and the metrics.
    pub name: String,
    /// SHA-256 of the token.
    pub token_sha256: [u8; 32],
}

/// What is pinned of a broker, as `mvault broker init` writes it to client.toml.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerFile {
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// Ids of the broker's keys, newest first.
    pub keys: Vec<String>,
    /// The release log's key, as C2SP's signed notes have it.
    pub log: String,
    /// To seal for, with `/POLICY` behind it; enclaves do not need it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recipient: String,
    /// The CA of the broker's certificate, PEM.
    pub ca: String,
}

impl BrokerFile {
    /// What the release protocol's client wants; or the key that is wrong, and how.
    pub fn pinned(&self) -> Result<Pinned, ConfigError> {
        let keys: Option<Vec<_>> = self.keys.iter().map(|key| parse_id(key)).collect();
        let keys = keys.filter(|k| !k.is_empty()).ok_or_else(|| wrong("keys", "one or more of 64 hex digits each"))?;
        let log = LogVerifier::parse(&self.log).map_err(|e| wrong("log", e.to_string()))?;
        Ok(Pinned { url: self.url.clone(), ca_pem: self.ca.clone().into_bytes(), keys, log })
    }
}

/// What is pinned of AWS KMS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsFile {
    /// The ARN of the one key that is asked about.
    pub key: String,
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// The CAs of KMS's certificate, PEM.
    pub ca: String,
}

impl KmsFile {
    /// What the client of KMS wants; or the key that is wrong, and how.
    pub fn pinned(&self) -> Result<PinnedKms, ConfigError> {
        let key = KeyArn::parse(&self.key);
        let key = key.ok_or_else(|| wrong("key", "expected arn:aws:kms:REGION:ACCOUNT:key/ID, no alias"))?;
        check(is_url(&self.url), "url", "expected https://HOST[:PORT]")?;
        Ok(PinnedKms { key, url: self.url.clone(), ca_pem: self.ca.clone().into_bytes() })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    model: ModelTable,
    broker: Option<BrokerFile>,
    kms: Option<KmsFile>,
    #[serde(default)]
    serve: Serve,
    #[serde(default)]
    watch: Watch,
    #[serde(default, rename = "client")]
    clients: Vec<ClientTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    name: String,
    minimum_version: u64,
    signer: String,
    golden: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientTable {
    name: String,
    token_sha256: String,
}

impl Config {
    /// Parses and checks the file's bytes `[E-3]`.
    pub fn parse(file: &[u8]) -> Result<Self, ConfigError> {
        if file.len() > MAX_FILE {
            return Err(ConfigError::Size(file.len()));
        }
        let text = std::str::from_utf8(file).map_err(|_| ConfigError::Toml("not UTF-8".into()))?;
        let file: File = toml::from_str(text).map_err(|e| ConfigError::Toml(e.to_string().trim().to_owned()))?;
        check(file.version == 1, "version", "only 1 is known")?;
        file.serve.check()?;
        let Watch { warn, slow, stop } = file.watch;
        check(warn > 0 && warn <= slow && slow <= stop, "watch", "expected 0 < warn <= slow <= stop")?;
        Ok(Self {
            model: file.model.check()?,
            keys: match (file.broker, file.kms) {
                (Some(broker), None) => broker.pinned().map(Keys::Broker).map_err(within("broker")),
                (None, Some(kms)) => kms.pinned().map(Keys::Kms).map_err(within("kms")),
                _ => Err(wrong("broker", "expected [broker] or [kms], and not both")),
            }?,
            serve: file.serve,
            watch: file.watch,
            clients: file.clients.iter().map(ClientTable::check).collect::<Result<_, _>>()?,
        })
    }
}

impl ModelTable {
    fn check(self) -> Result<ModelRule, ConfigError> {
        check(!self.name.is_empty() && self.name.len() <= 255, "model.name", "1 to 255 bytes")?;
        let no_lines = !self.name.contains(char::is_control);
        check(no_lines, "model.name", "a control character")?; // a line of its own in the statement of section 5
        let signer = PublisherPublicKey::from_pem(&self.signer).map_err(|e| wrong("model.signer", e.to_string()))?;
        let Self { name, minimum_version, golden, .. } = self;
        Ok(ModelRule { name, minimum_version, signer, golden })
    }
}

impl Serve {
    fn check(&self) -> Result<(), ConfigError> {
        let limits = [
            ("max_request_bytes", self.max_request_bytes, 16 * 1024 * 1024),
            ("max_texts", self.max_texts, 1024),
            ("max_tokens", self.max_tokens, 8192),
            ("max_answer_bytes", self.max_answer_bytes, 64 * 1024 * 1024),
            ("max_connections", self.max_connections, 1024),
            ("requests_per_minute", self.requests_per_minute as usize, 1_000_000),
            ("request_timeout_s", usize::try_from(self.request_timeout_s).unwrap_or(usize::MAX), 3600),
        ];
        for (key, value, most) in limits {
            check((1..=most).contains(&value), &format!("serve.{key}"), &format!("{value}; expected 1 to {most}"))?;
        }
        check(self.tokens_per_day > 0, "serve.tokens_per_day", "expected 1 or more")
    }
}

impl ClientTable {
    fn check(&self) -> Result<Client, ConfigError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good = (1..=64).contains(&self.name.len()) && self.name.chars().all(plain);
        check(good, "client.name", "1 to 64 of A-Z a-z 0-9 . _ -")?;
        let token = parse_id(&self.token_sha256);
        let token_sha256 = token.ok_or_else(|| wrong("client.token_sha256", "expected 64 hex digits"))?;
        Ok(Client { name: self.name.clone(), token_sha256 })
    }
}

/// An error of a table of the file.
fn within(table: &str) -> impl Fn(ConfigError) -> ConfigError {
    move |error| match error {
        ConfigError::Value { key, message } => ConfigError::Value { key: format!("{table}.{key}"), message },
        other => other,
    }
}

fn wrong(key: &str, message: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), message: message.into() }
}

fn check(holds: bool, key: &str, message: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(wrong(key, message)) }
}

#[cfg(test)]
mod tests;
