use super::*;
use crate::policy::Policy;
use serde_json::{Value, json};

const ADMIN: &str = "arn:aws:iam::111122223333:role/key-admin";
const ENCLAVE: &str = "arn:aws:iam::111122223333:role/serve";
const SEALER: &str = "arn:aws:iam::111122223333:role/ci";

fn hex(byte: u8) -> String {
    crate::nitro::hex(&[byte; 48])
}

fn policy() -> Policy {
    let release = |name: &str, byte: u8, more: &str| {
        let (zero, one, two) = (hex(byte), hex(byte + 1), hex(byte + 2));
        format!("[[release]]\nname = \"{name}\"\npcr0 = \"{zero}\"\npcr1 = \"{one}\"\npcr2 = \"{two}\"\n{more}")
    };
    let eight = format!("pcr8 = \"{}\"\nnot_after = \"2027-05-01T00:00:00Z\"\n", hex(0xB8));
    let head = "version = 1\nname = \"prod\"\nplatform = \"aws-nitro\"\nmax_age_s = 300\n";
    let text = format!("{head}{}{}", release("1.4.0", 0xA0, ""), release("1.5.0", 0xB0, &eight));
    Policy::parse(text.as_bytes()).unwrap()
}

fn arn(text: &str) -> Arn {
    Arn::parse(text).unwrap()
}

fn access() -> Access {
    Access {
        administrators: vec![arn(ADMIN)],
        root_of: None,
        enclaves: vec![arn(ENCLAVE)],
        sealers: vec![arn(SEALER)],
        enclaves_seal: false,
        artifacts: vec![],
    }
}

fn written() -> Value {
    serde_json::from_str(&access().key_policy(&policy()).unwrap()).unwrap()
}

fn findings(text: &str, policy: Option<&Policy>) -> Vec<Finding> {
    lint(&Document::parse(text.as_bytes()).unwrap(), policy)
}

fn ids(key_policy: &Value) -> Vec<&'static str> {
    findings(&key_policy.to_string(), Some(&policy())).iter().map(|f| f.id).collect()
}

/// The statement of this Sid.
fn at<'a>(key_policy: &'a mut Value, sid: &str) -> &'a mut Value {
    let all = key_policy["Statement"].as_array_mut().unwrap();
    all.iter_mut().find(|s| s["Sid"] == sid).unwrap()
}

fn without(key_policy: &mut Value, sid: &str) {
    key_policy["Statement"].as_array_mut().unwrap().retain(|s| s["Sid"] != sid);
}

fn allow(key_policy: &mut Value, principal: &Value, action: &Value, condition: &Value) {
    let statement = json!({ "Sid": "New", "Effect": "Allow", "Principal": principal, "Action": action, "Resource": "*",
        "Condition": condition });
    key_policy["Statement"].as_array_mut().unwrap().push(statement);
}

/// Everything that `Access` can ask for is clean.
#[test]
fn what_is_written_lints_clean() {
    let root = Access { administrators: vec![], root_of: Some("111122223333".into()), enclaves: vec![], ..access() };
    let both = Access { root_of: Some("111122223333".into()), ..access() };
    let seal = Access { enclaves_seal: true, ..access() };
    let none = Access { sealers: vec![], artifacts: vec![[7; 32]], ..access() };
    for access in [access(), root, both, seal, none] {
        let text = access.key_policy(&policy()).unwrap();
        assert_eq!(findings(&text, Some(&policy())), [], "{text}");
        assert_eq!(findings(&text, None), [], "{text}");
    }
}

#[test]
fn releases_are_statements_of_their_own_with_their_times() {
    let mut key_policy = written();
    let second = at(&mut key_policy, "OpenInRelease2");
    assert_eq!(second["Action"], "kms:Decrypt");
    let pcrs = &second["Condition"]["StringEqualsIgnoreCase"];
    for (index, byte) in [(0, 0xB0), (1, 0xB1), (2, 0xB2), (8, 0xB8)] {
        assert_eq!(pcrs[format!("kms:RecipientAttestation:PCR{index}")], hex(byte));
    }
    assert_eq!(second["Condition"]["DateLessThanEquals"]["aws:CurrentTime"], "2027-05-01T00:00:00Z");
    assert_eq!(second["Condition"]["StringEquals"]["kms:EncryptionContext:mvault"], "v1");
}

#[test]
fn roles_that_do_not_go_together_are_refused() {
    let nobody = Access { administrators: vec![], ..access() };
    assert_eq!(nobody.key_policy(&policy()), Err(AccessError::NoAdministrator));
    let both = Access { enclaves: vec![arn(ADMIN)], ..access() };
    assert_eq!(both.key_policy(&policy()), Err(AccessError::TwoRoles(ADMIN.into())));
    let many = Access { enclaves: (0..600).map(|i| arn(&format!("{ENCLAVE}{i}"))).collect(), ..access() };
    assert!(matches!(many.key_policy(&policy()), Err(AccessError::TooLong(_))));
    for bad in [
        "arn:aws:iam::111122223333:root",
        "arn:aws:iam::111122223333:role/*",
        "arn:aws:iam::11112222333:role/a",
        "arn:aws:sts::111122223333:assumed-role/a/b",
        "111122223333",
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:role/${aws:username}",
    ] {
        assert_eq!(Arn::parse(bad), None, "{bad}");
    }
}

type Change = fn(&mut Value);

/// One change to a clean key policy each, and the finding it must give.
#[test]
#[expect(clippy::too_many_lines)] // a table
fn each_way_to_use_the_key_outside_is_found() {
    let cases: [(&str, &str, Change); 34] = [
        ("no_pcr_conditions", "decrypt-without-evidence", |p| {
            without(p, "NoOpeningWithoutEvidence");
            without(p, "NoOpeningByOtherImages");
            at(p, "OpenInRelease1")["Condition"] = json!({});
        }),
        ("no_pcr_conditions_behind_null_denial", "any-enclave", |p| {
            without(p, "NoOpeningByOtherImages");
            at(p, "OpenInRelease1")["Condition"] = json!({});
        }),
        ("account_root_with_kms_star", "iam-decides", |p| {
            p["Statement"] = json!([{ "Sid": "Enable IAM User Permissions", "Effect": "Allow",
                "Principal": { "AWS": "arn:aws:iam::111122223333:root" }, "Action": "kms:*", "Resource": "*" }]);
        }),
        ("account_number_as_principal", "iam-decides", |p| {
            p["Statement"] = json!({ "Effect": "Allow", "Principal": { "AWS": "111122223333" }, "Action": "KMS:decrypt",
                "Resource": "*" });
        }),
        ("if_exists", "if-exists", |p| {
            let condition = &mut at(p, "OpenInRelease1")["Condition"];
            condition["StringEqualsIgnoreCaseIfExists"] = condition["StringEqualsIgnoreCase"].take();
            condition.as_object_mut().unwrap().remove("StringEqualsIgnoreCase");
        }),
        ("if_exists_without_denials", "decrypt-without-evidence", |p| {
            without(p, "NoOpeningWithoutEvidence");
            without(p, "NoOpeningByOtherImages");
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0xA0) });
            at(p, "OpenInRelease1")["Condition"] = json!({ "StringEqualsIfExists": pcrs });
        }),
        ("for_all_values", "for-all-values", |p| {
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0xA0) });
            at(p, "OpenInRelease1")["Condition"] = json!({ "ForAllValues:StringEquals": pcrs });
        }),
        ("for_all_values_without_denials", "decrypt-without-evidence", |p| {
            without(p, "NoOpeningWithoutEvidence");
            without(p, "NoOpeningByOtherImages");
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0xA0) });
            at(p, "OpenInRelease1")["Condition"] = json!({ "ForAllValues:StringEquals": pcrs });
        }),
        ("pcr_pattern", "pcr-pattern", |p| {
            at(p, "OpenInRelease1")["Condition"]["StringLike"] = json!({ "kms:RecipientAttestation:PCR0": "a0a0*" });
        }),
        ("pcr_star_without_image_denial", "any-enclave", |p| {
            without(p, "NoOpeningByOtherImages");
            let pcrs = json!({ "kms:RecipientAttestation:ImageSha384": "*" });
            at(p, "OpenInRelease1")["Condition"] = json!({ "StringLike": pcrs });
        }),
        ("only_the_signing_certificate", "any-enclave", |p| {
            without(p, "NoOpeningByOtherImages");
            let pcrs = json!({ "kms:RecipientAttestation:PCR8": hex(0xB8) });
            at(p, "OpenInRelease2")["Condition"] = json!({ "StringEqualsIgnoreCase": pcrs });
        }),
        ("pcr_negated", "pcr-negated", |p| {
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0xEE) });
            at(p, "OpenInRelease1")["Condition"] = json!({ "StringNotEquals": pcrs });
        }),
        ("pcr_negated_without_denials", "decrypt-without-evidence", |p| {
            without(p, "NoOpeningWithoutEvidence");
            without(p, "NoOpeningByOtherImages");
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0xEE) });
            at(p, "OpenInRelease1")["Condition"] = json!({ "StringNotEquals": pcrs });
        }),
        ("pcrs_of_zeros", "debug-enclave", |p| {
            without(p, "NoOpeningByOtherImages");
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0) });
            at(p, "OpenInRelease1")["Condition"] = json!({ "StringEquals": pcrs });
        }),
        ("zeros_among_others", "pcr-zeros", |p| {
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": [hex(0xA0), hex(0)] });
            at(p, "OpenInRelease1")["Condition"]["StringEqualsIgnoreCase"] = pcrs;
        }),
        ("pcr0_alone", "pcr-not-demanded", |p| {
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0xA0) });
            at(p, "OpenInRelease1")["Condition"]["StringEqualsIgnoreCase"] = pcrs;
        }),
        ("releases_mixed_in_lists", "pcr-not-demanded", |p| {
            let both = |n: u8| json!([hex(0xA0 + n), hex(0xB0 + n)]);
            at(p, "OpenInRelease1")["Condition"]["StringEqualsIgnoreCase"] = json!({
                "kms:RecipientAttestation:PCR0": both(0), "kms:RecipientAttestation:PCR1": both(1),
                "kms:RecipientAttestation:PCR2": both(2) });
        }),
        ("pcr_of_no_release", "pcr-unknown", |p| {
            at(p, "OpenInRelease1")["Condition"]["StringEqualsIgnoreCase"]["kms:RecipientAttestation:PCR0"] =
                json!([hex(0xA0), hex(0xCC)]);
        }),
        ("sha256_as_pcr", "pcr-malformed", |p| {
            let short = &hex(0xA0)[..64];
            at(p, "OpenInRelease1")["Condition"]["StringEqualsIgnoreCase"]["kms:RecipientAttestation:PCR0"] =
                short.into();
        }),
        ("upper_case_where_case_counts", "release-shut-out", |p| {
            let pcrs = json!({ "kms:RecipientAttestation:PCR0": hex(0xA0).to_uppercase() });
            at(p, "OpenInRelease1")["Condition"] = json!({ "StringEquals": pcrs });
        }),
        ("release_forgotten", "release-shut-out", |p| without(p, "OpenInRelease2")),
        ("tpm_for_enclave", "decrypt-without-evidence", |p| {
            without(p, "NoOpeningWithoutEvidence");
            without(p, "NoOpeningByOtherImages");
            let pcrs = json!({ "kms:RecipientAttestation:NitroTPMPCR4": hex(0xA0) });
            at(p, "OpenInRelease1")["Condition"] = json!({ "StringEquals": pcrs });
        }),
        ("re_encrypt", "re-encrypt", |p| {
            without(p, "NoOtherWay");
            allow(p, &json!({ "AWS": SEALER }), &json!("kms:ReEncrypt*"), &json!({}));
        }),
        ("grants_by_the_administrator", "grant", |p| {
            without(p, "NoOtherWay");
            at(p, "Administer")["Action"] = json!(["kms:CreateGrant", "kms:PutKeyPolicy"]);
        }),
        ("grants_for_aws_services", "grant", |p| {
            without(p, "NoOtherWay");
            let services = json!({ "Bool": { "kms:GrantIsForAWSResource": "true" } });
            allow(p, &json!({ "AWS": SEALER }), &json!("kms:CreateGrant"), &services);
        }),
        ("replicas", "replicate", |p| {
            without(p, "NoOtherWay");
            allow(p, &json!({ "AWS": ADMIN }), &json!("kms:ReplicateKey"), &json!({}));
        }),
        ("imported_material", "import", |p| {
            without(p, "NoOtherWay");
            allow(p, &json!({ "AWS": ADMIN }), &json!("kms:Import*"), &json!({}));
        }),
        ("policy_change_by_the_account", "policy-change", |p| {
            without(p, "NoPolicyChangesByOthers");
            allow(p, &json!({ "AWS": "111122223333" }), &json!("kms:PutKeyPolicy"), &json!({}));
        }),
        ("administrator_is_the_enclaves_role", "enclave-administers", |p| {
            without(p, "NoPolicyChangesByOthers");
            allow(p, &json!({ "AWS": ENCLAVE }), &json!("kms:PutKeyPolicy"), &json!({}));
        }),
        ("sealing_by_anyone", "sealing-by-anyone", |p| {
            without(p, "NoSealingByOthers");
            allow(p, &json!("*"), &json!("kms:GenerateDataKey"), &json!({}));
        }),
        ("sealing_without_context", "sealing-without-context", |p| {
            at(p, "SealArtifacts")["Condition"] = json!({});
        }),
        ("not_principal", "not-principal", |p| {
            let statement = at(p, "OpenInRelease1").as_object_mut().unwrap();
            let who = statement.remove("Principal").unwrap();
            statement.insert("NotPrincipal".into(), who);
        }),
        ("not_action", "not-action", |p| {
            let statement = at(p, "Administer").as_object_mut().unwrap();
            statement.remove("Action");
            statement.insert("NotAction".into(), json!(["kms:Decrypt"]));
        }),
        ("denial_of_another_resource", "no-deny-decrypt", |p| {
            let other = "arn:aws:kms:eu-west-1:111122223333:key/other";
            at(p, "NoOpeningWithoutEvidence")["Resource"] = other.into();
            at(p, "NoOpeningByOtherImages")["Resource"] = other.into();
        }),
    ];
    for (name, id, change) in cases {
        let mut changed = written();
        change(&mut changed);
        assert!(ids(&changed).contains(&id), "{name}: {:?}", ids(&changed));
    }
}

#[test]
fn forms_that_say_less_than_they_seem_are_found() {
    let cases: [(&str, &str, Change); 11] = [
        ("any_principal", "any-principal", |p| at(p, "OpenInRelease1")["Principal"] = json!("*")),
        ("service", "service-principal", |p| {
            at(p, "OpenInRelease1")["Principal"] = json!({ "Service": "lambda.amazonaws.com" });
        }),
        ("deleted_role", "deleted-principal", |p| {
            at(p, "OpenInRelease1")["Principal"] = json!({ "AWS": "AROAEXAMPLEEXAMPLE123" });
        }),
        ("kms_star", "wildcard-action", |p| at(p, "Administer")["Action"] = json!("kms:*")),
        ("misspelt", "unknown-element", |p| at(p, "OpenInRelease1")["Conditions"] = json!({})),
        ("no_denials", "no-deny-grant", |p| without(p, "NoOtherWay")),
        ("no_denial_of_replicas", "no-deny-replicate", |p| without(p, "NoOtherWay")),
        ("no_denial_of_re_encryption", "no-deny-re-encrypt", |p| without(p, "NoOtherWay")),
        ("no_denial_of_changes", "no-deny-policy-change", |p| without(p, "NoPolicyChangesByOthers")),
        ("denial_with_if_exists_only_on_evidence", "no-deny-decrypt", |p| {
            without(p, "NoOpeningByOtherImages");
            let present = json!({ "kms:RecipientAttestation:ImageSha384": "false" });
            at(p, "NoOpeningWithoutEvidence")["Condition"] = json!({ "Null": present });
        }),
        ("denial_for_some", "no-deny-decrypt", |p| {
            without(p, "NoOpeningByOtherImages");
            at(p, "NoOpeningWithoutEvidence")["Principal"] = json!({ "AWS": SEALER });
        }),
    ];
    for (name, id, change) in cases {
        let mut changed = written();
        change(&mut changed);
        assert!(ids(&changed).contains(&id), "{name}: {:?}", ids(&changed));
    }
}

/// A denial that surely holds makes a careless Allow harmless: no alarm of an open key.
#[test]
fn explicit_denials_override() {
    let mut changed = written();
    allow(&mut changed, &json!({ "AWS": "111122223333" }), &json!("kms:*"), &json!({}));
    let found = findings(&changed.to_string(), None);
    let open: Vec<_> = found.iter().filter(|f| f.severity == Severity::Open).map(|f| f.id).collect();
    assert_eq!(open, [] as [&str; 0]);
    assert!(found.iter().any(|f| f.id == "wildcard-action"));
    without(&mut changed, "NoOtherWay");
    assert!(ids(&changed).contains(&"re-encrypt"));
}

#[test]
fn texts_that_are_no_key_policy_are_refused() {
    let good = written().to_string();
    for (name, text) in [
        ("empty", String::new()),
        ("no_statement", "{}".into()),
        ("effect", good.replacen("\"Allow\"", "\"allow\"", 1)),
        ("twice", good.replacen("\"Effect\":\"Allow\"", "\"Effect\":\"Deny\",\"Effect\":\"Allow\"", 1)),
        ("both", good.replacen("\"Action\":", "\"NotAction\":\"kms:*\",\"Action\":", 1)),
        ("deep", format!("{}{}", "[".repeat(20_000), "]".repeat(20_000))),
        ("long", format!("{good}{}", " ".repeat(2 * MAX_KEY_POLICY))),
        ("principal", good.replacen("\"AWS\"", "\"Aws\"", 1)),
    ] {
        assert!(Document::parse(text.as_bytes()).is_err(), "{name}");
    }
    let wrapped = json!({ "Policy": good, "PolicyName": "default" }).to_string();
    assert_eq!(findings(&wrapped, Some(&policy())), []);
}

#[test]
fn patterns_match_as_iam_has_them() {
    for (pattern, text, same) in [
        ("kms:*", "kms:decrypt", true),
        ("kms:re*crypt*", "kms:reencryptfrom", true),
        ("*", "", true),
        ("?", "", false),
        ("a?c", "abc", true),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "axxbyy", false),
        ("", "a", false),
    ] {
        assert_eq!(request::glob(pattern, text), same, "{pattern} {text}");
    }
}
