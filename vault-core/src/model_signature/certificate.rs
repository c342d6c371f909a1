//! Certificates of signers: SIGNATURES.md [M-7]. Paths are webpki's to find and to check; names, uses and the roots' own
//! validity, which it leaves to its caller, are checked here.

use super::{Error, Result, refused, require};
use crate::signature::PublisherPublicKey;
use der::oid::db::rfc5912::ID_KP_CODE_SIGNING;
use der::{Decode, Encode};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage as Purpose, VerifiedPath, anchor_from_trusted_cert, aws_lc_rs as algorithms};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};

/// Most certificates in a file of roots.
const MAX_ROOTS: usize = 256;
/// 1.3.6.1.5.5.7.3.3
const CODE_SIGNING: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 3, 3];
/// What authorities may sign with.
const ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 9] = [
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

/// Certificates that are trusted to name signers.
pub struct Roots(Vec<CertificateDer<'static>>);

impl Roots {
    /// From PEM, one or more.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let roots = certificates(pem)?;
        for root in &roots {
            let readable = anchor_from_trusted_cert(root).is_ok() && Certificate::from_der(root).is_ok();
            if !readable {
                return Err(Error::Usage("a certificate in it is not X.509 in DER".into()));
            }
        }
        Ok(Self(roots))
    }

    /// These and those.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// `[M-7]`: the first certificate of `chain`, if it is under a root and may sign at `time_s`.
    pub(super) fn verify(&self, chain: &[Vec<u8>], time_s: u64) -> Result<Leaf> {
        let leaf = Leaf::unverified(chain)?;
        let ders: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let Some((first, authorities)) = ders.split_first() else { return Err(refused(3, "no certificate")) };
        let parsed = parse(first)?;
        check_valid(&parsed, time_s)?;
        check_use(&parsed)?;
        let first = EndEntityCert::try_from(first).map_err(|e| refused(7, words(&e)))?;
        let anchors = self.anchors(time_s)?;
        let checked = first.verify_for_usage(
            &ALGORITHMS,
            &anchors,
            authorities,
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(time_s)),
            Purpose::required_if_present(CODE_SIGNING),
            None,
            Some(&check_authorities),
        );
        checked.map_err(|e| refused(7, words(&e)))?;
        Ok(leaf)
    }

    /// The roots that are valid: webpki does not look at theirs.
    fn anchors(&self, time_s: u64) -> Result<Vec<TrustAnchor<'_>>> {
        let valid = |root: &&CertificateDer<'_>| parse(root).is_ok_and(|c| check_valid(&c, time_s).is_ok());
        let anchors: Vec<_> = self.0.iter().filter(valid).filter_map(|r| anchor_from_trusted_cert(r).ok()).collect();
        require(!anchors.is_empty(), 7, || "no root that was named is valid at that time".into())?;
        Ok(anchors)
    }
}

/// A signer's certificate.
pub(super) struct Leaf {
    pub key: PublisherPublicKey,
    pub subject: String,
}

impl Leaf {
    /// What the first certificate says of itself; anybody may have made it.
    pub fn unverified(chain: &[Vec<u8>]) -> Result<Self> {
        let certificate = parse(chain.first().map(Vec::as_slice).unwrap_or_default())?;
        let body = certificate.tbs_certificate();
        let subject = body.subject().to_string().chars().take(256).collect();
        let spki = body.subject_public_key_info().to_der().unwrap_or_default();
        let key = PublisherPublicKey::from_der(&spki);
        let key = key.map_err(|_| refused(7, format!("the certificate for {subject} has no P-256 key")))?;
        Ok(Self { key, subject })
    }
}

/// A signer's certificate and its authorities', to go into a bundle.
pub struct Chain(Vec<Vec<u8>>);

impl Chain {
    /// From PEM, the signer's first. It must be for `key`, and one that may sign at `time_s`, in seconds since 1970.
    pub fn from_pem(pem: &[u8], key: &PublisherPublicKey, time_s: u64) -> Result<Self> {
        let usage = |e: Error| match e {
            Error::Refused { what, .. } => Error::Usage(what),
            other => other,
        };
        let chain: Vec<_> = certificates(pem)?.iter().map(|c| c.as_ref().to_vec()).collect();
        let leaf = Leaf::unverified(&chain).map_err(usage)?;
        if leaf.key != *key {
            let what = format!("the first certificate, for {}, is not for this key", leaf.subject);
            return Err(Error::Usage(what));
        }
        let parsed = parse(chain.first().map(Vec::as_slice).unwrap_or_default()).map_err(usage)?;
        check_use(&parsed).and_then(|()| check_valid(&parsed, time_s)).map_err(usage)?;
        Ok(Self(chain))
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(pem).take(MAX_ROOTS + 1).collect::<std::result::Result<Vec<_>, _>>();
    let all = all.map_err(|_| Error::Usage("not certificates in PEM".into()))?;
    match all.len() {
        0 => Err(Error::Usage("no certificate in it; expected PEM".into())),
        n if n > MAX_ROOTS => Err(Error::Usage(format!("over {MAX_ROOTS} certificates"))),
        _ => Ok(all),
    }
}

fn parse(der: &[u8]) -> Result<Certificate> {
    Certificate::from_der(der).map_err(|_| refused(7, "not an X.509 certificate in DER"))
}

fn check_valid(certificate: &Certificate, time_s: u64) -> Result<()> {
    let body = certificate.tbs_certificate();
    let (from, to) = (body.validity().not_before, body.validity().not_after);
    let valid = (from.to_unix_duration().as_secs()..=to.to_unix_duration().as_secs()).contains(&time_s);
    require(valid, 7, || {
        let subject: String = body.subject().to_string().chars().take(256).collect();
        format!("the certificate for {subject} is valid from {from} to {to}, not at the time judged")
    })
}

/// What a signer's certificate must be for.
fn check_use(certificate: &Certificate) -> Result<()> {
    let body = certificate.tbs_certificate();
    let malformed = |_| refused(7, "the certificate's extensions are malformed");
    let usage: Option<(bool, KeyUsage)> = body.filter_extensions().next().transpose().map_err(malformed)?;
    let extended: Option<(bool, ExtendedKeyUsage)> = body.filter_extensions().next().transpose().map_err(malformed)?;
    let for_code = extended.as_ref().map(|(_, extended)| extended.0.contains(&ID_KP_CODE_SIGNING));
    let signs = usage.map_or(for_code == Some(true), |(_, usage)| usage.digital_signature());
    require(signs && for_code != Some(false), 7, || {
        "the certificate is not for signing: it needs digitalSignature, and codeSigning if it has extended uses".into()
    })
}

/// Authorities on the path that have keyUsage must be for signing certificates: webpki does not look.
fn check_authorities(path: &VerifiedPath<'_>) -> std::result::Result<(), webpki::Error> {
    for authority in path.intermediate_certificates() {
        let der = authority.der();
        let certificate = Certificate::from_der(&der).map_err(|_| webpki::Error::BadDer)?;
        let usage = certificate.tbs_certificate().filter_extensions().next().transpose();
        let usage: Option<(bool, KeyUsage)> = usage.map_err(|_| webpki::Error::MalformedExtensions)?;
        if usage.is_some_and(|(_, usage)| !usage.key_cert_sign()) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

fn words(error: &webpki::Error) -> String {
    use webpki::Error as E;
    match error {
        E::UnknownIssuer => "no path from the signer's certificate to a root that was named".into(),
        E::CertExpired { .. } => "an authority's certificate was no longer valid at the time judged".into(),
        E::CertNotValidYet { .. } => "an authority's certificate was not yet valid at the time judged".into(),
        E::InvalidSignatureForPublicKey => {
            "a certificate is not signed by its authority: another root or authority of the same name?".into()
        }
        E::RequiredEkuNotFoundContext(_) => "a certificate on the path is for other uses than signing code".into(),
        E::CaUsedAsEndEntity => "the signer's certificate is an authority's".into(),
        E::EndEntityUsedAsCa => "a certificate on the path is not an authority's".into(),
        other => format!("the certificates do not verify: {other}"),
    }
}
