//! `mvault open`: verify and open; nothing has its name before everything is verified.

use super::artifact::Artifact;
use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::{CliError, io};
use crate::files::{NewEntries, exists};
use crate::keys::{IdentityArgs, SignerArgs, count};
use crate::output::{Output, printable, size, stdout_file};
use crate::process::threads;
use std::path::{Path, PathBuf};
use vault_core::header::AuthenticatedHeader;
use vault_core::open::{OpenOptions, Release, Verified, open};
use vault_core::signature::PublisherPublicKey;

/// Verify a sealed model and write it out
///
/// A file is written to DIR (default: here) under its own name; a folder becomes DIR (default: its own
/// name). Files get their names only after the last byte, the manifest and the digests are verified.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault open model.pkl.mvault              model.pkl, with your key
  mvault open bert.mvault -i id.txt -o bert
  mvault open m.mvault --signer team.pub    only if this publisher signed it
  curl -s URL | mvault open - -o models     from a pipe
  mvault open m.mvault --stream | load      verified chunk by chunk; exit 3 if
                                            a later chunk fails")]
pub struct Args {
    /// A sealed model, or - for standard input
    file: PathBuf,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Where to write
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(short, long)]
    force: bool,
    /// Write the one file to standard output, each chunk as it is verified
    #[arg(long, conflicts_with_all = ["output", "force"])]
    stream: bool,
    #[command(flatten)]
    signers: SignerArgs,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", hide_short_help = true)]
    threads: Option<usize>,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let project = Project::find()?;
    let signers = args.signers.load(&project)?;
    let mut artifact = Artifact::open(&args.file, &args.aws, out)?;
    let header = args.identity.unlock(&artifact.header, &args.aws, out).map_err(|e| e.about(args.file.display()))?;
    let bar = out.progress("opening", artifact.payload_len()?);
    let progress = |n| bar.inc(n);
    let options = OpenOptions {
        signers: &signers,
        threads: threads(args.threads),
        progress: &progress,
        ..OpenOptions::default()
    };
    if args.stream {
        return stream(&mut artifact, &header, &options, &bar);
    }
    let plan = Place::of(args.output.as_deref(), args.force, &header)?;
    let entries = plan.entries();
    let opened = artifact.payload(|input| open(input, &header, &options, Release::Files(&entries)));
    bar.finish_and_clear();
    let verified = match opened.and_then(|o| Ok(o?)) {
        Ok(verified) => verified,
        Err(e) => {
            drop(entries);
            plan.undo();
            return Err(failed(e, &args.file));
        }
    };
    let written = plan.place(entries, &verified, args.force)?;
    report(&verified, &written, &signers, None, out)
}

/// Names the artifact in a failure, and says that nothing is left of it.
fn failed(error: CliError, file: &Path) -> CliError {
    error.about(format!("{}: nothing was written", file.display()))
}

/// Where the output will be: a file in DIR, or a folder that is DIR. Which of them, the table says.
pub struct Place {
    file: PathBuf,
    folder: PathBuf,
    output: Option<PathBuf>,
    /// The output folder, if it was made now.
    made: Option<PathBuf>,
    announced_folder: bool,
    force: bool,
}

impl Place {
    /// Before anything is known for sure. What surely cannot be written is refused before the work.
    pub fn of(output: Option<&Path>, force: bool, header: &AuthenticatedHeader) -> Result<Self, CliError> {
        let name = header.about().map_or("model", |a| a.name.as_str());
        let announced_folder = header.about().is_some_and(|a| a.kind == "folder");
        let output = output.map(Path::to_owned);
        let file = output.as_deref().unwrap_or(Path::new(".")).join(name);
        let folder = output.clone().unwrap_or_else(|| PathBuf::from(name));
        let shown = if output.is_some() { file.clone() } else { PathBuf::from(name) };
        if announced_folder && folder.symlink_metadata().is_ok() && !force && !is_empty_folder(&folder) {
            return Err(exists(&folder));
        }
        if !announced_folder && file.symlink_metadata().is_ok() && !force {
            return Err(exists(&shown));
        }
        let made = output.clone().filter(|dir| !dir.exists());
        if let Some(dir) = &made {
            std::fs::create_dir_all(dir).map_err(io(dir.display()))?;
        }
        Ok(Self { file, folder, output, made, announced_folder, force })
    }

    /// Whether the artifact says it is a folder.
    pub fn is_folder(&self) -> bool {
        self.announced_folder
    }

    /// To be filled.
    pub fn entries(&self) -> NewEntries {
        let entries = NewEntries::new(&self.file, &self.folder);
        if self.announced_folder || self.force {
            return entries;
        }
        entries.free_in(self.output.as_deref().unwrap_or(Path::new(".")))
    }

    /// Nothing was opened: a folder that was made for it goes, if it is empty.
    pub fn undo(&self) {
        if let Some(made) = &self.made {
            let _ = std::fs::remove_dir(made);
        }
    }

    /// Moves what was opened to its place.
    pub fn place(&self, entries: NewEntries, verified: &Verified, force: bool) -> Result<PathBuf, CliError> {
        let manifest = &verified.manifest;
        let first = manifest.entries.first().map_or("", |e| e.path.as_str());
        if manifest.layout == 0 {
            let target = self.output.as_deref().unwrap_or(Path::new(".")).join(first);
            entries.finish_file(&target, force)?;
            return Ok(if self.output.is_some() { target } else { PathBuf::from(first) });
        }
        let target = self.output.clone().unwrap_or_else(|| PathBuf::from(&manifest.name));
        if target.symlink_metadata().is_ok() && !is_empty_folder(&target) {
            return Err(
                exists(&target).hint("a folder is never mixed with another: remove it, or choose another with -o")
            );
        }
        entries.finish_folder(first, &target)?;
        Ok(target)
    }
}

fn is_empty_folder(path: &Path) -> bool {
    path.read_dir().is_ok_and(|mut items| items.next().is_none())
}

fn stream(
    artifact: &mut Artifact,
    header: &AuthenticatedHeader,
    options: &OpenOptions<'_>,
    bar: &indicatif::ProgressBar,
) -> Result<(), CliError> {
    let path = artifact.path().display().to_string();
    if header.about().is_some_and(|a| a.kind == "folder") {
        return Err(CliError::usage(format!("{path}: a folder cannot be streamed"))
            .hint("`mvault open` writes it, `mvault cat FILE ENTRY` prints one file of it"));
    }
    let mut stdout = stdout_file()?;
    let opened = artifact.payload(|input| open(input, header, options, Release::Stream(&mut stdout)));
    bar.finish_and_clear();
    opened?
        .map(|_| ())
        .map_err(|e| CliError::from(e).about(format!("{path}: what was printed so far is verified, the rest is not")))
}

/// Says what was written; `from` names it where it came from a vault.
pub fn report(
    verified: &Verified,
    written: &Path,
    signers: &[PublisherPublicKey],
    from: Option<&str>,
    out: &mut Output,
) -> Result<(), CliError> {
    let manifest = &verified.manifest;
    let plain: u64 = manifest.entries.iter().map(|e| e.size).sum();
    let mut json = serde_json::json!({
        "ok": true,
        "output": written.display().to_string(),
        "name": manifest.name,
        "model_version": manifest.model_version,
        "signer": verified.signer.map(|id| vault_core::header::hex(&id)),
        "plain_bytes": plain,
        "entries": super::inspect::entries_json(manifest),
    });
    if let (Some(from), Some(object)) = (from, json.as_object_mut()) {
        object.insert("from".into(), from.into());
    }
    let text = format!(
        "{}: {} version {}, {} in {}, verified{}\n",
        written.display(),
        printable(&manifest.name),
        manifest.model_version,
        size(plain),
        count(manifest.entries.len(), "file"),
        if signers.is_empty() { "" } else { ", signed" },
    );
    out.result(&json, &text)
}
