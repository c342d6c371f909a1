//! A bounded window over a forward-only stream: look ahead, take, skip, never go back.
//!
//! Every parser of the scan reads through a [`Source`]. A read past the end is [`Halt::End`],
//! broken bytes are [`Halt::Bad`], our own limits are [`Halt::Limit`]: the caller decides which
//! verdict each of them is.

use super::ScanRead;
use super::log::Budget;
use std::io;
use std::rc::Rc;

/// Bytes that can be looked at ahead, and the window's size.
pub(super) const WINDOW: usize = 64 * 1024;
/// Step in which the rest of an input is skipped.
const DRAIN_STEP: u64 = 1 << 40;

/// Why a parser stopped.
#[derive(Debug)]
pub(super) enum Halt {
    /// The input's own read failed.
    Io(io::Error),
    /// The bytes end too early.
    End,
    /// The bytes break their format; a loader fails here too.
    Bad(String),
    /// A limit of this scanner, or something it does not model; a loader may go on.
    Limit(String),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Broken bytes, in words.
pub(super) fn bad<T>(what: impl Into<String>) -> Result<T, Halt> {
    Err(Halt::Bad(what.into()))
}

/// A limit of the scanner, in words.
pub(super) fn limit<T>(what: impl Into<String>) -> Result<T, Halt> {
    Err(Halt::Limit(what.into()))
}

/// A window over a stream.
pub(super) struct Source<'a> {
    inner: &'a mut (dyn ScanRead + 'a),
    buf: Vec<u8>,
    lo: usize,
    hi: usize,
    offset: u64,
    eof: bool,
    budget: Option<Rc<Budget>>,
}

impl<'a> Source<'a> {
    pub fn new(inner: &'a mut (dyn ScanRead + 'a)) -> Self {
        Self { inner, buf: Vec::new(), lo: 0, hi: 0, offset: 0, eof: false, budget: None }
    }

    /// The outermost source, which counts what it reads.
    pub fn counted(inner: &'a mut (dyn ScanRead + 'a), budget: Rc<Budget>) -> Self {
        Self { budget: Some(budget), ..Self::new(inner) }
    }

    /// Bytes consumed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn count(&self, n: u64) {
        if let Some(budget) = &self.budget {
            budget.outer.set(budget.outer.get().saturating_add(n));
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.buf.is_empty() {
            self.buf.resize(WINDOW, 0);
        }
        if self.hi == self.buf.len() {
            self.buf.copy_within(self.lo..self.hi, 0);
            self.hi -= self.lo;
            self.lo = 0;
        }
        let room = self.buf.get_mut(self.hi..).unwrap_or_default();
        match self.inner.read(room) {
            Ok(0) => self.eof = true,
            Ok(n) => {
                let n = n.min(room.len());
                self.hi += n;
                self.count(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The next `n` bytes (at most [`WINDOW`]) without consuming them; fewer only at the end.
    pub fn peek(&mut self, n: usize) -> io::Result<&[u8]> {
        let n = n.min(WINDOW);
        if self.lo + n > self.buf.len() && self.lo > 0 {
            self.buf.copy_within(self.lo..self.hi, 0);
            self.hi -= self.lo;
            self.lo = 0;
        }
        while self.hi - self.lo < n && !self.eof {
            self.fill()?;
        }
        let end = self.hi.min(self.lo + n);
        Ok(self.buf.get(self.lo..end).unwrap_or_default())
    }

    /// What is buffered, at least one byte unless the input is at its end.
    pub fn chunk(&mut self) -> io::Result<&[u8]> {
        while self.lo == self.hi && !self.eof {
            self.lo = 0;
            self.hi = 0;
            self.fill()?;
        }
        Ok(self.buf.get(self.lo..self.hi).unwrap_or_default())
    }

    /// Consumes bytes that were looked at.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.hi - self.lo);
        self.lo += n;
        self.offset = self.offset.saturating_add(n as u64);
    }

    /// True at the end of the input.
    pub fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.chunk()?.is_empty())
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Halt> {
        let byte = self.chunk()?.first().copied().ok_or(Halt::End)?;
        self.consume(1);
        Ok(byte)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Halt> {
        let bytes = self.peek(N)?;
        let array = bytes.try_into().map_err(|_| Halt::End)?;
        self.consume(N);
        Ok(array)
    }

    pub fn u16(&mut self) -> Result<u16, Halt> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Halt> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Halt> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Exactly `n` bytes, of which the caller has bounded the number.
    pub fn take(&mut self, n: usize) -> Result<Vec<u8>, Halt> {
        let mut out = Vec::new();
        while out.len() < n {
            let left = n - out.len();
            let chunk = self.chunk()?;
            let part = chunk.get(..left.min(chunk.len())).unwrap_or_default();
            if part.is_empty() {
                return Err(Halt::End);
            }
            out.extend_from_slice(part);
            let used = part.len();
            self.consume(used);
        }
        Ok(out)
    }

    /// Skips up to `n` bytes, returns how many.
    pub fn skip_some(&mut self, n: u64) -> io::Result<u64> {
        let held = usize::try_from(n).unwrap_or(usize::MAX).min(self.hi - self.lo);
        self.consume(held);
        let mut done = held as u64;
        if done < n && !self.eof {
            let skipped = self.inner.skip(n - done)?.min(n - done);
            self.count(skipped);
            self.offset = self.offset.saturating_add(skipped);
            done += skipped;
            self.eof = done < n;
        }
        Ok(done)
    }

    /// Skips exactly `n` bytes.
    pub fn skip_exact(&mut self, n: u64) -> Result<(), Halt> {
        if self.skip_some(n)? == n { Ok(()) } else { Err(Halt::End) }
    }

    /// Skips to the end of the input.
    pub fn drain(&mut self) -> io::Result<()> {
        while self.skip_some(DRAIN_STEP)? == DRAIN_STEP {}
        Ok(())
    }

    /// Reads up to and with the next newline; returns at most `keep` bytes of the line and
    /// whether that is all of it.
    pub fn line(&mut self, keep: usize) -> Result<(Vec<u8>, bool), Halt> {
        let mut out = Vec::new();
        let mut whole = true;
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Err(Halt::End);
            }
            let newline = memchr::memchr(b'\n', chunk);
            let text = chunk.get(..newline.unwrap_or(chunk.len())).unwrap_or_default();
            let room = keep.saturating_sub(out.len());
            whole &= text.len() <= room;
            out.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
            let used = text.len() + usize::from(newline.is_some());
            self.consume(used);
            if newline.is_some() {
                return Ok((out, whole));
            }
        }
    }
}
