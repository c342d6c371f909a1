//! What the sealer says a model was made of: FORMAT.md section 7, `[F-48]`. Kept in the manifest's extensions, so sealed, authenticated and,
//! with the payload, signed. It is the sealer's word; datasets can be held against it.

use crate::cbor::{self, TextMap};
use crate::error::{Error, Result, refused, require};
use crate::manifest::{MAX_EXTENSION, check_paths};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use std::cmp::Ordering;
use std::collections::BTreeMap;

const SOURCE: &str = "mvault/source/v1";
const DATASET: &str = "mvault/dataset/v1/";
/// Most parts of a dataset.
const MAX_PARTS: usize = 16;
/// Most bytes of source and builder.
const MAX_URI: usize = 1024;

/// Where a model comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// What it was made from: `git+https://host/repository@commit`.
    pub source: Option<String>,
    /// Who ran it: a URI.
    pub builder: Option<String>,
    /// What it was trained on, in ascending order of their names.
    pub datasets: Vec<Dataset>,
}

/// A folder of training data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// In ascending byte order of their paths.
    pub files: Vec<DataFile>,
}

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DataFile {
    /// Relative path.
    #[n(0)]
    pub path: String,
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// BLAKE3 of it.
    #[n(2)]
    pub blake3: ByteArray<32>,
}

/// How a dataset differs from what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another size or digest.
    Changed(String),
    /// It is not there any more.
    Removed(String),
    /// It was not there.
    Added(String),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Source {
    #[n(0)]
    source: Option<String>,
    #[n(1)]
    builder: Option<String>,
}

impl Provenance {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Writes it into a manifest's extensions.
    pub fn write(&self, extensions: &mut TextMap<ByteVec>) -> Result<()> {
        self.check().map_err(|e| Error::Usage(e.to_string()))?;
        if self.source.is_some() || self.builder.is_some() {
            let source = Source { source: self.source.clone(), builder: self.builder.clone() };
            extensions.insert(SOURCE, cbor::encode(&source).into());
        }
        for dataset in &self.datasets {
            for (index, part) in dataset.parts()?.into_iter().enumerate() {
                extensions.insert(format!("{DATASET}{}/{index}", dataset.name), cbor::encode(&part).into());
            }
        }
        Ok(())
    }

    /// Reads it from a manifest's extensions `[F-48]`.
    pub fn read(extensions: &TextMap<ByteVec>) -> Result<Self> {
        let mut provenance = Self::default();
        if let Some(bytes) = extensions.get(SOURCE) {
            let source: Source = cbor::decode(bytes, SOURCE)?;
            (provenance.source, provenance.builder) = (source.source, source.builder);
        }
        let mut parts: BTreeMap<&str, BTreeMap<usize, &ByteVec>> = BTreeMap::new();
        for (key, bytes) in extensions.iter() {
            let Some(rest) = key.strip_prefix(DATASET) else { continue };
            let place = rest.split_once('/').and_then(|(name, part)| {
                let index: usize = part.parse().ok()?;
                (index.to_string() == part).then_some((name, index))
            });
            let (name, index) = place.ok_or_else(|| refused(48, format!("extension {key:?}: no NAME/K")))?;
            parts.entry(name).or_default().insert(index, bytes);
        }
        for (name, parts) in parts {
            let whole = parts.len() <= MAX_PARTS && parts.keys().copied().eq(0..parts.len());
            require(whole, 48, || format!("dataset {name:?}: its parts are not 0 to n, at most 16"))?;
            let mut files = Vec::new();
            for bytes in parts.values() {
                files.extend(cbor::decode::<Vec<DataFile>>(bytes, "dataset")?);
            }
            provenance.datasets.push(Dataset { name: name.to_owned(), files });
        }
        provenance.check()?;
        Ok(provenance)
    }

    fn check(&self) -> Result<()> {
        for uri in [&self.source, &self.builder].into_iter().flatten() {
            let good = (1..=MAX_URI).contains(&uri.len()) && !uri.contains(char::is_control);
            require(good, 48, || "source and builder: 1 to 1024 bytes without control characters".into())?;
        }
        for Dataset { name, files } in &self.datasets {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let good = (1..=64).contains(&name.len()) && name.chars().all(plain);
            require(good, 48, || "dataset: its name is 1 to 64 of A-Z a-z 0-9 . _ -".into())?;
            require(!files.is_empty(), 48, || format!("dataset {name:?}: no files"))?;
            check_paths(files.iter().map(|file| file.path.as_str()))?;
        }
        Ok(())
    }
}

impl Dataset {
    /// One digest of all of it: BLAKE3 of its files' canonical CBOR.
    pub fn digest(&self) -> [u8; 32] {
        blake3::hash(&cbor::encode(&self.files)).into()
    }

    /// Sum of the sizes, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// What changed, in the order of the paths.
    pub fn compare(&self, now: &[DataFile]) -> Vec<Change> {
        let (mut before, mut after, mut changes) = (self.files.iter().peekable(), now.iter().peekable(), Vec::new());
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return changes,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.path.cmp(&b.path),
            };
            let old = before.next_if(|_| order.is_le());
            let new = after.next_if(|_| order.is_ge());
            match (old, new) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(_)) => changes.push(Change::Changed(a.path.clone())),
                (Some(a), None) => changes.push(Change::Removed(a.path.clone())),
                (None, Some(b)) => changes.push(Change::Added(b.path.clone())),
                (None, None) => {}
            }
        }
    }

    /// Its files in parts that fit into extensions.
    fn parts(&self) -> Result<Vec<Vec<DataFile>>> {
        let mut parts: Vec<Vec<DataFile>> = vec![Vec::new()];
        let mut len = 0;
        for file in &self.files {
            // The array's own head has at most 5 bytes.
            let more = cbor::encode(file).len();
            if len + more + 5 > MAX_EXTENSION {
                parts.push(Vec::new());
                len = 0;
            }
            len += more;
            if let Some(part) = parts.last_mut() {
                part.push(file.clone());
            }
        }
        if parts.len() > MAX_PARTS {
            return Err(Error::Usage(format!(
                "dataset {:?}: {} files are too many to be recorded one by one (1 MiB of names and digests): pack them",
                self.name,
                self.files.len()
            )));
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is the report

    use super::*;

    fn file(path: &str, byte: u8) -> DataFile {
        DataFile { path: path.into(), size: 7, blake3: [byte; 32].into() }
    }

    fn written(provenance: &Provenance) -> TextMap<ByteVec> {
        let mut extensions = TextMap::default();
        provenance.write(&mut extensions).unwrap();
        extensions
    }

    fn some() -> Provenance {
        let files = (0..4000).map(|n| file(&format!("shard/{n:05}.parquet"), 1)).collect();
        let datasets = vec![
            Dataset { name: "big".into(), files },
            Dataset { name: "small".into(), files: vec![file("a", 1), file("b/c", 2)] },
        ];
        Provenance { source: Some("git+https://h/r@abc".into()), builder: None, datasets }
    }

    #[test]
    fn what_is_written_is_read_in_parts_too() {
        let extensions = written(&some());
        assert!(
            extensions.get("mvault/dataset/v1/big/3").is_some()
                && extensions.get("mvault/dataset/v1/small/1").is_none()
        );
        assert!(extensions.iter().all(|(_, bytes)| bytes.len() <= MAX_EXTENSION));
        assert_eq!(Provenance::read(&extensions).unwrap(), some());
        assert!(Provenance::read(&TextMap::default()).unwrap().is_empty());
    }

    /// `[F-48]`
    #[test]
    fn provenance_of_another_form_is_refused() {
        let refused = |change: &dyn Fn(&mut TextMap<ByteVec>)| {
            let mut extensions = written(&some());
            change(&mut extensions);
            assert!(Provenance::read(&extensions).is_err());
        };
        let part = |files: &[DataFile]| ByteVec::from(cbor::encode(&files.to_vec()));
        refused(&|e| e.insert("mvault/dataset/v1/small/2", part(&[file("z", 1)]))); // a gap
        refused(&|e| e.insert("mvault/dataset/v1/small/00", part(&[file("z", 1)])));
        refused(&|e| e.insert("mvault/dataset/v1/small", part(&[file("z", 1)])));
        refused(&|e| e.insert("mvault/dataset/v1/a b/0", part(&[file("z", 1)])));
        refused(&|e| e.insert("mvault/dataset/v1/none/0", part(&[])));
        refused(&|e| e.insert("mvault/dataset/v1/small/1", part(&[file("a", 1)]))); // out of order
        refused(&|e| e.insert("mvault/dataset/v1/up/0", part(&[file("../a", 1)])));
        refused(&|e| e.insert("mvault/dataset/v1/up/0", vec![0x80, 0].into()));
        refused(&|e| e.insert("mvault/source/v1", vec![0xA1, 0, 0x61, b'\n'].into()));
        refused(&|e| e.insert("mvault/source/v1", vec![0xA1, 2, 0x61, b'a'].into()));
        refused(&|e| {
            for k in 1..=MAX_PARTS {
                e.insert(format!("mvault/dataset/v1/small/{k}"), part(&[file(&format!("z{k:02}"), 1)]));
            }
        });
    }

    #[test]
    fn changed_removed_and_added_files_are_named() {
        let dataset = Dataset { name: "d".into(), files: vec![file("a", 1), file("b", 1), file("d", 1)] };
        let now = [file("a", 1), file("b", 2), file("c", 1)];
        let expected = [Change::Changed("b".into()), Change::Added("c".into()), Change::Removed("d".into())];
        assert_eq!(dataset.compare(&now), expected);
        assert!(dataset.compare(&dataset.files).is_empty());
        let other = Dataset { files: now.to_vec(), ..dataset.clone() };
        assert_ne!(dataset.digest(), other.digest());
    }

    #[test]
    fn datasets_of_too_many_files_are_not_cut() {
        let files = (0..30_000).map(|n| file(&format!("{n:06}"), 1)).collect();
        let provenance = Provenance { datasets: vec![Dataset { name: "d".into(), files }], ..Provenance::default() };
        let error = provenance.write(&mut TextMap::default()).unwrap_err().to_string();
        assert!(error.contains("30000 files are too many"), "{error}");
    }
}
