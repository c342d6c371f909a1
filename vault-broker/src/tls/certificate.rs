//! What a broker's certificate says, and whether a client that pins a CA would take it.

use super::TlsError;
use der::Decode;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The names and addresses that the first certificate is for, in its order. One that is neither a DNS name nor an address is an
/// error: a renewal would lose it.
pub fn names(chain: &[CertificateDer<'_>]) -> Result<Vec<String>, String> {
    let certificate = parse(chain.first().map(AsRef::as_ref).unwrap_or_default())?;
    let found = certificate.tbs_certificate().filter_extensions::<SubjectAltName>().next().transpose();
    let found = found.map_err(|_| "the names in it are malformed")?;
    let names = found.map(|(_, names)| names.0).unwrap_or_default();
    let names = names.iter().map(name).collect::<Option<Vec<_>>>();
    let names = names.ok_or("it has a name that is neither a DNS name nor an address")?;
    if names.is_empty() { Err("it has no names".into()) } else { Ok(names) }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => match *bytes.as_bytes() {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            ref long => <[u8; 16]>::try_from(long).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// When the first of them ends, in seconds since 1970.
pub fn end_of(chain: &[CertificateDer<'_>]) -> Result<u64, String> {
    let end = |der: &CertificateDer<'_>| {
        Ok::<_, String>(parse(der)?.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
    };
    let ends = chain.iter().map(end).collect::<Result<Vec<_>, _>>()?;
    ends.into_iter().min().ok_or_else(|| "no certificate in it".into())
}

fn parse(der: &[u8]) -> Result<Certificate, String> {
    Certificate::from_der(der).map_err(|_| "not an X.509 certificate in DER".into())
}

/// Whether a client that pins these CA certificates (PEM) and asks for `host` would take this chain now.
pub fn check_reached(chain: &[CertificateDer<'_>], ca_pem: &str, host: &str, now_s: u64) -> Result<(), TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten() {
        roots.add(certificate).map_err(TlsError::Refused)?;
    }
    let refused = |e| TlsError::Refused(Error::InvalidCertificate(e));
    let name = ServerName::try_from(host).map_err(|_| refused(CertificateError::NotValidForName))?;
    let (leaf, rest) = chain.split_first().ok_or_else(|| refused(CertificateError::BadEncoding))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build();
    let verifier = verifier.map_err(|_| refused(CertificateError::UnknownIssuer))?; // no CA at all
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
    verifier.verify_server_cert(leaf, rest, &name, &[], now).map(drop).map_err(TlsError::Refused)
}
