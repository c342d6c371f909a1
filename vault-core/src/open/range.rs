//! Reading parts: the manifest from the end, one entry, a byte range, one tensor. Only the chunks that are
//! needed are read; each is verified before a byte of it is given out `[F-25]`.

use crate::aead::{Engine, TAG_LEN};
use crate::chunk::ChunkCipher;
use crate::error::{Error, Result, refused, require};
use crate::geometry::{Chunking, Payload};
use crate::header::AuthenticatedHeader;
use crate::io::ReadAt;
use crate::layout::{Layout, TRAILER_LEN, check_agreement, parse_trailer};
use crate::manifest::{Entry, Manifest};
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
        let end = from.checked_add(out.len() as u64).filter(|e| *e <= self.payload.plain_len);
        let end = end.ok_or_else(|| refused(27, "a length in the payload points past its end"))?;
        let mut done = 0;
        while from + (done as u64) < end {
            let (index, at) = self.chunking.locate(from + done as u64);
            let plain = self.chunk(cipher, index)?;
            let have = plain.get(at..).unwrap_or_default();
            let want = out.get_mut(done..).unwrap_or_default();
            let n = have.len().min(want.len());
            require(n > 0, 27, || "a chunk is shorter than its place allows".into())?;
            if let (Some(want), Some(have)) = (want.get_mut(..n), have.get(..n)) {
                want.copy_from_slice(have);
            }
            done += n;
        }
        Ok(())
    }

    /// Chunk `index`, verified.
    fn chunk(&self, cipher: &mut ChunkCipher<'_>, index: u64) -> Result<Vec<u8>> {
        let start = self.chunking.sealed_offset(index);
        let len = (self.chunking.sealed() as u64).min(self.payload.sealed_len.saturating_sub(start));
        let mut sealed = vec![0; usize::try_from(len).unwrap_or_default()];
        self.file.read_exact_at(&mut sealed, self.offset + start).map_err(Error::io("read the artifact"))?;
        let mut plain = vec![0; sealed.len().saturating_sub(TAG_LEN)];
        cipher
            .open(index, &sealed, &mut plain)
            .map_err(|_| refused(25, format!("chunk {index} of the payload was changed, moved or cut")))?;
        Ok(plain)
    }
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

/// Reads ranges of an artifact's entries.
pub struct RangeReader<'a> {
    payload: PayloadAt<'a>,
    header: &'a AuthenticatedHeader,
    engine: Engine,
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
        let chunking = Chunking::new(header.header().prelude().chunk_size);
        let payload = PayloadAt { file, offset, payload: chunking.payload(len)?, chunking };
        let mut cipher = ChunkCipher::new(header.schedule(), engine);
        let table = super::source::read_table(|plain, from| payload.read(&mut cipher, plain, from))?;
        let unsized_entry = table.entries.iter().any(|e| e.size.0.is_none());
        let manifest = read_manifest(&payload, &mut cipher, unsized_entry)?;
        let mut layout = Layout::of(&table)?;
        if let (true, Some(entry)) = (unsized_entry, manifest.entries.first()) {
            layout.set_size(entry.size)?;
        }
        let at = payload.payload.plain_len - TRAILER_LEN - crate::cbor::encode(&manifest).len() as u64;
        require(layout.manifest_offset() == Some(at), 29, || "the manifest is not where it should be".into())?;
        check_agreement(&table, &layout, &manifest)?;
        super::check_about(header, &manifest)?;
        Ok(Self { payload, header, engine, manifest })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Calls `release` with the verified bytes of `range` of an entry, in order, a few chunks at a time.
    pub fn read(
        &self,
        entry: &Entry,
        range: Range<u64>,
        release: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        if range.start > range.end || range.end > entry.size {
            let Range { start, end } = range;
            return Err(Error::Usage(format!("{}: bytes {start} to {end} of {}", entry.path, entry.size)));
        }
        let mut cipher = ChunkCipher::new(self.header.schedule(), self.engine);
        let mut at = range.start;
        let mut buffer = Vec::new();
        while at < range.end {
            let (_, inside) = self.payload.chunking.locate(entry.offset + at);
            let n = ((self.payload.chunking.plain() - inside) as u64).min(range.end - at);
            buffer.resize(usize::try_from(n).unwrap_or_default(), 0);
            self.payload.read(&mut cipher, &mut buffer, entry.offset + at)?;
            release(&buffer).map_err(Error::io("write the output"))?;
            at += n;
        }
        Ok(())
    }
}
