//! `mvault rm`: remove one version of a model, by its number and with a yes.

use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::output::Output;
use crate::vaults::{VaultArgs, open, reference};
use serde_json::json;
use vault_store::vault::{Selector, Vault};

/// Remove one version of a model
///
/// The version must be named, and is asked for on the terminal. A version that a tag points at is not removed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault rm s3://bucket/team bert:3         asks first
  mvault rm s3://bucket/team bert:3 --yes   for scripts")]
pub struct Args {
    /// The vault, if it is not the default one; and NAME:VERSION
    #[arg(value_name = "[VAULT] NAME:VERSION", required = true, num_args = 1..=2)]
    place: Vec<String>,
    #[command(flatten)]
    vault: VaultArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let (uri, text) = args.vault.with_name(&args.place, &Project::find()?)?;
    let (name, selector) = reference(text)?;
    let Selector::Version(version) = selector else {
        return Err(
            CliError::usage(format!("{text}: which version?")).hint("name it: NAME:VERSION; `mvault ls` lists them")
        );
    };
    let store = open(&uri, &args.aws, out)?;
    let vault = Vault::new(&*store);
    let published = vault.find(&name, &Selector::Version(version))?;
    let tags = vault.tags(&name)?;
    let tagged = tags.iter().find(|(_, target)| target.as_ref().is_some_and(|t| t.version == version));
    if let Some((tag, _)) = tagged {
        let name = name.as_str();
        return Err(CliError::failed(format!("{name}:{version}: the tag {} points at it", tag.as_str()))
            .hint(format!("move the tag first: mvault tag … {name}:OTHER {}", tag.as_str())));
    }
    let shown = format!("{}:{version} in {}", name.as_str(), store.uri());
    if !args.yes && !out.confirm(&format!("remove {shown} for good?"))? {
        return Err(CliError::failed("nothing was removed"));
    }
    vault.remove(&name, &published)?;
    let json = json!({ "ok": true, "vault": store.uri(), "name": name.as_str(), "removed": version });
    out.result(&json, &format!("{shown} removed\n"))
}
