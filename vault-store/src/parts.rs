//! A payload of which only parts are read: one entry, a range, a tensor. Small reads are widened a little and kept, so
//! that a table and the header of the file behind it are one request; a long run is one request, streamed.

use crate::error::Result;
use crate::store::Store;
use std::io;
use std::sync::{Mutex, PoisonError};
use vault_core::geometry::Chunking;
use vault_core::io::ReadAt;

/// A payload in a store.
pub struct Parts<'a> {
    store: &'a dyn Store,
    key: String,
    size: u64,
    /// The least to ask for: two chunks.
    least: u64,
    windows: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl<'a> Parts<'a> {
    /// Asks for the front of the payload, which tells its size too.
    pub fn open(store: &'a dyn Store, key: String, chunk_size: u32) -> Result<Self> {
        let least = 2 * Chunking::new(chunk_size).sealed() as u64;
        let mut front = Vec::new();
        let size = store.fetch(&key, 0..least, &mut |data| {
            front.extend_from_slice(data);
            Ok(())
        })?;
        Ok(Self { store, key, size, least, windows: Mutex::new(vec![(0, front)]) })
    }

    /// Bytes of the payload.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn cached(&self, buf: &mut [u8], offset: u64) -> bool {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.iter().any(|(start, data)| {
            let from = offset.checked_sub(*start).and_then(|n| usize::try_from(n).ok());
            let found = from.and_then(|from| data.get(from..from.checked_add(buf.len())?));
            found.map(|found| buf.copy_from_slice(found)).is_some()
        })
    }

    fn widened(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = (offset + self.least.max(buf.len() as u64)).min(self.size);
        let mut window = Vec::new();
        self.store.fetch(&self.key, offset..end, &mut |data| {
            window.extend_from_slice(data);
            Ok(())
        })?;
        buf.copy_from_slice(window.get(..buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).push((offset, window));
        Ok(())
    }
}

impl ReadAt for Parts<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.cached(buf, offset) { Ok(()) } else { self.widened(buf, offset) }
    }

    fn read_run(&self, offset: u64, len: u64, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if len <= self.least {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
            self.read_exact_at(&mut bytes, offset)?;
            return take(&bytes);
        }
        self.store.fetch(&self.key, offset..offset + len, take)?;
        Ok(())
    }

    fn forget(&self, offset: u64, len: u64) -> bool {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|(start, data)| offset + len <= *start || start + data.len() as u64 <= offset);
        self.store.is_remote()
    }
}
