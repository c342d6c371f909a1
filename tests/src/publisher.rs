//! Publishers for model signatures: certificates of P-256 keys, and bundles of any statement, put together from
//! docs/SIGNATURES.md a second time (`rcgen` signs). What is changed before [`Forged::text`] is as a forger would have it; what
//! is changed before [`Forged::by_key`] is signed.

use crate::evidence::der::to_pem;
use base64ct::{Base64, Encoding};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SigningKey, date_time_ymd,
};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::Duration;

const DAY_S: u64 = 86_400;

/// A key, and its certificate.
pub struct Issued {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub der: Vec<u8>,
}

impl Issued {
    /// A root: `authority` signed by itself.
    pub fn root(params: CertificateParams) -> Self {
        let key = new_key();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { params, key, der }
    }

    /// A certificate for a new key.
    #[must_use]
    pub fn issue(&self, params: CertificateParams) -> Self {
        self.issue_for(params, new_key())
    }

    #[must_use]
    pub fn issue_for(&self, params: CertificateParams, key: KeyPair) -> Self {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
        Self { params, key, der }
    }

    pub fn pem(&self) -> String {
        to_pem(&self.der)
    }

    /// PKCS#8.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// SubjectPublicKeyInfo.
    pub fn public_pem(&self) -> String {
        self.key.public_key_pem().replace("\r\n", "\n")
    }
}

pub fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// Of an authority, valid for a year around this time.
pub fn authority(name: &str, now_s: u64) -> CertificateParams {
    let mut params = plain(name, now_s - 180 * DAY_S, now_s + 180 * DAY_S);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Of a signer of code, valid for twenty days around this time.
pub fn signer(name: &str, now_s: u64) -> CertificateParams {
    let mut params = plain(name, now_s - 10 * DAY_S, now_s + 10 * DAY_S);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params
}

fn plain(name: &str, from_s: u64, to_s: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    set_validity(&mut params, from_s, to_s);
    params
}

/// notBefore and notAfter in seconds since 1970.
pub fn set_validity(params: &mut CertificateParams, from_s: u64, to_s: u64) {
    let time = |s| date_time_ymd(1970, 1, 1) + Duration::from_secs(s);
    (params.not_before, params.not_after) = (time(from_s), time(to_s));
}

/// A statement of these files, in this order.
pub fn statement(files: &[(&str, [u8; 32])]) -> String {
    let root = files.iter().fold(Sha256::new(), |root, (_, digest)| root.chain_update(digest)).finalize();
    let resources: Vec<_> = files
        .iter()
        .map(|(name, digest)| format!(r#"{{"name":"{name}","digest":"{}","algorithm":"sha256"}}"#, hex(digest)))
        .collect();
    format!(
        concat!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"m","digest":{{"sha256":"{}"}}}}],"#,
            r#""predicateType":"https://model_signing/signature/v1.0","predicate":{{"serialization":{{"method":"files","#,
            r#""hash_type":"sha256","allow_symlinks":false,"ignore_paths":[".git"]}},"resources":[{}]}}}}"#
        ),
        hex(&root),
        resources.join(",")
    )
}

/// A bundle before it is written.
#[derive(Clone)]
pub struct Forged {
    pub media_type: String,
    /// JSON.
    pub material: String,
    pub payload_type: String,
    pub payload: Vec<u8>,
    /// JSON.
    pub signatures: String,
}

impl Forged {
    /// Signed by a bare key.
    pub fn by_key(statement: &str, key: &KeyPair) -> Self {
        let pem = key.public_key_pem().replace("\r\n", "\n");
        let hint = hex(&Sha256::digest(pem));
        Self::new(statement, key, format!(r#"{{"publicKey":{{"hint":"{hint}"}},"tlogEntries":[]}}"#))
    }

    /// Signed by the key of the first certificate, with these in the bundle.
    pub fn by_chain(statement: &str, chain: &[&Issued]) -> Self {
        let certificates: Vec<_> = chain.iter().map(|c| c.der.as_slice()).collect();
        Self::by_certificates(statement, &chain[0].key, &certificates)
    }

    /// Signed by any key, with any certificates in the bundle.
    pub fn by_certificates(statement: &str, key: &KeyPair, certificates: &[&[u8]]) -> Self {
        let certificates: Vec<_> =
            certificates.iter().map(|der| format!(r#"{{"rawBytes":"{}"}}"#, Base64::encode_string(der))).collect();
        let material = format!(r#"{{"x509CertificateChain":{{"certificates":[{}]}}}}"#, certificates.join(","));
        Self::new(statement, key, material)
    }

    fn new(statement: &str, key: &KeyPair, material: String) -> Self {
        let payload_type = "application/vnd.in-toto+json".to_owned();
        let signed = format!("DSSEv1 {} {payload_type} {} {statement}", payload_type.len(), statement.len());
        let signature = Base64::encode_string(&key.sign(signed.as_bytes()).unwrap());
        Self {
            media_type: "application/vnd.dev.sigstore.bundle.v0.3+json".into(),
            material,
            payload_type,
            payload: statement.into(),
            signatures: format!(r#"[{{"sig":"{signature}","keyid":""}}]"#),
        }
    }

    pub fn text(&self) -> String {
        let Self { media_type, material, payload_type, signatures, .. } = self;
        let payload = Base64::encode_string(&self.payload);
        format!(
            r#"{{"mediaType":"{media_type}","verificationMaterial":{material},"dsseEnvelope":{{"payload":"{payload}","payloadType":"{payload_type}","signatures":{signatures}}}}}"#
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}
