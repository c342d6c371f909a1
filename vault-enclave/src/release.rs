//! Asking a key broker for a DEK: docs/KEY_RELEASE.md section 4, R-20 to R-23.
//!
//! Whom to trust is pinned (CA, broker key, log key); everything that comes over the network, and the parent that carries
//! it, is not. What is returned opens one stanza of one artifact.

use crate::connect::{Dial, agent, failure};
use rand_core::CryptoRng;
use rustls::time_provider::TimeProvider;
use std::fmt;
use std::sync::Arc;
use ureq::Agent;
use vault_attest::release::{
    Binding, Challenge, EnclaveKey, Grant, MAX_ANSWER, MEDIA_TYPE, RefusalMessage, Request, Retry, answer_digest,
    decode, encode,
};
use vault_attest::tlog::{LogEntry, LogVerifier, Logged, Outcome, verify_log_proof};
use vault_attest::{Refusal, Step};
use vault_core::header::{Header, Section, hex};
use vault_core::keys::Dek;
use vault_core::recipient::Identity;
use vault_core::recipient::broker::{Released, Stanza};
use vault_core::signature::SignatureSection;

/// The broker that is asked, and nothing that anyone could change from outside: part of what is measured.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// The CA that signed the broker's certificate, PEM.
    pub ca_pem: Vec<u8>,
    /// Ids of broker keys whose stanzas are taken.
    pub keys: Vec<[u8; 32]>,
    /// The release log's key.
    pub log: LogVerifier,
}

/// Makes evidence: the NSM in an enclave.
pub trait Attester {
    /// A document with this nonce, user_data and, if given, public_key (at most 1024 bytes), signed by the hardware.
    fn attest(&mut self, nonce: &[u8; 32], user_data: &[u8; 32], public_key: Option<&[u8]>) -> Result<Vec<u8>, String>;
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// What is pinned is no configuration.
    #[error("what is pinned: {0}")]
    Pinned(String),
    /// The broker, or KMS, is not reached.
    #[error("{url}: {message}")]
    Connection {
        /// The broker's.
        url: String,
        /// What happened.
        message: String,
    },
    /// Who answers is not the one that is pinned, or does not speak TLS 1.3.
    #[error("{url}: TLS: {message}")]
    Tls {
        /// The broker's.
        url: String,
        /// What happened.
        message: String,
    },
    /// The answer, or what was asked with, is not what the protocol demands.
    #[error(transparent)]
    Protocol(#[from] Refusal),
    /// The broker refused.
    #[error("refused at step {step} ({hint}); decision {id}")]
    Refused {
        /// Which step.
        step: String,
        /// The decision's id in hex, for `mvault broker why`.
        id: String,
        /// Whether asking again can help.
        retry: Retry,
        /// What the broker says about it.
        hint: String,
        /// Seconds to wait.
        wait_s: Option<u64>,
    },
    /// The broker, or KMS, answered something else.
    #[error("{who} answered with status {status}: {message}")]
    Status {
        /// `the broker` or `AWS KMS`.
        who: &'static str,
        /// HTTP's.
        status: u16,
        /// The first line of its text.
        message: String,
    },
    /// The hardware made no evidence.
    #[error("no evidence: {0}")]
    Attester(String),
    /// The artifact was not sealed for the KMS key that is pinned, or its stanza does not open.
    #[error("none of its recipients is {key}")]
    NoStanza {
        /// The pinned key's ARN.
        key: String,
    },
    /// The parent says no AWS credentials that can sign.
    #[error("AWS credentials: {0}")]
    Credentials(String),
    /// AWS KMS refused.
    #[error("AWS KMS: {code}: {message} (request {request})")]
    Kms {
        /// As KMS names it: `AccessDeniedException`.
        code: String,
        /// KMS's words.
        message: String,
        /// The request's id.
        request: String,
    },
}

impl ReleaseError {
    /// The next step, for people.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Pinned(_) => {
                "the image's configuration names the broker; `mvault broker init` writes client.toml for it"
            }
            Self::Connection { .. } => "does it run, and does the parent forward to it?",
            Self::Tls { .. } => {
                "the CA in the image's configuration must be the one that signed the broker's certificate"
            }
            Self::Protocol(refusal) if refusal.step == Step::R(20) => {
                "seal the model for this broker: `mvault recipients add -r LINE/POLICY`"
            }
            Self::Protocol(_) => "the answer is not the pinned broker's, or was changed on its way",
            Self::Refused { .. } => "the broker's operator sees why: `mvault broker why DIR ID`",
            Self::Status { .. } => "ask again later; a broker's own log says more",
            Self::Attester(_) => "is this an enclave? /dev/nsm must be there",
            Self::NoStanza { .. } => {
                "seal the model for this key (`mvault recipients add -r aws-kms:ARN`): the image's configuration pins it"
            }
            Self::Credentials(_) => "the parent needs AWS credentials: a role of the instance, or a profile",
            Self::Kms { code, .. } => kms_hint(code),
        }
    }

    /// Whether asking again, with a new nonce, can help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Status { .. } | Self::Credentials(_) => true,
            Self::Refused { retry, .. } => *retry == Retry::Later,
            Self::Kms { code, .. } => PASSING.contains(&code.as_str()),
            _ => false,
        }
    }

    /// Whether KMS says that the blob is not of this key and context.
    pub(crate) fn is_other_ciphertext(&self) -> bool {
        matches!(self, Self::Kms { code, .. } if ["InvalidCiphertextException", "IncorrectKeyException"].contains(&code.as_str()))
    }
}

/// KMS's errors that pass by themselves.
const PASSING: [&str; 6] = [
    "ThrottlingException",
    "LimitExceededException",
    "KMSInternalException",
    "DependencyTimeoutException",
    "KeyUnavailableException",
    "RequestExpired",
];

fn kms_hint(code: &str) -> &'static str {
    match code {
        "AccessDeniedException" => {
            "the key's policy names other measurements than this image's (`mvault policy kms` prints one), the enclave is in debug \
             mode, or the parent's role may not kms:Decrypt"
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => {
            "the stanza is of another artifact or key: seal the model anew"
        }
        "DisabledException" | "KMSInvalidStateException" => "the key is disabled or about to be deleted",
        "NotFoundException" => "there is no such key in this region and account",
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "InvalidClientTokenId"
        | "ExpiredTokenException" => "the parent's AWS credentials are wrong or have expired",
        "ValidationException" => "KMS does not take this evidence: an emulated enclave's is not signed by AWS",
        code if PASSING.contains(&code) => "ask again later",
        _ => "AWS KMS's documentation has the error; CloudTrail has the request",
    }
}

/// Who released a key.
#[derive(Debug, Clone)]
pub enum Source {
    /// The pinned broker.
    Broker {
        /// The decision's id in hex.
        decision: String,
        /// Where it stands in the release log.
        logged: Logged,
    },
    /// AWS KMS.
    Kms {
        /// The request's id, as CloudTrail has it.
        request: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { decision, .. } => write!(f, "decision {decision}"),
            Self::Kms { request } => write!(f, "AWS KMS request {request}"),
        }
    }
}

/// What comes with a key, and is to be kept before anything is done with the model `[R-23]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Obligations {
    /// The least version of the manifest.
    pub(crate) minimum_model_version: Option<u64>,
    /// The ids of signer and payload, in hex.
    pub(crate) signed: Option<(String, String)>,
}

/// A DEK that was released for one stanza of one artifact.
pub struct ReleasedKey {
    released: Released,
    obligations: Obligations,
    /// Who released it.
    pub source: Source,
}

impl ReleasedKey {
    pub(crate) fn new(released: Released, obligations: Obligations, source: Source) -> Self {
        Self { released, obligations, source }
    }

    /// To open the artifact with.
    pub fn identity(&self) -> &dyn Identity {
        &self.released
    }

    /// `[R-23]`: the manifest's version against the obligation that came with the key.
    pub fn check_version(&self, manifest_version: u64) -> Result<(), Refusal> {
        match self.obligations.minimum_model_version {
            Some(minimum) if manifest_version < minimum => {
                let expected = format!("{minimum} or later");
                Err(Refusal::new(Step::R(23), "the model's version", expected, manifest_version))
            }
            _ => Ok(()),
        }
    }

    /// `[R-23]`: the signature that the payload is held to (F-21) against the obligation that came with the key.
    pub fn check_signature(&self, section: Option<&SignatureSection>) -> Result<(), Refusal> {
        let Some((signer, payload)) = &self.obligations.signed else { return Ok(()) };
        let refuse = |what, expected: &str, found| Err(Refusal::new(Step::R(23), what, expected, found));
        match section.map(|section| (hex(&section.key_id), hex(&section.payload.digest))) {
            None => refuse("the model's signer", signer, "no signature".into()),
            Some((found, _)) if found != *signer => refuse("the model's signer", signer, found),
            Some((_, found)) if found != *payload => refuse("the signed payload", payload, found),
            Some(_) => Ok(()),
        }
    }
}

/// A client of one broker.
pub struct Client {
    pinned: Pinned,
    agent: Agent,
}

impl Client {
    /// Over connections of `dial`; the clock judges the broker's certificate.
    pub fn new(pinned: Pinned, dial: Arc<dyn Dial>, clock: Arc<dyn TimeProvider>) -> Result<Self, ReleaseError> {
        let agent = agent(&pinned.url, &pinned.ca_pem, dial, clock).map_err(ReleaseError::Pinned)?;
        Ok(Self { pinned, agent })
    }

    /// Asks for the DEK of an artifact. Asks twice where the broker says that a new challenge can help.
    pub fn request_key(
        &self,
        header: &Header,
        attester: &mut dyn Attester,
        rng: &mut dyn CryptoRng,
    ) -> Result<ReleasedKey, ReleaseError> {
        match self.ask(header, attester, rng) {
            Err(ReleaseError::Refused { retry: Retry::NewChallenge, .. }) => self.ask(header, attester, rng),
            result => result,
        }
    }

    fn ask(
        &self,
        header: &Header,
        attester: &mut dyn Attester,
        rng: &mut dyn CryptoRng,
    ) -> Result<ReleasedKey, ReleaseError> {
        let challenge: Challenge = decode(&self.post("/v1/challenge", &[])?, Step::R(20))?;
        let (index, stanza) = self.choose(header, &challenge)?;
        let key = EnclaveKey::generate(rng);
        let public_key = key.public();
        let salt = &header.prelude().salt;
        let binding = Binding::new(&challenge.nonce, &public_key, salt, stanza);
        let evidence = attester.attest(&challenge.nonce, binding.as_bytes(), None).map_err(ReleaseError::Attester)?;
        let (evidence, public_key) = (evidence.into(), public_key.into());
        let header_bytes = header.unpadded().to_vec().into();
        let request = Request { nonce: challenge.nonce, evidence, public_key, header: header_bytes, stanza: index };
        let grant: Grant = decode(&self.post("/v1/release", &encode(&request))?, Step::R(21))?;
        let logged = self.check_log(&grant, salt, &binding)?;
        open(&grant, &key, &binding, header, stanza, logged)
    }

    /// `[R-20]`: the first stanza for a key that is pinned and that the broker says it has.
    fn choose<'h>(&self, header: &'h Header, challenge: &Challenge) -> Result<(u16, &'h Section), Refusal> {
        let salt = &header.prelude().salt;
        let usable = |id: &&[u8; 32]| challenge.keys.iter().any(|key| **key == **id);
        let keys: Vec<_> = self.pinned.keys.iter().filter(usable).collect();
        let pinned: Vec<_> = self.pinned.keys.iter().map(|id| hex(id)).collect();
        if keys.is_empty() {
            let offered: Vec<_> = challenge.keys.iter().take(4).map(|id| hex(&**id)).collect();
            return Err(Refusal::new(Step::R(20), "broker keys", pinned.join(", "), offered.join(", ")));
        }
        let is_ours = |(_, section): &(u16, &Section)| {
            Stanza::parse(section).is_some_and(|stanza| keys.iter().any(|id| stanza.is_for(id, salt)))
        };
        let stanza = (0..).zip(header.stanzas()).find(is_ours); // F-11: at most 512
        let expected = format!("a broker stanza for {}", pinned.join(", "));
        stanza.ok_or_else(|| Refusal::new(Step::R(20), "recipients", expected, "none"))
    }

    /// `[R-22]`
    fn check_log(&self, grant: &Grant, salt: &[u8; 32], binding: &Binding) -> Result<(LogEntry, Logged), Refusal> {
        let refuse = |what: &str, expected: String, found: String| Refusal::new(Step::R(22), what, expected, found);
        let logged = verify_log_proof(&grant.entry, &grant.proof, &self.pinned.log)
            .map_err(|e| refuse("log proof", "one of the pinned log".into(), e.to_string()))?;
        let entry =
            LogEntry::parse(&grant.entry).map_err(|e| refuse("log entry", "the decision".into(), e.to_string()))?;
        let answer = answer_digest(&grant.enc, &*grant.wrapped);
        let wanted = [
            ("decision", hex(&*grant.id), Some(entry.id.clone())),
            ("artifact", hex(salt), entry.artifact.clone()),
            ("binding", hex(binding.as_bytes()), entry.binding.clone()),
            ("answer", hex(&answer), entry.answer.clone()),
        ];
        for (what, expected, found) in wanted {
            if found.as_ref() != Some(&expected) {
                return Err(refuse(what, expected, found.unwrap_or_else(|| "nothing".into())));
            }
        }
        match entry.outcome {
            Outcome::Granted => Ok((entry, logged)),
            Outcome::Refused => Err(refuse("outcome", "granted".into(), "refused".into())),
        }
    }

    /// The release log's key.
    pub(crate) fn log(&self) -> &LogVerifier {
        &self.pinned.log
    }

    /// A text that the broker gives to anyone.
    pub(crate) fn get(&self, path: &str) -> Result<String, ReleaseError> {
        let answer = self.agent.get(format!("{}{path}", self.pinned.url)).call();
        let mut answer = answer.map_err(|e| failure(&self.pinned.url, &e))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER as u64).read_to_vec();
        let text = String::from_utf8_lossy(&body.map_err(|e| failure(&self.pinned.url, &e))?).into_owned();
        if status == 200 {
            Ok(text)
        } else {
            Err(ReleaseError::Status { who: "the broker", status, message: first_line(&text) })
        }
    }

    /// Sends a message; gives the body of a 200, or the refusal.
    fn post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, ReleaseError> {
        let url = format!("{}{path}", self.pinned.url);
        let answer = self.agent.post(&url).header("content-type", MEDIA_TYPE).send(body);
        let mut answer = answer.map_err(|e| failure(&self.pinned.url, &e))?;
        let status = answer.status().as_u16();
        let is_message = answer.headers().get("content-type").is_some_and(|t| t.as_bytes() == MEDIA_TYPE.as_bytes());
        let body = answer.body_mut().with_config().limit(MAX_ANSWER as u64).read_to_vec();
        let body = body.map_err(|e| failure(&self.pinned.url, &e))?;
        match (status, is_message) {
            (200, true) => Ok(body),
            (_, true) => Err(refused(&body)),
            _ => Err(ReleaseError::Status {
                who: "the broker",
                status,
                message: first_line(&String::from_utf8_lossy(&body)),
            }),
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

fn refused(body: &[u8]) -> ReleaseError {
    match decode::<RefusalMessage>(body, Step::R(21)) {
        Err(refusal) => refusal.into(),
        Ok(message) => {
            let hint = message.hint.chars().filter(|c| !c.is_control()).collect();
            let (id, retry) = (hex(&*message.id), Retry::parse(&message.retry).unwrap_or(Retry::Never));
            ReleaseError::Refused { step: message.step, id, retry, hint, wait_s: message.wait_s }
        }
    }
}

/// `[R-21]`
fn open(
    grant: &Grant,
    key: &EnclaveKey,
    binding: &Binding,
    header: &Header,
    stanza: &Section,
    (entry, logged): (LogEntry, Logged),
) -> Result<ReleasedKey, ReleaseError> {
    let refuse =
        |found: String| Refusal::new(Step::R(21), "grant", "the DEK of this artifact, wrapped to this enclave", found);
    let dek = key.open(binding, &grant.id, &grant.enc, &*grant.wrapped).and_then(Dek::from_secret);
    let dek = dek.ok_or_else(|| refuse("one that does not open".into()))?;
    let released = Released::new(stanza.clone(), dek);
    header.unlock(&[&released]).map_err(|e| refuse(e.to_string()))?; // F-7, F-8
    if entry.signer.is_some() != entry.payload.is_some() {
        return Err(refuse("one half of a signature's obligation".into()).into());
    }
    let source = Source::Broker { decision: entry.id, logged };
    let (minimum_model_version, signed) = (entry.minimum_model_version, entry.signer.zip(entry.payload));
    Ok(ReleasedKey::new(released, Obligations { minimum_model_version, signed }, source))
}
