//! `mvault tag`: point a tag at a version. Tags are pointers that anyone who writes the vault can move; who must not be
//! rolled back pins with `pull --min-version` or `--expect-digest`.

use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::output::Output;
use crate::vaults::{VaultArgs, open, reference, tag};
use serde_json::json;
use vault_store::layout::Target;
use vault_store::vault::Vault;

/// Point a tag at a version, or remove it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault tag s3://bucket/team bert:3 prod        prod is version 3
  mvault tag s3://bucket/team bert@canary prod   prod is what canary is
  mvault tag s3://bucket/team bert prod --delete")]
pub struct Args {
    /// The vault, if it is not the default one; NAME, NAME:VERSION or NAME@TAG; and the tag
    #[arg(value_name = "[VAULT] NAME TAG", required = true, num_args = 2..=3)]
    place: Vec<String>,
    #[command(flatten)]
    vault: VaultArgs,
    /// Remove the tag
    #[arg(short, long)]
    delete: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let (text, words) = args.place.split_last().ok_or_else(|| CliError::usage("expected NAME and TAG"))?;
    let (uri, of) = args.vault.with_name(words, &Project::find()?)?;
    let ((name, selector), tag) = (reference(of)?, tag(text)?);
    let store = open(&uri, &args.aws, out)?;
    let vault = Vault::new(&*store);
    if args.delete {
        vault.remove_tag(&name, &tag)?;
        let json = json!({ "ok": true, "name": name.as_str(), "tag": tag.as_str(), "deleted": true });
        return out.result(&json, &format!("{}@{} removed\n", name.as_str(), tag.as_str()));
    }
    let found = vault.find(&name, &selector)?;
    let before = vault.set_tag(&name, &tag, &Target::of(found.version, &found.header))?;
    let before = before.map(|t| t.version);
    let json = json!({
        "ok": true, "name": name.as_str(), "tag": tag.as_str(), "model_version": found.version, "before": before,
    });
    let was = before.map_or_else(String::new, |v| format!(" (was version {v})"));
    out.result(&json, &format!("{}@{} is version {}{was}\n", name.as_str(), tag.as_str(), found.version))
}
