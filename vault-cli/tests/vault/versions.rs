//! Versions, tags and recipients in S3: one publisher wins, what was put in another's place is refused, headers change
//! alone, and cleaning up takes what nobody needs.

use crate::bench::{Bench, FOR_EVER, asked, header_put, parts_from, parts_through};
use mvault_tests::proxy::Fault;
use std::time::Duration;

/// One is held back just before it publishes, until the other has.
#[test]
fn second_publisher_overwrites_or_mixes() {
    let Some(bench) = Bench::new("race") else { return };
    let first = bench.noise("a/w.bin", 1, 5_000_000);
    let second = bench.noise("b/w.bin", 2, 5_000_000);
    for held in [1_u64, 2] {
        let version = held;
        bench.proxy.add(header_put(Fault::Delay(Duration::from_secs(2))).times(1));
        let late = bench.start(&format!("push a VAULT m:{version} --publisher late"));
        std::thread::sleep(Duration::from_millis(if held == 1 { 700 } else { 0 }));
        let early = bench.start(&format!("push b VAULT m:{version} --publisher early"));
        let (late, early) = (late.wait(), early.wait());
        bench.proxy.clear_rules();
        let (winner, loser) = if late.code == 0 { (&first, &early) } else { (&second, &late) };
        assert!((late.code == 0) != (early.code == 0), "{}{}", late.stderr, early.stderr);
        assert_eq!(loser.code, 5);
        let who = if late.code == 0 { "late" } else { "early" };
        let words = format!("version {version} was published by {who} at 20");
        assert!(loser.stderr.contains(&words) && loser.stderr.contains("to take the next one"), "{}", loser.stderr);
        bench.run(&format!("pull VAULT m:{version} -o back{version}")).ok();
        assert!(bench.shop.read(&format!("back{version}/w.bin")) == *winner, "a mix, or the wrong one");
        let payloads = bench.objects().iter().filter(|o| o.contains("payloads")).count() as u64;
        assert_eq!(payloads, version, "the loser's payload stays");
    }
}

#[test]
fn swapped_artifact_or_moved_tag_is_believed() {
    let Some(bench) = Bench::new("swap") else { return };
    bench.noise("m.bin", 3, 100_000);
    bench.noise("n.bin", 4, 100_000);
    for _ in 0..2 {
        bench.run("push m.bin VAULT m --tag prod").ok();
    }
    let other = bench.run("push n.bin VAULT other --json").ok().json();
    // A tag is rolled back by someone who writes to the bucket.
    let header = bench.server.curl("GET", &bench.path("m/1"), &[], b"").body;
    let id = mvault_hex(&header[24..56]);
    let old = format!("mvault-tag-v1 1 {id}\n");
    bench.server.curl("PUT", &bench.path("m/tags/prod"), &[], old.as_bytes());
    bench.run("pull VAULT m@prod -o never --min-version 2").fails(3, "older than the 2 that is demanded");
    bench.run(&format!("pull VAULT m -o never --expect-digest {}", "00".repeat(32))).fails(3, "[F-21]");
    let digest = other["digest"].as_str().unwrap();
    bench.run(&format!("pull VAULT other -o ok --expect-digest {digest}")).ok();
    // Another model, and an older version, in the place of one.
    let id = other["id"].as_str().unwrap();
    let strange = bench.server.curl("GET", &bench.path("other/1"), &[], b"").body;
    let payload = bench.server.curl("GET", &bench.path(&format!("other/payloads/{id}")), &[], b"").body;
    bench.server.curl("PUT", &bench.path(&format!("m/payloads/{id}")), &[], &payload);
    bench.server.curl("PUT", &bench.path("m/3"), &[], &strange);
    bench.run("pull VAULT m:3 -o never").fails(3, "[F-42]");
    bench.run("cat VAULT/m:3 n.bin").fails(3, "[F-42]");
    bench.run("verify VAULT/m:3").fails(3, "[F-42]");
    bench.server.curl("PUT", &bench.path("m/4"), &[], &header);
    bench.run("pull VAULT m:4 -o never").fails(3, "[F-42]");
    // The tag's version was made anew.
    bench.run("rm VAULT m:4 --yes").ok();
    bench.server.curl("DELETE", &bench.path("m/1"), &[], b"");
    bench.run("push m.bin VAULT m:1").ok();
    bench.run("pull VAULT m@prod -o never").fails(5, "[F-43]");
    assert!(!bench.shop.exists("never/m.bin"));
}

fn mvault_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, b| format!("{text}{b:02x}"))
}

#[test]
fn rekeying_sends_the_payload_or_loses_a_change() {
    let Some(bench) = Bench::new("rekey") else { return };
    let source = bench.noise("m.bin", 5, 55_000_000);
    let id = bench.run("push m.bin VAULT m --json").ok().json()["id"].as_str().unwrap().to_owned();
    let payload = || bench.server.curl("HEAD", &bench.path(&format!("m/payloads/{id}")), &[], b"");
    let before = payload();
    bench.run("keygen -o bob.txt").ok();
    let bob = bench.run("keygen --public bob.txt").ok().text();
    bench.proxy.clear_log();
    bench.run(&format!("recipients add VAULT/m:1 -r {}", bob.trim())).ok();
    let counts = bench.proxy.counts();
    assert!(counts.up < 64 << 10, "{} bytes were sent", counts.up);
    assert!(counts.down < 64 << 10, "{} bytes came", counts.down);
    assert_eq!(asked(&bench.proxy.log(), "PutObject"), 1);
    assert_eq!(payload().header("etag"), before.header("etag"));
    bench.run("pull VAULT m -i bob.txt -o back").ok();
    assert!(bench.shop.read("back/m.bin") == source);
    assert_eq!(bench.run("recipients list VAULT/m:1 --json").ok().json()["recipients"].as_array().unwrap().len(), 2);
    // Someone else changes it between our read and our write.
    bench.proxy.add(header_put(Fault::Delay(Duration::from_secs(2))).times(1));
    let slow = bench.start(&format!("recipients remove VAULT/m:1 -r {}", bob.trim()));
    bench.until("reading", |log| asked(log, "GetObject") >= 2);
    std::thread::sleep(Duration::from_millis(500));
    bench.run("keygen -o eve.txt").ok();
    let eve = bench.run("keygen --public eve.txt").ok().text();
    bench.run(&format!("recipients add VAULT/m:1 -r {}", eve.trim())).ok();
    slow.wait().fails(5, "someone else changed its recipients just now");
    assert_eq!(bench.run("recipients list VAULT/m:1 --json").ok().json()["recipients"].as_array().unwrap().len(), 3);
}

#[test]
fn cleaning_takes_what_is_needed() {
    let Some(bench) = Bench::new("garbage") else { return };
    bench.noise("m.bin", 6, 40_000_000);
    bench.run("push m.bin VAULT m --tag prod").ok();
    bench.run("push m.bin VAULT m").ok();
    assert!(bench.run("gc VAULT --older-than 0s").ok().text().contains("nothing to remove"));
    bench.proxy.clear_log();
    bench.proxy.add(parts_from(2, FOR_EVER));
    let push = bench.start("push m.bin VAULT m");
    bench.until("sending", |log| parts_through(log) >= 1);
    push.kill();
    bench.proxy.clear_rules();
    bench.server.curl("DELETE", &bench.path("m/2"), &[], b"");
    assert!(bench.run("gc VAULT").ok().text().contains("nothing to remove"), "young things are no garbage");
    std::thread::sleep(Duration::from_millis(1100)); // the store's clock counts seconds
    let listed = bench.run("gc VAULT --older-than 0s --json").ok().json();
    let what: Vec<_> = listed["garbage"].as_array().unwrap().iter().map(|g| g["what"].as_str().unwrap()).collect();
    assert!(
        what.contains(&"upload") && what.contains(&"record") && what.contains(&"payload") && what.len() == 3,
        "{listed} {:?}",
        bench.uploads()
    );
    bench.run("gc VAULT --older-than 0s --delete").fails(2, "--yes");
    bench.run("gc VAULT --older-than 0s --delete --yes").ok();
    assert!(bench.uploads().is_empty());
    assert_eq!(bench.objects().len(), 3, "{:?}", bench.objects());
    bench.run("pull VAULT m@prod -o back").ok();
    bench.run("rm VAULT m:1 --yes").fails(1, "the tag prod points at it");
    bench.run("rm VAULT m").fails(2, "which version?");
    // The record of the killed push speaks of an upload that is gone: it begins that again.
    bench.run("push m.bin VAULT m").ok();
    assert_eq!(bench.records(), 0);
}

/// Also in parts of which two would be too much already.
#[test]
fn push_takes_more_memory_than_parts_in_flight() {
    let Some(bench) = Bench::new("memory") else { return };
    bench.noise("m.bin", 7, 600_000_000);
    for how in ["", " --part-size 200"] {
        let mut push = bench.start(&format!("push m.bin VAULT m{how}"));
        let mut peak = 0;
        while !push.ended() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", push.id())).unwrap_or_default();
            let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        push.wait().ok();
        assert!(peak > 10_000 && peak < 256 * 1024, "{peak} KiB{how}");
        crate::bench::say(&format!("peak memory of a push of 600 MB{how}: {} MiB", peak / 1024));
    }
}
