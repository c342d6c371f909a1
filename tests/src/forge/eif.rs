//! Enclave image files, written from the format's facts, with every field open to change; the checksum is made last.

use crate::evidence::{Chain, der};
use coset::CborSerializable;
use coset::cbor::value::Value;
use sha2::{Digest, Sha384};

pub const KERNEL: u16 = 1;
pub const CMDLINE: u16 = 2;
pub const RAMDISK: u16 = 3;
pub const SIGNATURE: u16 = 4;
pub const METADATA: u16 = 5;

/// Bytes of the header, and where in it things are.
pub const HEADER_LEN: usize = 548;
pub const VERSION: usize = 4;
pub const FLAGS: usize = 6;
pub const RESERVED: usize = 24;
pub const COUNT: usize = 26;
pub const OFFSETS: usize = 28;
pub const SIZES: usize = OFFSETS + 32 * 8;
pub const UNUSED: usize = SIZES + 32 * 8;
pub const CHECKSUM: usize = UNUSED + 4;

/// An image before it is written.
#[derive(Clone)]
pub struct Eif {
    pub version: u16,
    /// Type and content.
    pub sections: Vec<(u16, Vec<u8>)>,
}

impl Default for Eif {
    /// A kernel, a command line, metadata and two ramdisks.
    fn default() -> Self {
        let sections: [(u16, &[u8]); 5] =
            [(KERNEL, b"kernel"), (CMDLINE, b"a b"), (METADATA, b"{}"), (RAMDISK, b"r1"), (RAMDISK, b"r2")];
        Self { version: 4, sections: sections.map(|(kind, content)| (kind, content.to_vec())).to_vec() }
    }
}

impl Eif {
    #[must_use]
    pub fn with(mut self, kind: u16, content: &[u8]) -> Self {
        self.sections.push((kind, content.to_vec()));
        self
    }

    /// With a signature of its PCR0 by the leaf of a chain.
    #[must_use]
    pub fn signed(self, chain: &Chain) -> Self {
        let section = signature(&der::to_pem(chain.leaf()), &chain.sign_payload(pcr0_claim(0, &self.pcr(0))));
        self.with(SIGNATURE, &section)
    }

    /// PCR 0, 1 or 2.
    pub fn pcr(&self, index: u8) -> [u8; 48] {
        let mut ramdisks = 0;
        let mut hash = Sha384::new();
        for (kind, content) in &self.sections {
            let measured = match *kind {
                KERNEL | CMDLINE => index != 2,
                RAMDISK => {
                    ramdisks += 1;
                    index == 0 || (index == 1) == (ramdisks == 1)
                }
                _ => false,
            };
            if measured {
                hash.update(content);
            }
        }
        extended(&hash.finalize())
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut header = [&b".eif"[..], &self.version.to_be_bytes(), &[0; 2]].concat();
        header.extend([1_u64 << 30, 2].iter().flat_map(|n| n.to_be_bytes()));
        header.extend([0, 0]);
        header.extend(u16::try_from(self.sections.len()).unwrap().to_be_bytes());
        header.resize(HEADER_LEN, 0);
        let mut body = Vec::new();
        for (i, (kind, content)) in self.sections.iter().enumerate() {
            let (offset, size) = ((HEADER_LEN + body.len()) as u64, content.len() as u64);
            if i < 32 {
                header[OFFSETS + 8 * i..][..8].copy_from_slice(&offset.to_be_bytes());
                header[SIZES + 8 * i..][..8].copy_from_slice(&size.to_be_bytes());
            }
            body.extend([&kind.to_be_bytes()[..], &[0; 2], &size.to_be_bytes(), content].concat());
        }
        check_again([header, body].concat())
    }
}

/// A PCR of zeros, extended by a digest.
pub fn extended(digest: &[u8]) -> [u8; 48] {
    Sha384::new().chain_update([0; 48]).chain_update(digest).finalize().into()
}

/// Puts the right checksum into a file.
pub fn check_again(mut file: Vec<u8>) -> Vec<u8> {
    let mut crc = u32::MAX;
    for (i, byte) in file.iter().enumerate() {
        if !(CHECKSUM..HEADER_LEN).contains(&i) {
            crc = (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(c & 1)));
        }
    }
    file[CHECKSUM..HEADER_LEN].copy_from_slice(&(!crc).to_be_bytes());
    file
}

/// The content of a signature section.
pub fn signature(pem: &str, cose: &[u8]) -> Vec<u8> {
    let pair = |name: &str, bytes: &[u8]| (Value::from(name), numbers(bytes));
    let map = Value::Map(vec![pair("signing_certificate", pem.as_bytes()), pair("signature", cose)]);
    Value::Array(vec![map]).to_vec().unwrap()
}

/// What is signed.
pub fn pcr0_claim(index: u8, pcr: &[u8]) -> Vec<u8> {
    let pairs = [("register_index", Value::from(index)), ("register_value", numbers(pcr))];
    Value::Map(pairs.map(|(name, value)| (Value::from(name), value)).to_vec()).to_vec().unwrap()
}

/// Bytes as these files have them: an array of numbers.
fn numbers(bytes: &[u8]) -> Value {
    Value::Array(bytes.iter().map(|byte| Value::from(*byte)).collect())
}
