//! What the manifest will say of each entry, gathered in order: digests, scan verdicts. A verdict that
//! forbids sealing stops it here.

use super::SealOptions;
use super::source::Hashed;
use crate::digest::Joiner;
use crate::error::{Error, Result};
use crate::feed::{Feed, scan_whole};
use crate::layout::Layout;
use crate::manifest::{Entry, Manifest, ScanResult, Table};
use crate::scan::{Report, Verdict};
use sha2::{Digest, Sha256};

/// Entries pass one after another; only the current one has state.
pub(super) struct Entries<'a> {
    paths: Vec<String>,
    options: &'a SealOptions<'a>,
    joiner: Joiner,
    sha256: Option<Sha256>,
    feed: Option<Feed>,
    done: Vec<Done>,
}

struct Done {
    blake3: [u8; 32],
    sha256: Option<[u8; 32]>,
    scan: ScanResult,
}

impl<'a> Entries<'a> {
    pub(super) fn new(table: &Table, options: &'a SealOptions<'a>) -> Self {
        let paths = table.entries.iter().map(|e| e.path.clone()).collect();
        let sha256 = options.sha256.then(Sha256::new);
        Self { paths, options, joiner: Joiner::default(), sha256, feed: None, done: Vec::new() }
    }

    /// Takes in the next batch.
    pub(super) fn absorb(&mut self, hashed: Vec<Hashed>, plain: &[u8]) -> Result<()> {
        for piece in hashed {
            self.end_empty(piece.entry)?;
            let data = plain.get(piece.range).unwrap_or_default();
            self.joiner.push(piece.piece);
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(data);
            }
            if piece.report.is_none() {
                let path = self.paths.get(piece.entry).map_or("", String::as_str);
                self.feed.get_or_insert_with(|| Feed::start(path)).push(data);
            }
            if piece.last {
                self.end(piece.report)?;
            }
        }
        Ok(())
    }

    /// Entries of no bytes before `index` have no piece of their own.
    fn end_empty(&mut self, index: usize) -> Result<()> {
        while self.done.len() < index {
            self.end(None)?;
        }
        Ok(())
    }

    /// The current entry is complete.
    fn end(&mut self, report: Option<Report>) -> Result<()> {
        let path = self.paths.get(self.done.len()).cloned().unwrap_or_default();
        let report = match (report, self.feed.take()) {
            (Some(report), _) => Ok(report),
            (None, Some(feed)) => feed.finish(),
            (None, None) => scan_whole(&path, &[]),
        };
        let report = report.map_err(Error::io(format!("scan {path}")))?;
        self.judge(path, &report)?;
        let blake3 = std::mem::take(&mut self.joiner).finish();
        let sha256 = self.sha256.as_mut().map(|s| s.finalize_reset().into());
        self.done.push(Done { blake3, sha256, scan: ScanResult::from_report(&report) });
        Ok(())
    }

    fn judge(&self, path: String, report: &Report) -> Result<()> {
        let allowed = match report.verdict {
            Verdict::Safe | Verdict::NotAPickle => true,
            Verdict::Malformed => self.options.dangerous_allow_malformed,
            _ => self.options.dangerous_allow_unsafe_pickle,
        };
        if allowed {
            return Ok(());
        }
        let what = report.findings.first().map_or_else(String::new, |f| {
            let member = f.member.as_deref().map(|m| format!(" in {m}")).unwrap_or_default();
            format!("{} at byte {}{member}", f.what, f.offset)
        });
        Err(Error::Unsafe { path, verdict: report.verdict, what })
    }

    /// All entries are complete.
    pub(super) fn finish(&mut self, table: &Table, layout: &Layout) -> Result<Manifest> {
        self.end_empty(self.paths.len())?;
        let done = std::mem::take(&mut self.done);
        let entries = table.entries.iter().zip(done).enumerate().map(|(i, (row, done))| Entry {
            path: row.path.clone(),
            size: layout.size(i).unwrap_or_default(),
            offset: layout.offset(i),
            blake3: done.blake3.into(),
            sha256: done.sha256.map(Into::into),
            scan: done.scan,
        });
        let manifest = Manifest {
            name: self.options.name.clone(),
            model_version: self.options.model_version,
            layout: u64::from(self.options.folder),
            entries: entries.collect(),
            tool: self.options.tool.clone(),
            sealed_at: self.options.sealed_at,
            extensions: self.options.extensions.clone(),
        };
        manifest.check().map_err(|e| Error::Usage(format!("cannot be sealed: {e}")))?;
        Ok(manifest)
    }
}
