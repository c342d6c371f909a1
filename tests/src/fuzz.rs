//! What the fuzz targets are made of: a fuzzer's bytes put where no check of keys or tags keeps them away from the code
//! behind. The same bytes always give the same artifact.

pub mod bundle;
pub mod evidence;

use crate::forge::content::{Content, about_padded, table_block};
use crate::forge::{AWS_KMS, BROKER, KeyFile, Parts, XWING};
use crate::noise;
use std::io;
use vault_core::Result;
use vault_core::aead::Engine;
use vault_core::header::Header;
use vault_core::io::Input;
use vault_core::open::{OpenOptions, RangeReader, Release, Verified, open};
use vault_core::recipient::xwing::XWingIdentity;
use vault_core::secret::Secret;

/// What KMS answers.
pub const DATA_KEY: [u8; 32] = [0xD7; 32];

/// Who the artifacts are for.
pub fn identity() -> XWingIdentity {
    XWingIdentity::from_seed(Secret::take(&mut KeyFile::new(1).seed)).unwrap()
}

/// The artifact a fuzzer starts from.
pub struct Base {
    parts: Parts,
    header: Vec<u8>,
    bytes: Vec<u8>,
    data: Vec<u8>,
}

impl Default for Base {
    fn default() -> Self {
        Self::new()
    }
}

impl Base {
    pub fn new() -> Self {
        let entries = [("a", 5000), ("b/c", 3000)].map(|(path, len)| (path.into(), noise(len as u64, len)));
        let parts = Parts::new(1, &Content::folder(entries.to_vec()), 4096, &[&KeyFile::new(1)]);
        let (header, bytes, data) = (parts.header(), parts.build(), parts.content.bytes());
        Self { parts, header, bytes, data }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Sections, or parts of them, that are these bytes.
    pub fn stanza(&self, data: &[u8]) -> Option<Vec<u8>> {
        let (how, data) = data.split_first()?;
        let data = data.get(..data.len().min(60_000))?;
        let mut parts = Parts { header_len: 65_536, ..self.parts.clone() };
        let front = |whole: &[u8]| [data, whole.get(data.len()..).unwrap_or_default()].concat();
        match how % 7 {
            0 => return Some(parts.header_of(data)),
            1 => parts.sections.insert(0, (XWING, front(&parts.sections[0].1))),
            2 => parts.sections.insert(1, (u16::from(*how), data.to_vec())),
            3 => parts.sections[1] = parts.keys.about(&about_padded(data.get(..data.len().min(4094))?), [1; 32]),
            4 => parts.add((0x0101, front(&[0; 168]))),
            5 => parts.sections.insert(0, (AWS_KMS, data.to_vec())),
            _ => {
                let good = parts.keys.broker(&KeyFile::new(1), b"policy", [0; 32], 1).1;
                parts.sections.insert(0, (BROKER, front(&good)));
            }
        }
        Some(parts.header())
    }

    /// A table or a manifest that is these bytes, or both.
    pub fn manifest(&self, data: &[u8]) -> Option<Vec<u8>> {
        let (how, data) = data.split_first()?;
        let mut plain = self.parts.plain.clone();
        match how % 4 {
            0 => plain.table = table_block(data),
            1 => plain.manifest = data.to_vec(),
            2 => {
                let (len, data) = data.split_first()?;
                let (table, manifest) = data.split_at_checked(usize::from(*len))?;
                (plain.table, plain.manifest) = (table_block(table), manifest.to_vec());
            }
            // Plaintext as a whole: lengths, padding, trailer.
            _ => return Some([&self.header[..], &self.parts.keys.payload(data)].concat()),
        }
        Some([&self.header[..], &self.parts.keys.payload(&plain.bytes())].concat())
    }

    /// A payload that is these bytes, or the valid one edited as they say.
    pub fn payload(&self, data: &[u8]) -> Option<Vec<u8>> {
        let (how, data) = data.split_first()?;
        let mut payload = self.bytes[self.header.len()..].to_vec();
        if how % 2 == 0 {
            payload = data.to_vec();
        } else {
            data.chunks_exact(5).for_each(|edit| apply(edit, &mut payload));
        }
        Some([&self.header[..], &payload].concat())
    }
}

/// One edit: what to do, where, and how much. Places are near chunk edges more often than elsewhere.
fn apply(edit: &[u8], payload: &mut Vec<u8>) {
    let place = usize::from(u16::from_be_bytes([edit[1], edit[2]]));
    let at = if place & 1 == 0 { place / 2 } else { (place / 64) * 4112 + place % 64 / 2 };
    let (at, len) = (at.min(payload.len()), usize::from(edit[3]) * if edit[4] & 1 == 0 { 1 } else { 16 });
    let to = payload.len().min(at + len);
    match edit[0] % 6 {
        0 => payload[at..to].iter_mut().for_each(|b| *b ^= edit[4]),
        1 => payload.truncate(at),
        2 => drop(payload.drain(at..to)),
        3 => payload.extend_from_within(at..to),
        4 => payload.splice(at..at, vec![edit[4]; len]).for_each(drop),
        _ => {
            let chunk = payload.get(at / 4112 * 4112..(at / 4112 + 1) * 4112).unwrap_or_default().to_vec();
            let end = payload.len().min((len % 4) * 4112);
            payload.splice(end..payload.len().min(end + chunk.len()), chunk).for_each(drop);
        }
    }
}

/// How the three readers took an artifact.
pub struct Read {
    pub stream: Result<()>,
    pub file: Result<()>,
    pub ranges: Result<()>,
    /// What the stream gave out.
    pub released: Vec<u8>,
}

impl Read {
    /// Whether it was opened.
    ///
    /// # Panics
    /// If stream and file differ.
    pub fn opened(&self) -> bool {
        assert_eq!(self.stream.is_ok(), self.file.is_ok(), "{:?} {:?}", self.stream, self.file);
        self.stream.is_ok()
    }
}

/// Reads on one thread: as a stream, as a file, in ranges.
pub fn read(bytes: &[u8], identity: &XWingIdentity) -> Read {
    let header = Header::parse(bytes).unwrap().unlock(&[identity]).unwrap();
    let (at, options) = (header.header().prelude().header_len as usize, OpenOptions::default());
    let (offset, len) = (at as u64, (bytes.len() - at) as u64);
    let (mut released, mut rest) = (Vec::new(), &bytes[at..]);
    let none = |_: Verified| ();
    let stream = open(Input::Stream(&mut rest), &header, &options, Release::Stream(&mut released)).map(none);
    let input = Input::At { file: &bytes, offset, len };
    let file = open(input, &header, &options, Release::Nothing).map(none);
    let ranges = RangeReader::new(&bytes, offset, len, &header, Engine::AesGcm).and_then(|reader| {
        let mut sink = |data: &[u8]| io::Write::write_all(&mut io::sink(), data);
        reader.manifest().entries.iter().try_for_each(|e| reader.read(e, 0..e.size, &mut sink))
    });
    Read { stream, file, ranges, released }
}
