//! What differs between two models: entries by their digests, tensors of safetensors entries value by value, and how
//! far each tensor's change is from what was to be expected (`score`).
//!
//! Both models are read side by side in windows of a few MiB; no tensor is ever held whole, and nothing but names and
//! statistics leaves. Headers of safetensors are held to the scanner's rules. Tensors are matched by name: by name alone
//! where each side has it once, else by file and name.
#![warn(clippy::indexing_slicing)]

pub mod score;
#[cfg(test)]
mod tests;
pub mod values;
mod walk;
mod window;

pub use window::Bytes;

use crate::Error;
use crate::scan::safetensors::SafetensorsError;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use values::{Change, Statistics};
use walk::{Tensors, Walk};

/// Most tensors of one side.
pub const MAX_TENSORS: usize = 100_000;

/// One entry of a model.
pub struct Entry<'a> {
    /// Relative path.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// BLAKE3 of the entry.
    pub blake3: [u8; 32],
    /// What the scanner says it is.
    pub format: String,
    /// Its bytes.
    pub bytes: Box<dyn Bytes + 'a>,
}

impl Entry<'_> {
    /// Whether its tensors are compared, or only its digest.
    fn has_tensors(&self) -> bool {
        self.format == "safetensors" || self.path.ends_with(".safetensors")
    }
}

/// What comparing gives.
pub type Result<T, E = CompareError> = std::result::Result<T, E>;

/// One of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The earlier one.
    A,
    /// The later one.
    B,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::A { "A" } else { "B" })
    }
}

/// Why two models cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// An entry could not be read, or is not authentic.
    #[error("{path}: {error}")]
    Read {
        /// Whose.
        side: Side,
        /// The entry.
        path: String,
        /// What failed.
        error: Error,
    },
    /// A safetensors header that breaks the rules.
    #[error("{path}: not a valid safetensors file: {error}")]
    Header {
        /// Whose.
        side: Side,
        /// The entry.
        path: String,
        /// What is wrong with it.
        error: SafetensorsError,
    },
    /// Over [`MAX_TENSORS`].
    #[error("more than {MAX_TENSORS} tensors")]
    TooMany {
        /// Whose.
        side: Side,
    },
    /// Entries of one digest whose tensors differ.
    #[error("{path}: the digests are equal and the tensors differ: one of them is not that of its file")]
    FalseDigest {
        /// The entry.
        path: String,
    },
}

/// What became of an entry or a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing.
    Same,
    /// Other bytes, of one type and shape.
    Changed,
    /// Only in B.
    Added,
    /// Only in A.
    Removed,
    /// Another element type.
    Type,
    /// Another shape, of one type.
    Shape,
}

impl Status {
    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Type => "type",
            Self::Shape => "shape",
        }
    }
}

/// An entry of either side.
#[derive(Debug, Clone)]
pub struct EntryChange {
    /// Its path in B, or in A if it was removed.
    pub path: String,
    /// What became of it.
    pub status: Status,
    /// Sizes in bytes.
    pub sizes: [Option<u64>; 2],
    /// BLAKE3 digests.
    pub digests: [Option<[u8; 32]>; 2],
    /// Its format, of B where it is there.
    pub format: String,
    /// Its tensors were compared; else its digest alone.
    pub by_tensors: bool,
}

/// A tensor of either side.
#[derive(Debug, Clone)]
pub struct TensorChange {
    /// Its name.
    pub name: String,
    /// What it was matched by, the same in every version.
    pub key: String,
    /// The entries it is in.
    pub entries: [Option<String>; 2],
    /// What became of it.
    pub status: Status,
    /// Element types.
    pub dtypes: [Option<String>; 2],
    /// Shapes.
    pub shapes: [Option<Vec<u64>>; 2],
    /// Statistics of each side.
    pub statistics: [Option<Statistics>; 2],
    /// What changed, if type and shape are the same.
    pub change: Option<Change>,
}

impl TensorChange {
    /// Norm of the difference over the norm of A; `None` where A's is 0, or there is no such number.
    pub fn relative(&self) -> Option<f64> {
        let [a, _] = &self.statistics;
        let (difference, norm) = (self.change?.norm?, a.as_ref()?.norm?);
        Some(difference / norm).filter(|x| x.is_finite())
    }
}

/// Two models compared. Tensors come in the order of B's bytes, then what is only in A.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// Entries, by path.
    pub entries: Vec<EntryChange>,
    /// Tensors; none when only digests were compared.
    pub tensors: Vec<TensorChange>,
}

/// How to compare.
#[derive(Clone, Copy)]
pub struct CompareOptions<'a> {
    /// Only the entries' digests: no value is read.
    pub digests_only: bool,
    /// Called with the number of bytes of tensors read since the last call.
    pub progress: &'a dyn Fn(u64),
}

/// Compares the entries `a` and `b`.
///
/// # Errors
/// When a side cannot be read, or has tensors that break the rules.
pub fn compare(a: &[Entry<'_>], b: &[Entry<'_>], options: CompareOptions<'_>) -> Result<Comparison> {
    let entries = entries(a, b, options.digests_only);
    if options.digests_only {
        return Ok(Comparison { entries, tensors: Vec::new() });
    }
    let (a, b) = (Tensors::of(a, Side::A)?, Tensors::of(b, Side::B)?);
    let doubled: HashSet<String> = a.doubled().chain(b.doubled()).collect();
    let (a, b) = (a.with_keys(&doubled), b.with_keys(&doubled));
    let tensors = Walk::new(&a, &b, options.progress).run()?;
    check_digests(&entries, &tensors)?;
    Ok(Comparison { entries, tensors })
}

/// Entries by path; one entry a side are each other's counterpart, whatever they are called.
fn entries(a: &[Entry<'_>], b: &[Entry<'_>], digests_only: bool) -> Vec<EntryChange> {
    let single = a.len() == 1 && b.len() == 1;
    let mut paths: BTreeMap<&str, [Option<&Entry<'_>>; 2]> = BTreeMap::new();
    for entry in b {
        paths.insert(&entry.path, [a.first().filter(|_| single), Some(entry)]);
    }
    for entry in a.iter().filter(|_| !single) {
        let [before, _] = paths.entry(&entry.path).or_default();
        *before = Some(entry);
    }
    let change = |(path, [a, b]): (&str, [Option<&Entry<'_>>; 2])| EntryChange {
        path: path.to_owned(),
        status: match (a, b) {
            (None, _) => Status::Added,
            (_, None) => Status::Removed,
            (Some(a), Some(b)) if a.blake3 == b.blake3 && a.size == b.size => Status::Same,
            _ => Status::Changed,
        },
        sizes: [a.map(|e| e.size), b.map(|e| e.size)],
        digests: [a.map(|e| e.blake3), b.map(|e| e.blake3)],
        format: b.or(a).map(|e| e.format.clone()).unwrap_or_default(),
        by_tensors: !digests_only && a.into_iter().chain(b).all(Entry::has_tensors),
    };
    paths.into_iter().map(change).collect()
}

/// A digest that says more than the bytes do is a sealer's lie: digests of a manifest are not computed here.
fn check_digests(entries: &[EntryChange], tensors: &[TensorChange]) -> Result<()> {
    let same = entries.iter().filter(|e| e.status == Status::Same && e.by_tensors);
    let same: HashSet<&str> = same.map(|e| e.path.as_str()).collect();
    let single = entries.len() == 1;
    let differs = tensors.iter().filter(|t| t.status != Status::Same).find_map(|t| {
        let [a, b] = &t.entries;
        let path = b.as_deref().or(a.as_deref())?;
        let one = a.is_some() && b.is_some() && (single || a == b);
        (one && same.contains(path)).then(|| path.to_owned())
    });
    differs.map_or(Ok(()), |path| Err(CompareError::FalseDigest { path }))
}

/// A tensor's name and the file it is in.
fn qualified(path: &str, name: &str) -> String {
    format!("{path}\0{name}")
}
