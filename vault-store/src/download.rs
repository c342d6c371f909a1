//! The receiving half of the transfer engine: a payload as [`ReadAt`], fetched ahead in several ranges at once while
//! vault-core reads it front to back. Blocks that were read are let go; what is asked for out of order is fetched by
//! itself. Where vault-core needs no order, what comes goes through [`crate::arrivals`]. Everything here is ciphertext.

use crate::arrivals::Arriving;
use crate::error::{Result, StoreError};
use crate::spool::Spool;
use crate::store::Store;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use vault_core::geometry::Chunking;
use vault_core::io::{Arriving as Unordered, Lent, ReadAt};
use vault_core::open::run_len;

/// Most bytes of a block, unless a chunk is larger.
const BLOCK: u64 = 16 << 20;

/// How a payload is cut for the way.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Bytes that are opened at a time: whole chunks.
    pub(crate) run: u64,
    /// Bytes that are fetched or kept at a time: whole runs.
    pub(crate) block: u64,
}

impl Cut {
    /// For chunks of `chunk_size` bytes of plaintext.
    pub fn of(chunk_size: u32) -> Self {
        let run = run_len(Chunking::new(chunk_size));
        Self { run, block: run * (BLOCK / run).max(1) }
    }
}

/// The first run of the payload under `key`, and the payload's size in bytes.
pub fn front(store: &dyn Store, key: &str, cut: Cut) -> Result<(Vec<u8>, u64)> {
    let mut front = Vec::new();
    let fetched = store.fetch(key, 0..cut.run, &mut |data| {
        front.extend_from_slice(data);
        Ok(())
    });
    match fetched {
        Err(e) if e.status == Some(416) => Ok((Vec::new(), store.head(key)?.size)), // nothing is in it
        fetched => Ok((front, fetched?)),
    }
}

/// Ranges under way at once.
const AT_ONCE: usize = 4;
/// Bytes that workers may be behind the foremost one.
const BEHIND: u64 = 256 * 1024;

/// A payload that is being fetched.
pub struct Download<'a> {
    store: &'a dyn Store,
    key: &'a str,
    size: u64,
    cut: Cut,
    readers: usize,
    /// Blocks that are kept behind the foremost reader.
    behind: u64,
    spool: Option<&'a Spool>,
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that came in no order.
    arrived: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The first run, until somebody reads in order.
    front: Option<Bytes>,
    /// Fetch ahead.
    ordered: bool,
    /// Blocks before this one were asked for.
    asked: u64,
    /// The foremost block that was read.
    foremost: u64,
    coming: BTreeSet<u64>,
    here: BTreeMap<u64, Arc<Vec<u8>>>,
    spare: Vec<Vec<u8>>,
    failure: Option<StoreError>,
    closed: bool,
    fetched: u64,
    reused: u64,
}

impl<'a> Download<'a> {
    /// The payload of `size` bytes under `key`, to be read in order by `readers` threads.
    pub fn new(
        store: &'a dyn Store,
        key: &'a str,
        size: u64,
        cut: Cut,
        readers: usize,
        spool: Option<&'a Spool>,
    ) -> Self {
        let behind = 1 + (readers as u64 * BEHIND).div_ceil(cut.block);
        let state = Mutex::new(State { ordered: true, ..State::default() });
        Self {
            store,
            key,
            size,
            cut,
            readers,
            behind,
            spool,
            state,
            changed: Condvar::new(),
            arrived: AtomicU64::new(0),
        }
    }

    /// The same, to be read in any order if the reader wants to; [`front`] is its first run.
    #[must_use]
    pub fn in_any_order(self, front: Vec<u8>) -> Self {
        let mut state = self.lock();
        state.ordered = false;
        state.front = Some(front.into());
        drop(state);
        self
    }

    /// Runs `read`, which reads the payload, while ranges are fetched ahead of it.
    pub fn run<T>(&self, read: impl FnOnce(&dyn ReadAt) -> T) -> T {
        struct Close<'d, 's>(&'d Download<'s>);
        impl Drop for Close<'_, '_> {
            fn drop(&mut self) {
                self.0.lock().closed = true;
                self.0.changed.notify_all();
            }
        }
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(usize::try_from(self.blocks()).unwrap_or(AT_ONCE)) {
                scope.spawn(|| self.fetcher());
            }
            let _close = Close(self);
            read(self)
        })
    }

    /// Bytes that came from the store, and bytes that an interrupted pull had left here.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.lock();
        (state.fetched + self.arrived.load(Ordering::Relaxed), state.reused)
    }

    fn blocks(&self) -> u64 {
        self.size.div_ceil(self.cut.block)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches block after block, as far ahead as memory allows.
    fn fetcher(&self) {
        loop {
            let mut state = self.lock();
            let block = loop {
                if state.closed || state.failure.is_some() || state.asked >= self.blocks() {
                    return;
                }
                if state.ordered && state.asked < state.foremost + 1 + AT_ONCE as u64 {
                    break state.asked;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.asked += 1;
            state.coming.insert(block);
            let mut buffer = state.spare.pop().unwrap_or_default();
            drop(state);
            let fetched = self.block(block, &mut buffer);
            let mut state = self.lock();
            state.coming.remove(&block);
            match fetched {
                Ok(_) if state.foremost > block + self.behind => state.spare.push(buffer),
                Ok(reused) => {
                    *(if reused { &mut state.reused } else { &mut state.fetched }) += buffer.len() as u64;
                    state.here.insert(block, Arc::new(buffer));
                }
                Err(e) => {
                    state.failure.get_or_insert(e);
                }
            }
            self.changed.notify_all();
        }
    }

    /// One block, from the spool of an interrupted pull or from the store; true if from the spool.
    fn block(&self, block: u64, buffer: &mut Vec<u8>) -> Result<bool> {
        let start = block * self.cut.block;
        let len = usize::try_from(self.cut.block.min(self.size - start)).unwrap_or_default();
        if let Some(spool) = self.spool.filter(|s| s.has(block)) {
            buffer.resize(len, 0);
            if spool.read(block, buffer) {
                return Ok(true);
            }
        }
        self.store.fetch_into(self.key, start..start + len as u64, buffer)?;
        self.check_len(buffer.len(), start, len)?;
        if let Some(spool) = self.spool {
            spool.keep(block, buffer)?;
        }
        Ok(false)
    }

    fn fetch(&self, buffer: &mut [u8], start: u64) -> Result<()> {
        let mut at = 0;
        let len = buffer.len();
        self.store.fetch(self.key, start..start + len as u64, &mut |data| {
            if let Some(space) = buffer.get_mut(at..at + data.len()) {
                space.copy_from_slice(data);
            }
            at += data.len();
            Ok(())
        })?;
        self.check_len(at, start, len)
    }

    fn check_len(&self, at: usize, start: u64, len: usize) -> Result<()> {
        if at == len {
            return Ok(());
        }
        let message = format!("the payload is shorter than it was: {at} bytes at {start}, expected {len}");
        Err(StoreError::new("GetObject", self.store.place(self.key), crate::Cause::Malformed, message))
    }

    /// A block in memory, waiting for it if it is on its way. `None` if it is not.
    fn here(&self, block: u64) -> Result<Option<Arc<Vec<u8>>>> {
        let mut state = self.lock();
        loop {
            if let Some(data) = state.here.get(&block).cloned() {
                self.advance(&mut state, block);
                return Ok(Some(data));
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            let expected = state.coming.contains(&block) || (block >= state.asked && block <= state.foremost + 1);
            if !expected || state.closed {
                return Ok(None);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is here of the front, as long as nobody reads in order.
    fn unordered(&self) -> Option<Bytes> {
        let state = self.lock();
        state.front.clone().filter(|_| !state.ordered)
    }

    fn read_in_order(&self) {
        let mut state = self.lock();
        if !state.ordered {
            state.ordered = true;
            state.front = None;
            self.changed.notify_all();
        }
    }

    /// Someone reads in `block`: blocks far behind it are let go.
    fn advance(&self, state: &mut State, block: u64) {
        if block <= state.foremost {
            return;
        }
        state.foremost = block;
        let keep = block.saturating_sub(self.behind);
        while let Some(entry) = state.here.first_entry().filter(|e| *e.key() < keep) {
            // What somebody still reads is let go by whoever reads it.
            if let Ok(buffer) = Arc::try_unwrap(entry.remove()) {
                state.spare.push(buffer);
            }
        }
        self.changed.notify_all();
    }
}

impl ReadAt for Download<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(front) = self.unordered() {
            let inside = usize::try_from(offset).ok().and_then(|from| front.get(from..from.checked_add(buf.len())?));
            match inside {
                Some(data) => buf.copy_from_slice(data),
                None => self.fetch(buf, offset)?,
            }
            return Ok(());
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (block, inside) = (at / self.cut.block, usize::try_from(at % self.cut.block).unwrap_or_default());
            let room = usize::try_from(self.cut.block).unwrap_or(usize::MAX) - inside;
            let end = (done + room).min(buf.len());
            let Some(into) = buf.get_mut(done..end) else { break };
            let here = self.here(block)?;
            match here.as_ref().and_then(|data| data.get(inside..inside + into.len())) {
                Some(data) => into.copy_from_slice(data),
                None => self.fetch(into, at)?,
            }
            done = end;
        }
        Ok(())
    }

    fn lend(&self, offset: u64, len: usize) -> Option<Lent> {
        self.read_in_order();
        let (block, inside) = (offset / self.cut.block, usize::try_from(offset % self.cut.block).ok()?);
        let within = inside + len <= usize::try_from(self.cut.block).ok()? && offset + len as u64 <= self.size;
        let data = if within { self.here(block).ok()?? } else { return None };
        Lent::new(data, inside..inside + len)
    }

    /// Unless somebody reads in order already, or an earlier pull left something.
    fn arriving(&self, run: u64) -> Option<Box<dyn Unordered + '_>> {
        let front = self.unordered().filter(|_| run == self.cut.run && self.store.is_remote())?;
        if self.spool.is_some_and(|s| s.blocks() > 0) {
            return None;
        }
        let front = if front.len() as u64 == run.min(self.size) { front } else { Bytes::new() };
        let Self { store, key, size, cut, readers, spool, arrived, .. } = self;
        Some(Box::new(Arriving::new((*store, key, *size), *cut, front, *readers, *spool, arrived)))
    }

    /// The blocks it was in are dropped, here and in the spool; the next read asks the store.
    fn forget(&self, offset: u64, len: u64) -> bool {
        let mut state = self.lock();
        if let Some(front) = &mut state.front
            && offset < front.len() as u64
        {
            *front = Bytes::new();
        }
        for block in offset / self.cut.block..=(offset + len.max(1) - 1) / self.cut.block {
            state.here.remove(&block);
            if let Some(spool) = self.spool {
                spool.forget(block);
            }
        }
        self.store.is_remote() || self.spool.is_some()
    }
}
