//! What was sealed, sealed another time, for who does not keep it until it is sent: from the same source, under the same
//! keys, to the same bytes if the source is what it was. Who sends it compares it first (FORMAT.md [F-45]).

use super::Sealing;
use super::source::Source;
use crate::aead::Engine;
use crate::chunk::ChunkCipher;
use crate::error::Error;
use crate::io::{Again, ReadAt};
use crate::keys::Schedule;
use std::io;

/// The full batches of a payload. What follows them is sealed once: there the manifest is.
pub(super) struct Replay<'s, 'i> {
    source: &'s Source<'i>,
    schedule: &'s Schedule,
    engine: Engine,
    batches: u64,
}

impl<'s, 'i> Replay<'s, 'i> {
    /// `None` if the source can be read only once.
    pub(super) fn of(sealing: &'s Sealing<'_, 'i, '_>) -> Option<Self> {
        let Sealing { source, schedule, options, .. } = sealing;
        Some(Self { source, schedule, engine: options.engine, batches: source.batches()? })
    }

    pub(super) fn again(&self) -> Again<'_> {
        let chunking = self.source.chunking();
        let per_batch = (self.source.batch_len() / chunking.plain()) as u64;
        Again { bytes: self, len: chunking.sealed_offset(self.batches * per_batch), unit: chunking.sealed() }
    }
}

impl ReadAt for Replay<'_, '_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let chunking = self.source.chunking();
        let (unit, len) = (chunking.sealed() as u64, buf.len() as u64);
        if !offset.is_multiple_of(unit) || !len.is_multiple_of(unit) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (first, chunks, plain) = (offset / unit, len / unit, chunking.plain() as u64);
        if offset + len > self.again().len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = Vec::new();
        self.source.read_files(first * plain..(first + chunks) * plain, &mut bytes).map_err(|e| match e {
            Error::Io { source, .. } => source,
            shorter => io::Error::new(io::ErrorKind::UnexpectedEof, shorter),
        })?;
        let mut cipher = ChunkCipher::new(self.schedule, self.engine);
        for (i, (plain, sealed)) in (first..).zip(bytes.chunks(chunking.plain()).zip(buf.chunks_mut(chunking.sealed())))
        {
            cipher.seal(i, plain, sealed);
        }
        Ok(())
    }
}
