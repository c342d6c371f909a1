//! `mvault verify --signature`: plain files against a model signature, docs/SIGNATURES.md.

use super::Args;
use crate::config::Project;
use crate::error::{CliError, io};
use crate::keys::count;
use crate::output::{Output, printable};
use crate::process::threads;
use crate::signatures::{digests, ignored_paths, load_roots, not_covered, now_s, open, place_in};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use vault_core::header::hex;
use vault_core::model_signature::{Bundle, Content, Difference, MAX_BUNDLE, Trust, Verified};

/// What only plain files need.
#[derive(clap::Args)]
pub struct FilesArgs {
    /// Check plain files against this signature of OpenSSF Model Signing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_key", "identities", "passphrase", "passphrase_fd"])]
    pub signature: Option<PathBuf>,
    /// With --signature: take a signer whose certificate is under this root (PEM); may be repeated
    #[arg(long, value_name = "ROOT.PEM", requires = "signature", conflicts_with = "signers")]
    ca: Vec<PathBuf>,
    /// Judge certificates as of this time, such as 2026-11-24T23:00:00Z [default: now]
    #[arg(long, value_name = "TIME", requires = "ca", value_parser = crate::commands::attest::parse_time)]
    at: Option<u64>,
    /// With --signature: do not look at this path of the folder; may be repeated
    #[arg(long = "ignore", value_name = "PATH", requires = "signature")]
    ignored: Vec<String>,
    /// With --signature: check the files that symbolic links in a folder point to
    #[arg(long, requires = "signature")]
    follow_symlinks: bool,
}

/// Differences that a message names; `--json` has them all.
const NAMED: usize = 8;

pub fn run(args: &Args, signature: &Path, out: &mut Output) -> Result<(), CliError> {
    let verified = verify(args, signature)?;
    let content = verified.content();
    let given = ignored_paths(&args.plain.ignored)?;
    let own = place_in(&args.file, signature);
    let left_out: Vec<_> = content.ignored().iter().cloned().chain(given).chain(own).collect();
    let model = open(&args.file, &left_out, args.plain.follow_symlinks)?;
    if content.is_one_file() == model.folder {
        let of = |folder| if folder { "a folder" } else { "one file" };
        let message = format!("{}: {}, signed was {}", args.file.display(), of(model.folder), of(!model.folder));
        return Err(CliError::not_authentic(format!("{message} [M-14]"))
            .by_rule("M-14")
            .hint("give the path that was signed: a folder as a whole, or the file itself"));
    }
    let bar = out.progress("checking", model.size);
    let found = digests(&model, content.hash(), threads(args.threads), &|n| bar.inc(n));
    bar.finish_and_clear();
    let found = found?;
    model.check_unchanged("verified")?;
    let differences = content.differences(&found);
    if differences.is_empty() {
        return report(args, &verified, &model.left_out, out);
    }
    Err(differ(args, &differences, out))
}

fn verify(args: &Args, signature: &Path) -> Result<Verified, CliError> {
    let mut bytes = Vec::new();
    let read = File::open(signature).and_then(|f| f.take(MAX_BUNDLE as u64 + 1).read_to_end(&mut bytes));
    read.map_err(io(signature.display()))?;
    let named = |e| CliError::from(e).about(signature.display());
    let bundle = Bundle::parse(&bytes).map_err(named)?;
    if !args.plain.ca.is_empty() {
        let roots = load_roots(&args.plain.ca)?;
        let trust = Trust::Roots { roots: &roots, time_s: args.plain.at.unwrap_or_else(now_s) };
        return bundle.verify(&trust).map_err(named);
    }
    let keys = args.signers.load(&Project::find()?)?;
    if keys.is_empty() {
        return Err(CliError::usage("no publisher's key or root to check the signature with")
            .hint("name it with --signer PUB.PEM, or --ca ROOT.PEM for certificates"));
    }
    bundle.verify(&Trust::Keys(&keys)).map_err(named)
}

fn report(args: &Args, verified: &Verified, left_out: &[String], out: &mut Output) -> Result<(), CliError> {
    let (content, signer): (&Content, _) = (verified.content(), verified.signer());
    let json = json!({
        "ok": true,
        "path": args.file.display().to_string(),
        "hash": content.hash().as_str(),
        "files": content.files().len(),
        "not_covered": left_out,
        "signer": hex(&signer.key_id),
        "subject": signer.subject,
    });
    let subject = signer.subject.as_deref().map(|s| format!(", certificate of {}", printable(s))).unwrap_or_default();
    let text = format!(
        "{}: authentic: {} as signed by {}{subject}\n{}",
        args.file.display(),
        count(content.files().len(), "file"),
        hex(&signer.key_id),
        not_covered(left_out),
    );
    out.result(&json, &text)
}

fn differ(args: &Args, differences: &[Difference], out: &mut Output) -> CliError {
    let named: Vec<_> = differences.iter().take(NAMED).map(words).collect();
    let more = differences.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let message = format!("{}: not what was signed: {}{more} [M-14]", args.file.display(), named.join("; "));
    let only_additional = differences.iter().all(|d| matches!(d, Difference::Additional(_)));
    let error = CliError::not_authentic(message).by_rule("M-14").hint(if only_additional {
        "remove what the publisher did not sign, or leave it out with --ignore PATH"
    } else {
        "get the files again from the publisher, or a signature of these"
    });
    let json = json!({
        "ok": false,
        "error": error.message(),
        "hint": error.next_step(),
        "rule": error.rule(),
        "exit": error.exit_code(),
        "differences": differences.iter().map(to_json).collect::<Vec<_>>(),
    });
    match out.result(&json, "") {
        Ok(()) => error.already_reported(),
        Err(_) => error,
    }
}

fn words(difference: &Difference) -> String {
    match difference {
        Difference::Changed(path) => format!("{} was changed", printable(path)),
        Difference::Renamed(path, now) => format!("{} is now {}", printable(path), printable(now)),
        Difference::Missing(path) => format!("{} is missing", printable(path)),
        Difference::Additional(path) => format!("{} is additional", printable(path)),
    }
}

fn to_json(difference: &Difference) -> serde_json::Value {
    match difference {
        Difference::Changed(path) => json!({ "what": "changed", "path": path }),
        Difference::Renamed(path, now) => json!({ "what": "renamed", "path": path, "now": now }),
        Difference::Missing(path) => json!({ "what": "missing", "path": path }),
        Difference::Additional(path) => json!({ "what": "additional", "path": path }),
    }
}
