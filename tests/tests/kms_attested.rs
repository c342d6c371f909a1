//! AWS KMS asked with evidence: against LocalStack, which honours `Recipient` in Decrypt and ignores it in
//! GenerateDataKey; and against a KMS of our own that verifies evidence as AWS does, and lies when it is told to.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

#[path = "kms_attested/enclave.rs"]
mod enclave;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use base64ct::{Base64, Encoding};
use mvault_tests::artifact::{open_file, options, seal_files};
use mvault_tests::canned::Canned;
use mvault_tests::evidence::{Chain, Evidence, NOW_S, TestRoot};
use mvault_tests::forge::kms::Answer;
use mvault_tests::server::Server;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use vault_attest::nitro::{self, Mode, Roots};
use vault_attest::step::Step;
use vault_core::recipient::aws_kms::KeyArn;
use vault_core::recipient::{Identity, Recipient};
use vault_store::aws::{Aws, AwsOptions};
use vault_store::error::in_io;
use vault_store::kms::{AttestedKms, KeyName, KmsRecipient};
use vault_store::{Cause, StoreError};

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const DATA_KEY: [u8; 32] = [0xD7; 32];
const FILES: &[(&str, &[u8])] = &[("config.json", b"{\"layers\": 12}")];

fn connect(endpoint: &str) -> Aws {
    let keys = Credentials::new("MVAULTTESTADMIN", "mvault-test-admin-secret", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .build();
    Aws::with_config(config, &AwsOptions::default()).unwrap()
}

/// The hardware: signs evidence for any key.
struct Hardware {
    root: TestRoot,
    chain: Chain,
}

fn hardware() -> &'static Hardware {
    static ONE: OnceLock<Hardware> = OnceLock::new();
    ONE.get_or_init(|| {
        let root = TestRoot::new();
        let chain = root.chain(NOW_S);
        Hardware { root, chain }
    })
}

fn evidence(public_key: &[u8]) -> Vec<u8> {
    Evidence::at(NOW_S).with_public_key(public_key).sign(&hardware().chain)
}

fn attested(endpoint: &str, arn: &str) -> AttestedKms {
    AttestedKms::new(connect(endpoint), KeyArn::parse(arn).unwrap(), |key: &[u8]| Ok(evidence(key)))
}

/// Sealed as a publisher does, without evidence.
fn sealed(endpoint: &str, arn: &str) -> Vec<u8> {
    let recipient = KmsRecipient::new(connect(endpoint), KeyName::parse(arn).unwrap());
    seal_for(&recipient).unwrap()
}

fn seal_for(recipient: &dyn Recipient) -> Result<Vec<u8>, StoreError> {
    seal_files(FILES, &[recipient], &options("m"), 1).map(|(bytes, _)| bytes).map_err(|error| match error {
        vault_core::Error::Io { source, .. } => in_io(&source).unwrap().clone(),
        other => panic!("{other}"),
    })
}

fn opens(artifact: &[u8], identity: &dyn Identity) -> bool {
    let (result, files) = open_file(artifact, &[identity], &[]);
    result.is_ok() && files == [(FILES[0].0.to_owned(), FILES[0].1.to_vec())]
}

/// Why it does not open, the one time that KMS was asked.
fn failure(artifact: &[u8], identity: &AttestedKms) -> StoreError {
    assert!(!opens(artifact, identity));
    let [failure] = &identity.failures()[..] else { panic!("{:?}", identity.failures()) };
    failure.clone()
}

fn localstack() -> Option<(&'static Server, String)> {
    static ONE: OnceLock<Option<Server>> = OnceLock::new();
    let server = ONE.get_or_init(Server::localstack).as_ref()?;
    let made: Value = serde_json::from_slice(&server.kms("CreateKey", "{}").body).unwrap();
    Some((server, made["KeyMetadata"]["Arn"].as_str().unwrap().into()))
}

#[test]
fn artifact_sealed_at_localstack_opens_through_recipient() {
    let Some((server, arn)) = localstack() else { return };
    let artifact = sealed(&server.endpoint(), &arn);
    let identity = attested(&server.endpoint(), &arn);
    assert!(opens(&artifact, &identity), "{:?}", identity.failures());
    // Of another artifact: the context is another.
    let other = seal_files(
        FILES,
        &[&KmsRecipient::new(connect(&server.endpoint()), KeyName::parse(&arn).unwrap())],
        &options("m"),
        2,
    );
    let (mut moved, other) = (artifact, other.unwrap().0);
    let stanza = 88..92 + usize::from(u16::from_be_bytes([other[90], other[91]]));
    moved[stanza.clone()].copy_from_slice(&other[stanza]);
    let identity = attested(&server.endpoint(), &arn);
    assert_eq!(failure(&moved, &identity).cause, Cause::OtherCiphertext);
}

/// LocalStack answers GenerateDataKey as if there were no Recipient.
#[test]
fn localstack_sends_plaintext_when_it_generates_and_is_refused() {
    let Some((server, arn)) = localstack() else { return };
    let error = seal_for(&attested(&server.endpoint(), &arn)).unwrap_err();
    assert_eq!((error.operation, &error.cause), ("GenerateDataKey", &Cause::Step(Step::C(2))), "{error}");
}

/// LocalStack answers with Plaintext when it cannot read the evidence.
#[test]
fn localstack_sends_plaintext_for_unreadable_evidence_and_is_refused() {
    let Some((server, arn)) = localstack() else { return };
    let artifact = sealed(&server.endpoint(), &arn);
    let garbage = |_: &[u8]| Ok(vec![0xA5; 100]);
    let identity = AttestedKms::new(connect(&server.endpoint()), KeyArn::parse(&arn).unwrap(), garbage);
    let error = failure(&artifact, &identity);
    assert_eq!((error.operation, &error.cause), ("Decrypt", &Cause::Step(Step::C(2))), "{error}");
    assert!(error.hint().unwrap().contains("seal anew"));
}

/// What a KMS answers, given the honest answer and the evidence's public key.
type Lie = dyn Fn(&mut Value, &[u8]) + Send + Sync;

/// A KMS that verifies evidence and answers as AWS does, but for what `lie` changes. Without Recipient it answers in the
/// clear.
fn kms(lie: impl Fn(&mut Value, &[u8]) + Send + Sync + 'static) -> Canned {
    let (roots, lie): (Roots, Arc<Lie>) = (hardware().root.roots(), Arc::new(lie));
    Canned::new(move |action, body| {
        let asked: Value = serde_json::from_str(body).unwrap();
        let mut answer = json!({ "KeyId": asked["KeyId"] });
        if action == "GenerateDataKey" {
            answer["CiphertextBlob"] = "AQID".into();
        }
        let Some(document) = asked["Recipient"]["AttestationDocument"].as_str() else {
            answer["Plaintext"] = Base64::encode_string(&DATA_KEY).into();
            return (200, answer.to_string());
        };
        let document = Base64::decode_vec(document).unwrap();
        let verified = nitro::verify(&document, &roots, Mode::Live { now_s: NOW_S }).unwrap();
        let envelope = Answer::aws(verified.public_key(), &DATA_KEY).encode();
        answer["CiphertextForRecipient"] = Base64::encode_string(&envelope).into();
        lie(&mut answer, verified.public_key());
        (200, answer.to_string())
    })
}

#[test]
fn evidence_names_a_new_key_for_every_request() {
    let kms = kms(|_, _| {});
    let artifact = seal_for(&attested(&kms.endpoint(), ARN)).unwrap();
    for _ in 0..2 {
        assert!(opens(&artifact, &attested(&kms.endpoint(), ARN)));
    }
    let requests: Vec<Value> = kms.requests().iter().map(|r| serde_json::from_str(r).unwrap()).collect();
    assert_eq!(requests.len(), 3);
    let mut keys = Vec::new();
    for request in &requests {
        assert_eq!(request["Recipient"]["KeyEncryptionAlgorithm"], "RSAES_OAEP_SHA_256");
        assert_eq!((&request["KeyId"], &request["EncryptionContext"]["mvault"]), (&json!(ARN), &json!("v1")));
        let document = Base64::decode_vec(request["Recipient"]["AttestationDocument"].as_str().unwrap()).unwrap();
        let verified = nitro::verify(&document, &hardware().root.roots(), Mode::Archived).unwrap();
        assert_eq!(verified.public_key().len(), 294);
        keys.push(verified.public_key().to_vec());
    }
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    // In LocalStack's form, too.
    let der = self::kms(|answer, key| encrypted(answer, &Answer::localstack(key, &DATA_KEY).encode()));
    assert!(opens(&artifact, &attested(&der.endpoint(), ARN)));
}

fn encrypted(answer: &mut Value, envelope: &[u8]) {
    answer["CiphertextForRecipient"] = Base64::encode_string(envelope).into();
}

fn without(answer: &mut Value, field: &str) {
    answer.as_object_mut().unwrap().remove(field);
}

type NamedLie = (&'static str, u8, fn(&mut Value, &[u8]));

const LIES: &[NamedLie] = &[
    ("plaintext beside the envelope", 2, |a, _| a["Plaintext"] = Base64::encode_string(&DATA_KEY).into()),
    ("plaintext in place of the envelope", 2, |a, _| {
        without(a, "CiphertextForRecipient");
        a["Plaintext"] = Base64::encode_string(&DATA_KEY).into();
    }),
    ("one byte of plaintext", 2, |a, _| a["Plaintext"] = "AA==".into()),
    ("another key", 3, |a, _| a["KeyId"] = ARN.replace("1234abcd", "5678abcd").into()),
    ("an alias", 3, |a, _| a["KeyId"] = "alias/m".into()),
    ("no key", 3, |a, _| without(a, "KeyId")),
    ("no envelope", 4, |a, _| without(a, "CiphertextForRecipient")),
    ("an empty envelope", 4, |a, _| a["CiphertextForRecipient"] = "".into()),
    ("an envelope too large", 4, |a, _| encrypted(a, &[0x30; 8193])),
    ("garbage", 5, |a, _| encrypted(a, &[0xA5; 400])),
    ("an envelope cut short", 5, |a, key| {
        let whole = Answer::aws(key, &DATA_KEY).encode();
        encrypted(a, &whole[..whole.len() - 1]);
    }),
    ("two envelopes", 5, |a, key| encrypted(a, &Answer::aws(key, &DATA_KEY).encode().repeat(2))),
    ("an envelope changed on its way", 18, |a, key| {
        let mut envelope = Answer::aws(key, &DATA_KEY).encode();
        envelope[200] ^= 1;
        encrypted(a, &envelope);
    }),
    ("31 bytes", 19, |a, key| encrypted(a, &Answer::aws(key, &DATA_KEY[1..]).encode())),
    ("no bytes", 19, |a, key| encrypted(a, &Answer::aws(key, &[]).encode())),
];

#[test]
fn answers_that_lie_are_refused() {
    let artifact = sealed(&kms(|_, _| {}).endpoint(), ARN);
    for (name, step, lie) in LIES {
        let kms = kms(lie);
        for error in [
            failure(&artifact, &attested(&kms.endpoint(), ARN)),
            seal_for(&attested(&kms.endpoint(), ARN)).unwrap_err(),
        ] {
            assert_eq!(error.cause, Cause::Step(Step::C(*step)), "{name}: {error}");
            assert!(error.to_string().contains(&format!("C-{step}: ")) && error.hint().is_some(), "{name}: {error}");
            assert!(!error.to_string().contains("19fX"), "{name}: a data key in {error}");
        }
        assert_eq!(kms.requests().len(), 2, "{name}");
    }
}

/// The answer to one request does not serve another: its key is gone.
#[test]
fn repeated_answer_is_refused() {
    let first: Arc<OnceLock<Value>> = Arc::default();
    let kms = kms(move |answer, _| *answer = first.get_or_init(|| answer.clone()).clone());
    let artifact = sealed(&kms.endpoint(), ARN);
    assert!(opens(&artifact, &attested(&kms.endpoint(), ARN)));
    assert_eq!(failure(&artifact, &attested(&kms.endpoint(), ARN)).cause, Cause::Step(Step::C(18)));
}

/// A data key of the right form that is not the one: the stanza's wrapped DEK does not open, and nothing failed at KMS.
#[test]
fn another_data_key_opens_nothing() {
    let kms = kms(|answer, key| encrypted(answer, &Answer::aws(key, &[0; 32]).encode()));
    let artifact = sealed(&kms.endpoint(), ARN);
    let identity = attested(&kms.endpoint(), ARN);
    assert!(!opens(&artifact, &identity) && identity.failures().is_empty());
}

#[test]
fn key_policy_that_denies_is_told_from_missing_permission() {
    let said =
        "User: arn:aws:sts::111122223333:assumed-role/enclave is not authorized to perform: kms:Decrypt on resource";
    let refusing =
        Canned::new(move |_, _| (400, json!({ "__type": "AccessDeniedException", "message": said }).to_string()));
    let artifact = sealed(&kms(|_, _| {}).endpoint(), ARN);
    let error = failure(&artifact, &attested(&refusing.endpoint(), ARN));
    assert_eq!((&error.cause, error.code.as_deref()), (&Cause::AttestationDenied, Some("AccessDeniedException")));
    let hint = error.hint().unwrap();
    for words in ["kms:RecipientAttestation", "debug mode", &format!("lack kms:Decrypt on {ARN}")] {
        assert!(hint.contains(words), "{hint}");
    }
    let error = seal_for(&attested(&refusing.endpoint(), ARN)).unwrap_err();
    assert!(error.hint().unwrap().contains("kms:GenerateDataKey"), "{error}");
}

/// Only the pinned key, and only with evidence.
#[test]
fn nobody_is_asked_without_evidence_or_about_another_key() {
    let kms = kms(|_, _| {});
    let artifact = sealed(&kms.endpoint(), ARN);
    let asked = kms.requests().len();
    let other = attested(&kms.endpoint(), &ARN.replace("1234abcd", "5678abcd"));
    assert!(!opens(&artifact, &other) && other.failures().is_empty());
    for evidence in [Err("the NSM is not there".to_owned()), Ok(vec![]), Ok(vec![0; 16_385])] {
        let attester = move |_: &[u8]| evidence.clone();
        let identity = AttestedKms::new(connect(&kms.endpoint()), KeyArn::parse(ARN).unwrap(), attester);
        let error = failure(&artifact, &identity);
        assert_eq!(error.cause, Cause::Step(Step::C(1)), "{error}");
    }
    assert_eq!(kms.requests().len(), asked);
}
