//! `mvault cat`: one entry, a byte range of it, or one tensor; only the chunks that are needed are read.

use super::artifact::Artifact;
use super::select::Select;
use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::keys::{IdentityArgs, SignerArgs};
use crate::output::{Output, printable, size, stdout_file, table};
use crate::process::threads;
use serde_json::json;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use vault_core::aead::Engine;
use vault_core::header::AuthenticatedHeader;
use vault_core::open::{OpenOptions, PartReader, Place, Release, open};
use vault_core::scan::safetensors::{MAX_HEADER, Tensor, parse_header};

/// Print one file of a sealed model, or a part of it
///
/// Only the chunks that are needed are read and verified. With --signer the whole artifact is verified first.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault cat bert.mvault config.json
  mvault cat m.mvault model.safetensors --tensors            list them
  mvault cat m.mvault model.safetensors --tensor wte > wte.bin
  mvault cat m.mvault model.bin --range 0-99                 the first 100 bytes
  mvault cat m.mvault model.bin --range -100                 the last 100 bytes")]
pub struct Args {
    /// A sealed model, or - for standard input
    file: PathBuf,
    /// The file in it; not needed if there is only one
    entry: Option<String>,
    /// Bytes A to B, both included, as in HTTP; A- to the end, -N the last N
    #[arg(long, value_name = "A-B", allow_hyphen_values = true, conflicts_with_all = ["tensor", "tensors"])]
    range: Option<String>,
    /// The raw bytes of this tensor of a safetensors file
    #[arg(long, value_name = "NAME", conflicts_with = "tensors")]
    tensor: Option<String>,
    /// List the tensors of a safetensors file
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    signers: SignerArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let signers = args.signers.load(&Project::find()?)?;
    let mut artifact = Artifact::open(&args.file, &args.aws, out)?;
    let named = |e: CliError| e.about(args.file.display());
    let header = args.identity.unlock(&artifact.header, &args.aws, out).map_err(named)?;
    if !signers.is_empty() && artifact.is_pipe() {
        return Err(CliError::usage("a part of a pipe is printed before its signature can be checked")
            .hint("save the artifact first, or use `mvault open - --signer`"));
    }
    if !signers.is_empty() {
        let options = OpenOptions { signers: &signers, threads: threads(None), ..OpenOptions::default() };
        let opened = artifact.payload(|input| open(input, &header, &options, Release::Nothing))?;
        opened.map_err(|e| named(e.into()))?; // [F-21]
    }
    if artifact.is_pipe() {
        return from_pipe(args, &mut artifact, &header);
    }
    if let Some(about) = header.about() {
        artifact.check_identity(&about.name, about.model_version)?;
    }
    let parts = artifact.parts()?;
    let (file, offset, len) = parts.at();
    let reader = PartReader::new(file, offset, len, &header, Engine::fastest()).map_err(|e| named(e.into()))?;
    let entry = find(&reader, args)?.clone();
    if args.tensors {
        return list(&tensors(&reader, &entry)?, out);
    }
    let range = match (&args.range, &args.tensor) {
        (Some(text), _) => parse_range(text, Some(entry.size))?,
        (_, Some(name)) => {
            let tensors = tensors(&reader, &entry)?;
            let tensor = tensors.iter().find(|t| t.name == *name).ok_or_else(|| {
                CliError::failed(format!("{}: no tensor {:?}", entry.path, printable(name)))
                    .hint("--tensors lists them")
            })?;
            tensor.begin..tensor.end
        }
        _ => 0..entry.size,
    };
    let mut stdout = stdout_file()?;
    let printed = reader.read(&entry, range, &mut |bytes| stdout.write_all(bytes));
    match printed {
        Err(vault_core::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| named(e.into())),
    }
}

/// What to print of an entry.
pub enum Part {
    /// All of it.
    Whole,
    /// A range, as HTTP writes it.
    Range(String),
    /// A tensor by its name.
    Tensor(String),
}

fn from_pipe(args: &Args, artifact: &mut Artifact, header: &AuthenticatedHeader) -> Result<(), CliError> {
    if args.tensors {
        return Err(CliError::usage("--tensors needs a file").hint("save the artifact first"));
    }
    let part = match (&args.range, &args.tensor) {
        (Some(range), _) => Part::Range(range.clone()),
        (_, Some(tensor)) => Part::Tensor(tensor.clone()),
        _ => Part::Whole,
    };
    let mut select = Select::new(args.entry.clone(), part, stdout_file()?);
    let options = OpenOptions { threads: threads(None), ..OpenOptions::default() };
    let opened = artifact.payload(|input| open(input, header, &options, Release::Ordered(&mut select)))?;
    opened.map(|_| ()).map_err(|e| CliError::from(e).about(args.file.display()))
}

fn find<'r>(reader: &'r PartReader<'_>, args: &Args) -> Result<&'r Place, CliError> {
    match (&args.entry, reader.places()) {
        (Some(path), _) => reader.place(path).ok_or_else(|| {
            CliError::failed(format!("{}: no file {:?} in it", args.file.display(), printable(path)))
                .hint(format!("`mvault inspect {}` lists the files", args.file.display()))
        }),
        (None, [only]) => Ok(only),
        (None, many) => Err(CliError::usage(format!("{}: {} files in it", args.file.display(), many.len()))
            .hint("name one; `mvault inspect` lists them")),
    }
}

/// The tensors of a safetensors entry, from its header, which is checked.
fn tensors(reader: &PartReader<'_>, entry: &Place) -> Result<Vec<Tensor>, CliError> {
    let not = || CliError::failed(format!("{}: not a safetensors file", printable(&entry.path)));
    let read = |range: Range<u64>| -> Result<Vec<u8>, CliError> {
        let mut bytes = Vec::new();
        reader.read(entry, range, &mut |b| Write::write_all(&mut bytes, b)).map_err(CliError::from)?;
        Ok(bytes)
    };
    if entry.size < 8 {
        return Err(not());
    }
    let len = read(0..8)?.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    let end = len.checked_add(8).filter(|end| len <= MAX_HEADER && *end <= entry.size).ok_or_else(not)?;
    let json = read(8..end)?;
    parse_header(&json, Some(entry.size - end)).map_err(|e| not().hint(e.to_string()))
}

fn list(tensors: &[Tensor], out: &mut Output) -> Result<(), CliError> {
    let shape = |t: &Tensor| t.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
    let mut rows = vec![["tensor", "type", "shape", "size"].map(String::from).to_vec()];
    rows.extend(tensors.iter().map(|t| vec![printable(&t.name), t.dtype.clone(), shape(t), size(t.end - t.begin)]));
    let values: Vec<_> = tensors
        .iter()
        .map(|t| json!({ "name": t.name, "dtype": t.dtype, "shape": t.shape, "begin": t.begin, "end": t.end }))
        .collect();
    out.result(&json!({ "ok": true, "tensors": values }), &table(&rows))
}

/// A range as HTTP writes it (RFC 9110, 14.1.1): both ends included. Without a size only `-N` cannot be said.
pub fn parse_range(text: &str, size: Option<u64>) -> Result<Range<u64>, CliError> {
    let bad = || CliError::usage(format!("--range {text}: expected A-B, A- or -N in bytes"));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let number = |s: &str| s.parse::<u64>().ok().filter(|_| digits(s)).ok_or_else(bad);
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let known = || size.ok_or_else(|| CliError::failed(format!("--range {text}: the file's size is not known yet")));
    let range = match (first, last) {
        ("", "") => return Err(bad()),
        ("", n) => known()?.saturating_sub(number(n)?)..known()?,
        (a, "") => number(a)?..size.unwrap_or(u64::MAX),
        (a, b) => number(a)?..number(b)?.checked_add(1).ok_or_else(bad)?,
    };
    if range.start > range.end || size.is_some_and(|size| range.end > size) {
        let size = size.map_or_else(|| "not so many".into(), |s| s.to_string());
        return Err(CliError::failed(format!("--range {text}: the file has {size} bytes")));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges_are_those_of_http() {
        for (text, range) in [("0-99", 0..100), ("5-5", 5..6), ("100-", 100..200), ("-7", 193..200), ("-900", 0..200)] {
            assert_eq!(parse_range(text, Some(200)).ok(), Some(range), "{text}");
        }
        for text in ["", "-", "9", "5-3", "0-200", "201-", "a-b", "0-18446744073709551615", "+1-2"] {
            assert!(parse_range(text, Some(200)).is_err(), "{text}");
        }
    }
}
