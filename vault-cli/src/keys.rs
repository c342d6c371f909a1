//! Keys and passphrases from files, terminals and file descriptors; never from the command line itself or
//! the environment.

use crate::aws::AwsArgs;
use crate::config::{Project, default_identity};
use crate::error::{CliError, io};
use crate::kms::{Kms, Named, Source, parse_source, why};
use crate::output::Output;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};
use vault_core::Rule;
use vault_core::header::{AuthenticatedHeader, Header, section};
use vault_core::recipient::argon2id::Passphrase;
use vault_core::recipient::keyfile::{KeyLine, lines, parse_identities, unprotect};
use vault_core::recipient::xwing::XWingRecipient;
use vault_core::recipient::{Identity, Recipient};
use vault_core::secret::Secret;
use vault_core::signature::{PublisherKey, PublisherPublicKey};

/// Largest file of secret keys read.
const MAX_KEY_FILE: usize = 64 * 1024;
/// Largest file of recipients or public keys read.
const MAX_PUBLIC_FILE: u64 = 4 * 1024 * 1024;
/// Longest passphrase in bytes.
const MAX_PASSPHRASE: usize = 4096;

/// Recipients' lines.
#[derive(clap::Args)]
pub struct RecipientLines {
    /// Seal for this recipient: a line of `mvault keygen`, aws-kms:KEY, or a broker's LINE/POLICY; may be repeated
    #[arg(short, long = "recipient", value_name = "RECIPIENT")]
    recipients: Vec<String>,
    /// Seal for every recipient in this file, one line each; may be repeated
    #[arg(short = 'R', long = "recipients-file", value_name = "FILE")]
    recipient_files: Vec<PathBuf>,
}

/// Whom to seal for.
#[derive(clap::Args)]
pub struct RecipientArgs {
    #[command(flatten)]
    lines: RecipientLines,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// A further passphrase for an artifact.
#[derive(clap::Args)]
pub struct NewPassphraseArgs {
    /// Add a passphrase, asked for on the terminal
    #[arg(long)]
    new_passphrase: bool,
    /// Add a passphrase, read from this file descriptor
    #[arg(long, value_name = "FD", conflicts_with = "new_passphrase")]
    new_passphrase_fd: Option<u32>,
}

impl NewPassphraseArgs {
    /// The passphrase, if one was asked for.
    pub fn get(self: &NewPassphraseArgs) -> Result<Option<Passphrase>, CliError> {
        let args = PassphraseArgs { passphrase: self.new_passphrase, passphrase_fd: self.new_passphrase_fd };
        args.get("new passphrase", true)
    }
}

/// A passphrase, from the terminal or a file descriptor.
#[derive(clap::Args)]
pub struct PassphraseArgs {
    /// Use a passphrase, asked for on the terminal
    #[arg(short, long)]
    passphrase: bool,
    /// Use a passphrase, read from this file descriptor: --passphrase-fd 3 3<FILE
    #[arg(long, value_name = "FD", conflicts_with = "passphrase")]
    passphrase_fd: Option<u32>,
}

/// How to open.
#[derive(clap::Args)]
pub struct IdentityArgs {
    /// Key file to open with, or aws-kms[:KEY-ARN]; may be repeated [default: your key of `mvault keygen`]
    #[arg(short, long = "identity", value_name = "FILE", value_parser = OsStringValueParser::new().try_map(parse_source))]
    identities: Vec<Source>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Whose signature to demand.
#[derive(clap::Args)]
pub struct SignerArgs {
    /// Refuse unless signed with this publisher's key (PEM); may be repeated, one must match
    #[arg(long = "signer", value_name = "PUB.PEM")]
    signers: Vec<PathBuf>,
}

impl PassphraseArgs {
    /// The passphrase that was asked for on the command line.
    fn get(&self, prompt: &str, confirm: bool) -> Result<Option<Passphrase>, CliError> {
        if let Some(fd) = self.passphrase_fd {
            let path = format!("/dev/fd/{fd}");
            let mut file = File::open(&path).map_err(io(format!("passphrase from descriptor {fd}")))?;
            let secret = Secret::read_from(&mut file, MAX_PASSPHRASE).map_err(io("passphrase"))?;
            return checked(secret.without_newline()).map(Some);
        }
        if self.passphrase { ask(prompt, confirm).map(Some) } else { Ok(None) }
    }
}

fn checked(secret: Secret) -> Result<Passphrase, CliError> {
    if secret.is_empty() {
        return Err(CliError::failed("the passphrase is empty"));
    }
    Ok(Passphrase::new(secret))
}

fn ask(prompt: &str, confirm: bool) -> Result<Passphrase, CliError> {
    let no_terminal = |_| {
        CliError::failed("there is no terminal to ask for a passphrase on")
            .hint("give it through a file descriptor: --passphrase-fd 3 3<FILE")
    };
    let read = |prompt: &str| {
        let text = rpassword::prompt_password(prompt).map_err(no_terminal)?;
        Ok::<_, CliError>(Secret::take(&mut text.into_bytes()))
    };
    let secret = read(&format!("{prompt}: "))?;
    if confirm && read("the same again: ")?.expose() != secret.expose() {
        return Err(CliError::failed("the two passphrases differ"));
    }
    checked(secret)
}

/// The passphrase for a new key file, if one was asked for.
pub fn new_passphrase(args: &PassphraseArgs) -> Result<Option<Passphrase>, CliError> {
    args.get("passphrase for the key file", true)
}

impl RecipientLines {
    /// The recipients that were given.
    pub fn load(&self) -> Result<Vec<Named>, CliError> {
        let mut all = Vec::new();
        for line in &self.recipients {
            all.push(Named::parse(line.trim())?);
        }
        for path in &self.recipient_files {
            all.extend(recipients_in(path)?);
        }
        Ok(all)
    }
}

impl RecipientArgs {
    /// The recipients on the command line; none if there are none.
    fn given(&self, aws: &AwsArgs, out: &Output) -> Result<Vec<Box<dyn Recipient>>, CliError> {
        let mut all = boxed(&self.lines.load()?, aws, out)?;
        if let Some(passphrase) = self.passphrase.get("passphrase to seal with", true)? {
            all.push(Box::new(passphrase));
        }
        Ok(all)
    }

    /// The recipients on the command line, or the project's, or the user.
    pub fn all(&self, project: &Project, aws: &AwsArgs, out: &Output) -> Result<Vec<Box<dyn Recipient>>, CliError> {
        let mut all = self.given(aws, out)?;
        if !all.is_empty() {
            return Ok(all);
        }
        for line in &project.recipients {
            let named = Named::parse(line).map_err(|e| e.about(project.path().display()))?;
            all.push(named.recipient(aws, out)?);
        }
        if let Some(path) = &project.recipients_file {
            all.extend(boxed(&recipients_in(&project.resolve(path))?, aws, out)?);
        }
        if !all.is_empty() {
            out.note(&format!("sealing for {} of {}", count(all.len(), "recipient"), project.path().display()));
            return Ok(all);
        }
        let path = default_identity()?;
        if !path.exists() {
            return Err(CliError::usage("no recipient: nobody could open the artifact")
                .hint("run `mvault keygen` once to seal for yourself, or name recipients with -r, or use -p"));
        }
        for identity in load_identities(&path)? {
            let KeyLine::Secret(identity) = identity else {
                return Err(CliError::usage("your key file is protected by a passphrase")
                    .hint("seal for it with -r and the line that `mvault keygen` printed"));
            };
            all.push(Box::new(identity.recipient().clone()));
        }
        Ok(all)
    }
}

/// `1 recipient`, `2 recipients`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn boxed(named: &[Named], aws: &AwsArgs, out: &Output) -> Result<Vec<Box<dyn Recipient>>, CliError> {
    named.iter().map(|n| n.recipient(aws, out)).collect()
}

fn recipients_in(path: &Path) -> Result<Vec<Named>, CliError> {
    let text = read_public_file(path)?;
    let about = |e: CliError| e.about(path.display());
    let recipients = lines(&text).map_err(|e| about(e.into()))?.map(Named::parse).collect::<Result<Vec<_>, _>>();
    let recipients = recipients.map_err(about)?;
    if recipients.is_empty() {
        return Err(CliError::failed(format!("{}: no recipients in it", path.display())));
    }
    Ok(recipients)
}

/// A file of public keys, recipients or certificates.
pub fn read_public_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(io(path.display()))?;
    file.take(MAX_PUBLIC_FILE + 1).read_to_end(&mut text).map_err(io(path.display()))?;
    if text.len() as u64 > MAX_PUBLIC_FILE {
        return Err(CliError::failed(format!("{}: over 4 MiB; is it a key file?", path.display())));
    }
    Ok(text)
}

fn read_key_file(path: &Path) -> Result<Secret, CliError> {
    let mut file = File::open(path).map_err(io(path.display()))?;
    Secret::read_from(&mut file, MAX_KEY_FILE).map_err(io(path.display()))
}

/// The keys of an identity file.
pub fn load_identities(path: &Path) -> Result<Vec<KeyLine>, CliError> {
    let text = read_key_file(path)?;
    let keys = parse_identities(text.expose()).map_err(|e| CliError::from(e).about(path.display()))?;
    if keys.is_empty() {
        return Err(CliError::failed(format!("{}: no key in it", path.display())));
    }
    Ok(keys)
}

impl IdentityArgs {
    /// Whether anything was given on the command line.
    pub fn is_given(&self) -> bool {
        !self.identities.is_empty() || self.passphrase.passphrase || self.passphrase.passphrase_fd.is_some()
    }

    /// Recipients that these identities open for, as far as no passphrase is needed: for the record of a push.
    pub fn own(&self, aws: &AwsArgs, out: &Output) -> Result<Vec<Box<dyn Recipient>>, CliError> {
        let mut own: Vec<Box<dyn Recipient>> = Vec::new();
        own.extend(self.public()?.into_iter().map(|r| Box::new(r) as Box<dyn Recipient>));
        for source in &self.identities {
            if let Source::Kms(Some(arn)) = source {
                own.push(Named::parse(&format!("aws-kms:{arn}"))?.recipient(aws, out)?);
            }
        }
        Ok(own)
    }

    /// Key files and keys of AWS KMS, with no passphrase.
    pub fn of(identities: &[Source]) -> Self {
        let passphrase = PassphraseArgs { passphrase: false, passphrase_fd: None };
        Self { identities: identities.to_vec(), passphrase }
    }

    /// Whether there is anything to open with at all.
    pub fn is_any(&self) -> bool {
        self.is_given() || default_identity().is_ok_and(|p| p.exists())
    }

    /// The public halves of the keys at hand that need no passphrase.
    pub fn public(&self) -> Result<Vec<XWingRecipient>, CliError> {
        let mut all = Vec::new();
        for path in self.paths() {
            for key in load_identities(&path)? {
                if let KeyLine::Secret(identity) = key {
                    all.push(identity.recipient().clone());
                }
            }
        }
        Ok(all)
    }

    fn paths(&self) -> Vec<PathBuf> {
        if self.is_given() {
            let files = self.identities.iter().filter_map(|s| match s {
                Source::File(path) => Some(path.clone()),
                Source::Kms(_) => None,
            });
            return files.collect();
        }
        default_identity().into_iter().filter(|p| p.exists()).collect()
    }

    /// AWS KMS, as often as it was named.
    fn kms(&self, header: &Header, aws: &AwsArgs, out: &Output) -> Result<Vec<Kms>, CliError> {
        let named = self.identities.iter().filter_map(|s| match s {
            Source::File(_) => None,
            Source::Kms(only) => Some(only.as_ref()),
        });
        named.map(|only| Kms::connect(only, header, aws, out)).collect()
    }

    /// Opens a header with what was given (what needs no network first), or the user's key, or a passphrase asked for.
    pub fn unlock(&self, header: &Header, aws: &AwsArgs, out: &Output) -> Result<AuthenticatedHeader, CliError> {
        Keyring::new(self).unlock(header, aws, out)
    }

    /// The keys at hand, and whether the passphrase was for one of them.
    fn load(&self) -> Result<(Vec<Box<dyn Identity>>, bool), CliError> {
        let (mut identities, mut protected): (Vec<Box<dyn Identity>>, _) = (Vec::new(), false);
        for path in &self.paths() {
            for key in load_identities(path)? {
                identities.push(match key {
                    KeyLine::Secret(identity) => Box::new(identity),
                    KeyLine::Protected(body) => {
                        protected = true;
                        let prompt = format!("passphrase for {}", path.display());
                        let given = self.passphrase.get(&prompt, false)?;
                        let passphrase = given.map_or_else(|| ask(&prompt, false), Ok)?;
                        let opened = unprotect(&body, &passphrase);
                        Box::new(opened.map_err(|e| CliError::from(e).about(path.display()))?)
                    }
                });
            }
        }
        Ok((identities, protected))
    }
}

/// Opens one header after another: keys are loaded, and a passphrase is asked for, once.
pub struct Keyring<'a> {
    args: &'a IdentityArgs,
    loaded: Option<Loaded>,
    passphrase: Option<Passphrase>,
}

struct Loaded {
    keys: Vec<Box<dyn Identity>>,
    /// The passphrase was for one of them.
    protected: bool,
}

impl<'a> Keyring<'a> {
    /// Of what was given, or the user's key.
    pub fn new(args: &'a IdentityArgs) -> Self {
        Self { args, loaded: None, passphrase: None }
    }

    /// Opens a header: by keys, by the passphrase if none of them does, by AWS KMS.
    pub fn unlock(&mut self, header: &Header, aws: &AwsArgs, out: &Output) -> Result<AuthenticatedHeader, CliError> {
        let by_passphrase = header.stanzas().any(|s| s.kind == section::ARGON2ID);
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => self.args.load().map(|(keys, protected)| Loaded { keys, protected })?,
        };
        let Loaded { keys, protected } = &*self.loaded.insert(loaded);
        let mut all: Vec<&dyn Identity> = keys.iter().map(AsRef::as_ref).collect();
        if by_passphrase && !protected && self.passphrase.is_none() {
            match header.unlock(&all) {
                Err(e) if e.rule() == Some(Rule(18)) => {}
                opened => return Ok(opened?),
            }
            self.passphrase = self.args.passphrase.get("passphrase", false)?;
        }
        all.extend(self.passphrase.iter().filter(|_| by_passphrase).map(|p| p as &dyn Identity));
        let kms = self.args.kms(header, aws, out)?;
        all.extend(kms.iter().map(|k| k as &dyn Identity));
        match header.unlock(&all) {
            Err(e) if e.rule() == Some(Rule(18)) && by_passphrase && !self.args.is_given() && stdin().is_terminal() => {
                Ok(header.unlock(&[self.passphrase.insert(ask("passphrase", false)?)])?)
            }
            Err(e) if e.rule() == Some(Rule(18)) => Err(why(e, header, &kms, out)),
            result => Ok(result?),
        }
    }
}

impl SignerArgs {
    /// The signers on the command line, or the project's.
    pub fn load(&self, project: &Project) -> Result<Vec<PublisherPublicKey>, CliError> {
        let of_project = || project.signers.iter().map(|p| project.resolve(p)).collect();
        let paths: Vec<_> = if self.signers.is_empty() { of_project() } else { self.signers.clone() };
        load_publishers(&paths)
    }
}

/// Publishers' public keys, a PEM file each.
pub fn load_publishers(paths: &[PathBuf]) -> Result<Vec<PublisherPublicKey>, CliError> {
    let load = |path: &PathBuf| {
        let text = read_public_file(path)?;
        let text = String::from_utf8_lossy(&text);
        PublisherPublicKey::from_pem(&text).map_err(|e| CliError::from(e).about(path.display()))
    };
    paths.iter().map(load).collect()
}

/// A publisher's private key.
pub fn load_signing_key(path: &Path) -> Result<PublisherKey, CliError> {
    let text = read_key_file(path)?;
    let pem = std::str::from_utf8(text.expose()).unwrap_or_default();
    PublisherKey::from_pem(pem).map_err(|e| CliError::from(e).about(path.display()))
}
