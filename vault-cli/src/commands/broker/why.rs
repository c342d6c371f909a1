//! `mvault broker why`: what one decision was made of.

use crate::error::CliError;
use crate::output::{Output, printable};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use vault_attest::tlog::{LogEntry, Outcome};
use vault_broker::config::Config;
use vault_broker::state::open;

/// Say why a request was granted or refused: expected, actual, the policy's line, and what to do
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault broker why broker 5f0c…    the id that the enclave's log shows")]
pub struct Args {
    /// The broker's folder
    folder: PathBuf,
    /// A decision's id: 32 hex digits
    id: String,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let id = (args.id.len() == 32).then(|| u128::from_str_radix(&args.id, 16).ok()).flatten();
    let id = id.ok_or_else(|| CliError::usage(format!("{}: not a decision's id of 32 hex digits", args.id)))?;
    let config = Config::read(&args.folder)?;
    let mut database = open(&config.state, false)?;
    let row = database.begin_read()?.find(&id.to_be_bytes())?;
    let row = row.ok_or_else(|| {
        CliError::failed(format!("there is no decision {} here", args.id)).hint(
            "requests that met a limit of [limits] are counted in the metrics, not logged; or it was another broker",
        )
    })?;
    let entry = LogEntry::parse(&row.entry).map_err(|e| CliError::not_authentic(e.to_string()))?;
    let value = serde_json::to_value(&entry).unwrap_or(Value::Null);
    out.result(&json!({ "ok": true, "index": row.index, "entry": value }), &text(row.index, &entry))
}

fn text(index: u64, entry: &LogEntry) -> String {
    let outcome = match (&entry.outcome, &entry.step) {
        (Outcome::Refused, Some(step)) => format!("refused at step {step}"),
        (Outcome::Refused, None) => "refused".into(),
        (Outcome::Granted, _) => "granted".into(),
    };
    let model = entry.model.as_ref().map(|m| format!("{m} version {}", entry.model_version.unwrap_or(0)));
    let index = index.to_string();
    let lines: [(&str, Option<&str>); 17] = [
        ("outcome", Some(&outcome)),
        ("expected", entry.expected.as_deref()),
        ("actual", entry.actual.as_deref()),
        ("policy line", entry.policy_line.as_deref()),
        ("fix", entry.fix.as_deref()),
        ("time", Some(&entry.time)),
        ("source", entry.source.as_deref()),
        ("artifact", entry.artifact.as_deref()),
        ("model", model.as_deref()),
        ("policy", entry.policy.as_deref()),
        ("release", entry.release.as_deref()),
        ("enclave", entry.module.as_deref()),
        ("PCR0", entry.pcr0.as_deref()),
        ("PCR1", entry.pcr1.as_deref()),
        ("PCR2", entry.pcr2.as_deref()),
        ("broker key", entry.key.as_deref()),
        ("log entry", Some(&index)),
    ];
    let shown = lines.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    shown.fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{:<13}{}", format!("{name}:"), printable(value)); // a String takes everything
        text
    })
}
