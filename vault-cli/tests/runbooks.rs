//! The runbooks of docs/OPERATIONS.md, run line by line: what is in the document is what bash executes, against a real broker
//! process, real artifacts and real servers. One test a runbook; a block that none of them plays fails.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report
#![allow(clippy::print_stdout)] // what was left out

mod common;
#[path = "runbooks/document.rs"]
mod document;
#[path = "broker/rig.rs"]
#[allow(dead_code)] // a part of it is used here
mod rig;
#[path = "runbooks/stage.rs"]
mod stage;

use mvault_tests::server::Server;
use serde_json::json;
use stage::Stage;
use std::thread::sleep;
use std::time::Duration;
use vault_attest::time::rfc3339;

#[test]
fn every_block_of_the_section_is_a_runbook_that_a_test_plays() {
    let source = include_str!("runbooks.rs");
    let names = document::names();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        assert!(source.contains(&format!("play(\"{name}\"")), "no test plays the runbook {name}");
    }
}

#[test]
fn runbook_rotate_kek_of_the_broker() {
    let mut stage = Stage::new();
    stage.play("rotate_broker_key", &[]);
    stage.ok("mvault broker log broker --verify");
    let keys = stage.ok("mvault recipients list bert.mvault --json").json()["recipients"].clone();
    assert_eq!(keys.as_array().unwrap().len(), 2, "{keys}");
}

#[test]
fn runbook_renew_certificate() {
    let mut stage = Stage::new();
    let ends = |stage: &Stage| stage.ok("openssl x509 -in broker/tls/cert.pem -noout -serial").text();
    let before = ends(&stage);
    stage.play("renew_certificate", &[]);
    assert_ne!(ends(&stage), before);
}

#[test]
fn runbook_rotate_kek_in_aws_kms() {
    let Some(server) = Server::moto() else { return println!("skipped: no KMS emulator") };
    let key = || {
        let made: serde_json::Value = serde_json::from_slice(&server.kms("CreateKey", "{}").body).unwrap();
        made["KeyMetadata"]["Arn"].as_str().unwrap().to_owned()
    };
    let (old, new) = (key(), key());
    let mut stage = Stage::without_broker();
    let mut env = server.env();
    env.extend([("OLD".into(), old.clone()), ("NEW".into(), new.clone())]);
    stage.ok_with("mvault keygen --signing -o sign.pem; mvault seal bert -r \"aws-kms:$OLD\" --sign sign.pem", &env);
    stage.play("rotate_kms_key", &env);
    let list = stage.ok("mvault recipients list bert.mvault --json").json();
    assert_eq!(list["recipients"], json!([{ "number": 1, "type": "aws-kms", "tag": new, "who": null }]));
    // The new key alone is enough.
    server.kms("DisableKey", &json!({ "KeyId": old }).to_string());
    stage.ok_with("mvault open bert.mvault -i aws-kms -o opened", &env);
}

#[test]
fn runbook_rotate_kek_of_a_key_file_or_passphrase() {
    let mut stage = Stage::without_broker();
    stage.ok("mvault keygen -o ci.txt > ci.pub; mvault seal bert -R ci.pub -o ci.mvault");
    stage.ok("echo correct horse > old.pass; echo battery staple > new.pass");
    stage.ok("mvault seal bert --passphrase-fd 3 3<old.pass -o archive.mvault");
    stage.play("rotate_key_file", &[]);
    stage.ok("mvault verify ci.mvault -i next.txt && mvault verify archive.mvault --passphrase-fd 3 3<new.pass");
}

const ALICE: &str = "mvault keygen -o alice.txt > alice.pub";

#[test]
fn runbook_revoke_recipient_of_one_artifact() {
    let mut stage = Stage::new();
    stage.ok(&format!("{ALICE}; mvault recipients add bert.mvault -R alice.pub"));
    stage.play("revoke_recipient", &[]);
    stage.ok("mvault verify bert.mvault");
    // What the runbook says that it does not do.
    stage.ok("mvault verify before.mvault -i alice.txt");
}

#[test]
fn runbook_revoke_recipient_of_all_versions_in_a_vault() {
    let Some(server) = Server::shared() else { return println!("skipped: no S3 server") };
    server.create_bucket("runbooks");
    let mut stage = Stage::without_broker();
    let mut env = server.env();
    env.push(("VAULT".into(), "s3://runbooks/team".into()));
    stage.ok_with(&format!("{ALICE}; mvault keygen --public home/.config/mvault/identity.txt > me.pub"), &env);
    for who in ["-R me.pub -R alice.pub", "-R me.pub", "-R me.pub -R alice.pub"] {
        stage.ok_with(&format!("mvault push bert \"$VAULT\" bert {who}"), &env);
    }
    stage.ok_with("mvault verify \"$VAULT/bert:3\" -i alice.txt", &env);
    stage.play("revoke_recipient_vault", &env);
    for version in 1..=3 {
        let verify = format!("mvault verify \"$VAULT/bert:{version}\"");
        stage.ok_with(&verify, &env);
        stage.sh(&format!("{verify} -i alice.txt"), &env).fails(3, "[F-18]");
    }
}

#[test]
fn runbook_revoke_recipient_of_all_versions_in_a_folder() {
    let stage = Stage::without_broker();
    let env = [("VAULT".to_owned(), "vault".to_owned())];
    stage.ok_with(&format!("{ALICE}; mvault keygen --public home/.config/mvault/identity.txt > me.pub"), &env);
    for who in ["-R me.pub -R alice.pub", "-R me.pub", "-R me.pub -R alice.pub"] {
        stage.ok_with(&format!("mvault push bert \"$VAULT\" bert {who}"), &env);
    }
    // The loop of the runbook, whose output is that of a vault in S3.
    let said = stage
        .sh("for v in 1 2 3; do mvault recipients remove \"$VAULT/bert:$v\" -R alice.pub || true; done", &env)
        .ok();
    assert_eq!(said.text(), "vault/bert:1: 1 recipient removed, 1 now\nvault/bert:3: 1 recipient removed, 1 now\n");
    for version in 1..=3 {
        stage.sh(&format!("mvault verify \"$VAULT/bert:{version}\" -i alice.txt"), &env).fails(3, "[F-18]");
        stage.ok_with(&format!("mvault verify \"$VAULT/bert:{version}\""), &env);
    }
}

#[test]
fn runbook_revoke_recipient_by_a_new_artifact() {
    let mut stage = Stage::new();
    stage.play("revoke_artifact", &[]);
    let ids =
        ["bert", "bert-2"].map(|name| stage.ok(&format!("mvault inspect {name}.mvault --json")).json()["id"].clone());
    assert_ne!(ids[0], ids[1]);
    stage.ok("mvault verify bert-2.mvault --signer sign.pem.pub");
}

#[test]
fn runbook_roll_image() {
    let mut stage = Stage::new();
    stage.next_image();
    stage.play("roll_image", &[]);
    // Its undo.
    stage.ok("cp prod.before broker/policies/prod.toml");
    stage.reload();
    assert_eq!(stage.ask("bert.mvault", "image").0, 0);
    assert_eq!(stage.ask("bert.mvault", "next").0, 4);
}

/// A broker that decided once before its backup and twice after it is gone, with its disk.
fn lost() -> Stage {
    let mut stage = Stage::new();
    assert_eq!(stage.ask("bert.mvault", "image").0, 0);
    stage.play("back_up_broker", &[]);
    for _ in 0..2 {
        assert_eq!(stage.ask("bert.mvault", "image").0, 0);
    }
    stage.ok("mvault broker log --client broker/client.toml --checkpoint seen");
    stage.lose_broker();
    stage
}

#[test]
fn runbook_recover_broker() {
    let mut stage = lost();
    stage.play("recover_broker", &[]);
    stage.ok("mvault broker log broker --verify --checkpoint seen");
    stage.sh("mvault broker log broker --verify --checkpoint seen.before-the-loss", &[]).fails(3, "L-5");
}

#[test]
fn runbook_recover_broker_without_its_database() {
    let mut stage = lost();
    stage.ok("rm backup/state.db");
    stage.play("recover_broker_without_database", &[]);
    // A log that grew past the old one is still not the old one's.
    for _ in 0..3 {
        assert_eq!(stage.ask("bert.mvault", "image").0, 0);
    }
    stage.ok("mvault broker log broker --verify --checkpoint seen");
    stage.sh("mvault broker log broker --verify --checkpoint seen.before-the-loss", &[]).fails(3, "L-5");
}

#[test]
fn runbook_read_release_log() {
    let mut stage = Stage::new();
    stage.next_image();
    stage.ok("for n in 1 2 3; do mvault push bert vault bert -R operators.pub -r \"$(mvault broker recipient broker prod)\"; done");
    stage.ok("for n in 1 2 3; do mvault pull vault bert:$n --sealed -o v$n.mvault; done");
    // A refusal before the time that is looked at, two grants and a refusal in it, then another image's grant.
    assert_eq!(stage.ask("v3.mvault", "next").0, 4);
    let from = pause();
    assert_eq!(stage.ask("v1.mvault", "image").0, 0);
    assert_eq!(stage.ask("v2.mvault", "image").0, 0);
    assert_eq!(stage.ask("v2.mvault", "next").0, 4);
    let to = pause();
    stage.ok("mvault broker log broker --verify --checkpoint seen");
    stage.build("next");
    stage.ok("mvault policy add-release broker/policies/prod.toml --from next.json --release 1.5.0");
    stage.reload();
    assert_eq!(stage.ask("v3.mvault", "next").0, 0);
    stage.play("read_release_log", &[("FROM".into(), from), ("TO".into(), to)]);
    let of = |stage: &Stage, args: &str| {
        stage.ok(&format!("mvault broker log broker {args} --json")).json()["entries"].clone()
    };
    let count = |stage: &Stage, args: &str| of(stage, args).as_array().unwrap().len();
    assert_eq!(count(&stage, "--outcome refused"), 2);
    assert_eq!(count(&stage, "--until 1"), 1);
    assert_eq!(count(&stage, "--since 1 --until 4 --outcome granted"), 2);
    let id = stage.ok("mvault inspect v2.mvault --json").json()["id"].as_str().unwrap().to_uppercase();
    assert_eq!(count(&stage, &format!("--artifact {id}")), 2);
    stage.sh("mvault broker log broker --verify --outcome granted", &[]).fails(2, "cannot be used with");
}

/// The time of a second that begins after all that was done before.
fn pause() -> String {
    let next = mvault_tests::asker::now_s() + 1;
    while mvault_tests::asker::now_s() < next {
        sleep(Duration::from_millis(20));
    }
    rfc3339(next)
}

#[test]
fn runbook_react_to_a_refused_release() {
    let mut stage = Stage::new();
    stage.next_image();
    stage.build("next");
    stage.play("refused_release", &[]);
    stage.ok("mvault broker log broker --verify");
}
