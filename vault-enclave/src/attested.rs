//! Attested TLS, both ends: docs/ENCLAVE.md section 6. The certificate means nothing; the evidence for its key does.

use crate::connect::{Dial, NoNames, Secured};
use crate::model::{Statement, tls_binding};
use base64ct::{Base64, Encoding};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use ureq::Agent;
use vault_attest::evidence::VerifiedEvidence;
use vault_attest::nitro::{Mode, Roots, verify};
use vault_attest::policy::{Demand, Denial, Policy};
use vault_attest::{Refusal, Step};
use vault_core::header::hex;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// The enclave's TLS key, made once and never leaving.
pub struct TlsKey {
    config: Arc<ServerConfig>,
    public_key: Vec<u8>,
}

impl TlsKey {
    /// A new one `[E-10]`; randomness is the system's.
    pub fn generate() -> Result<Self, String> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(|e| e.to_string())?;
        let params = rcgen::CertificateParams::new(vec!["mvault-enclave".into()]).map_err(|e| e.to_string())?;
        let certificate = params.self_signed(&key).map_err(|e| e.to_string())?;
        let public_key = spki(certificate.der()).ok_or("the new certificate has no key")?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|e| e.to_string())?;
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.into()], private);
        let mut config = config.map_err(|e| e.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), public_key })
    }

    /// To accept connections with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// SubjectPublicKeyInfo, DER: what evidence is bound to.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

/// TLS 1.3's hybrid key exchange first, X25519 next.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}

fn spki(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Some(webpki::EndEntityCert::try_from(certificate).ok()?.subject_public_key_info().as_ref().to_vec())
}

/// `GET /v1/attestation`.
#[derive(Debug, Serialize, Deserialize)]
pub struct AttestationAnswer {
    /// The document, base64.
    pub document: String,
    /// The statement of the model that was loaded.
    pub model: String,
}

/// What a client demands of an enclave.
pub struct Wanted<'a> {
    /// Its appraisal policy.
    pub policy: &'a Policy,
    /// Roots of evidence.
    pub roots: &'a Roots,
    /// The model's name, if any other is refused.
    pub name: Option<&'a str>,
    /// The model's lowest version.
    pub minimum_version: u64,
}

/// Why a client sends nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Not reached, or no TLS 1.3.
    #[error("{0}")]
    Connection(String),
    /// It answers something else.
    #[error("status {0}: {1}")]
    Status(u16, String),
    /// Its evidence is not genuine, or not for this connection.
    #[error("{what}: expected {expected}, found {actual} [{step}]", what = .0.what, expected = .0.expected, actual = .0.actual, step = .0.step)]
    NotAuthentic(Refusal),
    /// Genuine, and not what the policy or the client wants.
    #[error("{}; policy line {}", .0.refusal, .0.policy_line)]
    Denied(Box<Denial>),
    /// Genuine, and another model `[T-6]`.
    #[error("{what}: expected {expected}, found {actual} [T-6]")]
    Model {
        /// Name or version.
        what: &'static str,
        /// Wanted.
        expected: String,
        /// Loaded.
        actual: String,
    },
}

/// A connection whose other end was attested.
pub struct Attested {
    agent: Agent,
    base: String,
    /// What was loaded.
    pub model: Statement,
    /// What it runs.
    pub evidence: VerifiedEvidence,
    /// The policy's release that matched.
    pub release: String,
}

impl Attested {
    /// Connects and verifies; `now_ms` is the client's clock, `nonce` fresh.
    pub fn connect(dial: Arc<dyn Dial>, wanted: &Wanted<'_>, nonce: [u8; 32], now_ms: u64) -> Result<Self, CallError> {
        let connection = |e: String| CallError::Connection(e);
        let pinned = Arc::new(FirstKey { provider: provider(), key: OnceLock::new() });
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| connection(e.to_string()))?
            .dangerous() // the certificate is not what is believed: the evidence is, below
            .with_custom_certificate_verifier(Arc::clone(&pinned) as Arc<dyn ServerCertVerifier>);
        let mut tls = builder.with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from("mvault-enclave").map_err(|e| connection(e.to_string()))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(Duration::from_mins(5)))
            .max_idle_connections(1)
            .build();
        let agent = Agent::with_parts(config, Secured { dial, tls: Arc::new(tls), name }, NoNames);
        let base = "https://mvault-enclave".to_owned();
        let url = format!("{base}/v1/attestation?nonce={}", hex(&nonce));
        let mut answer = agent.get(&url).call().map_err(|e| connection(e.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(256 * 1024).read_to_vec();
        let body = body.map_err(|e| connection(e.to_string()))?;
        if status != 200 {
            return Err(CallError::Status(status, String::from_utf8_lossy(&body).chars().take(200).collect()));
        }
        let answer: AttestationAnswer =
            serde_json::from_slice(&body).map_err(|e| CallError::Status(status, e.to_string()))?;
        let key = pinned.key.get().ok_or_else(|| connection("no certificate".into()))?;
        let (evidence, model, release) = judge(&answer, wanted, &nonce, key, now_ms)?;
        Ok(Self { agent, base, model, evidence, release })
    }

    /// Sends a request, on a connection with the key that was attested; gives status and body.
    pub fn request(&self, path: &str, body: Option<&[u8]>, token: Option<&str>) -> Result<(u16, Vec<u8>), CallError> {
        let url = format!("{}{path}", self.base);
        let bearer = token.map(|token| format!("Bearer {token}"));
        let sent = match body {
            None => {
                let request = self.agent.get(&url);
                bearer.iter().fold(request, |r, bearer| r.header("authorization", bearer)).call()
            }
            Some(body) => {
                let request = self.agent.post(&url).header("content-type", "application/json");
                bearer.iter().fold(request, |r, bearer| r.header("authorization", bearer)).send(body)
            }
        };
        let mut answer = sent.map_err(|e| CallError::Connection(e.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        Ok((status, body.map_err(|e| CallError::Connection(e.to_string()))?))
    }
}

/// `[T-1]` to `[T-6]`
fn judge(
    answer: &AttestationAnswer,
    wanted: &Wanted<'_>,
    nonce: &[u8; 32],
    key: &[u8],
    now_ms: u64,
) -> Result<(VerifiedEvidence, Statement, String), CallError> {
    let refuse = |step: u8, what: &str, expected: String, actual: String| {
        CallError::NotAuthentic(Refusal::new(Step::T(step), what, expected, actual))
    };
    let document = Base64::decode_vec(&answer.document)
        .map_err(|_| refuse(1, "the document", "base64".into(), "something else".into()))?;
    let evidence = verify(&document, wanted.roots, Mode::Live { now_s: now_ms / 1000 });
    let evidence = evidence.map_err(CallError::NotAuthentic)?;
    let demand = Demand { now_ms, nonce: Some(nonce), artifact: None, recipient: None };
    let appraised = wanted.policy.appraise(&evidence, &demand).map_err(|d| CallError::Denied(Box::new(d)))?;
    let release = appraised.release().to_owned();
    if evidence.public_key() != key {
        let actual = "another: someone stands between".to_owned();
        return Err(refuse(3, "public_key", "the key of this connection".into(), actual));
    }
    let binding = tls_binding(nonce, key);
    if evidence.user_data() != binding {
        return Err(refuse(4, "user_data", hex(&binding), hex(evidence.user_data())));
    }
    let model = Statement::parse(&answer.model);
    let model = model.ok_or_else(|| refuse(5, "model", "a statement".into(), "something else".into()))?;
    let pcr16 = evidence.pcr(16).map_or_else(|| "none".into(), |pcr| hex(pcr));
    if pcr16 != hex(&model.pcr16()) {
        return Err(refuse(5, "PCR16", format!("{}, of the model it says it has", hex(&model.pcr16())), pcr16));
    }
    if let Some(name) = wanted.name.filter(|name| *name != model.name) {
        return Err(CallError::Model { what: "the model's name", expected: name.into(), actual: model.name });
    }
    let minimum = wanted.policy.minimum_model_version().unwrap_or(0).max(wanted.minimum_version);
    if model.version < minimum {
        let (expected, actual) = (format!("{minimum} or later"), model.version.to_string());
        return Err(CallError::Model { what: "the model's version", expected, actual });
    }
    Ok((evidence, model, release))
}

/// Takes any certificate on the first connection, and none with another key after it. Signatures of handshakes are verified.
#[derive(Debug)]
struct FirstKey {
    provider: Arc<CryptoProvider>,
    key: OnceLock<Vec<u8>>,
}

impl ServerCertVerifier for FirstKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        if *self.key.get_or_init(|| key.clone()) == key {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
