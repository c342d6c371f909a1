//! An enclave in a process of its own, with evidence under a test root, gets a DEK from a broker in another process and opens a
//! real sealed model; near misses of it do not.

use crate::cases::system_rng;
use crate::rig::Rig;
use mvault_tests::asker::now_s;
use mvault_tests::evidence::{Evidence, TestRoot};
use std::process::Command;
use std::sync::Arc;
use vault_attest::tlog::LogVerifier;
use vault_core::header::Header;
use vault_core::io::Input;
use vault_core::open::{OpenOptions, OrderedSink, Release, open};
use vault_enclave::Tcp;
use vault_enclave::release::{Attester, Client, Pinned};

/// The variable that makes the test `enclave_process` an enclave.
const ENCLAVE: &str = "MVAULT_TEST_ENCLAVE";

/// Runs an enclave in the workshop: which artifact, and what it prints.
fn enclave(rig: &Rig, artifact: &str) -> (bool, String) {
    let mut command: Command = rig.shop.command(std::env::current_exe().unwrap().to_str().unwrap());
    command.args(["--exact", "end_to_end::enclave_process", "--nocapture", "--test-threads=1"]);
    let done = command.env(ENCLAVE, format!("{artifact} {}", rig.address.port())).output().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    (done.status.success(), said)
}

/// Evidence as the hardware would make it for this process.
struct Hardware(TestRoot);

impl Attester for Hardware {
    fn attest(&mut self, nonce: &[u8; 32], user_data: &[u8; 32], _: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let evidence = Evidence::at(now_s()).with_nonce(nonce).with_user_data(user_data);
        Ok(evidence.sign(&self.0.chain(now_s())))
    }
}

/// Keeps what is verified.
#[derive(Default)]
struct Memory(Vec<(String, Vec<u8>)>);

impl OrderedSink for Memory {
    fn begin(&mut self, entries: &[(String, Option<u64>)]) -> std::io::Result<()> {
        self.0 = entries.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
        Ok(())
    }

    fn write(&mut self, entry: usize, _: u64, data: &[u8]) -> std::io::Result<()> {
        self.0[entry].1.extend_from_slice(data);
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// No test but the enclave's program, when it is run by the tests below.
#[test]
fn enclave_process() {
    let Ok(asked) = std::env::var(ENCLAVE) else { return };
    let (artifact, port) = asked.split_once(' ').unwrap();
    let read = |name: &str| std::fs::read_to_string(name).unwrap();
    let text = read("broker/client.toml");
    let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(" = \"")).unwrap();
    let ids = text.lines().filter_map(|l| l.trim().strip_prefix('"')?.strip_suffix("\","));
    let pinned = Pinned {
        url: format!("https://localhost:{port}"),
        ca_pem: read("broker/tls/ca.pem").into_bytes(),
        keys: ids.map(|id| vault_attest::policy::parse_id(id).unwrap()).collect(),
        log: LogVerifier::parse(value("log").trim_end_matches('"')).unwrap(),
    };
    let mut hardware = Hardware(TestRoot::from_pem(&read("root.pem"), &read("root.key")));
    let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let client = Client::new(pinned, Arc::new(Tcp(format!("127.0.0.1:{port}"))), clock).unwrap();
    let file = std::fs::read(artifact).unwrap();
    let mut payload = &file[..];
    let header = Header::read(&mut payload).unwrap();
    let key = match client.request_key(&header, &mut hardware, &mut system_rng()) {
        Ok(key) => key,
        Err(error) => panic!("no key: {error}; {}", error.hint()),
    };
    let signature = header.signature();
    let header = header.unlock(&[key.identity()]).unwrap();
    let mut memory = Memory::default();
    let opened =
        open(Input::Stream(&mut payload), &header, &OpenOptions::default(), Release::Ordered(&mut memory)).unwrap();
    key.check_version(opened.manifest.model_version).unwrap();
    key.check_signature(signature.as_ref()).unwrap();
    for (name, bytes) in &memory.0 {
        println!("opened {name} {}", blake3::hash(bytes).to_hex());
    }
}

fn opened(rig: &Rig, name: &str) -> String {
    format!("opened {name} {}", blake3::hash(&rig.shop.read(&format!("bert/{name}"))).to_hex())
}

#[test]
fn an_attested_process_opens_a_real_model() {
    let mut rig = Rig::started();
    rig.seal("model", "prod");
    let (ok, said) = enclave(&rig, "model.mvault");
    assert!(ok && said.contains(&opened(&rig, "model.safetensors")), "{said}");
    assert!(said.contains(&opened(&rig, "config.json")), "{said}");
    // Another key: what was sealed for the old one still opens, and what is sealed for the new one too.
    assert!(rig.stop().success());
    rig.shop.mvault("broker rotate broker").ok();
    rig.seal("newer", "prod");
    rig.start();
    for artifact in ["model.mvault", "newer.mvault"] {
        let (ok, said) = enclave(&rig, artifact);
        assert!(ok && said.contains(&opened(&rig, "model.safetensors")), "{artifact}: {said}");
    }
    let log = rig.shop.mvault("broker log broker --json").ok().json();
    assert_eq!(log["size"], 3);
    assert!(log["entries"].as_array().unwrap().iter().all(|e| e["entry"]["outcome"] == "granted"));
    rig.shop.mvault("broker log broker --verify --checkpoint seen").ok();
    let verified = rig.shop.mvault("broker log broker --verify --checkpoint seen").ok().text();
    assert!(verified.contains("3 entries: every entry, hash and the signature verify, and it goes on"), "{verified}");
}

/// The old key's stanza stands first, and the enclave wants the other.
#[test]
fn a_model_for_two_keys_opens_for_who_pins_the_second() {
    let mut rig = Rig::started();
    let old = rig.line("prod");
    assert!(rig.stop().success());
    rig.shop.mvault("broker rotate broker").ok();
    rig.seal_for("both", &format!("{old}\n{}", rig.line("prod")), "");
    let text = String::from_utf8(rig.shop.read("broker/client.toml")).unwrap();
    let ids: Vec<_> = text.lines().filter(|l| l.trim_start().starts_with('"') && l.ends_with("\",")).collect();
    let [_, old] = ids[..] else { panic!("{ids:?}") };
    rig.shop.write("broker/client.toml", text.replace(&format!("{old}\n"), "").as_bytes());
    rig.start();
    let (ok, said) = enclave(&rig, "both.mvault");
    assert!(ok && said.contains("opened config.json"), "{said}");
}

#[test]
fn a_process_of_another_root_gets_nothing() {
    let rig = Rig::started();
    rig.seal("model", "prod");
    let other = TestRoot::new();
    rig.shop.write("root.pem", other.pem().as_bytes());
    rig.shop.write("root.key", other.key_pem().as_bytes());
    let (ok, said) = enclave(&rig, "model.mvault");
    assert!(!ok && said.contains("refused at step V-14") && !said.contains("opened "), "{said}");
}

#[test]
fn a_model_that_the_policy_s_signer_did_not_sign_is_not_opened() {
    let mut rig = Rig::new();
    for name in ["ours", "theirs"] {
        rig.shop.mvault(&format!("keygen --signing -o {name}.pem")).ok();
        rig.seal_for(name, &rig.line("signed"), &format!("--sign {name}.pem"));
    }
    let ours = String::from_utf8(rig.shop.read("ours.pem.pub")).unwrap();
    let key: String = ours.lines().filter(|line| !line.starts_with('-')).collect();
    rig.policy("signed", &format!("[scope]\nsigners = [\"{key}\"]"), "");
    rig.start();
    let (ok, said) = enclave(&rig, "theirs.mvault");
    assert!(!ok && said.contains("refused at step P-11") && !said.contains("opened "), "{said}");
    let (ok, said) = enclave(&rig, "ours.mvault");
    assert!(ok && said.contains("opened config.json"), "{said}");
    let log = rig.shop.mvault("broker log broker --json").ok().json();
    let signature = rig.shop.mvault("inspect ours.mvault --json").ok().json();
    let entry = &log["entries"][1]["entry"];
    assert_eq!(entry["signer"], signature["signed_by"], "{entry} {signature}");
    assert!(entry["payload"].as_str().is_some_and(|digest| digest.len() == 64), "{entry}");
    assert_eq!(log["entries"][0]["entry"]["signer"], serde_json::Value::Null);
}

#[test]
fn a_model_older_than_the_policy_demands_is_not_opened() {
    let mut rig = Rig::new();
    rig.policy("minimum", "minimum_model_version = 3", "");
    rig.start();
    rig.seal_for("two", &rig.line("minimum"), "--model-version 2");
    rig.seal_for("three", &rig.line("minimum"), "--model-version 3");
    let (ok, said) = enclave(&rig, "two.mvault");
    assert!(!ok && said.contains("refused at step P-10"), "{said}");
    let (ok, said) = enclave(&rig, "three.mvault");
    assert!(ok && said.contains("opened config.json"), "{said}");
}
