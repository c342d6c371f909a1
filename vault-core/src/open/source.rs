//! The payload's ciphertext, batch by batch, from a file at offsets or from a stream; and the table at its
//! front, which everything else needs.

use super::range::read_manifest;
use crate::aead::TAG_LEN;
use crate::chunk::ChunkCipher;
use crate::error::{Error, Result, refused, require};
use crate::geometry::{Chunking, MAX_CHUNKS, Payload};
use crate::io::{Arriving, Input, Lent, ReadAt, fill};
use crate::layout::{ALIGN, check_table_len};
use crate::manifest::Table;
use crate::seal::{BATCH, lock};
use std::io::Read;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// One worker's buffers.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) first_chunk: u64,
    pub(super) sealed: Sealed,
    /// Verified plaintext: whole chunks, up to the first that did not open.
    pub(super) plain: Vec<u8>,
    /// The payload ends with this batch.
    pub(super) last: bool,
    /// How a stream ended that does not end in a short chunk.
    cut: Option<Error>,
}

/// Ciphertext in a buffer of the worker's own, or lent by the source.
#[derive(Default)]
pub(super) struct Sealed {
    own: Vec<u8>,
    lent: Option<Lent>,
}

impl Sealed {
    /// The worker's own buffer, to be filled.
    fn own(&mut self) -> &mut Vec<u8> {
        self.lent = None;
        &mut self.own
    }
}

impl Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.lent.as_deref().unwrap_or(&self.own)
    }
}

impl Batch {
    /// Opens the batch's chunks. On a failure `plain` keeps the verified chunks in front of it `[F-25]`.
    pub(super) fn open(&mut self, cipher: &mut ChunkCipher<'_>, chunking: Chunking) -> Result<()> {
        let chunks = self.sealed.len().div_ceil(chunking.sealed());
        self.plain.resize(self.sealed.len().saturating_sub(chunks * TAG_LEN), 0);
        let sealed = self.sealed.chunks(chunking.sealed());
        let mut rest = self.plain.as_mut_slice();
        let mut verified = 0;
        for (index, sealed) in (self.first_chunk..).zip(sealed) {
            let (plain, later) = rest.split_at_mut(chunking.plain().min(rest.len()));
            if cipher.open(index, sealed, plain).is_err() {
                self.plain.truncate(verified);
                return Err(refused(25, format!("chunk {index} of the payload was changed, moved or cut")));
            }
            verified += plain.len();
            rest = later;
        }
        self.cut.take().map_or(Ok(()), Err)
    }
}

pub(super) struct Source<'a> {
    chunking: Chunking,
    per_batch: u64,
    kind: Kind<'a>,
}

enum Kind<'a> {
    At { file: &'a dyn ReadAt, offset: u64, payload: Payload, next: AtomicU64 },
    Stream(Mutex<Stream<'a>>),
}

struct Stream<'a> {
    input: &'a mut (dyn Read + Send),
    /// Ciphertext that was read for the table.
    ahead: Vec<u8>,
    batches: u64,
    ended: bool,
}

impl<'a> Source<'a> {
    /// Reads the table, and the size of an entry whose size is not in it, where that can be seen from the end.
    pub(super) fn begin(
        input: Input<'a>,
        chunking: Chunking,
        cipher: &mut ChunkCipher<'_>,
    ) -> Result<(Self, Table, Option<u64>)> {
        let per_batch = per_batch(chunking);
        match input {
            Input::At { file, offset, len } => {
                let payload = chunking.payload(len)?;
                let front = crate::open::range::PayloadAt { file, offset, payload, chunking };
                let table = read_table(|plain, from| front.read(cipher, plain, from))?;
                let unknown = table.entries.iter().any(|e| e.size.0.is_none());
                let size = if unknown {
                    let manifest = read_manifest(&front, cipher, true)?;
                    manifest.entries.first().map(|e| e.size)
                } else {
                    None
                };
                let kind = Kind::At { file, offset, payload, next: AtomicU64::new(0) };
                Ok((Self { chunking, per_batch, kind }, table, size))
            }
            Input::Stream(input) => {
                let mut front = Front { input, chunking, sealed: Vec::new(), plain: Vec::new() };
                let table = read_table(|plain, from| front.read(cipher, plain, from))?;
                let Front { input, sealed, .. } = front;
                let kind = Kind::Stream(Mutex::new(Stream { input, ahead: sealed, batches: 0, ended: false }));
                Ok((Self { chunking, per_batch, kind }, table, None))
            }
        }
    }

    /// The payload as it comes, in any order, if it comes so.
    pub(super) fn arriving(&self) -> Option<Unordered<'a>> {
        let Kind::At { file, offset: 0, payload, .. } = &self.kind else { return None };
        let (file, payload) = (*file, *payload);
        let from = file.arriving(run_len(self.chunking))?;
        Some(Unordered { file, payload, from })
    }

    /// The next batch and its ticket.
    pub(super) fn claim(&self, batch: &mut Batch) -> Option<(u64, Result<()>)> {
        match &self.kind {
            Kind::At { file, offset, payload, next } => {
                let ticket = next.fetch_add(1, Ordering::Relaxed);
                batch.first_chunk = ticket.checked_mul(self.per_batch)?;
                if batch.first_chunk >= payload.chunks {
                    return None;
                }
                let start = self.chunking.sealed_offset(batch.first_chunk);
                let full = self.per_batch * self.chunking.sealed() as u64;
                let len = full.min(payload.sealed_len - start);
                batch.last = batch.first_chunk + self.per_batch >= payload.chunks;
                let (start, len) = (offset + start, usize::try_from(len).unwrap_or_default());
                batch.sealed.lent = file.lend(start, len).filter(|lent| lent.len() == len);
                if batch.sealed.lent.is_some() {
                    return Some((ticket, Ok(())));
                }
                let own = batch.sealed.own();
                own.resize(len, 0);
                Some((ticket, file.read_exact_at(own, start).map_err(Error::io("read the artifact"))))
            }
            Kind::Stream(stream) => {
                let mut stream = lock(stream);
                if stream.ended {
                    return None;
                }
                let ticket = stream.batches;
                stream.batches += 1;
                batch.first_chunk = ticket * self.per_batch;
                Some((ticket, self.read_stream(&mut stream, batch)))
            }
        }
    }

    /// Fetches a batch that did not verify once more; false if the source has nothing else to give.
    pub(super) fn read_again(&self, batch: &mut Batch) -> Result<bool> {
        let Kind::At { file, offset, .. } = &self.kind else { return Ok(false) };
        let start = offset + self.chunking.sealed_offset(batch.first_chunk);
        let len = batch.sealed.len();
        if !file.forget(start, len as u64) {
            return Ok(false);
        }
        let own = batch.sealed.own();
        own.resize(len, 0);
        file.read_exact_at(own, start).map_err(Error::io("read the artifact"))?;
        Ok(true)
    }

    fn read_stream(&self, stream: &mut Stream<'_>, batch: &mut Batch) -> Result<()> {
        let full = usize::try_from(self.per_batch).unwrap_or(1) * self.chunking.sealed();
        let own = batch.sealed.own();
        own.resize(full, 0);
        let ahead = stream.ahead.len().min(full);
        let (front, space) = own.split_at_mut(ahead);
        for (to, from) in front.iter_mut().zip(stream.ahead.drain(..ahead)) {
            *to = from;
        }
        let read = fill(stream.input, space);
        let filled = ahead + read.as_ref().copied().unwrap_or_default();
        own.truncate(filled);
        batch.last = filled < full;
        stream.ended = batch.last || read.is_err();
        read.map_err(Error::io("read the artifact"))?;
        let last = filled % self.chunking.sealed();
        if batch.last && last < TAG_LEN {
            // Verified chunks in front of the cut are still released.
            batch.sealed.own.truncate(filled - last);
            batch.cut = Some(refused(26, format!("the input ends without a last chunk: {last} bytes are left")));
        }
        require(batch.first_chunk + self.per_batch <= MAX_CHUNKS, 24, || "more than 2^32 chunks".into())
    }
}

/// A payload that comes in any order.
pub(super) struct Unordered<'a> {
    pub(super) file: &'a dyn ReadAt,
    pub(super) payload: Payload,
    pub(super) from: Box<dyn Arriving + 'a>,
}

/// Chunks of a full batch.
fn per_batch(chunking: Chunking) -> u64 {
    (BATCH / chunking.plain()).max(1) as u64
}

/// Sealed bytes of a full batch: payloads that come in any order come in multiples of it ([`ReadAt::arriving`]).
pub fn run_len(chunking: Chunking) -> u64 {
    per_batch(chunking) * chunking.sealed() as u64
}

/// The table from the front of the payload plaintext `[F-27]` `[F-28]`.
pub(super) fn read_table(mut read: impl FnMut(&mut [u8], u64) -> Result<()>) -> Result<Table> {
    let mut len = [0; 4];
    read(&mut len, 0)?;
    let len = u32::from_be_bytes(len);
    check_table_len(len)?;
    let block = (4 + len as usize).next_multiple_of(usize::try_from(ALIGN).unwrap_or(4096));
    let mut bytes = vec![0; block - 4];
    read(&mut bytes, 4)?;
    let (map, padding) = bytes.split_at_checked(len as usize).unwrap_or_default();
    crate::layout::check_padding(padding)?;
    Table::decode(map)
}

/// The front of a stream, opened chunk by chunk and kept for the pass that follows.
struct Front<'a> {
    input: &'a mut (dyn Read + Send),
    chunking: Chunking,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl Front<'_> {
    fn read(&mut self, cipher: &mut ChunkCipher<'_>, plain: &mut [u8], from: u64) -> Result<()> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let end = from.saturating_add(plain.len());
        while self.plain.len() < end {
            self.next_chunk(cipher)?;
        }
        plain.copy_from_slice(self.plain.get(from..end).unwrap_or_default());
        Ok(())
    }

    fn next_chunk(&mut self, cipher: &mut ChunkCipher<'_>) -> Result<()> {
        let mut chunk = vec![0; self.chunking.sealed()];
        let n = fill(self.input, &mut chunk).map_err(Error::io("read the artifact"))?;
        chunk.truncate(n);
        require(n >= TAG_LEN, 26, || "the payload ends inside its table".into())?;
        let mut plain = vec![0; n - TAG_LEN];
        let index = (self.plain.len() / self.chunking.plain()) as u64;
        cipher
            .open(index, &chunk, &mut plain)
            .map_err(|_| refused(25, format!("chunk {index} of the payload was changed, moved or cut")))?;
        require(n == self.chunking.sealed() || !plain.is_empty(), 27, || "the payload ends inside its table".into())?;
        self.sealed.extend_from_slice(&chunk);
        self.plain.extend_from_slice(&plain);
        Ok(())
    }
}
