//! A decision up to the point where state decides it: steps, V-1 to V-23, P-2 to P-11, in the order of
//! docs/KEY_RELEASE.md section 4. Pure but for the keys it holds: clock, randomness and rules are arguments.

use crate::advice;
use crate::keyring::{Aged, Keyring};
use crate::rules::Rules;
use rand_core::CryptoRng;
use vault_attest::nitro::{self, Mode, Roots};
use vault_attest::policy::{Demand, Denial, Model, Policy};
use vault_attest::release::{Binding, ID_LEN, NONCE_LEN, NonceKey, Request, answer_digest, decode, wrap_dek};
use vault_attest::tlog::LogEntry;
use vault_attest::{Pcr, Refusal, Step, VerifiedEvidence};
use vault_core::header::{Header, Section, hex};
use vault_core::recipient::broker::{Released, Stanza};

/// `enc` and the wrapped DEK.
pub type Answer = (Vec<u8>, [u8; 48]);

/// What decides, apart from state.
pub struct Judge {
    keys: Vec<Aged>,
    nonce_key: NonceKey,
    roots: Roots,
}

/// A decision that state may still turn into a refusal.
pub struct Judged {
    /// The decision's id.
    pub id: [u8; ID_LEN],
    /// The nonce that is used up, with its expiry in seconds since 1970; `None` if it was not this broker's.
    pub nonce: Option<([u8; NONCE_LEN], u64)>,
    /// What is to be logged.
    pub entry: LogEntry,
    /// What a grant counts against; `None` for a refusal.
    pub quota: Option<QuotaKeys>,
    /// The grant's answer; `None` for a refusal.
    pub answer: Option<Answer>,
    /// The step that refused.
    pub refused: Option<Step>,
}

/// What a grant counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaKeys {
    /// The broker key's id.
    pub key: [u8; 32],
    /// The image.
    pub pcr0: Pcr,
}

/// What is known so far, for the entry, and what refused.
struct Case<'a> {
    entry: LogEntry,
    nonce: Option<([u8; NONCE_LEN], u64)>,
    rules: &'a Rules,
    now_ms: u64,
}

/// A refusal with what the operator shall know beside it.
struct No {
    refusal: Refusal,
    policy_line: Option<String>,
    fix: String,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        let fix = advice::fix(&refusal);
        Self { refusal, policy_line: None, fix }
    }
}

impl From<Denial> for No {
    fn from(denial: Denial) -> Self {
        Self { refusal: denial.refusal, policy_line: Some(denial.policy_line), fix: denial.fix }
    }
}

impl Judge {
    /// With these keys and roots.
    pub fn new(keyring: Keyring, roots: Roots) -> Self {
        let nonce_key = keyring.nonce_key();
        Self { keys: keyring.into_keys(), nonce_key, roots }
    }

    /// A challenge's nonce.
    pub fn nonce(&self, now_s: u64, rng: &mut dyn CryptoRng) -> [u8; NONCE_LEN] {
        self.nonce_key.issue(now_s, rng)
    }

    /// The ids of the keys, newest first.
    pub fn key_ids(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys.iter().map(|aged| aged.key.id())
    }

    /// Judges a request's body.
    pub fn judge(&self, body: &[u8], source: &str, rules: &Rules, now_ms: u64, rng: &mut dyn CryptoRng) -> Judged {
        let mut id = [0; ID_LEN];
        rng.fill_bytes(&mut id);
        let mut entry = LogEntry::new(&id, now_ms);
        entry.source = Some(source.to_owned());
        let mut case = Case { entry, nonce: None, rules, now_ms };
        match self.decide(body, &id, &mut case, rng) {
            Ok((answer, quota)) => {
                case.entry.answer = Some(hex(&answer_digest(&answer.0, &answer.1)));
                let (answer, quota) = (Some(answer), Some(quota));
                Judged { id, nonce: case.nonce, entry: case.entry, quota, answer, refused: None }
            }
            Err(no) => {
                case.entry.refuse(&no.refusal, Some(no.fix));
                case.entry.policy_line = no.policy_line;
                let refused = Some(no.refusal.step);
                Judged { id, nonce: case.nonce, entry: case.entry, quota: None, answer: None, refused }
            }
        }
    }

    fn decide(
        &self,
        body: &[u8],
        id: &[u8; ID_LEN],
        case: &mut Case<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Answer, QuotaKeys), No> {
        let request: Request = decode(body, Step::R(1))?;
        let nonce = *request.nonce;
        let expiry = self.nonce_key.check(&nonce, case.now_ms / 1000)?;
        case.nonce = Some((nonce, expiry));
        let header = Header::parse_unpadded(&request.header)
            .map_err(|e| Refusal::new(Step::R(4), "header", "a header of FORMAT.md to the end of its MAC", e))?;
        let salt = header.prelude().salt;
        case.entry.artifact = Some(hex(&salt));
        let (aged, section) = self.stanza(&header, request.stanza)?;
        let key_id = *aged.key.id();
        case.entry.key = Some(hex(&key_id));
        let policy = case.policy(section)?;
        case.check_revoked(&salt, &key_id)?;
        let binding = Binding::new(&nonce, &request.public_key, &salt, section);
        case.entry.binding = Some(hex(binding.as_bytes()));
        let evidence = self.verify(&request.evidence, case)?; // V-1 to V-23
        check_binding(&evidence, &binding)?;
        let demand =
            Demand { now_ms: case.now_ms, nonce: Some(&nonce), artifact: Some(&salt), recipient: Some(&key_id) };
        let appraised = policy.appraise(&evidence, &demand)?; // P-2 to P-8
        case.entry.release = Some(appraised.release().to_owned());
        let dek = aged.key.unwrap_dek(&salt, section).ok_or_else(|| {
            Refusal::new(Step::R(9), "wrapped DEK", "one that opens under the broker's key", "a changed or foreign one")
        })?;
        let released = Released::new(section.clone(), dek);
        let about = header
            .unlock(&[&released])
            .map_err(|e| Refusal::new(Step::R(10), "header", "commitment, MAC and about block of this DEK", e))?;
        let (name, version) = about.about().map_or(("", 0), |about| (about.name.as_str(), about.model_version));
        (case.entry.model, case.entry.model_version) = (Some(name.to_owned()), Some(version));
        let section = header.signature();
        let signature = section.as_ref().map(|section| (header.prelude(), section));
        let result = appraised.model(&Model { name, version, signature })?; // P-9 to P-11
        case.entry.minimum_model_version = result.minimum_model_version();
        let signed = result.signed();
        case.entry.signer = signed.map(|signed| hex(&signed.signer));
        case.entry.payload = signed.map(|signed| hex(&signed.payload));
        let answer = wrap_dek(released, &request.public_key, &binding, id, rng);
        let answer = answer.ok_or_else(|| Refusal::new(Step::R(1), "enclave public key", "an X-Wing key", "none"))?;
        let pcr0 = evidence.pcr(0).copied().unwrap_or([0; 48]); // V-10 wants it
        Ok((answer, QuotaKeys { key: key_id, pcr0 }))
    }

    /// `[R-5]`: the stanza that was asked for is for a key of this broker.
    fn stanza<'h>(&self, header: &'h Header, index: u16) -> Result<(&Aged, &'h Section), Refusal> {
        let salt = &header.prelude().salt;
        let asked = header.stanzas().nth(index.into());
        if let Some((section, stanza)) = asked.and_then(|section| Some((section, Stanza::parse(section)?)))
            && let Some(aged) = self.keys.iter().find(|aged| stanza.is_for(aged.key.id(), salt))
        {
            return Ok((aged, section));
        }
        let brokers: Vec<_> = header.stanzas().filter_map(Stanza::parse).collect();
        let is_ours = |stanza: &&Stanza<'_>| self.keys.iter().any(|aged| stanza.is_for(aged.key.id(), salt));
        let (count, ours) = (brokers.len(), brokers.iter().filter(is_ours).count());
        let found = match (count, ours) {
            (0, _) => "no broker stanza".into(),
            (_, 0) => format!("{count} for other brokers"),
            _ => format!("stanza {index}, which is for another recipient"),
        };
        let ids: Vec<_> = self.key_ids().take(4).map(|id| hex(id)).collect();
        let expected = format!("a broker stanza for one of {}", ids.join(", "));
        Err(Refusal::new(Step::R(5), "recipients", expected, found))
    }

    /// V-1 to V-23.
    fn verify(&self, document: &[u8], case: &mut Case<'_>) -> Result<VerifiedEvidence, No> {
        use sha2::Digest;
        case.entry.evidence = Some(hex(&sha2::Sha256::digest(document)));
        let mode = Mode::Live { now_s: case.now_ms / 1000 };
        let evidence = nitro::verify(document, &self.roots, mode).map_err(|refusal| {
            let fix = advice::fix_evidence(&refusal, document, case.now_ms / 1000);
            No { refusal, policy_line: None, fix }
        })?;
        case.entry.platform = Some(evidence.platform().name().to_owned());
        case.entry.module = Some(evidence.module_id().to_owned());
        let pcr = |index| evidence.pcr(index).map(|pcr| hex(pcr));
        (case.entry.pcr0, case.entry.pcr1, case.entry.pcr2) = (pcr(0), pcr(1), pcr(2));
        Ok(evidence)
    }
}

impl<'a> Case<'a> {
    /// `[R-6]`
    fn policy(&mut self, section: &Section) -> Result<&'a Policy, Refusal> {
        let stanza = Stanza::parse(section);
        let (name, pinned) = stanza.map_or(("", None), |stanza| (stanza.policy, stanza.digest));
        self.entry.policy = Some(name.to_owned());
        let Some(policy) = self.rules.policy(name) else {
            let loaded: Vec<_> = self.rules.policies().map(Policy::name).collect();
            let expected = if loaded.is_empty() { "any policy at all".into() } else { loaded.join(", ") };
            return Err(Refusal::new(Step::R(6), "policy", expected, name));
        };
        self.entry.policy_digest = Some(hex(policy.digest()));
        match pinned {
            Some(digest) if digest != *policy.digest() => {
                let what = format!("digest of policy {name}");
                Err(Refusal::new(Step::R(6), what, hex(&digest), hex(policy.digest())))
            }
            _ => Ok(policy),
        }
    }

    /// `[R-7]`
    fn check_revoked(&self, artifact: &[u8; 32], key: &[u8; 32]) -> Result<(), Refusal> {
        let refuse = |what, id: &[u8; 32]| Err(Refusal::new(Step::R(7), what, "one that is not revoked", hex(id)));
        if self.rules.is_revoked_artifact(artifact) {
            return refuse("artifact", artifact);
        }
        if self.rules.is_revoked_recipient(key) {
            return refuse("broker key", key);
        }
        Ok(())
    }
}

/// `[R-8]`
fn check_binding(evidence: &VerifiedEvidence, binding: &Binding) -> Result<(), Refusal> {
    if evidence.user_data() == binding.as_bytes() {
        return Ok(());
    }
    let found = if evidence.user_data().is_empty() { "none".into() } else { hex(evidence.user_data()) };
    Err(Refusal::new(Step::R(8), "user_data", hex(binding.as_bytes()), found))
}
