//! `mvault broker`: a key broker, from its first key to why it refused.

mod certificate;
mod client;
mod filter;
mod init;
mod keys;
mod log;
mod revoke;
mod revoked;
mod serve;
mod why;

pub use serve::roots;

use crate::aws::AwsArgs;
use crate::error::{CliError, io};
use crate::keys::IdentityArgs;
use crate::output::Output;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use vault_broker::config::{Config, ConfigError};
use vault_broker::keyring::{Keyring, KeyringError};
use vault_broker::state::StateError;

/// Run a key broker: it releases keys of sealed models to attested enclaves, by policy
#[derive(clap::Subcommand)]
pub enum Command {
    Init(init::Args),
    Serve(serve::Args),
    Recipient(keys::RecipientArgs),
    Rotate(keys::RotateArgs),
    Certificate(certificate::Args),
    Revoke(revoke::Args),
    Why(why::Args),
    Log(log::Args),
}

pub fn run(command: &Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::Init(args) => init::run(args, out),
        Command::Serve(args) => serve::run(args, out),
        Command::Recipient(args) => keys::recipient(args, out),
        Command::Rotate(args) => keys::rotate(args, out),
        Command::Certificate(args) => certificate::run(args, out),
        Command::Revoke(args) => revoke::run(args, out),
        Command::Why(args) => why::run(args, out),
        Command::Log(args) => log::run(args, out),
    }
}

/// Seconds since 1970.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Largest keyring file.
const MAX_KEYRING: u64 = 2 * 1024 * 1024;

fn read_keyring(config: &Config, identity: &IdentityArgs, aws: &AwsArgs, out: &Output) -> Result<Keyring, CliError> {
    let path = &config.keyring;
    let artifact = read_bounded(path, MAX_KEYRING)?;
    Keyring::open(&artifact, |header| identity.unlock(header, aws, out)).map_err(|e| e.about(path.display()))
}

/// Held while files of this folder are read and replaced: of two who do that, one waits.
fn lock(folder: &Path) -> Result<File, CliError> {
    let file = File::open(folder).map_err(io(folder.display()))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|e| io(folder.display())(e.into()))?;
    Ok(file)
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, CliError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io(path.display()))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(io(path.display()))?;
    if bytes.len() as u64 > most {
        return Err(CliError::failed(format!("{}: over {most} bytes", path.display())));
    }
    Ok(bytes)
}

impl From<KeyringError> for CliError {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Artifact(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Io { path, source } => io(path.display())(source),
            wrong => Self::failed(wrong.to_string()).hint("docs/OPERATIONS.md explains each line of broker.toml"),
        }
    }
}

impl From<StateError> for CliError {
    fn from(error: StateError) -> Self {
        match &error {
            StateError::Tampered(refusal) => {
                let step = refusal.step;
                Self::not_authentic(error.to_string()).hint(format!(
                    "step {step} of docs/KEY_RELEASE.md: someone wrote to the database, or put an older one back; keep it for who looks into it"
                ))
            }
            _ => Self::failed(format!("the broker's database: {error}")),
        }
    }
}
