//! `mvault gc`: what pushes that were given up have left: in the vault, uploads that were never completed, and payloads
//! that no version names; on this machine, records of such pushes. Lists by default.

use crate::aws::AwsArgs;
use crate::config::{Project, push_records};
use crate::error::CliError;
use crate::keys::count;
use crate::output::{Output, printable, size, table};
use crate::vaults::{VaultArgs, open};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};
use vault_core::header::hex;
use vault_store::error::time_text;
use vault_store::record::Record;
use vault_store::vault::{Garbage, Vault};

/// List or remove what abandoned pushes have left in a vault, and their records on this machine
///
/// Only what is older than --older-than, which must be longer than the longest push: an upload may still be going on,
/// or be gone on with. What a version names is never touched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault gc s3://bucket/team                            list
  mvault gc s3://bucket/team --delete                   remove what is older than 7 days
  mvault gc s3://bucket/team --delete --older-than 2d --yes")]
pub struct Args {
    /// The vault (s3://BUCKET/PREFIX or a folder), if it is not the default one
    #[arg(value_name = "VAULT", num_args = 0..=1)]
    place: Vec<String>,
    #[command(flatten)]
    vault: VaultArgs,
    /// Least age: a number and s, m, h or d
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = parse_age)]
    older_than: u64,
    /// Remove it
    #[arg(long)]
    delete: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

/// `90m`, `36h`, `7d` in seconds.
fn parse_age(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number and s, m, h or d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let project = Project::find()?;
    let (uri, _) = args.vault.with_maybe_name(&args.place, &project)?;
    let store = open(&uri, &args.aws, out)?;
    let vault = Vault::new(&*store);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let before = now.saturating_sub(args.older_than).saturating_add(u64::from(args.older_than == 0));
    let garbage = vault.garbage(before)?;
    let records = push_records().map(|folder| Record::abandoned(&folder, &store.uri(), before)).unwrap_or_default();
    let mut rows = vec![["what", "size", "since", "object"].map(String::from).to_vec()];
    let mut values = Vec::new();
    for item in &garbage {
        let (what, bytes, since, key) = match item {
            Garbage::Upload(upload) => ("upload", None, upload.started, upload.key.clone()),
            Garbage::Payload { name, payload } => {
                let key = format!("{name}/payloads/{}", hex(&payload.id));
                ("payload", Some(payload.size), payload.modified, key)
            }
        };
        let since = since.map_or_else(|| "-".into(), time_text);
        values.push(json!({ "what": what, "bytes": bytes, "since": since, "object": key }));
        rows.push(vec![what.into(), bytes.map_or_else(|| "-".into(), size), since, printable(&key)]);
    }
    for (since, record) in &records {
        let (name, since) = (printable(record.subject().name.as_str()), time_text(*since));
        values.push(json!({ "what": "record", "bytes": null, "since": since, "object": name }));
        rows.push(vec!["record".into(), "-".into(), since, format!("a push of {name} from this machine")]);
    }
    let (mut removed, all) = (0, garbage.len() + records.len());
    if args.delete && all > 0 {
        let question = format!("remove {} for good?", count(all, "object"));
        if !args.yes && !out.confirm(&question)? {
            return Err(CliError::failed("nothing was removed"));
        }
        for item in &garbage {
            removed += usize::from(vault.collect(item)?);
        }
        for (_, record) in records {
            record.remove()?; // whoever pushes again begins anew, under another key
            removed += 1;
        }
    }
    let text = match (all, args.delete) {
        (0, _) => format!("{}: nothing to remove\n", store.uri()),
        (_, false) => table(&rows),
        (_, true) => format!("{}{} removed\n", table(&rows), count(removed, "object")),
    };
    let json = json!({ "ok": true, "vault": store.uri(), "garbage": values, "removed": removed });
    out.result(&json, &text)
}

#[cfg(test)]
mod tests {
    use super::parse_age;

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(parse_age("7d"), Ok(604_800));
        assert_eq!(parse_age("90m"), Ok(5400));
        for bad in ["", "7", "d", "-1d", "1.5h", "7w", "99999999999999999999d", "7ä"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }
}
