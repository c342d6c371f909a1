//! The COSE_Sign1 envelope (RFC 9052), V-2 to V-5 and V-22: one form, ES384 and nothing else.

use super::reader::Reader;
use crate::step::{Refusal, Step};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

/// `{1: -35}`: ES384 `[V-3]`.
const PROTECTED: [u8; 4] = [0xA1, 0x01, 0x38, 0x22];
/// Tag 18, which no genuine document has.
const COSE_SIGN1_TAG: u8 = 0xD2;
/// Bytes of an uncompressed P-384 point.
pub(crate) const POINT_LEN: usize = 97;
/// Bytes of r and of s.
const SCALAR_LEN: usize = 48;
/// The order of P-384 (SEC 2, 2.5.1).
const ORDER: [u8; SCALAR_LEN] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xC7, 0x63, 0x4D, 0x81, 0xF4, 0x37, 0x2D, 0xDF, 0x58, 0x1A, 0x0D, 0xB2, 0x48, 0xB0,
    0xA7, 0x7A, 0xEC, 0xEC, 0x19, 0x6A, 0xCC, 0xC5, 0x29, 0x73,
];

/// What the envelope holds; untrusted until [`Envelope::is_signed_by`].
pub(crate) struct Envelope<'a> {
    pub payload: &'a [u8],
    signature: &'a [u8],
}

/// V-2 to V-5.
pub(crate) fn parse(document: &[u8]) -> Result<Envelope<'_>, Refusal> {
    let mut reader = Reader::new(document, Step::V(2));
    let len = reader.array("the document")?;
    if len != Some(4) {
        let found = len.map_or("an indefinite array".into(), |n| format!("an array of {n}"));
        return Err(Refusal::new(Step::V(2), "the document", "an array of 4", found));
    }
    let protected = reader.bytes("the protected header")?;
    let unprotected = reader.literal(&[0xA0], "the unprotected header", Step::V(4));
    if protected != PROTECTED {
        let (expected, found) = (super::hex(&PROTECTED), super::hex(protected));
        return Err(Refusal::new(Step::V(3), "the protected header", format!("{expected} (ES384)"), found));
    }
    unprotected?;
    let payload = reader.bytes("the payload")?;
    let signature = reader.bytes("the signature")?;
    reader.end("the document")?;
    check_form(signature)?;
    Ok(Envelope { payload, signature })
}

/// The payload, whatever the tag and the headers are: for outlines only.
pub(super) fn unverified_payload(document: &[u8]) -> Option<&[u8]> {
    let untagged = document.strip_prefix(&[COSE_SIGN1_TAG]).unwrap_or(document);
    let mut decoder = minicbor::Decoder::new(untagged);
    decoder.array().ok()?;
    decoder.bytes().ok()?;
    decoder.skip().ok()?; // minicbor keeps a stack on the heap, no deeper than the bytes
    decoder.bytes().ok()
}

/// `[V-5]`
fn check_form(signature: &[u8]) -> Result<(), Refusal> {
    if signature.len() != 2 * SCALAR_LEN {
        let found = format!("{} bytes", signature.len());
        return Err(Refusal::new(Step::V(5), "the signature", "96 bytes", found));
    }
    for (name, scalar) in ["r", "s"].iter().zip(signature.chunks(SCALAR_LEN)) {
        if scalar.iter().all(|&b| b == 0) || *scalar >= ORDER[..] {
            let what = format!("{name} of the signature");
            return Err(Refusal::new(Step::V(5), what, "1 to the order of P-384, exclusive", super::hex(scalar)));
        }
    }
    Ok(())
}

impl Envelope<'_> {
    /// `[V-22]`: ES384 over `Sig_structure` with empty external data, by the key of this point.
    pub fn is_signed_by(&self, point: &[u8; POINT_LEN]) -> bool {
        let mut signed = Vec::with_capacity(self.payload.len() + 32);
        let mut structure = minicbor::Encoder::new(&mut signed);
        let head = structure.array(4).and_then(|e| e.str("Signature1")).and_then(|e| e.bytes(&PROTECTED));
        let encoded = head.and_then(|e| e.bytes(&[])).and_then(|e| e.bytes(self.payload)).is_ok();
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point);
        encoded && key.verify(&signed, self.signature).is_ok()
    }
}
