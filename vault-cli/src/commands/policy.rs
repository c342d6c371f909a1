//! `mvault policy`: appraisal policies, docs/KEY_RELEASE.md section 3, and the key policies of AWS KMS made of them.

mod kms;
mod lint;
pub mod measurements;
pub mod new;
mod remove;

use crate::error::{CliError, io};
use crate::output::{Output, printable};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use vault_attest::policy::{MAX_FILE, Policy, PolicyError, Release};
use vault_attest::time::rfc3339;
use vault_core::header::hex;

/// Write, check and compare the policies that decide which enclaves get keys
///
/// A policy names the measurements of the images that may open models. One that a debug enclave could satisfy is
/// neither written nor read.
#[derive(clap::Subcommand)]
pub enum Command {
    New(new::NewArgs),
    AddRelease(new::AddArgs),
    RemoveRelease(remove::Args),
    Check(CheckArgs),
    Diff(DiffArgs),
    Kms(kms::Args),
    Lint(lint::Args),
}

/// Check policies, and show what they say
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mvault policy check minilm-prod.toml")]
pub struct CheckArgs {
    /// Policies
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Show what two policies say differently; exit code 1 if they do
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mvault policy diff deployed.toml minilm-prod.toml")]
pub struct DiffArgs {
    /// The policy before
    before: PathBuf,
    /// The policy after
    after: PathBuf,
}

pub fn run(command: &Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::New(args) => new::new(args, out),
        Command::AddRelease(args) => new::add_release(args, out),
        Command::RemoveRelease(args) => remove::run(args, out),
        Command::Check(args) => check(args, out),
        Command::Diff(args) => diff(args, out),
        Command::Kms(args) => kms::run(args, out),
        Command::Lint(args) => lint::run(args, out),
    }
}

fn check(args: &CheckArgs, out: &mut Output) -> Result<(), CliError> {
    let (mut reports, mut text, mut failed) = (Vec::new(), String::new(), Vec::new());
    for path in &args.files {
        let found = match read_bounded(path, MAX_FILE) {
            Ok(bytes) => Policy::parse(&bytes).map_err(|e| wrong(path, &e)),
            Err(e) => Err(e),
        };
        match found {
            Ok(policy) => {
                describe(&policy, path, &mut text);
                reports.push(report(&policy, path));
            }
            Err(e) => {
                let hint = e.next_step().unwrap_or_default();
                let _ = writeln!(text, "{}\n  fix: {hint}", e.message());
                let file = path.display().to_string();
                reports.push(json!({ "ok": false, "file": file, "error": e.message(), "hint": hint }));
                failed.push(e);
            }
        }
    }
    if args.files.len() == 1
        && let Some(error) = failed.pop()
    {
        return Err(error);
    }
    out.result(&json!({ "ok": failed.is_empty(), "policies": reports }), &text)?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(CliError::reported(format!("{} of {} are no policies", failed.len(), args.files.len())))
}

fn describe(policy: &Policy, path: &Path, text: &mut String) {
    let scope = policy.scope();
    let _ = writeln!(text, "{}: policy {}, {}", path.display(), policy.name(), policy.platform());
    let _ = writeln!(text, "  digest    {}", hex(policy.digest()));
    let _ = writeln!(text, "  evidence  at most {} s old", policy.max_age_s());
    if let Some(version) = policy.minimum_model_version() {
        let _ = writeln!(text, "  models    version {version} or later");
    }
    if let Some(models) = &scope.models {
        let _ = writeln!(text, "  models    {}", printable(&models.join(", ")));
    }
    for (what, list) in [("artifacts", &scope.artifacts), ("brokers", &scope.recipients)] {
        for id in list.iter().flatten() {
            let _ = writeln!(text, "  {what:<9} {}", hex(id));
        }
    }
    for signer in scope.signers.iter().flatten() {
        let _ = writeln!(text, "  signer    {}", hex(signer.id()));
    }
    for release in policy.releases() {
        let _ = writeln!(text, "  release   {}", release.name);
        for (index, pcr) in &release.pcrs {
            let _ = writeln!(text, "    pcr{index}  {}", hex(pcr));
        }
        for (what, time) in [("from", release.not_before_s), ("until", release.not_after_s)] {
            if let Some(time) = time {
                let _ = writeln!(text, "    {what:<5} {}", rfc3339(time));
            }
        }
    }
}

fn report(policy: &Policy, path: &Path) -> Value {
    let release = |release: &Release| {
        let pcrs = release.pcrs.iter().map(|(i, pcr)| (format!("pcr{i}"), json!(hex(pcr))));
        let time = |t: Option<u64>| t.map(rfc3339);
        json!({
            "name": release.name, "pcrs": pcrs.collect::<serde_json::Map<_, _>>(),
            "not_before": time(release.not_before_s), "not_after": time(release.not_after_s),
        })
    };
    let releases: Vec<_> = policy.releases().iter().map(release).collect();
    json!({
        "ok": true, "file": path.display().to_string(), "name": policy.name(), "digest": hex(policy.digest()),
        "platform": policy.platform().name(), "max_age_s": policy.max_age_s(),
        "minimum_model_version": policy.minimum_model_version(), "releases": releases,
        "signers": policy.scope().signers.iter().flatten().map(|signer| hex(signer.id())).collect::<Vec<_>>(),
    })
}

fn diff(args: &DiffArgs, out: &mut Output) -> Result<(), CliError> {
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let differences = before.differences(&after);
    let mut text = String::new();
    for d in &differences {
        let _ = writeln!(text, "{}", d.key);
        for (sign, value) in [('-', &d.before), ('+', &d.after)] {
            if let Some(value) = value {
                let _ = writeln!(text, "  {sign} {}", printable(value));
            }
        }
    }
    let list: Vec<_> =
        differences.iter().map(|d| json!({ "key": d.key, "before": d.before, "after": d.after })).collect();
    if differences.is_empty() {
        text.push_str("no difference but in comments or order\n");
        if before.digest() == after.digest() {
            text = "the same file\n".into();
        }
    }
    out.result(&json!({ "ok": true, "equal": list.is_empty(), "differences": list }), &text)?;
    if differences.is_empty() {
        return Ok(());
    }
    let keys =
        if differences.len() == 1 { "1 key differs".into() } else { format!("{} keys differ", differences.len()) };
    Err(CliError::reported(format!("the policies are not the same: {keys}")))
}

/// Reads a policy; the error names line and fix.
fn read(path: &Path) -> Result<Policy, CliError> {
    Policy::parse(&read_bounded(path, MAX_FILE)?).map_err(|e| wrong(path, &e))
}

/// A file that is no policy `[P-1]`.
fn wrong(path: &Path, error: &PolicyError) -> CliError {
    let refusal = &error.refusal;
    let line = if error.line > 0 { format!(":{}", error.line) } else { String::new() };
    let words = format!("{}: expected {}, found {}", refusal.what, refusal.expected, refusal.actual);
    CliError::failed(format!("{}{line}: {} [{}]", path.display(), printable(&words), refusal.step)).hint(error.fix)
}

/// A file, of which one byte more than `most` at most is read: the parser refuses that.
fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    read.map_err(io(path.display()))?;
    Ok(bytes)
}
