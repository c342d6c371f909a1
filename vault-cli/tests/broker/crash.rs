//! kill -9 at random moments under load: what a client saw granted is in the log, no nonce is taken twice, the log verifies.

use crate::cases::system_rng;
use crate::rig::Rig;
use mvault_tests::asker::{Asker, Attempt, Said};
use rand_core::Rng;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use vault_attest::Step;
use vault_attest::release::{Challenge, decode};
use vault_core::header::hex;

/// How often the broker is killed.
const KILLS: usize = 50;

/// What one client saw granted: decisions and request bodies.
type Seen = Vec<(String, Vec<u8>)>;

/// Asks until the connection breaks. The request in flight then may have been granted unseen.
fn ask_until_cut(asker: &mut Asker, header: &[u8], count: &AtomicU32) -> (Seen, Option<Vec<u8>>) {
    let mut seen = Seen::new();
    loop {
        let Ok(answer) = asker.wire.post("/v1/challenge", b"") else { return (seen, None) };
        let challenge: Challenge = decode(&answer.body, Step::R(20)).unwrap();
        let keys: Vec<_> = challenge.keys.iter().map(|key| **key).collect();
        let body = Attempt::new(*challenge.nonce, &keys, header, &asker.chain).body();
        match asker.wire.post("/v1/release", &body) {
            Ok(answer) => {
                seen.push((hex(&*Said::of(&answer).granted().id), body));
                count.fetch_add(1, Relaxed);
            }
            Err(_) => return (seen, Some(body)),
        }
    }
}

#[test]
fn kill_9_under_load_loses_no_release_and_takes_no_nonce_twice() {
    let mut rig = Rig::new();
    for (key, value) in [
        ("requests_per_second_per_source", "100000"),
        ("requests_per_second", "100000"),
        ("per_measurement", "0"),
        ("per_source", "0"),
    ] {
        rig.set(key, value);
    }
    let header = rig.seal("model", "prod");
    let mut granted = BTreeSet::new();
    let (mut replayed, mut unseen) = (0, 0);
    let mut pending: Vec<Vec<u8>> = Vec::new();
    let mut last: Vec<Vec<u8>> = Vec::new();
    for _ in 0..KILLS {
        rig.start();
        let mut asker = rig.asker();
        for body in last.drain(..) {
            assert_eq!(asker.ask(&body).refused().step, "R-11", "a nonce was taken twice");
            replayed += 1;
        }
        for body in pending.drain(..) {
            // Granted or not before the kill: now it is decided, and after that never again.
            if let Said::Granted(grant) = asker.ask(&body) {
                assert!(granted.insert(hex(&*grant.id)));
                unseen += 1;
            }
            assert_eq!(asker.ask(&body).refused().step, "R-11");
        }
        let askers = [rig.asker(), rig.asker()];
        // After one to six answers, however slow the disk is, and then at any moment.
        let (count, enough) = (AtomicU32::new(0), 1 + system_rng().next_u32() % 6);
        let delay = Duration::from_micros(u64::from(system_rng().next_u32() % 30_000));
        let results = thread::scope(|scope| {
            let clients = askers.map(|mut asker| {
                scope.spawn({
                    let (header, count) = (&header, &count);
                    move || ask_until_cut(&mut asker, header, count)
                })
            });
            while count.load(Relaxed) < enough {
                thread::yield_now();
            }
            thread::sleep(delay);
            rig.kill();
            clients.map(|client| client.join().unwrap())
        });
        for (seen, in_flight) in results {
            for (id, body) in seen {
                assert!(granted.insert(id), "one decision twice");
                last.push(body);
            }
            pending.extend(in_flight);
        }
    }
    let log = rig.shop.mvault("broker log broker --since 0 --json").ok().json();
    let entries = log["entries"].as_array().unwrap();
    let of = |outcome: &str| -> BTreeSet<String> {
        let found = entries.iter().filter(|e| e["entry"]["outcome"] == outcome);
        found.map(|e| e["entry"]["id"].as_str().unwrap().to_owned()).collect()
    };
    let logged = of("granted");
    assert!(granted.is_subset(&logged), "a release that was seen is not in the log");
    assert!(replayed >= KILLS - 1, "{replayed} replays, {} grants: no load", logged.len());
    rig.shop.mvault("broker log broker --verify").ok();
    println!(
        "{KILLS} kills, {} grants logged, {} seen, {replayed} replayed, {unseen} retried",
        logged.len(),
        granted.len()
    );
}
