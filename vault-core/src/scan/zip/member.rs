//! One zip member: its local header, its bytes as a reader, and the descriptor after them.

use crate::scan::ScanRead;
use crate::scan::inflate::{Inflate, Wrap};
use crate::scan::log::Budget;
use crate::scan::source::{Halt, Source, bad};
use std::io::{self, Read};
use std::rc::Rc;

/// The two methods that are read.
pub(super) const STORED: u16 = 0;
pub(super) const DEFLATED: u16 = 8;
/// Flag bits: encrypted, sizes follow in a descriptor, patch data, strongly encrypted, masked.
const ENCRYPTED: u16 = 1;
const STREAMED: u16 = 1 << 3;
const PATCHED: u16 = 1 << 5;
const STRONG: u16 = 1 << 6;
const MASKED: u16 = 1 << 13;
/// Descriptor with 32-bit and with 64-bit sizes, in bytes.
const DESCRIPTOR: usize = 16;
const DESCRIPTOR_64: usize = 24;
const DESCRIPTOR_SIGN: &[u8] = b"PK\x07\x08";
/// A field that means "see the zip64 extra".
const IN_EXTRA: u64 = 0xffff_ffff;

/// A local header.
pub(super) struct Header {
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub packed: u64,
    pub size: u64,
    pub name: Vec<u8>,
}

impl Header {
    pub fn read(src: &mut Source<'_>) -> Result<Self, Halt> {
        src.array::<6>()?;
        let (flags, method) = (src.u16()?, src.u16()?);
        src.u32()?;
        let (crc, packed, size) = (src.u32()?, u64::from(src.u32()?), u64::from(src.u32()?));
        let (name, extra) = (usize::from(src.u16()?), usize::from(src.u16()?));
        let name = src.take(name)?;
        let extra = src.take(extra)?;
        if name.contains(&0) {
            return bad("a member's name holds a zero byte");
        }
        let mut header = Self { flags, method, crc, packed, size, name };
        let mut wide = zip64(&extra)?;
        for field in [&mut header.size, &mut header.packed] {
            if *field == IN_EXTRA {
                *field = wide.next().ok_or_else(|| Halt::Bad("zip64 sizes are missing".into()))?;
            }
        }
        Ok(header)
    }

    pub fn encrypted(&self) -> bool {
        self.flags & (ENCRYPTED | STRONG | MASKED | PATCHED) != 0
    }

    /// Sizes and checksum stand after the data.
    pub fn streamed(&self) -> bool {
        self.flags & STREAMED != 0
    }

    /// The packed size is not known before the data.
    fn open_ended(&self) -> bool {
        self.streamed() && self.packed == 0
    }
}

/// The 64-bit values of a zip64 extra field, in order. Fields must fit exactly.
pub(super) fn zip64(extra: &[u8]) -> Result<impl Iterator<Item = u64> + use<>, Halt> {
    let mut rest = extra;
    let mut values = Vec::new();
    let mut seen = false;
    while !rest.is_empty() {
        let Some(([a, b, c, d], tail)) = rest.split_first_chunk::<4>() else {
            return bad("a broken extra field");
        };
        let len = usize::from(u16::from_le_bytes([*c, *d]));
        let Some((data, tail)) = tail.split_at_checked(len) else { return bad("a broken extra field") };
        if u16::from_le_bytes([*a, *b]) == 1 {
            if seen {
                return bad("two zip64 extra fields");
            }
            seen = true;
            values = data.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        }
        rest = tail;
    }
    Ok(values.into_iter())
}

/// A member's unpacked bytes.
pub(super) enum Body<'x, 'y> {
    Deflated(Box<Inflate<'x, 'y>>),
    Stored(Stored<'x, 'y>),
}

/// Stored bytes: so many, or up to the descriptor that fits them.
pub(super) struct Stored<'x, 'y> {
    src: &'x mut Source<'y>,
    left: Option<u64>,
    crc: crc32fast::Hasher,
    total: u64,
    done: bool,
    fault: Option<String>,
}

impl<'x, 'y> Body<'x, 'y> {
    pub fn new(src: &'x mut Source<'y>, header: &Header, budget: Rc<Budget>) -> Self {
        if header.method == DEFLATED {
            return Self::Deflated(Box::new(Inflate::new(src, Wrap::Raw, budget)));
        }
        let left = (!header.open_ended()).then_some(header.packed);
        Self::Stored(Stored { src, left, crc: crc32fast::Hasher::new(), total: 0, done: false, fault: None })
    }

    /// Checksum, size and fault, once read to the end.
    pub fn finish(self) -> (u32, u64, Option<String>) {
        match self {
            Self::Deflated(inflate) => (inflate.crc(), inflate.total, inflate.fault),
            Self::Stored(stored) => (stored.crc.finalize(), stored.total, stored.fault),
        }
    }
}

impl Stored<'_, '_> {
    /// How many of the buffered bytes belong to the member, at least one unless at its end.
    fn ready(&mut self) -> io::Result<usize> {
        if self.done {
            return Ok(0);
        }
        if let Some(left) = self.left {
            let have = self.src.chunk()?.len();
            if have == 0 && left > 0 {
                self.fault = Some("ends too early".to_owned());
            }
            let n = have.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.done = n == 0;
            return Ok(n);
        }
        // The window must hold a whole descriptor and the signature after it.
        if self.src.peek(DESCRIPTOR_64 + 2)?.is_empty() {
            self.fault = Some("ends without a data descriptor".to_owned());
            self.done = true;
            return Ok(0);
        }
        let chunk = self.src.chunk()?;
        let keep = match memchr::memmem::find(chunk, DESCRIPTOR_SIGN) {
            Some(0) => {
                let crc = self.crc.clone().finalize();
                self.done = descriptor(chunk, crc, self.total, self.total).is_some();
                usize::from(!self.done)
            }
            Some(at) => at,
            // A signature may begin in the last three bytes.
            None => chunk.len().saturating_sub(DESCRIPTOR_SIGN.len() - 1).max(1),
        };
        Ok(keep)
    }

    fn advance(&mut self, n: usize) -> io::Result<()> {
        let part = self.src.chunk()?;
        self.crc.update(part.get(..n).unwrap_or_default());
        self.src.consume(n);
        self.total = self.total.saturating_add(n as u64);
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(n as u64);
        }
        Ok(())
    }
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stored = match self {
            Self::Deflated(inflate) => return inflate.read(buf),
            Self::Stored(stored) => stored,
        };
        let n = stored.ready()?.min(buf.len());
        for (to, from) in buf.iter_mut().zip(stored.src.chunk()?.iter().take(n)) {
            *to = *from;
        }
        stored.advance(n)?;
        Ok(n)
    }
}

impl ScanRead for Body<'_, '_> {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let stored = match self {
            Self::Deflated(inflate) => return inflate.skip(n),
            Self::Stored(stored) => stored,
        };
        let mut done = 0;
        while done < n {
            let left = usize::try_from(n - done).unwrap_or(usize::MAX);
            let step = stored.ready()?.min(left);
            if step == 0 {
                break;
            }
            stored.advance(step)?;
            done += step as u64;
        }
        Ok(done)
    }
}

/// The length of a descriptor that says exactly this, and that some record follows.
fn descriptor(bytes: &[u8], crc: u32, packed: u64, size: u64) -> Option<usize> {
    let field = |at: usize| bytes.get(at..at + 4)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
    let wide = |at: usize| bytes.get(at..at + 8)?.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    if !bytes.starts_with(DESCRIPTOR_SIGN) || field(4)? != crc {
        return None;
    }
    let record = |at: usize| bytes.get(at..at + 2) == Some(b"PK".as_slice());
    if u64::from(field(8)?) == packed && u64::from(field(12)?) == size && record(DESCRIPTOR) {
        return Some(DESCRIPTOR);
    }
    (wide(8)? == packed && wide(16)? == size && record(DESCRIPTOR_64)).then_some(DESCRIPTOR_64)
}

/// Holds what was read against the header, or against the descriptor that follows.
pub(super) fn check(src: &mut Source<'_>, header: &Header, crc: u32, packed: u64, size: u64) -> Result<(), Halt> {
    if header.streamed() {
        let stated = (header.crc, header.packed, header.size);
        if stated != (0, 0, 0) && header.packed != 0 && stated != (crc, packed, size) {
            return bad("a member differs from its header");
        }
        let next = src.peek(DESCRIPTOR_64 + 2)?;
        let Some(len) = descriptor(next, crc, packed, size) else {
            return bad("a data descriptor that does not fit its member");
        };
        src.consume(len);
        return Ok(());
    }
    if (header.crc, header.packed, header.size) != (crc, packed, size) {
        return bad("a member differs from its header, or its checksum is wrong");
    }
    Ok(())
}
