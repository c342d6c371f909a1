//! The payload plaintext as it is read: table block, entries, padding, batch by batch. Files are read at
//! offsets by all workers, a stream by one at a time.

use super::{BATCH, SourceEntry, lock};
use crate::digest::{Piece, hash_piece};
use crate::error::{Error, Result};
use crate::feed::scan_whole;
use crate::geometry::Chunking;
use crate::io::{Input, ReadAt, fill};
use crate::layout::{Layout, Part, encode_table};
use crate::manifest::Table;
use crate::scan::Report;
use std::io::Read;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A run of full chunks of plaintext (the last one of the entries may end in a part).
#[derive(Default)]
pub(super) struct Batch {
    pub(super) first_chunk: u64,
    pub(super) plain: Vec<u8>,
}

/// What a batch holds of an entry.
pub(super) struct Hashed {
    pub(super) entry: usize,
    /// Where in `Batch::plain`.
    pub(super) range: Range<usize>,
    pub(super) piece: Piece,
    /// The scan of an entry that is in this batch as a whole.
    pub(super) report: Option<Report>,
    /// The piece ends the entry.
    pub(super) last: bool,
}

pub(super) struct Source<'a> {
    chunking: Chunking,
    batch_len: usize,
    layout: Layout,
    table_block: Vec<u8>,
    paths: Vec<String>,
    /// Full batches of known plaintext, or `None` for a stream.
    batches: Option<u64>,
    next: AtomicU64,
    files: Vec<Option<(&'a dyn ReadAt, u64)>>,
    stream: Option<Mutex<Stream<'a>>>,
}

struct Stream<'a> {
    input: &'a mut (dyn Read + Send),
    /// Plaintext read so far, table block included.
    position: u64,
    batches: u64,
    left_over: Option<Batch>,
}

impl<'a> Source<'a> {
    pub(super) fn new(entries: Vec<SourceEntry<'a>>, table: &Table, chunking: Chunking) -> Result<Self> {
        let layout = Layout::of(table)?;
        let batch_len = BATCH.max(chunking.plain());
        let (mut files, mut stream, mut paths) = (Vec::new(), None, Vec::new());
        for entry in entries {
            paths.push(entry.path);
            match entry.input {
                Input::At { file, offset, .. } => files.push(Some((file, offset))),
                Input::Stream(input) => {
                    files.push(None);
                    stream = Some(Mutex::new(Stream { input, position: 0, batches: 0, left_over: None }));
                }
            }
        }
        let batches = layout.manifest_offset().map(|end| end / batch_len as u64);
        let table_block = encode_table(table)?;
        Ok(Self { chunking, batch_len, layout, table_block, paths, batches, next: AtomicU64::new(0), files, stream })
    }

    /// Bytes of plaintext of a batch.
    pub(super) fn batch_len(&self) -> usize {
        self.batch_len
    }

    pub(super) fn chunking(&self) -> Chunking {
        self.chunking
    }

    /// The next batch and its ticket; `None` when no full batch is left.
    pub(super) fn claim(&self, batch: &mut Batch) -> Option<(u64, Result<()>)> {
        let per_batch = (self.batch_len / self.chunking.plain()) as u64;
        if let Some(stream) = &self.stream {
            let mut stream = lock(stream);
            if stream.left_over.is_some() {
                return None;
            }
            let ticket = stream.batches;
            batch.first_chunk = ticket * per_batch;
            let read = self.read_stream(&mut stream, batch);
            if matches!(read, Ok(false)) {
                return None;
            }
            stream.batches += 1;
            return Some((ticket, read.map(|_| ())));
        }
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        if ticket >= self.batches.unwrap_or_default() {
            return None;
        }
        batch.first_chunk = ticket * per_batch;
        let start = ticket * self.batch_len as u64;
        Some((ticket, self.read_files(start..start + self.batch_len as u64, &mut batch.plain)))
    }

    /// Full batches that can be read another time; `None` of a stream.
    pub(super) fn batches(&self) -> Option<u64> {
        self.batches.filter(|_| self.stream.is_none())
    }

    /// What follows the last full batch, up to the end of the last entry. Call it when no worker is left.
    pub(super) fn rest(&self, batch: &mut Batch) -> Result<()> {
        if let Some(stream) = &self.stream {
            *batch = lock(stream).left_over.take().unwrap_or_default();
            return Ok(());
        }
        let batches = self.batches.unwrap_or_default();
        batch.first_chunk = batches * (self.batch_len / self.chunking.plain()) as u64;
        let end = self.layout.manifest_offset().unwrap_or_default();
        self.read_files(batches * self.batch_len as u64..end, &mut batch.plain)
    }

    /// How long the stream was, once it has ended.
    pub(super) fn stream_size(&self) -> Option<u64> {
        self.stream.as_ref().map(|s| lock(s).position - self.layout.table_block())
    }

    /// Fills a batch from the stream; false if it ended first, and then keeps what there was.
    fn read_stream(&self, stream: &mut Stream<'_>, batch: &mut Batch) -> Result<bool> {
        batch.plain.resize(self.batch_len, 0);
        let mut filled = 0;
        if let Ok(at) = usize::try_from(stream.position)
            && let Some(block) = self.table_block.get(at..).filter(|b| !b.is_empty())
        {
            filled = block.len().min(self.batch_len);
            copy(&mut batch.plain, 0, block.get(..filled).unwrap_or_default());
        }
        let space = batch.plain.get_mut(filled..).unwrap_or_default();
        filled += fill(stream.input, space).map_err(Error::io("read the input"))?;
        stream.position += filled as u64;
        if filled == self.batch_len {
            return Ok(true);
        }
        batch.plain.truncate(filled);
        stream.left_over = Some(std::mem::take(batch));
        Ok(false)
    }

    /// Plaintext of a range.
    pub(super) fn read_files(&self, range: Range<u64>, plain: &mut Vec<u8>) -> Result<()> {
        plain.resize(usize::try_from(range.end - range.start).unwrap_or_default(), 0);
        for (part, at) in self.layout.parts(range.clone()) {
            let into = within(&at, range.start);
            let Some(into) = plain.get_mut(into) else { continue };
            match part {
                Part::Table => {
                    let block = self.table_block.get(within(&at, 0)).unwrap_or_default();
                    into.copy_from_slice(block);
                }
                Part::Entry { index, at } => self.read_entry(index, at, into)?,
                Part::Padding | Part::Tail => into.fill(0),
            }
        }
        Ok(())
    }

    fn read_entry(&self, index: usize, at: u64, into: &mut [u8]) -> Result<()> {
        let Some((file, offset)) = self.files.get(index).copied().flatten() else { return Ok(()) };
        let path = || self.paths.get(index).cloned().unwrap_or_default();
        file.read_exact_at(into, offset + at).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::SourceChanged { path: path(), what: "it is shorter than when sealing began".into() }
            }
            _ => Error::Io { context: format!("read {}", path()), source },
        })
    }

    /// Hashes what the batch holds of each entry, and scans entries that are in it as a whole. `ended` says
    /// that nothing of a stream follows the batch.
    pub(super) fn hash(&self, batch: &Batch, ended: bool) -> Result<Vec<Hashed>> {
        let start = batch.first_chunk * self.chunking.plain() as u64;
        let mut hashed = Vec::new();
        for (part, range) in self.layout.parts(start..start + batch.plain.len() as u64) {
            let Part::Entry { index, at } = part else { continue };
            let ends = at + (range.end - range.start);
            let range = within(&range, start);
            let data = batch.plain.get(range.clone()).unwrap_or_default();
            let size = self.layout.size(index).or(ended.then_some(ends));
            let (last, whole) = (size == Some(ends), at == 0 && size == Some(ends));
            let path = self.paths.get(index).map_or("", String::as_str);
            let report = whole.then(|| scan_whole(path, data)).transpose().map_err(Error::io("scan"))?;
            hashed.push(Hashed { entry: index, range, piece: hash_piece(at, data, whole), report, last });
        }
        Ok(hashed)
    }
}

fn within(range: &Range<u64>, start: u64) -> Range<usize> {
    let to = |x: u64| usize::try_from(x.saturating_sub(start)).unwrap_or(usize::MAX);
    to(range.start)..to(range.end)
}

fn copy(into: &mut [u8], at: usize, from: &[u8]) {
    if let Some(space) = into.get_mut(at..at + from.len()) {
        space.copy_from_slice(from);
    }
}
