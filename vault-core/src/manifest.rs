//! Table and manifest: FORMAT.md section 7. Types, their limits, and the rules for paths, which hold when
//! writing and when reading.

use crate::cbor::{self, Nullable, TextMap};
use crate::error::{Result, refused, require};
use crate::scan::{Format, Report, Verdict};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use std::collections::HashSet;

/// Most entries in an artifact `[F-30]`.
pub const MAX_ENTRIES: usize = 16_384;
/// Most bytes of a path `[F-34]`.
pub const MAX_PATH: usize = 1024;
/// Most bytes of a path component and of short texts `[F-34]`.
pub const MAX_TEXT: usize = 255;
/// Most labels and extensions `[F-34]`.
pub const MAX_LABELS: usize = 64;
/// Most bytes of an extension `[F-34]`.
pub const MAX_EXTENSION: usize = 65_536;
/// Most findings of an entry `[F-34]`.
pub const MAX_FINDINGS: usize = 16;

/// The table in front: what a streaming reader needs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Table {
    /// Entries in ascending byte order of their paths.
    #[cbor(n(0), decode_with = "cbor::entries")]
    pub entries: Vec<TableEntry>,
    /// The manifest has the SHA-256 of every entry.
    #[n(1)]
    pub sha256: bool,
}

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TableEntry {
    /// Relative path.
    #[n(0)]
    pub path: String,
    /// Size in bytes; null for what came from a pipe.
    #[n(1)]
    pub size: Nullable<u64>,
}

impl Table {
    /// Decodes and checks `[F-29]` to `[F-34]`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let table: Self = cbor::decode(bytes, "table")?;
        table.check()?;
        Ok(table)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let count = self.entries.len();
        require((1..=MAX_ENTRIES).contains(&count), 30, || format!("{count} entries; expected 1 to 16384"))?;
        let unknown = self.entries.iter().any(|e| e.size.0.is_none());
        require(!unknown || count == 1, 29, || "an entry of unknown size is not the only one".into())?;
        check_paths(self.entries.iter().map(|e| e.path.as_str()))
    }
}

/// The manifest at the end: what was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// The model's name, one path component.
    #[n(0)]
    pub name: String,
    /// The model's version.
    #[n(1)]
    pub model_version: u64,
    /// 0 one file, 1 a folder.
    #[n(2)]
    pub layout: u64,
    /// Entries in the table's order.
    #[cbor(n(3), decode_with = "cbor::entries")]
    pub entries: Vec<Entry>,
    /// The tool that sealed.
    #[n(4)]
    pub tool: String,
    /// Seconds since 1970 by the sealer's clock.
    #[n(5)]
    pub sealed_at: Option<u64>,
    /// Extensions.
    #[n(6)]
    pub extensions: TextMap<ByteVec>,
}

/// One entry of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// Relative path.
    #[n(0)]
    pub path: String,
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// First byte in the payload plaintext.
    #[n(2)]
    pub offset: u64,
    /// BLAKE3 of the entry.
    #[n(3)]
    pub blake3: ByteArray<32>,
    /// SHA-256 of the entry, if it was asked for.
    #[n(4)]
    pub sha256: Option<ByteArray<32>>,
    /// The scanner's verdict at seal time.
    #[n(5)]
    pub scan: ScanResult,
}

/// What the sealer's scanner said.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ScanResult {
    /// The format it found.
    #[n(0)]
    pub format: String,
    /// Verdict number of FORMAT.md section 7.
    #[n(1)]
    pub verdict: u64,
    /// Findings, at most 16.
    #[cbor(n(2), decode_with = "cbor::findings")]
    pub findings: Vec<Finding>,
    /// How many more there were.
    #[n(3)]
    pub more: u64,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Finding {
    /// The member of an archive it is in.
    #[n(0)]
    pub member: Option<String>,
    /// What was found.
    #[n(1)]
    pub what: String,
    /// Byte offset in the file or member.
    #[n(2)]
    pub offset: u64,
}

const VERDICTS: [Verdict; 5] =
    [Verdict::Safe, Verdict::Dangerous, Verdict::NotScanned, Verdict::NotAPickle, Verdict::Malformed];

impl ScanResult {
    /// From the scanner's report, within the manifest's limits.
    pub fn from_report(report: &Report) -> Self {
        let verdict = VERDICTS.iter().position(|v| *v == report.verdict).unwrap_or(2) as u64;
        let kept = report.findings.iter().take(MAX_FINDINGS);
        let findings: Vec<_> = kept
            .map(|f| Finding {
                member: f.member.as_deref().map(|m| clip(m, MAX_PATH)),
                what: clip(&f.what, MAX_TEXT),
                offset: f.offset,
            })
            .collect();
        let more = report.more + (report.findings.len() - findings.len()) as u64;
        Self { format: report.format.as_str().into(), verdict, findings, more }
    }

    /// The verdict.
    pub fn verdict(&self) -> Option<Verdict> {
        VERDICTS.get(usize::try_from(self.verdict).ok()?).copied()
    }

    /// The format, if this version knows it.
    pub fn format(&self) -> Option<Format> {
        self.format.parse().ok()
    }
}

fn clip(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

impl Manifest {
    /// Decodes and checks everything that does not need the table `[F-31]` to `[F-34]`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = cbor::decode(bytes, "manifest")?;
        manifest.check()?;
        Ok(manifest)
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        let count = self.entries.len();
        require((1..=MAX_ENTRIES).contains(&count), 30, || format!("{count} entries; expected 1 to 16384"))?;
        check_paths(self.entries.iter().map(|e| e.path.as_str()))?;
        let single = count == 1 && !self.entries.iter().any(|e| e.path.contains('/'));
        require(self.layout == 1 || (self.layout == 0 && single), 32, || {
            format!("layout {} with {count} entries", self.layout)
        })?;
        check_text("tool", &self.tool, MAX_TEXT)?;
        let extensions = self.extensions.0.len();
        require(extensions <= MAX_LABELS, 34, || format!("{extensions} extensions; the limit is 64"))?;
        for (key, value) in self.extensions.iter() {
            check_text("extension", key, MAX_TEXT)?;
            require(value.len() <= MAX_EXTENSION, 34, || format!("extension {key:?} is over 65536 bytes"))?;
        }
        self.entries.iter().try_for_each(Entry::check)
    }

    /// The entry at `path`.
    pub fn entry(&self, path: &str) -> Option<(usize, &Entry)> {
        let index = self.entries.binary_search_by(|e| e.path.as_str().cmp(path)).ok()?;
        Some((index, self.entries.get(index)?))
    }
}

impl Entry {
    fn check(&self) -> Result<()> {
        let scan = &self.scan;
        require(scan.verdict().is_some(), 34, || format!("{}: unknown verdict {}", self.path, scan.verdict))?;
        check_text("format", &scan.format, MAX_TEXT)?;
        require(scan.findings.len() <= MAX_FINDINGS, 34, || format!("{}: over 16 findings", self.path))?;
        scan.findings.iter().try_for_each(|f| {
            check_text("finding", &f.what, MAX_TEXT)?;
            f.member.as_deref().map_or(Ok(()), |m| check_text("member", m, MAX_PATH))
        })
    }
}

pub(crate) fn check_text(what: &str, text: &str, max: usize) -> Result<()> {
    require(text.len() <= max, 34, || format!("{what} of {} bytes; the limit is {max}", text.len()))
}

/// A model's name is one path component.
pub(crate) fn check_name(name: &str) -> Result<()> {
    check_text("name", name, MAX_TEXT)?; // before a message quotes it
    require(!name.contains('/'), 34, || format!("name {name:?} contains '/'"))?;
    check_path(name).map_err(|_| refused(34, format!("name {name:?} is not a plain name of 1 to 255 bytes")))
}

/// One path `[F-32]` `[F-34]`.
pub fn check_path(path: &str) -> Result<()> {
    let bad = |why: &str| refused(32, format!("path {path:?}: {why}"));
    require((1..=MAX_PATH).contains(&path.len()), 34, || format!("path of {} bytes", path.len()))?;
    if path.bytes().any(|b| b < 0x20 || b == 0x7F || b == b'\\') {
        return Err(bad("control characters and backslashes are not allowed"));
    }
    path.split('/').try_for_each(|component| match component {
        "" => Err(bad("absolute, or with an empty component")),
        "." | ".." => Err(bad("it must not leave its folder")),
        c if c.len() > MAX_TEXT => Err(bad("a component is longer than 255 bytes")),
        _ => Ok(()),
    })
}

/// All paths together `[F-32]` `[F-33]`.
pub(crate) fn check_paths<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
    let mut before: Option<&str> = None;
    let mut files = HashSet::new();
    for path in paths.clone() {
        check_path(path)?;
        require(before.is_none_or(|b| b < path), 33, || format!("path {path:?} is not in ascending order"))?;
        before = Some(path);
        let fresh = files.insert(path.to_lowercase());
        require(fresh, 33, || format!("path {path:?} equals another one but for upper and lower case"))?;
    }
    for path in paths {
        let lower = path.to_lowercase();
        let inside = lower.match_indices('/').any(|(at, _)| lower.get(..at).is_some_and(|p| files.contains(p)));
        require(!inside, 33, || format!("path {path:?} lies inside another entry"))?;
    }
    Ok(())
}
