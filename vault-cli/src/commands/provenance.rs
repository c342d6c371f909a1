//! `mvault provenance`: what a sealed model was made of, held against what is there now, and exported for other tools.

mod export;

use super::artifact::Artifact;
use crate::aws::AwsArgs;
use crate::error::CliError;
use crate::files::{Access, write_new};
use crate::keys::{IdentityArgs, count};
use crate::output::{Output, printable, size, table};
use crate::provenance::{parse_dataset, read};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;
use vault_core::aead::Engine;
use vault_core::header::hex;
use vault_core::manifest::Manifest;
use vault_core::open::RangeReader;
use vault_core::provenance::{Change, Provenance};

/// What a sealed model was made of
#[derive(clap::Subcommand)]
pub enum Command {
    Show(ShowArgs),
    Check(CheckArgs),
    Export(ExportArgs),
}

/// A sealed model that is opened for its manifest.
#[derive(clap::Args)]
struct Sealed {
    /// A sealed model: a file, or `s3://BUCKET/PREFIX/NAME[:VERSION|@TAG]`
    file: PathBuf,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Show source, builder and datasets that the sealer recorded
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault provenance show minilm.mvault
  mvault provenance show s3://models/team/minilm@prod --json")]
pub struct ShowArgs {
    #[command(flatten)]
    sealed: Sealed,
}

/// Hold datasets against the digests that the sealer recorded: every file that changed, is missing or is new is named
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault provenance check minilm.mvault --dataset data/train
  mvault provenance check minilm.mvault --dataset train=/mnt/copy/of/train

Exit codes: 0 all as recorded, 3 something is not.")]
pub struct CheckArgs {
    #[command(flatten)]
    sealed: Sealed,
    /// A dataset, under the name that was recorded. May be repeated
    #[arg(long = "dataset", value_name = "[NAME=]DIR", value_parser = parse_dataset, required = true)]
    datasets: Vec<(String, PathBuf)>,
}

/// Export it for other tools: an in-toto statement with SLSA's provenance, or a CycloneDX ML-BOM
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault provenance export minilm.mvault --format slsa -o provenance.json
  mvault provenance export minilm.mvault --format cyclonedx -o bom.json
  mvault inspect minilm.mvault --sha256sums | sha256sum -c        the digests, for coreutils")]
pub struct ExportArgs {
    #[command(flatten)]
    sealed: Sealed,
    /// The form
    #[arg(long, value_enum)]
    format: Form,
    /// Where to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(short, long)]
    force: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Form {
    /// in-toto Statement v1, predicate <https://slsa.dev/provenance/v1>
    Slsa,
    /// CycloneDX 1.6, JSON
    Cyclonedx,
}

pub fn run(command: &Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::Show(args) => show(args, out),
        Command::Check(args) => check(args, out),
        Command::Export(args) => export(args, out),
    }
}

/// What the manifest says, and the artifact's id; both authenticated.
fn open(sealed: &Sealed, out: &mut Output) -> Result<(Manifest, Provenance, String), CliError> {
    let about = |e: vault_core::Error| CliError::from(e).about(sealed.file.display());
    let artifact = Artifact::open(&sealed.file, &sealed.aws, out)?;
    let header = sealed.identity.unlock(&artifact.header, &sealed.aws, out);
    let header = header.map_err(|e| e.about(sealed.file.display()))?;
    let parts = artifact.parts()?;
    let (file, offset, len) = parts.at();
    let reader = RangeReader::new(file, offset, len, &header, Engine::fastest()).map_err(about)?;
    let manifest = reader.manifest().clone();
    artifact.check_identity(&manifest.name, manifest.model_version)?;
    let provenance = Provenance::read(&manifest.extensions).map_err(about)?;
    Ok((manifest, provenance, artifact.header.prelude().artifact_id()))
}

fn show(args: &ShowArgs, out: &mut Output) -> Result<(), CliError> {
    let (manifest, provenance, id) = open(&args.sealed, out)?;
    let none = || "not recorded".to_owned();
    let shown = |text: &Option<String>| text.as_deref().map_or_else(none, printable);
    let mut text = format!(
        "model:     {} version {}\nsource:    {}\nbuilder:   {}\n",
        printable(&manifest.name),
        manifest.model_version,
        shown(&provenance.source),
        shown(&provenance.builder),
    );
    if provenance.datasets.is_empty() {
        text.push_str("datasets:  none recorded\n");
    } else {
        let mut rows = vec![["dataset", "files", "size", "blake3"].map(String::from).to_vec()];
        rows.extend(provenance.datasets.iter().map(|d| {
            let digest = d.digest();
            vec![d.name.clone(), d.files.len().to_string(), size(d.size()), hex(digest.get(..8).unwrap_or_default())]
        }));
        let _ = write!(text, "\n{}", table(&rows));
    }
    let datasets = provenance.datasets.iter().map(|d| {
        let files = d.files.iter().map(|f| json!({ "path": f.path, "size": f.size, "blake3": hex(&*f.blake3) }));
        json!({ "name": d.name, "blake3": hex(&d.digest()), "files": files.collect::<Vec<_>>() })
    });
    let value = json!({
        "ok": true, "artifact": id, "name": manifest.name, "model_version": manifest.model_version,
        "source": provenance.source, "builder": provenance.builder, "datasets": datasets.collect::<Vec<_>>(),
    });
    out.result(&value, &text)
}

fn check(args: &CheckArgs, out: &mut Output) -> Result<(), CliError> {
    let (_, provenance, _) = open(&args.sealed, out)?;
    let (mut text, mut reports, mut wrong) = (String::new(), Vec::new(), 0);
    for dataset in &args.datasets {
        let recorded = provenance.datasets.iter().find(|d| d.name == dataset.0).ok_or_else(|| {
            let names: Vec<_> = provenance.datasets.iter().map(|d| d.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            CliError::failed(format!("{}: no dataset {:?} was recorded", args.sealed.file.display(), dataset.0))
                .hint(format!("recorded: {names}; --dataset NAME=DIR says which one a folder is"))
        })?;
        let now = read(dataset)?;
        let changes = recorded.compare(&now.files);
        for change in &changes {
            let (what, path) = match change {
                Change::Changed(path) => ("changed", path),
                Change::Removed(path) => ("missing", path),
                Change::Added(path) => ("new", path),
            };
            let _ = writeln!(text, "{}/{}: {what}", dataset.0, printable(path));
            reports.push(json!({ "dataset": dataset.0, "path": path, "what": what }));
        }
        if changes.is_empty() {
            let _ = writeln!(text, "{}: {} as recorded", dataset.0, count(recorded.files.len(), "file"));
        }
        wrong += changes.len();
    }
    out.result(&json!({ "ok": wrong == 0, "changes": reports }), &text)?;
    if wrong == 0 {
        return Ok(());
    }
    let differ = if wrong == 1 { "1 file is" } else { "files are" };
    let count = if wrong == 1 { String::new() } else { format!("{wrong} ") };
    Err(CliError::not_authentic(format!("{count}{differ} not what the model was made of"))
        .hint("train again on what was recorded, or seal what was trained on this")
        .already_reported())
}

fn export(args: &ExportArgs, out: &mut Output) -> Result<(), CliError> {
    let (manifest, provenance, id) = open(&args.sealed, out)?;
    let value = match args.format {
        Form::Slsa => export::slsa(&manifest, &provenance, &id),
        Form::Cyclonedx => export::cyclonedx(&manifest, &provenance, &id),
    };
    let text = serde_json::to_string_pretty(&value).map_err(|e| CliError::failed(e.to_string()))? + "\n";
    match &args.output {
        None => out.bytes(text.as_bytes()),
        Some(path) => {
            write_new(path, text.as_bytes(), Access::Public, args.force)?;
            out.result(
                &json!({ "ok": true, "output": path.display().to_string() }),
                &format!("wrote {}\n", path.display()),
            )
        }
    }
}
