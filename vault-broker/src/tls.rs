//! TLS 1.3 and nothing older; key exchange with X25519MLKEM768, then X25519. The broker's own CA and certificates, for operators
//! who bring none.

use crate::config::Tls;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use vault_core::secret::Secret;

/// Days that a server's certificate is valid.
const SERVER_DAYS: i64 = 398;
/// Days that the broker's CA is valid: enclaves have it in their measured configuration.
const CA_DAYS: i64 = 3650;

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
}

/// The server's side, from PEM files.
pub fn server(files: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &PathBuf, message: String| TlsError::Pem { path: path.clone(), message };
    let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| pem(&files.certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(pem(&files.certificate, "no certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| pem(&files.key, e.to_string()))?;
    let refuse = |e: rustls::Error| TlsError::Certificate { path: files.certificate.clone(), message: e.to_string() };
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(refuse)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(refuse)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
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
) -> Result<(String, zeroize::Zeroizing<String>), TlsError> {
    let issuer = Issuer::new(ca_params(origin, now_s)?, ca_key(ca)?); // its name and key are all that counts
    let mut params = CertificateParams::new(hosts)?;
    (params.not_before, params.not_after) = window(now_s, SERVER_DAYS);
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
