//! `mvault broker revoke`: `[revoked]` of broker.toml. The rest of the file stays to the byte, and what is written was read back
//! first: it says what the file said before, but for these ids.

use super::client::ClientFile;
use super::lock;
use super::revoked::{self, List};
use crate::aws::AwsArgs;
use crate::commands::artifact::Artifact;
use crate::error::{CliError, io};
use crate::files::replace_text;
use crate::keys::count;
use crate::output::Output;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use vault_attest::policy::parse_id;
use vault_broker::config::Config;
use vault_core::header::hex;
use vault_core::recipient::broker::key_id;
use vault_core::recipient::keyfile::decode_broker_key;

/// Release no key of an artifact any more, or of nothing that was sealed for one of the broker's keys
///
/// Edits [revoked] in broker.toml, and nothing else of it. The broker takes it at SIGHUP; replicas have a broker.toml each.
/// Enclaves keep the keys that they have.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault broker revoke broker --artifact bert.mvault && systemctl reload mvault-broker
  mvault broker revoke broker --artifact s3://models/team/bert:3
  mvault broker revoke broker --recipient 5f0c…    everything sealed for a key that was rotated away
  mvault broker revoke broker --artifact 9a41… --undo")]
pub struct Args {
    /// The broker's folder
    folder: PathBuf,
    /// An artifact: its id of 64 hex digits, or the sealed model, a file or in a vault; may be repeated
    #[arg(long = "artifact", value_name = "ID|FILE", required_unless_present = "recipients")]
    artifacts: Vec<String>,
    /// A key of this broker: its id of 64 hex digits, as client.toml has it, or its line; may be repeated
    #[arg(long = "recipient", value_name = "ID|LINE")]
    recipients: Vec<String>,
    /// Take them out of [revoked]: keys are released again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let path = args.folder.join("broker.toml");
    let client = ClientFile::read(&args.folder.join("client.toml"))?;
    let artifacts = args.artifacts.iter().map(|text| artifact(text, &args.aws, out));
    let recipients = args.recipients.iter().map(|text| recipient(text, &client, args.undo));
    let named = [
        (List::Artifacts, artifacts.collect::<Result<Vec<_>, _>>()?),
        (List::Recipients, recipients.collect::<Result<Vec<_>, _>>()?),
    ];
    let _lock = lock(&args.folder)?;
    Config::read(&args.folder)?; // a file that is wrong already is not made worse
    let target = path.canonicalize().map_err(io(path.display()))?; // a symbolic link stays one
    let before = std::fs::read_to_string(&target).map_err(io(path.display()))?;
    let mut after = before.clone();
    for (list, ids) in &named {
        for id in ids {
            let changed =
                if args.undo { revoked::without(&after, *list, id) } else { revoked::with(&after, *list, id) };
            let changed = changed.ok_or_else(|| by_hand(&path))?;
            if args.undo && after == changed {
                return Err(CliError::usage(format!("{} is not in [revoked]", hex(id))));
            }
            after = changed;
        }
    }
    let now = revoked::change(&before, &after, &named, args.undo).filter(|_| Config::parse(&after, &path).is_ok());
    let now = now.ok_or_else(|| by_hand(&path))?;
    if after != before {
        replace_text(&target, &after)?;
    }
    if now.recipients.iter().any(|id| client.keys.first().is_some_and(|newest| parse_id(newest) == parse_id(id))) {
        out.warning("the broker's newest key is revoked: what is sealed for it gets no key; `mvault broker rotate` makes another");
    }
    report(&path, &now, out)
}

fn report(path: &Path, now: &revoked::Revoked, out: &mut Output) -> Result<(), CliError> {
    let (artifacts, recipients) = (&now.artifacts, &now.recipients);
    let json = json!({ "ok": true, "artifacts": artifacts, "recipients": recipients });
    let counts = (count(artifacts.len(), "artifact"), count(recipients.len(), "broker key"));
    let mut text = format!("{}: revoked now: {}, {}\n", path.display(), counts.0, counts.1);
    for (what, ids) in [("artifact  ", artifacts), ("broker key", recipients)] {
        for id in ids {
            let _ = writeln!(text, "  {what}  {id}"); // a String takes everything
        }
    }
    text += "the broker takes it at SIGHUP\n";
    out.result(&json, &text)
}

/// 64 hex digits are an id, also where a file has that name.
fn artifact(text: &str, aws: &AwsArgs, out: &Output) -> Result<[u8; 32], CliError> {
    if let Some(id) = parse_id(text) {
        return Ok(id);
    }
    let named = Path::new(text);
    if !text.contains(['/', ':', '@']) && !named.exists() {
        return Err(CliError::usage(format!("--artifact {text}: neither an id of 64 hex digits nor a file"))
            .hint("`mvault inspect` shows an artifact's id"));
    }
    Ok(Artifact::open(named, aws, out)?.header.prelude().salt)
}

/// What is taken out need not be a key that the broker has still.
fn recipient(text: &str, client: &ClientFile, undo: bool) -> Result<[u8; 32], CliError> {
    let line = || decode_broker_key(text.split('/').next().unwrap_or_default()).ok();
    let id = parse_id(text).or_else(|| line().map(|key| key_id(key.as_bytes())));
    let keys = || format!("its keys, newest first: {}", client.keys.join(", "));
    let id = id.ok_or_else(|| {
        CliError::usage(format!("--recipient {text}: neither a key's id of 64 hex digits nor a broker's line"))
            .hint(keys())
    })?;
    if undo || client.keys.iter().any(|key| parse_id(key) == Some(id)) {
        return Ok(id);
    }
    Err(CliError::usage(format!("{}: not a key of this broker", hex(&id))).hint(keys()))
}

fn by_hand(path: &Path) -> CliError {
    CliError::failed(format!("{}: its lines are not laid out as expected; nothing was changed", path.display()))
        .hint("edit [revoked] by hand, then `kill -HUP`; the broker's log says whether it was taken")
}
