//! Reading parts: the manifest from the end, one entry, a byte range, one tensor. Only the chunks that are
//! needed are read; each is verified before a byte of it is given out `[F-25]`.

use crate::aead::{Engine, TAG_LEN};
use crate::chunk::ChunkCipher;
use crate::error::{Error, Result, Rule, refused, require};
use crate::geometry::{Chunking, Payload};
use crate::header::AuthenticatedHeader;
use crate::io::ReadAt;
use crate::layout::{Layout, TRAILER_LEN, check_agreement, parse_trailer};
use crate::manifest::{Entry, Manifest, Table};
use std::ops::Range;

/// A payload that can be read at any offset.
pub(super) struct PayloadAt<'a> {
    pub(super) file: &'a dyn ReadAt,
    pub(super) offset: u64,
    pub(super) payload: Payload,
    pub(super) chunking: Chunking,
}

impl PayloadAt<'_> {
    /// Fills `out` with payload plaintext from byte `from`.
    pub(super) fn read(&self, cipher: &mut ChunkCipher<'_>, out: &mut [u8], from: u64) -> Result<()> {
        let mut done = 0;
        self.run(cipher, from, out.len() as u64, &mut |plain| {
            if let Some(into) = out.get_mut(done..done + plain.len()) {
                into.copy_from_slice(plain);
            }
            done += plain.len();
            Ok(())
        })
    }

    /// Calls `release` with the verified plaintext from byte `from` on, in order, at most a chunk at a time. The
    /// chunks it lies in are one run of the source.
    fn run(
        &self,
        cipher: &mut ChunkCipher<'_>,
        from: u64,
        len: u64,
        release: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let end = from.checked_add(len).filter(|e| *e <= self.payload.plain_len);
        let end = end.ok_or_else(|| refused(27, "a length in the payload points past its end"))?;
        if len == 0 {
            return Ok(());
        }
        let (first, skip) = self.chunking.locate(from);
        let last = self.chunking.locate(end - 1).0;
        let mut run = Run { payload: self, cipher, release, index: first, skip, left: len, buffer: Vec::new() };
        while run.index <= last {
            let start = self.chunking.sealed_offset(run.index);
            let sealed_end = self.chunking.sealed_offset(last + 1).min(self.payload.sealed_len);
            let mut failure = None;
            let read = self.file.read_run(self.offset + start, sealed_end - start, &mut |data| {
                run.take(data).map_err(|e| {
                    failure = Some(e);
                    std::io::Error::other("stopped")
                })
            });
            match (failure, read) {
                (Some(e), _) if e.rule() == Some(Rule(25)) => run.once_more(e)?,
                (Some(e), _) => return Err(e),
                (None, read) => read.map_err(reading())?,
            }
        }
        require(run.left == 0, 27, || "the payload ends inside an entry".into())
    }
}

/// A run of chunks on its way.
struct Run<'r, 'p, 'c> {
    payload: &'r PayloadAt<'p>,
    cipher: &'r mut ChunkCipher<'c>,
    release: &'r mut dyn FnMut(&[u8]) -> Result<()>,
    /// The chunk that `buffer` is the front of.
    index: u64,
    /// Plaintext bytes of it that are not wanted.
    skip: usize,
    left: u64,
    buffer: Vec<u8>,
}

impl Run<'_, '_, '_> {
    /// Bytes that chunk `index` has in the payload.
    fn chunk_len(&self) -> usize {
        let start = self.payload.chunking.sealed_offset(self.index);
        let len = (self.payload.chunking.sealed() as u64).min(self.payload.payload.sealed_len.saturating_sub(start));
        usize::try_from(len).unwrap_or_default()
    }

    fn take(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let missing = self.chunk_len() - self.buffer.len();
            require(missing > 0, 27, || "more came than the payload has".into())?;
            let (now, later) = data.split_at(missing.min(data.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() == self.chunk_len() {
                self.pass()?;
            }
        }
        Ok(())
    }

    /// The chunk in the buffer is whole: verifies and releases it.
    fn pass(&mut self) -> Result<()> {
        let mut plain = vec![0; self.buffer.len().saturating_sub(TAG_LEN)];
        let index = self.index;
        let opened = self.cipher.open(index, &self.buffer, &mut plain);
        opened.map_err(|_| refused(25, format!("chunk {index} of the payload was changed, moved or cut")))?;
        let have = plain.get(self.skip..).unwrap_or_default();
        let n = have.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        require(n > 0, 27, || "a chunk is shorter than its place allows".into())?;
        (self.release)(have.get(..n).unwrap_or_default())?;
        self.left -= n as u64;
        (self.skip, self.index) = (0, index + 1);
        self.buffer.clear();
        Ok(())
    }

    /// The chunk did not verify: if it can be fetched anew, once more.
    fn once_more(&mut self, error: Error) -> Result<()> {
        let PayloadAt { file, offset, chunking, .. } = self.payload;
        let start = offset + chunking.sealed_offset(self.index);
        let len = self.chunk_len();
        if !file.forget(start, len as u64) {
            return Err(error);
        }
        self.buffer.resize(len, 0);
        file.read_exact_at(&mut self.buffer, start).map_err(reading())?;
        self.pass()
    }
}

fn reading() -> impl FnOnce(std::io::Error) -> Error {
    Error::io("read the artifact")
}

/// The manifest, found through the trailer.
pub(super) fn read_manifest(
    payload: &PayloadAt<'_>,
    cipher: &mut ChunkCipher<'_>,
    unsized_entry: bool,
) -> Result<Manifest> {
    let plain_len = payload.payload.plain_len;
    let at = plain_len.checked_sub(TRAILER_LEN);
    let at = at.ok_or_else(|| refused(27, "the payload is too short for a trailer"))?;
    let mut trailer = [0; 16];
    payload.read(cipher, &mut trailer, at)?;
    let len = parse_trailer(&trailer, plain_len, unsized_entry)?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    payload.read(cipher, &mut bytes, at - len)?;
    Manifest::decode(&bytes)
}

/// An entry's place in the payload, as the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Relative path.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// First byte in the payload plaintext.
    pub offset: u64,
}

/// Reads ranges of an artifact's entries by the table alone, without the manifest (FORMAT.md section 8): one request
/// less of a store. [`RangeReader`] compares the two.
pub struct PartReader<'a> {
    payload: PayloadAt<'a>,
    header: &'a AuthenticatedHeader,
    engine: Engine,
    table: Table,
    layout: Layout,
    places: Vec<Place>,
    /// Read for the size of an entry that the table does not give.
    manifest: Option<Manifest>,
}

impl<'a> PartReader<'a> {
    /// Reads and checks the table of the payload of `len` bytes at `offset` of `file`.
    pub fn new(
        file: &'a dyn ReadAt,
        offset: u64,
        len: u64,
        header: &'a AuthenticatedHeader,
        engine: Engine,
    ) -> Result<Self> {
        let chunking = Chunking::new(header.header().prelude().chunk_size);
        let payload = PayloadAt { file, offset, payload: chunking.payload(len)?, chunking };
        let mut cipher = ChunkCipher::new(header.schedule(), engine);
        let table = super::source::read_table(|plain, from| payload.read(&mut cipher, plain, from))?;
        let mut layout = Layout::of(&table)?;
        let unsized_entry = table.entries.iter().any(|e| e.size.0.is_none());
        let manifest = if unsized_entry { Some(read_manifest(&payload, &mut cipher, true)?) } else { None };
        if let Some(entry) = manifest.as_ref().and_then(|m| m.entries.first()) {
            layout.set_size(entry.size)?;
        }
        let place = |(i, e): (usize, &crate::manifest::TableEntry)| Place {
            path: e.path.clone(),
            size: layout.size(i).unwrap_or_default(),
            offset: layout.offset(i),
        };
        let places = table.entries.iter().enumerate().map(place).collect();
        Ok(Self { payload, header, engine, table, layout, places, manifest })
    }

    /// The entries in ascending order of their paths.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The entry at `path`.
    pub fn place(&self, path: &str) -> Option<&Place> {
        self.places.get(self.places.binary_search_by(|p| p.path.as_str().cmp(path)).ok()?)
    }

    /// Calls `release` with the verified bytes of `range` of an entry, in order, at most a chunk at a time.
    pub fn read(
        &self,
        place: &Place,
        range: Range<u64>,
        release: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        if range.start > range.end || range.end > place.size {
            let Range { start, end } = range;
            return Err(Error::Usage(format!("{}: bytes {start} to {end} of {}", place.path, place.size)));
        }
        let mut cipher = ChunkCipher::new(self.header.schedule(), self.engine);
        let write = &mut |plain: &[u8]| release(plain).map_err(Error::io("write the output"));
        self.payload.run(&mut cipher, place.offset + range.start, range.end - range.start, write)
    }
}

/// Reads ranges of an artifact's entries, with the manifest that says what they are.
pub struct RangeReader<'a> {
    parts: PartReader<'a>,
    manifest: Manifest,
}

impl<'a> RangeReader<'a> {
    /// Reads and checks table and manifest of the payload of `len` bytes at `offset` of `file`.
    pub fn new(
        file: &'a dyn ReadAt,
        offset: u64,
        len: u64,
        header: &'a AuthenticatedHeader,
        engine: Engine,
    ) -> Result<Self> {
        let mut parts = PartReader::new(file, offset, len, header, engine)?;
        let mut cipher = ChunkCipher::new(header.schedule(), engine);
        let manifest = match parts.manifest.take() {
            Some(manifest) => manifest,
            None => read_manifest(&parts.payload, &mut cipher, false)?,
        };
        let at = parts.payload.payload.plain_len - TRAILER_LEN - crate::cbor::encode(&manifest).len() as u64;
        require(parts.layout.manifest_offset() == Some(at), 29, || "the manifest is not where it should be".into())?;
        check_agreement(&parts.table, &parts.layout, &manifest)?;
        super::check_about(header, &manifest)?;
        Ok(Self { parts, manifest })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The entries by their places.
    pub fn parts(&self) -> &PartReader<'a> {
        &self.parts
    }

    /// Calls `release` with the verified bytes of `range` of an entry, in order, at most a chunk at a time.
    pub fn read(
        &self,
        entry: &Entry,
        range: Range<u64>,
        release: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let place = Place { path: entry.path.clone(), size: entry.size, offset: entry.offset };
        self.parts.read(&place, range, release)
    }
}
