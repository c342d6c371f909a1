//! Feeds the scanner with the very bytes that are sealed, in the same read. Small entries are scanned where
//! they are; others by a thread behind a short queue, which is told what it may leave out.

use crate::scan::{self, Plain, Report, ScanRead};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Messages under way to a scanner; each at most a batch long.
const QUEUE: usize = 2;

/// Scans bytes that are in memory as a whole.
pub(crate) fn scan_whole(path: &str, data: &[u8]) -> io::Result<Report> {
    scan::scan(path, &mut Plain(data))
}

/// A scanner at work on one entry.
pub(crate) struct Feed {
    sender: Option<SyncSender<(u64, Vec<u8>)>>,
    shared: Arc<Shared>,
    position: u64,
    scanner: JoinHandle<io::Result<Report>>,
}

struct Shared {
    /// The scanner needs nothing before this offset.
    wanted: AtomicU64,
    /// The entry's length, once it has ended.
    end: AtomicU64,
}

impl Feed {
    pub(crate) fn start(path: &str) -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        let shared = Arc::new(Shared { wanted: AtomicU64::new(0), end: AtomicU64::new(u64::MAX) });
        let (path, theirs) = (path.to_owned(), Arc::clone(&shared));
        let scanner = std::thread::spawn(move || {
            let mut input = FeedReader { receiver, shared: theirs, position: 0, have: Vec::new(), used: 0 };
            scan::scan(&path, &mut input)
        });
        Self { sender: Some(sender), shared, position: 0, scanner }
    }

    /// The entry's next bytes.
    pub(crate) fn push(&mut self, data: &[u8]) {
        let start = self.position;
        self.position += data.len() as u64;
        let wanted = self.shared.wanted.load(Ordering::Acquire);
        let unwanted = usize::try_from(wanted.saturating_sub(start)).unwrap_or(usize::MAX);
        let Some(rest) = data.get(unwanted..).filter(|r| !r.is_empty()) else { return };
        let sent = self.sender.as_ref().is_some_and(|s| s.send((start + unwanted as u64, rest.to_vec())).is_ok());
        if !sent {
            self.sender = None; // the scanner has ended; `finish` tells why
        }
    }

    /// The entry has ended.
    pub(crate) fn finish(mut self) -> io::Result<Report> {
        self.shared.end.store(self.position, Ordering::Release);
        self.sender = None;
        self.scanner.join().unwrap_or_else(|_| Err(io::Error::other("the scanner failed")))
    }
}

struct FeedReader {
    receiver: Receiver<(u64, Vec<u8>)>,
    shared: Arc<Shared>,
    position: u64,
    have: Vec<u8>,
    used: usize,
}

impl FeedReader {
    /// Bytes at `position`, waiting for them; empty at the end of the entry.
    fn available(&mut self) -> io::Result<&[u8]> {
        while self.used >= self.have.len() {
            let Ok((offset, data)) = self.receiver.recv() else {
                let end = self.shared.end.load(Ordering::Acquire);
                if end == u64::MAX {
                    return Err(io::Error::other("sealing stopped"));
                }
                return Ok(&[]);
            };
            // Bytes before `offset` were left out because they were to be skipped.
            let behind = usize::try_from(self.position.saturating_sub(offset)).unwrap_or(usize::MAX);
            debug_assert!(offset <= self.position);
            self.used = behind.min(data.len());
            self.have = data;
        }
        Ok(self.have.get(self.used..).unwrap_or_default())
    }
}

impl Read for FeedReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut have = self.available()?;
        let n = have.read(buf)?;
        self.used += n;
        self.position += n as u64;
        Ok(n)
    }
}

impl ScanRead for FeedReader {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let start = self.position;
        let target = start.saturating_add(n);
        let at_hand = (self.have.len() - self.used) as u64;
        if n <= at_hand {
            self.used += usize::try_from(n).unwrap_or(usize::MAX);
            self.position = target;
            return Ok(n);
        }
        self.used = self.have.len();
        self.position = target;
        self.shared.wanted.store(target, Ordering::Release);
        if !self.available()?.is_empty() {
            return Ok(n);
        }
        let end = self.shared.end.load(Ordering::Acquire);
        self.position = end.min(target);
        Ok(self.position - start)
    }
}
