//! `mvault broker recipient` and `mvault broker rotate`: whom to seal for.

use super::client::ClientFile;
use super::{now_s, read_keyring};
use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::files::{Access, write_new};
use crate::keys::{IdentityArgs, RecipientArgs as SealFor};
use crate::output::Output;
use rand_core::UnwrapErr;
use serde_json::json;
use std::path::PathBuf;
use vault_attest::policy::Policy;
use vault_attest::tlog::LogSigner;
use vault_broker::config::Config;
use vault_broker::rules::Rules;
use vault_core::header::hex;
use vault_core::recipient::Recipient;

/// Print the line to seal for this broker under a policy
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault seal model.safetensors -r \"$(mvault broker recipient broker prod)\"
  mvault broker recipient broker prod --pin    for this very policy file only")]
pub struct RecipientArgs {
    /// The broker's folder
    folder: PathBuf,
    /// The policy that the broker shall follow
    policy: String,
    /// Pin the policy's digest: what the file says now, and nothing else
    #[arg(long)]
    pin: bool,
}

pub fn recipient(args: &RecipientArgs, out: &mut Output) -> Result<(), CliError> {
    let config = Config::read(&args.folder)?;
    let client = ClientFile::read(&args.folder.join("client.toml"))?;
    let rules = Rules::read(&config)?;
    let policy = rules.policy(&args.policy);
    if policy.is_none() {
        let loaded: Vec<_> = rules.policies().map(Policy::name).collect();
        let hint = format!("{} has: {}", config.policies.display(), loaded.join(", "));
        return Err(CliError::usage(format!("there is no policy {} yet", args.policy)).hint(hint));
    }
    let digest = policy.map(|policy| hex(policy.digest())).unwrap_or_default();
    let pin = if args.pin { format!("@sha256:{digest}") } else { String::new() };
    let line = format!("{}/{}{pin}", client.recipient, args.policy);
    let json = json!({ "ok": true, "recipient": line, "policy": args.policy, "policy_digest": digest });
    out.result(&json, &format!("{line}\n"))
}

/// Add a key: models are sealed for it from now on, and what was sealed for the others still opens
///
/// The keyring is sealed anew for the recipients given here: name all of them. Restart the broker (and copy broker.keys
/// to its replicas) before anyone seals for the new key.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault broker rotate broker                                    sealed for your key
  mvault broker rotate broker -i aws-kms -r aws-kms:alias/broker")]
pub struct RotateArgs {
    /// The broker's folder
    folder: PathBuf,
    #[command(flatten)]
    recipients: SealForArgs,
    /// Key file to open the keyring with, or aws-kms[:KEY-ARN] [default: your key]
    #[arg(short, long = "identity", value_name = "FILE",
          value_parser = <clap::builder::OsStringValueParser as clap::builder::TypedValueParser>::try_map(clap::builder::OsStringValueParser::new(), crate::kms::parse_source))]
    identities: Vec<crate::kms::Source>,
    #[command(flatten)]
    aws: AwsArgs,
}

/// The passphrase, if any, opens the old keyring and seals the new one.
#[derive(clap::Args)]
pub struct SealForArgs {
    #[command(flatten)]
    recipients: SealFor,
}

pub fn rotate(args: &RotateArgs, out: &mut Output) -> Result<(), CliError> {
    let config = Config::read(&args.folder)?;
    let identity = IdentityArgs::of(&args.identities);
    let mut keyring = read_keyring(&config, &identity, &args.aws, out)?;
    let client_path = args.folder.join("client.toml");
    let client = ClientFile::read(&client_path)?;
    let mut rng = UnwrapErr(getrandom::SysRng);
    keyring.rotate(now_s(), &mut rng)?;
    let recipients = args.recipients.recipients.all(&Project::find()?, &args.aws, out)?;
    let recipients: Vec<&dyn Recipient> = recipients.iter().map(AsRef::as_ref).collect();
    let sealed = keyring.seal(&recipients, &mut rng)?;
    let signer = LogSigner::new(&config.origin, keyring.log_seed())
        .map_err(|e| CliError::failed(format!("broker.toml: origin: {e}")))?;
    let client = ClientFile::new(&client.url, &keyring, signer.verifier(), &client.ca);
    // The keyring first: a line to seal for whose key is lost would be worse than a line that is not known yet.
    write_new(&config.keyring, &sealed, Access::Owner, true)?;
    write_new(&client_path, client.text().as_bytes(), Access::Public, true)?;
    let json = json!({ "ok": true, "recipient": client.recipient, "keys": client.keys });
    let text = format!(
        "{} keys; the newest is {}\nrestart the broker and its replicas, then seal for the new line: mvault broker recipient\n",
        client.keys.len(),
        client.keys.first().map(String::as_str).unwrap_or_default()
    );
    out.result(&json, &text)
}
