//! `mvault push`: publish a model to a vault, sealed while it is sent; or a sealed file, without its key.

use super::seal::{SealArgs, warn_of_verdicts, warn_without_aes};
use crate::aws::AwsArgs;
use crate::config::{Project, push_records};
use crate::error::{CliError, io};
use crate::keys::{IdentityArgs, RecipientArgs, count};
use crate::kms::{Source, parse_source};
use crate::output::{Output, size};
use crate::sources::Model;
use crate::vaults::{VaultArgs, open, reference, tag};
use clap::builder::{OsStringValueParser, TypedValueParser};
use rand_core::UnwrapErr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vault_core::header::{Header, MAGIC, hex};
use vault_core::recipient::Recipient;
use vault_core::seal::dangerous_seal_under;
use vault_core::signature::PublisherKey;
use vault_store::layout::{Name, TagName, Target};
use vault_store::push::{Model as Terms, Note, Push, Pushed, publisher};
use vault_store::vault::{Job, Published, Selector, Vault};

/// Chunks of what is sealed for a vault: parts are read over a network, and a small chunk is little to fetch.
const CHUNK_SIZE: u32 = 16 * 1024;

/// Publish a model to a vault
///
/// The model is scanned and sealed while it is sent: there is no temporary file. A version appears when all of it is
/// there, and is never overwritten. An interrupted push goes on when the same command is run again. A file that is
/// sealed already is sent as it is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault push model.pkl s3://bucket/team bert       sealed for you, next version
  mvault push bert/ s3://bucket/team bert -R team.txt --tag prod --sign sign.pem
  mvault push model.pkl vault bert                  a vault in a local folder
  mvault push bert.mvault s3://bucket/team bert --model-version 3
  train | mvault push - s3://bucket/team bert")]
pub struct Args {
    #[command(flatten)]
    pub what: PushArgs,
}

/// What `push` and `publish` have in common.
#[derive(clap::Args)]
pub struct PushArgs {
    /// A file or a folder; `push` takes a sealed model, too, or - for standard input
    pub path: PathBuf,
    /// The vault (s3://BUCKET/PREFIX or a folder), if it is not the default one; and the model's name in it
    #[arg(value_name = "[VAULT] NAME", required = true, num_args = 1..=2)]
    place: Vec<String>,
    #[command(flatten)]
    vault: VaultArgs,
    #[command(flatten)]
    recipients: RecipientArgs,
    /// Point this tag at the new version
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// The model's version [default: one more than the latest]
    #[arg(long, value_name = "N")]
    model_version: Option<u64>,
    /// Key file to go on with an interrupted push, or aws-kms:KEY-ARN [default: your key]
    #[arg(short, long = "identity", value_name = "FILE", value_parser = OsStringValueParser::new().try_map(parse_source))]
    identities: Vec<Source>,
    /// What others see of who published [default: user at host]
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    publisher: Option<String>,
    /// Plaintext bytes a chunk
    #[arg(long, value_name = "BYTES", default_value_t = CHUNK_SIZE, hide_short_help = true)]
    chunk_size: u32,
    /// MiB a part, from 5 to 1024; more where there would be over 10,000 [default: 16]
    #[arg(long, value_name = "MIB", hide_short_help = true, value_parser = clap::value_parser!(u64).range(5..=1024))]
    part_size: Option<u64>,
    #[command(flatten)]
    pub how: SealArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let key = args.what.how.signing_key()?;
    let report = push(&args.what, key.as_ref(), None, out)?;
    out.result(&report.json, &report.text)
}

/// What was published.
pub struct Report {
    /// For scripts.
    pub json: serde_json::Value,
    /// For people.
    pub text: String,
}

/// Publishes, signed with `key`. What this key's `job` published before is not published again.
pub fn push(args: &PushArgs, key: Option<&PublisherKey>, job: Option<&str>, out: &Output) -> Result<Report, CliError> {
    let project = Project::find()?;
    let (uri, text) = args.vault.with_name(&args.place, &project)?;
    let (name, selector) = reference(text)?;
    let version = match selector {
        Selector::Latest => args.model_version,
        Selector::Version(version) if args.model_version.is_none_or(|v| v == version) => Some(version),
        _ => return Err(CliError::usage(format!("{text}: a push takes NAME, or NAME:VERSION"))),
    };
    let tag = args.tag.as_deref().map(tag).transpose()?;
    let store = open(&uri, &args.aws, out)?;
    let (records, publisher) = (push_records(), args.publisher.clone().unwrap_or_else(publisher));
    let size = source_size(&args.path)?;
    let bar = out.progress("pushing", size);
    let progress = |n| bar.inc(n);
    let note = |note: Note| bar.suspend(|| tell(&note, out));
    let vault = Vault::new(&*store);
    let job = key.zip(job);
    let proof = |version: u64, salt: &[u8; 32]| {
        job.map_or([0; 32], |(key, job)| key.job_proof(name.as_str(), job, version, salt))
    };
    let job = job.map(|(key, job)| Job { mark: key.job_mark(name.as_str(), job), proof: &proof });
    if let Some(job) = &job
        && let Some(there) = vault.published_by(&name, job)?
        && version.is_none_or(|v| v == there.version)
    {
        let target = Target::of(there.version, &there.header);
        let before = tag.as_ref().map(|tag| vault.set_tag(&name, tag, &target)).transpose()?.flatten();
        return Ok(found(&name, tag.as_ref(), &*store, &there, before.as_ref()));
    }
    let push = Push {
        vault,
        job: job.as_ref(),
        name: &name,
        version,
        tag: tag.as_ref(),
        publisher: Some(&publisher),
        len: size,
        part_size: args.part_size.map(|mib| mib << 20),
        records: records.as_deref(),
        progress: &progress,
        note: &note,
    };
    let done = match sealed(&args.path)? {
        Some((file, header)) => push_sealed(args, push, &file, &header, out),
        None => push_model(args, key, &project, &push, out),
    };
    bar.finish_and_clear();
    Ok(report(&name, tag.as_ref(), &*store, &done?))
}

fn tell(note: &Note, out: &Output) {
    match note {
        Note::GoesOn(parts) => out.note(&format!("going on with an interrupted push: {} there", count(*parts, "part"))),
        Note::BeginsAnew => {
            out.note("the source is not what it was when the push was interrupted: beginning anew, under a new key");
        }
    }
}

/// About how much will be sent, if that is known.
fn source_size(path: &Path) -> Result<Option<u64>, CliError> {
    if path == Path::new("-") {
        return Ok(None);
    }
    let metadata = std::fs::metadata(path).map_err(io(path.display()))?;
    if metadata.is_file() {
        return Ok(Some(metadata.len()));
    }
    Ok(if metadata.is_dir() { Model::open(path, true).ok().and_then(|m| m.size) } else { None })
}

/// A file that is an artifact, and its header.
pub fn sealed(path: &Path) -> Result<Option<(File, Header)>, CliError> {
    let is_file = path != Path::new("-") && std::fs::metadata(path).is_ok_and(|m| m.is_file());
    if !is_file {
        return Ok(None);
    }
    let mut file = File::open(path).map_err(io(path.display()))?;
    let mut magic = [0; 8];
    if file.read_exact_at(&mut magic, 0).is_err() || magic != MAGIC {
        return Ok(None);
    }
    let header = Header::read(&mut file).map_err(|e| CliError::from(e).about(path.display()))?;
    Ok(Some((file, header)))
}

fn push_model(
    args: &PushArgs,
    key: Option<&PublisherKey>,
    project: &Project,
    push: &Push<'_>,
    out: &Output,
) -> Result<Pushed, CliError> {
    let mut model = Model::open(&args.path, args.how.follow_symlinks)?;
    if args.path == Path::new("-") {
        model.rename(push.name.as_str());
    }
    let recipients = args.recipients.all(project, &args.aws, out)?;
    let recipients: Vec<&dyn Recipient> = recipients.iter().map(AsRef::as_ref).collect();
    let companion = args.how.companion(&args.path, key, false)?;
    warn_without_aes(out);
    let identity = IdentityArgs::of(&args.identities);
    let own = identity.own(&args.aws, out)?;
    let own: Vec<&dyn Recipient> = own.iter().map(AsRef::as_ref).collect();
    if own.is_empty() && push.vault.store().is_remote() {
        out.note("without a key of yours (-i) this push cannot go on if it is interrupted");
    }
    let progress = |_| {};
    let mut options = args.how.options(push.name.as_str().into(), project, &model, key, &progress);
    args.how.provenance.record(&mut options)?;
    options.chunk_size = args.chunk_size;
    let terms = Terms {
        chunk_size: args.chunk_size,
        sealed_at: options.sealed_at,
        own: &own,
        unlock: &|header| identity.unlock(header, &args.aws, out).ok(),
    };
    let mut rng = UnwrapErr(getrandom::SysRng);
    let (pushed, sealed) = push.model(&terms, &mut rng, &mut |terms| {
        options.model_version = terms.version;
        options.sealed_at = terms.sealed_at;
        let to = vault_core::io::Output::Payload(terms.payload);
        let rng = &mut UnwrapErr(getrandom::SysRng);
        let sealed = dangerous_seal_under(terms.key, model.entries(), &recipients, &options, rng, to)?;
        model.check_unchanged("sealed")?;
        Ok::<_, CliError>(sealed)
    })?;
    warn_of_verdicts(&sealed.manifest, out);
    if let Some(companion) = companion {
        companion.write(&sealed.manifest, out)?;
        companion.finish()?;
    }
    Ok(pushed)
}

fn push_sealed(
    args: &PushArgs,
    mut push: Push<'_>,
    file: &File,
    header: &Header,
    out: &Output,
) -> Result<Pushed, CliError> {
    let named = |e: CliError| e.about(args.path.display());
    if args.how.model_signature.is_some() {
        return Err(named(
            CliError::usage("it is sealed already: its plain files are not read")
                .hint("sign the plain files with `mvault sign`"),
        ));
    }
    let offset = u64::from(header.prelude().header_len);
    let len = file.metadata().map_err(io(args.path.display()))?.len().saturating_sub(offset);
    // What can be seen without a key: a cut file is not published.
    vault_core::geometry::Chunking::new(header.prelude().chunk_size).payload(len).map_err(|e| named(e.into()))?;
    let identity = IdentityArgs::of(&args.identities);
    let about = identity.unlock(header, &args.aws, out).ok().and_then(|h| h.about().cloned());
    let inside = about.map(|a| (a.name, a.model_version));
    if push.version.is_none() {
        push.version = inside.as_ref().map(|(_, version)| *version);
    }
    let Some(version) = push.version else {
        return Err(named(
            CliError::usage("its version is sealed, and there is no key to see it with")
                .hint("say it with --model-version, or give a key with -i"),
        ));
    };
    let says = inside.as_ref().is_none_or(|(name, v)| name == push.name.as_str() && *v == version);
    let signed = header
        .signature()
        .is_none_or(|s| s.check_identity(&header.prelude().salt, push.name.as_str(), version).is_ok());
    if !says || !signed {
        let inside = inside.map(|(name, v)| format!(": it is {name} version {v}")).unwrap_or_default();
        return Err(named(
            CliError::usage(format!("it was not sealed as {} version {version}{inside} [F-42]", push.name.as_str()))
                .hint("push it under its own name and version, or seal it anew with --name and --model-version"),
        ));
    }
    Ok(push.sealed(header, file, offset, len)?)
}

fn report(name: &Name, tag: Option<&TagName>, store: &dyn vault_store::Store, pushed: &Pushed) -> Report {
    let name = name.as_str();
    let json = serde_json::json!({
        "ok": true,
        "vault": store.uri(),
        "name": name,
        "model_version": pushed.version,
        "tag": tag.map(TagName::as_str),
        "id": pushed.header.prelude().artifact_id(),
        "digest": hex(&pushed.sent.digest),
        "recipients": pushed.header.stanzas().count(),
        "signed": pushed.header.signature().is_some(),
        "payload_bytes": pushed.sent.len,
        "parts_sent": pushed.sent.sent,
        "parts_reused": pushed.sent.reused,
    });
    let tagged = tagged(tag, pushed.tag_before.as_ref(), pushed.version);
    let text = format!(
        "{name}:{} published in {}, {}, for {}{}{tagged}\ndigest {}\n",
        pushed.version,
        store.uri(),
        size(pushed.sent.len),
        count(pushed.header.stanzas().count(), "recipient"),
        if pushed.header.signature().is_some() { ", signed" } else { "" },
        hex(&pushed.sent.digest),
    );
    Report { json, text }
}

/// Of what the same job published earlier.
fn found(
    name: &Name,
    tag: Option<&TagName>,
    store: &dyn vault_store::Store,
    there: &Published,
    before: Option<&Target>,
) -> Report {
    let name = name.as_str();
    let json = serde_json::json!({
        "ok": true,
        "already_published": true,
        "vault": store.uri(),
        "name": name,
        "model_version": there.version,
        "tag": tag.map(TagName::as_str),
        "id": there.header.prelude().artifact_id(),
        "recipients": there.header.stanzas().count(),
        "signed": there.header.signature().is_some(),
    });
    let tagged = tagged(tag, before, there.version);
    let text = format!("{name}:{} is in {}: this job published it before{tagged}\n", there.version, store.uri());
    Report { json, text }
}

fn tagged(tag: Option<&TagName>, before: Option<&Target>, version: u64) -> String {
    let tagged = tag.map(|t| format!(", tagged {}", t.as_str())).unwrap_or_default();
    let moved = before.filter(|t| t.version != version);
    tagged + &moved.map(|t| format!(" (was version {})", t.version)).unwrap_or_default()
}
