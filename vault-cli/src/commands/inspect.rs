//! `mvault inspect`: what an artifact says of itself, and how much of that is verified.

use super::artifact::Artifact;
use crate::aws::AwsArgs;
use crate::error::CliError;
use crate::keys::{IdentityArgs, count};
use crate::output::{Output, printable, size, table};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use vault_core::aead::Engine;
use vault_core::cbor::TextMap;
use vault_core::header::{Header, hex, stanza_name};
use vault_core::manifest::Manifest;
use vault_core::open::RangeReader;
use vault_core::recipient::aws_kms::Stanza;
use vault_core::scan::Verdict;

/// Show what is in a sealed model, for whom, and signed by whom
///
/// Without a key only the header is shown, and nothing of it is verified. With a key: name, version, files,
/// digests and scan verdicts, from the authenticated header and manifest. `mvault verify` checks every byte.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault inspect model.pkl.mvault
  mvault inspect model.pkl.mvault -i id.txt --json
  mvault inspect bert.mvault --sha256sums | (cd bert && sha256sum -c)")]
pub struct Args {
    /// A sealed model
    file: PathBuf,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Print the recorded SHA-256 digests for `sha256sum -c`
    #[arg(long)]
    sha256sums: bool,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let artifact = Artifact::open(&args.file, &args.aws, out)?;
    let mut text = header_text(&artifact)?;
    let mut value = header_json(&artifact)?;
    let unlocked = args.identity.is_any().then(|| args.identity.unlock(&artifact.header, &args.aws, out));
    let header = match unlocked {
        None => None,
        Some(Ok(header)) => Some(header),
        // A default key that does not fit is no reason not to show the header.
        Some(Err(e)) if !args.identity.is_given() && e.rule() == Some("F-18") => None,
        Some(Err(e)) => return Err(e.about(args.file.display())),
    };
    let Some(header) = header else {
        if args.sha256sums {
            return Err(CliError::failed(format!("{}: the digests are sealed", args.file.display()))
                .hint("give a key with -i FILE"));
        }
        text.push_str("contents:    sealed; give a key with -i to see them\n");
        return out.result(&value, &text);
    };
    let parts = artifact.parts()?;
    let (file, offset, len) = parts.at();
    let reader = RangeReader::new(file, offset, len, &header, Engine::fastest())
        .map_err(|e| CliError::from(e).about(args.file.display()))?;
    let manifest = reader.manifest();
    artifact.check_identity(&manifest.name, manifest.model_version)?;
    if args.sha256sums {
        return out.bytes(sums(manifest, args)?.as_bytes());
    }
    let labels = header.about().map(|a| &a.labels);
    if let Some(object) = value.as_object_mut() {
        object.insert("verified".into(), json!("header and manifest"));
        object.insert("name".into(), json!(manifest.name));
        object.insert("model_version".into(), json!(manifest.model_version));
        object.insert("layout".into(), json!(if manifest.layout == 1 { "folder" } else { "file" }));
        object.insert("tool".into(), json!(manifest.tool));
        object.insert("sealed_at".into(), json!(manifest.sealed_at));
        let labels = labels.map(|l| l.iter().map(|(k, v)| (k.to_owned(), json!(v))).collect::<serde_json::Map<_, _>>());
        object.insert("labels".into(), json!(labels.unwrap_or_default()));
        object.insert("entries".into(), entries_json(manifest));
    }
    text.push_str(&manifest_text(manifest));
    for (key, label) in labels.into_iter().flat_map(TextMap::iter) {
        let _ = writeln!(text, "label:       {} = {}", printable(key), printable(label));
    }
    out.result(&value, &text)
}

fn header_text(artifact: &Artifact) -> Result<String, CliError> {
    let header = &artifact.header;
    let prelude = header.prelude();
    let kinds: Vec<_> = header.stanzas().map(|s| stanza_name(s.kind)).collect();
    let signature = header.signature().map_or_else(
        || "none: anyone who knows a recipient could have made this".into(),
        |s| format!("by key {} (not checked here)", hex(&s.key_id)),
    );
    let payload = artifact.payload_len()?.map_or_else(|| "unknown".into(), size);
    let kms = kms_keys(header).iter().fold(String::new(), |lines, arn| lines + "kms key:     " + arn + "\n");
    Ok(format!(
        "artifact:    {}\nid:          {}\nformat:      version 1, chunks of {}, header of {}\n\
         payload:     {payload}\nrecipients:  {} ({})\n{kms}signature:   {signature}\n",
        artifact.path().display(),
        prelude.artifact_id(),
        size(u64::from(prelude.chunk_size)),
        size(u64::from(prelude.header_len)),
        kinds.len(),
        kinds.join(", "),
    ))
}

/// The keys in AWS KMS that the header names.
fn kms_keys(header: &Header) -> Vec<String> {
    header.stanzas().filter_map(Stanza::parse).map(|s| s.arn.to_string()).collect()
}

fn header_json(artifact: &Artifact) -> Result<Value, CliError> {
    let header = &artifact.header;
    let prelude = header.prelude();
    Ok(json!({
        "ok": true,
        "artifact": artifact.path().display().to_string(),
        "id": prelude.artifact_id(),
        "format_version": 1,
        "chunk_size": prelude.chunk_size,
        "header_bytes": prelude.header_len,
        "payload_bytes": artifact.payload_len()?,
        "recipients": header.stanzas().map(|s| stanza_name(s.kind)).collect::<Vec<_>>(),
        "kms_keys": kms_keys(header),
        "signed_by": header.signature().map(|s| hex(&s.key_id)),
        "verified": "nothing",
    }))
}

fn manifest_text(manifest: &Manifest) -> String {
    let total: u64 = manifest.entries.iter().map(|e| e.size).sum();
    let mut rows = vec![["file", "size", "format", "scan", "blake3"].map(String::from).to_vec()];
    for entry in &manifest.entries {
        rows.push(vec![
            printable(&entry.path),
            size(entry.size),
            printable(&entry.scan.format),
            entry.scan.verdict().map_or("unknown", Verdict::as_str).into(),
            hex(&entry.blake3[..8]),
        ]);
    }
    format!(
        "name:        {} version {}\nsealed by:   {}\ncontents:    {}, {} (header and manifest verified)\n\n{}",
        printable(&manifest.name),
        manifest.model_version,
        printable(&manifest.tool),
        count(manifest.entries.len(), "file"),
        size(total),
        table(&rows),
    )
}

/// Lines as `sha256sum` prints them. Paths have no characters that it would escape ([F-32]).
fn sums(manifest: &Manifest, args: &Args) -> Result<String, CliError> {
    let lines = manifest.entries.iter().map(|e| Some(format!("{}  {}\n", hex(&**e.sha256.as_ref()?), e.path)));
    lines.collect::<Option<String>>().ok_or_else(|| {
        CliError::failed(format!("{}: no SHA-256 was recorded", args.file.display()))
            .hint("seal with --sha256 to have it; BLAKE3 is always there, see --json")
    })
}

/// The manifest's entries for scripts.
pub fn entries_json(manifest: &Manifest) -> Value {
    manifest
        .entries
        .iter()
        .map(|e| {
            json!({
                "path": e.path,
                "size": e.size,
                "blake3": hex(&*e.blake3),
                "sha256": e.sha256.as_ref().map(|d| hex(&**d)),
                "format": e.scan.format,
                "scan": e.scan.verdict().map_or("unknown", Verdict::as_str),
                "findings": e.scan.findings.iter().map(|f| json!({
                    "member": f.member, "what": f.what, "offset": f.offset,
                })).collect::<Vec<_>>(),
            })
        })
        .collect()
}
