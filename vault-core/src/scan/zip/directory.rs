//! The central directory, held against what the local headers showed.
//!
//! Every member must be listed once, with the same name, method, sizes, checksum and offset,
//! and the end records must point at exactly this directory. Loaders that search backwards for
//! those records then cannot find anything else.

use super::member::zip64;
use crate::scan::source::{Halt, Source, bad};

/// Flag bits that change how a member reads: encryption, descriptor, strong, names in UTF-8.
const FLAGS: u16 = 0x0849;
/// Bytes of the end record and of zip64's locator, which loaders look for at fixed distances.
const LOCATOR: usize = 20;
/// A field that means "see the zip64 record".
const WIDE_16: u64 = 0xffff;
const WIDE_32: u64 = 0xffff_ffff;

/// A member as its local header and its bytes showed it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub offset: u64,
    pub method: u16,
    pub flags: u16,
    pub crc: u32,
    pub packed: u64,
    pub size: u64,
}

/// All members so far.
#[derive(Default)]
pub(super) struct Directory {
    names: Vec<u8>,
    entries: Vec<(Entry, usize, usize)>,
}

impl Directory {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn name_bytes(&self) -> usize {
        self.names.len()
    }

    pub fn add(&mut self, name: &[u8], entry: Entry) {
        let start = self.names.len();
        self.names.extend_from_slice(name);
        self.entries.push((entry, start, self.names.len()));
    }

    fn name(&self, index: usize) -> &[u8] {
        let range = self.entries.get(index).map_or(0..0, |(_, start, end)| *start..*end);
        self.names.get(range).unwrap_or_default()
    }

    pub fn has(&self, test: impl Fn(&[u8]) -> bool) -> bool {
        (0..self.len()).any(|i| test(self.name(i)))
    }

    /// Reads the directory and the end records, to the end of the input.
    pub fn check(&self, src: &mut Source<'_>) -> Result<(), Halt> {
        self.no_doubles()?;
        let start = src.offset();
        let mut seen = vec![false; self.len()];
        let mut tail = [0; LOCATOR];
        while src.peek(4)? == b"PK\x01\x02" {
            let index = self.listed(src, &mut tail)?;
            match seen.get_mut(index) {
                Some(slot) if !*slot => *slot = true,
                _ => return bad("the directory lists a member twice"),
            }
        }
        if seen.contains(&false) {
            return bad("a member that the directory does not list");
        }
        let whole = End { count: self.len() as u64, size: src.offset() - start, start };
        let wide = whole.zip64(src)?;
        // A loader would take a locator out of the directory's own bytes.
        if !wide && tail.starts_with(b"PK\x06\x07") {
            return bad("a zip64 locator hidden in the directory");
        }
        whole.end(src, wide)
    }

    fn no_doubles(&self) -> Result<(), Halt> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        let double = order.windows(2).any(|pair| match pair {
            [a, b] => self.name(*a) == self.name(*b),
            _ => false,
        });
        if double { bad("two members of one name") } else { Ok(()) }
    }

    /// Reads one entry and returns the index of the member it matches.
    fn listed(&self, src: &mut Source<'_>, tail: &mut [u8; LOCATOR]) -> Result<usize, Halt> {
        let fixed = src.array::<46>()?;
        let half =
            |at: usize| fixed.get(at..at + 2).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b));
        let full =
            |at: usize| fixed.get(at..at + 4).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
        let name = src.take(usize::from(half(28)))?;
        let extra = src.take(usize::from(half(30)))?;
        let comment = src.take(usize::from(half(32)))?;
        for part in [fixed.as_slice(), &name, &extra, &comment] {
            roll(tail, part);
        }
        let mut wide = zip64(&extra)?;
        let mut values = [u64::from(full(24)), u64::from(full(20)), u64::from(full(42))];
        for value in &mut values {
            if *value == WIDE_32 {
                *value = wide.next().ok_or_else(|| Halt::Bad("zip64 sizes are missing".into()))?;
            }
        }
        let [size, packed, offset] = values;
        let shown = String::from_utf8_lossy(&name).into_owned();
        let found = self.entries.binary_search_by_key(&offset, |(entry, ..)| entry.offset);
        let Some((index, (entry, ..))) = found.ok().and_then(|i| Some((i, self.entries.get(i)?))) else {
            return bad(format!("the directory lists '{shown}' where no member begins"));
        };
        let local = (entry.method, entry.flags & FLAGS, entry.crc, entry.packed, entry.size, 0);
        let central = (half(10), half(8) & FLAGS, full(16), packed, size, half(34));
        if self.name(index) != name || local != central {
            let own = String::from_utf8_lossy(self.name(index));
            return bad(format!("the directory disagrees with its member: '{shown}' is '{own}'"));
        }
        Ok(index)
    }
}

fn roll(tail: &mut [u8; LOCATOR], part: &[u8]) {
    let keep = LOCATOR.saturating_sub(part.len());
    let old: Vec<u8> = tail.iter().copied().skip(LOCATOR - keep).collect();
    let new = part.iter().copied().skip(part.len().saturating_sub(LOCATOR));
    for (to, from) in tail.iter_mut().zip(old.into_iter().chain(new)) {
        *to = from;
    }
}

/// What the end records must say.
struct End {
    count: u64,
    size: u64,
    start: u64,
}

impl End {
    /// The zip64 record and its locator, if they are there.
    fn zip64(&self, src: &mut Source<'_>) -> Result<bool, Halt> {
        if src.peek(4)? != b"PK\x06\x06" {
            return Ok(false);
        }
        let at = src.offset();
        src.array::<4>()?;
        let length = src.u64()?;
        src.u32()?;
        let disks = (src.u32()?, src.u32()?);
        let stated = (src.u64()?, src.u64()?, src.u64()?, src.u64()?);
        if length != 44 || disks != (0, 0) || stated != (self.count, self.count, self.size, self.start) {
            return bad("the zip64 end record disagrees with the archive");
        }
        let locator = (src.array::<4>()?, src.u32()?, src.u64()?, src.u32()?);
        if locator != (*b"PK\x06\x07", 0, at, 1) {
            return bad("the zip64 locator disagrees with the archive");
        }
        Ok(true)
    }

    /// The end record, and nothing after it.
    fn end(&self, src: &mut Source<'_>, wide: bool) -> Result<(), Halt> {
        if src.array::<4>()? != *b"PK\x05\x06" {
            return bad("bytes in the directory that nothing explains");
        }
        let disks = (src.u16()?, src.u16()?);
        let counts = (u64::from(src.u16()?), u64::from(src.u16()?));
        let (size, start) = (u64::from(src.u32()?), u64::from(src.u32()?));
        let fits = |stated: u64, real: u64, escape: u64| stated == real || (wide && stated == escape);
        let right = disks == (0, 0)
            && fits(counts.0, self.count, WIDE_16)
            && fits(counts.1, self.count, WIDE_16)
            && fits(size, self.size, WIDE_32)
            && fits(start, self.start, WIDE_32);
        if !right {
            return bad("the end record disagrees with the archive");
        }
        let len = usize::from(src.u16()?);
        let comment = src.take(len)?;
        // A loader that searches from the end must not find another record in the comment.
        if memchr::memmem::find(&comment, b"PK").is_some() {
            return bad("an archive comment with a record in it");
        }
        if src.at_end()? { Ok(()) } else { bad("bytes after the archive") }
    }
}
