//! `mvault recipients`: who can open an artifact. Only the header is read and written.

use super::artifact::Artifact;
use super::rewrite::replace;
use crate::aws::AwsArgs;
use crate::error::CliError;
use crate::keys::{IdentityArgs, NewPassphraseArgs, RecipientLines, count};
use crate::output::{Output, table};
use rand_core::UnwrapErr;
use serde_json::json;
use std::path::PathBuf;
use vault_core::header::{Section, hex, section, stanza_name};
use vault_core::recipient::Recipient;
use vault_core::recipient::aws_kms::Stanza;
use vault_core::recipient::broker;

/// List, add or remove who can open a sealed model
///
/// Only the header changes, in place where it fits; the payload is not read. Removing someone does not take
/// back what they already read: seal anew to cut someone off.
///
/// In a vault (s3://BUCKET/PREFIX, or a folder) one version is changed, VAULT/NAME:VERSION; if someone else changes it at the same
/// time, one of the two is told to run again. What exists as a file is that file: a folder's vault can always be named by
/// file:///VAULT/NAME:VERSION.
#[derive(clap::Subcommand)]
pub enum Command {
    List(ListArgs),
    Add(AddArgs),
    Remove(RemoveArgs),
}

/// List the recipients
///
/// Recipients are anonymous to whoever does not know their line; yours, and those given with -r, are marked.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mvault recipients list m.mvault -R team.txt\n  mvault recipients list vault/bert:3"
)]
pub struct ListArgs {
    /// A sealed model: a file, or `VAULT/NAME[:VERSION|@TAG]` of a vault, `s3://BUCKET/PREFIX` or a folder
    file: PathBuf,
    #[command(flatten)]
    lines: RecipientLines,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Let someone else open it too
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault recipients add m.mvault -r mvault-xw1-…
  mvault recipients add s3://models/team/bert:3 -R team.txt
  mvault recipients add vault/bert@prod -R team.txt")]
pub struct AddArgs {
    /// A sealed model: a file, or `VAULT/NAME[:VERSION|@TAG]` of a vault, `s3://BUCKET/PREFIX` or a folder
    file: PathBuf,
    #[command(flatten)]
    lines: RecipientLines,
    #[command(flatten)]
    passphrase: NewPassphraseArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Take a recipient away
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mvault recipients remove m.mvault -r mvault-xw1-…\n  mvault recipients remove vault/bert:3 --number 2"
)]
pub struct RemoveArgs {
    /// A sealed model: a file, or `VAULT/NAME[:VERSION|@TAG]` of a vault, `s3://BUCKET/PREFIX` or a folder
    file: PathBuf,
    #[command(flatten)]
    lines: RecipientLines,
    /// Remove by number, as `recipients list` shows it; may be repeated
    #[arg(short, long, value_name = "N")]
    number: Vec<usize>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(command: &Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::List(args) => list(args, out),
        Command::Add(args) => add(args, out),
        Command::Remove(args) => remove(args, out),
    }
}

fn list(args: &ListArgs, out: &mut Output) -> Result<(), CliError> {
    let artifact = Artifact::open(&args.file, &args.aws, out)?;
    let salt = &artifact.header.prelude().salt;
    let (named, mine) = (args.lines.load()?, args.identity.public()?);
    let mut rows = vec![["number", "type", "tag", ""].map(String::from).to_vec()];
    let mut values = Vec::new();
    for (i, stanza) in artifact.header.stanzas().enumerate() {
        let given = named.iter().position(|r| r.is_for(salt, stanza) == Some(true));
        let given = given.map(|n| format!("given ({})", n + 1));
        let who = if mine.iter().any(|r| r.is_tagged(salt, stanza)) { Some("you".into()) } else { given };
        let kind = stanza_name(stanza.kind);
        let tag = tag(stanza);
        values.push(json!({ "number": i + 1, "type": kind, "tag": tag, "who": who }));
        rows.push(vec![(i + 1).to_string(), kind, tag, who.unwrap_or_default()]);
    }
    let json = json!({ "ok": true, "artifact": args.file.display().to_string(), "recipients": values });
    out.result(&json, &table(&rows))
}

/// What tells a stanza from others: its tag, or the key's ARN; unverified.
fn tag(stanza: &Section) -> String {
    match stanza.kind {
        section::XWING => hex(stanza.body.get(..8).unwrap_or_default()),
        section::BROKER => broker::Stanza::parse(stanza).map_or_else(|| "-".into(), |broker| policy_of(&broker)),
        _ => Stanza::parse(stanza).map_or_else(|| "-".into(), |kms| kms.arn.to_string()),
    }
}

/// A broker stanza's policy, and the digest that pins it.
fn policy_of(stanza: &broker::Stanza<'_>) -> String {
    let pin = stanza.digest.map_or_else(String::new, |digest| format!("@sha256:{}", hex(&digest)));
    format!("{} policy {}{pin}", hex(stanza.tag()), stanza.policy)
}

fn add(args: &AddArgs, out: &mut Output) -> Result<(), CliError> {
    let lines = args.lines.load()?;
    let passphrase = args.passphrase.get()?;
    if lines.is_empty() && passphrase.is_none() {
        return Err(CliError::usage("nobody to add").hint("name a recipient with -r or -R, or use --new-passphrase"));
    }
    let artifact = Artifact::open(&args.file, &args.aws, out)?;
    let salt = artifact.header.prelude().salt;
    if lines.iter().any(|r| artifact.header.stanzas().any(|s| r.is_for(&salt, s) == Some(true))) {
        return Err(CliError::failed(format!("{}: a recipient given is one already", args.file.display())));
    }
    let boxed = lines.iter().map(|r| r.recipient(&args.aws, out)).collect::<Result<Vec<_>, _>>()?;
    let mut new: Vec<&dyn Recipient> = boxed.iter().map(AsRef::as_ref).collect();
    new.extend(passphrase.as_ref().map(|p| p as &dyn Recipient));
    let header = args.identity.unlock(&artifact.header, &args.aws, out).map_err(|e| e.about(args.file.display()))?;
    let changed = header.with_recipients(&|_| true, &new, &mut UnwrapErr(getrandom::SysRng))?;
    replace(&artifact, &changed)?;
    done(args.file.display(), "added", new.len(), changed.stanzas().count(), out)
}

fn remove(args: &RemoveArgs, out: &mut Output) -> Result<(), CliError> {
    let lines = args.lines.load()?;
    if lines.is_empty() && args.number.is_empty() {
        return Err(CliError::usage("nobody to remove")
            .hint("name a recipient with -r, or a number of `recipients list` with --number"));
    }
    let artifact = Artifact::open(&args.file, &args.aws, out)?;
    let stanzas: Vec<_> = artifact.header.stanzas().collect();
    let salt = &artifact.header.prelude().salt;
    let mut gone = Vec::new();
    for number in &args.number {
        if !(1..=stanzas.len()).contains(number) {
            return Err(CliError::usage(format!("there is no recipient {number}; there are {}", stanzas.len())));
        }
        gone.push(number - 1);
    }
    for recipient in &lines {
        let before = gone.len();
        for (i, stanza) in stanzas.iter().enumerate() {
            match recipient.is_for(salt, stanza) {
                Some(true) => gone.push(i),
                Some(false) => {}
                None => {
                    return Err(CliError::usage("an alias does not say which key it names")
                        .hint("name the key's ARN, or its --number, as `mvault recipients list` shows them"));
                }
            }
        }
        if gone.len() == before {
            return Err(CliError::failed(format!("{}: a recipient given is not one", args.file.display())));
        }
    }
    gone.sort_unstable();
    gone.dedup();
    let header = args.identity.unlock(&artifact.header, &args.aws, out).map_err(|e| e.about(args.file.display()))?;
    let changed = header.with_recipients(&|i| !gone.contains(&i), &[], &mut UnwrapErr(getrandom::SysRng))?;
    replace(&artifact, &changed)?;
    if gone.contains(&header.stanza()) {
        out.note("the key you used cannot open it any more");
    }
    done(args.file.display(), "removed", gone.len(), changed.stanzas().count(), out)
}

fn done(file: impl std::fmt::Display, what: &str, n: usize, now: usize, out: &mut Output) -> Result<(), CliError> {
    let json = json!({ "ok": true, "artifact": file.to_string(), what: n, "recipients": now });
    out.result(&json, &format!("{file}: {} {what}, {now} now\n", count(n, "recipient")))
}
