//! An enclave that asks key brokers for keys and can lie: evidence under a test root, and every part of a request open to
//! change. What an honest one does is vault-enclave's; this one is made from KEY_RELEASE.md section 4.

pub mod wire;

use crate::evidence::{Chain, Evidence, TestRoot};
use rand_core::UnwrapErr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use vault_attest::Step;
use vault_attest::release::{
    Binding, Challenge, EnclaveKey, Grant, RefusalMessage, Request, answer_digest, decode, encode,
};
use vault_attest::tlog::{LogEntry, LogVerifier, Outcome, verify_log_proof};
use vault_core::header::{Header, hex};
use vault_core::recipient::broker::Stanza;
use wire::{Answer, Wire};

/// Where to ask, and under which root.
pub struct Asker {
    pub wire: Wire,
    pub root: TestRoot,
    /// Good for three hours from when the asker was made.
    pub chain: Arc<Chain>,
}

/// A request that would be granted, until something in it is changed.
pub struct Attempt {
    pub nonce: [u8; 32],
    pub key: EnclaveKey,
    pub public_key: Vec<u8>,
    pub header: Vec<u8>,
    /// Which stanza is asked for.
    pub stanza: u16,
    pub evidence: Evidence,
    pub chain: Arc<Chain>,
    /// Instead of `evidence`, signed.
    pub document: Option<Vec<u8>>,
    binding: Option<Binding>,
}

/// What the broker said.
pub enum Said {
    Granted(Box<Grant>),
    Refused(RefusalMessage),
    /// Neither, with status and text.
    Other(u16, String),
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn system_rng() -> UnwrapErr<getrandom::SysRng> {
    UnwrapErr(getrandom::SysRng)
}

impl Asker {
    pub fn new(wire: Wire, root: TestRoot) -> Self {
        let chain = Arc::new(root.chain(now_s()));
        Self { wire, root, chain }
    }

    /// A challenge.
    pub fn challenge(&mut self) -> Challenge {
        let answer = self.wire.post("/v1/challenge", b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        decode(&answer.body, Step::R(20)).unwrap()
    }

    /// A request for the artifact of this header (padded or not) that would be granted.
    pub fn attempt(&mut self, header: &[u8]) -> Attempt {
        let challenge = self.challenge();
        let ids: Vec<[u8; 32]> = challenge.keys.iter().map(|id| **id).collect();
        Attempt::new(*challenge.nonce, &ids, header, &self.chain)
    }

    /// Sends a request's bytes.
    pub fn ask(&mut self, body: &[u8]) -> Said {
        Said::of(&self.wire.post("/v1/release", body).unwrap())
    }
}

impl Attempt {
    /// Of the first stanza for a key of these ids.
    pub fn new(nonce: [u8; 32], ids: &[[u8; 32]], header: &[u8], chain: &Arc<Chain>) -> Self {
        let key = EnclaveKey::generate(&mut system_rng());
        let public_key = key.public();
        let parsed = Header::read(&mut &*header).or_else(|_| Header::parse_unpadded(header));
        let header = parsed.as_ref().map_or_else(|_| header.to_vec(), |parsed| parsed.unpadded().to_vec());
        let binding = parsed.ok().and_then(|parsed| {
            let salt = parsed.prelude().salt;
            let ours = |id: &[u8; 32], stanza: &Stanza<'_>| stanza.is_for(id, &salt);
            let mut stanzas = (0..).zip(parsed.stanzas());
            let section =
                stanzas.find(|(_, s)| Stanza::parse(s).is_some_and(|stanza| ids.iter().any(|id| ours(id, &stanza))));
            section.map(|(index, section)| (index, Binding::new(&nonce, &public_key, &salt, section)))
        });
        let (stanza, binding) = binding.unzip();
        let user_data = binding.map_or([0; 32], |binding: Binding| *binding.as_bytes());
        let evidence = Evidence::at(now_s()).with_nonce(&nonce).with_user_data(&user_data);
        let chain = Arc::clone(chain);
        Self { nonce, key, public_key, header, stanza: stanza.unwrap_or(0), evidence, chain, document: None, binding }
    }

    /// The request's bytes.
    pub fn body(&self) -> Vec<u8> {
        let evidence = self.document.clone().unwrap_or_else(|| self.evidence.sign(&self.chain));
        let (nonce, public_key, header) =
            (self.nonce.into(), self.public_key.clone().into(), self.header.clone().into());
        encode(&Request { nonce, evidence: evidence.into(), public_key, header, stanza: self.stanza })
    }

    /// The DEK of a grant, after every check that an enclave makes.
    pub fn open(&self, grant: &Grant, log: &LogVerifier) -> Vec<u8> {
        let binding = self.binding.unwrap();
        verify_log_proof(&grant.entry, &grant.proof, log).unwrap();
        let entry = LogEntry::parse(&grant.entry).unwrap();
        assert_eq!(entry.outcome, Outcome::Granted);
        assert_eq!(entry.answer.unwrap(), hex(&answer_digest(&grant.enc, &*grant.wrapped)));
        assert_eq!((entry.id, entry.binding.unwrap()), (hex(&*grant.id), hex(binding.as_bytes())));
        let dek = self.key.open(&binding, &grant.id, &grant.enc, &*grant.wrapped).expect("a DEK");
        dek.expose().to_vec()
    }
}

impl Said {
    /// By media type and status.
    pub fn of(answer: &Answer) -> Self {
        if answer.media_type != "application/cbor" {
            return Self::Other(answer.status, answer.text());
        }
        if answer.status == 200 {
            return Self::Granted(Box::new(decode(&answer.body, Step::R(21)).unwrap()));
        }
        let refusal: RefusalMessage = decode(&answer.body, Step::R(21)).unwrap();
        let status = match refusal.step.as_str() {
            "R-1" => 400,
            "R-12" => 429,
            _ => 403,
        };
        assert_eq!(answer.status, status, "{}", refusal.step);
        Self::Refused(refusal)
    }

    /// The grant, or the test fails with the refusal.
    #[track_caller]
    pub fn granted(self) -> Grant {
        match self {
            Self::Granted(grant) => *grant,
            Self::Refused(no) => panic!("refused at {} ({}), decision {}", no.step, no.hint, hex(&*no.id)),
            Self::Other(status, text) => panic!("{status}: {text}"),
        }
    }

    /// The refusal, or the test fails.
    #[track_caller]
    pub fn refused(self) -> RefusalMessage {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Granted(_) => panic!("granted"),
            Self::Other(status, text) => panic!("{status}: {text}"),
        }
    }
}
