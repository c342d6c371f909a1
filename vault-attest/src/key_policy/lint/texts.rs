//! What each finding means, and what to do about it.

use super::Severity::{self, Open, Shut, Weak};

type Text = (Severity, &'static str, &'static str);

/// Severity, why it matters, the fix.
pub(super) fn of(id: &str) -> Text {
    opening(id).or_else(|| ways_round(id)).or_else(|| forms(id)).or_else(|| denials(id)).unwrap_or((Open, "", ""))
}

fn opening(id: &str) -> Option<Text> {
    Some(match id {
        "decrypt-without-evidence" => (
            Open,
            "who holds these credentials opens the model on any machine, without an enclave",
            "demand kms:RecipientAttestation:PCR0, 1 and 2 in this statement; `mvault policy kms` writes it",
        ),
        "iam-decides" => (
            Open,
            "the account as principal leaves the decision to IAM policies, which can be changed without this key's administrator",
            "name roles, or demand kms:RecipientAttestation:PCR0, 1 and 2 in this statement",
        ),
        "any-enclave" => (
            Open,
            "an image that an attacker built runs in a genuine enclave too, and prints the key",
            "demand the PCRs of your releases with StringEqualsIgnoreCase",
        ),
        "debug-enclave" => (
            Open,
            "a debug enclave measures zeros, whatever it runs, and its parent reads its console",
            "take the zeros out; build PCRs with `nitro-cli build-enclave`, run without --debug-mode",
        ),
        "pcr-not-demanded" => (
            Open,
            "the appraisal policy demands this PCR of the release, and KMS would not",
            "one statement per release with all of its PCRs; lists in one statement mix releases",
        ),
        "release-shut-out" => (
            Shut,
            "an enclave of this release cannot open any model",
            "print the key policy anew with `mvault policy kms`",
        ),
        _ => return None,
    })
}

fn ways_round(id: &str) -> Option<Text> {
    Some(match id {
        "re-encrypt" => (
            Open,
            "re-encryption takes no evidence: the data key goes under another key, and is decrypted with that one",
            "remove the action, and deny kms:ReEncrypt* to all",
        ),
        "grant" => (
            Open,
            "a grant allows Decrypt beside the key policy, to whomever the grantor names",
            "remove the action, and deny kms:CreateGrant to all",
        ),
        "replicate" => (
            Open,
            "a replica in another region has a key policy of its own, and opens the same ciphertexts",
            "remove the action, and deny kms:ReplicateKey and kms:UpdatePrimaryRegion to all",
        ),
        "import" => (
            Open,
            "whoever imports the key material knows it",
            "remove the action, and deny kms:ImportKeyMaterial to all",
        ),
        "policy-change" => (
            Open,
            "whoever writes the key policy can allow themselves everything",
            "name one administrator's role, and deny kms:PutKeyPolicy to all others by aws:PrincipalArn",
        ),
        "enclave-administers" => (
            Open,
            "the parent instance has the enclave's role: it changes the policy, then opens without the enclave",
            "administrators and enclaves need different roles",
        ),
        "sealing-by-anyone" => (
            Open,
            "anyone with an IAM policy can make artifacts that the enclaves take for yours",
            "name the sealers' roles, and deny kms:GenerateDataKey and kms:Encrypt to all others",
        ),
        "sealing-without-context" => (
            Weak,
            "data keys without the context of FORMAT.md 4.3 are bound to no artifact",
            "demand kms:EncryptionContext:mvault = v1; `mvault policy kms --sealer` writes it",
        ),
        _ => return None,
    })
}

fn forms(id: &str) -> Option<Text> {
    Some(match id {
        "if-exists" => (
            Weak,
            "…IfExists holds when the request has no evidence at all",
            "use StringEqualsIgnoreCase without IfExists",
        ),
        "for-all-values" => (
            Weak,
            "ForAllValues holds when the request has no evidence at all",
            "use StringEqualsIgnoreCase without ForAllValues; evidence has one value a PCR",
        ),
        "pcr-negated" => (
            Weak,
            "in an Allow, a PCR that must not be something is met by every other image, and by no evidence",
            "say which PCRs are wanted",
        ),
        "pcr-pattern" => (
            Weak,
            "a measurement has one value: a pattern is met by images that nobody has reviewed",
            "write all 96 digits",
        ),
        "pcr-zeros" => (
            Weak,
            "zeros are what a debug enclave measures, and its parent reads its console",
            "use the PCRs of a build that runs without --debug-mode",
        ),
        "pcr-malformed" => (
            Shut,
            "no evidence has this value: PCRs are SHA-384, 96 hex digits, and lower case where case counts",
            "copy it from `nitro-cli describe-eif`, and compare with StringEqualsIgnoreCase",
        ),
        "pcr-unknown" => (
            Open,
            "this measurement is of no release of the appraisal policy",
            "remove it, or add the release with `mvault policy add-release`",
        ),
        "wildcard-action" => (
            Weak,
            "a pattern allows ways round that are easily overlooked, and those AWS adds later",
            "list the actions",
        ),
        "not-action" => {
            (Weak, "everything that is not listed is allowed, now and later", "list the actions with Action")
        }
        "not-principal" => {
            (Weak, "everyone who is not listed is allowed, in every account", "list the principals with Principal")
        }
        "resource" => {
            (Weak, "in a key's policy * is the key; anything else may match nothing", "write \"Resource\": \"*\"")
        }
        "any-principal" => (Weak, "conditions alone stand between this key and every AWS account", "name the roles"),
        "service-principal" => {
            (Weak, "a service or identity provider acts for others and shows no evidence", "name roles of your account")
        }
        "deleted-principal" => (
            Weak,
            "AWS shows an id like this when the role or user was deleted: the statement is for nobody",
            "remove it",
        ),
        "unknown-element" => (
            Weak,
            "AWS knows no such element: what it was meant to say is not said",
            "check the spelling: Sid, Effect, Principal, Action, Resource, Condition",
        ),
        _ => return None,
    })
}

fn denials(id: &str) -> Option<Text> {
    Some(match id {
        "no-deny-decrypt" => (
            Weak,
            "a later Allow, or a grant, opens the key without an enclave, and nothing stands against it",
            "deny kms:Decrypt to * where Null kms:RecipientAttestation:ImageSha384 is true",
        ),
        "no-deny-grant" => {
            (Weak, "nothing stands against grants, which count beside the key policy", "deny kms:CreateGrant to *")
        }
        "no-deny-policy-change" => (
            Weak,
            "nothing keeps others than the administrator from writing the policy, once an Allow slips in",
            "deny kms:PutKeyPolicy to * where aws:PrincipalArn is not the administrator's (StringNotEquals)",
        ),
        "no-deny-re-encrypt" => {
            (Weak, "nothing stands against re-encryption, which takes no evidence", "deny kms:ReEncryptFrom to *")
        }
        "no-deny-replicate" => (
            Weak,
            "nothing stands against replicas, which have key policies of their own",
            "deny kms:ReplicateKey to *",
        ),
        _ => return None,
    })
}
