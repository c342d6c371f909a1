//! What the core asks of files, pipes and stores: read and write at an offset. Everything else about them
//! (names, temporary files, networks) belongs to the caller.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes that can be read at any offset, from several threads.
pub trait ReadAt: Sync {
    /// Fills `buf` from `offset`; `UnexpectedEof` if there is less.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Calls `take` with the `len` bytes from `offset` on, front to back, in pieces of any length. A store makes one
    /// request of it. `take` must not read from `self`.
    fn read_run(&self, offset: u64, len: u64, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(len).unwrap_or(RUN).min(RUN)];
        let mut done = 0;
        while done < len {
            let n = usize::try_from(len - done).unwrap_or(RUN).min(RUN);
            let Some(space) = buffer.get_mut(..n) else { break };
            self.read_exact_at(space, offset + done)?;
            take(space)?;
            done += n as u64;
        }
        Ok(())
    }

    /// The `len` bytes from `offset` on where they are, if they are in memory that nobody changes any more: who only
    /// passes over them need not copy them. `None` says nothing; then they are read.
    fn lend(&self, offset: u64, len: usize) -> Option<Lent> {
        let _ = (offset, len);
        None
    }

    /// The same bytes as they come, for who takes them in any order: in ranges that start at multiples of `run`. `None`
    /// if they do not come by themselves; then they are read.
    fn arriving(&self, run: u64) -> Option<Box<dyn Arriving + '_>> {
        let _ = run;
        None
    }

    /// What was read at `offset` did not verify. True if reading it again may give other bytes: what came over a
    /// network is then fetched anew, once for every call.
    fn forget(&self, offset: u64, len: u64) -> bool {
        let _ = (offset, len);
        false
    }
}

/// Bytes on their way over a network, each once, to several threads.
pub trait Arriving: Sync {
    /// One thread's share of them. It comes on that thread.
    fn receive(&self) -> io::Result<Box<dyn Arrivals + '_>>;
}

/// Ranges of bytes that come side by side, each front to back.
pub trait Arrivals {
    /// What has come next, and where it starts; waits for it. `None` after the last.
    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>>;
}

/// Bytes in memory that are shared, and that nobody changes while they are.
pub struct Lent {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Lent {
    /// A range of `bytes`; `None` if it does not lie within.
    pub fn new(bytes: Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        bytes.get(range.clone())?;
        Some(Self { bytes, range })
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// Bytes read at a time in a run.
const RUN: usize = 64 * 1024;

/// Bytes that can be written at any offset, from several threads.
pub trait WriteAt: Sync {
    /// Writes all of `data` at `offset`.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// The same, and gives back a buffer to go on with, this one or another: who keeps what is written need not copy it.
    fn write_owned_at(&self, data: Vec<u8>, offset: u64) -> io::Result<Vec<u8>> {
        self.write_all_at(&data, offset)?;
        Ok(data)
    }

    /// Runs `write`, which writes all that there is, and tells whether it did. Until this returns, `again` gives what
    /// was written another time: it need not be kept.
    fn write_with(&self, again: &Again<'_>, write: &mut dyn FnMut() -> bool) {
        let _ = again;
        write();
    }
}

/// The front of what is written, made another time.
pub struct Again<'a> {
    /// Whole pieces of `unit` bytes of it, at offsets that are multiples; `UnexpectedEof` if there is less by now. What
    /// it is made of may have changed: nothing of it is used before it was compared with the first time.
    pub bytes: &'a dyn ReadAt,
    /// Bytes that can be made: what was written from there on must be kept.
    pub len: u64,
    /// A sealed chunk, in bytes.
    pub unit: usize,
}

impl ReadAt for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }
}

impl WriteAt for File {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, data, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = self.get(start..).and_then(|s| s.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_exact_at(&self.as_slice(), buf, offset)
    }
}

/// Reads a range front to back.
pub struct Sequential<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    end: u64,
}

impl<'a> Sequential<'a> {
    /// `len` bytes from `offset` on.
    pub fn new(file: &'a dyn ReadAt, offset: u64, len: u64) -> Self {
        Self { file, at: offset, end: offset + len }
    }
}

impl io::Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let Some(buf) = buf.get_mut(..n) else { return Ok(0) };
        self.file.read_exact_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Where plaintext or ciphertext comes from.
pub enum Input<'a> {
    /// Any offset, `len` bytes from `offset` on.
    At {
        /// The bytes.
        file: &'a dyn ReadAt,
        /// Where they start.
        offset: u64,
        /// How many there are.
        len: u64,
    },
    /// Front to back, length unknown.
    Stream(&'a mut (dyn io::Read + Send)),
}

/// Where an artifact goes.
pub enum Output<'a> {
    /// Any offset, in any order.
    At(&'a dyn WriteAt),
    /// The payload alone, at offsets from its start; the header is in what [`crate::seal::seal`] returns. For stores,
    /// where the two are separate objects.
    Payload(&'a dyn WriteAt),
    /// Front to back.
    Stream(&'a mut (dyn io::Write + Send)),
}

/// Reads until `buf` is full or the input ends; returns how much it read.
pub(crate) fn fill(input: &mut dyn io::Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(space) = buf.get_mut(filled..).filter(|s| !s.is_empty()) {
        match input.read(space) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
