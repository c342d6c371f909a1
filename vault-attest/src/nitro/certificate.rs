//! One X.509 certificate of a chain `[V-13]`: strict DER, P-384 and ecdsa-with-SHA384 only. Parsing is x509-cert's.

use super::document::Document;
use super::envelope::POINT_LEN;
use crate::step::{Refusal, Step};
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode, Reader, SliceReader};
use x509_cert::Version;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::spki::AlgorithmIdentifierOwned;

const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// A well-formed certificate; whom it comes from is for `chain`.
pub(super) struct Certificate<'a> {
    /// What to call it in a refusal: `cabundle[1]`, `certificate`.
    pub name: String,
    /// The bytes that are signed.
    pub tbs: &'a [u8],
    pub point: [u8; POINT_LEN],
    x509: x509_cert::Certificate,
}

/// All certificates of the document, from the root to the leaf.
pub(super) fn parse_all<'a>(document: &Document<'a>) -> Result<Vec<Certificate<'a>>, Refusal> {
    let named = document.cabundle.iter().enumerate().map(|(i, der)| (format!("cabundle[{i}]"), *der));
    let leaf = std::iter::once(("certificate".to_owned(), document.certificate));
    named.chain(leaf).map(|(name, der)| Certificate::parse(name, der)).collect()
}

impl<'a> Certificate<'a> {
    /// `[V-13]`
    pub fn parse(name: String, der: &'a [u8]) -> Result<Self, Refusal> {
        let refuse = |expected: &str, found: String| Refusal::new(Step::V(13), name.clone(), expected, found);
        let malformed = |e: der::Error| refuse("one X.509 certificate in DER", e.to_string());
        let x509 = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        if x509.to_der().map_err(malformed)? != der {
            return Err(refuse("one X.509 certificate in DER", "another encoding of it".into()));
        }
        let tbs = signed_part(der).map_err(malformed)?;
        let body = x509.tbs_certificate();
        if body.version() != Version::V3 {
            return Err(refuse("version 3", format!("{:?}", body.version())));
        }
        let serial = body.serial_number().to_der().map_err(malformed)?;
        if serial.get(2).is_none_or(|first| first & 0x80 != 0) {
            return Err(refuse("a serial number that is not negative", super::hex(&serial)));
        }
        for algorithm in [body.signature(), x509.signature_algorithm()] {
            if !is_ecdsa_sha384(algorithm) {
                return Err(refuse("ecdsa-with-SHA384 without parameters", algorithm.oid.to_string()));
            }
        }
        let key = body.subject_public_key_info();
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(SECP384R1) {
            let found = curve.map_or(key.algorithm.oid.to_string(), |curve| format!("curve {curve}"));
            return Err(refuse("a P-384 key", found));
        }
        let bits = key.subject_public_key.as_bytes().unwrap_or_default();
        let point = <[u8; POINT_LEN]>::try_from(bits).ok().filter(|p| p.starts_with(&[4]));
        let point =
            point.ok_or_else(|| refuse("an uncompressed point of 97 bytes", format!("{} bytes", bits.len())))?;
        Ok(Self { name, tbs, point, x509 })
    }

    /// Whether the issuer's name is this subject, byte for byte.
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let (subject, named) = (issuer.x509.tbs_certificate().subject().to_der(), self.issuer().to_der());
        matches!((subject, named), (Ok(subject), Ok(named)) if subject == named && !self.issuer().is_empty())
    }

    pub fn subject(&self) -> &x509_cert::name::Name {
        self.x509.tbs_certificate().subject()
    }

    pub fn issuer(&self) -> &x509_cert::name::Name {
        self.x509.tbs_certificate().issuer()
    }

    /// notBefore and notAfter in seconds since 1970.
    pub fn validity(&self) -> (u64, u64) {
        let validity = self.x509.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }

    /// The signature's DER.
    pub fn signature(&self) -> &[u8] {
        self.x509.signature().as_bytes().unwrap_or_default()
    }

    /// `(critical, basicConstraints)`; `Err` if it is malformed.
    pub fn basic_constraints(&self) -> Result<Option<(bool, BasicConstraints)>, der::Error> {
        self.x509.tbs_certificate().filter_extensions().next().transpose()
    }

    /// keyUsage; `Err` if it is malformed.
    pub fn key_usage(&self) -> Result<Option<KeyUsage>, der::Error> {
        Ok(self.x509.tbs_certificate().filter_extensions().next().transpose()?.map(|(_, usage)| usage))
    }

    /// `[V-19]`
    pub fn check_extensions(&self) -> Result<(), Refusal> {
        let refuse = |expected: &str, oid| Err(Refusal::new(Step::V(19), self.name.clone(), expected, oid));
        let extensions = self.x509.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default();
        for (i, extension) in extensions.iter().enumerate() {
            let oid = extension.extn_id;
            if extension.critical && oid != BASIC_CONSTRAINTS && oid != KEY_USAGE {
                return refuse("critical extensions that are known", format!("critical {oid}"));
            }
            if extensions.iter().take(i).any(|earlier| earlier.extn_id == oid) {
                return refuse("each extension once", format!("{oid} twice"));
            }
        }
        Ok(())
    }
}

fn is_ecdsa_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.oid == ECDSA_WITH_SHA384 && algorithm.parameters.is_none()
}

/// The TBSCertificate's bytes as they stand in the certificate.
fn signed_part(certificate: &[u8]) -> Result<&[u8], der::Error> {
    let mut outer = SliceReader::new(certificate)?;
    outer.sequence(|inner| {
        let tbs = inner.tlv_bytes()?;
        while !inner.is_finished() {
            inner.tlv_bytes()?;
        }
        Ok::<_, der::Error>(tbs)
    })
}
