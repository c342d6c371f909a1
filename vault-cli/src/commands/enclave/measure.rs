//! `mvault enclave measure`: what an image file will measure, as PCRs, as a policy, as conditions for AWS KMS.

use super::{lines, measurements};
use crate::commands::policy::new::write_for;
use crate::error::{CliError, io};
use crate::output::Output;
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use vault_attest::eif::{self, EifError, Image};
use vault_attest::key_policy::release_conditions;
use vault_core::header::hex;

/// Measure an enclave image file, anyone's, without running it
///
/// The file is read strictly: anything that another reader could see differently is refused. A signature is verified, and
/// PCR8 names the certificate; whether to trust it is for you to say.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault enclave measure model.eif
  mvault enclave measure model.eif --policy minilm-prod -o minilm-prod.toml
  mvault enclave measure model.eif --kms > conditions.json

`mvault policy new --from model.eif` writes policies with scope, times and versions.")]
pub struct Args {
    /// An enclave image
    file: PathBuf,
    /// Write a policy of this name for the image
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Where to write the policy [default: NAME.toml]
    #[arg(short, long, value_name = "FILE", requires = "policy")]
    output: Option<PathBuf>,
    /// The image's release, in the policy
    #[arg(long, value_name = "NAME", default_value = "1", requires = "policy")]
    release: String,
    /// Replace a policy of that name
    #[arg(short, long, requires = "policy")]
    force: bool,
    /// Print the conditions for a key policy of AWS KMS that only this image meets
    #[arg(long, conflicts_with = "policy")]
    kms: bool,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let (image, len) = read(&args.file)?;
    let mut text = lines(&image);
    let mut json = json!({
        "ok": true, "file": args.file.display().to_string(), "bytes": len, "version": image.version(),
        "architecture": image.architecture().name(), "cmdline": String::from_utf8_lossy(image.cmdline()),
        "certificate": image.certificate().map(hex), "Measurements": measurements(&image),
    });
    let mut more = |name: &str, value| json.as_object_mut().map(|map| map.insert(name.into(), value));
    if let Some(name) = &args.policy {
        let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
        let comment = format!("measured from {}", args.file.file_name().unwrap_or_default().to_string_lossy());
        let said = write_for(name, &args.release, image.pcrs(), comment, &path, args.force)?;
        text.push_str(&said.text);
        more("policy", said.json);
    }
    if args.kms {
        let conditions = release_conditions(image.pcrs());
        text = format!("{conditions:#}\n");
        more("kms", conditions);
        out.note("`mvault policy kms` writes a whole key policy, and closes the ways round it");
    }
    out.result(&json, &text)
}

/// Reads and measures a file; gives its length too.
pub fn read(path: &Path) -> Result<(Image, u64), CliError> {
    let file = File::open(path).map_err(io(path.display()))?;
    let metadata = file.metadata().map_err(io(path.display()))?;
    if !metadata.is_file() {
        return Err(CliError::failed(format!("{}: not a file", path.display())));
    }
    let image = eif::measure(&file, metadata.len()).map_err(|e| refused(path, e))?;
    Ok((image, metadata.len()))
}

fn refused(path: &Path, error: EifError) -> CliError {
    let hint = match &error {
        EifError::Short(_) | EifError::Magic(_) => "is it an enclave image? `mvault enclave build` makes them",
        EifError::Version(_) => "a newer mvault may read it",
        EifError::Signature { .. } => "sign it again with the certificate's key; do not run it as it is",
        _ => "the image is damaged or made to mislead; build it again, or get it again",
    };
    match error {
        EifError::Io(error) => io(path.display())(error),
        other => CliError::not_authentic(format!("{}: {other}", path.display())).hint(hint),
    }
}
