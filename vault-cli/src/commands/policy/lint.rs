//! `mvault policy lint`: how a key in AWS KMS can be used outside the enclaves. Nothing is asked of AWS.

use super::{read, read_bounded};
use crate::error::CliError;
use crate::output::{Output, printable};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;
use vault_attest::key_policy::{Document, Finding, MAX_KEY_POLICY, Severity, lint};

/// Find ways to use a key in AWS KMS outside the enclave, from its key policy
///
/// Requests that an attacker would make are put to the policy's text, and what the text leaves open counts as allowed.
/// Exit code 0 if nothing is found, 1 otherwise. Grants that exist already are not in a key policy: aws kms list-grants.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  aws kms get-key-policy --key-id … --policy-name default --output json > key-policy.json
  mvault policy lint key-policy.json --policy minilm-prod.toml")]
pub struct Args {
    /// A key policy
    file: PathBuf,
    /// Compare it with this appraisal policy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let policy = args.policy.as_deref().map(read).transpose()?;
    let bytes = read_bounded(&args.file, 2 * MAX_KEY_POLICY)?;
    let document = Document::parse(&bytes).map_err(|e| {
        let message = format!("{}: no key policy: {}", args.file.display(), printable(&e.to_string()));
        CliError::failed(message).hint("`aws kms get-key-policy --policy-name default --output json` prints one")
    })?;
    let findings = lint(&document, policy.as_ref());
    let list: Vec<_> = findings.iter().map(report).collect();
    let name = args.file.display();
    let text = if findings.is_empty() {
        let of = policy
            .as_ref()
            .map_or_else(|| "the images it names".into(), |p| format!("the releases of policy {}", p.name()));
        format!("{name}: only enclaves of {of} can open with this key\n")
    } else {
        findings.iter().map(describe).collect()
    };
    out.result(&json!({ "ok": findings.is_empty(), "file": name.to_string(), "findings": list }), &text)?;
    if findings.is_empty() {
        return Ok(());
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (open, weak, shut) = (count(Severity::Open), count(Severity::Weak), count(Severity::Shut));
    let error = CliError::reported(format!("{name}: {open} open, {weak} weak, {shut} shut"));
    Err(error.hint("`mvault policy kms` prints a key policy without findings"))
}

fn describe(finding: &Finding) -> String {
    let Finding { id, severity, statement, found, why, fix } = finding;
    let at = if statement.is_empty() { "the key policy" } else { statement };
    let mut text = String::new();
    let _ = writeln!(text, "{:<5} {id}  {at}: {found}\n      {why}\n      fix: {fix}", severity.name());
    text
}

fn report(finding: &Finding) -> serde_json::Value {
    json!({
        "id": finding.id, "severity": finding.severity.name(), "statement": finding.statement,
        "found": finding.found, "why": finding.why, "fix": finding.fix,
    })
}
