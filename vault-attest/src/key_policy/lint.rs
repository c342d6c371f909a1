//! Ways to use a key outside the enclave: requests an attacker would make are put to the policy's text, then the
//! text is read for what only looks like a condition.

mod texts;

use super::document::{Condition, Document, Principal, Set, Statement};
use super::request::{Caller, Measured, Request, about, denied, glob, may, pcr_index};
use crate::nitro::hex;
use crate::policy::{Policy, Release, parse_pcr};
use std::collections::BTreeSet;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The key can be used outside the wanted enclaves as it stands.
    Open,
    /// Nothing, or one statement alone, stands against that.
    Weak,
    /// An enclave that should open cannot.
    Shut,
}

/// One thing that is wrong with a key policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name, such as `decrypt-without-evidence`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The statement's Sid, or its number from 1; empty if it is about the whole.
    pub statement: String,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// The next step.
    pub fix: &'static str,
}

impl Severity {
    /// `open`, `weak` or `shut`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Weak => "weak",
            Self::Shut => "shut",
        }
    }
}

/// What is wrong with a key policy, worst first; with an appraisal policy, also where the two disagree.
pub fn lint(document: &Document, policy: Option<&Policy>) -> Vec<Finding> {
    let mut linter = Linter { document, policy, findings: Vec::new() };
    for (index, statement) in document.statements.iter().enumerate() {
        let name = statement.name(index);
        if statement.allow {
            linter.opening(statement, &name);
            linter.ways_round(statement, &name);
            linter.sealing(statement, &name);
            linter.grammar(statement, &name);
        }
        linter.conditions(statement, &name);
        for element in &statement.unknown {
            linter.find("unknown-element", &name, format!("element {element:?}"));
        }
    }
    for element in &document.unknown {
        linter.find("unknown-element", "", format!("element {element:?}"));
    }
    linter.missing_denials();
    linter.shut_out();
    let mut findings = linter.findings;
    findings.sort_by_key(|f| f.severity);
    findings
}

struct Linter<'a> {
    document: &'a Document,
    policy: Option<&'a Policy>,
    findings: Vec<Finding>,
}

/// What opens the key to whoever may do it: evidence is never asked for.
const WAYS_ROUND: [(&str, &str); 5] = [
    ("kms:ReEncryptFrom", "re-encrypt"),
    ("kms:CreateGrant", "grant"),
    ("kms:ReplicateKey", "replicate"),
    ("kms:UpdatePrimaryRegion", "replicate"),
    ("kms:ImportKeyMaterial", "import"),
];
/// All actions that matter here.
const ACTIONS: [&str; 10] = [
    "kms:Decrypt",
    "kms:DeriveSharedSecret",
    "kms:GenerateDataKey",
    "kms:Encrypt",
    "kms:PutKeyPolicy",
    "kms:ReEncryptFrom",
    "kms:CreateGrant",
    "kms:ReplicateKey",
    "kms:UpdatePrimaryRegion",
    "kms:ImportKeyMaterial",
];
const ZEROS: &str = "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";

impl<'a> Linter<'a> {
    fn find(&mut self, id: &'static str, statement: &str, found: impl Into<String>) {
        let (severity, why, fix) = texts::of(id);
        let found: String =
            found.into().chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).take(300).collect();
        let statement = statement.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).take(80).collect();
        let finding = Finding { id, severity, statement, found, why, fix };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// ARNs that the document names anywhere.
    fn named(&self) -> BTreeSet<&'a str> {
        let mut all = BTreeSet::new();
        for statement in &self.document.statements {
            all.extend(statement.principals.iter().filter_map(|p| match p {
                Principal::One(arn) => Some(arn.as_str()),
                _ => None,
            }));
            let about_arn = statement.conditions.iter().filter(|c| c.key.eq_ignore_ascii_case("aws:PrincipalArn"));
            let plain =
                about_arn.flat_map(|c| &c.values).filter(|v| v.starts_with("arn:") && !v.contains(['*', '?', '$']));
            all.extend(plain.map(String::as_str));
        }
        all
    }

    /// Who may be meant by a statement's principals: those named, and one more who is not.
    fn callers(&self, statement: &'a Statement) -> Vec<Caller<'a>> {
        let named = || self.named().into_iter().map(Caller::one);
        let mut all = Vec::new();
        for principal in &statement.principals {
            match principal {
                _ if statement.not_principal => {
                    all.push(Caller::STRANGER);
                    all.extend(named());
                }
                Principal::Anyone => {
                    all.push(Caller::STRANGER);
                    all.extend(named());
                }
                Principal::Account(account) => {
                    all.push(Caller { arn: None, account: Some(account) });
                    all.extend(named().filter(|c| c.account == Some(account)));
                }
                Principal::One(arn) => all.push(Caller::one(arn)),
                Principal::Other(_) => all.push(Caller::STRANGER),
                Principal::Deleted(_) => {}
            }
        }
        all
    }

    fn asks(&self, statement: &Statement, action: &str, caller: Caller<'_>) -> bool {
        may(self.document, statement, &Request { action, caller, evidence: None, no_context: false })
    }

    fn attested<'r>(&self, statement: &Statement, caller: Caller<'r>, pcrs: &'r dyn Fn(u8) -> Measured<'r>) -> bool {
        let request = Request { action: "kms:Decrypt", caller, evidence: Some(pcrs), no_context: false };
        may(self.document, statement, &request)
    }

    /// Decrypt without evidence, with evidence of anything, and with almost the right evidence.
    fn opening(&mut self, statement: &'a Statement, name: &str) {
        for caller in self.callers(statement) {
            let plain = ["kms:Decrypt", "kms:DeriveSharedSecret"].iter().find(|a| self.asks(statement, a, caller));
            if let Some(action) = plain {
                let id = if caller.arn.is_none() && caller.account.is_some() {
                    "iam-decides"
                } else {
                    "decrypt-without-evidence"
                };
                self.find(id, name, format!("{action} by {}", described(caller)));
                return;
            }
            if self.attested(statement, caller, &|i| if i == 0 { Measured::Fresh } else { Measured::Any }) {
                self.find("any-enclave", name, format!("kms:Decrypt from any image by {}", described(caller)));
                return;
            }
            if self.attested(statement, caller, &|i| if i <= 2 { Measured::Exactly(ZEROS) } else { Measured::Any }) {
                self.find("debug-enclave", name, "kms:Decrypt with PCR0, 1 and 2 of zeros");
            }
            for release in self.policy.map(Policy::releases).unwrap_or_default() {
                self.near_misses(statement, name, caller, release);
            }
        }
    }

    /// Evidence that differs from a release in one PCR.
    fn near_misses(&mut self, statement: &Statement, name: &str, caller: Caller<'_>, release: &Release) {
        let pcrs: Vec<_> = release.pcrs.iter().map(|(i, pcr)| (*i, hex(pcr))).collect();
        let of = |i: u8| pcrs.iter().find(|(n, _)| *n == i).map(|(_, pcr)| pcr.as_str());
        for (wrong, _) in &pcrs {
            let differing = |i: u8| match of(i) {
                Some(pcr) if i == *wrong => Measured::AnyBut(pcr),
                Some(pcr) => Measured::Exactly(pcr),
                None => Measured::Any,
            };
            // An image that the policy allows as well is no miss.
            if *wrong != 0 && self.attested(statement, caller, &differing) {
                let found = format!("kms:Decrypt for release {} with another PCR{wrong}", release.name);
                self.find("pcr-not-demanded", name, found);
            }
        }
    }

    fn ways_round(&mut self, statement: &'a Statement, name: &str) {
        for caller in self.callers(statement) {
            for (action, id) in WAYS_ROUND {
                if self.asks(statement, action, caller) {
                    self.find(id, name, format!("{action} by {}", described(caller)));
                }
            }
            if !self.asks(statement, "kms:PutKeyPolicy", caller) {
                continue;
            }
            if caller.arn.is_none() {
                self.find("policy-change", name, format!("kms:PutKeyPolicy by {}", described(caller)));
            } else if self.opens_with_evidence(caller) {
                self.find("enclave-administers", name, format!("kms:PutKeyPolicy by {}", described(caller)));
            }
        }
    }

    /// Whether a statement names this caller as an enclave's role.
    fn opens_with_evidence(&self, caller: Caller<'_>) -> bool {
        let named = |s: &&Statement| {
            s.principals.iter().any(|p| matches!(p, Principal::One(arn) if Some(arn.as_str()) == caller.arn))
        };
        let allows = self.document.statements.iter().filter(|s| s.allow);
        allows.filter(named).any(|s| self.attested(s, caller, &|_| Measured::Any))
    }

    fn sealing(&mut self, statement: &'a Statement, name: &str) {
        for caller in self.callers(statement) {
            for action in ["kms:GenerateDataKey", "kms:Encrypt"] {
                let request = Request { action, caller, evidence: None, no_context: true };
                if caller.arn.is_none() && self.asks(statement, action, caller) {
                    self.find("sealing-by-anyone", name, format!("{action} by {}", described(caller)));
                } else if caller.arn.is_some() && may(self.document, statement, &request) {
                    let found = format!("{action} by {} without an encryption context", described(caller));
                    self.find("sealing-without-context", name, found);
                }
            }
        }
    }

    /// Forms that allow more than they say.
    fn grammar(&mut self, statement: &Statement, name: &str) {
        if !ACTIONS.iter().any(|action| about(statement, action)) {
            return;
        }
        let wide = |a: &&String| {
            a.contains(['*', '?']) && ACTIONS.iter().any(|x| glob(&a.to_ascii_lowercase(), &x.to_ascii_lowercase()))
        };
        if let (Some(action), false) = (statement.actions.iter().find(wide), statement.not_action) {
            self.find("wildcard-action", name, format!("Action {action:?}"));
        }
        if statement.not_action {
            self.find("not-action", name, format!("NotAction {:?}", statement.actions));
        }
        if statement.not_principal {
            self.find("not-principal", name, "NotPrincipal in an Allow");
        }
        if statement.not_resource || statement.resources != ["*"] {
            self.find("resource", name, format!("Resource {:?}", statement.resources));
        }
        for principal in &statement.principals {
            match principal {
                Principal::Anyone if !statement.not_principal => self.find("any-principal", name, "Principal \"*\""),
                Principal::Other(who) => self.find("service-principal", name, format!("Principal {who:?}")),
                Principal::Deleted(id) => self.find("deleted-principal", name, format!("Principal {id:?}")),
                _ => {}
            }
        }
    }

    /// Conditions on evidence that are none, or that no evidence meets.
    fn conditions(&mut self, statement: &Statement, name: &str) {
        for condition in &statement.conditions {
            if pcr_index(&condition.key).is_none() || condition.operator == "null" {
                continue;
            }
            let shown = format!("{} {}", condition.operator, condition.key);
            if statement.allow && condition.if_exists {
                self.find("if-exists", name, shown.clone());
            }
            if statement.allow && condition.set == Set::ForAll {
                self.find("for-all-values", name, shown.clone());
            }
            if statement.allow && condition.operator.contains("not") {
                self.find("pcr-negated", name, shown);
            }
            for value in &condition.values {
                self.pcr_value(condition, value, name, statement.allow);
            }
        }
    }

    fn pcr_value(&mut self, condition: &Condition, value: &str, name: &str, allow: bool) {
        let found = format!("{} {value:?}", condition.key);
        let index = pcr_index(&condition.key).unwrap_or(0);
        if value.contains(['*', '?', '$']) {
            return self.find("pcr-pattern", name, found);
        }
        let cased = !condition.operator.contains("ignorecase") && value.bytes().any(|b| b.is_ascii_uppercase());
        let Some(pcr) = parse_pcr(value).filter(|_| !cased) else { return self.find("pcr-malformed", name, found) };
        if pcr == [0; 48] {
            return self.find("pcr-zeros", name, found);
        }
        let known = |p: &Policy| p.releases().iter().any(|r| r.pcrs.get(&index) == Some(&pcr));
        if allow && self.policy.is_some_and(|p| !known(p)) {
            self.find("pcr-unknown", name, found);
        }
    }

    /// Denials hold for grants, for IAM and for statements added later; without them one careless Allow is enough.
    fn missing_denials(&mut self) {
        let refused = |action| {
            denied(self.document, &Request { action, caller: Caller::STRANGER, evidence: None, no_context: false })
        };
        let wanted = [
            ("kms:Decrypt", "no-deny-decrypt"),
            ("kms:CreateGrant", "no-deny-grant"),
            ("kms:PutKeyPolicy", "no-deny-policy-change"),
            ("kms:ReEncryptFrom", "no-deny-re-encrypt"),
            ("kms:ReplicateKey", "no-deny-replicate"),
        ];
        for (action, id) in wanted {
            if !refused(action) {
                self.find(id, "", format!("no Deny of {action}"));
            }
        }
    }

    /// Releases that the key policy has forgotten.
    fn shut_out(&mut self) {
        let Some(policy) = self.policy else {
            if !self.anyone_opens(&|_| Measured::Any) {
                self.find("release-shut-out", "", "no enclave at all may kms:Decrypt");
            }
            return;
        };
        for release in policy.releases() {
            let pcrs: Vec<_> = release.pcrs.iter().map(|(i, pcr)| (*i, hex(pcr))).collect();
            let of = |i: u8| pcrs.iter().find(|(n, _)| *n == i).map_or(Measured::Any, |(_, p)| Measured::Exactly(p));
            if !self.anyone_opens(&of) {
                self.find("release-shut-out", "", format!("release {} may not kms:Decrypt", release.name));
            }
        }
    }

    fn anyone_opens<'r>(&self, pcrs: &'r dyn Fn(u8) -> Measured<'r>) -> bool
    where
        'a: 'r,
    {
        let mut allows = self.document.statements.iter().filter(|s| s.allow);
        allows.any(|s| self.callers(s).into_iter().any(|caller| self.attested(s, caller, pcrs)))
    }
}

fn described(caller: Caller<'_>) -> String {
    match (caller.arn, caller.account) {
        (Some(arn), _) => arn.to_owned(),
        (None, Some(account)) => format!("whoever IAM of account {account} allows"),
        (None, None) => "anyone".to_owned(),
    }
}
