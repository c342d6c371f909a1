//! Starting, stopping, reading anew, and what the broker says of itself.

use crate::rig::{Rig, policy_text};
use mvault_tests::asker::Said;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use vault_attest::tlog::LogVerifier;
use vault_core::header::hex;

#[test]
fn hangup_takes_good_rules_and_keeps_the_old_ones_if_not() {
    let rig = Rig::started();
    let header = rig.seal("model", "prod");
    let mut asker = rig.asker();
    let mut ask = |step: Option<&str>| {
        let body = asker.attempt(&header).body();
        match asker.ask(&body) {
            Said::Granted(_) => assert_eq!(step, None),
            other => assert_eq!(Some(other.refused().step.as_str()), step),
        }
    };
    ask(None);
    let good = rig.shop.read("broker/policies/prod.toml");
    let zeros = policy_text("prod", "", "", &[0; 48]); // a policy that a debug enclave could satisfy
    let bad: [(&str, &[u8], &str); 4] = [
        ("broker/policies/prod.toml", zeros.as_bytes(), "P-1"),
        ("broker/policies/more.toml", &good, "has a policy prod already"),
        ("broker/tls/cert.pem", b"nothing", "no certificate"),
        ("broker/broker.toml", b"origin = 5\n", "broker.toml:1"),
    ];
    for (n, (name, bytes, said)) in bad.into_iter().enumerate() {
        let before = rig.shop.exists(name).then(|| rig.shop.read(name));
        rig.shop.write(name, bytes);
        let errors = || rig.log().matches("not read anew").count();
        rig.signal("-HUP");
        while errors() <= n {
            thread::yield_now();
        }
        assert!(rig.log().lines().last().unwrap().contains(said), "{said}: {}", rig.log());
        ask(None);
        match before {
            Some(before) => rig.shop.write(name, &before),
            None => std::fs::remove_file(rig.shop.path(name)).unwrap(),
        }
    }
    rig.policy("second", "", "");
    rig.set("artifacts", &format!("[\"{}\"]", hex(&header[24..56])));
    rig.signal("-HUP");
    rig.wait_for_log("second");
    ask(Some("R-7"));
}

#[test]
fn stop_under_load_answers_what_is_under_way_and_exits_0() {
    let mut rig = Rig::new();
    rig.set("requests_per_second_per_source", "2000");
    rig.start();
    let header = rig.seal("model", "prod");
    let stopping = AtomicBool::new(false);
    let log = LogVerifier::parse(&rig.client("log")).unwrap();
    let ids = thread::scope(|scope| {
        let askers: Vec<_> = (0..3).map(|_| rig.asker()).collect();
        let clients: Vec<_> = askers
            .into_iter()
            .map(|mut asker| {
                let (header, stopping, log) = (&header, &stopping, &log);
                scope.spawn(move || {
                    let mut ids = Vec::new();
                    while let Ok(answer) = asker.wire.post("/v1/challenge", b"") {
                        let challenge: vault_attest::release::Challenge =
                            vault_attest::release::decode(&answer.body, vault_attest::Step::R(20)).unwrap();
                        let keys: Vec<_> = challenge.keys.iter().map(|k| **k).collect();
                        let attempt = mvault_tests::asker::Attempt::new(*challenge.nonce, &keys, header, &asker.chain);
                        let Ok(answer) = asker.wire.post("/v1/release", &attempt.body()) else { break };
                        let grant = Said::of(&answer).granted();
                        attempt.open(&grant, log);
                        ids.push(hex(&*grant.id));
                    }
                    assert!(stopping.load(Relaxed), "cut off before the broker was told to stop");
                    ids
                })
            })
            .collect();
        rig.wait_for_log("\"granted\"");
        stopping.store(true, Relaxed);
        rig.signal("-TERM");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(rig.wait().success());
    assert!(rig.log().contains("\"finished\":true"), "{}", rig.log());
    let logged = rig.shop.mvault("broker log broker --since 0 --json").ok().text();
    assert!(!ids.is_empty() && ids.iter().all(|id| logged.contains(id)));
}

#[test]
fn metrics_and_health_say_how_it_goes() {
    let rig = Rig::started();
    let header = rig.seal("model", "prod");
    let mut asker = rig.asker();
    let body = asker.attempt(&header).body();
    asker.ask(&body).granted();
    assert_eq!(asker.ask(&body).refused().step, "R-11");
    rig.shop.mvault("broker why broker 00112233445566778899aabbccddeeff").fails(1, "no decision");
    assert!(rig.admin("/healthz").contains("200 OK"));
    assert!(rig.admin("/readyz").ends_with("ready\n"));
    let metrics = rig.admin("/metrics");
    for line in [
        "mvault_broker_requests_total{route=\"release\",status=\"200\"} 1",
        "mvault_broker_decisions_total{outcome=\"granted\",step=\"\"} 1",
        "mvault_broker_decisions_total{outcome=\"refused\",step=\"R-11\"} 1",
        "mvault_broker_decision_seconds_count 2",
        "mvault_broker_log_entries 2",
        "mvault_broker_connections 1",
        "mvault_broker_state_errors_total 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    std::fs::remove_file(rig.shop.path("broker/policies/prod.toml")).unwrap();
    rig.signal("-HUP");
    rig.wait_for_log("\"policies\":\"[]\"");
    assert!(rig.admin("/readyz").contains("503") && rig.admin("/readyz").ends_with("no policy is loaded\n"));
}

#[test]
fn no_secret_is_in_logs_database_or_answers() {
    let mut rig = Rig::new();
    rig.shop.write("passphrase", b"correct horse battery staple\n");
    rig.shop.sh("mvault recipients add broker/broker.keys --new-passphrase-fd 3 3<passphrase").ok();
    let mut command = rig.shop.command("bash");
    command
        .args(["-c", "exec mvault broker serve broker --dangerous-dev-root root.pem --passphrase-fd 3 3<passphrase"]);
    rig.start_as(command);
    let header = rig.seal("model", "prod");
    let mut asker = rig.asker();
    let attempt = asker.attempt(&header);
    let grant = asker.ask(&attempt.body()).granted();
    let dek = attempt.open(&grant, &LogVerifier::parse(&rig.client("log")).unwrap());
    asker.ask(b"correct horse").refused();
    assert!(rig.log().contains("WARN") || rig.log().contains("warning: --dangerous-dev-root"), "{}", rig.log());
    rig.stop();
    let keyring = rig.keyring();
    let mut secrets =
        vec![dek, b"correct horse".to_vec(), keyring.log_seed().expose().to_vec(), attempt.nonce.to_vec()];
    secrets.push(keyring.keys()[0].key.seed().expose().to_vec());
    secrets.push(keyring.ca().expose()[36..68].to_vec()); // the scalar in the PKCS#8
    let nonce = secrets.remove(3);
    let text = rig.log() + &rig.shop.mvault("broker log broker --since 0 --json").ok().text();
    let state =
        [rig.shop.read("broker/state.db"), rig.shop.read("broker/broker.toml"), text.clone().into_bytes()].concat();
    for secret in &secrets {
        let forms = [secret.clone(), hex(secret).into_bytes(), base64(secret)];
        assert!(forms.iter().all(|form| !state.windows(form.len()).any(|w| w == &form[..])), "a secret is told");
    }
    assert!(!rig.log().contains(&hex(&nonce)));
    let evidence = attempt.evidence.sign(&attempt.chain);
    assert!(!state.windows(32).any(|w| w == &evidence[evidence.len() / 2..][..32]), "evidence is not kept");
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    let pem = mvault_tests::evidence::der::to_pem(bytes);
    pem.lines().filter(|line| !line.starts_with('-')).collect::<String>().trim_end_matches('=').as_bytes().to_vec()
}

#[test]
fn bad_configurations_and_keys_are_named() {
    let rig = Rig::new();
    let serve = || rig.shop.mvault("broker serve broker --dangerous-dev-root root.pem");
    let good = String::from_utf8(rig.shop.read("broker/broker.toml")).unwrap();
    let write = |text: &str| rig.shop.write("broker/broker.toml", text.as_bytes());
    for (from, to, words) in [
        ("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:9443\"", "for a loopback address only"),
        ("# connections = 1024", "conections = 7", "unknown field `conections`"),
        ("# connections = 1024", "connections = 0", "nobody could ask"),
        ("# sqlite = \"state.db\"", "sqlite = \"no/such/folder/state.db\"", "the broker's database"),
    ] {
        write(&good.replace(from, to));
        serve().fails(1, words);
    }
    write(&good);
    rig.shop.mvault("keygen -o other.txt").ok();
    rig.shop.mvault("broker serve broker -i other.txt").fails(3, "[F-18]");
    rig.shop.mvault("broker init broker --host localhost").fails(1, "already exists");
    let zeros = policy_text("prod", "", "", &[0; 48]);
    rig.shop.write("broker/policies/prod.toml", zeros.as_bytes());
    serve().fails(1, "P-1");
    std::fs::remove_file(rig.shop.path("broker/tls/key.pem")).unwrap();
    rig.policy("prod", "", "");
    serve().fails(1, "tls/key.pem");
}

#[test]
fn a_folder_that_cannot_be_made_leaves_nothing() {
    let rig = Rig::new();
    let before = rig.shop.names();
    rig.shop.mvault("broker init new --host localhost --admin 0.0.0.0:1").fails(2, "plain HTTP");
    rig.shop.mvault("broker init new --host not_a_host! --origin a+b").fails(2, "origin");
    rig.shop.mvault("broker init no/such/folder --host localhost").fails(1, "no/such");
    assert_eq!(rig.shop.names(), before);
}
