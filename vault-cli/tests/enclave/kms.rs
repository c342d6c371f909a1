//! The story with AWS KMS in the broker's place: TLS to KMS ends in the enclave, and what opens the model is the evidence.

use crate::stage::{Run, Stage, stage};
use base64ct::{Base64, Encoding};
use mvault_tests::canned::Canned;
use mvault_tests::forge::kms::Answer;
use mvault_tests::front::Front;
use mvault_tests::server::Server;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use vault_attest::nitro::{self, Mode, Roots};
use vault_core::header::hex;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const DATA_KEY: [u8; 32] = [0xD7; 32];
const SECRET: &str = "the-secret-of-the-parents-role";

fn env(endpoint: &str) -> Vec<(String, String)> {
    let pairs = [
        ("AWS_ACCESS_KEY_ID", "AKIDPARENT"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_KMS", endpoint),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// A KMS that acts on its key's policy as AWS does: Decrypt needs evidence of an image whose PCR0 is allowed.
fn kms(stage: &Stage, allowed: &Arc<Mutex<String>>) -> Canned {
    let pem = String::from_utf8(stage.shop.read("dev/root.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let roots = Roots::aws().dangerous_with(&Base64::decode_vec(&der).unwrap());
    let allowed = Arc::clone(allowed);
    Canned::new(move |action, body| {
        let asked: Value = serde_json::from_str(body).unwrap();
        let denied =
            json!({ "__type": "AccessDeniedException", "message": "The ciphertext refers to a key you may not use" });
        let mut answer = json!({ "KeyId": ARN });
        match (action, asked["Recipient"]["AttestationDocument"].as_str()) {
            ("GenerateDataKey", None) => {
                answer["CiphertextBlob"] = "AQID".into();
                answer["Plaintext"] = Base64::encode_string(&DATA_KEY).into();
            }
            ("Decrypt", Some(document)) => {
                let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                let document = Base64::decode_vec(document).unwrap();
                let Ok(evidence) = nitro::verify(&document, &roots, Mode::Live { now_s }) else {
                    return (400, denied.to_string());
                };
                if hex(evidence.pcr(0).unwrap().as_ref()) != *allowed.lock().unwrap() {
                    return (400, denied.to_string());
                }
                let envelope = Answer::aws(evidence.public_key(), &DATA_KEY).encode();
                answer["CiphertextForRecipient"] = Base64::encode_string(&envelope).into();
            }
            _ => return (400, denied.to_string()),
        }
        (200, answer.to_string())
    })
}

fn seal(stage: &Stage, arn: &str, env: &[(String, String)]) {
    let mut seal = stage.shop.command(env!("CARGO_BIN_EXE_mvault"));
    let line = format!("seal minilm -f -o kms.mvault --name minilm --model-version 2 --sign sign.pem -r aws-kms:{arn}");
    let done = seal.args(line.split(' ')).envs(env.iter().cloned()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn run(stage: &Stage, image: &str, front: &Front, env: &[(String, String)]) -> Run {
    let keys = format!("--kms 127.0.0.1:{}", front.port);
    stage.run_with(&keys, image, "kms.mvault", "--dangerous-dev-signer dev", env)
}

fn pcr0(stage: &Stage, image: &str) -> String {
    stage.shop.mvault(&format!("enclave measure {image} --json")).ok().json()["Measurements"]["PCR0"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn kms_releases_to_the_image_of_its_policy_and_to_no_other() {
    let Some(stage) = stage() else { return };
    let allowed = Arc::new(Mutex::new(String::new()));
    let kms = kms(&stage, &allowed);
    let (front, env) = (Front::new(&kms.endpoint()), env(&kms.endpoint()));
    seal(&stage, ARN, &env);
    stage.configure_kms("kms.toml", ARN, &front);
    stage.build("kms.eif", "kms.toml", &stage.parts.guest);
    *allowed.lock().unwrap() = pcr0(&stage, "kms.eif");
    let mut machine = run(&stage, "kms.eif", &front, &env);
    machine.ready();
    let (code, log) = machine.interrupt();
    let line = log.lines().find(|line| line.contains("[E-5]")).unwrap();
    println!("{line}");
    assert!(code == 0 && line.contains("key released, AWS KMS request canned-1"), "{log}");
    assert!(log.contains("[E-8] golden set: 2 right"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
    // The parent's secret signs, and is in no request.
    let requests = front.requests();
    assert!(
        requests
            .iter()
            .all(|(head, body)| head.contains("Credential=AKIDPARENT/") && !(head.clone() + body).contains(SECRET))
    );
    // Another image, though it is of the same configuration but for a version.
    let file = String::from_utf8(stage.shop.read("kms.toml")).unwrap();
    stage.shop.write("later.toml", file.replace("minimum_version = 2", "minimum_version = 1").as_bytes());
    stage.build("later.eif", "later.toml", &stage.parts.guest);
    let (code, log) = run(&stage, "later.eif", &front, &env).ended();
    assert!(code == 4 && log.contains("[E-5] AWS KMS: AccessDeniedException"), "{code}: {log}");
    assert!(!log.contains("[E-6]"), "{log}");
    // Sealed for the broker: KMS is not asked.
    let asked = front.requests().len();
    let keys = format!("--kms 127.0.0.1:{}", front.port);
    let (code, log) = stage.run_with(&keys, "kms.eif", "two.mvault", "--dangerous-dev-signer dev", &env).ended();
    assert!(code == 1 && log.contains("[E-5] none of its recipients is arn:aws:kms"), "{code}: {log}");
    assert_eq!(front.requests().len(), asked);
}

#[test]
fn localstack_releases_to_the_enclave() {
    let Some(stage) = stage() else { return };
    let Some(server) = Server::localstack() else { return };
    let made: Value = serde_json::from_slice(&server.kms("CreateKey", "{}").body).unwrap();
    let arn = made["KeyMetadata"]["Arn"].as_str().unwrap();
    let front = Front::new(&server.endpoint());
    seal(&stage, arn, &server.env());
    stage.configure_kms("localstack.toml", arn, &front);
    stage.build("localstack.eif", "localstack.toml", &stage.parts.guest);
    let mut machine = run(&stage, "localstack.eif", &front, &server.env());
    machine.ready();
    let (code, log) = machine.interrupt();
    println!("{}", log.lines().find(|line| line.contains("[E-5]")).unwrap());
    assert!(code == 0 && log.contains("golden set: 2 right"), "{log}");
}

#[test]
fn parent_without_credentials_is_told_before_it_boots() {
    let Some(stage) = stage() else { return };
    let env = [("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned())];
    let (code, log) =
        stage.run_with("--kms 127.0.0.1:1", "good.eif", "two.mvault", "--dangerous-dev-signer dev", &env).ended();
    assert!(code == 5 && log.contains("no credentials") && !log.contains("E-1"), "{code}: {log}");
}
