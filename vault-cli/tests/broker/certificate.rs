//! The broker's certificate: renewed while the broker runs, cut off in between, and warned of. Clients pin the CA and do not change.

use crate::rig::Rig;
use mvault_tests::asker::{Said, now_s};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use vault_broker::tls;

const CERTIFICATE: &str = "broker/tls/cert.pem";
const KEY: &str = "broker/tls/key.pem";
const NEXT: &str = "broker/tls/key.pem.next";
const DAY: u64 = 86_400;

/// A certificate by the broker's CA for so many days from `from_s` on, and its key.
fn made(rig: &Rig, from_s: u64, days: u32) -> (String, String) {
    let hosts = ["localhost".to_owned(), "127.0.0.1".into(), "::1".into()];
    let (chain, key) = tls::make_server(rig.keyring().ca(), "localhost/mvault", &hosts, from_s, days).unwrap();
    (chain, key.to_string())
}

fn put(rig: &Rig, (chain, key): &(String, String)) {
    rig.shop.write(CERTIFICATE, chain.as_bytes());
    rig.shop.write(KEY, key.as_bytes());
}

/// SIGHUP, and whether the broker took what it found.
fn reload(rig: &Rig) -> bool {
    let count = |words: &str| rig.log().matches(words).count();
    let (all, not) = (count("read anew"), count("not read anew"));
    rig.signal("-HUP");
    while count("read anew") == all {
        thread::sleep(Duration::from_millis(2));
    }
    count("not read anew") == not
}

/// A key's release by a client of the CA as `broker init` wrote it.
fn is_released(rig: &Rig, header: &[u8]) -> bool {
    let mut asker = rig.asker();
    if asker.wire.connect().is_err() {
        return false;
    }
    let body = asker.attempt(header).body();
    matches!(asker.ask(&body), Said::Granted(_))
}

fn ends(rig: &Rig) -> u64 {
    let metrics = rig.admin("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix("mvault_broker_certificate_expires_seconds "));
    line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

#[test]
fn an_ended_certificate_cannot_be_renewed_under_a_running_broker_or_changes_images() {
    let mut rig = Rig::new();
    put(&rig, &made(&rig, now_s() - 10 * DAY, 5));
    rig.start();
    rig.wait_for_log("the certificate has ended, no enclave takes it");
    let header = rig.seal("model", "prod");
    assert!(!is_released(&rig, &header), "an ended certificate is taken");
    let pinned = || ["client.toml", "tls/ca.pem", "broker.keys"].map(|file| rig.shop.read(&format!("broker/{file}")));
    let (before, old_end) = (pinned(), ends(&rig));
    assert!(old_end < now_s());
    let done = rig.shop.mvault("broker certificate broker --json").ok().json();
    assert_eq!(done["hosts"], serde_json::json!(["localhost", "127.0.0.1", "::1"]));
    assert!(!is_released(&rig, &header) && ends(&rig) == old_end, "taken before SIGHUP");
    assert!(reload(&rig));
    assert!(is_released(&rig, &header), "{}", rig.log());
    assert_eq!(vault_attest::time::rfc3339(ends(&rig)), done["until"]);
    assert!(ends(&rig) > now_s() + 397 * DAY);
    assert_eq!(pinned(), before);
    assert_eq!(rig.shop.path(KEY).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let names = || rig.shop.path("broker/tls").read_dir().unwrap().count();
    assert!(names() == 3 && !rig.log().contains("ends soon"));
    // Short: the broker warns again, and takes it all the same.
    rig.shop.mvault("broker certificate broker --days 29 --host localhost").ok();
    assert!(reload(&rig) && is_released(&rig, &header));
    rig.wait_for_log("the certificate ends soon");
    assert!(rig.log().contains("\"days\":28"), "{}", rig.log());
    let hosts = rig.shop.mvault("broker certificate broker --json").ok().json()["hosts"].clone();
    assert_eq!(hosts, serde_json::json!(["localhost"]));
    let secret = String::from_utf8(rig.shop.read(KEY)).unwrap();
    assert!(!rig.log().contains(secret.lines().nth(1).unwrap()));
}

#[test]
fn a_certificate_without_its_key_is_taken() {
    let mut rig = Rig::started();
    let header = rig.seal("model", "prod");
    let (new, other) = (made(&rig, now_s(), 30), made(&rig, now_s(), 30));
    let good = [CERTIFICATE, KEY].map(|file| rig.shop.read(file));
    for (what, pair) in
        [("both", (new.0.clone(), other.1.clone())), ("key", (String::from_utf8(good[0].clone()).unwrap(), new.1))]
    {
        put(&rig, &pair);
        assert!(!reload(&rig), "{what}");
        assert!(rig.log().lines().last().unwrap().contains("tls/cert.pem"), "{}", rig.log());
        assert!(is_released(&rig, &header), "{what}: the old pair is gone");
    }
    assert!(rig.stop().success());
    let serve = || rig.shop.mvault("broker serve broker --dangerous-dev-root root.pem");
    serve().fails(1, "tls/cert.pem");
    // A key beside it counts only if it is the certificate's.
    rig.shop.write(NEXT, other.1.as_bytes());
    serve().fails(1, "tls/cert.pem");
}

/// Each state that a renewal can be cut off in: the new key waits; the certificate is new too; done.
#[test]
fn a_renewal_that_is_cut_off_leaves_a_broker_that_does_not_start() {
    for step in 0..3 {
        let mut rig = Rig::new();
        let (chain, key) = made(&rig, now_s(), 100);
        rig.shop.write(if step < 2 { NEXT } else { KEY }, key.as_bytes());
        if step > 0 {
            rig.shop.write(CERTIFICATE, chain.as_bytes());
        }
        rig.start();
        let header = rig.seal("model", "prod");
        assert!(is_released(&rig, &header), "step {step}");
        let days = (ends(&rig) - now_s()).div_ceil(DAY);
        assert_eq!(days, if step == 0 { 398 } else { 100 });
        rig.shop.mvault("broker certificate broker --days 50").ok();
        assert!(!rig.shop.exists(NEXT), "step {step}");
        assert!(reload(&rig) && is_released(&rig, &header), "step {step}");
        assert_eq!((ends(&rig) - now_s()).div_ceil(DAY), 50);
        rig.stop();
        rig.start();
        assert!(is_released(&rig, &header), "step {step}");
    }
}

#[test]
fn a_certificate_that_images_refuse_is_written() {
    let rig = Rig::new();
    let files = || [CERTIFICATE, KEY].map(|file| rig.shop.read(file));
    let before = files();
    rig.shop.mvault("keygen -o other.txt").ok();
    let client = String::from_utf8(rig.shop.read("broker/client.toml")).unwrap();
    let refused = |args: &str, code: i32, words: &str| {
        rig.shop.mvault(&format!("broker certificate broker {args}")).fails(code, words);
    };
    refused("-i other.txt", 3, "[F-18]");
    refused(
        "--host elsewhere.example",
        1,
        "client.toml has the broker at localhost, which this certificate would not be for",
    );
    refused("--host not_a_host!", 1, "");
    refused("--days 0", 2, "--days");
    let toml = String::from_utf8(rig.shop.read("broker/broker.toml")).unwrap();
    rig.shop.write("broker/broker.toml", toml.replace("localhost/mvault", "localhost/other").as_bytes());
    refused("", 1, "its CA is not that of this keyring and of origin");
    rig.shop.write("broker/broker.toml", toml.as_bytes());
    rig.shop.mvault("broker init stranger --host localhost").ok();
    let ca = |text: &str| text.split_once("ca = ").unwrap().1.to_owned();
    let stranger = String::from_utf8(rig.shop.read("stranger/client.toml")).unwrap();
    rig.shop.write("broker/client.toml", client.replace(&ca(&client), &ca(&stranger)).as_bytes());
    refused("", 1, "a client that pins client.toml would refuse this certificate");
    rig.shop.write("broker/client.toml", client.as_bytes());
    std::fs::rename(rig.shop.path(KEY), rig.shop.path("key.pem")).unwrap();
    std::os::unix::fs::symlink(rig.shop.path("key.pem"), rig.shop.path(KEY)).unwrap();
    refused("", 1, "a symbolic link");
    assert_eq!(files(), before);
    assert!(!rig.shop.exists(NEXT));
    std::fs::remove_file(rig.shop.path(KEY)).unwrap();
    std::fs::rename(rig.shop.path("key.pem"), rig.shop.path(KEY)).unwrap();
    std::fs::remove_file(rig.shop.path(CERTIFICATE)).unwrap();
    refused("", 1, "name all hosts with --host");
    rig.shop.mvault("broker certificate broker --host localhost").ok();
}

#[test]
fn a_reload_in_the_middle_of_renewals_sees_a_certificate_without_its_key() {
    let rig = Rig::started();
    let header = rig.seal("model", "prod");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let renewing = [0, 1]
            .map(|_| scope.spawn(|| (0..10).for_each(|_| drop(rig.shop.mvault("broker certificate broker").ok()))));
        scope.spawn(|| {
            while !done.load(Relaxed) {
                assert!(reload(&rig), "{}", rig.log());
            }
        });
        let joined = renewing.map(thread::ScopedJoinHandle::join);
        done.store(true, Relaxed);
        assert!(joined.iter().all(Result::is_ok));
    });
    assert!(rig.log().matches("certificate read anew").count() > 5 && !rig.shop.exists(NEXT));
    assert!(reload(&rig) && is_released(&rig, &header));
}
