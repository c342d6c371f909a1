//! Answers of AWS, of AWS's own test suite, of LocalStack's form, and everything near them: one thing changed, one step
//! that refuses it.

#![allow(clippy::unwrap_used)] // tests: a panic is the report

use super::{Answer as Received, *};
use mvault_tests::forge::kms::{
    AES_256_CBC, Answer, DATA, MGF1, NULL, P_SPECIFIED, RSAES_OAEP, Recipient, SHA_256, Sealed, indefinite, oaep, seq,
    tlv,
};
use mvault_tests::shared_vectors;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const PLAIN: &[u8; 32] = &[0xD7; 32];

/// The same key again and again, as only tests may have it.
fn key() -> RecipientKey {
    static KEY: OnceLock<PrivateDecryptingKey> = OnceLock::new();
    let key = KEY.get_or_init(|| PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap());
    RecipientKey::of(key.clone()).unwrap()
}

fn forms() -> [(&'static str, Answer); 2] {
    let key = key();
    let public = key.public_key_der();
    [("aws", Answer::aws(public, PLAIN)), ("localstack", Answer::localstack(public, PLAIN))]
}

fn step(answer: &[u8]) -> Step {
    Envelope::parse(answer).err().expect("refused").step
}

fn vectors() -> Option<PathBuf> {
    let folder = shared_vectors("kms");
    if folder.is_none() {
        let _ = writeln!(std::io::stdout(), "skipped: vectors not present");
    }
    folder
}

/// The DER in a PEM file.
fn pem(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: String = text.lines().filter(|l| !l.starts_with("-----")).collect();
    <base64ct::Base64 as base64ct::Encoding>::decode_vec(&lines).unwrap()
}

#[test]
fn answer_of_aws_opens_with_its_key() {
    let Some(dir) = vectors() else { return };
    // PKCS#1 in the file; PKCS#8 is that in an envelope.
    let pkcs1 = pem(&dir.join("edgebit_rsa2048_private_key.pem"));
    let rsa = seq(&[&[6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1], NULL]);
    let key = RecipientKey::from_pkcs8(&seq(&[&[2, 1, 0], &rsa, &tlv(4, &pkcs1)])).unwrap();
    let answer = std::fs::read(dir.join("edgebit_ciphertext_for_recipient.ber")).unwrap();
    let expected = std::fs::read_to_string(dir.join("edgebit_plaintext.hex")).unwrap();
    let opened = key.open(&answer).unwrap();
    assert_eq!(vault_core::header::hex(opened.expose()), expected.trim());
}

/// Every file, with its verdict: `None` has the form, others are refused at that step.
#[test]
fn vectors_have_their_verdicts() {
    let Some(dir) = vectors() else { return };
    for (file, verdict) in [
        ("edgebit_ciphertext_for_recipient.ber", None),
        ("awssdkc_constructed.ber", None),
        ("awssdkc_ctx_primitive.ber", None),
        ("enveloped.pem", Some(9)),             // two recipients, PKCS#1 v1.5, 3DES
        ("enveloped-triple-des.pem", Some(12)), // PKCS#1 v1.5, 3DES
        ("enveloped-no-content.der", Some(12)), // PKCS#1 v1.5, no content
        ("enveloped-rsa-oaep.pem", Some(13)),   // OAEP with SHA-1, AES-128
    ] {
        let path = dir.join(file);
        let bytes =
            if path.extension().is_some_and(|e| e == "pem") { pem(&path) } else { std::fs::read(&path).unwrap() };
        let parsed = Envelope::parse(&bytes);
        assert_eq!(parsed.as_ref().err().map(|e| e.step), verdict.map(Step::C), "{file}");
        if let Ok(envelope) = parsed {
            assert_eq!(envelope.encrypted_key(), &bytes[131..387], "{file}");
            assert_eq!(envelope.iv(), &bytes[415..431], "{file}");
            let content = if file.contains("primitive") { 433..449 } else { 435..483 };
            assert_eq!(envelope.content(), &bytes[content], "{file}");
        }
    }
}

#[test]
fn both_forms_open_and_a_generated_key_is_rsa_2048() {
    for (name, answer) in forms() {
        assert!(key().open(&answer.encode()).unwrap().expose() == PLAIN, "{name}");
        // AWS sends both.
        let whole = Envelope::parse(&answer.encode()).unwrap().content().to_vec();
        let halves = [tlv(4, &whole[..20]), tlv(4, &whole[20..])].concat();
        for content in [tlv(0x80, &whole), indefinite(0xA0, &tlv(4, &whole)), indefinite(0xA0, &halves)] {
            let answer = Answer { content, ..answer.clone() };
            assert!(key().open(&answer.encode()).unwrap().expose() == PLAIN, "{name}");
        }
    }
    let fresh = RecipientKey::generate().unwrap();
    assert_eq!(fresh.public_key_der().len(), 294);
    assert!(fresh.public_key_der() != key().public_key_der());
    for len in [0, 1, 31, 33, 4096] {
        let answer = Answer::aws(key().public_key_der(), &vec![1; len]).encode();
        assert_eq!(key().open(&answer).unwrap().expose(), vec![1; len], "{len}");
    }
}

/// Parameters of OAEP that say the same in other words.
#[test]
fn parameters_of_sha_256_are_null_or_absent() {
    let (null, absent) = (seq(&[SHA_256, NULL]), seq(&[SHA_256]));
    let no_label = seq(&[P_SPECIFIED, &tlv(4, b"")]);
    for (hash, of_mask) in [(&null, &null), (&null, &absent), (&absent, &null), (&absent, &absent)] {
        for label in [&[][..], &no_label] {
            let mut answer = forms()[0].1.clone();
            answer.recipients[0].algorithm = seq(&[RSAES_OAEP, &oaep(hash, &seq(&[MGF1, of_mask]), label)]);
            assert!(Envelope::parse(&answer.encode()).is_ok());
        }
    }
}

type Change = fn(&mut Answer);

/// What is changed, who refuses it, how.
const DEFECTS: &[(&str, u8, Change)] = &[
    ("signed data", 6, |a| *a.content_type.last_mut().unwrap() = 2),
    ("authenticated enveloped data", 6, |a| {
        a.content_type = tlv(6, &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 16, 1, 23]);
    }),
    ("unknown version", 7, |a| a.version = 6),
    ("no recipient", 9, |a| a.recipients.clear()),
    ("constructed content of definite length", 7, |a| {
        let content = Envelope::parse(&a.encode()).unwrap().content().to_vec();
        a.content = tlv(0xA0, &tlv(4, &content));
    }),
    ("constructed content in constructed content", 7, |a| {
        let content = Envelope::parse(&a.encode()).unwrap().content().to_vec();
        a.content = indefinite(0xA0, &indefinite(0x24, &tlv(4, &content)));
    }),
    ("integer within the content", 7, |a| a.content = indefinite(0xA0, &tlv(2, &[1; 16]))),
    ("content under another tag", 7, |a| a.content = tlv(0x81, &[1; 16])),
    ("two contents", 7, |a| a.content = [tlv(0x80, &[1; 16]), tlv(0x80, &[1; 16])].concat()),
    ("originatorInfo", 8, |a| a.originator = tlv(0xA0, &[])),
    ("unprotectedAttrs", 8, |a| a.attributes = tlv(0xA1, &seq(&[DATA, &tlv(0x31, NULL)]))),
    ("two recipients", 9, |a| a.recipients.push(a.recipients[0].clone())),
    ("key of a KEK", 10, |a| {
        let kek = seq(&[&tlv(4, b"id")]);
        a.recipients[0] = Recipient { tag: 0xA2, version: 4, rid: kek, ..a.recipients[0].clone() };
    }),
    ("key of a password", 10, |a| {
        a.recipients[0] = Recipient { tag: 0xA3, version: 0, rid: vec![], ..a.recipients[0].clone() };
    }),
    ("version 2 for 0, or 0 for 2", 11, |a| a.version = 2 - a.version),
    ("version 3", 11, |a| a.version = 3),
    ("recipient's version 2 for 0, or 0 for 2", 11, |a| a.recipients[0].version = 2 - a.recipients[0].version),
    ("rid of the other version", 11, |a| {
        (a.version, a.recipients[0].version) = (2 - a.version, 2 - a.recipients[0].version);
    }),
    ("PKCS#1 v1.5", 12, |a| {
        a.recipients[0].algorithm = seq(&[&[6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1], NULL]);
    }),
    ("OAEP without parameters", 13, |a| a.recipients[0].algorithm = seq(&[RSAES_OAEP])),
    ("OAEP with NULL", 13, |a| a.recipients[0].algorithm = seq(&[RSAES_OAEP, NULL])),
    ("OAEP with its defaults", 13, |a| a.recipients[0].algorithm = seq(&[RSAES_OAEP, &seq(&[])])),
    ("OAEP with SHA-1", 13, |a| with_oaep(a, &seq(&[SHA_1, NULL]), &mgf1(SHA_256), &[])),
    ("OAEP with SHA-384", 13, |a| with_oaep(a, &seq(&[SHA_384, NULL]), &mgf1(SHA_256), &[])),
    ("OAEP with the default hash", 13, |a| with_oaep(a, &[], &mgf1(SHA_256), &[])),
    ("OAEP with the default mask", 13, |a| with_oaep(a, &seq(&[SHA_256]), &[], &[])),
    ("MGF1 with SHA-1", 13, |a| with_oaep(a, &seq(&[SHA_256]), &mgf1(SHA_1), &[])),
    ("MGF1 without a hash", 13, |a| with_oaep(a, &seq(&[SHA_256]), &seq(&[MGF1]), &[])),
    ("another mask", 13, |a| with_oaep(a, &seq(&[SHA_256]), &seq(&[P_SPECIFIED, &seq(&[SHA_256])]), &[])),
    ("a label", 13, |a| with_oaep(a, &seq(&[SHA_256]), &mgf1(SHA_256), &seq(&[P_SPECIFIED, &tlv(4, b"l")]))),
    ("another label source", 13, |a| with_oaep(a, &seq(&[SHA_256]), &mgf1(SHA_256), &seq(&[MGF1, &tlv(4, b"")]))),
    ("SHA-256 with parameters", 13, |a| with_oaep(a, &seq(&[SHA_256, &tlv(4, b"")]), &mgf1(SHA_256), &[])),
    ("a fourth parameter of OAEP", 13, |a| {
        let fields = [&tlv(0xA0, &seq(&[SHA_256]))[..], &tlv(0xA1, &mgf1(SHA_256)), &tlv(0xA3, NULL)];
        a.recipients[0].algorithm = seq(&[RSAES_OAEP, &seq(&fields)]);
    }),
    ("key of 255 bytes", 14, |a| a.recipients[0].key = tlv(4, &[1; 255])),
    ("key of RSA-4096", 14, |a| a.recipients[0].key = tlv(4, &[1; 512])),
    ("no key", 14, |a| a.recipients[0].key = tlv(4, &[])),
    ("another content type within", 15, |a| *a.inner_type.last_mut().unwrap() = 2),
    ("3DES", 16, |a| {
        a.content_encryption = seq(&[&[6, 8, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 3, 7], &tlv(4, &[1; 8])]);
    }),
    ("AES-128-CBC", 16, |a| a.content_encryption = seq(&[&aes(2), &tlv(4, &[1; 16])])),
    ("AES-256-GCM", 16, |a| a.content_encryption = seq(&[&aes(46), &seq(&[&tlv(4, &[1; 12])])])),
    ("no IV", 16, |a| a.content_encryption = seq(&[AES_256_CBC])),
    ("IV of 15 bytes", 16, |a| a.content_encryption = seq(&[AES_256_CBC, &tlv(4, &[1; 15])])),
    ("IV of 17 bytes", 16, |a| a.content_encryption = seq(&[AES_256_CBC, &tlv(4, &[1; 17])])),
    ("IV that is an integer", 16, |a| a.content_encryption = seq(&[AES_256_CBC, &tlv(2, &[1; 16])])),
    ("no content", 17, |a| a.content = vec![]),
    ("empty content", 17, |a| a.content = tlv(0x80, &[])),
    ("empty constructed content", 17, |a| a.content = indefinite(0xA0, &[])),
    ("content of half a block", 17, |a| a.content = tlv(0x80, &[1; 40])),
];

const SHA_1: &[u8] = &[6, 5, 0x2B, 0x0E, 3, 2, 0x1A];
const SHA_384: &[u8] = &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];

fn mgf1(hash: &[u8]) -> Vec<u8> {
    seq(&[MGF1, &seq(&[hash, NULL])])
}

fn aes(last: u8) -> Vec<u8> {
    [&AES_256_CBC[..AES_256_CBC.len() - 1], &[last]].concat()
}

fn with_oaep(answer: &mut Answer, hash: &[u8], mask: &[u8], label: &[u8]) {
    answer.recipients[0].algorithm = seq(&[RSAES_OAEP, &oaep(hash, mask, label)]);
}

#[test]
fn one_defect_is_refused_at_its_step() {
    for (form, good) in forms() {
        for (name, expected, change) in DEFECTS {
            let mut answer = good.clone();
            change(&mut answer);
            let bytes = answer.encode();
            let Err(refusal) = Envelope::parse(&bytes) else { panic!("{form}: {name} is accepted") };
            assert_eq!(refusal.step, Step::C(*expected), "{form}: {name}: {refusal}");
            assert!(!refusal.expected.is_empty() && refusal.expected != refusal.actual, "{form}: {name}: {refusal}");
        }
    }
}

#[test]
fn sizes_are_judged_first_and_ends_are_exact() {
    assert_eq!(step(&[]), Step::C(4));
    assert_eq!(step(&[0x30; MAX_ANSWER + 1]), Step::C(4));
    for (form, good) in forms() {
        let good = good.encode();
        for len in 1..good.len() {
            let step = step(&good[..len]);
            assert!(step == Step::C(5), "{form} cut to {len}: {step}");
        }
        for after in [&[0][..], &[0, 0], &good] {
            assert_eq!(step(&[&good[..], after].concat()), Step::C(5), "{form}");
        }
        // Bytes behind EnvelopedData, within ContentInfo.
        let mut twice = forms()[1].1.clone();
        twice.attributes = NULL.into();
        assert_eq!(step(&twice.encode()), Step::C(7), "{form}");
    }
    // Full, to the last byte that is allowed.
    let content = vec![1; MAX_ANSWER / 16 * 16 - 512];
    let answer = Answer { content: tlv(0x80, &content), ..forms()[1].1.clone() }.encode();
    assert!(answer.len() <= MAX_ANSWER && Envelope::parse(&answer).is_ok());
}

/// [C-18] says one thing, whatever was wrong: there is nothing to tell a key from a padding.
#[test]
fn what_does_not_open_does_not_say_why() {
    let own = key();
    let public = own.public_key_der();
    let good = Answer::aws(public, PLAIN);
    let with_key = |key: Vec<u8>| {
        let mut answer = good.clone();
        answer.recipients[0].key = tlv(4, &key);
        answer
    };
    let sealed = Sealed::new(public, &[7; 32], PLAIN);
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let content = |bytes: &[u8]| Answer { content: tlv(0x80, bytes), ..good.clone() };
    let wrong = [
        ("another key", Answer::aws(RecipientKey::generate().unwrap().public_key_der(), PLAIN)),
        ("encrypted key changed", with_key(flipped(&sealed.key, 100))),
        ("encrypted key over the modulus", with_key(vec![0xFF; 256])),
        ("encrypted key of zeros", with_key(vec![0; 256])),
        ("AES-128's key within", with_key(Sealed::new(public, &[7; 16], PLAIN).key)),
        ("another content key", with_key(Sealed::new(public, &[8; 32], PLAIN).key)),
        ("padding changed", content(&flipped(&sealed.content, 31))),
        ("content cut to a block", content(&sealed.content[..16])),
    ];
    let said: Vec<_> = wrong.iter().map(|(name, a)| (name, key().open(&a.encode()).err().expect(name))).collect();
    for (name, refusal) in &said {
        assert_eq!(refusal, &said[0].1, "{name}");
        assert_eq!(refusal.step, Step::C(18));
    }
}

/// [C-2], [C-3], [C-4], [C-19]: what is judged of the answer around the envelope.
#[test]
fn answers_are_what_was_asked_for() {
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let other = arn.replace("1234abcd", "5678abcd");
    let asked = KeyArn::parse(arn).unwrap();
    let good = Answer::aws(key().public_key_der(), PLAIN).encode();
    let long = Answer::aws(key().public_key_der(), &[1; 33]).encode();
    let answer = Received { key_id: Some(arn), plaintext: None, ciphertext_for_recipient: Some(&good) };
    assert!(key().receive(&asked, &answer).unwrap().expose() == PLAIN);
    // The SDK may have an empty one.
    assert!(key().receive(&asked, &Received { plaintext: Some(&[]), ..answer }).is_ok());
    for (step, wrong) in [
        (2, Received { plaintext: Some(PLAIN), ..answer }),
        (2, Received { plaintext: Some(PLAIN), ciphertext_for_recipient: None, ..answer }),
        (2, Received { plaintext: Some(&[0]), key_id: None, ..answer }),
        (3, Received { key_id: None, ..answer }),
        (3, Received { key_id: Some(&other), ..answer }),
        (3, Received { key_id: Some("1234abcd-12ab-34cd-56ef-1234567890ab"), ..answer }),
        (4, Received { ciphertext_for_recipient: None, ..answer }),
        (4, Received { ciphertext_for_recipient: Some(&[]), ..answer }),
        (5, Received { ciphertext_for_recipient: Some(&good[..400]), ..answer }),
        (19, Received { ciphertext_for_recipient: Some(&long), ..answer }),
    ] {
        let refusal = key().receive(&asked, &wrong).err().expect("refused");
        assert_eq!(refusal.step, Step::C(step), "{refusal}");
        assert!(!refusal.to_string().contains("215"), "a data key in {refusal}");
    }
}
