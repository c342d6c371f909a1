//! `mvault verify`: the whole artifact, without writing plaintext; or only its signature, without any key; or plain files
//! against a model signature (`files`).

mod files;

use super::artifact::Artifact;
use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::keys::{IdentityArgs, SignerArgs, count};
use crate::output::{Output, printable, size};
use crate::process::threads;
use std::path::PathBuf;
use vault_core::error::Error;
use vault_core::header::hex;
use vault_core::io::{Input, Sequential};
use vault_core::open::{OpenOptions, Release, open, payload_digest};
use vault_core::signature::PublisherPublicKey;

/// Check a whole sealed model without writing it out, or plain files against a signature
///
/// With a key: every chunk, the manifest, the digests, and the signature if a signer is demanded. With
/// --signer and no key: the publisher's signature over the ciphertext. With --signature: plain files, or a sealed model as the
/// file it is, against a signature of `mvault sign` or of OpenSSF Model Signing; no key is needed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault verify model.pkl.mvault
  mvault verify model.pkl.mvault -i id.txt --signer team.pub
  mvault verify model.pkl.mvault --signer team.pub --no-key   anyone can
  mvault verify bert/ --signature bert.sig --signer team.pub  plain files
  mvault verify bert/ --signature bert.sig --ca root.pem      by certificate")]
pub struct Args {
    /// A sealed model, or - for standard input; with --signature, a plain file or folder
    file: PathBuf,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    signers: SignerArgs,
    /// Check only the signature, with no key
    #[arg(long, conflicts_with_all = ["identities", "passphrase", "passphrase_fd"])]
    no_key: bool,
    #[command(flatten)]
    plain: files::FilesArgs,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", hide_short_help = true)]
    threads: Option<usize>,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    if let Some(signature) = &args.plain.signature {
        return files::run(args, signature, out);
    }
    let project = Project::find()?;
    let signers = args.signers.load(&project)?;
    let mut artifact = Artifact::open(&args.file, &args.aws, out)?;
    let signature_only = args.no_key || (!args.identity.is_any() && !signers.is_empty());
    // Before the bar: it may ask for a passphrase.
    let header = if signature_only {
        None
    } else {
        Some(args.identity.unlock(&artifact.header, &args.aws, out).map_err(|e| e.about(args.file.display()))?)
    };
    let bar = out.progress("checking", artifact.payload_len()?);
    let progress = |n| bar.inc(n);
    let Some(header) = header else {
        let checked = check_signature(&mut artifact, &signers, &progress);
        bar.finish_and_clear();
        return report_signature(args, &checked?, &artifact, out);
    };
    let options = OpenOptions {
        signers: &signers,
        threads: threads(args.threads),
        progress: &progress,
        ..OpenOptions::default()
    };
    let opened = artifact.payload(|input| open(input, &header, &options, Release::Nothing));
    bar.finish_and_clear();
    let verified = opened?.map_err(|e| CliError::from(e).about(args.file.display()))?;
    let manifest = &verified.manifest;
    artifact.check_identity(&manifest.name, manifest.model_version)?;
    let plain: u64 = manifest.entries.iter().map(|e| e.size).sum();
    let json = serde_json::json!({
        "ok": true,
        "artifact": args.file.display().to_string(),
        "id": artifact.header.prelude().artifact_id(),
        "name": manifest.name,
        "model_version": manifest.model_version,
        "signer": verified.signer.map(|id| hex(&id)),
        "plain_bytes": plain,
        "entries": super::inspect::entries_json(manifest),
    });
    let signed = match (verified.signer, artifact.header.signature()) {
        (Some(id), _) => format!("signed by {}", hex(&id)),
        (None, Some(_)) => "signature not checked: demand a signer with --signer".into(),
        (None, None) => "not signed: anyone who knows a recipient could have made it".into(),
    };
    let text = format!(
        "{}: authentic: {} version {}, {} in {}\n{signed}\n",
        args.file.display(),
        printable(&manifest.name),
        manifest.model_version,
        size(plain),
        count(manifest.entries.len(), "file"),
    );
    out.result(&json, &text)
}

fn check_signature(
    artifact: &mut Artifact,
    signers: &[PublisherPublicKey],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<[u8; 32], CliError> {
    if signers.is_empty() {
        return Err(
            CliError::usage("no publisher's key to check the signature with").hint("name it with --signer PUB.PEM")
        );
    }
    let path = artifact.path().display().to_string();
    let named = |e: Error| CliError::from(e).about(&path);
    let prelude = artifact.header.prelude().clone();
    let section = artifact.header.signature();
    let section = section.ok_or_else(|| named(vault_core::error::not_signed()))?;
    section.verify(&prelude, signers).map_err(named)?;
    let digest = artifact.payload(|input| match input {
        Input::At { file, offset, len } => {
            let mut reader = Sequential::new(file, offset, len);
            payload_digest(&mut reader, prelude.chunk_size, progress)
        }
        Input::Stream(stream) => payload_digest(stream, prelude.chunk_size, progress),
    })?;
    section.check_payload(&digest.map_err(named)?).map_err(named)?;
    Ok(section.key_id)
}

fn report_signature(args: &Args, key_id: &[u8; 32], artifact: &Artifact, out: &mut Output) -> Result<(), CliError> {
    let id = hex(key_id);
    let json = serde_json::json!({
        "ok": true,
        "artifact": args.file.display().to_string(),
        "id": artifact.header.prelude().artifact_id(),
        "signer": id,
        "signature_only": true,
    });
    let text =
        format!("{}: the ciphertext is signed by {id}\nthe contents were not read: no key\n", args.file.display());
    out.result(&json, &text)
}
