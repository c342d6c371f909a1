//! A broker that answers as a test says: over real TLS, with a real log of one entry. It appraises nothing.

use getrandom::SysRng;
use rand_core::UnwrapErr;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{NamedGroup, ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use vault_attest::release::{
    Binding, Challenge, EnclaveKey, Grant, MEDIA_TYPE, RefusalMessage, Request, answer_digest, decode, encode, wrap_dek,
};
use vault_attest::tlog::{LogEntry, LogProof, LogSigner, tree};
use vault_attest::{Refusal, Step};
use vault_core::header::{Header, hex};
use vault_core::recipient::broker::{BrokerKey, Released, Stanza};
use vault_core::secret::Secret;

pub type Rng = UnwrapErr<SysRng>;

pub fn rng() -> Rng {
    UnwrapErr(SysRng)
}

/// Status, media type, body.
pub type Answer = (u16, &'static str, Vec<u8>);

/// Answers a path and a body; the number of requests before it comes along.
pub type Script = Box<dyn Fn(&Keys, &str, &[u8], usize) -> Answer + Send + Sync>;

/// What a broker holds.
pub struct Keys {
    pub broker: BrokerKey,
    pub log: LogSigner,
}

/// A grant before it is logged: what a broker can lie about that has the log key.
pub struct Draft {
    pub entry: LogEntry,
    pub enc: Vec<u8>,
    pub wrapped: [u8; 48],
    pub binding: Binding,
    pub log: Option<LogSigner>,
}

impl Default for Keys {
    fn default() -> Self {
        let log = LogSigner::new("test.example/log", &Secret::random(32, &mut rng())).unwrap();
        Self { broker: BrokerKey::generate(&mut rng()), log }
    }
}

impl Keys {
    pub fn challenge(&self) -> Challenge {
        Challenge { nonce: [7; 32].into(), life_s: 120, keys: vec![(*self.broker.id()).into()] }
    }

    /// An honest answer but for two changes: before it is logged, and after.
    pub fn grant(&self, request: &[u8], lie: &dyn Fn(&mut Draft), change: &dyn Fn(&mut Grant)) -> Answer {
        let request: Request = decode(request, Step::R(1)).unwrap();
        let header = Header::parse_unpadded(&request.header).unwrap();
        let (salt, id) = (header.prelude().salt, [9; 16]);
        let ours = |s: &&_| Stanza::parse(s).is_some_and(|s| s.is_for(self.broker.id(), &salt));
        let stanza = header.stanzas().find(ours).unwrap();
        let released = Released::new(stanza.clone(), self.broker.unwrap_dek(&salt, stanza).unwrap());
        let binding = Binding::new(&request.nonce, &request.public_key, &salt, stanza);
        let (enc, wrapped) = wrap_dek(released, &request.public_key, &binding, &id, &mut rng()).unwrap();
        let entry = LogEntry {
            artifact: Some(hex(&salt)),
            binding: Some(hex(binding.as_bytes())),
            answer: Some(hex(&answer_digest(&enc, &wrapped))),
            ..LogEntry::new(&id, 1_795_000_000_000)
        };
        let mut draft = Draft { entry, enc, wrapped, binding, log: None };
        lie(&mut draft);
        let entry = draft.entry.to_bytes();
        let log = draft.log.as_ref().unwrap_or(&self.log);
        let proof = LogProof { index: 0, path: vec![], checkpoint: log.sign(1, tree::leaf_hash(&entry)) }.to_string();
        let (enc, wrapped) = (draft.enc.into(), draft.wrapped.into());
        let mut grant = Grant { id: id.into(), enc, wrapped, entry: entry.into(), proof };
        change(&mut grant);
        (200, MEDIA_TYPE, encode(&grant))
    }
}

/// `(enc, wrapped DEK)`
pub type Wrapped = (Vec<u8>, [u8; 48]);

/// A DEK wrapped to whoever asks, under a binding.
pub fn wrapped(dek: [u8; 32], request: &[u8], binding: &Binding) -> Wrapped {
    let request: Request = decode(request, Step::R(1)).unwrap();
    let header = Header::parse_unpadded(&request.header).unwrap();
    let dek = vault_core::keys::Dek::from_secret(Secret::take(&mut { dek })).unwrap();
    let released = Released::new(header.stanzas().next().unwrap().clone(), dek);
    wrap_dek(released, &request.public_key, binding, &[9; 16], &mut rng()).unwrap()
}

/// Wrapped to an enclave that did not ask.
pub fn elsewhere(binding: &Binding, request: &[u8]) -> Wrapped {
    let mut request: Request = decode(request, Step::R(1)).unwrap();
    request.public_key = EnclaveKey::generate(&mut rng()).public().into();
    wrapped([1; 32], &encode(&request), binding)
}

pub fn refusal(step: &str, retry: &str, wait_s: Option<u64>) -> Answer {
    let (step, retry, hint) = (step.into(), retry.into(), "a hint\u{1b}[2J".into());
    (403, MEDIA_TYPE, encode(&RefusalMessage { id: [9; 16].into(), step, retry, hint, wait_s }))
}

/// One such broker on a port of its own of 127.0.0.1. It ends with the process.
pub struct Canned {
    pub keys: Arc<Keys>,
    pub ca_pem: String,
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    groups: Arc<Mutex<Vec<NamedGroup>>>,
}

impl Canned {
    /// Its certificate is for `localhost`.
    pub fn new(script: Script) -> Self {
        let (ca_pem, tls) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let canned = Self { keys: Arc::default(), ca_pem, port, asked: Arc::default(), groups: Arc::default() };
        let (keys, asked, groups) = (canned.keys.clone(), canned.asked.clone(), canned.groups.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &tls, &keys, &asked, &groups, &script); // the client's end of it is what is judged
            }
        });
        canned
    }

    /// An honest one, but for these changes.
    pub fn granting(
        lie: impl Fn(&mut Draft, &[u8]) + Send + Sync + 'static,
        change: impl Fn(&mut Grant) + Send + Sync + 'static,
    ) -> Self {
        Self::new(Box::new(move |keys, path, body, _| match path {
            "/v1/challenge" => (200, MEDIA_TYPE, encode(&keys.challenge())),
            _ => keys.grant(body, &|draft| lie(draft, body), &change),
        }))
    }

    /// One that answers requests for a release so.
    pub fn releasing(answer: impl Fn(&Keys, &[u8], usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::new(Box::new(move |keys, path, body, before| match path {
            "/v1/challenge" => (200, MEDIA_TYPE, encode(&keys.challenge())),
            _ => answer(keys, body, before),
        }))
    }

    /// The paths of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Key exchanges so far.
    pub fn groups(&self) -> Vec<NamedGroup> {
        self.groups.lock().unwrap().clone()
    }
}

fn certificates() -> (String, Arc<ServerConfig>) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let mut server = CertificateParams::new(vec!["localhost".into()]).unwrap();
    (server.not_before, server.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2027, 1, 1));
    let chain = vec![server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    (ca_pem, Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

fn serve(
    stream: TcpStream,
    tls: &Arc<ServerConfig>,
    keys: &Keys,
    asked: &Mutex<Vec<String>>,
    groups: &Mutex<Vec<NamedGroup>>,
    script: &Script,
) -> Option<()> {
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(tls.clone()).ok()?, stream));
    loop {
        let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let text = line.trim().to_ascii_lowercase();
            match text.split_once(": ") {
                _ if text.is_empty() => break,
                Some(("content-length", value)) => length = value.parse().ok()?,
                None => text.split(' ').nth(1)?.clone_into(&mut path),
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        groups.lock().unwrap().push(reader.get_ref().conn.negotiated_key_exchange_group()?.name());
        let before = asked.lock().unwrap().iter().filter(|p| **p == path).count();
        asked.lock().unwrap().push(path.clone());
        let (status, media_type, said) = script(keys, &path, &body, before);
        let head =
            format!("HTTP/1.1 {status} Canned\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n", said.len());
        reader.get_mut().write_all(&[head.as_bytes(), &said].concat()).ok()?;
    }
}

/// The step of a refusal by the client.
pub fn step(refusal: &Refusal) -> String {
    refusal.step.to_string()
}
