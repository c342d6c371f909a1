//! One side of a diff: a plain file or folder, a sealed model, or a version in a vault; and where its entries' bytes
//! come from. What is sealed is verified as it is read; plain files must be the same afterwards.

use super::Args;
use crate::commands::artifact::Artifact;
use crate::config::Project;
use crate::error::{CliError, io};
use crate::keys::Keyring;
use crate::output::{Output, printable};
use crate::process::threads;
use crate::sources::Model;
use crate::vaults::reference;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use vault_core::Error;
use vault_core::aead::Engine;
use vault_core::compare::{Bytes, Entry};
use vault_core::header::{AuthenticatedHeader, MAGIC};
use vault_core::io::{ReadAt, Sequential};
use vault_core::manifest;
use vault_core::model_signature::Hash;
use vault_core::open::{OpenOptions, RangeReader, Release, open};
use vault_core::scan::{Plain, scan};
use vault_core::signature::PublisherPublicKey;

/// Opens sides: keys are loaded, and a passphrase is asked for, once.
pub struct Opener<'a> {
    args: &'a Args,
    project: Project,
    signers: Vec<PublisherPublicKey>,
    keyring: Keyring<'a>,
}

/// A side, opened.
pub struct Opened {
    /// What the report calls it.
    pub label: String,
    what: What,
}

enum What {
    Plain(Model, Vec<Known>),
    Sealed(Box<Artifact>, Box<AuthenticatedHeader>),
}

/// What is known of a plain file once it was read.
struct Known {
    size: u64,
    blake3: [u8; 32],
    format: String,
}

impl<'a> Opener<'a> {
    pub fn new(args: &'a Args) -> Result<Self, CliError> {
        let project = Project::find()?;
        let signers = args.signers.load(&project)?;
        Ok(Self { args, project, signers, keyring: Keyring::new(&args.identity) })
    }

    /// Opens what the user calls `text`; messages call it `name`.
    pub fn open(&mut self, text: &str, name: &str, out: &Output) -> Result<Opened, CliError> {
        let named = |e: CliError| e.about(name);
        if text == "-" {
            return Err(named(CliError::usage("standard input can be read only once").hint("save it first")));
        }
        if let Some(artifact) = self.in_vault(text, out).map_err(named)? {
            return self.sealed(artifact, name, out);
        }
        let path = Path::new(text);
        if text.starts_with("s3://") || is_sealed(path).map_err(named)? {
            let artifact = Artifact::open(path, &self.args.aws, out).map_err(named)?;
            return self.sealed(artifact, name, out);
        }
        self.plain(path).map_err(named)
    }

    /// A version of A's model; none, with a note, if there is no key for it.
    pub fn older(&mut self, a: &Opened, version: u64, out: &Output) -> Result<Option<Opened>, CliError> {
        let What::Sealed(artifact, _) = &a.what else { return Ok(None) };
        let Some(artifact) = artifact.another_version(version)? else { return Ok(None) };
        match self.sealed(artifact, "older", out) {
            Err(e) if e.rule() == Some("F-18") => {
                out.note(&format!("{}: the scores do without it", e.message()));
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// `NAME:VERSION` or `NAME@TAG` where a vault is named, `NAME` where there is no such file.
    fn in_vault(&self, text: &str, out: &Output) -> Result<Option<Artifact>, CliError> {
        let exists = Path::new(text).symlink_metadata().is_ok();
        let versioned = text.contains([':', '@']);
        if text.contains('/') || (exists && !(versioned && self.args.vault.is_given())) {
            return Ok(None);
        }
        let Some(uri) = self.args.vault.default(&self.project)? else {
            let missing = CliError::failed(format!("{}: no such file or directory", printable(text)));
            return Err(missing.hint("check the path; a version in a vault needs --vault, or `vault` in mvault.toml"));
        };
        let (name, selector) = reference(text)?;
        Artifact::open_in(&uri, name, &selector, Path::new(text), &self.args.aws, out).map(Some)
    }

    fn sealed(&mut self, mut artifact: Artifact, name: &str, out: &Output) -> Result<Opened, CliError> {
        let label = match artifact.in_vault() {
            Some((vault, name, published)) => {
                printable(&format!("{}:{} in {}", name.as_str(), published.version, vault.store().uri()))
            }
            None => printable(&artifact.path().display().to_string()),
        };
        let named = |e: CliError| e.about(&label).about(name);
        let header = self.keyring.unlock(&artifact.header, &self.args.aws, out).map_err(named)?;
        if !self.signers.is_empty() {
            let options = OpenOptions { signers: &self.signers, threads: threads(None), ..OpenOptions::default() };
            let opened = artifact.payload(|input| open(input, &header, &options, Release::Nothing)).map_err(named)?;
            opened.map_err(|e| named(e.into()))?; // [F-21]
        }
        Ok(Opened { label, what: What::Sealed(Box::new(artifact), Box::new(header)) })
    }

    fn plain(&self, path: &Path) -> Result<Opened, CliError> {
        let model = Model::open(path, self.args.follow_symlinks)?;
        let known = model.files().map(|(name, file)| known(name, file).map_err(io(name))).collect::<Result<_, _>>()?;
        Ok(Opened { label: printable(&path.display().to_string()), what: What::Plain(model, known) })
    }
}

/// Whether a file is, or says by its name that it is, a sealed model.
fn is_sealed(path: &Path) -> Result<bool, CliError> {
    let metadata = path.metadata().map_err(io(path.display()))?;
    if metadata.is_dir() {
        return Ok(false);
    }
    if !metadata.is_file() {
        return Err(CliError::usage(format!("{}: can be read only once", path.display())).hint("save it first"));
    }
    let mut front = Vec::new();
    let file = File::open(path).map_err(io(path.display()))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut front).map_err(io(path.display()))?;
    Ok(front == MAGIC || path.extension().is_some_and(|e| e == "mvault"))
}

/// Digest and format of a plain file, as a sealer finds them.
fn known(name: &str, file: &File) -> std::io::Result<Known> {
    let size = file.metadata()?.len();
    let blake3 = Hash::Blake3.of(&mut Sequential::new(file, 0, size), &|_| {})?;
    let report = scan(name, &mut Plain(Sequential::new(file, 0, size)))?;
    Ok(Known { size, blake3, format: report.format.as_str().into() })
}

impl Opened {
    /// How messages name it.
    pub fn called(&self, name: &str) -> String {
        format!("{name}: {}", self.label)
    }

    /// Whether it is the very same file, folder or version.
    pub fn is(&self, other: &Self) -> bool {
        self.identity().is_some_and(|id| other.identity().as_ref() == Some(&id))
    }

    fn identity(&self) -> Option<String> {
        let path = match &self.what {
            What::Sealed(artifact, _) => match artifact.in_vault() {
                Some((vault, name, published)) => {
                    return Some(format!("{} {} {}", vault.store().uri(), name.as_str(), published.version));
                }
                None => artifact.path(),
            },
            What::Plain(model, _) => &model.path,
        };
        let metadata = path.metadata().ok()?;
        Some(format!("{} {}", metadata.dev(), metadata.ino()))
    }

    /// The last `limit` versions of the same model before both, if this side is in a vault and the other is no other model.
    pub fn versions_before(&self, other: &Self, limit: usize) -> Result<Vec<u64>, CliError> {
        let What::Sealed(artifact, _) = &self.what else { return Ok(Vec::new()) };
        let Some((vault, name, published)) = artifact.in_vault() else { return Ok(Vec::new()) };
        let mut before = published.version;
        if let What::Sealed(artifact, _) = &other.what
            && let Some((_, other, published)) = artifact.in_vault()
        {
            before = before.min(published.version);
            if other.as_str() != name.as_str() {
                return Ok(Vec::new());
            }
        }
        let mut versions: Vec<_> = vault.versions(name)?.into_keys().filter(|v| *v < before).collect();
        Ok(versions.split_off(versions.len().saturating_sub(limit)))
    }

    /// Fails if a plain file was changed meanwhile.
    pub fn check_unchanged(&self) -> Result<(), CliError> {
        match &self.what {
            What::Plain(model, _) => model.check_unchanged("compared"),
            What::Sealed(..) => Ok(()),
        }
    }

    /// What it is, for scripts.
    pub fn json(&self) -> Value {
        match &self.what {
            What::Plain(..) => json!({ "label": self.label, "kind": "plain" }),
            What::Sealed(artifact, header) => json!({
                "label": self.label,
                "kind": if artifact.in_vault().is_some() { "vault" } else { "sealed" },
                "id": artifact.header.prelude().artifact_id(),
                "name": header.about().map(|a| &a.name),
                "model_version": header.about().map(|a| a.model_version),
            }),
        }
    }

    /// Runs `f` on its entries; messages call it `name`.
    pub fn with_entries<T>(
        &self,
        name: &str,
        f: impl FnOnce(&[Entry<'_>]) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let named = |e: CliError| e.about(self.called(name));
        match &self.what {
            What::Plain(model, known) => {
                let files = model.files().zip(known).map(|((path, file), known)| Entry {
                    path: path.to_owned(),
                    size: known.size,
                    blake3: known.blake3,
                    format: known.format.clone(),
                    bytes: Box::new(OfFile(file)),
                });
                f(&files.collect::<Vec<_>>())
            }
            What::Sealed(artifact, header) => {
                let parts = artifact.parts().map_err(named)?;
                let (file, offset, len) = parts.at();
                let reader = RangeReader::new(file, offset, len, header, Engine::fastest());
                let reader = reader.map_err(|e| named(e.into()))?;
                let manifest = reader.manifest();
                artifact.check_identity(&manifest.name, manifest.model_version)?;
                let entry = |entry: &manifest::Entry| Entry {
                    path: entry.path.clone(),
                    size: entry.size,
                    blake3: *entry.blake3,
                    format: entry.scan.format.clone(),
                    bytes: Box::new(OfArtifact { reader: &reader, entry: entry.clone() }),
                };
                f(&manifest.entries.iter().map(entry).collect::<Vec<_>>())
            }
        }
    }
}

/// The bytes of a plain file.
struct OfFile<'a>(&'a File);

impl Bytes for OfFile<'_> {
    fn read(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> vault_core::Result<()> {
        let read = ReadAt::read_run(self.0, range.start, range.end - range.start, take);
        read.map_err(|source| Error::Io { context: "read".into(), source })
    }
}

/// The bytes of an entry of an artifact: only verified ones `[F-25]`.
struct OfArtifact<'r> {
    reader: &'r RangeReader<'r>,
    entry: manifest::Entry,
}

impl Bytes for OfArtifact<'_> {
    fn read(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> vault_core::Result<()> {
        self.reader.read(&self.entry, range, take)
    }
}
