//! `mvault sign`: a model signature of plain files, docs/SIGNATURES.md.

use crate::error::CliError;
use crate::files::{Access, exists, write_new};
use crate::keys::{count, load_signing_key};
use crate::output::Output;
use crate::process::threads;
use crate::signatures::{check_apart, digests, left_out, load_chain, not_covered, open};
use serde_json::json;
use std::path::PathBuf;
use vault_core::header::hex;
use vault_core::model_signature::{Content, Hash, sign};

/// Sign plain files, so that others can check whose they are
///
/// Writes a signature file as OpenSSF Model Signing defines it: `mvault verify --signature` checks it, and so does the Python
/// tool `model_signing`. The files are read once and not changed. In a folder, files of git and the signature itself are left
/// out. A sealed model is signed as the file it is; `mvault seal --sign` puts a signature inside, which survives new recipients.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault sign bert/ --key sign.pem -o bert.sig
  mvault sign model.gguf --key sign.pem --cert chain.pem -o model.sig
  mvault sign bert/ --key sign.pem -o bert/model.sig --ignore README.md
  mvault verify bert/ --signature bert.sig --signer sign.pem.pub

`mvault keygen --signing -o sign.pem` makes a key.")]
pub struct Args {
    /// A file or a folder
    path: PathBuf,
    /// Sign with this publisher's key (P-256, PEM)
    #[arg(long, value_name = "KEY.PEM")]
    key: PathBuf,
    /// The key's certificate, then those of its authorities (PEM)
    #[arg(long, value_name = "CHAIN.PEM")]
    cert: Option<PathBuf>,
    /// Where to write the signature
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace an existing signature
    #[arg(short, long)]
    force: bool,
    /// Digest of the files; the command line of `model_signing` knows sha256 only
    #[arg(long, value_enum, default_value_t = Digest::Sha256)]
    hash: Digest,
    /// Leave out this path of the folder; may be repeated
    #[arg(long = "ignore", value_name = "PATH")]
    ignored: Vec<String>,
    /// Sign the files that symbolic links in a folder point to
    #[arg(long)]
    follow_symlinks: bool,
    /// Files read at a time [default: one a core]
    #[arg(long, value_name = "N", hide_short_help = true)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Digest {
    Sha256,
    Blake3,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    check_apart(&args.output, &args.path, "what is to be signed")?;
    if !args.force && args.output.symlink_metadata().is_ok() {
        return Err(exists(&args.output));
    }
    let key = load_signing_key(&args.key)?;
    let chain = args.cert.as_deref().map(|cert| load_chain(cert, &key.public())).transpose()?;
    let ignored = left_out(&args.path, &args.output, &args.ignored)?;
    let model = open(&args.path, &ignored, args.follow_symlinks)?;
    let ignored = if model.folder { ignored } else { Vec::new() };
    let hash = match args.hash {
        Digest::Sha256 => Hash::Sha256,
        Digest::Blake3 => Hash::Blake3,
    };
    let bar = out.progress("signing", model.size);
    let files = digests(&model, hash, threads(args.threads), &|n| bar.inc(n));
    bar.finish_and_clear();
    let content = Content::new(&model.name, hash, args.follow_symlinks && model.folder, ignored, files?)?;
    model.check_unchanged("signed")?;
    let bundle = sign(&content, &key, chain.as_ref())?;
    write_new(&args.output, bundle.as_bytes(), Access::Public, args.force)?;
    let key_id = hex(&key.public().key_id());
    let json = json!({
        "ok": true,
        "signature": args.output.display().to_string(),
        "path": args.path.display().to_string(),
        "hash": hash.as_str(),
        "files": content.files().len(),
        "not_covered": model.left_out,
        "signer": key_id,
        "certificate": chain.is_some(),
    });
    let text = format!(
        "{}: signature of {} ({}) by {key_id}{}\n{}",
        args.output.display(),
        args.path.display(),
        count(content.files().len(), "file"),
        if chain.is_some() { ", with its certificate" } else { "" },
        not_covered(&model.left_out),
    );
    out.result(&json, &text)
}
