//! `mvault pull`: fetch a model from a vault, opened while it arrives, or sealed. Nothing has its name before
//! everything is verified; what an interrupted pull leaves is ciphertext.

use super::open::{Place, report};
use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::files::{NewEntries, exists, folder_of};
use crate::keys::{IdentityArgs, SignerArgs, count};
use crate::output::{Output, printable, size};
use crate::process::threads;
use crate::vaults::{VaultArgs, open as open_vault, reference};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vault_core::header::{AuthenticatedHeader, hex};
use vault_core::io::{Input, ReadAt, Sequential};
use vault_core::open::{OpenOptions, Release, Verified, open, payload_digest};
use vault_core::signature::PublisherPublicKey;
use vault_store::download::{Cut, Download, front};
use vault_store::layout::Name;
use vault_store::spool::Spool;
use vault_store::vault::{Published, Vault};
use vault_store::{Cause, Store, StoreError};

/// Fetch a model from a vault and open it
///
/// A file is written to DIR (default: here), a folder becomes DIR, as with `mvault open`. Bytes are verified as they
/// arrive. If it is interrupted, the same command goes on from what is there: ciphertext, in a hidden file beside the
/// output.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault pull s3://bucket/team bert                 the latest version, with your key
  mvault pull s3://bucket/team bert:3 -o models
  mvault pull s3://bucket/team bert@prod --signer team.pub --min-version 3
  mvault pull s3://bucket/team bert --sealed        bert.mvault, no key needed
  mvault cat s3://bucket/team/bert:3 model.safetensors --tensor wte > wte.bin")]
pub struct Args {
    /// The vault (s3://BUCKET/PREFIX or a folder), if it is not the default one; and NAME, NAME:VERSION or NAME@TAG
    #[arg(value_name = "[VAULT] NAME", required = true, num_args = 1..=2)]
    place: Vec<String>,
    #[command(flatten)]
    vault: VaultArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Where to write; with --sealed the file
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(short, long)]
    force: bool,
    /// Keep it sealed: NAME.mvault
    #[arg(long)]
    sealed: bool,
    #[command(flatten)]
    signers: SignerArgs,
    /// Refuse unless the payload has this digest, as `mvault push` printed it
    #[arg(long, value_name = "HEX", value_parser = parse_digest)]
    expect_digest: Option<[u8; 32]>,
    /// Refuse versions below N, whatever the vault or a tag says
    #[arg(long, value_name = "N")]
    min_version: Option<u64>,
    /// Seconds after which what arrives is also kept, sealed, for the case of an interruption
    #[arg(long, value_name = "SECONDS", default_value_t = 3, hide_short_help = true)]
    keep_after: u64,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", hide_short_help = true)]
    threads: Option<usize>,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Next step when the payload has not the digest that was pinned.
const NOT_PINNED: &str = "the vault has another artifact than the one you pinned; ask the publisher";

fn parse_digest(text: &str) -> Result<[u8; 32], String> {
    vault_store::layout::payload_id(&text.to_ascii_lowercase()).ok_or_else(|| "expected 64 hexadecimal digits".into())
}

/// A version that was found, and where its payload is.
struct Found<'s> {
    store: &'s dyn Store,
    name: Name,
    published: Published,
    key: String,
    /// The payload's first run, if it is opened.
    front: Vec<u8>,
    size: u64,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let project = Project::find()?;
    let signers = args.signers.load(&project)?;
    let (uri, text) = args.vault.with_name(&args.place, &project)?;
    let (name, selector) = reference(text)?;
    let store = open_vault(&uri, &args.aws, out)?;
    let published = Vault::new(&*store).find(&name, &selector)?;
    if args.min_version.is_some_and(|min| published.version < min) {
        let min = args.min_version.unwrap_or_default();
        return Err(CliError::not_authentic(format!(
            "{}: version {} is older than the {min} that is demanded",
            name.as_str(),
            published.version
        ))
        .hint("a tag or the vault was rolled back; ask the publisher"));
    }
    let key = name.payload(&published.header.prelude().salt);
    let (front, size) = if args.sealed {
        (Vec::new(), store.head(&key)?.size)
    } else {
        front(&*store, &key, Cut::of(published.header.prelude().chunk_size))?
    };
    let found = Found { store: &*store, name, published, key, front, size };
    if args.sealed { pull_sealed(args, &found, &signers, out) } else { pull_opened(args, &found, &signers, out) }
}

impl Found<'_> {
    fn shown(&self) -> String {
        format!("{}:{}", self.name.as_str(), self.published.version)
    }

    /// An artifact that says it is another one has been put in this one's place `[F-42]`.
    fn check_identity(&self, name: &str, version: u64) -> Result<(), CliError> {
        if name == self.name.as_str() && version == self.published.version {
            return Ok(());
        }
        let what = format!("{}: the vault gave {} version {version} for it [F-42]", self.shown(), printable(name));
        Err(CliError::not_authentic(what)
            .hint("someone swapped artifacts in the vault, or pushed one under another name"))
    }

    /// A hidden file in `folder` for what an interrupted pull leaves.
    fn spool_path(&self, folder: &Path) -> PathBuf {
        let id = hex(&self.published.header.prelude().salt[..8]);
        let name: String = self.name.as_str().chars().take(64).collect();
        folder.join(format!(".{name}-{}.{id}.mvault-part", self.published.version))
    }

    fn cut(&self) -> Cut {
        Cut::of(self.published.header.prelude().chunk_size)
    }

    fn header_len(&self) -> u64 {
        u64::from(self.published.header.prelude().header_len)
    }
}

fn pull_opened(
    args: &Args,
    found: &Found<'_>,
    signers: &[PublisherPublicKey],
    out: &mut Output,
) -> Result<(), CliError> {
    let named = |e: CliError| e.about(found.shown());
    let header = args.identity.unlock(&found.published.header, &args.aws, out).map_err(named)?;
    if let Some(about) = header.about() {
        found.check_identity(&about.name, about.model_version)?;
    }
    let place = Place::of(args.output.as_deref(), args.force, &header)?;
    let folder = args.output.clone().unwrap_or_else(|| ".".into());
    let folder = if place.is_folder() { folder_of(&folder).to_owned() } else { folder };
    let after = Duration::from_secs(args.keep_after);
    let spool = Spool::passing(&found.spool_path(&folder), found.header_len(), found.cut(), after)?;
    if spool.blocks() > 0 {
        out.note("going on with an interrupted pull");
    }
    let (result, entries) = fetch(args, found, &header, signers, &place, &spool, out);
    let verified = match result {
        Ok(verified) => verified,
        Err(e) => {
            drop(entries);
            if e.rule().is_some() {
                spool.remove(); // what is kept of it is of no use
            }
            place.undo();
            let pinned = e.rule() == Some("F-21") && signers.is_empty();
            let e = if pinned { e.hint(NOT_PINNED) } else { e };
            return Err(e.about(format!("{}: nothing was written", found.shown())));
        }
    };
    found.check_identity(&verified.manifest.name, verified.manifest.model_version)?;
    let written = place.place(entries, &verified, args.force)?;
    spool.remove();
    report(&verified, &written, signers, Some(&found.shown()), out)
}

fn fetch(
    args: &Args,
    found: &Found<'_>,
    header: &AuthenticatedHeader,
    signers: &[PublisherPublicKey],
    place: &Place,
    spool: &Spool,
    out: &Output,
) -> (Result<Verified, CliError>, NewEntries) {
    let bar = out.progress("pulling", Some(found.size));
    let progress = |n| bar.inc(n);
    let threads = threads(args.threads);
    let options = OpenOptions {
        signers,
        payload_digest: args.expect_digest,
        threads,
        progress: &progress,
        ..OpenOptions::default()
    };
    let entries = place.entries();
    let download = Download::new(found.store, &found.key, found.size, found.cut(), threads, Some(spool))
        .in_any_order(found.front.clone());
    let opened = download
        .run(|file| open(Input::At { file, offset: 0, len: found.size }, header, &options, Release::Files(&entries)));
    bar.finish_and_clear();
    (opened.map_err(Into::into), entries)
}

fn pull_sealed(
    args: &Args,
    found: &Found<'_>,
    signers: &[PublisherPublicKey],
    out: &mut Output,
) -> Result<(), CliError> {
    let prelude = found.published.header.prelude();
    let named = |e: CliError| e.about(found.shown());
    let target = args.output.clone().unwrap_or_else(|| format!("{}.mvault", found.name.as_str()).into());
    if !args.force && target.symlink_metadata().is_ok() {
        return Err(exists(&target));
    }
    vault_core::geometry::Chunking::new(prelude.chunk_size).payload(found.size).map_err(|e| named(e.into()))?;
    let signature = if signers.is_empty() {
        None
    } else {
        let section = found.published.header.signature();
        let section = section.ok_or_else(|| named(vault_core::error::not_signed().into()))?;
        section.verify(prelude, signers).map_err(|e| named(e.into()))?;
        let identity = section.check_identity(&prelude.salt, found.name.as_str(), found.published.version);
        identity.map_err(|e| named(e.into()))?;
        Some(section)
    };
    let spool = Spool::keeping(&found.spool_path(folder_of(&target)), found.header_len(), found.cut())?;
    if spool.blocks() > 0 {
        out.note("going on with an interrupted pull");
    }
    let bar = out.progress("pulling", Some(found.size));
    let download = Download::new(found.store, &found.key, found.size, found.cut(), 1, Some(&spool));
    let wanted = signature.is_some() || args.expect_digest.is_some();
    let digest = download.run(|file| read_all(file, found.size, prelude.chunk_size, wanted, &|n| bar.inc(n)));
    bar.finish_and_clear();
    let digest = digest?;
    let checked = check_digest(digest.as_ref(), signature.as_ref(), args.expect_digest);
    if let Err(e) = checked {
        spool.remove();
        return Err(named(e));
    }
    if !spool.is_whole(found.size) {
        let place = target.display().to_string();
        return Err(StoreError::new("write", place, Cause::DiskFull, "not all of it could be written").into());
    }
    spool.finish(found.published.header.bytes(), found.size, &target, args.force)?;
    report_sealed(found, &target, digest.map(|d| d.digest), signature.is_some(), out)
}

type Digest = vault_core::signature::PayloadDigest;

/// Reads the payload to its end; its digest, if it is wanted.
fn read_all(
    file: &dyn ReadAt,
    len: u64,
    chunk_size: u32,
    digest: bool,
    progress: &dyn Fn(u64),
) -> Result<Option<Digest>, CliError> {
    if digest {
        let mut reader = Sequential::new(file, 0, len);
        return Ok(Some(payload_digest(&mut reader, chunk_size, progress)?));
    }
    let failed = |e| CliError::from(vault_core::Error::Io { context: "read the payload".into(), source: e });
    let take = &mut |data: &[u8]| {
        progress(data.len() as u64);
        Ok(())
    };
    file.read_run(0, len, take).map_err(failed)?;
    Ok(None)
}

fn check_digest(
    read: Option<&Digest>,
    signature: Option<&vault_core::signature::SignatureSection>,
    expected: Option<[u8; 32]>,
) -> Result<(), CliError> {
    if let (Some(section), Some(read)) = (signature, read) {
        section.check_payload(read)?;
    }
    match (read, expected) {
        (Some(read), Some(expected)) if read.digest != expected => Err(CliError::not_authentic(format!(
            "the payload's digest is {}, not the one that is demanded [F-21]",
            hex(&read.digest)
        ))
        .hint(NOT_PINNED)),
        _ => Ok(()),
    }
}

fn report_sealed(
    found: &Found<'_>,
    target: &Path,
    digest: Option<[u8; 32]>,
    signed: bool,
    out: &mut Output,
) -> Result<(), CliError> {
    let header = &found.published.header;
    let json = serde_json::json!({
        "ok": true,
        "output": target.display().to_string(),
        "name": found.name.as_str(),
        "model_version": found.published.version,
        "id": header.prelude().artifact_id(),
        "digest": digest.map(|d| hex(&d)),
        "sealed_bytes": found.size + found.header_len(),
        "recipients": header.stanzas().count(),
        "signature_checked": signed,
    });
    let text = format!(
        "{}: {}, {}, sealed for {}{}\n",
        target.display(),
        found.shown(),
        size(found.size + found.header_len()),
        count(header.stanzas().count(), "recipient"),
        if signed { ", signed" } else { "" },
    );
    out.result(&json, &text)
}
