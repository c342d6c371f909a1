//! Enclave image files (EIF): what the hardware will measure of one, before it runs.
//!
//! [`measure`] reads a foreign file once, front to back, in pieces: no length that it claims decides an allocation. One
//! layout is taken, the one that AWS's own tools write: sections without gaps, kernel and command line first. Whatever
//! another reader could see differently is refused, so that PCRs computed here are those of what boots.
//! The checksum is no protection; a signature is verified, its certificate's issuer and time are not.

mod layout;
mod signature;
#[cfg(test)]
mod tests;

pub use layout::{Architecture, Kind, MAX_SECTIONS, Section};

use crate::evidence::Pcr;
use aws_lc_rs::digest::{Context, SHA384, digest};
use layout::Layout;
use std::collections::BTreeMap;
use std::io;
use vault_core::io::ReadAt;

/// Longest command line in bytes; Linux takes 2048 on x86-64.
pub const MAX_CMDLINE: u64 = 4096;
/// Largest signature section in bytes: a certificate, its bytes written as numbers.
pub const MAX_SIGNATURE: u64 = 64 * 1024;

/// An image file whose structure, checksum and signature, if any, are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    layout: Layout,
    pcrs: BTreeMap<u8, Pcr>,
    cmdline: Vec<u8>,
    certificate: Option<Vec<u8>>,
}

impl Image {
    /// The format's version, 3 or 4.
    pub fn version(&self) -> u16 {
        self.layout.version
    }

    /// What it runs on.
    pub fn architecture(&self) -> Architecture {
        self.layout.architecture
    }

    /// PCR0 (everything), PCR1 (kernel, command line, first ramdisk), PCR2 (the other ramdisks), and PCR8 (the signer's
    /// certificate) if it is signed.
    pub fn pcrs(&self) -> &BTreeMap<u8, Pcr> {
        &self.pcrs
    }

    /// The kernel's command line.
    pub fn cmdline(&self) -> &[u8] {
        &self.cmdline
    }

    /// The signer's certificate in DER, if it is signed. Nobody has said that it is to be trusted.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// The sections in the file's order.
    pub fn sections(&self) -> &[Section] {
        &self.layout.sections
    }
}

/// Reads and measures the image file that `file` holds, all `len` bytes of it.
pub fn measure(file: &dyn ReadAt, len: u64) -> Result<Image, EifError> {
    let layout = layout::read(file, len)?;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&layout.checked_header);
    let mut measuring = Measuring::new();
    let (mut cmdline, mut signature) = (Vec::new(), Vec::new());
    for section in &layout.sections {
        checksum.update(&section.header());
        let mut take = |piece: &[u8]| {
            checksum.update(piece);
            match section.kind {
                Kind::Kernel | Kind::Ramdisk => measuring.update(piece),
                Kind::Cmdline => {
                    measuring.update(piece);
                    cmdline.extend_from_slice(piece); // at most MAX_CMDLINE: layout
                }
                Kind::Signature => signature.extend_from_slice(piece), // at most MAX_SIGNATURE: layout
                Kind::Metadata => {}
            }
            Ok(())
        };
        file.read_run(section.offset, section.len, &mut take)?;
        measuring.end(section.kind);
    }
    let found = checksum.finalize();
    if found != layout.checksum {
        return Err(EifError::Checksum { stated: layout.checksum, found });
    }
    let mut pcrs = measuring.finish();
    let mut certificate = None;
    if layout.sections.iter().any(|s| s.kind == Kind::Signature) {
        let der = signature::verify(&signature, pcrs.get(&0).unwrap_or(&[0; 48]))?;
        pcrs.insert(8, extended(digest(&SHA384, &der).as_ref()));
        certificate = Some(der);
    }
    Ok(Image { layout, pcrs, cmdline, certificate })
}

/// The three measurements under way. Kernel, command line and first ramdisk begin both PCR0 and PCR1: hashed once.
struct Measuring {
    image: Context,
    boot: Option<Context>,
    app: Context,
}

impl Measuring {
    fn new() -> Self {
        Self { image: Context::new(&SHA384), boot: None, app: Context::new(&SHA384) }
    }

    fn update(&mut self, piece: &[u8]) {
        self.image.update(piece);
        if self.boot.is_some() {
            self.app.update(piece);
        }
    }

    fn end(&mut self, kind: Kind) {
        if kind == Kind::Ramdisk && self.boot.is_none() {
            self.boot = Some(self.image.clone());
        }
    }

    fn finish(self) -> BTreeMap<u8, Pcr> {
        let boot = self.boot.unwrap_or_else(|| Context::new(&SHA384)); // there is a ramdisk: layout
        let contexts = [self.image, boot, self.app];
        (0..).zip(contexts).map(|(index, context)| (index, extended(context.finish().as_ref()))).collect()
    }
}

/// A PCR of zeros extended by this digest.
fn extended(of: &[u8]) -> Pcr {
    let mut context = Context::new(&SHA384);
    context.update(&[0; 48]);
    context.update(of);
    let mut pcr = [0; 48];
    pcr.copy_from_slice(context.finish().as_ref());
    pcr
}

/// Why a file is no enclave image that can be measured. Sections count from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EifError {
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Shorter than a header.
    #[error("it has {0} bytes, fewer than an enclave image's header")]
    Short(u64),
    /// Not an EIF at all.
    #[error("it does not start as an enclave image (.eif) does, but with {0:02x?}")]
    Magic([u8; 4]),
    /// Another version.
    #[error("version {0} of the image format; 3 and 4 are known")]
    Version(u16),
    /// A field that must be zero.
    #[error("{field} is {value}; it must be 0")]
    NotZero {
        /// Which.
        field: &'static str,
        /// What is there.
        value: u64,
    },
    /// Flags nobody has defined.
    #[error("flags {0:#06x}; only 0x0001 (arm64) is known")]
    Flags(u16),
    /// Too few sections to boot, or more than a header holds.
    #[error("{0} sections; an image has 3 to {MAX_SECTIONS}")]
    Count(u16),
    /// A section that starts elsewhere than behind the one before.
    #[error("section {section} is at {found}; the one before ends at {expected}")]
    Offset {
        /// Which.
        section: usize,
        /// Where it should be.
        expected: u64,
        /// Where the header says it is.
        found: u64,
    },
    /// File header and section header say different things.
    #[error("section {section} has {in_header} bytes by the file's header and {in_section} by its own")]
    Size {
        /// Which.
        section: usize,
        /// What the file's header says.
        in_header: u64,
        /// What the section's header says.
        in_section: u64,
    },
    /// A section longer than the file.
    #[error("section {section} of {size} bytes at {offset} ends behind the file's {len} bytes")]
    Cut {
        /// Which.
        section: usize,
        /// Its start.
        offset: u64,
        /// Its claimed size.
        size: u64,
        /// The file's length.
        len: u64,
    },
    /// Something behind the last section.
    #[error("{0} bytes behind the last section")]
    Trailing(u64),
    /// No type that is known.
    #[error("section {section} is of type {found}; 1 to 5 are known")]
    Kind {
        /// Which.
        section: usize,
        /// Its type.
        found: u16,
    },
    /// A section where it may not be, or a second one.
    #[error("section {section} is a {found}: {rule}")]
    Order {
        /// Which.
        section: usize,
        /// What it is.
        found: Kind,
        /// What it breaks.
        rule: &'static str,
    },
    /// Nothing to boot.
    #[error("there is no ramdisk")]
    NoRamdisk,
    /// A section of more bytes than such a section has.
    #[error("section {section}, the {kind}, has {size} bytes; {most} at most are taken")]
    Length {
        /// Which.
        section: usize,
        /// What it is.
        kind: Kind,
        /// Its size.
        size: u64,
        /// The most.
        most: u64,
    },
    /// Damaged.
    #[error("its CRC-32 is {found:08x}; the header says {stated:08x}")]
    Checksum {
        /// What the header says.
        stated: u32,
        /// What it is.
        found: u32,
    },
    /// The signature section is not in the one form taken, or its signature is wrong.
    #[error("the signature section: {what}: expected {expected}, found {actual}")]
    Signature {
        /// Which part.
        what: String,
        /// What it had to be.
        expected: String,
        /// What it was.
        actual: String,
    },
}
