//! `mvault policy new` and `add-release`. What is written was read back first, and is whole or absent.

use super::measurements::{self, Measured};
use super::{read_bounded, wrong};
use crate::error::CliError;
use crate::files::{Access, write_new};
use crate::keys::load_publishers;
use crate::output::Output;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vault_attest::Pcr;
use vault_attest::policy::{Draft, DraftRelease, MAX_FILE, Policy, PolicyError, Release, Signer, release_text};
use vault_attest::time::parse_rfc3339;
use vault_core::header::hex;

/// Oldest evidence unless something else is asked for, in seconds.
const MAX_AGE_S: u64 = 300;

/// Write a policy for one image
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nitro-cli build-enclave … > build.json
  mvault policy new --from build.json --name minilm-prod --release 1.4.0 --model minilm
  mvault policy new --from model.eif --name minilm-prod            of an image that need not run
  mvault policy new --from model.eif --name prod --signer team.pub  only what the team signed
  mvault policy new --from attestation.bin -o minilm-prod.toml     of a running enclave")]
pub struct NewArgs {
    #[command(flatten)]
    image: ImageArgs,
    /// The policy's name [default: that of the output file]
    #[arg(long)]
    name: Option<String>,
    /// Oldest evidence, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_AGE_S)]
    max_age: u64,
    /// Refuse older versions of the model
    #[arg(long, value_name = "VERSION")]
    min_model_version: Option<u64>,
    /// Only this artifact, by its id; may be repeated
    #[arg(long, value_name = "ID")]
    artifact: Vec<String>,
    /// Only models of this name; may be repeated
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Only artifacts sealed for this broker key, by its id; may be repeated
    #[arg(long, value_name = "ID")]
    recipient: Vec<String>,
    /// Only models that this publisher's key signed (PEM); may be repeated, one must have signed
    #[arg(long, value_name = "PUB.PEM")]
    signer: Vec<PathBuf>,
    /// Where to write it [default: NAME.toml]
    #[arg(short, long, value_name = "FILE", required_unless_present = "name")]
    output: Option<PathBuf>,
    /// Replace a file of that name
    #[arg(short, long)]
    force: bool,
}

/// Let one more image release open the same models, beside those before
///
/// The file's text stays, comments included; the release is added at its end.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mvault policy add-release minilm-prod.toml --from build.json --release 1.5.0")]
pub struct AddArgs {
    /// A policy
    file: PathBuf,
    #[command(flatten)]
    image: ImageArgs,
}

/// The image and what it is called.
#[derive(clap::Args)]
struct ImageArgs {
    /// An enclave image, what `nitro-cli build-enclave` printed, or an attestation document
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The image's release
    #[arg(long, value_name = "NAME", default_value = "1")]
    release: String,
    /// Demand this PCR too: 3 is the parent's IAM role, 4 the parent instance, 8 the image's signer (taken if it is signed)
    #[arg(long, value_name = "INDEX", value_parser = clap::value_parser!(u8).range(3..=8))]
    pcr: Vec<u8>,
    /// Keys from this time on, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    not_before: Option<u64>,
    /// No keys after this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    not_after: Option<u64>,
}

fn parse_time(text: &str) -> Result<u64, String> {
    parse_rfc3339(text).ok_or_else(|| "expected a time such as 2026-11-01T00:00:00Z".into())
}

impl ImageArgs {
    fn release(&self) -> Result<DraftRelease, CliError> {
        if let Some(index) = self.pcr.iter().find(|i| (5..=7).contains(*i)) {
            return Err(CliError::usage(format!("PCR{index} measures nothing")).hint("policies know PCR3, 4 and 8"));
        }
        let Measured { pcrs, comment } = measurements::read(&self.from, &self.pcr)?;
        let (not_before_s, not_after_s) = (self.not_before, self.not_after);
        Ok(DraftRelease { release: Release { name: self.release.clone(), pcrs, not_before_s, not_after_s }, comment })
    }
}

pub fn new(args: &NewArgs, out: &mut Output) -> Result<(), CliError> {
    let stem = args.output.as_ref().and_then(|path| path.file_stem()).map(|s| s.to_string_lossy().into_owned());
    let name = args.name.clone().or(stem).unwrap_or_default();
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    let draft = Draft {
        name,
        max_age_s: args.max_age,
        minimum_model_version: args.min_model_version,
        artifacts: args.artifact.clone(),
        models: args.model.clone(),
        recipients: args.recipient.clone(),
        signers: load_publishers(&args.signer)?.into_iter().map(Signer::new).collect(),
        releases: vec![args.image.release()?],
    };
    let said = write_draft(&draft, &path, args.force)?;
    out.result(&said.json, &said.text)
}

/// Writes the plainest policy for an image: these measurements, and any model that is sealed for it.
pub fn write_for(
    name: &str,
    release: &str,
    pcrs: &BTreeMap<u8, Pcr>,
    comment: String,
    path: &Path,
    force: bool,
) -> Result<Said, CliError> {
    let release = Release { name: release.to_owned(), pcrs: pcrs.clone(), not_before_s: None, not_after_s: None };
    let draft = Draft {
        name: name.to_owned(),
        max_age_s: MAX_AGE_S,
        minimum_model_version: None,
        artifacts: Vec::new(),
        models: Vec::new(),
        recipients: Vec::new(),
        signers: Vec::new(),
        releases: vec![DraftRelease { release, comment }],
    };
    write_draft(&draft, path, force)
}

fn write_draft(draft: &Draft, path: &Path, force: bool) -> Result<Said, CliError> {
    let text = draft.text().map_err(|e| unwritten(&e))?;
    write_new(path, text.as_bytes(), Access::Public, force)?;
    said(path, text.as_bytes(), "written")
}

pub fn add_release(args: &AddArgs, out: &mut Output) -> Result<(), CliError> {
    let before = read_bounded(&args.file, MAX_FILE)?;
    Policy::parse(&before).map_err(|e| wrong(&args.file, &e))?;
    let mut text = before;
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(release_text(&args.image.release()?).as_bytes());
    Policy::parse(&text).map_err(|e| unwritten(&e))?;
    // A symbolic link stays one: what it points at is replaced.
    let target = args.file.canonicalize().map_err(crate::error::io(args.file.display()))?;
    write_new(&target, &text, Access::Public, true)?;
    let said = said(&args.file, &text, "release added")?;
    out.result(&said.json, &said.text)
}

/// What there is to say of a policy that was written.
pub struct Said {
    pub json: serde_json::Value,
    pub text: String,
}

/// Says it.
pub fn said(path: &Path, text: &[u8], what: &str) -> Result<Said, CliError> {
    let policy = Policy::parse(text).map_err(|e| wrong(path, &e))?;
    let count = policy.releases().len();
    let json = json!({
        "ok": true, "file": path.display().to_string(), "name": policy.name(), "digest": hex(policy.digest()),
        "releases": policy.releases().iter().map(|r| &r.name).collect::<Vec<_>>(),
    });
    let releases = if count == 1 { "1 release".into() } else { format!("{count} releases") };
    let text =
        format!("{}: {what}: policy {}, {releases}\ndigest {}\n", path.display(), policy.name(), hex(policy.digest()));
    Ok(Said { json, text })
}

/// A policy that was not written because it would not be read `[P-1]`.
fn unwritten(error: &PolicyError) -> CliError {
    let refusal = &error.refusal;
    let message =
        format!("{}: expected {}, found {} [{}]", refusal.what, refusal.expected, refusal.actual, refusal.step);
    CliError::failed(format!("nothing was written: {}", crate::output::printable(&message))).hint(error.fix)
}
