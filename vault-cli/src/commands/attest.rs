//! `mvault attest`: judge evidence of enclaves, docs/KEY_RELEASE.md sections 2 and 3.

mod explain;
mod report;
mod verify;

use crate::error::{CliError, io};
use crate::output::Output;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use vault_attest::nitro::{self, MAX_DOCUMENT, Mode, Roots, unverified_outline};
use vault_attest::policy::{Demand, Denial, MAX_FILE, Policy};
use vault_attest::time::{parse_rfc3339, rfc3339};
use vault_attest::{Refusal, Step, VerifiedEvidence};
use vault_core::header::unhex;

/// Verify attestation documents, and explain them
#[derive(clap::Subcommand)]
pub enum Command {
    Verify(verify::Args),
    Explain(explain::Args),
}

pub fn run(command: &Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::Verify(args) => verify::run(args, out),
        Command::Explain(args) => explain::run(args, out),
    }
}

/// What is judged, and by what.
#[derive(clap::Args)]
struct Input {
    /// An attestation document as the NSM gives it, or - for standard input
    #[arg(value_name = "DOC")]
    document: PathBuf,
    /// Appraise it by this policy as well
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The nonce that was demanded, in hex
    #[arg(long, value_name = "HEX", requires = "policy", value_parser = parse_hex)]
    nonce: Option<Nonce>,
    /// Judge it as of this time, such as 2026-11-24T23:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<u64>,
    /// Also take evidence that chains to this certificate (PEM): whoever has its key can forge evidence of any enclave
    #[arg(long, value_name = "ROOT.PEM")]
    dangerous_dev_root: Vec<PathBuf>,
}

#[derive(Clone)]
struct Nonce(Vec<u8>);

/// A document and what it is judged by.
struct Case {
    name: String,
    document: Vec<u8>,
    roots: Roots,
    now_s: u64,
    policy: Option<Policy>,
    nonce: Option<Vec<u8>>,
}

impl Input {
    fn load(&self, out: &Output) -> Result<Case, CliError> {
        let policy = self.policy.as_deref().map(read_policy).transpose()?;
        let roots = super::broker::roots(&self.dangerous_dev_root, out)?;
        let name = if is_stdin(&self.document) { "standard input".into() } else { self.document.display().to_string() };
        let document = read_bounded(&self.document, MAX_DOCUMENT)?;
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let nonce = self.nonce.as_ref().map(|nonce| nonce.0.clone());
        Ok(Case { name, document, roots, now_s: self.at.unwrap_or_else(now), policy, nonce })
    }
}

impl Case {
    fn verify(&self, mode: Mode) -> Result<VerifiedEvidence, Refusal> {
        nitro::verify(&self.document, &self.roots, mode)
    }

    fn live(&self) -> Mode {
        Mode::Live { now_s: self.now_s }
    }

    fn demand(&self) -> Demand<'_> {
        let now_ms = self.now_s.saturating_mul(1000);
        Demand { now_ms, nonce: self.nonce.as_deref(), artifact: None, recipient: None }
    }

    /// What the process ends with when verification refuses.
    fn refused(&self, refusal: &Refusal) -> CliError {
        let message = format!("{}: {}", self.name, words(refusal));
        let error =
            if refusal.step == Step::V(23) { CliError::denied(message) } else { CliError::not_authentic(message) };
        error.by_rule(refusal.step).hint(self.hint(refusal))
    }

    /// What the process ends with when the policy refuses.
    fn denied(&self, denial: &Denial) -> CliError {
        let message = format!("{}: {}; policy line {}", self.name, words(&denial.refusal), denial.policy_line);
        CliError::denied(message).by_rule(denial.refusal.step).hint(&denial.fix)
    }

    /// The next step after a refusal.
    fn hint(&self, refusal: &Refusal) -> String {
        let made_s = unverified_outline(&self.document).time_ms.map(|ms| ms / 1000);
        match (refusal.step, made_s) {
            (Step::V(1 | 2), _) if is_base64(&self.document) => {
                "it looks like base64 text: `base64 -d DOC | mvault attest verify -`".into()
            }
            (Step::V(9 | 20), Some(made)) => format!(
                "it says it was made at {0}; to judge it as of then: --at {0}; if it should be new, set the clock",
                rfc3339(made)
            ),
            (Step::V(14), _) => "another root than AWS's; if it is a development root of yours: \
                                 --dangerous-dev-root PEM"
                .into(),
            _ => vault_broker::advice::fix(refusal),
        }
    }
}

/// A refusal in a sentence that ends with its step.
fn words(refusal: &Refusal) -> String {
    let Refusal { step, what, expected, actual } = refusal;
    crate::output::printable(&format!("{what}: expected {expected}, found {actual} [{step}]"))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// At most one byte more than `most`, which is then refused by whoever reads it.
fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let most = most as u64 + 1;
    let read = if is_stdin(path) {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(io(path.display()))?;
    Ok(bytes)
}

/// A policy file, checked.
pub fn read_policy(path: &Path) -> Result<Policy, CliError> {
    let file = read_bounded(path, MAX_FILE)?;
    let refused = |e: vault_attest::policy::PolicyError| {
        CliError::failed(format!("{}: {e}", path.display())).by_rule(e.refusal.step).hint(e.fix)
    };
    Policy::parse(&file).map_err(refused)
}

fn is_base64(document: &[u8]) -> bool {
    let text = document.trim_ascii();
    text.len() > 100
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(b) || b.is_ascii_whitespace())
}

/// A time of the command line, in seconds since 1970.
pub fn parse_time(text: &str) -> Result<u64, String> {
    parse_rfc3339(text).ok_or_else(|| "expected a time in RFC 3339, such as 2026-11-24T23:00:00Z".into())
}

fn parse_hex(text: &str) -> Result<Nonce, String> {
    let bytes = unhex(text).filter(|bytes| !bytes.is_empty());
    bytes.map(Nonce).ok_or_else(|| "expected hex digits, two a byte".into())
}
