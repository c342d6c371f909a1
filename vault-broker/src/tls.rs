//! TLS 1.3 and nothing older; key exchange with X25519MLKEM768, then X25519. The broker's own CA and certificates, for operators
//! who bring none.
//!
//! Certificate and key are two files, and a renewal replaces them one after the other. It writes the new key beside the old one
//! first ([`next_key`]), then the certificate, then gives the key its name: at each moment, also after a crash, one of the two
//! keys is the certificate's, and the broker takes that one.

mod certificate;

pub use certificate::{check_reached, end_of, names};

use crate::config::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use vault_core::secret::Secret;

/// Days that a server's certificate is valid, unless the operator says otherwise.
pub const SERVER_DAYS: u32 = 398;
/// Days that the broker's CA is valid: enclaves have it in their measured configuration.
const CA_DAYS: i64 = 3650;

/// How often a certificate without its key is read again: the two are not read at one moment.
const TRIES: usize = 5;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file cannot be read, or has no such thing in it.
    #[error("{path}: {message}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Certificate and key do not go together, or rustls does not take them.
    #[error("{path}: {message}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A certificate cannot be made.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
    /// A client that has what client.toml says would not take the certificate.
    #[error("a client that pins client.toml would refuse this certificate: {0}")]
    Refused(rustls::Error),
}

/// What the broker shows its clients.
#[derive(Clone)]
pub struct Served {
    /// The server's side.
    pub config: Arc<ServerConfig>,
    /// When the certificate ends, or the first one of its chain, in seconds since 1970.
    pub expires_s: u64,
}

/// The server's side, from PEM files.
pub fn server(files: &Tls) -> Result<Served, TlsError> {
    let mut read = pair(&files.certificate, &files.key);
    for _ in 0..TRIES {
        // Of a renewal that is under way, or was cut off, the key has no name yet, or got it just now.
        if !matches!(read, Err(TlsError::Certificate { .. })) {
            break;
        }
        read = pair(&files.certificate, &next_key(&files.key)).or_else(|_| pair(&files.certificate, &files.key));
    }
    read
}

/// Where a renewal keeps the new key until the certificate is in its place.
pub fn next_key(key: &Path) -> PathBuf {
    let mut name = key.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".next");
    key.with_file_name(name)
}

/// This certificate with this key, if it is the certificate's.
pub fn pair(certificate: &Path, key: &Path) -> Result<Served, TlsError> {
    let chain = read_chain(certificate)?;
    let expires_s = end_of(&chain).map_err(|message| pem(certificate, message))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| pem(key, e.to_string()))?;
    let refuse = |e: rustls::Error| TlsError::Certificate { path: certificate.to_owned(), message: e.to_string() };
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(refuse)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(refuse)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Served { config: Arc::new(config), expires_s })
}

/// The certificates of a PEM file; at least one.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| pem(path, e.to_string()))?;
    if chain.is_empty() { Err(pem(path, "no certificate in it".into())) } else { Ok(chain) }
}

fn pem(path: &Path, message: String) -> TlsError {
    TlsError::Pem { path: path.to_owned(), message }
}

/// A certificate for the CA whose key this is, PEM.
pub fn make_ca(key: &Secret, origin: &str, now_s: u64) -> Result<String, TlsError> {
    let key = ca_key(key)?;
    Ok(ca_params(origin, now_s)?.self_signed(&key)?.pem())
}

/// A server's certificate by the CA of this key and origin, and its new key: `(chain, key)`, PEM.
pub fn make_server(
    ca: &Secret,
    origin: &str,
    hosts: &[String],
    now_s: u64,
    days: u32,
) -> Result<(String, zeroize::Zeroizing<String>), TlsError> {
    let issuer = Issuer::new(ca_params(origin, now_s)?, ca_key(ca)?); // its name and key are all that counts
    let mut params = CertificateParams::new(hosts)?;
    (params.not_before, params.not_after) = window(now_s, days.into());
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, hosts.first().cloned().unwrap_or_default());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((certificate.pem(), zeroize::Zeroizing::new(key.serialize_pem())))
}

fn ca_key(der: &Secret) -> Result<KeyPair, TlsError> {
    Ok(KeyPair::try_from(der.expose())?)
}

fn ca_params(origin: &str, now_s: u64) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    (params.not_before, params.not_after) = window(now_s, CA_DAYS);
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, format!("mvault broker CA {origin}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// From an hour before now, for clocks that differ.
fn window(now_s: u64, days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let now = i64::try_from(now_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let now = now.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (now.saturating_sub(Duration::hours(1)), now.saturating_add(Duration::days(days)))
}
