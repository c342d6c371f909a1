//! docs/SIGNATURES.md, rule by rule: a good bundle, one defect at a time, and the rule that is named.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

use mvault_tests::evidence::NOW_S;
use mvault_tests::publisher::{Forged, Issued, authority, new_key, set_validity, signer, statement};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};
use std::sync::LazyLock;
use vault_core::model_signature::{
    Bundle, Chain, Content, Difference, Error, Hash, MAX_BUNDLE, Roots, Rule, Trust, Verified, sign,
};
use vault_core::signature::{PublisherKey, PublisherPublicKey};

static KEY: LazyLock<KeyPair> = LazyLock::new(new_key);
const FILES: [(&str, [u8; 32]); 3] = [("a/b", [1; 32]), ("a.txt", [2; 32]), ("c", [3; 32])];
const DAY: u64 = 86_400;

fn public(key: &KeyPair) -> PublisherPublicKey {
    PublisherPublicKey::from_pem(&key.public_key_pem().replace("\r\n", "\n")).unwrap()
}

fn check(bundle: &str, trust: &Trust<'_>) -> Result<Verified, Error> {
    Bundle::parse(bundle.as_bytes())?.verify(trust)
}

#[track_caller]
fn refuses(result: Result<Verified, Error>, rule: u8, what: &str) {
    match result {
        Ok(_) => panic!("{what}: accepted; expected a refusal by M-{rule}"),
        Err(e) => assert_eq!(e.rule(), Some(Rule(rule)), "{what}: {e}"),
    }
}

fn good() -> Forged {
    Forged::by_key(&statement(&FILES), &KEY)
}

#[test]
fn good_bundle_gives_what_was_signed() {
    let verified = check(&good().text(), &Trust::Keys(&[public(&new_key()), public(&KEY)])).unwrap();
    assert_eq!(verified.content().files(), FILES.map(|(name, digest)| (name.into(), digest)));
    assert_eq!(verified.content().ignored(), [".git"]);
    assert_eq!(verified.signer().key_id, public(&KEY).key_id());
    let without_hint = Forged { material: r#"{"publicKey":{}}"#.into(), ..good() };
    check(&without_hint.text(), &Trust::Keys(&[public(&new_key()), public(&KEY)])).unwrap();
    refuses(check(&without_hint.text(), &Trust::Keys(&[public(&new_key())])), 8, "another key, and no hint");
}

#[test]
fn each_defect_of_the_bundle_is_refused_by_its_rule() {
    let (good, keys) = (good(), [public(&KEY)]);
    let trust = Trust::Keys(&keys);
    let text = good.text();
    let material = |json: &str| Forged { material: json.into(), ..good.clone() }.text();
    let certificate = r#"{"rawBytes":"MAA="}"#;
    let chain = |n: usize| {
        let all = vec![certificate; n].join(",");
        material(&format!(r#"{{"x509CertificateChain":{{"certificates":[{all}]}}}}"#))
    };
    let key = r#""publicKey":{"hint":""}"#;
    let long = "A".repeat(22_000);
    let cases: Vec<(u8, &str, String)> = vec![
        (1, "empty", String::new()),
        (1, "cut", text[..text.len() - 1].into()),
        (1, "something behind it", format!("{text} {{}}")),
        (1, "an array", format!("[{text}]")),
        (1, "an unknown field", text.replacen('{', r#"{"messageSignature":{},"#, 1)),
        (1, "a field twice", text.replacen('{', r#"{"mediaType":"x","#, 1)),
        (1, "no envelope", text.replace("dsseEnvelope", "tlogEntries")),
        (1, "two payloads", text.replacen(r#""payload":"#, r#""payload":"","payload":"#, 1)),
        (1, "over the size", format!("{text}{}", " ".repeat(MAX_BUNDLE))),
        (
            1,
            "deep where text belongs",
            text.replacen(r#""mediaType":"#, &format!(r#""mediaType":{}"#, "[".repeat(1_000_000)), 1),
        ),
        (2, "an older bundle", text.replace("v0.3", "v0.2")),
        (3, "no material", material("{}")),
        (
            3,
            "key and chain",
            material(&format!(r#"{{{key},"x509CertificateChain":{{"certificates":[{certificate}]}}}}"#)),
        ),
        (3, "a keyless signature", material(&format!(r#"{{"certificate":{certificate}}}"#))),
        (3, "no certificate in the chain", chain(0)),
        (3, "nine certificates", chain(9)),
        (
            3,
            "a certificate that is not base64",
            material(r#"{"x509CertificateChain":{"certificates":[{"rawBytes":"MA"}]}}"#),
        ),
        (
            3,
            "a large certificate",
            material(&format!(r#"{{"x509CertificateChain":{{"certificates":[{{"rawBytes":"{long}"}}]}}}}"#)),
        ),
        (4, "another payload", text.replace("vnd.in-toto+json", "vnd.in-toto+xml")),
        (4, "payload in URL base64", text.replacen(r#""payload":"ey"#, r#""payload":"-y"#, 1)),
        (5, "signature not base64", Forged { signatures: r#"[{"sig":"M"}]"#.into(), ..good.clone() }.text()),
        (5, "no signature", Forged { signatures: "[]".into(), ..good.clone() }.text()),
        (5, "two signatures", {
            let one = good.signatures.trim_matches(['[', ']']);
            Forged { signatures: format!("[{one},{one}]"), ..good.clone() }.text()
        }),
        (6, "another key", Forged::by_key(&statement(&FILES), &new_key()).text()),
        (7, "no certificate at all", chain(1)),
        (8, "no signature in it", Forged { signatures: r#"[{"sig":""}]"#.into(), ..good.clone() }.text()),
        (8, "another statement's signature", {
            Forged { signatures: Forged::by_key(&statement(&FILES[..1]), &KEY).signatures, ..good.clone() }.text()
        }),
        (8, "a changed statement", Forged { payload: statement(&FILES[..1]).into(), ..good.clone() }.text()),
        (8, "another's signature under this hint", {
            Forged { signatures: Forged::by_key(&statement(&FILES), &new_key()).signatures, ..good.clone() }.text()
        }),
    ];
    for (rule, what, bundle) in cases {
        refuses(check(&bundle, &trust), rule, what);
    }
    // What proves nothing may be as deep as it likes.
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    check(&text.replace(r#""tlogEntries":[]"#, &format!(r#""tlogEntries":{deep}"#)), &trust).unwrap();
}

#[test]
fn each_defect_of_a_signed_statement_is_refused_by_its_rule() {
    let keys = [public(&KEY)];
    let good = statement(&FILES);
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    let named = |name: &str| statement(&[(name, [1; 32]), ("z", [2; 32])]);
    let many: Vec<String> = (0..65_537).map(|i| format!("{i}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), [0; 32])).collect();
    let digest = "01".repeat(32);
    let cases: Vec<(u8, &str, String)> = vec![
        (9, "no JSON", "x".into()),
        (9, "no predicate", with("\"predicate\"", "\"other\"")),
        (9, "another statement", with("Statement/v1", "Statement/v0.1")),
        (9, "another predicate", with("signature/v1.0", "signature/v2.0")),
        (9, "a field twice", with("\"resources\"", "\"resources\":[],\"resources\"")),
        (9, "a name that is no text", with("\"a.txt\"", r#""\ud800""#)),
        (9, "deep where a name belongs", with("\"a.txt\"", &"[".repeat(100_000))),
        (10, "no subject", with("[{\"name\":\"m\"", "[],\"x\":[{\"name\":\"m\"")),
        (
            10,
            "a resource more than the subject",
            with(
                "\"resources\":[",
                &format!(r#""resources":[{{"name":"q","digest":"{digest}","algorithm":"sha256"}},"#),
            ),
        ),
        (10, "resources in another order", {
            let (a, b) = (statement(&FILES), statement(&[FILES[1], FILES[0], FILES[2]]));
            let root = |s: &str| s[s.find("\"sha256\":\"").unwrap() + 10..][..64].to_owned();
            b.replacen(&root(&b), &root(&a), 1)
        }),
        (11, "shards", with("\"files\"", "\"shards\"")),
        (11, "blake2b", with("\"hash_type\":\"sha256\"", "\"hash_type\":\"blake2b\"")),
        (11, "an unknown digest", with("\"hash_type\":\"sha256\"", "\"hash_type\":\"md5\"")),
        (11, "another digest for a file", with("\"algorithm\":\"sha256\"", "\"algorithm\":\"blake3\"")),
        (11, "a short digest", with(&digest, &digest[2..])),
        (11, "a digest in upper case", with(&"03".repeat(32), &"0C".repeat(32))),
        (12, "no files", statement(&[])),
        (12, "over 65536 files", statement(&many)),
        (12, "a file twice", statement(&[FILES[0], FILES[0]])),
        (12, "a path out of the folder", named("../a")),
        (12, "a path out of the folder, within", named("a/../../b")),
        (12, "an absolute path", named("/etc/passwd")),
        (12, "a folder's own name among others", named(".")),
        (12, "an empty name", named("")),
        (12, "a backslash", named(r"a\\b")),
        (12, "a control character", named(r"a\n")),
        (13, "everything ignored", with("[\".git\"]", "[\".\"]")),
        (13, "ignored out of the folder", with("[\".git\"]", "[\"../x\"]")),
        (13, "over 1024 ignored paths", with("[\".git\"]", &format!("[{}]", vec!["\"x\""; 1025].join(",")))),
    ];
    for (rule, what, statement) in cases {
        refuses(check(&Forged::by_key(&statement, &KEY).text(), &Trust::Keys(&keys)), rule, what);
    }
    // The predicate may grow; a reader of v1.0 ignores what it does not know.
    let grown = with("\"resources\"", "\"model_card\":[[[]]],\"resources\"");
    check(&Forged::by_key(&grown, &KEY).text(), &Trust::Keys(&keys)).unwrap();
}

/// Root, authority, signer; a change of the signer's certificate, a change of the authority's.
fn issued(
    change_authority: impl Fn(&mut CertificateParams),
    change_signer: impl Fn(&mut CertificateParams),
) -> [Issued; 3] {
    let root = Issued::root(authority("root", NOW_S));
    let mut middle = authority("team", NOW_S);
    change_authority(&mut middle);
    let middle = root.issue(middle);
    let mut leaf = signer("publisher", NOW_S);
    change_signer(&mut leaf);
    let leaf = middle.issue(leaf);
    [root, middle, leaf]
}

fn by_roots(bundle: &Forged, root: &Issued, time_s: u64) -> Result<Verified, Error> {
    let roots = Roots::from_pem(root.pem().as_bytes()).unwrap();
    check(&bundle.text(), &Trust::Roots { roots: &roots, time_s })
}

#[test]
fn certificates_are_judged_at_a_time_under_a_root() {
    let [root, middle, leaf] = issued(|_| {}, |_| {});
    let bundle = Forged::by_chain(&statement(&FILES), &[&leaf, &middle]);
    let verified = by_roots(&bundle, &root, NOW_S).unwrap();
    assert_eq!(verified.signer().subject.as_deref(), Some("CN=publisher"));
    assert_eq!(verified.signer().key_id, public(&leaf.key).key_id());
    let with_root = Forged::by_chain(&statement(&FILES), &[&leaf, &root, &middle]);
    by_roots(&with_root, &root, NOW_S).unwrap();
    by_roots(&bundle, &root, NOW_S + 10 * DAY).unwrap();
    refuses(by_roots(&bundle, &root, NOW_S + 10 * DAY + 1), 7, "expired");
    refuses(by_roots(&bundle, &root, NOW_S - 10 * DAY - 1), 7, "not yet valid");
    refuses(by_roots(&bundle, &Issued::root(authority("root", NOW_S)), NOW_S), 7, "another root of the same name");
    let mut old = authority("root", NOW_S);
    set_validity(&mut old, NOW_S - 100 * DAY, NOW_S - DAY);
    let old = Issued::root(old);
    let under_old = old.issue(signer("publisher", NOW_S));
    let bundle_old = Forged::by_chain(&statement(&FILES), &[&under_old]);
    refuses(by_roots(&bundle_old, &old, NOW_S), 7, "expired root");
    by_roots(&bundle_old, &old, NOW_S - 2 * DAY).unwrap();
    refuses(by_roots(&Forged::by_chain(&statement(&FILES), &[&leaf]), &root, NOW_S), 7, "no authority between");
    refuses(by_roots(&good(), &root, NOW_S), 7, "a bare key");
    let other = Forged::by_chain(&statement(&FILES[..1]), &[&leaf]).signatures;
    refuses(by_roots(&Forged { signatures: other, ..bundle.clone() }, &root, NOW_S), 8, "another signature");
    // By key, certificates are not judged.
    let keys = [public(&leaf.key)];
    assert_eq!(check(&bundle.text(), &Trust::Keys(&keys)).unwrap().signer().subject, None);
    refuses(check(&bundle.text(), &Trust::Keys(&[public(&KEY)])), 6, "a certificate for another key");
}

#[test]
fn certificates_that_are_not_for_this_are_refused() {
    let none = |_: &mut CertificateParams| {};
    let cases: Vec<(&str, [Issued; 3])> = vec![
        ("a server's", issued(none, |c| c.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ("for no signatures", issued(none, |c| c.key_usages = vec![KeyUsagePurpose::KeyAgreement])),
        ("for nothing in particular", issued(none, |c| (c.key_usages, c.extended_key_usages) = (vec![], vec![]))),
        ("an authority's", issued(none, |c| c.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("under no authority", issued(|c| c.is_ca = IsCa::ExplicitNoCa, none)),
        ("under one that may not sign certificates", issued(|c| c.key_usages = vec![KeyUsagePurpose::CrlSign], none)),
        ("under an expired authority", issued(|c| set_validity(c, NOW_S - 9 * DAY, NOW_S - 1), none)),
        (
            "under a server's authority",
            issued(|c| c.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], none),
        ),
    ];
    for (what, [root, middle, leaf]) in &cases {
        let bundle = Forged::by_chain(&statement(&FILES), &[leaf, middle]);
        refuses(by_roots(&bundle, root, NOW_S), 7, what);
    }
    let [root, middle, _] = issued(none, none);
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let leaf = middle.issue_for(signer("publisher", NOW_S), p384);
    refuses(by_roots(&Forged::by_chain(&statement(&FILES), &[&leaf, &middle]), &root, NOW_S), 7, "a P-384 key");
    let [root, middle, leaf] = issued(none, |c| c.key_usages = vec![]);
    by_roots(&Forged::by_chain(&statement(&FILES), &[&leaf, &middle]), &root, NOW_S).unwrap();
}

#[test]
fn chain_that_no_verifier_would_take_is_not_signed_with() {
    let [_, middle, leaf] = issued(|_| {}, |_| {});
    let pem = format!("{}{}", leaf.pem(), middle.pem());
    let refuses =
        |pem: &str, key: &KeyPair, time_s, words: &str| match Chain::from_pem(pem.as_bytes(), &public(key), time_s) {
            Err(Error::Usage(what)) => assert!(what.contains(words), "{what}"),
            _ => panic!("{words}"),
        };
    refuses(&pem, &KEY, NOW_S, "not for this key");
    refuses(&format!("{}{}", middle.pem(), leaf.pem()), &leaf.key, NOW_S, "not for this key");
    refuses(&pem, &leaf.key, NOW_S + 11 * DAY, "not at the time");
    refuses("", &leaf.key, NOW_S, "no certificate");
    refuses(&leaf.key_pem(), &leaf.key, NOW_S, "no certificate");
    let [_, _, server] = issued(|_| {}, |c| c.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    refuses(&server.pem(), &server.key, NOW_S, "not for signing");
    Chain::from_pem(pem.as_bytes(), &public(&leaf.key), NOW_S).unwrap();
}

#[test]
fn what_is_signed_here_is_read_back() {
    let [root, middle, leaf] = issued(|_| {}, |_| {});
    let key = PublisherKey::from_pem(&leaf.key_pem()).unwrap();
    let chain = Chain::from_pem(format!("{}{}", leaf.pem(), middle.pem()).as_bytes(), &key.public(), NOW_S).unwrap();
    let roots = Roots::from_pem(root.pem().as_bytes()).unwrap();
    for hash in [Hash::Sha256, Hash::Blake3] {
        let files = [("a.txt", 2), ("c", 3), ("a/b", 1), (".git/x", 4), (".gitignore", 5), (".github2", 6)];
        let files = files.map(|(name, n)| (name.to_owned(), [n; 32])).to_vec();
        let ignored = vec![".git".to_owned(), ".gitignore".into()];
        let content = Content::new("m", hash, false, ignored, files).unwrap();
        let names: Vec<_> = content.files().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".github2", "a/b", "a.txt", "c"]);
        let by_key = sign(&content, &key, None).unwrap();
        assert_eq!(check(&by_key, &Trust::Keys(&[key.public()])).unwrap().content(), &content);
        let by_chain = sign(&content, &key, Some(&chain)).unwrap();
        assert_eq!(check(&by_chain, &Trust::Roots { roots: &roots, time_s: NOW_S }).unwrap().content(), &content);
    }
    let refused = |files: Vec<(String, [u8; 32])>| Content::new("m", Hash::Sha256, false, vec![], files).unwrap_err();
    assert!(matches!(refused(vec![]), Error::Usage(_)));
    assert!(matches!(refused(vec![("../a".into(), [0; 32])]), Error::Usage(_)));
}

#[test]
fn differences_name_each_file_once() {
    let of = |files: &[(&str, u8)]| {
        let files = files.iter().map(|(name, n)| ((*name).to_owned(), [*n; 32])).collect();
        Content::new("m", Hash::Sha256, false, vec![], files).unwrap()
    };
    let signed = of(&[("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 4)]);
    assert_eq!(signed.differences(signed.files()), []);
    let found = of(&[("a", 1), ("b", 9), ("x", 3), ("y", 4), ("z", 8)]);
    let text = |s: &str| s.to_owned();
    assert_eq!(
        signed.differences(found.files()),
        [
            Difference::Changed(text("b")),
            Difference::Renamed(text("c"), text("x")),
            Difference::Renamed(text("d"), text("y")),
            Difference::Missing(text("e")),
            Difference::Additional(text("z")),
        ]
    );
    let swapped = of(&[("a", 2), ("b", 1), ("c", 3), ("d", 4), ("e", 4)]);
    assert_eq!(signed.differences(swapped.files()), [Difference::Changed(text("a")), Difference::Changed(text("b"))]);
}
