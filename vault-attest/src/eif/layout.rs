//! The file's header and its section headers: big-endian, fixed sizes, every offset and size checked against the file.

use super::{EifError, MAX_CMDLINE, MAX_SIGNATURE};
use std::fmt;
use vault_core::io::ReadAt;

/// Most sections that a header holds.
pub const MAX_SECTIONS: usize = 32;

/// Bytes of the header; the last four are the checksum, over everything but themselves.
pub(super) const HEADER_LEN: usize = 548;
const CHECKED_LEN: usize = HEADER_LEN - 4;
/// Bytes of a section's header.
pub(super) const SECTION_HEADER_LEN: usize = 12;
const MAGIC: [u8; 4] = *b".eif";
const ARM64: u16 = 1;

/// What an image runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// x86-64.
    X86_64,
    /// 64-bit Arm.
    Arm64,
}

impl Architecture {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The kernel.
    Kernel = 1,
    /// Its command line.
    Cmdline,
    /// A part of the first file system.
    Ramdisk,
    /// A signature of PCR0.
    Signature,
    /// What the build says about itself; not measured.
    Metadata,
}

impl Kind {
    fn of(number: u16) -> Option<Self> {
        [Self::Kernel, Self::Cmdline, Self::Ramdisk, Self::Signature, Self::Metadata]
            .into_iter()
            .find(|kind| *kind as u16 == number)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cmdline => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        }
    }

    fn most(self) -> u64 {
        match self {
            Self::Cmdline => MAX_CMDLINE,
            Self::Signature => MAX_SIGNATURE,
            _ => u64::MAX,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the bytes of a section are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// What they are.
    pub kind: Kind,
    /// Where they start, behind the section's header.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

impl Section {
    /// Its header as it stands in the file.
    pub(super) fn header(&self) -> [u8; SECTION_HEADER_LEN] {
        let mut out = [0; SECTION_HEADER_LEN];
        let bytes = (self.kind as u16).to_be_bytes().into_iter().chain([0, 0]).chain(self.len.to_be_bytes());
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        out
    }
}

/// Headers that obey the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub version: u16,
    pub architecture: Architecture,
    pub sections: Vec<Section>,
    /// The header without its checksum.
    pub checked_header: [u8; CHECKED_LEN],
    pub checksum: u32,
}

/// Reads all headers of a file of `len` bytes.
pub(super) fn read(file: &dyn ReadAt, len: u64) -> Result<Layout, EifError> {
    if len < HEADER_LEN as u64 {
        return Err(EifError::Short(len));
    }
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(&mut bytes, 0)?;
    let mut header = Fields(&bytes);
    let magic = header.take();
    if magic != MAGIC {
        return Err(EifError::Magic(magic));
    }
    let version = header.u16();
    if !matches!(version, 3 | 4) {
        return Err(EifError::Version(version));
    }
    let architecture = match header.u16() {
        0 => Architecture::X86_64,
        ARM64 => Architecture::Arm64,
        flags => return Err(EifError::Flags(flags)),
    };
    let _memory_and_cpus = [header.u64(), header.u64()]; // what to run it with by default; any number
    must_be_zero("the reserved field", u64::from(header.u16()))?;
    let count = header.u16();
    if !(3..=MAX_SECTIONS).contains(&usize::from(count)) {
        return Err(EifError::Count(count));
    }
    let offsets: [u64; MAX_SECTIONS] = std::array::from_fn(|_| header.u64());
    let sizes: [u64; MAX_SECTIONS] = std::array::from_fn(|_| header.u64());
    must_be_zero("the unused field", u64::from(header.u32()))?;
    let checksum = header.u32();
    let mut walk = Walk { file, len, end: HEADER_LEN as u64, version, sections: Vec::new() };
    for (index, (&offset, &size)) in offsets.iter().zip(&sizes).enumerate() {
        if index < usize::from(count) {
            walk.step(offset, size)?;
        } else {
            must_be_zero("the offset of a section that is not there", offset)?;
            must_be_zero("the size of a section that is not there", size)?;
        }
    }
    let sections = walk.finish()?;
    let mut checked_header = [0; CHECKED_LEN];
    checked_header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(Layout { version, architecture, sections, checked_header, checksum })
}

fn must_be_zero(field: &'static str, value: u64) -> Result<(), EifError> {
    if value == 0 { Ok(()) } else { Err(EifError::NotZero { field, value }) }
}

/// From section to section; what was passed is good.
struct Walk<'a> {
    file: &'a dyn ReadAt,
    len: u64,
    end: u64,
    version: u16,
    sections: Vec<Section>,
}

impl Walk<'_> {
    fn step(&mut self, offset: u64, size: u64) -> Result<(), EifError> {
        let section = self.sections.len();
        if offset != self.end {
            return Err(EifError::Offset { section, expected: self.end, found: offset });
        }
        let start = offset.checked_add(SECTION_HEADER_LEN as u64);
        let end = start.and_then(|start| start.checked_add(size)).filter(|end| *end <= self.len);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(EifError::Cut { section, offset, size, len: self.len });
        };
        let mut bytes = [0; SECTION_HEADER_LEN];
        self.file.read_exact_at(&mut bytes, offset)?;
        let mut header = Fields(&bytes);
        let found = header.u16();
        let kind = Kind::of(found).ok_or(EifError::Kind { section, found })?;
        must_be_zero("the flags of a section", u64::from(header.u16()))?;
        let in_section = header.u64();
        if in_section != size {
            return Err(EifError::Size { section, in_header: size, in_section });
        }
        self.check_order(kind)?;
        if size > kind.most() {
            return Err(EifError::Length { section, kind, size, most: kind.most() });
        }
        self.sections.push(Section { kind, offset: start, len: size });
        self.end = end;
        Ok(())
    }

    /// One kernel, one command line, then the rest in any order.
    fn check_order(&self, found: Kind) -> Result<(), EifError> {
        let section = self.sections.len();
        let there = self.sections.iter().any(|s| s.kind == found);
        let rule = match (section, found) {
            (0, Kind::Kernel) | (1, Kind::Cmdline) => return Ok(()),
            (0, _) => "the kernel comes first",
            (1, _) => "the command line comes second",
            (_, Kind::Ramdisk) => return Ok(()),
            (_, Kind::Metadata) if self.version < 4 => "version 3 has none",
            _ if there => "there is one already",
            _ => return Ok(()),
        };
        Err(EifError::Order { section, found, rule })
    }

    fn finish(self) -> Result<Vec<Section>, EifError> {
        if self.end != self.len {
            return Err(EifError::Trailing(self.len - self.end));
        }
        if !self.sections.iter().any(|s| s.kind == Kind::Ramdisk) {
            return Err(EifError::NoRamdisk);
        }
        Ok(self.sections)
    }
}

/// Numbers from a buffer of a size that is fixed here; past its end there are zeros.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}
