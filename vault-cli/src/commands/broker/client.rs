//! `client.toml`: what an enclave pins of a broker. Nothing in it is secret.

use crate::error::CliError;
use serde::{Deserialize, Serialize};
use std::path::Path;
use vault_attest::policy::parse_id;
use vault_attest::tlog::LogVerifier;
use vault_broker::keyring::Keyring;
use vault_core::header::hex;
use vault_core::recipient::keyfile::encode_broker;
use vault_enclave::release::Pinned;

/// Largest file.
const MAX_FILE: u64 = 256 * 1024;

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// Ids of the broker's keys, newest first.
    pub keys: Vec<String>,
    /// The release log's key, as C2SP's signed notes have it.
    pub log: String,
    /// To seal for, with `/POLICY` behind it.
    pub recipient: String,
    /// The CA of the broker's certificate, PEM.
    pub ca: String,
}

const HEAD: &str = "# What enclaves pin of this broker: docs/KEY_RELEASE.md. Nothing here is secret.\n\n";

impl ClientFile {
    /// For a broker with these keys.
    pub fn new(url: &str, keyring: &Keyring, log: &LogVerifier, ca: &str) -> Self {
        let keys = keyring.keys();
        Self {
            url: url.to_owned(),
            keys: keys.iter().map(|aged| hex(aged.key.id())).collect(),
            log: log.to_string(),
            recipient: keys.first().map(|aged| encode_broker(aged.key.public())).unwrap_or_default(),
            ca: ca.to_owned(),
        }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let keys: Vec<_> = self.keys.iter().map(|key| format!("  \"{key}\",\n")).collect();
        format!(
            "{HEAD}url = {:?}\nkeys = [\n{}]\nlog = {:?}\nrecipient = {:?}\nca = \"\"\"\n{}\"\"\"\n",
            self.url,
            keys.concat(),
            self.log,
            self.recipient,
            self.ca
        )
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let bytes = super::read_bounded(path, MAX_FILE)?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        toml::from_str(text).map_err(|e| {
            CliError::failed(format!("{}: {}", path.display(), e.message()))
                .hint("`mvault broker init` writes client.toml")
        })
    }

    /// What the release protocol's client wants.
    pub fn pinned(&self) -> Result<Pinned, CliError> {
        let wrong = |what: &str| CliError::failed(format!("client.toml: {what}"));
        let keys: Option<Vec<_>> = self.keys.iter().map(|key| parse_id(key)).collect();
        let keys = keys.ok_or_else(|| wrong("keys are 64 hex digits each"))?;
        let log = LogVerifier::parse(&self.log).map_err(|e| wrong(&e.to_string()))?;
        Ok(Pinned { url: self.url.clone(), ca_pem: self.ca.clone().into_bytes(), keys, log })
    }
}
