//! `mvault broker revoke`: what is revoked is refused, and nothing else of broker.toml changes.

use crate::rig::Rig;
use mvault_tests::asker::Said;
use std::process::Stdio;
use std::thread;
use vault_broker::config::Config;

const FILE: &str = "broker/broker.toml";

fn text(rig: &Rig) -> String {
    String::from_utf8(rig.shop.read(FILE)).unwrap()
}

/// SIGHUP, then the step that refuses this artifact.
fn step(rig: &Rig, header: &[u8]) -> Option<String> {
    let count = || rig.log().matches("certificate read anew").count();
    let before = count();
    rig.signal("-HUP");
    while count() == before {
        assert!(!rig.log().contains("not read anew"), "{}", rig.log());
        thread::yield_now();
    }
    let mut asker = rig.asker();
    let body = asker.attempt(header).body();
    match asker.ask(&body) {
        Said::Granted(_) => None,
        other => Some(other.refused().step),
    }
}

#[test]
fn a_revoked_artifact_gets_its_key_or_an_other_does_not() {
    let rig = Rig::started();
    let (header, other) = (rig.seal("model", "prod"), rig.seal("other", "prod"));
    let before = text(&rig);
    let said = rig.shop.mvault("broker revoke broker --artifact model.mvault --json").ok().json();
    let id = rig.shop.mvault("inspect model.mvault --json").ok().json()["id"].as_str().unwrap().to_owned();
    assert_eq!(said, serde_json::json!({ "ok": true, "artifacts": [id], "recipients": [] }));
    assert_eq!(step(&rig, &header).as_deref(), Some("R-7"));
    assert_eq!(step(&rig, &other), None);
    let line = format!("artifacts = [\"{id}\"]\n");
    assert_eq!(text(&rig).replace(&line, ""), before, "other bytes of the file");
    // Twice is once; more is added; each comes out by itself.
    let once = text(&rig);
    rig.shop.mvault(&format!("broker revoke broker --artifact {}", id.to_uppercase())).ok();
    assert_eq!(text(&rig), once);
    rig.shop.mvault("broker revoke broker --artifact other.mvault").ok();
    assert_eq!(step(&rig, &other).as_deref(), Some("R-7"));
    rig.shop.mvault(&format!("broker revoke broker --artifact {id} --undo")).ok();
    assert_eq!((step(&rig, &header), step(&rig, &other).as_deref()), (None, Some("R-7")));
    rig.shop.mvault(&format!("broker revoke broker --artifact {id} --undo")).fails(2, "is not in [revoked]");
    rig.shop.mvault("broker revoke broker --artifact other.mvault --undo").ok();
    // In a vault that is a folder, too.
    rig.shop.mvault("push bert vault bert").ok();
    for what in ["--artifact vault/bert:1", "--artifact vault/bert --undo"] {
        let said = rig.shop.mvault(&format!("broker revoke broker {what} --json")).ok().json();
        assert_eq!(said["artifacts"].as_array().unwrap().len(), usize::from(!what.contains("undo")));
    }
    assert_eq!((step(&rig, &other), text(&rig).replace("artifacts = []\n", "")), (None, before));
}

#[test]
fn a_rotated_key_is_not_revoked_or_the_new_one_is() {
    let mut rig = Rig::new();
    let old = rig.line("prod");
    let before = rig.seal("before", "prod");
    rig.shop.mvault("broker rotate broker").ok();
    rig.start();
    let after = rig.seal("after", "prod");
    let done = rig.shop.mvault(&format!("broker revoke broker --recipient {old}")).ok();
    assert!(!done.stderr.contains("newest"), "{}", done.stderr);
    assert_eq!((step(&rig, &before).as_deref(), step(&rig, &after)), (Some("R-7"), None));
    let ids: Vec<_> = rig.keyring().keys().iter().map(|aged| vault_core::header::hex(aged.key.id())).collect();
    assert!(text(&rig).contains(&format!("\nrecipients = [\"{}\"]\n", ids[1])));
    let done = rig.shop.mvault(&format!("broker revoke broker --recipient {}", ids[0])).ok();
    assert!(done.stderr.contains("the broker's newest key is revoked"), "{}", done.stderr);
    assert_eq!(step(&rig, &after).as_deref(), Some("R-7"));
    rig.shop.mvault(&format!("broker revoke broker --recipient {} --undo", ids[0])).ok();
    assert_eq!(step(&rig, &after), None);
}

#[test]
fn what_is_no_id_of_this_broker_is_written() {
    let rig = Rig::new();
    let before = text(&rig);
    let refused = |args: &str, code: i32, words: &str| {
        rig.shop.mvault(&format!("broker revoke broker {args}")).fails(code, words);
        assert_eq!(text(&rig), before, "{args}");
    };
    let key = vault_core::header::hex(rig.keyring().keys()[0].key.id());
    let good = "ab".repeat(32);
    refused("", 2, "--artifact");
    refused("--artifact 12", 2, "neither an id of 64 hex digits nor a file");
    refused(&format!("--artifact {}", &good[1..]), 2, "neither an id");
    refused("--artifact bert/config.json", 3, "[F-1]");
    refused("--artifact no/such.mvault", 1, "no/such.mvault");
    refused("--recipient 12", 2, &format!("its keys, newest first: {key}"));
    refused(&format!("--recipient {good}"), 2, &format!("its keys, newest first: {key}"));
    refused(&format!("--artifact {good} --recipient {good}"), 2, "not a key of this broker");
    refused(&format!("--artifact {good} --undo"), 2, "is not in [revoked]");
    rig.shop.mvault("keygen -o other.txt").ok();
    let stranger = rig.shop.mvault("keygen --public other.txt").ok().text();
    refused(&format!("--recipient {}", stranger.trim()), 2, "neither a key's id");
    // A file that is wrong, or laid out as nobody expects, stays as it is.
    for (from, to, words) in [
        ("[revoked]", "[revokedd]", "unknown field"),
        ("[revoked] # these get no key any more", "[ revoked ]", "nothing was changed"),
    ] {
        rig.shop.write(FILE, before.replace(from, to).as_bytes());
        rig.shop.mvault(&format!("broker revoke broker --artifact {good}")).fails(1, words);
        assert_eq!(text(&rig), before.replace(from, to));
    }
}

#[test]
fn of_revocations_at_once_one_is_lost() {
    let rig = Rig::new();
    std::fs::set_permissions(rig.shop.path(FILE), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let ids: Vec<_> = (0..8_u8).map(|n| vault_core::header::hex(&[n; 32])).collect();
    let all: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut command = rig.shop.command(env!("CARGO_BIN_EXE_mvault"));
            command.args(["broker", "revoke", "broker", "--artifact", id]).stdout(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    assert!(all.into_iter().all(|mut child| child.wait().unwrap().success()));
    let mut found = Config::read(&rig.shop.path("broker")).unwrap().revoked.artifacts;
    found.sort();
    assert_eq!(found, ids);
    let mode = std::os::unix::fs::PermissionsExt::mode(&rig.shop.path(FILE).metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
}
