//! A window that moves over the bytes of one entry: many small tensors cost one read, and no tensor is held whole.

use crate::error::Result;
use std::ops::Range;
use zeroize::Zeroizing;

/// Bytes read at a time where reading goes on from before.
const WINDOW: u64 = 4 << 20;
/// The least to read where it jumps.
const LEAST: u64 = 256 << 10;

/// The bytes of an entry. What they are read from verifies them before it gives them out.
pub trait Bytes {
    /// Calls `take` with the bytes of `range` in order, in pieces of any length.
    fn read(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<()>;
}

pub(super) struct Window<'a> {
    source: &'a dyn Bytes,
    size: u64,
    start: u64,
    bytes: Zeroizing<Vec<u8>>,
}

impl<'a> Window<'a> {
    pub(super) fn new(source: &'a dyn Bytes, size: u64) -> Self {
        Self { source, size, start: 0, bytes: Zeroizing::default() }
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Bytes from `from` on, at least one and none past `to`, which is within the entry and after `from`.
    pub(super) fn at(&mut self, from: u64, to: u64) -> Result<&[u8]> {
        if from < self.start || from >= self.end() {
            self.load(from, to)?;
        }
        let skip = usize::try_from(from - self.start).unwrap_or(usize::MAX);
        let end = usize::try_from(to.min(self.end()) - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }

    fn load(&mut self, from: u64, to: u64) -> Result<()> {
        let goes_on = from == self.end();
        let wanted = if goes_on { WINDOW } else { (to - from).clamp(LEAST, WINDOW) };
        let end = from.saturating_add(wanted).min(self.size);
        self.start = from.min(end.saturating_sub(LEAST));
        let range = self.start..end;
        if self.bytes.capacity() == 0 {
            // One size for good: growing would leave copies behind.
            self.bytes.reserve_exact(usize::try_from(WINDOW.min(self.size)).unwrap_or_default());
        }
        self.bytes.clear();
        let bytes = &mut self.bytes;
        self.source.read(range, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
    }
}
