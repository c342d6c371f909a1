//! `mvault ls`: the models of a vault, or the versions of one.

use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::output::{Output, printable, size, table};
use crate::vaults::{VaultArgs, open, reference};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};
use vault_core::header::{hex, stanza_name};
use vault_store::error::time_text;
use vault_store::layout::{Name, TagName, Target};
use vault_store::vault::{Published, Selector, Vault};

/// List the models of a vault, or the versions of a model
///
/// Everything shown comes from the vault and is not verified: `mvault pull` and `mvault verify` do that.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault ls s3://bucket/team           the models
  mvault ls s3://bucket/team bert      its versions, the latest first
  mvault ls s3://bucket/team bert --json | jq '.versions[0]'")]
pub struct Args {
    /// The vault (s3://BUCKET/PREFIX or a folder), if it is not the default one; and a model's name
    #[arg(value_name = "[VAULT] [NAME]", num_args = 0..=2)]
    place: Vec<String>,
    #[command(flatten)]
    vault: VaultArgs,
    /// Only the latest N versions
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let (uri, name) = args.vault.with_maybe_name(&args.place, &Project::find()?)?;
    let store = open(&uri, &args.aws, out)?;
    let vault = Vault::new(&*store);
    match name {
        None => models(&vault, out),
        Some(text) => {
            let (name, selector) = reference(text)?;
            versions(args, &vault, &name, &selector, out)
        }
    }
}

fn models(vault: &Vault<'_>, out: &mut Output) -> Result<(), CliError> {
    let mut rows = vec![["model", "versions", "latest", "age", "tags"].map(String::from).to_vec()];
    let mut values = Vec::new();
    for name in vault.names()? {
        let versions = vault.versions(&name)?;
        let tags = vault.tags(&name)?;
        let Some((latest, time)) = versions.last_key_value() else { continue };
        let shown: Vec<_> = tags.iter().map(|(tag, target)| tag_text(tag, target.as_ref())).collect();
        let cells = [versions.len().to_string(), latest.to_string(), age(*time), shown.join(" ")];
        rows.push([vec![printable(name.as_str())], cells.to_vec()].concat());
        values.push(json!({
            "name": name.as_str(),
            "versions": versions.len(),
            "latest": latest,
            "modified": time.map(time_text),
            "tags": tags_json(&tags),
        }));
    }
    let text = if values.is_empty() { format!("{}: no models\n", vault.store().uri()) } else { table(&rows) };
    out.result(&json!({ "ok": true, "vault": vault.store().uri(), "models": values }), &text)
}

fn tag_text(tag: &TagName, target: Option<&Target>) -> String {
    format!("{}={}", tag.as_str(), target.map_or_else(|| "?".into(), |t| t.version.to_string()))
}

fn tags_json(tags: &[(TagName, Option<Target>)]) -> Value {
    tags.iter().map(|(tag, target)| (tag.as_str().to_owned(), json!(target.as_ref().map(|t| t.version)))).collect()
}

fn versions(
    args: &Args,
    vault: &Vault<'_>,
    name: &Name,
    selector: &Selector,
    out: &mut Output,
) -> Result<(), CliError> {
    let all = vault.versions(name)?;
    let tags = vault.tags(name)?;
    let wanted: Vec<u64> = match selector {
        Selector::Latest => all.keys().rev().take(args.limit.unwrap_or(usize::MAX)).copied().collect(),
        _ => vec![vault.find(name, selector)?.version],
    };
    let sizes: HashMap<_, _> = vault.payloads(name)?.into_iter().map(|p| (p.id, p.size)).collect();
    let headings = ["version", "size", "recipients", "signed", "age", "published by", "tags"];
    let mut rows = vec![headings.map(String::from).to_vec()];
    let mut values = Vec::new();
    for (version, published) in vault.headers(name, wanted) {
        let tags: Vec<_> = tags.iter().filter(|(_, t)| t.as_ref().is_some_and(|t| t.version == version)).collect();
        let tags: Vec<_> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
        let time = all.get(&version).copied().flatten();
        match published {
            Ok(published) => {
                let payload = sizes.get(&published.header.prelude().salt).copied();
                rows.push(row(&published, payload, time, &tags));
                values.push(value(&published, payload, time, &tags));
            }
            Err(e) => {
                out.warning(&format!("{}:{version}: {}", name.as_str(), e.message));
                rows.push([vec![version.to_string()], vec!["?".into(); 3], vec![age(time)]].concat());
                values.push(json!({ "version": version, "error": e.message, "tags": tags }));
            }
        }
    }
    let text = if values.is_empty() {
        format!("{}: no version of {} here\n", vault.store().uri(), name.as_str())
    } else {
        table(&rows)
    };
    let json = json!({
        "ok": true, "vault": vault.store().uri(), "name": name.as_str(), "count": all.len(), "versions": values,
    });
    out.result(&json, &text)
}

fn row(published: &Published, payload: Option<u64>, time: Option<u64>, tags: &[&str]) -> Vec<String> {
    let header = &published.header;
    vec![
        published.version.to_string(),
        payload.map_or_else(|| "no payload".into(), size),
        header.stanzas().count().to_string(),
        if header.signature().is_some() { "yes" } else { "no" }.into(),
        age(time),
        printable(published.meta.publisher.as_deref().unwrap_or("-")),
        tags.join(" "),
    ]
}

fn value(published: &Published, payload: Option<u64>, time: Option<u64>, tags: &[&str]) -> Value {
    let header = &published.header;
    json!({
        "version": published.version,
        "id": header.prelude().artifact_id(),
        "payload_bytes": payload,
        "recipients": header.stanzas().map(|s| stanza_name(s.kind)).collect::<Vec<_>>(),
        "signed_by": header.signature().map(|s| hex(&s.key_id)),
        "digest": header.signature().map(|s| hex(&s.payload.digest)),
        "modified": time.map(time_text),
        "publisher": published.meta.publisher,
        "tags": tags,
    })
}

/// How long ago, in one unit.
fn age(time: Option<u64>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let Some(time) = time else { return "-".into() };
    match now.saturating_sub(time) {
        s @ ..=119 => format!("{s} s"),
        s @ ..=7199 => format!("{} min", s / 60),
        s @ ..=172_799 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86400),
    }
}
