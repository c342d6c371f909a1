//! AWS KMS as recipient and identity, through the command line: against emulators where they can do it, against canned
//! answers where none refuses as AWS does. The encryption context, who is asked and how often, and what is said when KMS
//! refuses.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

mod common;

use common::{Done, Workshop};
use mvault_tests::canned::Canned;
use mvault_tests::server::{Server, env_of};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::OnceLock;

const SECRET: &str = "mvault-test-admin-secret";
/// What the canned KMS answers as data key, in base64: 32 bytes of 0xD7.
const DATA_KEY: &str = "19fX19fX19fX19fX19fX19fX19fX19fX19fX19fX19c=";
const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// A workshop beside a KMS.
struct Bench {
    shop: Workshop,
    env: Vec<(String, String)>,
}

impl Bench {
    fn of(server: &Server) -> Self {
        Self { shop: Workshop::new(), env: server.env() }
    }

    fn canned(server: &Canned) -> Self {
        let keys = mvault_tests::server::Keys::new("MVAULTTESTADMIN", SECRET);
        Self { shop: Workshop::new(), env: env_of(&keys, &server.endpoint()) }
    }

    fn run(&self, args: &str) -> Done {
        let mut command: Command = self.shop.command(env!("CARGO_BIN_EXE_mvault"));
        command.args(args.split_whitespace()).envs(self.env.iter().map(|(k, v)| (k, v)));
        let output = command.output().unwrap();
        let done = Done {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let said = done.text() + &done.stderr;
        assert!(!said.contains(SECRET) && !said.contains(DATA_KEY), "a secret in {said}");
        assert!(!said.contains("d7d7d7") && !said.contains("215, 215"), "a data key in {said}");
        done
    }
}

fn create_key(server: &Server) -> String {
    let made: Value = serde_json::from_slice(&server.kms("CreateKey", "{}").body).unwrap();
    made["KeyMetadata"]["Arn"].as_str().unwrap().into()
}

fn alias(server: &Server, name: &str, arn: &str) {
    let made = server.kms("CreateAlias", &json!({ "AliasName": name, "TargetKeyId": arn }).to_string());
    assert_eq!(made.status, 200, "{made:?}");
}

/// Servers for all tests, which make keys of their own.
fn emulators() -> impl Iterator<Item = &'static Server> {
    static MOTO: OnceLock<Option<Server>> = OnceLock::new();
    MOTO.get_or_init(Server::moto).as_ref().into_iter().chain(localstack())
}

fn localstack() -> Option<&'static Server> {
    static ONE: OnceLock<Option<Server>> = OnceLock::new();
    ONE.get_or_init(Server::localstack).as_ref()
}

#[test]
fn alias_seals_and_the_key_opens() {
    for server in emulators() {
        let (bench, arn) = (Bench::of(server), create_key(server));
        alias(server, "alias/models", &arn);
        bench.run("seal bert -r aws-kms:alias/models").ok();
        let list = bench.run("recipients list bert.mvault --json").ok().json();
        assert_eq!((&list["recipients"][0]["type"], &list["recipients"][0]["tag"]), (&"aws-kms".into(), &json!(arn)));
        bench.run("open bert.mvault -i aws-kms -o all").ok();
        assert_eq!(bench.shop.read("all/config.json"), bench.shop.read("bert/config.json"));
        assert_eq!(
            bench.run("cat bert.mvault config.json -i aws-kms").ok().stdout,
            bench.shop.read("bert/config.json")
        );
        let inspect = bench.run("inspect bert.mvault --json -i aws-kms").ok().json();
        assert_eq!((&inspect["kms_keys"], &inspect["name"]), (&json!([arn]), &json!("bert")));
        bench.run(&format!("verify bert.mvault -i aws-kms:{arn}")).ok();
        // Named in other ways.
        let id = arn.rsplit('/').next().unwrap().to_owned();
        let alias_arn = arn.replace(&format!("key/{id}"), "alias/models");
        for name in [&arn, &id, &alias_arn] {
            bench.run(&format!("seal model.pkl -f -r aws-kms:{name}")).ok();
            bench.run("verify model.pkl.mvault -i aws-kms").ok();
        }
        // In files.
        bench.shop.write("team.txt", format!("# the key\n aws-kms:{arn}\n").as_bytes());
        bench.run("seal model.pkl -f -R team.txt").ok();
        bench.run("verify model.pkl.mvault -i aws-kms").ok();
        bench.shop.write("mvault.toml", format!("recipients = [\"aws-kms:{arn}\"]").as_bytes());
        bench.run("seal model.pkl -f").ok();
        bench.run("verify model.pkl.mvault -i aws-kms").ok();
    }
}

#[test]
fn keys_come_and_go_by_arn() {
    for server in emulators() {
        let (bench, one, two) = (Bench::of(server), create_key(server), create_key(server));
        alias(server, "alias/one", &one);
        bench.run(&format!("seal model.pkl -r aws-kms:{one}")).ok();
        bench.run(&format!("recipients add model.pkl.mvault -r aws-kms:{two} -i aws-kms")).ok();
        bench.run(&format!("verify model.pkl.mvault -i aws-kms:{one}")).ok();
        bench.run(&format!("verify model.pkl.mvault -i aws-kms:{two}")).ok();
        bench
            .run(&format!("recipients add model.pkl.mvault -r aws-kms:{two} -i aws-kms"))
            .fails(1, "a recipient given is one already");
        bench
            .run("recipients remove model.pkl.mvault -r aws-kms:alias/one -i aws-kms")
            .fails(2, "an alias does not say which key it names");
        let done = bench.run(&format!("recipients remove model.pkl.mvault -r aws-kms:{one} -i aws-kms:{one}")).ok();
        assert!(done.stderr.contains("the key you used cannot open it any more"));
        bench
            .run(&format!("verify model.pkl.mvault -i aws-kms:{one}"))
            .fails(3, &format!("AWS KMS key {one} does not open it"));
        bench.run("verify model.pkl.mvault -i aws-kms").ok();
    }
}

/// The first of two keys is disabled: the second is tried, and opens. (moto decrypts with disabled keys.)
#[test]
fn key_that_fails_does_not_hide_one_that_opens() {
    if let Some(server) = localstack() {
        let (bench, one, two) = (Bench::of(server), create_key(server), create_key(server));
        bench.run(&format!("seal model.pkl -r aws-kms:{one} -r aws-kms:{two}")).ok();
        server.kms("DisableKey", &json!({ "KeyId": one }).to_string());
        bench.run("verify model.pkl.mvault -i aws-kms").ok();
        server.kms("DisableKey", &json!({ "KeyId": two }).to_string());
        let done = bench.run("verify model.pkl.mvault -i aws-kms").fails(5, &format!("aws-kms:{one}: Decrypt"));
        assert!(done.stderr.contains(&format!("mvault: warning: aws-kms:{two}: Decrypt")), "{}", done.stderr);
    }
}

#[test]
fn stanza_moved_to_another_artifact_does_not_open() {
    for server in emulators() {
        let (bench, arn) = (Bench::of(server), create_key(server));
        for name in ["a", "b"] {
            bench.run(&format!("seal model.pkl -o {name}.mvault -r aws-kms:{arn}")).ok();
        }
        let (mut a, b) = (bench.shop.read("a.mvault"), bench.shop.read("b.mvault"));
        assert_eq!(a[12..24], b[12..24], "headers of one shape");
        let stanza = 88..92 + usize::from(u16::from_be_bytes([b[90], b[91]]));
        a[stanza.clone()].copy_from_slice(&b[stanza]);
        bench.shop.write("moved.mvault", &a);
        let done = bench.run("verify moved.mvault -i aws-kms").fails(3, "[F-18]");
        assert!(done.stderr.contains("Decrypt: ") && done.stderr.contains("InvalidCiphertext"), "{}", done.stderr);
    }
}

#[test]
fn unknown_keys_are_named_with_the_way_out() {
    for server in emulators() {
        let (bench, arn) = (Bench::of(server), create_key(server));
        bench.run(&format!("seal model.pkl -r aws-kms:{arn}")).ok();
        let unknown = arn.replace(arn.rsplit('/').next().unwrap(), "00000000-0000-4000-8000-000000000000");
        let done = bench.run(&format!("seal bert -r aws-kms:{unknown}")).fails(5, &unknown);
        assert!(done.stderr.contains("NotFoundException") && done.stderr.contains("--region"), "{}", done.stderr);
        bench.run("seal bert -r aws-kms:alias/nobody").fails(5, "alias/nobody in us-east-1: GenerateDataKey");
        bench.run("seal bert -r aws-kms:alias/nobody --region eu-west-1").fails(5, "alias/nobody in eu-west-1");
        assert!(!bench.shop.exists("bert.mvault"));
    }
}

/// moto knows no state of keys when it decrypts.
#[test]
fn disabled_and_dying_keys_are_named_with_the_way_out() {
    if let Some(server) = localstack() {
        let (bench, arn) = (Bench::of(server), create_key(server));
        bench.run(&format!("seal model.pkl -r aws-kms:{arn}")).ok();
        server.kms("DisableKey", &json!({ "KeyId": arn }).to_string());
        let done = bench.run("open model.pkl.mvault -i aws-kms -o out").fails(5, "DisabledException");
        assert!(done.stderr.contains("enable the key in AWS KMS"), "{}", done.stderr);
        bench.run(&format!("seal bert -r aws-kms:{arn}")).fails(5, "DisabledException");
        server.kms("EnableKey", &json!({ "KeyId": arn }).to_string());
        server.kms("ScheduleKeyDeletion", &json!({ "KeyId": arn, "PendingWindowInDays": 7 }).to_string());
        let error = bench.run("open model.pkl.mvault -i aws-kms -o out --json").fails(5, "KMSInvalidState").json();
        assert_eq!((&error["operation"], &error["exit"]), (&json!("Decrypt"), &json!(5)));
        assert!(!bench.shop.exists("out") && !bench.shop.exists("bert.mvault"));
    }
}

/// A KMS that makes the same data key for every key.
fn obliging() -> Canned {
    Canned::new(|action, body| {
        let asked: Value = serde_json::from_str(body).unwrap();
        let mut answer = json!({ "KeyId": asked["KeyId"], "Plaintext": DATA_KEY });
        if action == "GenerateDataKey" {
            answer["CiphertextBlob"] = "AQID".into();
        }
        (200, answer.to_string())
    })
}

fn refusing(status: u16, code: &'static str, message: &'static str) -> Canned {
    Canned::new(move |_, _| (status, json!({ "__type": code, "message": message }).to_string()))
}

/// An artifact for one canned key, in the workshop of another bench.
fn sealed(bench: &Bench, to: &str) {
    let maker = Bench::canned(&obliging());
    maker.run(&format!("seal model.pkl {to}")).ok();
    bench.shop.write("m.mvault", &maker.shop.read("model.pkl.mvault"));
}

#[test]
fn context_names_the_artifact() {
    let kms = obliging();
    let bench = Bench::canned(&kms);
    let id = bench.run(&format!("seal model.pkl -r aws-kms:{ARN} --json")).ok().json()["id"].clone();
    bench.run("verify model.pkl.mvault -i aws-kms").ok();
    let requests: Vec<Value> = kms.requests().iter().map(|r| serde_json::from_str(r).unwrap()).collect();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request["EncryptionContext"], json!({ "mvault": "v1", "mvault-artifact": id }));
        assert_eq!(request["KeyId"], ARN);
    }
    assert_eq!((&requests[0]["KeySpec"], &requests[1]["CiphertextBlob"]), (&json!("AES_256"), &json!("AQID")));
}

#[test]
fn missing_permission_is_named() {
    let said = "User: arn:aws:iam::111122223333:user/ci is not authorized to perform this";
    let bench = Bench::canned(&refusing(400, "AccessDeniedException", said));
    sealed(&bench, &format!("-r aws-kms:{ARN}"));
    let done = bench.run("open m.mvault -i aws-kms -o out").fails(5, said);
    assert!(done.stderr.contains(&format!("the credentials lack kms:Decrypt on {ARN}")), "{}", done.stderr);
    assert!(done.stderr.contains("HTTP 400, AccessDeniedException, request canned-1"), "{}", done.stderr);
    let error = bench.run("seal bert -r aws-kms:alias/m --json").fails(5, "kms:GenerateDataKey on alias/m").json();
    let fields = ["operation", "status", "code", "request_id"].map(|f| error[f].clone());
    assert_eq!(fields, [json!("GenerateDataKey"), json!(400), json!("AccessDeniedException"), json!("canned-1")]);
}

#[test]
fn throttling_is_retried_then_named() {
    let kms = refusing(400, "ThrottlingException", "Rate exceeded");
    let bench = Bench::canned(&kms);
    sealed(&bench, &format!("-r aws-kms:{ARN} -r aws-kms:{}", ARN.replace("1234abcd", "5678abcd")));
    bench.run("verify m.mvault -i aws-kms").fails(5, "asks to slow down");
    // The second stanza is not tried: it is not about a key.
    assert_eq!(kms.requests().len(), 5);
}

#[test]
fn other_refusals_say_what_to_do() {
    for (code, said, hint) in [
        ("InvalidSignatureException", "Signature expired: 20200101T000000Z is now earlier than", "clock is off"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "AWS_ACCESS_KEY_ID"),
        ("ExpiredTokenException", "The security token included in the request is expired", "aws sso login"),
        ("NotFoundException", "Invalid arn us-east-1", "of another region than the key"),
        ("DisabledException", "arn is disabled.", "enable the key in AWS KMS"),
        ("KMSInvalidStateException", "arn is pending deletion.", "cancel its deletion"),
        ("InvalidKeyUsageException", "", "SYMMETRIC_DEFAULT"),
        ("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this", "[F-18]"),
    ] {
        let bench = Bench::canned(&refusing(400, code, said));
        sealed(&bench, &format!("-r aws-kms:{ARN}"));
        let code = if hint == "[F-18]" { 3 } else { 5 };
        bench.run("verify m.mvault -i aws-kms").fails(code, hint);
    }
}

/// An answer is used only if it is what was asked for.
#[test]
fn answers_of_other_keys_are_refused() {
    let short = "19fX19fX19fX19fX19fX19fX19fX19fX19fX19fX1w=="; // 31 bytes
    let other = ARN.replace("1234abcd", "5678abcd");
    for (key, plaintext) in [(other.as_str(), Some(DATA_KEY)), (ARN, Some(short)), (ARN, None), ("alias/m", None)] {
        let answer = json!({ "KeyId": key, "Plaintext": plaintext, "CiphertextBlob": "AQID" }).to_string();
        let bench = Bench::canned(&Canned::new(move |_, _| (200, answer.clone())));
        sealed(&bench, &format!("-r aws-kms:{ARN}"));
        bench.run("verify m.mvault -i aws-kms").fails(5, "not a data key of the key that was asked for");
        bench.run(&format!("seal bert -r aws-kms:{ARN}")).fails(5, "not a data key of the key that was asked for");
    }
    // A data key that is right in form, and not the one.
    let answer = json!({ "KeyId": ARN, "Plaintext": DATA_KEY.replace("19fX", "AAAA") }).to_string();
    let bench = Bench::canned(&Canned::new(move |_, _| (200, answer.clone())));
    sealed(&bench, &format!("-r aws-kms:{ARN}"));
    bench.run("verify m.mvault -i aws-kms").fails(3, "[F-18]");
}

#[test]
fn nobody_is_asked_who_was_not_named() {
    let kms = obliging();
    let bench = Bench::canned(&kms);
    bench.run("keygen -o id.txt").ok();
    sealed(&bench, &format!("-r aws-kms:{ARN}"));
    let line = bench.run("keygen --public id.txt").ok().text();
    bench.run(&format!("recipients add m.mvault -i aws-kms -r {line}")).ok();
    let asked = kms.connections();
    bench.run("verify m.mvault -i id.txt").ok();
    bench.run("verify m.mvault -i aws-kms -i id.txt").ok(); // the key file is at hand
    bench.run("inspect m.mvault").ok();
    bench.run(&format!("recipients list m.mvault -r aws-kms:{ARN}")).ok();
    bench.run("verify m.mvault").fails(3, "-i aws-kms");
    let other = ARN.replace("1234abcd", "5678abcd");
    bench.run(&format!("verify m.mvault -i aws-kms:{other}")).fails(3, &format!("AWS KMS key {other} does not open"));
    bench.run(&format!("seal bert -r {line}")).ok();
    bench.run("verify bert.mvault -i aws-kms").fails(3, "AWS KMS does not open it; its recipients: x-wing");
    assert_eq!(kms.connections(), asked);
}

/// Of two keys in a header, only the named one is asked about.
#[test]
fn named_key_alone_is_asked_about() {
    let kms = refusing(400, "DisabledException", "disabled");
    let (bench, two) = (Bench::canned(&kms), ARN.replace("1234abcd", "5678abcd"));
    sealed(&bench, &format!("-r aws-kms:{ARN} -r aws-kms:{two}"));
    bench.run(&format!("verify m.mvault -i aws-kms:{two}")).fails(5, &two);
    let asked: Vec<Value> = kms.requests().iter().map(|r| serde_json::from_str(r).unwrap()).collect();
    assert!(asked.len() == 1 && asked[0]["KeyId"] == two, "{asked:?}");
}

/// [F-40]: a header of many stanzas costs sixteen requests.
#[test]
fn sixteen_stanzas_are_brought_to_kms() {
    let kms = refusing(400, "AccessDeniedException", "no");
    let bench = Bench::canned(&kms);
    let many: Vec<_> = (0..17).map(|n| format!("-r aws-kms:{}{n:02}", &ARN[..ARN.len() - 2])).collect();
    sealed(&bench, &many.join(" "));
    bench.run("verify m.mvault -i aws-kms").fails(5, "kms:Decrypt");
    assert_eq!(kms.requests().len(), 16);
}

#[test]
fn plain_http_stays_on_this_machine() {
    let bench = Bench::canned(&obliging());
    let seal = format!("seal bert -r aws-kms:{ARN} --kms-endpoint-url http://kms.invalid");
    bench.run(&seal).fails(5, "plain http to a host that is not this machine");
    let done = bench.run(&format!("{seal} --dangerous-plain-http")).fails(5, "the host name does not resolve");
    assert!(done.stderr.contains("mvault: warning: --dangerous-plain-http"), "{}", done.stderr);
}

#[test]
fn names_that_are_no_keys_are_usage_errors() {
    let bench = Bench::canned(&obliging());
    for name in ["aws-kms", "aws-kms:", "aws-kms:models", "aws-kms:arn:aws:s3:::models", "aws-kms-key"] {
        bench.run(&format!("seal bert -r {name}")).fails(2, "not a key of AWS KMS");
    }
    bench.run("verify bert.mvault -i aws-kms:alias/m").fails(2, "not an alias");
}
