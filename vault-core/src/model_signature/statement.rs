//! What is signed: SIGNATURES.md sections 3 and 4. Names and digests of files, and which were left out.

use super::{Error, Result, refused, require};
use crate::header::{hex, unhex};
use crate::manifest::check_path;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::{self, Read};

/// Most files `[M-12]`.
pub const MAX_RESOURCES: usize = 65_536;
/// Most ignored paths `[M-13]`.
pub const MAX_IGNORED: usize = 1024;
/// The name of the one resource of a model that is a file `[M-12]`.
pub const ONE_FILE: &str = ".";
/// What a writer leaves out of a folder: a download from a hub has other files of git than the publisher's folder.
pub const GIT_PATHS: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// The digest of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256, which every tool knows.
    Sha256,
    /// BLAKE3.
    Blake3,
}

impl Hash {
    /// As a statement has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }

    /// The digest of all that `reader` gives; `progress` is told bytes.
    pub fn of(self, reader: &mut dyn Read, progress: &dyn Fn(u64)) -> io::Result<[u8; 32]> {
        let mut piece = vec![0; PIECE];
        let (mut sha256, mut blake3) = (Sha256::new(), blake3::Hasher::new());
        loop {
            let n = match reader.read(&mut piece) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let data = piece.get(..n).unwrap_or_default();
            match self {
                _ if n == 0 => break,
                Self::Sha256 => sha256.update(data),
                Self::Blake3 => {
                    blake3.update(data);
                }
            }
            progress(n as u64);
        }
        Ok(match self {
            Self::Sha256 => sha256.finalize().into(),
            Self::Blake3 => blake3.finalize().into(),
        })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The files of a model and their digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    name: String,
    hash: Hash,
    follows_links: bool,
    ignored: Vec<String>,
    files: Vec<(String, [u8; 32])>,
}

/// How files differ from what was signed `[M-14]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The same name, other bytes.
    Changed(String),
    /// The same bytes under another name: the signed one, the one found.
    Renamed(String, String),
    /// Signed, and not there.
    Missing(String),
    /// There, and not signed.
    Additional(String),
}

impl Content {
    /// What is to be signed. Files at ignored paths are left out here; `name` is for people.
    pub fn new(
        name: &str,
        hash: Hash,
        follows_links: bool,
        ignored: Vec<String>,
        files: Vec<(String, [u8; 32])>,
    ) -> Result<Self> {
        let files = files.into_iter().filter(|(path, _)| !is_at_or_under(path, &ignored)).collect();
        let mut content = Self { name: name.into(), hash, follows_links, ignored, files };
        content.files.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
        content.check().map_err(|e| Error::Usage(format!("cannot be signed: {e}")))?;
        Ok(content)
    }

    /// The model's name, which proves nothing.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How files are digested.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Paths that are not covered, each with all that is under it.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Paths and digests, in the statement's order.
    pub fn files(&self) -> &[(String, [u8; 32])] {
        &self.files
    }

    /// A model of one file, whatever its name.
    pub fn is_one_file(&self) -> bool {
        matches!(self.files.as_slice(), [(name, _)] if name == ONE_FILE)
    }

    /// How `found` differs from this, in the order of paths; nothing if it does not `[M-14]`.
    pub fn differences(&self, found: &[(String, [u8; 32])]) -> Vec<Difference> {
        let mut left: BTreeMap<&str, &[u8; 32]> = found.iter().map(|(path, digest)| (path.as_str(), digest)).collect();
        let (mut differences, mut missing) = (Vec::new(), Vec::new());
        for (path, digest) in &self.files {
            match left.remove(path.as_str()) {
                Some(found) if found == digest => {}
                Some(_) => differences.push(Difference::Changed(path.clone())),
                None => missing.push((path, digest)),
            }
        }
        let mut by_digest: HashMap<&[u8; 32], Vec<&str>> = HashMap::new();
        left.iter().rev().for_each(|(path, digest)| by_digest.entry(digest).or_default().push(path));
        for (path, digest) in missing {
            let renamed = by_digest.get_mut(digest).and_then(Vec::pop);
            renamed.map(|now| left.remove(now));
            differences.push(match renamed {
                Some(now) => Difference::Renamed(path.clone(), now.into()),
                None => Difference::Missing(path.clone()),
            });
        }
        differences.extend(left.keys().map(|path| Difference::Additional((*path).into())));
        differences.sort();
        differences
    }

    /// The statement's JSON (SIGNATURES.md section 3).
    pub(super) fn to_json(&self) -> serde_json::Value {
        let resources = self
            .files
            .iter()
            .map(|(path, digest)| json!({ "name": path, "algorithm": self.hash.as_str(), "digest": hex(digest) }));
        let mut serialization =
            json!({ "method": "files", "hash_type": self.hash.as_str(), "allow_symlinks": self.follows_links });
        if let (false, Some(fields)) = (self.ignored.is_empty(), serialization.as_object_mut()) {
            fields.insert("ignore_paths".into(), self.ignored.clone().into());
        }
        json!({
            "_type": STATEMENT_TYPE,
            "subject": [{ "name": self.name, "digest": { "sha256": hex(&root(&self.files)) } }],
            "predicateType": PREDICATE_TYPE,
            "predicate": { "serialization": serialization, "resources": resources.collect::<Vec<_>>() },
        })
    }

    /// Parses a statement `[M-9]` to `[M-13]`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let raw: Statement = serde_json::from_slice(bytes).map_err(|e| refused(9, format!("not a statement: {e}")))?;
        require(raw.kind == STATEMENT_TYPE, 9, || "another type of statement".into())?;
        require(raw.predicate_type == PREDICATE_TYPE, 9, || "another predicate: no model signature of v1.0".into())?;
        let [subject] = raw.subject.as_slice() else {
            return Err(refused(10, format!("{} subjects; expected one", raw.subject.len())));
        };
        let Predicate { serialization, resources } = raw.predicate;
        let hash = serialization.hash()?;
        require(resources.len() <= MAX_RESOURCES, 12, || format!("{} files", resources.len()))?;
        let files = resources.into_iter().map(|r| r.check(hash)).collect::<Result<Vec<_>>>()?;
        let digest = subject.digest.sha256.as_deref().and_then(unhex);
        let same = digest.as_deref() == Some(root(&files).as_slice());
        require(same, 10, || "the subject's digest is not that of the resources".into())?;
        let content = Self {
            name: subject.name.clone(),
            hash,
            follows_links: serialization.allow_symlinks,
            ignored: serialization.ignore_paths.unwrap_or_default(),
            files,
        };
        content.check()?;
        Ok(content)
    }

    /// `[M-12]`, `[M-13]`
    fn check(&self) -> Result<()> {
        let count = self.files.len();
        require((1..=MAX_RESOURCES).contains(&count), 12, || format!("{count} files; expected 1 to {MAX_RESOURCES}"))?;
        let mut seen = HashSet::new();
        for (path, _) in &self.files {
            let fits = if path == ONE_FILE { count == 1 } else { check_path(path).is_ok() };
            require(fits, 12, || format!("path {:?} is not one inside a folder", shown(path)))?;
            require(seen.insert(path), 12, || format!("path {:?} twice", shown(path)))?;
        }
        let count = self.ignored.len();
        require(count <= MAX_IGNORED, 13, || format!("{count} ignored paths; at most {MAX_IGNORED}"))?;
        self.ignored.iter().try_for_each(|path| {
            require(check_path(path).is_ok(), 13, || {
                format!("ignored path {:?} is not one inside a folder", shown(path))
            })
        })
    }
}

/// Whether `path` is one of `paths` or lies under one.
pub fn is_at_or_under(path: &str, paths: &[String]) -> bool {
    paths.iter().any(|p| path.strip_prefix(p.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The subject's digest: of all digests, in order.
fn root(files: &[(String, [u8; 32])]) -> [u8; 32] {
    files.iter().fold(Sha256::new(), |root, (_, digest)| root.chain_update(digest)).finalize().into()
}

fn shown(path: &str) -> String {
    path.chars().take(128).collect()
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Deserialize)]
struct SubjectDigest {
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    ignore_paths: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

impl Serialization {
    /// `[M-11]`
    fn hash(&self) -> Result<Hash> {
        require(self.method == "files", 11, || format!("method {:?}; only files as a whole", shown(&self.method)))?;
        match self.hash_type.as_str() {
            "sha256" => Ok(Hash::Sha256),
            "blake3" => Ok(Hash::Blake3),
            other => Err(refused(11, format!("digests by {:?}; expected sha256 or blake3", shown(other)))),
        }
    }
}

impl Resource {
    /// `[M-11]`
    fn check(self, hash: Hash) -> Result<(String, [u8; 32])> {
        let Self { name, algorithm, digest } = self;
        require(algorithm == hash.as_str(), 11, || {
            format!("{:?} has a digest by {:?}", shown(&name), shown(&algorithm))
        })?;
        let lower = digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let digest = if lower { unhex(&digest).and_then(|d| d.try_into().ok()) } else { None };
        let digest = digest.ok_or_else(|| refused(11, format!("{:?} has no digest of 64 hex digits", shown(&name))))?;
        Ok((name, digest))
    }
}
