//! The key policy of AWS KMS that an appraisal policy asks for: KEY_RELEASE.md 9.2.
//!
//! Conditions within a statement hold together and statements are alternatives, so each release has its own: lists of
//! PCRs in one statement would let the kernel of one release go with the application of another.

use super::{IMAGE_SHA384, MAX_KEY_POLICY};
use crate::evidence::Pcr;
use crate::nitro::hex;
use crate::policy::{Policy, Release};
use crate::time::rfc3339;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// An IAM role or user: `arn:PARTITION:iam::ACCOUNT:role/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arn(String);

/// Who may do what with a key.
#[derive(Debug, Clone)]
pub struct Access {
    /// Those who may change the policy. Whoever they are, they can give themselves the key: name few.
    pub administrators: Vec<Arn>,
    /// An account whose root user, and nobody else of it, may change the policy too.
    pub root_of: Option<String>,
    /// The roles of the instances whose enclaves open models; if none, whoever IAM of the account allows.
    pub enclaves: Vec<Arn>,
    /// Those who seal outside enclaves.
    pub sealers: Vec<Arn>,
    /// Whether enclaves seal as well.
    pub enclaves_seal: bool,
    /// The only artifacts that enclaves open, beside the policy's scope.
    pub artifacts: Vec<[u8; 32]>,
}

/// Why there is no key policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Nobody could ever change the policy.
    #[error("a key needs an administrator")]
    NoAdministrator,
    /// More than KMS takes.
    #[error("the key policy has {0} bytes and KMS takes {MAX_KEY_POLICY}")]
    TooLong(usize),
    /// An artifact that the appraisal policy leaves out.
    #[error("artifact {0} is not in the policy's scope")]
    OutOfScope(String),
    /// Who changes the policy needs no enclave.
    #[error("{0} is both an administrator and the role of an enclave")]
    TwoRoles(String),
}

/// What an administrator does; nothing of it opens anything but a change of the policy.
const ADMINISTER: [&str; 16] = [
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:UpdateAlias",
];
/// Ways round a condition on evidence: grants and copies have rules of their own, re-encryption takes no evidence.
const NEVER: [&str; 11] = [
    "kms:CreateGrant",
    "kms:DeriveSharedSecret",
    "kms:Encrypt",
    "kms:GenerateDataKeyPair",
    "kms:GenerateDataKeyPairWithoutPlaintext",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ImportKeyMaterial",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "kms:ReplicateKey",
    "kms:UpdatePrimaryRegion",
];

impl Arn {
    /// A role or a user; `None` for accounts, sessions, services and patterns.
    pub fn parse(text: &str) -> Option<Self> {
        let ["arn", partition, "iam", "", account, resource] = text.splitn(6, ':').collect::<Vec<_>>()[..] else {
            return None;
        };
        let (kind, name) = resource.split_once('/')?;
        let plain = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b));
        let ok = partition.starts_with("aws")
            && partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && matches!(kind, "role" | "user")
            && !name.is_empty()
            && text.len() <= 2048
            && plain(name);
        ok.then(|| Self(text.to_owned()))
    }

    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, n: usize) -> &str {
        self.0.split(':').nth(n).unwrap_or_default()
    }
}

impl Access {
    /// The key policy's text, indented where that fits.
    pub fn key_policy(&self, policy: &Policy) -> Result<String, AccessError> {
        if self.administrators.is_empty() && self.root_of.is_none() {
            return Err(AccessError::NoAdministrator);
        }
        if let Some(both) = self.enclaves.iter().find(|e| self.administrators.contains(e)) {
            return Err(AccessError::TwoRoles(both.0.clone()));
        }
        let artifacts = self.artifacts(policy)?;
        let mut statements = self.administration();
        for (n, release) in policy.releases().iter().enumerate() {
            statements.push(self.release(n + 1, release, &artifacts));
        }
        if !self.sealers.is_empty() {
            let action = json!("kms:GenerateDataKey");
            statements.push(statement("SealArtifacts", &aws(&self.sealers), &action, &context(&[])));
        }
        statements.extend(self.denials(policy));
        let document = json!({ "Version": "2012-10-17", "Statement": statements });
        let (long, short) = (format!("{document:#}\n"), format!("{document}\n"));
        match short.len() {
            _ if long.len() <= MAX_KEY_POLICY => Ok(long),
            n if n <= MAX_KEY_POLICY => Ok(short),
            n => Err(AccessError::TooLong(n)),
        }
    }

    /// What the key policy says when no role of an enclave is named: whoever this account's IAM allows.
    pub fn account(&self) -> &str {
        let first = self.administrators.first().map(|a| a.part(4));
        self.root_of.as_deref().or(first).unwrap_or_default()
    }

    fn root(&self) -> String {
        let partition = self.administrators.first().or(self.enclaves.first()).map_or("aws", |a| a.part(1));
        format!("arn:{partition}:iam::{}:root", self.account())
    }

    fn artifacts(&self, policy: &Policy) -> Result<Vec<String>, AccessError> {
        let scope = policy.scope().artifacts.as_deref();
        let outside = |id: &&[u8; 32]| scope.is_some_and(|scope| !scope.contains(id));
        if let Some(other) = self.artifacts.iter().find(outside) {
            return Err(AccessError::OutOfScope(hex(other)));
        }
        let list = if self.artifacts.is_empty() { scope.unwrap_or_default() } else { &self.artifacts };
        Ok(list.iter().map(|id| hex(id)).collect())
    }

    fn administration(&self) -> Vec<Value> {
        let mut all = Vec::new();
        if !self.administrators.is_empty() {
            all.push(statement("Administer", &aws(&self.administrators), &json!(ADMINISTER), &json!({})));
        }
        if self.root_of.is_some() {
            // The account as a principal means all whom its IAM allows; the condition leaves the root user.
            let only = json!({ "StringEquals": { "aws:PrincipalArn": self.root() } });
            all.push(statement("AdministerAsRootUser", &json!({ "AWS": self.root() }), &json!(ADMINISTER), &only));
        }
        all
    }

    fn release(&self, n: usize, release: &Release, artifacts: &[String]) -> Value {
        let mut conditions = context(artifacts);
        if let (Some(map), Value::Object(measured)) = (conditions.as_object_mut(), release_conditions(&release.pcrs)) {
            map.extend(measured);
            let times = [("DateGreaterThanEquals", release.not_before_s), ("DateLessThanEquals", release.not_after_s)];
            for (operator, time) in times {
                map.extend(time.map(|t| (operator.into(), json!({ "aws:CurrentTime": rfc3339(t) }))));
            }
        }
        let action =
            if self.enclaves_seal { json!(["kms:Decrypt", "kms:GenerateDataKey"]) } else { json!("kms:Decrypt") };
        let who = if self.enclaves.is_empty() { json!({ "AWS": self.root() }) } else { aws(&self.enclaves) };
        statement(&format!("OpenInRelease{n}"), &who, &action, &conditions)
    }

    /// They hold for grants, for IAM policies and for whatever is added to this policy later.
    fn denials(&self, policy: &Policy) -> Vec<Value> {
        let images: Vec<_> = policy.releases().iter().filter_map(|r| r.pcrs.get(&0)).map(|pcr| hex(pcr)).collect();
        let mut administrators = self.administrators.clone();
        administrators.extend(self.root_of.as_ref().map(|_| Arn(self.root())));
        let unattested = json!({ IMAGE_SHA384: "true" });
        let mut sealing = json!({ "Null": unattested });
        if let (Some(map), false) = (sealing.as_object_mut(), self.sealers.is_empty()) {
            map.insert("StringNotEquals".into(), json!({ "aws:PrincipalArn": names(&self.sealers) }));
        }
        let deny = |sid: &str, actions: &Value, conditions: &Value| {
            let mut denied = statement(sid, &json!({ "AWS": "*" }), actions, conditions);
            if let Some(map) = denied.as_object_mut() {
                map.insert("Effect".into(), "Deny".into());
            }
            denied
        };
        let open = json!("kms:Decrypt");
        let keep = json!(["kms:DisableKey", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion"]);
        let except = json!({ "StringNotEquals": { "aws:PrincipalArn": names(&administrators) } });
        let lockout = json!({ "Bool": { "kms:BypassPolicyLockoutSafetyCheck": "true" } });
        vec![
            deny("NoOpeningWithoutEvidence", &open, &json!({ "Null": unattested })),
            deny("NoOpeningByOtherImages", &open, &json!({ "StringNotEqualsIgnoreCase": { IMAGE_SHA384: images } })),
            deny("NoSealingByOthers", &json!("kms:GenerateDataKey"), &sealing),
            deny("NoOtherWay", &json!(NEVER), &json!({})),
            deny("NoPolicyChangesByOthers", &keep, &except),
            deny("NoLockout", &json!("kms:PutKeyPolicy"), &lockout),
        ]
    }
}

/// The condition block that evidence with these measurements meets, and no other evidence. A part of a key policy only:
/// without the denials of [`Access::key_policy`] there are ways round it.
pub fn release_conditions(pcrs: &BTreeMap<u8, Pcr>) -> Value {
    let pcrs = pcrs.iter().map(|(i, pcr)| (format!("kms:RecipientAttestation:PCR{i}"), json!(hex(pcr))));
    json!({ "StringEqualsIgnoreCase": pcrs.collect::<Map<_, _>>() })
}

fn names(arns: &[Arn]) -> Vec<&str> {
    arns.iter().map(Arn::as_str).collect()
}

fn aws(arns: &[Arn]) -> Value {
    json!({ "AWS": names(arns) })
}

/// The encryption context of FORMAT.md 4.3, all of it and no more.
fn context(artifacts: &[String]) -> Value {
    let mut equals = Map::new();
    equals.insert("kms:EncryptionContext:mvault".into(), "v1".into());
    if !artifacts.is_empty() {
        equals.insert("kms:EncryptionContext:mvault-artifact".into(), json!(artifacts));
    }
    json!({
        "StringEquals": equals,
        "Null": { "kms:EncryptionContext:mvault-artifact": "false" },
        "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": ["mvault", "mvault-artifact"] },
    })
}

fn statement(sid: &str, principal: &Value, actions: &Value, conditions: &Value) -> Value {
    let mut made = json!({ "Sid": sid, "Effect": "Allow", "Principal": principal, "Action": actions, "Resource": "*" });
    if let (Some(map), Some(false)) = (made.as_object_mut(), conditions.as_object().map(Map::is_empty)) {
        map.insert("Condition".into(), conditions.clone());
    }
    made
}
