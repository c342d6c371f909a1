//! The enclave's own client of AWS KMS, through TLS: against LocalStack, and against the KMS of the other tests.

use super::{ARN, FILES, LIES, Lie, connect, encrypted, hardware, kms, localstack, sealed};
use base64ct::{Base64, Encoding};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use hmac::{Hmac, KeyInit, Mac};
use mvault_tests::artifact::{options, seal_files};
use mvault_tests::canned::Canned;
use mvault_tests::evidence::{Evidence, NOW_S};
use mvault_tests::forge::kms::Answer;
use mvault_tests::front::Front;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use vault_attest::nitro::{self, Mode};
use vault_core::header::{Header, hex};
use vault_core::recipient::aws_kms::KeyArn;
use vault_enclave::Tcp;
use vault_enclave::kms::{KmsClient, PinnedKms, default_url};
use vault_enclave::release::{Attester, ReleaseError, ReleasedKey, Source};
use vault_store::kms::{KeyName, KmsRecipient};

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW_S)))
    }
}

struct Nsm;

impl Attester for Nsm {
    fn attest(&mut self, nonce: &[u8; 32], user_data: &[u8; 32], key: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let evidence = Evidence::at(NOW_S).with_nonce(nonce).with_user_data(user_data);
        Ok(evidence.with_public_key(key.ok_or("no key")?).sign(&hardware().chain))
    }
}

/// A parent that says this on its port of credentials; gives the port.
fn parent(said: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(said.as_bytes()); // the enclave reads as much as it likes
        }
    });
    port
}

fn credentials() -> String {
    json!({ "access_key_id": ID, "secret_access_key": SECRET, "session_token": "TOKEN" }).to_string()
}

fn ask_with(front: &Front, arn: &str, artifact: &[u8], said: String) -> Result<ReleasedKey, ReleaseError> {
    let key = KeyArn::parse(arn).unwrap();
    let pinned = PinnedKms { key, url: front.url(), ca_pem: front.ca_pem.clone().into_bytes() };
    let tcp = |port: u16| Arc::new(Tcp(format!("127.0.0.1:{port}")));
    let client = KmsClient::new(pinned, tcp(front.port), tcp(parent(said)), Arc::new(Clock)).unwrap();
    client.request_key(&Header::parse(artifact).unwrap(), &mut Nsm, &mut UnwrapErr(SysRng))
}

fn ask(front: &Front, arn: &str, artifact: &[u8]) -> Result<ReleasedKey, ReleaseError> {
    ask_with(front, arn, artifact, credentials())
}

/// Why there is no key.
#[track_caller]
fn failed(result: Result<ReleasedKey, ReleaseError>) -> ReleaseError {
    match result {
        Err(error) => error,
        Ok(_) => panic!("it took the answer"),
    }
}

fn opens(artifact: &[u8], key: &ReleasedKey) -> bool {
    Header::parse(artifact).unwrap().unlock(&[key.identity()]).is_ok()
}

#[test]
fn enclave_gets_the_key_from_localstack_over_tls() {
    let Some((server, arn)) = localstack() else { return };
    let artifact = sealed(&server.endpoint(), &arn);
    let front = Front::new(&server.endpoint());
    let key = ask(&front, &arn, &artifact).unwrap_or_else(|error| panic!("{error}"));
    assert!(opens(&artifact, &key) && matches!(&key.source, Source::Kms { request } if request != "none"));
    // The stanza of another artifact: the context is another.
    let recipient = KmsRecipient::new(connect(&server.endpoint()), KeyName::parse(&arn).unwrap());
    let other = seal_files(FILES, &[&recipient], &options("m"), 2).unwrap().0;
    let mut moved = artifact;
    let stanza = 88..92 + usize::from(u16::from_be_bytes([other[90], other[91]]));
    moved[stanza.clone()].copy_from_slice(&other[stanza]);
    let error = failed(ask(&front, &arn, &moved));
    assert!(matches!(&error, ReleaseError::Kms { code, .. } if code == "InvalidCiphertextException"), "{error}");
}

#[test]
fn evidence_is_bound_to_the_request_and_names_a_new_key_each_time() {
    let kms = kms(|_, _| {});
    let (artifact, front) = (sealed(&kms.endpoint(), ARN), Front::new(&kms.endpoint()));
    for _ in 0..2 {
        assert!(opens(&artifact, &ask(&front, ARN, &artifact).unwrap_or_else(|error| panic!("{error}"))));
    }
    let mut keys = Vec::new();
    for (_, body) in front.requests() {
        let body: Value = serde_json::from_str(&body).unwrap();
        let document = Base64::decode_vec(body["Recipient"]["AttestationDocument"].as_str().unwrap()).unwrap();
        let verified = nitro::verify(&document, &hardware().root.roots(), Mode::Archived).unwrap();
        let bound = Sha256::new_with_prefix(b"mvault/aws-kms/v1");
        let bound = bound.chain_update(verified.nonce()).chain_update(verified.public_key()).finalize();
        assert_eq!(verified.user_data(), bound.as_slice());
        keys.push((verified.nonce().to_vec(), verified.public_key().to_vec()));
    }
    assert!(keys.len() == 2 && keys[0].0 != keys[1].0 && keys[0].1 != keys[1].1);
}

#[test]
fn answers_that_lie_are_refused_by_the_enclave() {
    let artifact = sealed(&kms(|_, _| {}).endpoint(), ARN);
    for (name, step, lie) in LIES {
        let error = failed(ask(&Front::new(&kms(lie).endpoint()), ARN, &artifact));
        assert!(error.to_string().contains(&format!("C-{step}: ")), "{name}: {error}");
    }
    let other: Box<Lie> = Box::new(|answer, key| encrypted(answer, &Answer::aws(key, &[0; 32]).encode()));
    let error = failed(ask(&Front::new(&kms(other).endpoint()), ARN, &artifact));
    assert!(matches!(error, ReleaseError::NoStanza { .. }), "another data key: {error}");
}

#[test]
fn keys_that_are_not_pinned_are_not_asked_about() {
    let kms = kms(|_, _| {});
    let (artifact, front) = (sealed(&kms.endpoint(), ARN), Front::new(&kms.endpoint()));
    let error = failed(ask(&front, &ARN.replace("1234abcd", "5678abcd"), &artifact));
    assert!(matches!(error, ReleaseError::NoStanza { .. }) && front.requests().is_empty(), "{error}");
}

#[test]
fn refusals_of_kms_keep_their_names_and_say_what_helps() {
    let artifact = sealed(&kms(|_, _| {}).endpoint(), ARN);
    for (code, hint, passes) in [
        ("AccessDeniedException", "policy", false),
        ("ThrottlingException", "later", true),
        ("DisabledException", "disabled", false),
        ("ExpiredTokenException", "credentials", false),
        ("NotFoundException", "region", false),
    ] {
        let said = json!({ "__type": format!("com.amazonaws.kms#{code}"), "message": "no\u{1b}[2J" }).to_string();
        let error = failed(ask(&Front::new(&Canned::new(move |_, _| (400, said.clone())).endpoint()), ARN, &artifact));
        assert!(
            matches!(&error, ReleaseError::Kms { code: c, message, request } if c == code && message == "no[2J" && request == "canned-1"),
            "{error}"
        );
        assert!(error.hint().contains(hint) && error.may_pass() == passes, "{code}: {}", error.hint());
    }
    let error = failed(ask(&Front::new(&Canned::new(|_, _| (500, "<html>".into())).endpoint()), ARN, &artifact));
    assert!(matches!(error, ReleaseError::Status { status: 500, .. }), "{error}");
}

#[test]
fn another_authoritys_certificate_gets_neither_evidence_nor_credentials() {
    let kms = kms(|_, _| {});
    let (artifact, mut front) = (sealed(&kms.endpoint(), ARN), Front::new(&kms.endpoint()));
    front.ca_pem = Front::new(&kms.endpoint()).ca_pem;
    let error = failed(ask(&front, ARN, &artifact));
    assert!(matches!(error, ReleaseError::Tls { .. }) && front.requests().is_empty(), "{error}");
}

#[test]
fn credentials_that_are_none_are_said_without_being_shown() {
    let kms = kms(|_, _| {});
    let (artifact, front) = (sealed(&kms.endpoint(), ARN), Front::new(&kms.endpoint()));
    for said in [
        String::new(),
        "{}".into(),
        format!("{{\"access_key_id\":\"{ID}\",\"secret_access_key\":\"{SECRET}\",\"more\":1}}"),
        format!("{{\"access_key_id\":\"{ID}\",\"secret_access_key\":\"{SECRET}\""),
        format!("{{\"access_key_id\":\"{ID}\",\"secret_access_key\":\"{}\"}}", SECRET.repeat(1000)),
        format!("{{\"access_key_id\":\"{ID}\\n\",\"secret_access_key\":\"{SECRET}\"}}"),
    ] {
        let error = failed(ask_with(&front, ARN, &artifact, said));
        let text = error.to_string();
        assert!(matches!(error, ReleaseError::Credentials(_)), "{text}");
        assert!(!text.contains(SECRET) && !text.contains(ID), "{text}");
    }
    assert!(front.requests().is_empty());
}

/// SigV4 as AWS documents it, computed by hand over what arrived: a header that is signed one way and sent another is refused by AWS, and
/// by no emulator.
#[test]
fn signature_is_that_of_what_was_sent() {
    let kms = kms(|_, _| {});
    let (artifact, front) = (sealed(&kms.endpoint(), ARN), Front::new(&kms.endpoint()));
    assert!(ask(&front, ARN, &artifact).is_ok());
    let (head, body) = front.requests().remove(0);
    let header = |wanted: &str| {
        let found = head.lines().find_map(|l| l.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case(wanted)));
        found.unwrap_or_else(|| panic!("no {wanted} in {head}")).1.trim().to_owned()
    };
    assert!(head.starts_with("POST / HTTP/1.1"), "{head}");
    let (authorization, date) = (header("authorization"), header("x-amz-date"));
    let field =
        |name: &str| authorization.split_once(&format!("{name}=")).unwrap().1.split(',').next().unwrap().to_owned();
    let scope = field("Credential").strip_prefix(&format!("{ID}/")).unwrap().to_owned();
    assert_eq!(scope, "20261101/us-east-1/kms/aws4_request");
    assert_eq!(
        (header("x-amz-security-token").as_str(), header("x-amz-target").as_str()),
        ("TOKEN", "TrentService.Decrypt")
    );
    let names = field("SignedHeaders");
    for name in ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"] {
        assert!(names.split(';').any(|n| n == name), "{name} is not signed: {names}");
    }
    let canonical = names.split(';').fold(String::new(), |all, name| all + name + ":" + &header(name) + "\n");
    let canonical = format!("POST\n/\n\n{canonical}\n{names}\n{}", hex(&Sha256::digest(body)));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mac = |key: &[u8], data: &str| {
        Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(data).finalize().into_bytes().to_vec()
    };
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| mac(&key, part));
    assert_eq!(field("Signature"), hex(&mac(&key, &to_sign)));
}

#[test]
fn endpoints_are_those_of_the_keys_region() {
    for (arn, url) in [
        (ARN, "https://kms.us-east-1.amazonaws.com"),
        ("arn:aws-cn:kms:cn-north-1:111122223333:key/a", "https://kms.cn-north-1.amazonaws.com.cn"),
        ("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/a", "https://kms.us-gov-west-1.amazonaws.com"),
    ] {
        assert_eq!(default_url(&KeyArn::parse(arn).unwrap()), url);
    }
}

/// An answer without end does not fill the enclave.
#[test]
fn oversize_answers_are_refused() {
    let endless = Canned::new(|_, _| (200, "{".repeat(20_000)));
    let artifact = sealed(&kms(|_, _| {}).endpoint(), ARN);
    let error = failed(ask(&Front::new(&endless.endpoint()), ARN, &artifact));
    assert!(matches!(error, ReleaseError::Connection { .. }), "{error}");
}
