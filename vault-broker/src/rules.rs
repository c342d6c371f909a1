//! What the broker goes by and may be told anew while it runs: policies and revocations.

use crate::config::{Config, ConfigError, Revoked};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use vault_attest::policy::{MAX_FILE, Policy, parse_id};

/// Policies by name, and what is revoked.
#[derive(Debug)]
pub struct Rules {
    policies: BTreeMap<String, Policy>,
    artifacts: BTreeSet<[u8; 32]>,
    recipients: BTreeSet<[u8; 32]>,
}

impl Rules {
    /// Reads every `*.toml` of the policies' folder. One bad file, or one name twice, and none is taken.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let mut policies = BTreeMap::new();
        for path in toml_files(&config.policies)? {
            let wrong = |line, message| ConfigError::Wrong { path: path.clone(), line, message };
            let bytes = read_policy(&path)?;
            let policy = Policy::parse(&bytes).map_err(|e| wrong(e.line, format!("{}; {}", e.refusal, e.fix)))?;
            let name = policy.name().to_owned();
            if policies.insert(name.clone(), policy).is_some() {
                return Err(wrong(0, format!("another file of this folder has a policy {name} already")));
            }
        }
        Ok(Self::new(policies, &config.revoked))
    }

    fn new(policies: BTreeMap<String, Policy>, revoked: &Revoked) -> Self {
        let ids = |list: &[String]| list.iter().filter_map(|id| parse_id(id)).collect();
        Self { policies, artifacts: ids(&revoked.artifacts), recipients: ids(&revoked.recipients) }
    }

    /// The policy of this name.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name)
    }

    /// All policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// Whether the artifact gets no key any more.
    pub fn is_revoked_artifact(&self, id: &[u8; 32]) -> bool {
        self.artifacts.contains(id)
    }

    /// Whether what is sealed for this key gets no key any more.
    pub fn is_revoked_recipient(&self, id: &[u8; 32]) -> bool {
        self.recipients.contains(id)
    }
}

fn toml_files(folder: &Path) -> Result<Vec<std::path::PathBuf>, ConfigError> {
    let io = |source| ConfigError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_policy(path: &Path) -> Result<Vec<u8>, ConfigError> {
    use std::io::Read;
    let io = |source| ConfigError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(io)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes) // Policy::parse refuses what is longer
}
