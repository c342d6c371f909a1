//! `mvault broker log`: the release log, on the broker's side and from outside.

use super::client::ClientFile;
use super::filter::FilterArgs;
use crate::error::CliError;
use crate::files::{Access, write_new};
use crate::output::{Output, printable, table};
use rustls::time_provider::DefaultTimeProvider;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vault_attest::tlog::{LogEntry, LogVerifier, Outcome};
use vault_broker::config::Config;
use vault_broker::state::{Row, State};
use vault_enclave::Tcp;
use vault_enclave::release::{Client, ReleaseError};

/// Entries read at a time.
const PAGE: u32 = 256;
/// Largest checkpoint file.
const MAX_CHECKPOINT: u64 = 128 * 1024;

/// List the release log; verify it; watch it from outside
///
/// With --checkpoint the log must go on from the checkpoint that is kept in that file, which then becomes the newest
/// one. Keep it on another machine: who changes the database cannot change it too.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault broker log broker                              the last 20 decisions
  mvault broker log broker --since 0 --json             all of them
  mvault broker log broker --since 2026-11-27T08:00:00Z --until 2026-11-27T12:00:00Z --outcome granted
  mvault broker log broker --pcr0 5f0c… --json          what one image asked for
  mvault broker log broker --verify --checkpoint seen   every entry and hash
  mvault broker log --client client.toml --checkpoint seen
                                        from another machine, over the network")]
pub struct Args {
    /// The broker's folder
    #[arg(required_unless_present = "client")]
    folder: Option<PathBuf>,
    /// Ask the broker that this client.toml pins, over the network
    #[arg(long, value_name = "CLIENT.TOML", conflicts_with_all = ["folder", "verify"])]
    client: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Check every entry, every hash and the signature
    #[arg(long)]
    verify: bool,
    /// A checkpoint seen earlier; replaced by the newest if that goes on from it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let kept = args.checkpoint.as_deref().map(kept).transpose()?.flatten();
    match (&args.client, &args.folder) {
        (Some(client), _) => watch(client, args.checkpoint.as_deref(), kept.as_deref(), out),
        (None, Some(folder)) if args.verify || args.checkpoint.is_some() => {
            check(folder, args.checkpoint.as_deref(), kept.as_deref(), out)
        }
        (None, Some(folder)) => list(folder, &args.filter, out),
        (None, None) => Err(CliError::usage("which broker? give its folder, or --client client.toml")),
    }
}

/// The note in a file; nothing if there is none yet.
fn kept(path: &Path) -> Result<Option<String>, CliError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = super::read_bounded(path, MAX_CHECKPOINT)?;
    let note = String::from_utf8(bytes);
    note.map(Some).map_err(|_| CliError::failed(format!("{}: not a checkpoint: not text", path.display())))
}

fn keep(path: Option<&Path>, note: &str) -> Result<(), CliError> {
    path.map_or(Ok(()), |path| write_new(path, note.as_bytes(), Access::Public, true))
}

fn watch(client: &Path, path: Option<&Path>, kept: Option<&str>, out: &mut Output) -> Result<(), CliError> {
    let pinned = ClientFile::read(client)?.pinned()?;
    let place = pinned.url.strip_prefix("https://").unwrap_or_default().to_owned();
    let place =
        if place.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']')) { place } else { place + ":443" };
    let client = Client::new(pinned, Arc::new(Tcp(place)), Arc::new(DefaultTimeProvider))?;
    let watched = client.watch_log(kept)?;
    keep(path, &watched.note)?;
    done(watched.checkpoint.size(), kept.is_some(), false, out)
}

fn check(folder: &Path, path: Option<&Path>, kept: Option<&str>, out: &mut Output) -> Result<(), CliError> {
    let config = Config::read(folder)?;
    let client = ClientFile::read(&folder.join("client.toml"))?;
    let verifier = LogVerifier::parse(&client.log).map_err(|e| CliError::failed(format!("client.toml: {e}")))?;
    let before = kept.map(|note| verifier.verify(note)).transpose();
    let before = before.map_err(|e| CliError::not_authentic(format!("the kept checkpoint: {e}")))?;
    let report = State::open(&config.state, false)?.verify(&verifier, before.as_ref())?;
    keep(path, &report.checkpoint)?;
    done(report.entries, before.is_some(), true, out)
}

fn done(size: u64, goes_on: bool, every: bool, out: &mut Output) -> Result<(), CliError> {
    let json = json!({ "ok": true, "entries": size, "goes_on_from_kept": goes_on, "every_entry": every });
    let what = if every { "every entry, hash and the signature verify" } else { "the signature verifies" };
    let kept = if goes_on { ", and it goes on from the kept checkpoint" } else { "" };
    out.result(&json, &format!("{size} entries: {what}{kept}\n"))
}

fn list(folder: &Path, filter: &FilterArgs, out: &mut Output) -> Result<(), CliError> {
    let config = Config::read(folder)?;
    let state = State::open(&config.state, false)?;
    let size = state.size()?;
    let mut from = filter.first(size);
    let mut values = Vec::new();
    let mut rows =
        vec![["entry", "time", "outcome", "step", "model", "policy", "release", "decision"].map(String::from).to_vec()];
    while !filter.ends_at(from) {
        let page = state.entries(from, PAGE)?;
        let Some(last) = page.last() else { break };
        from = last.index + 1;
        for row in page.iter().filter(|row| !filter.ends_at(row.index)) {
            let entry = parsed(row)?;
            if filter.takes(&entry) {
                values
                    .push(json!({ "index": row.index, "entry": serde_json::to_value(&entry).unwrap_or(Value::Null) }));
                rows.push(cells(row.index, &entry));
            }
        }
    }
    out.result(&json!({ "ok": true, "size": size, "entries": values }), &table(&rows))
}

fn parsed(row: &Row) -> Result<LogEntry, CliError> {
    LogEntry::parse(&row.entry).map_err(|e| CliError::not_authentic(format!("entry {}: {e}", row.index)))
}

fn cells(index: u64, entry: &LogEntry) -> Vec<String> {
    let outcome = if entry.outcome == Outcome::Granted { "granted" } else { "refused" };
    let text = |value: &Option<String>| printable(value.as_deref().unwrap_or("-"));
    vec![
        index.to_string(),
        entry.time.clone(),
        outcome.to_owned(),
        text(&entry.step),
        text(&entry.model),
        text(&entry.policy),
        text(&entry.release),
        entry.id.clone(),
    ]
}

impl From<ReleaseError> for CliError {
    fn from(error: ReleaseError) -> Self {
        let hint = error.hint();
        match &error {
            ReleaseError::Protocol(_) => Self::not_authentic(error.to_string()).hint(hint),
            _ => Self::failed(error.to_string()).hint(hint),
        }
    }
}
