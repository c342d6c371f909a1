//! `mvault policy kms`: the key policy for AWS KMS that an appraisal policy asks for. Nothing is sent.

use super::read;
use crate::error::CliError;
use crate::output::Output;
use std::path::PathBuf;
use vault_attest::key_policy::{Access, AccessError, Arn};
use vault_attest::policy::{Policy, parse_id};

/// Print the key policy for AWS KMS that a policy asks for
///
/// KMS then opens for enclaves of the policy's releases only: one statement per release, and denials of every way
/// round (no evidence, other images, grants, re-encryption, replicas, changes of the policy by others). Whoever may
/// change the key policy can give themselves the key: name few administrators.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault policy kms minilm-prod.toml --admin arn:aws:iam::111122223333:role/key-admin \\
      --principal arn:aws:iam::111122223333:role/serve --sealer arn:aws:iam::111122223333:role/ci > key-policy.json
  aws kms put-key-policy --key-id … --policy-name default --policy file://key-policy.json")]
pub struct Args {
    /// An appraisal policy
    file: PathBuf,
    /// Who may change the key policy: a role or user; may be repeated
    #[arg(long, value_name = "ARN", value_parser = parse_arn, required_unless_present = "account")]
    admin: Vec<Arn>,
    /// The root user of this account may change it (nobody else of the account)
    #[arg(long, value_name = "ID", value_parser = parse_account)]
    account: Option<String>,
    /// The role of instances that run the enclaves; may be repeated [default: whom the account's IAM allows]
    #[arg(long, value_name = "ARN", value_parser = parse_arn)]
    principal: Vec<Arn>,
    /// Who seals outside enclaves: a role or user; may be repeated
    #[arg(long, value_name = "ARN", value_parser = parse_arn)]
    sealer: Vec<Arn>,
    /// Enclaves seal too (GenerateDataKey with evidence)
    #[arg(long)]
    enclaves_seal: bool,
    /// Open this artifact only, by its id; may be repeated [default: the policy's scope]
    #[arg(long, value_name = "ID", value_parser = parse_artifact)]
    vault_artifact: Vec<[u8; 32]>,
}

fn parse_arn(text: &str) -> Result<Arn, String> {
    Arn::parse(text)
        .ok_or_else(|| "expected arn:PARTITION:iam::ACCOUNT:role/NAME or …:user/NAME, without patterns".into())
}

fn parse_account(text: &str) -> Result<String, String> {
    let ok = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    if ok { Ok(text.into()) } else { Err("expected the 12 digits of an account".into()) }
}

fn parse_artifact(text: &str) -> Result<[u8; 32], String> {
    parse_id(text).ok_or_else(|| "expected an artifact's id, 64 hex digits".into())
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let policy = read(&args.file)?;
    let access = Access {
        administrators: args.admin.clone(),
        root_of: args.account.clone(),
        enclaves: args.principal.clone(),
        sealers: args.sealer.clone(),
        enclaves_seal: args.enclaves_seal,
        artifacts: args.vault_artifact.clone(),
    };
    let text = access.key_policy(&policy).map_err(|e| refused(&e))?;
    notes(&policy, &access, out);
    out.bytes(text.as_bytes())
}

/// What the key policy does not say.
fn notes(policy: &Policy, access: &Access, out: &Output) {
    let scope = policy.scope();
    let left_out = [
        ("minimum_model_version", policy.minimum_model_version().is_some()),
        ("scope.models", scope.models.is_some()),
        ("scope.recipients", scope.recipients.is_some()),
        ("scope.signers", scope.signers.is_some()),
    ];
    let names: Vec<_> = left_out.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    if !names.is_empty() {
        out.note(&format!("KMS cannot judge {}: the enclave's measured configuration must", names.join(", ")));
    }
    if access.enclaves.is_empty() {
        out.note(&format!("no --principal: IAM of account {} decides whose enclaves may ask", access.account()));
    }
    if access.sealers.is_empty() && !access.enclaves_seal {
        out.note("no --sealer: nobody can seal for this key");
    }
}

fn refused(error: &AccessError) -> CliError {
    let message = CliError::failed(error.to_string());
    match error {
        AccessError::TooLong(_) => message.hint("leave out releases that no longer run, or name fewer roles"),
        AccessError::OutOfScope(_) => {
            message.hint("add it to scope.artifacts of the policy, or leave --vault-artifact out")
        }
        AccessError::TwoRoles(_) => message.hint("whoever may change the key policy needs no enclave: use two roles"),
        _ => message.hint("name one with --admin, or the account with --account"),
    }
}
