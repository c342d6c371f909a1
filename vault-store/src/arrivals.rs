//! A payload that is opened in any order: several ranges on their way at once, shared out to the threads that open them.
//! Each thread has connections of its own and takes what comes on them where it is, so that nothing is copied on the way
//! and little memory is enough. Everything here is ciphertext.

use crate::download::Cut;
use crate::error::{Result, StoreError};
use crate::spool::{Keeping, Spool};
use crate::store::{Came, Receiver, Store};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Ranges on their way at once, where there are no more threads than that.
const AT_ONCE: usize = 4;
/// Ranges on their way at once at most.
const MOST: u64 = 32;
/// Bytes for all of them: of each, two runs and what a connection has received.
const MEMORY: u64 = 192 << 20;
/// Ranges that may be on their way or done while an earlier one is not.
const AHEAD: u64 = 64;
/// Most blocks of a range: a server does less for fewer requests.
const WIDE: u64 = 4;

/// A payload on its way.
pub struct Arriving<'a> {
    store: &'a dyn Store,
    key: &'a str,
    size: u64,
    cut: Cut,
    /// Bytes of a range.
    range: u64,
    /// What is here of it already.
    front: Bytes,
    /// Ranges at once for each thread.
    each: usize,
    /// Threads that take part.
    threads: usize,
    spool: Option<&'a Spool>,
    fetched: &'a AtomicU64,
    ranges: Mutex<Ranges>,
    changed: Condvar,
}

/// Ranges by number.
#[derive(Default)]
struct Ranges {
    next: u64,
    coming: BTreeSet<u64>,
    threads: usize,
    /// A thread has given up what it was to take.
    broken: bool,
}

impl<'a> Arriving<'a> {
    /// The payload of `size` bytes under `key`, for `threads` threads.
    pub fn new(
        (store, key, size): (&'a dyn Store, &'a str, u64),
        cut: Cut,
        front: Bytes,
        threads: usize,
        spool: Option<&'a Spool>,
        fetched: &'a AtomicU64,
    ) -> Self {
        let most = (MEMORY / (2 * cut.run + (1 << 20))).clamp(1, MOST);
        let most = usize::try_from(most).unwrap_or(1);
        let each = AT_ONCE.div_ceil(threads.max(1)).min(most);
        let range = cut.block * (size / cut.block / (AT_ONCE as u64 * 4)).clamp(1, WIDE);
        let (threads, ranges, changed) = (most / each, Mutex::default(), Condvar::new());
        Self { store, key, size, cut, range, front, each, threads, spool, fetched, ranges, changed }
    }

    fn lock(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next range for a thread that has `have` of them, and where it starts and ends. A thread that has none waits
    /// until there is one; `None` if it shall go on with what it has.
    fn claim(&self, have: usize) -> Option<(u64, u64, u64)> {
        let mut ranges = self.lock();
        while !ranges.broken && ranges.next * self.range < self.size {
            let number = ranges.next;
            if ranges.coming.first().is_none_or(|first| number < first + AHEAD) {
                ranges.next += 1;
                ranges.coming.insert(number);
                let start = number * self.range;
                return Some((number, start, self.size.min(start + self.range)));
            }
            if have > 0 {
                return None;
            }
            ranges = self.changed.wait(ranges).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn ended(&self, number: u64) {
        self.lock().coming.remove(&number);
        self.changed.notify_all();
    }
}

impl vault_core::io::Arriving for Arriving<'_> {
    fn receive(&self) -> io::Result<Box<dyn vault_core::io::Arrivals + '_>> {
        let mut ranges = self.lock();
        ranges.threads += 1;
        let too_many = ranges.threads > self.threads;
        drop(ranges);
        let receiver = if too_many { None } else { self.store.receiver()? };
        Ok(Box::new(Share { of: self, receiver, coming: BTreeMap::new(), given: Bytes::new() }))
    }
}

/// One thread's share.
struct Share<'s> {
    of: &'s Arriving<'s>,
    /// None: others do it.
    receiver: Option<Box<dyn Receiver>>,
    coming: BTreeMap<u64, Coming>,
    /// What was given out last.
    given: Bytes,
}

/// A range on its way.
struct Coming {
    at: u64,
    end: u64,
    keeping: Option<Keeping>,
}

impl Share<'_> {
    /// Asks for as many ranges as a thread may have on their way. What is here already comes at once.
    fn begin(&mut self) -> Option<(u64, Bytes)> {
        let receiver = self.receiver.as_mut()?;
        while self.coming.len() < self.of.each
            && let Some((number, start, end)) = self.of.claim(self.coming.len())
        {
            let here = if number == 0 { self.of.front.clone() } else { Bytes::new() };
            let at = start + here.len() as u64;
            if at < end {
                receiver.begin(number, self.of.key, at..end);
            }
            self.coming.insert(number, Coming { at: start, end, keeping: None });
            if !here.is_empty() {
                return Some((number, here));
            }
        }
        None
    }

    /// What came of a range is counted, and kept if it is time for that.
    fn take(&mut self, number: u64, data: &Bytes) -> Result<u64> {
        let Some(coming) = self.coming.get_mut(&number) else { return Err(self.wrong(0)) };
        let (start, len) = (coming.at, data.len() as u64);
        self.of.fetched.fetch_add(len, Ordering::Relaxed);
        match self.of.spool {
            Some(spool) => coming.keep(data, self.of.cut.block, spool)?,
            None => coming.at += len,
        }
        if coming.at == coming.end && coming.end <= self.of.front.len() as u64 {
            self.end(number)?; // it was all here
        }
        Ok(start)
    }

    fn end(&mut self, number: u64) -> Result<()> {
        match self.coming.remove(&number) {
            Some(Coming { at, end, .. }) if at == end => self.of.ended(number),
            other => return Err(self.wrong(other.map_or(0, |c| c.at))),
        }
        Ok(())
    }

    fn wrong(&self, at: u64) -> StoreError {
        let message = format!("the payload is shorter than it was: it ends at {at}");
        StoreError::new("GetObject", self.of.store.place(self.of.key), crate::Cause::Malformed, message)
    }
}

impl Coming {
    /// Keeps what has come next, block by block.
    fn keep(&mut self, mut data: &[u8], block: u64, spool: &Spool) -> Result<()> {
        while !data.is_empty() {
            if self.at.is_multiple_of(block) {
                self.keeping = spool.begin(self.at / block);
            }
            let left = usize::try_from(block - self.at % block).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(data.len().min(left));
            spool.add(&mut self.keeping, now)?;
            self.at += now.len() as u64;
            data = later;
            if self.at.is_multiple_of(block) || self.at == self.end {
                spool.end(self.keeping.take())?;
            }
        }
        Ok(())
    }
}

impl vault_core::io::Arrivals for Share<'_> {
    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        loop {
            self.given = Bytes::new();
            let came = match self.begin() {
                Some((number, here)) => Came::Bytes(number, here),
                None if self.coming.is_empty() => return Ok(None),
                None => match &mut self.receiver {
                    Some(receiver) => receiver.next(),
                    None => return Ok(None),
                },
            };
            match came {
                Came::Bytes(number, data) => {
                    let at = self.take(number, &data)?;
                    self.given = data;
                    return Ok(Some((at, &self.given)));
                }
                Came::End(number, end) => {
                    end?;
                    self.end(number)?;
                }
            }
        }
    }
}

impl Drop for Share<'_> {
    /// Nobody must wait for what this thread does not take any more.
    fn drop(&mut self) {
        if !self.coming.is_empty() {
            self.of.lock().broken = true;
            self.of.changed.notify_all();
        }
    }
}
