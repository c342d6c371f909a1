//! Appraisal: steps P-2 to P-11, and what a refused one teaches.

use super::{Policy, Release};
use crate::evidence::{Pcr, VerifiedEvidence};
use crate::nitro::{MAX_SKEW_S, hex};
use crate::step::{Refusal, Step};
use crate::time::{rfc3339, rfc3339_ms};
use std::fmt;
use vault_core::header::Prelude;
use vault_core::signature::SignatureSection;

/// What is asked of evidence besides its measurements.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// Now, in milliseconds since 1970.
    pub now_ms: u64,
    /// The nonce that was given out; `None` skips P-4.
    pub nonce: Option<&'a [u8]>,
    /// The artifact's id; `None` skips P-7.
    pub artifact: Option<&'a [u8; 32]>,
    /// The id of the broker key that the stanza is for; `None` skips P-8.
    pub recipient: Option<&'a [u8; 32]>,
}

/// What a header says of the model, once the DEK opened it.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// The about block's name.
    pub name: &'a str,
    /// The about block's version.
    pub version: u64,
    /// The header's first part and its signature section, if it has one.
    pub signature: Option<(&'a Prelude, &'a SignatureSection)>,
}

/// Obligation: what the publisher whom the policy demands signed `[P-11]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The id of the publisher's key.
    pub signer: [u8; 32],
    /// The payload digest of FORMAT.md 4.6.
    pub payload: [u8; 32],
}

/// A refusal by policy, with the line that refused and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Denial {
    /// The step, expected and actual.
    pub refusal: Refusal,
    /// `NAME:LINE: text` of the policy.
    pub policy_line: String,
    /// The next step.
    pub fix: String,
}

/// Evidence that passed P-2 to P-8; the model is still to be judged.
#[derive(Debug)]
pub struct Appraised<'p> {
    policy: &'p Policy,
    release: &'p Release,
    not_judged: Vec<Step>,
}

/// A policy's yes. Only appraisal makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationResult {
    policy: String,
    policy_digest: [u8; 32],
    release: String,
    minimum_model_version: Option<u64>,
    signed: Option<Signed>,
    not_judged: Vec<Step>,
}

impl AttestationResult {
    /// The policy's name.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// SHA-256 of the policy's file.
    pub fn policy_digest(&self) -> &[u8; 32] {
        &self.policy_digest
    }

    /// The release that matched.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Obligation: the least version the manifest may have.
    pub fn minimum_model_version(&self) -> Option<u64> {
        self.minimum_model_version
    }

    /// Obligation: whose signature the payload must have, and over what, where the policy names signers.
    pub fn signed(&self) -> Option<&Signed> {
        self.signed.as_ref()
    }

    /// Steps that nothing was given for.
    pub fn not_judged(&self) -> &[Step] {
        &self.not_judged
    }
}

impl Policy {
    /// P-2 to P-8.
    pub fn appraise(&self, evidence: &VerifiedEvidence, demand: &Demand<'_>) -> Result<Appraised<'_>, Denial> {
        if evidence.platform() != self.platform() {
            let refusal = Refusal::new(Step::P(2), "platform", self.platform(), evidence.platform());
            return Err(self.deny(refusal, "platform", "the policy is for other hardware"));
        }
        self.check_age(evidence, demand.now_ms)?;
        self.check_nonce(evidence, demand.nonce)?;
        let release = self.find_release(evidence, demand.now_ms)?;
        let scope = self.scope();
        self.check_scope(7, "artifact", "scope.artifacts", scope.artifacts.as_deref(), demand.artifact)?;
        self.check_scope(8, "broker key", "scope.recipients", scope.recipients.as_deref(), demand.recipient)?;
        let skipped = [(4, demand.nonce.is_none()), (7, demand.artifact.is_none()), (8, demand.recipient.is_none())];
        let not_judged = skipped.iter().filter(|(_, skipped)| *skipped).map(|(n, _)| Step::P(*n)).collect();
        Ok(Appraised { policy: self, release, not_judged })
    }

    /// `[P-3]`
    fn check_age(&self, evidence: &VerifiedEvidence, now_ms: u64) -> Result<(), Denial> {
        let (now, then) = (now_ms / 1000, evidence.time_ms() / 1000);
        let expected = format!("at most {} s before {}", self.max_age_s(), rfc3339_ms(now_ms));
        let found = rfc3339_ms(evidence.time_ms());
        let fix = if then > now.saturating_add(MAX_SKEW_S) {
            "the document is from the future: set the clock of this host (chronyc tracking)"
        } else if now.saturating_sub(then) > self.max_age_s() {
            "the enclave must attest anew for each request; if it does, set the clock of this host (chronyc tracking)"
        } else {
            return Ok(());
        };
        Err(self.deny(Refusal::new(Step::P(3), "age of the evidence", expected, found), "max_age_s", fix))
    }

    /// `[P-4]`
    fn check_nonce(&self, evidence: &VerifiedEvidence, nonce: Option<&[u8]>) -> Result<(), Denial> {
        let Some(nonce) = nonce else { return Ok(()) };
        if evidence.nonce() == nonce {
            return Ok(());
        }
        let found = if evidence.nonce().is_empty() { "no nonce".into() } else { hex(evidence.nonce()) };
        let fix = "the enclave must put the challenge's nonce into its document, all 32 bytes and nothing else";
        Err(self.deny(Refusal::new(Step::P(4), "nonce", hex(nonce), found), "name", fix))
    }

    /// `[P-5]` and `[P-6]`
    fn find_release(&self, evidence: &VerifiedEvidence, now_ms: u64) -> Result<&Release, Denial> {
        let mut matching = self.releases().iter().filter(|r| differences(r, evidence).is_empty()).peekable();
        let Some(first) = matching.peek().copied() else { return Err(self.deny_measurements(evidence)) };
        let now = now_ms / 1000;
        let timely = |r: &&Release| r.not_before_s.is_none_or(|t| t <= now) && r.not_after_s.is_none_or(|t| now <= t);
        if let Some(release) = matching.find(timely) {
            return Ok(release);
        }
        let (key, time, fix) = match first.not_before_s {
            Some(from) if now < from => {
                ("not_before", from, "the release is not in force yet; wait, or change not_before")
            }
            _ => ("not_after", first.not_after_s.unwrap_or(0), "the release is out of force: deploy a newer image"),
        };
        let refusal = Refusal::new(Step::P(6), format!("{key} of release {}", first.name), rfc3339(time), rfc3339(now));
        Err(self.deny(refusal, &format!("release.{}.{key}", first.name), fix))
    }

    /// The refusal of measurements that no release has: compared with the one that differs least.
    fn deny_measurements(&self, evidence: &VerifiedEvidence) -> Denial {
        let closest = self.releases().iter().min_by_key(|r| differences(r, evidence).len());
        let Some(release) = closest else {
            return self.deny(Refusal::new(Step::P(5), "PCRs", "a release", "none"), "name", "add a release");
        };
        let differing = differences(release, evidence);
        let list = |value: &dyn Fn(u8) -> String| {
            let all: Vec<_> = differing.iter().map(|&i| format!("PCR{i} {}", value(i))).collect();
            all.join(", ")
        };
        let expected = list(&|i| release.pcrs.get(&i).map_or(String::new(), |pcr| hex(pcr)));
        let found = list(&|i| evidence.pcr(usize::from(i)).map_or("absent".into(), |pcr| hex(pcr)));
        let what = format!("measurements (closest is release {})", release.name);
        let key = format!("release.{}.pcr{}", release.name, differing.first().copied().unwrap_or(0));
        self.deny(Refusal::new(Step::P(5), what, expected, found), &key, &self.advice(release, &differing, evidence))
    }

    /// What a set of differing PCRs means: 0 is the whole image, 1 kernel and boot, 2 the application, 3 the parent's
    /// IAM role, 4 the parent instance, 8 the certificate that signed the image.
    fn advice(&self, release: &Release, differing: &[u8], evidence: &VerifiedEvidence) -> String {
        let name = &release.name;
        let wanted = |i: u8| release.pcrs.get(&i);
        let swapped = evidence.pcr(1) == wanted(2) && evidence.pcr(2) == wanted(1);
        let image: Vec<_> = differing.iter().copied().filter(|&i| i <= 2).collect();
        match (image.as_slice(), differing) {
            (_, [1, 2]) if swapped => "pcr1 and pcr2 are swapped in the policy; swap them back".into(),
            ([0, 1], _) => {
                let kernel = match self.release_with(1, evidence, release) {
                    Some(other) => format!("the kernel of release {}", other.name),
                    None => "another kernel".into(),
                };
                format!("the application of {name} on {kernel}: rebuild with the kernel of {name}, or add this release")
            }
            ([0, 2], _) => {
                format!("the kernel of {name} with another application: deploy {name}, or add this release")
            }
            (_, [3]) => "another IAM role of the parent instance: attach the role that the policy names".into(),
            (_, [4]) => "another parent instance: pcr4 names one instance only; leave it out to allow any".into(),
            (_, [8]) => "an image signed with another certificate: sign it with the key of the release".into(),
            ([], _) => format!("the image of {name}, run or signed otherwise: compare pcr3, pcr4 and pcr8"),
            (_, [0]) => "only PCR0 differs, which no image does: copy the three PCRs of one build".into(),
            _ => {
                "another image: deploy a release of the policy, or add this one with `mvault policy add-release`".into()
            }
        }
    }

    /// Another release that has this PCR of the evidence.
    fn release_with(&self, pcr: u8, evidence: &VerifiedEvidence, but: &Release) -> Option<&Release> {
        let found = evidence.pcr(usize::from(pcr));
        self.releases().iter().find(|r| r.name != but.name && r.pcrs.get(&pcr) == found)
    }

    /// `[P-7]`, `[P-8]`
    fn check_scope(
        &self,
        step: u8,
        what: &str,
        key: &str,
        scope: Option<&[[u8; 32]]>,
        found: Option<&[u8; 32]>,
    ) -> Result<(), Denial> {
        let (Some(scope), Some(found)) = (scope, found) else { return Ok(()) };
        if scope.contains(found) {
            return Ok(());
        }
        let expected: Vec<_> = scope.iter().map(|id| hex(id)).collect();
        let refusal = Refusal::new(Step::P(step), what, expected.join(" or "), hex(found));
        Err(self.deny(refusal, key, &format!("add it to {key} of the policy, or seal for another policy")))
    }

    /// `[P-11]`: by which of the demanded signers the header is signed, for this name and version.
    fn check_signer(&self, model: &Model<'_>) -> Result<Option<Signed>, Denial> {
        let Some(signers) = &self.scope().signers else { return Ok(None) };
        let ids: Vec<_> = signers.iter().map(|signer| hex(signer.id())).collect();
        let refuse = |found: String, fix: &str| {
            let refusal = Refusal::new(Step::P(11), "the model's signer", ids.join(" or "), found);
            self.deny(refusal, "scope.signers", fix)
        };
        let Some((prelude, section)) = model.signature else {
            return Err(refuse("no signature".into(), "seal it with `--sign` and a key that the policy names"));
        };
        if !signers.iter().any(|signer| *signer.id() == section.key_id) {
            let fix = "seal it with a key that the policy names, or add this signer to scope.signers of the policy";
            return Err(refuse(hex(&section.key_id), fix));
        }
        let keys: Vec<_> = signers.iter().map(|signer| signer.key().clone()).collect();
        let genuine = section.verify(prelude, &keys).is_ok(); // F-20
        let of_this = section.check_identity(&prelude.salt, model.name, model.version).is_ok(); // F-22
        match (genuine, of_this) {
            (true, true) => Ok(Some(Signed { signer: section.key_id, payload: section.payload.digest })),
            (false, _) => {
                let fix = "the header was changed or forged: get the artifact again from where it was published";
                Err(refuse("a signature of that key that does not verify".into(), fix))
            }
            (true, false) => {
                let fix = "the about block was rewritten since it was signed: publish the model anew";
                let found =
                    format!("its signature of another name or version than {} version {}", model.name, model.version);
                Err(refuse(found, fix))
            }
        }
    }

    fn deny(&self, refusal: Refusal, key: &str, fix: &str) -> Denial {
        let (number, text) = self.line(key).unwrap_or((0, ""));
        Denial { refusal, policy_line: format!("{}:{number}: {text}", self.name()), fix: fix.to_owned() }
    }
}

impl Appraised<'_> {
    /// P-9 to P-11.
    pub fn model(self, model: &Model<'_>) -> Result<AttestationResult, Denial> {
        let (policy, Model { name, version, .. }) = (self.policy, *model);
        if let Some(models) = &policy.scope().models
            && !models.iter().any(|m| m == name)
        {
            let refusal = Refusal::new(Step::P(9), "the model's name", models.join(" or "), name);
            let fix = "add it to scope.models of the policy, or seal for another policy";
            return Err(policy.deny(refusal, "scope.models", fix));
        }
        if let Some(minimum) = policy.minimum_model_version()
            && version < minimum
        {
            let refusal = Refusal::new(Step::P(10), "the model's version", format!("{minimum} or later"), version);
            let fix = "the enclave asks for a version that was withdrawn: give it the newer one";
            return Err(policy.deny(refusal, "minimum_model_version", fix));
        }
        let signed = policy.check_signer(model)?;
        Ok(self.result(signed, &[]))
    }

    /// The result when there is no model to judge.
    pub fn without_model(self) -> AttestationResult {
        self.result(None, &[Step::P(9), Step::P(10), Step::P(11)])
    }

    /// The release that matched.
    pub fn release(&self) -> &str {
        &self.release.name
    }

    fn result(self, signed: Option<Signed>, skipped: &[Step]) -> AttestationResult {
        let mut not_judged = self.not_judged;
        not_judged.extend_from_slice(skipped);
        AttestationResult {
            policy: self.policy.name().to_owned(),
            policy_digest: *self.policy.digest(),
            release: self.release.name.clone(),
            minimum_model_version: self.policy.minimum_model_version(),
            signed,
            not_judged,
        }
    }
}

/// The PCRs in which a release and evidence differ.
fn differences(release: &Release, evidence: &VerifiedEvidence) -> Vec<u8> {
    let differs = |(&index, wanted): (&u8, &Pcr)| (evidence.pcr(usize::from(index)) != Some(wanted)).then_some(index);
    release.pcrs.iter().filter_map(differs).collect()
}

impl fmt::Display for AttestationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "release {} of policy {} ({})", self.release, self.policy, hex(&self.policy_digest))
    }
}
