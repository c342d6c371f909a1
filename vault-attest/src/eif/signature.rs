//! The signature section: CBOR, one map with the certificate in PEM and a COSE_Sign1 over PCR0, bytes as arrays of numbers.
//! One form, the one that AWS's tools write, and ES384 alone, which is what they take.

use super::EifError;
use crate::evidence::Pcr;
use crate::nitro::envelope::{self, POINT_LEN};
use crate::nitro::hex;
use crate::nitro::reader::Reader;
use crate::step::{Refusal, Step};
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode};
use x509_cert::Certificate;

const BEGIN: &str = "-----BEGIN ";
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// Steps of evidence do not apply here, and errors do not name them.
const NO_STEP: Step = Step::V(2);

/// The certificate's DER, when the section holds a signature of `pcr0` by its key.
pub(super) fn verify(section: &[u8], pcr0: &Pcr) -> Result<Vec<u8>, EifError> {
    let (pem, cose) = parts(section).map_err(|r| refused(&r))?;
    let (der, point) = certificate(&pem)?;
    let envelope = envelope::parse(&cose).map_err(|r| refused(&r))?;
    let signed = signed_pcr0(envelope.payload).map_err(|r| refused(&r))?;
    if signed != pcr0 {
        return Err(wrong("the signed PCR0", format!("{} (the image's)", hex(pcr0)), hex(&signed)));
    }
    if !envelope.is_signed_by(&point) {
        return Err(wrong("the signature", "one by the certificate's key", "another"));
    }
    Ok(der)
}

/// `[{"signing_certificate": …, "signature": …}]`.
fn parts(section: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let mut reader = Reader::new(section, NO_STEP);
    let signatures = reader.array("the list")?;
    if signatures != Some(1) {
        return Err(Refusal::new(NO_STEP, "the list", "one signature", of(signatures)));
    }
    let pairs = reader.map("the signature")?;
    if pairs != Some(2) {
        return Err(Refusal::new(NO_STEP, "the signature", "a map of 2", of(pairs)));
    }
    name(&mut reader, "signing_certificate")?;
    let pem = numbers(&mut reader, "signing_certificate")?;
    name(&mut reader, "signature")?;
    let cose = numbers(&mut reader, "signature")?;
    reader.end("the section")?;
    Ok((pem, cose))
}

/// `{"register_index": 0, "register_value": …}`.
fn signed_pcr0(payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut reader = Reader::new(payload, NO_STEP);
    let pairs = reader.map("what is signed")?;
    if pairs != Some(2) {
        return Err(Refusal::new(NO_STEP, "what is signed", "a map of 2", of(pairs)));
    }
    name(&mut reader, "register_index")?;
    let index = reader.unsigned("register_index")?;
    if index != 0 {
        return Err(Refusal::new(NO_STEP, "register_index", 0, index));
    }
    name(&mut reader, "register_value")?;
    let value = numbers(&mut reader, "register_value")?;
    reader.end("what is signed")?;
    Ok(value)
}

fn name(reader: &mut Reader<'_>, expected: &str) -> Result<(), Refusal> {
    let found = reader.text("a name")?;
    if found == expected { Ok(()) } else { Err(Refusal::new(NO_STEP, "a name", expected, found)) }
}

/// Bytes as an array of numbers; grown as they are read.
fn numbers(reader: &mut Reader<'_>, what: &str) -> Result<Vec<u8>, Refusal> {
    let len = reader.array(what)?;
    let Some(len) = len else { return Err(Refusal::new(NO_STEP, what, "an array of known length", of(len))) };
    let mut bytes = Vec::new();
    for _ in 0..len {
        let number = reader.unsigned(what)?;
        bytes.push(u8::try_from(number).map_err(|_| Refusal::new(NO_STEP, what, "0 to 255", number))?);
    }
    Ok(bytes)
}

fn of(len: Option<u64>) -> String {
    len.map_or("an indefinite length".into(), |n| n.to_string())
}

/// DER and public point of the only certificate in a PEM file: of several, readers could take different ones.
fn certificate(pem: &[u8]) -> Result<(Vec<u8>, [u8; POINT_LEN]), EifError> {
    let what = "signing_certificate";
    let text = str::from_utf8(pem).map_err(|_| wrong(what, "PEM", "other bytes"))?;
    let blocks = text.matches(BEGIN).count();
    if blocks != 1 {
        return Err(wrong(what, "one block of PEM", format!("{blocks}")));
    }
    let (label, der) = der::pem::decode_vec(pem).map_err(|e| wrong(what, "PEM", e))?;
    if label != "CERTIFICATE" {
        return Err(wrong(what, "CERTIFICATE", label));
    }
    let malformed = |e: der::Error| wrong(what, "an X.509 certificate in DER", e);
    let x509 = Certificate::from_der(&der).map_err(malformed)?;
    if x509.to_der().map_err(malformed)? != der {
        return Err(wrong(what, "an X.509 certificate in DER", "another encoding of it"));
    }
    let key = x509.tbs_certificate().subject_public_key_info();
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
    let point = key.subject_public_key.as_bytes().and_then(|bits| <[u8; POINT_LEN]>::try_from(bits).ok());
    let point = point.filter(|point| curve == Some(SECP384R1) && point.starts_with(&[4]));
    let point = point.ok_or_else(|| wrong(what, "a P-384 key", key.algorithm.oid))?;
    Ok((der, point))
}

fn refused(refusal: &Refusal) -> EifError {
    wrong(&refusal.what, &refusal.expected, &refusal.actual)
}

fn wrong(what: &str, expected: impl std::fmt::Display, actual: impl std::fmt::Display) -> EifError {
    let shown = Refusal::new(NO_STEP, what, expected, actual); // printable, of bounded length
    EifError::Signature { what: shown.what, expected: shown.expected, actual: shown.actual }
}
