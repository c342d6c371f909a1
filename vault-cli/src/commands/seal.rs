//! `mvault seal`: scan and seal a model in one read.

use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::files::{Access, NewFile, exists};
use crate::keys::{RecipientArgs, count, load_signing_key};
use crate::output::{Output, printable, size, stdout_file};
use crate::process::threads;
use crate::provenance::ProvenanceArgs;
use crate::signatures::{Companion, check_apart};
use crate::sources::Model;
use rand_core::UnwrapErr;
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use vault_core::header::{DEFAULT_CHUNK_SIZE, DEFAULT_HEADER_LEN};
use vault_core::manifest::Manifest;
use vault_core::recipient::Recipient;
use vault_core::scan::Verdict;
use vault_core::seal::{SealOptions, Sealed, seal};
use vault_core::signature::PublisherKey;

/// Scan a model and seal it to recipients
///
/// The model is read once: scanned, digested and encrypted in the same pass, on all cores, in a few
/// megabytes of memory. Without recipients it is sealed for those of mvault.toml, or for you.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault seal model.pkl                       model.pkl.mvault, for you
  mvault seal bert/ -r mvault-xw1-… -o b.mvault
  mvault seal model.gguf -p                   with a passphrase
  mvault seal bert/ -r aws-kms:alias/models   for a key in AWS KMS
  mvault seal model.pt --sign sign.pem        others can check who made it
  mvault seal model.pt --dataset data/train   and on what it was trained
  mvault seal bert/ --sign sign.pem --model-signature bert.sig
  train | mvault seal - --name m.safetensors > m.mvault")]
pub struct Args {
    /// A file, a folder, or - for standard input
    path: PathBuf,
    #[command(flatten)]
    recipients: RecipientArgs,
    /// Where to write, - for standard output [default: PATH.mvault]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing output
    #[arg(short, long)]
    force: bool,
    /// The model's name [default: that of the file or folder]
    #[arg(long)]
    name: Option<String>,
    /// The model's version, a number that grows
    #[arg(long, value_name = "N", default_value_t = 1)]
    model_version: u64,
    /// Plaintext bytes a chunk
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_CHUNK_SIZE, hide_short_help = true)]
    chunk_size: u32,
    #[command(flatten)]
    how: SealArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

/// What `seal` and `push` have in common: what is sealed, and how.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools)] // flags
pub struct SealArgs {
    /// A label, visible to recipients only; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Sign with this publisher's key (P-256, PEM)
    #[arg(long, value_name = "KEY.PEM")]
    sign: Option<PathBuf>,
    /// With --sign: write a signature of the plain files here, too, as OpenSSF Model Signing has it
    #[arg(long, value_name = "FILE", requires = "sign")]
    pub model_signature: Option<PathBuf>,
    /// With --model-signature: the key's certificate, then those of its authorities (PEM)
    #[arg(long, value_name = "CHAIN.PEM", requires = "model_signature")]
    cert: Option<PathBuf>,
    /// Also record the SHA-256 of each file, as `sha256sum` prints it
    #[arg(long)]
    sha256: bool,
    /// Seal what symbolic links in a folder point to
    #[arg(long)]
    pub follow_symlinks: bool,
    /// Seal pickles that are dangerous or cannot be scanned
    #[arg(long)]
    dangerous_allow_unsafe_pickle: bool,
    /// Seal safetensors, GGUF and ONNX files with a broken structure
    #[arg(long)]
    dangerous_allow_malformed: bool,
    /// Bytes to set aside for the header, for more recipients later
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_HEADER_LEN, hide_short_help = true)]
    header_size: u32,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", hide_short_help = true)]
    threads: Option<usize>,
    #[command(flatten)]
    pub provenance: ProvenanceArgs,
}

impl SealArgs {
    /// The publisher's key.
    pub fn signing_key(&self) -> Result<Option<PublisherKey>, CliError> {
        self.sign.as_deref().map(load_signing_key).transpose()
    }

    /// The model signature to be written beside what is sealed from `model`.
    pub fn companion<'a>(
        &self,
        model: &Path,
        key: Option<&'a PublisherKey>,
        force: bool,
    ) -> Result<Option<Companion<'a>>, CliError> {
        let (Some(path), Some(key)) = (&self.model_signature, key) else { return Ok(None) };
        Companion::begin(path, model, key, self.cert.as_deref(), (self.follow_symlinks, force)).map(Some)
    }

    /// Options for a model of this name, version 1.
    pub fn options<'a>(
        &self,
        name: String,
        project: &Project,
        model: &Model,
        key: Option<&'a PublisherKey>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> SealOptions<'a> {
        let mut options = SealOptions::new(name);
        options.folder = model.folder;
        options.kind = if model.folder { "folder".into() } else { "file".into() };
        self.labels.iter().for_each(|(k, v)| options.labels.insert(k.clone(), v.clone()));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        options.sealed_at = now.ok().map(|d| d.as_secs());
        options.header_len = self.header_size;
        options.sha256 = self.sha256 || project.sha256 || self.model_signature.is_some();
        options.dangerous_allow_unsafe_pickle = self.dangerous_allow_unsafe_pickle;
        options.dangerous_allow_malformed = self.dangerous_allow_malformed;
        options.sign = key;
        options.threads = threads(self.threads);
        options.progress = progress;
        options
    }
}

/// Says so where sealing will be slow.
pub fn warn_without_aes(out: &Output) {
    if !vault_core::aead::Engine::hardware_aes() {
        out.warning("this CPU has no AES instructions: sealing is about ten times slower");
    }
}

/// Says which entries were sealed although the scan forbids it.
pub fn warn_of_verdicts(manifest: &Manifest, out: &Output) {
    for entry in &manifest.entries {
        let verdict = entry.scan.verdict();
        if !matches!(verdict, Some(Verdict::Safe | Verdict::NotAPickle)) {
            let verdict = verdict.map_or("unknown", Verdict::as_str);
            out.warning(&format!("{}: sealed although {verdict}", printable(&entry.path)));
        }
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let project = Project::find()?;
    let target = target(args)?;
    if let Some(path) = target.as_deref().filter(|p| !args.force && p.symlink_metadata().is_ok()) {
        return Err(exists(path));
    }
    let mut model = Model::open(&args.path, args.how.follow_symlinks)?;
    let recipients = args.recipients.all(&project, &args.aws, out)?;
    let recipients: Vec<&dyn Recipient> = recipients.iter().map(AsRef::as_ref).collect();
    let key = args.how.signing_key()?;
    if let Some(name) = &args.name {
        model.rename(name);
    }
    if let (Some(signature), Some(target)) = (&args.how.model_signature, &target) {
        check_apart(signature, target, "where the artifact goes")?;
    }
    let companion = args.how.companion(&args.path, key.as_ref(), args.force)?;
    let bar = out.progress("sealing", model.size);
    let progress = |n| bar.inc(n);
    let name = args.name.clone().unwrap_or_else(|| model.name.clone());
    let mut options = args.how.options(name, &project, &model, key.as_ref(), &progress);
    options.model_version = args.model_version;
    args.how.provenance.record(&mut options)?;
    options.chunk_size = args.chunk_size;
    warn_without_aes(out);
    let sealed = if let Some(path) = &target {
        let file = NewFile::create(path, Access::Public, args.force)?;
        let sealed = seal_to(&mut model, &recipients, &options, vault_core::io::Output::At(file.file()))?;
        model.check_unchanged("sealed")?;
        companion.as_ref().map_or(Ok(()), |c| c.write(&sealed.manifest, out))?;
        file.finish()?;
        companion.map_or(Ok(()), Companion::finish)?;
        sealed
    } else {
        let mut stdout = stdout_file()?;
        let to = vault_core::io::Output::Stream(&mut stdout);
        let sealed = seal_to(&mut model, &recipients, &options, to).map_err(CliError::piped)?;
        model.check_unchanged("sealed").map_err(CliError::piped)?;
        sealed
    };
    bar.finish_and_clear();
    report(args, &sealed, target.as_deref(), recipients.len(), out)
}

/// Where the artifact goes; `None` is standard output.
fn target(args: &Args) -> Result<Option<PathBuf>, CliError> {
    let dash = Path::new("-");
    match &args.output {
        Some(path) if path != dash => return Ok(Some(path.clone())),
        None if args.path != dash => {
            let trimmed: PathBuf = args.path.components().collect(); // `model/` is `model`
            let name = trimmed.file_name().map(ToOwned::to_owned).ok_or_else(|| {
                CliError::usage(format!("{}: has no name to derive the output's from", args.path.display()))
                    .hint("name the output with -o FILE")
            })?;
            let mut name = name;
            name.push(".mvault");
            return Ok(Some(trimmed.with_file_name(name)));
        }
        _ => {}
    }
    if stdout().is_terminal() {
        return Err(CliError::usage("standard output is a terminal, and an artifact is not text")
            .hint("redirect it, or name the output with -o FILE"));
    }
    Ok(None)
}

fn seal_to(
    model: &mut Model,
    recipients: &[&dyn Recipient],
    options: &SealOptions<'_>,
    to: vault_core::io::Output<'_>,
) -> Result<Sealed, CliError> {
    Ok(seal(model.entries(), recipients, options, &mut UnwrapErr(getrandom::SysRng), to)?)
}

fn report(
    args: &Args,
    sealed: &Sealed,
    target: Option<&Path>,
    recipients: usize,
    out: &mut Output,
) -> Result<(), CliError> {
    let manifest = &sealed.manifest;
    warn_of_verdicts(manifest, out);
    let plain: u64 = manifest.entries.iter().map(|e| e.size).sum();
    let text = format!(
        "{}: {} version {}, {} in {}, for {}{}",
        target.map_or_else(|| "sealed".into(), |t| t.display().to_string()),
        manifest.name,
        manifest.model_version,
        size(plain),
        count(manifest.entries.len(), "file"),
        count(recipients, "recipient"),
        if sealed.header.signature().is_some() { ", signed" } else { "" },
    );
    let Some(target) = target else {
        out.note(&text);
        return Ok(());
    };
    let mut json = serde_json::json!({
        "ok": true,
        "artifact": target.display().to_string(),
        "id": sealed.header.prelude().artifact_id(),
        "name": manifest.name,
        "model_version": manifest.model_version,
        "recipients": recipients,
        "signed": sealed.header.signature().is_some(),
        "plain_bytes": plain,
        "sealed_bytes": sealed.payload_len + u64::from(sealed.header.prelude().header_len),
        "entries": super::inspect::entries_json(manifest),
    });
    let Some(signature) = &args.how.model_signature else { return out.result(&json, &format!("{text}\n")) };
    if let Some(json) = json.as_object_mut() {
        json.insert("model_signature".into(), signature.display().to_string().into());
    }
    out.result(&json, &format!("{text}\n{}: signature of the plain files\n", signature.display()))
}
