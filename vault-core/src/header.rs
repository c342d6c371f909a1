//! The header's bytes: FORMAT.md sections 2 to 4.
//!
//! [`Header::parse`] gives untrusted fields that are well-formed and no more. [`Header::unlock`] finds
//! a stanza, checks commitment and MAC, and gives an [`AuthenticatedHeader`], the only way to payload
//! keys. `Header::compose` writes; nothing else does.

use crate::about::About;
use crate::error::{Error, Result, refused, require};
use crate::keys::{Dek, Schedule};
use crate::recipient::{Identity, Recipient, argon2id, xwing};
use crate::signature::SignatureSection;
use rand_core::CryptoRng;
use std::io::Read;

/// The format version this crate reads and writes.
pub const VERSION: u32 = 1;
/// The first bytes of every artifact.
pub const MAGIC: [u8; 8] = *b"\x89mvault\n";
/// Bytes before the sections.
pub const PRELUDE_LEN: usize = 88;
/// Bytes of the header MAC.
pub const MAC_LEN: usize = 32;
/// Default header length: room for 13 X-Wing recipients.
pub const DEFAULT_HEADER_LEN: u32 = 16 * 1024;
/// Header lengths are multiples of this.
pub const HEADER_STEP: u32 = 4096;
/// Largest header.
pub const MAX_HEADER_LEN: u32 = 1024 * 1024;
/// Default chunk size in bytes: fits in L2, makes one-tensor reads cheap.
pub const DEFAULT_CHUNK_SIZE: u32 = 64 * 1024;
/// Smallest and largest chunk size in bytes.
pub const CHUNK_SIZES: std::ops::RangeInclusive<u32> = 4096..=1024 * 1024;
/// Most sections in a header.
pub const MAX_SECTIONS: usize = 512;

/// Section types of FORMAT.md section 4.
pub mod section {
    /// Passphrase stanza.
    pub const ARGON2ID: u16 = 0x0001;
    /// X-Wing key file stanza.
    pub const XWING: u16 = 0x0002;
    /// AWS KMS stanza.
    pub const AWS_KMS: u16 = 0x0003;
    /// Key broker stanza.
    pub const BROKER: u16 = 0x0004;
    /// Last number of a stanza.
    pub const LAST_STANZA: u16 = 0x00FF;
    /// Sealed about block.
    pub const ABOUT: u16 = 0x0100;
    /// Publisher's signature.
    pub const SIGNATURE: u16 = 0x0101;
    /// An unknown type with this bit is refused.
    pub const CRITICAL: u16 = 0x8000;
}

/// The fixed fields at the front of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prelude {
    /// Header length H in bytes.
    pub header_len: u32,
    /// Chunk size C in bytes of plaintext.
    pub chunk_size: u32,
    /// Length S of the sections in bytes.
    pub sections_len: u32,
    /// Artifact salt, also the artifact's id.
    pub salt: [u8; 32],
    /// Key commitment.
    pub commitment: [u8; 32],
}

impl Prelude {
    /// Parses the first [`PRELUDE_LEN`] bytes of an artifact. `[F-1]` to `[F-5]`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        require(bytes.starts_with(&MAGIC), 1, || "not an mvault artifact: the first 8 bytes are not its magic".into())?;
        let short = || refused(3, format!("the header is cut off after {} bytes", bytes.len()));
        let prelude = bytes.first_chunk::<PRELUDE_LEN>().ok_or_else(short)?;
        let [version, header_len, chunk_size, sections_len] = [8, 12, 16, 20].map(|at| u32_at(prelude, at));
        require(version == VERSION, 2, || format!("format version {version}; this mvault reads version {VERSION}"))?;
        require(
            header_len.is_multiple_of(HEADER_STEP) && (HEADER_STEP..=MAX_HEADER_LEN).contains(&header_len),
            3,
            || format!("header length {header_len}; expected a multiple of 4096 up to {MAX_HEADER_LEN}"),
        )?;
        require(chunk_size.is_power_of_two() && CHUNK_SIZES.contains(&chunk_size), 4, || {
            format!("chunk size {chunk_size}; expected a power of two from 4096 to 1048576")
        })?;
        let used = u64::from(sections_len) + (PRELUDE_LEN + MAC_LEN) as u64;
        require(used <= u64::from(header_len), 5, || {
            format!("sections of {sections_len} bytes do not fit a header of {header_len}")
        })?;
        let (mut salt, mut commitment) = ([0; 32], [0; 32]);
        salt.copy_from_slice(&prelude[24..56]);
        commitment.copy_from_slice(&prelude[56..88]);
        Ok(Self { header_len, chunk_size, sections_len, salt, commitment })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for n in [VERSION, self.header_len, self.chunk_size, self.sections_len] {
            out.extend_from_slice(&n.to_be_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commitment);
        out
    }

    /// The artifact's id as shown to people: the salt in hex.
    pub fn artifact_id(&self) -> String {
        hex(&self.salt)
    }
}

/// One `type || length || body` of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The type with its critical bit.
    pub kind: u16,
    /// The body; untrusted.
    pub body: Vec<u8>,
}

impl Section {
    /// True for a wrapped DEK.
    pub fn is_stanza(&self) -> bool {
        (1..=section::LAST_STANZA).contains(&(self.kind & !section::CRITICAL))
    }

    fn encode_into(&self, out: &mut Vec<u8>) -> Result<()> {
        let len = u16::try_from(self.body.len())
            .map_err(|_| Error::Usage("a header section is longer than 65535 bytes".into()))?;
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

/// A well-formed header. Nothing in it is authenticated.
#[derive(Debug, Clone)]
pub struct Header {
    prelude: Prelude,
    sections: Vec<Section>,
    bytes: Vec<u8>,
}

impl Header {
    /// Reads a header from the front of a stream: the prelude, then exactly the rest of it.
    pub fn read(input: &mut dyn Read) -> Result<Self> {
        let mut bytes = Vec::new();
        read_up_to(input, PRELUDE_LEN, &mut bytes)?;
        let prelude = Prelude::parse(&bytes)?;
        let rest = prelude.header_len as usize - PRELUDE_LEN; // at most 1 MiB: [F-3]
        read_up_to(input, rest, &mut bytes)?;
        Self::parse(&bytes)
    }

    /// Parses a whole header. `bytes` may go on after it. `[F-1]` to `[F-15]`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let prelude = Prelude::parse(bytes)?;
        let whole = bytes.get(..prelude.header_len as usize);
        let bytes = whole
            .ok_or_else(|| refused(3, format!("{} bytes, but the header has {}", bytes.len(), prelude.header_len)))?;
        let sections_end = PRELUDE_LEN + prelude.sections_len as usize;
        let padding = bytes.get(sections_end + MAC_LEN..).unwrap_or_default();
        require(padding.iter().all(|b| *b == 0), 6, || "bytes after the header MAC are not zero".into())?;
        let sections = parse_sections(bytes.get(PRELUDE_LEN..sections_end).unwrap_or_default())?;
        argon2id::check_cost(&sections)?;
        Ok(Self { prelude, sections, bytes: bytes.to_vec() })
    }

    /// Parses a header without the zeros after its MAC, to its last byte: as a release request carries it
    /// (KEY_RELEASE.md section 4).
    pub fn parse_unpadded(bytes: &[u8]) -> Result<Self> {
        let prelude = Prelude::parse(bytes)?;
        let sections_end = PRELUDE_LEN + prelude.sections_len as usize;
        let end = sections_end + MAC_LEN;
        require(bytes.len() == end, 5, || format!("{} bytes, but header and MAC have {end}", bytes.len()))?;
        let sections = parse_sections(bytes.get(PRELUDE_LEN..sections_end).unwrap_or_default())?;
        argon2id::check_cost(&sections)?;
        Ok(Self { prelude, sections, bytes: bytes.to_vec() })
    }

    /// The bytes up to the end of the MAC.
    pub fn unpadded(&self) -> &[u8] {
        let end = PRELUDE_LEN + self.prelude.sections_len as usize + MAC_LEN;
        self.bytes.get(..end).unwrap_or(&self.bytes)
    }

    /// The fixed fields.
    pub fn prelude(&self) -> &Prelude {
        &self.prelude
    }

    /// All sections in order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The stanzas in order.
    pub fn stanzas(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|s| s.is_stanza())
    }

    /// The publisher's signature, if there is one; unverified.
    pub fn signature(&self) -> Option<SignatureSection> {
        let section = self.sections.iter().find(|s| s.kind == section::SIGNATURE)?;
        SignatureSection::parse(&section.body)
    }

    /// The header's bytes as read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Finds a stanza that one of `identities` opens, and verifies the header. `[F-16]` to `[F-19]`,
    /// `[F-7]`, `[F-8]`.
    pub fn unlock(&self, identities: &[&dyn Identity]) -> Result<AuthenticatedHeader> {
        for identity in identities {
            for (index, stanza) in self.stanzas().enumerate() {
                if let Some(dek) = identity.unwrap_dek(&self.prelude.salt, stanza)? {
                    return self.authenticate(dek, index);
                }
            }
        }
        let have: Vec<_> = identities.iter().map(|i| i.describe()).collect();
        let have = match have.as_slice() {
            [] => "no identity was given".into(),
            [one] => format!("{one} does not open it"),
            many => format!("{} do not open it", many.join(", ")),
        };
        let kinds: Vec<_> = self.stanzas().map(|s| stanza_name(s.kind)).collect();
        let wanted = kinds.join(", ");
        Err(refused(18, format!("{have}; its recipients: {wanted}")))
    }

    fn authenticate(&self, dek: Dek, stanza: usize) -> Result<AuthenticatedHeader> {
        let end = PRELUDE_LEN + self.prelude.sections_len as usize;
        let (authenticated, rest) = self.bytes.split_at_checked(end).unwrap_or((&self.bytes, &[]));
        let mac = rest.get(..MAC_LEN).unwrap_or_default();
        let schedule = dek.unlock(&self.prelude, authenticated, mac)?;
        let about = self.sections.iter().find(|s| s.kind == section::ABOUT);
        let about = about.map(|s| About::open(&s.body, &schedule, &self.prelude.salt)).transpose()?;
        Ok(AuthenticatedHeader { header: self.clone(), dek, schedule, about, stanza })
    }

    /// Writes a header: prelude, sections, MAC, padding. `min_len` is grown to fit.
    pub(crate) fn compose(
        dek: &Dek,
        salt: [u8; 32],
        chunk_size: u32,
        sections: &[Section],
        min_len: u32,
    ) -> Result<Self> {
        let mut encoded = Vec::new();
        sections.iter().try_for_each(|s| s.encode_into(&mut encoded))?;
        let need = PRELUDE_LEN + encoded.len() + MAC_LEN;
        let mut header_len = min_len.max(HEADER_STEP).next_multiple_of(HEADER_STEP);
        while (header_len as usize) < need && header_len < MAX_HEADER_LEN {
            header_len = (header_len * 2).min(MAX_HEADER_LEN);
        }
        if (header_len as usize) < need || sections.len() > MAX_SECTIONS {
            return Err(Error::Usage(format!("too many recipients: {} sections", sections.len())));
        }
        let schedule = dek.schedule(&salt, chunk_size);
        let sections_len = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        let commitment = schedule.commitment();
        let prelude = Prelude { header_len, chunk_size, sections_len, salt, commitment };
        let mut bytes = prelude.encode();
        bytes.extend_from_slice(&encoded);
        let mac = schedule.header_mac(&bytes);
        bytes.extend_from_slice(&mac);
        bytes.resize(header_len as usize, 0);
        Self::parse(&bytes) // what is written is what a reader accepts
    }
}

/// A header whose commitment and MAC were verified with a DEK from one of its stanzas.
pub struct AuthenticatedHeader {
    header: Header,
    dek: Dek,
    schedule: Schedule,
    about: Option<About>,
    stanza: usize,
}

impl AuthenticatedHeader {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the artifact says of itself; the manifest decides.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// Index of the stanza that opened.
    pub fn stanza(&self) -> usize {
        self.stanza
    }

    /// What the artifact is sealed under, to go on with an interrupted push (FORMAT.md section 12).
    pub fn seal_key(&self) -> crate::seal::SealKey {
        crate::seal::SealKey::of(self.dek.duplicate(), self.header.prelude.salt)
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The same artifact for other recipients: keeps the stanzas for which `keep` holds, adds new ones. FORMAT.md
    /// section 10. The result has the old length if it fits.
    pub fn with_recipients(
        &self,
        keep: &dyn Fn(usize) -> bool,
        add: &[&dyn Recipient],
        rng: &mut dyn CryptoRng,
    ) -> Result<Header> {
        let prelude = &self.header.prelude;
        let kept = self.header.stanzas().enumerate().filter(|(i, _)| keep(*i)).map(|(_, s)| s.clone());
        let mut sections: Vec<_> = kept.collect();
        for recipient in add {
            sections.push(recipient.wrap_dek(&prelude.salt, &self.dek, rng)?);
        }
        if sections.is_empty() {
            return Err(Error::Usage("an artifact needs at least one recipient".into()));
        }
        sections.extend(self.header.sections.iter().filter(|s| !s.is_stanza()).cloned());
        Header::compose(&self.dek, prelude.salt, prelude.chunk_size, &sections, prelude.header_len)
    }
}

/// The name of a stanza type, as listed to people.
pub fn stanza_name(kind: u16) -> String {
    match kind {
        section::ARGON2ID => "argon2id".into(),
        section::XWING => "x-wing".into(),
        section::AWS_KMS => "aws-kms".into(),
        section::BROKER => "broker".into(),
        other => format!("unknown type {other:#06x}"),
    }
}

fn parse_sections(mut rest: &[u8]) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| refused(9, format!("{} stray bytes after the last section", rest.len())))?;
        let [k0, k1, l0, l1] = *head;
        let (kind, len) = (u16::from_be_bytes([k0, k1]), usize::from(u16::from_be_bytes([l0, l1])));
        let body = tail
            .get(..len)
            .ok_or_else(|| refused(9, format!("section {kind:#06x} of {len} bytes runs past the sections' end")))?;
        rest = tail.get(len..).unwrap_or_default();
        require(sections.len() < MAX_SECTIONS, 11, || format!("more than {MAX_SECTIONS} sections"))?;
        let section = Section { kind, body: body.to_vec() };
        check_order(sections.last(), &section)?;
        sections.push(section);
    }
    require(sections.first().is_some_and(Section::is_stanza), 11, || "no recipient stanza".into())?;
    sections.iter().try_for_each(check_known)?;
    Ok(sections)
}

/// `[F-10]`: stanzas, then other sections in ascending kind.
fn check_order(before: Option<&Section>, section: &Section) -> Result<()> {
    let kind = section.kind & !section::CRITICAL;
    let ordered = match before {
        Some(b) if b.is_stanza() => true,
        Some(b) => kind > (b.kind & !section::CRITICAL),
        None => true,
    };
    require(kind != 0 && ordered, 10, || format!("section {:#06x} is out of order", section.kind))
}

/// `[F-12]` lengths of known types, `[F-13]` critical ones.
fn check_known(section: &Section) -> Result<()> {
    let len = section.body.len();
    let fits = match section.kind & !section::CRITICAL {
        section::ARGON2ID => len == argon2id::BODY_LEN,
        section::XWING => len == xwing::BODY_LEN,
        section::AWS_KMS | section::BROKER => true, // one of another form is passed over: [F-40], [F-47]
        section::ABOUT => (304..=4144).contains(&len) && (len - 48).is_multiple_of(256),
        section::SIGNATURE => len == crate::signature::BODY_LEN,
        _ => {
            return require(section.kind & section::CRITICAL == 0, 13, || {
                format!("section {:#06x} is critical and unknown to this mvault", section.kind)
            });
        }
    };
    require(fits && section.kind & section::CRITICAL == 0, 12, || {
        format!("section {:#06x} has {len} bytes, which its type does not allow", section.kind)
    })
}

fn read_up_to(input: &mut dyn Read, len: usize, into: &mut Vec<u8>) -> Result<()> {
    input.take(len as u64).read_to_end(into).map(|_| ()).map_err(Error::io("read the header"))
}

fn u32_at(bytes: &[u8; PRELUDE_LEN], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(four)
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}
