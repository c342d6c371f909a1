//! The project file `mvault.toml`, found in the working folder or above it, and the per-user default identity.
//! A project file can add recipients and demand signers; it can never switch a check off.

use crate::error::{CliError, io};
use etcetera::BaseStrategy;
use serde::Deserialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Largest project file read.
const MAX_PROJECT_FILE: u64 = 1024 * 1024;

/// `mvault.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Project {
    /// Recipients' lines to seal for.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// A recipients file, relative to the project file.
    pub recipients_file: Option<PathBuf>,
    /// Publishers' public keys (PEM), one of which must have signed what is opened here.
    #[serde(default)]
    pub signers: Vec<PathBuf>,
    /// The default vault: `s3://bucket/prefix`, or a folder, relative to the project file.
    pub vault: Option<String>,
    /// Record SHA-256 digests when sealing.
    #[serde(default)]
    pub sha256: bool,
    #[serde(skip)]
    path: PathBuf,
}

impl Project {
    /// The nearest project file, or an empty one.
    pub fn find() -> Result<Self, CliError> {
        let cwd = std::env::current_dir().map_err(io("working folder"))?;
        let found = cwd.ancestors().map(|dir| dir.join("mvault.toml")).find(|p| p.is_file());
        let Some(path) = found else { return Ok(Self::default()) };
        let metadata = std::fs::metadata(&path).map_err(io(path.display()))?;
        let len = metadata.len();
        // Whoever can put a file above the working folder (/tmp, say) must not choose recipients.
        if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
            return Err(CliError::failed(format!("{}: belongs to another user", path.display()))
                .hint("if it is meant for you, make it yours (chown), or work in another folder"));
        }
        if len > MAX_PROJECT_FILE {
            return Err(CliError::failed(format!("{}: over 1 MiB; is it a project file?", path.display())));
        }
        let text = std::fs::read_to_string(&path).map_err(io(path.display()))?;
        let project: Self = toml::from_str(&text).map_err(|e| {
            CliError::failed(format!("{}: {}", path.display(), e.message()))
                .hint("known keys: recipients, recipients-file, signers, sha256, vault")
        })?;
        Ok(Self { path, ..project })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the file, relative to it.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(path)
    }
}

/// Where records of interrupted pushes are kept.
pub fn push_records() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.state_dir().unwrap_or_else(|| base.data_dir()).join("mvault").join("pushes"))
}

/// Where `mvault keygen` puts the user's key.
pub fn default_identity() -> Result<PathBuf, CliError> {
    let base =
        etcetera::choose_base_strategy().map_err(|_| CliError::failed("no home folder: give the key with -i FILE"))?;
    Ok(base.config_dir().join("mvault").join("identity.txt"))
}
