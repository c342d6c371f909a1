//! What verified plaintext must look like, part by part in order: table, entries with their digests, padding,
//! manifest, trailer. Releases entry bytes and compares everything with the manifest at the end.

use super::{EntrySink, OrderedSink};
use crate::digest::{Joiner, Piece, hash_piece};
use crate::error::{Error, Result, refused, require};
use crate::layout::{
    HOLD_BACK, Layout, MAX_MANIFEST, Part, TRAILER_LEN, check_agreement, check_padding, encode_table, parse_trailer,
};
use crate::manifest::{Manifest, Table};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::ops::Range;

/// What is known before the pass. Shared by the workers.
pub(super) struct Plan<'a> {
    table: Table,
    table_block: Vec<u8>,
    layout: Layout,
    files: Option<&'a dyn EntrySink>,
}

/// Hashes of the entry parts of a batch, in order.
pub(super) type Pieces = Vec<Piece>;

impl<'a> Plan<'a> {
    pub(super) fn new(table: Table, known_size: Option<u64>, files: Option<&'a dyn EntrySink>) -> Result<Self> {
        let table_block = encode_table(&table)?;
        let mut layout = Layout::of(&table)?;
        if let Some(size) = known_size {
            layout.set_size(size)?;
        }
        if let Some(files) = files {
            files.begin(&rows(&table, &layout)).map_err(Error::io("create the output"))?;
        }
        Ok(Self { table, table_block, layout, files })
    }

    fn rows(&self) -> Vec<(String, Option<u64>)> {
        rows(&self.table, &self.layout)
    }

    /// True if the only entry's size will be known at the end.
    fn is_open_ended(&self) -> bool {
        self.layout.manifest_offset().is_none()
    }

    /// Whether the judge needs the entries' bytes, and not only their hashes.
    pub(super) fn needs_order(&self) -> bool {
        self.is_open_ended() || self.table.sha256
    }

    /// Hashes what a batch holds of each entry; needs no order.
    pub(super) fn hash(&self, start: u64, plain: &[u8]) -> Pieces {
        let mut pieces = Vec::new();
        if self.is_open_ended() {
            return pieces;
        }
        for (part, range) in self.layout.parts(start..start + plain.len() as u64) {
            let Part::Entry { index, at } = part else { continue };
            let data = slice(plain, &range, start);
            let whole = at == 0 && self.layout.size(index) == Some(data.len() as u64);
            pieces.push(hash_piece(at, data, whole));
        }
        pieces
    }

    /// Compares table and padding in a batch, for a judge that will not see them.
    pub(super) fn check_filling(&self, start: u64, plain: &[u8]) -> Result<()> {
        for (part, range) in self.layout.parts(start..start + plain.len() as u64) {
            self.check_part(part, &range, slice(plain, &range, start))?;
        }
        Ok(())
    }

    /// `[F-28]`
    fn check_part(&self, part: Part, range: &Range<u64>, data: &[u8]) -> Result<()> {
        match part {
            Part::Table => require(data == slice(&self.table_block, range, 0), 28, || {
                "the table changed, or its padding is not zero".into()
            }),
            Part::Padding => check_padding(data),
            Part::Entry { .. } | Part::Tail => Ok(()),
        }
    }

    /// Writes what a batch holds of each entry.
    pub(super) fn write_out(&self, start: u64, plain: &[u8]) -> Result<()> {
        if self.is_open_ended() {
            return Ok(());
        }
        for (part, range) in self.layout.parts(start..start + plain.len() as u64) {
            let Part::Entry { index, at } = part else { continue };
            self.write(index, at, slice(plain, &range, start))?;
        }
        Ok(())
    }

    /// The first entry at `start` or after it.
    pub(super) fn entry_at(&self, start: u64) -> usize {
        self.layout.index(start)
    }

    /// What the judge needs of a batch if it does not need the entries: manifest and trailer.
    pub(super) fn tail_of(&self, start: u64, plain: &[u8]) -> Plain<'static> {
        let range = start..start + plain.len() as u64;
        let from = self.layout.manifest_offset().unwrap_or_default().clamp(range.start, range.end);
        let bytes = slice(plain, &(from..range.end), start).to_vec().into();
        Plain { range, from, bytes }
    }

    fn write(&self, index: usize, at: u64, data: &[u8]) -> Result<()> {
        let Some(files) = self.files else { return Ok(()) };
        files.write_at(index, at, data).map_err(Error::io("write the output"))
    }
}

/// Verified plaintext of a batch, or the end of it.
pub(super) struct Plain<'b> {
    /// Where the batch lies.
    pub(super) range: Range<u64>,
    /// Where `bytes` start.
    from: u64,
    bytes: Cow<'b, [u8]>,
}

impl<'b> Plain<'b> {
    pub(super) fn all(start: u64, plain: &'b [u8]) -> Self {
        Self { range: start..start + plain.len() as u64, from: start, bytes: plain.into() }
    }

    fn at(&self, range: &Range<u64>) -> Option<&[u8]> {
        (range.start >= self.from).then(|| slice(&self.bytes, range, self.from))
    }
}

/// The part that needs order.
pub(super) struct Judge<'p, 's> {
    plan: &'p Plan<'p>,
    ordered: Option<&'s mut (dyn OrderedSink + 's)>,
    entry: usize,
    joiner: Joiner,
    sha256: Option<Sha256>,
    digests: Vec<([u8; 32], Option<[u8; 32]>)>,
    /// Plaintext seen so far.
    position: u64,
    /// Manifest and trailer; and, where the entry is open-ended, what is held back.
    tail: Vec<u8>,
    open_ended: OpenEnded,
}

/// The one entry whose size is not known until the end.
#[derive(Default)]
struct OpenEnded {
    hasher: blake3::Hasher,
    delivered: u64,
}

impl<'p, 's> Judge<'p, 's> {
    pub(super) fn new(plan: &'p Plan<'p>, mut ordered: Option<&'s mut (dyn OrderedSink + 's)>) -> Result<Self> {
        if let Some(ordered) = &mut ordered {
            ordered.begin(&plan.rows()).map_err(Error::io("write the output"))?;
        }
        Ok(Self {
            plan,
            ordered,
            entry: 0,
            joiner: Joiner::default(),
            sha256: plan.table.sha256.then(Sha256::new),
            digests: Vec::new(),
            position: 0,
            tail: Vec::new(),
            open_ended: OpenEnded::default(),
        })
    }

    /// The next verified plaintext.
    pub(super) fn accept(&mut self, plain: &Plain<'_>, pieces: Pieces) -> Result<()> {
        let known = self.plan;
        let mut pieces = pieces.into_iter();
        self.position = plain.range.end;
        for (part, range) in known.layout.parts(plain.range.clone()) {
            if let Part::Entry { index, .. } = part
                && !known.is_open_ended()
            {
                self.end_entries(index);
                if let Some(piece) = pieces.next() {
                    self.joiner.push(piece);
                }
            }
            let Some(data) = plain.at(&range) else { continue };
            match part {
                Part::Table | Part::Padding => known.check_part(part, &range, data)?,
                Part::Entry { .. } if known.is_open_ended() => self.hold(data)?,
                Part::Entry { index, at } => self.release(index, at, data)?,
                Part::Tail => {
                    let room = MAX_MANIFEST + TRAILER_LEN - self.tail.len() as u64;
                    require(data.len() as u64 <= room, 27, || "the manifest is larger than 8 MiB".into())?;
                    self.tail.extend_from_slice(data);
                }
            }
        }
        Ok(())
    }

    /// Every chunk was verified: the manifest decides, and `check`, which sees it before the last bytes of an
    /// open-ended entry are delivered.
    pub(super) fn finish(mut self, check: impl FnOnce(&Manifest) -> Result<()>) -> Result<Manifest> {
        let plan = self.plan;
        let trailer =
            self.tail.last_chunk::<16>().ok_or_else(|| refused(27, "the payload ends before its manifest"))?;
        let unsized_entry = plan.table.entries.iter().any(|e| e.size.0.is_none());
        let len = parse_trailer(trailer, self.position, unsized_entry)?;
        let end = self.tail.len() - trailer.len();
        let begin = end.checked_sub(usize::try_from(len).unwrap_or(usize::MAX));
        let begin = begin.ok_or_else(|| refused(27, "the manifest is longer than what follows the entries"))?;
        let manifest = Manifest::decode(self.tail.get(begin..end).unwrap_or_default())?;
        let mut layout = plan.layout.clone();
        let mut held = Vec::new();
        if plan.is_open_ended() {
            let size = manifest.entries.first().map_or(0, |e| e.size);
            layout.set_size(size)?;
            held = self.take_held(begin, size)?;
        }
        let expected = self.position - TRAILER_LEN - len;
        require(layout.manifest_offset() == Some(expected), 29, || "the manifest is not where it should be".into())?;
        check_agreement(&plan.table, &layout, &manifest)?;
        self.end_entries(manifest.entries.len());
        self.check_digests(&manifest)?;
        check(&manifest)?;
        if plan.is_open_ended() {
            self.deliver_open_ended(&held)?;
        }
        if let Some(ordered) = self.ordered {
            ordered.end().map_err(Error::io("write the output"))?;
        }
        Ok(manifest)
    }

    /// Entries before `index` are complete; some may have been empty.
    fn end_entries(&mut self, index: usize) {
        while self.entry < index {
            let blake3 = std::mem::take(&mut self.joiner).finish();
            let sha256 = self.sha256.as_mut().map(|s| s.finalize_reset().into());
            self.digests.push((blake3, sha256));
            self.entry += 1;
        }
    }

    /// `[F-37]`
    fn check_digests(&mut self, manifest: &Manifest) -> Result<()> {
        if self.plan.is_open_ended() {
            let blake3 = self.open_ended.hasher.finalize().into();
            if let Some(first) = self.digests.first_mut() {
                first.0 = blake3;
            }
        }
        for (entry, (blake3, sha256)) in manifest.entries.iter().zip(&self.digests) {
            let same = *entry.blake3 == *blake3 && entry.sha256.as_deref() == sha256.as_ref();
            require(same, 37, || format!("{}: its digest is not the manifest's", entry.path))?;
        }
        Ok(())
    }

    fn release(&mut self, index: usize, at: u64, data: &[u8]) -> Result<()> {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        ordered.write(index, at, data).map_err(Error::io("write the output"))
    }

    /// Bytes of the open-ended entry, or of what follows it: all but the last [`HOLD_BACK`] are the entry's.
    fn hold(&mut self, data: &[u8]) -> Result<()> {
        self.tail.extend_from_slice(data);
        let keep = usize::try_from(HOLD_BACK).unwrap_or(usize::MAX);
        let sure = self.tail.len().saturating_sub(keep);
        let rest = self.tail.split_off(sure);
        let now = std::mem::replace(&mut self.tail, rest);
        self.digest_open_ended(&now);
        self.deliver_open_ended(&now)
    }

    fn digest_open_ended(&mut self, data: &[u8]) {
        self.open_ended.hasher.update(data);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
    }

    fn deliver_open_ended(&mut self, data: &[u8]) -> Result<()> {
        let at = self.open_ended.delivered;
        self.open_ended.delivered += data.len() as u64;
        self.plan.write(0, at, data)?;
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        ordered.write(0, at, data).map_err(Error::io("write the output"))
    }

    /// The end of the open-ended entry, now that its size is known; `begin` is where the manifest starts in
    /// what was held back. It is delivered when everything is verified.
    fn take_held(&mut self, begin: usize, size: u64) -> Result<Vec<u8>> {
        let mut held = std::mem::take(&mut self.tail);
        held.truncate(begin);
        let rest = size.checked_sub(self.open_ended.delivered).and_then(|n| usize::try_from(n).ok());
        let rest = rest.filter(|n| *n <= held.len());
        let rest = rest.ok_or_else(|| refused(29, "the entry's size does not fit the payload"))?;
        check_padding(held.get(rest..).unwrap_or_default())?;
        held.truncate(rest);
        self.digest_open_ended(&held);
        Ok(held)
    }
}

/// Paths and sizes, for whoever takes the entries.
fn rows(table: &Table, layout: &Layout) -> Vec<(String, Option<u64>)> {
    table.entries.iter().enumerate().map(|(i, e)| (e.path.clone(), layout.size(i))).collect()
}

fn slice<'p>(plain: &'p [u8], range: &Range<u64>, start: u64) -> &'p [u8] {
    let to = |x: u64| usize::try_from(x - start).unwrap_or(usize::MAX);
    plain.get(to(range.start)..to(range.end)).unwrap_or_default()
}
