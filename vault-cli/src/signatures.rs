//! Model signatures (docs/SIGNATURES.md) on the command line: which files they cover, their digests, certificates and roots,
//! and the signature that `seal` and `push` write beside what they seal.

use crate::error::{CliError, io};
use crate::files::{Access, NewFile, folder_of};
use crate::keys::read_public_file;
use crate::output::{Output, printable};
use crate::sources::{Links, Model, Walk};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use vault_core::manifest::{Manifest, check_path};
use vault_core::model_signature::{Chain, Content, GIT_PATHS, Hash, ONE_FILE, Roots, is_at_or_under, sign};
use vault_core::signature::{PublisherKey, PublisherPublicKey};

/// Paths and digests of a model's files.
pub type Digests = Vec<(String, [u8; 32])>;

/// Opens the files of `path` that are not at or under `ignored`.
pub fn open(path: &Path, ignored: &[String], follow: bool) -> Result<Model, CliError> {
    if path == Path::new("-") {
        return Err(CliError::usage("a model signature is of a file or a folder, not of standard input"));
    }
    let links = if follow { Links::ToFiles } else { Links::Refused };
    Model::walk(path, Walk { links, leave_out: &|p| is_at_or_under(p, ignored) })
}

/// Paths of a folder as the user says them, checked.
pub fn ignored_paths(given: &[String]) -> Result<Vec<String>, CliError> {
    let paths = given.iter().map(|path| path.trim_start_matches("./").trim_end_matches('/').to_owned());
    let checked = paths.map(|path| match check_path(&path) {
        Ok(()) => Ok(path),
        Err(_) => Err(CliError::usage(format!("--ignore {path}: not a path inside the folder"))
            .hint("say it as seen from the folder: --ignore docs, or --ignore docs/notes.txt")),
    });
    checked.collect()
}

/// Where `file` is in `folder`, if it is there.
pub fn place_in(folder: &Path, file: &Path) -> Option<String> {
    let parent = folder_of(file).canonicalize().ok()?;
    let place = parent.join(file.file_name()?);
    let relative = place.strip_prefix(folder.canonicalize().ok()?).ok()?;
    Some(relative.to_str()?.to_owned()).filter(|p| !p.is_empty())
}

/// Refuses a signature where something else is, which `--force` would replace.
pub fn check_apart(signature: &Path, other: &Path, what: &str) -> Result<(), CliError> {
    // By what it is, or by its name if it is not there yet.
    let place = |path: &Path| Some(folder_of(path).canonicalize().ok()?.join(path.file_name()?));
    let real = |path: &Path| path.canonicalize().ok().or_else(|| place(path));
    if real(signature).is_some() && real(signature) == real(other) {
        return Err(CliError::usage(format!("{}: is {what}", signature.display()))
            .hint("choose another name for the signature"));
    }
    Ok(())
}

/// What a writer leaves out of `folder`: git's files, the signature's own, and what the user says `[M-13]`.
pub fn left_out(folder: &Path, signature: &Path, given: &[String]) -> Result<Vec<String>, CliError> {
    let mut all = ignored_paths(given)?;
    all.extend(GIT_PATHS.iter().map(|p| (*p).to_owned()));
    all.extend(place_in(folder, signature));
    all.sort();
    all.dedup();
    Ok(all)
}

/// The digests of all files, several files at a time.
pub fn digests(
    model: &Model,
    hash: Hash,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Digests, CliError> {
    let files: Vec<_> = model.files().collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(files.len())));
    let worker = || {
        while let Some(&(path, mut file)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = if model.folder { path.to_owned() } else { ONE_FILE.to_owned() };
            let digest = hash.of(&mut file, progress).map_err(io(path));
            let failed = digest.is_err();
            done.lock().unwrap_or_else(PoisonError::into_inner).push(digest.map(|d| (name, d)));
            if failed {
                next.store(files.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(files.len())).for_each(|_| {
            scope.spawn(worker);
        });
        worker();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

/// A line that names the paths a signature does not cover, if there are any.
pub fn not_covered(paths: &[String]) -> String {
    if paths.is_empty() { String::new() } else { format!("not covered: {}\n", printable(&paths.join(", "))) }
}

/// Seconds since 1970, now.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A signer's certificate and its authorities'.
pub fn load_chain(path: &Path, key: &PublisherPublicKey) -> Result<Chain, CliError> {
    let pem = read_public_file(path)?;
    let chain = Chain::from_pem(&pem, key, now_s());
    chain.map_err(|e| {
        CliError::from(e)
            .about(path.display())
            .hint("the file has the signer's certificate first, then its authorities'")
    })
}

/// Certificates to trust.
pub fn load_roots(paths: &[PathBuf]) -> Result<Roots, CliError> {
    let mut all: Option<Roots> = None;
    for path in paths {
        let roots = Roots::from_pem(&read_public_file(path)?);
        let roots = roots.map_err(|e| {
            CliError::from(e)
                .about(path.display())
                .hint("--ca names certificates; a bare public key is named with --signer")
        })?;
        all = Some(match all {
            Some(all) => all.with(roots),
            None => roots,
        });
    }
    all.ok_or_else(|| CliError::usage("no certificate to trust").hint("name it with --ca ROOT.PEM"))
}

/// The model signature that goes with what is sealed.
pub struct Companion<'a> {
    file: NewFile,
    path: PathBuf,
    key: &'a PublisherKey,
    chain: Option<Chain>,
    ignored: Vec<String>,
    follow: bool,
}

impl<'a> Companion<'a> {
    /// For a model at `model`, to be written to `path`: what can fail before sealing does.
    pub fn begin(
        path: &Path,
        model: &Path,
        key: &'a PublisherKey,
        cert: Option<&Path>,
        (follow, force): (bool, bool),
    ) -> Result<Self, CliError> {
        check_apart(path, model, "what is to be sealed")?;
        let chain = cert.map(|cert| load_chain(cert, &key.public())).transpose()?;
        let ignored = left_out(model, path, &[])?;
        let file = NewFile::create(path, Access::Public, force)?;
        Ok(Self { file, path: path.to_owned(), key, chain, ignored, follow })
    }

    /// Signs what was sealed. The file has no name yet.
    pub fn write(&self, manifest: &Manifest, out: &Output) -> Result<(), CliError> {
        let folder = manifest.layout == 1;
        let digest = |e: &vault_core::manifest::Entry| e.sha256.as_deref().copied();
        let missing = || CliError::failed("the manifest has no SHA-256 to sign");
        let files = manifest.entries.iter().map(|e| {
            let path = if folder { e.path.clone() } else { ONE_FILE.into() };
            Ok((path, digest(e).ok_or_else(missing)?))
        });
        let files = files.collect::<Result<Digests, CliError>>()?;
        let uncovered: Vec<_> = files.iter().map(|(p, _)| p).filter(|p| is_at_or_under(p, &self.ignored)).collect();
        for path in uncovered {
            out.note(&format!("{}: sealed, and not in the model signature", printable(path)));
        }
        let name = manifest.entries.first().filter(|_| !folder).map_or(&manifest.name, |e| &e.path);
        let ignored = if folder { self.ignored.clone() } else { Vec::new() };
        let content = Content::new(name, Hash::Sha256, self.follow && folder, ignored, files)?;
        let bundle = sign(&content, self.key, self.chain.as_ref())?;
        self.file.file().write_all_at(bundle.as_bytes(), 0).map_err(io(self.path.display()))
    }

    /// Gives the file its name.
    pub fn finish(self) -> Result<(), CliError> {
        self.file.finish()
    }
}
