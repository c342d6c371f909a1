//! A payload that comes over a network that is made up: ranges in any order, side by side, in pieces of any length; and
//! what a bad source may do with them.

use crate::artifact::Files2;
use crate::rng;
use rand_core::Rng;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use vault_core::Result;
use vault_core::header::Header;
use vault_core::io::{Arrivals, Arriving, Input, ReadAt};
use vault_core::open::{OpenOptions, Release, Verified, open};
use vault_core::recipient::Identity;
use vault_core::signature::PublisherPublicKey;

/// What a source does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    None,
    /// A range comes twice.
    Twice,
    /// A range does not come.
    Missing,
    /// A range starts a byte late.
    Shifted,
    /// The network fails in the middle of a range.
    Cut,
    /// The byte at this place of the payload is another one on the way.
    Flipped(usize),
}

/// The payload, and how it comes.
pub struct Coming<'a> {
    pub payload: &'a [u8],
    pub seed: u64,
    pub defect: Defect,
    /// What did not verify can be had anew.
    pub again: bool,
    /// How often it was.
    pub refetched: AtomicUsize,
    /// Whether it was taken in any order.
    pub taken: AtomicUsize,
}

impl<'a> Coming<'a> {
    pub fn new(payload: &'a [u8], seed: u64) -> Self {
        let (refetched, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { payload, seed, defect: Defect::None, again: false, refetched, taken }
    }
}

impl ReadAt for Coming<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.payload.read_exact_at(buf, offset)
    }

    fn arriving(&self, run: u64) -> Option<Box<dyn Arriving + '_>> {
        let mut random = rng(self.seed);
        let range = usize::try_from(run).unwrap() * (1 + random.next_u32() as usize % 3);
        let starts = (0..self.payload.len()).step_by(range);
        let mut ranges: Vec<_> = starts.map(|start| (start, self.payload.len().min(start + range))).collect();
        for i in (1..ranges.len()).rev() {
            ranges.swap(i, random.next_u32() as usize % (i + 1));
        }
        match self.defect {
            Defect::Twice => ranges.push(ranges[0]),
            Defect::Missing => drop(ranges.pop()),
            Defect::Shifted => ranges[0].0 += 1,
            _ => {}
        }
        Some(Box::new(Ranges { of: self, left: Mutex::new(ranges) }))
    }

    fn forget(&self, _: u64, _: u64) -> bool {
        self.refetched.fetch_add(1, Ordering::Relaxed);
        self.again
    }
}

struct Ranges<'r> {
    of: &'r Coming<'r>,
    left: Mutex<Vec<(usize, usize)>>,
}

impl Arriving for Ranges<'_> {
    fn receive(&self) -> io::Result<Box<dyn Arrivals + '_>> {
        let number = self.of.taken.fetch_add(1, Ordering::Relaxed);
        let random = rng(self.of.seed ^ (number as u64 + 1) << 32);
        Ok(Box::new(Share { from: self, random, coming: Vec::new(), piece: Vec::new() }))
    }
}

struct Share<'r> {
    from: &'r Ranges<'r>,
    random: rand_chacha::ChaCha20Rng,
    coming: Vec<(usize, usize)>,
    piece: Vec<u8>,
}

impl Arrivals for Share<'_> {
    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        while self.coming.len() < 2
            && let Some(range) = self.from.left.lock().unwrap().pop()
        {
            self.coming.push(range);
        }
        if self.coming.is_empty() {
            return Ok(None);
        }
        let of = self.from.of;
        let which = self.random.next_u32() as usize % self.coming.len();
        let (at, end) = self.coming[which];
        let most = [9, 5000, 70_000, 600_000][self.random.next_u32() as usize % 4];
        let len = (end - at).min(1 + self.random.next_u32() as usize % most);
        if of.defect == Defect::Cut && at > of.payload.len() / 2 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.piece = of.payload[at..at + len].to_vec();
        if let Defect::Flipped(place) = of.defect
            && let Some(byte) = place.checked_sub(at).and_then(|i| self.piece.get_mut(i))
        {
            *byte ^= 4;
        }
        self.coming[which].0 = at + len;
        if at + len == end {
            self.coming.remove(which);
        }
        Ok(Some((at as u64, &self.piece)))
    }
}

/// Opens what comes in any order, into files.
pub fn open_coming(
    artifact: &[u8],
    identities: &[&dyn Identity],
    signers: &[PublisherPublicKey],
    change: impl FnOnce(&mut Coming<'_>),
) -> (Result<Verified>, Vec<(String, Vec<u8>)>) {
    let files = Files2::default();
    let result = Header::parse(artifact).and_then(|h| h.unlock(identities)).and_then(|header| {
        let offset = usize::try_from(header.header().prelude().header_len).unwrap();
        let mut coming = Coming::new(artifact.get(offset..).unwrap_or_default(), artifact.len() as u64);
        change(&mut coming);
        let options = OpenOptions { signers, threads: 3, ..OpenOptions::default() };
        let len = coming.payload.len() as u64;
        open(Input::At { file: &coming, offset: 0, len }, &header, &options, Release::Files(&files))
    });
    (result, files.0.into_inner().unwrap())
}
