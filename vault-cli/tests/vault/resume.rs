//! Pushes that are killed, and run again: with the same source they go on, with another they begin anew under another
//! key. FORMAT.md section 12.

use crate::bench::{
    Bench, FOR_EVER, PART, asked, header_put, one_body_for_each_part, part_number, parts_from, parts_through, say,
};
use mvault_tests::proxy::{Exchange, Fault, Rule};
use std::collections::BTreeSet;
use std::time::Duration;

/// A payload of five parts.
const LEN: usize = 80_000_000;

/// When a push is killed.
struct Moment {
    what: &'static str,
    harm: Rule,
    come: fn(&[Exchange]) -> bool,
    /// Parts that need not be sent again, at least and at most.
    reused: [u64; 2],
}

fn moments() -> Vec<Moment> {
    fn header_asked(log: &[Exchange]) -> bool {
        asked(log, "PutObject") > 0
    }
    fn header_there(log: &[Exchange]) -> bool {
        log.iter().any(|e| e.operation == "PutObject" && e.status == Some(200))
    }
    vec![
        Moment {
            what: "no part was through",
            harm: parts_from(1, FOR_EVER),
            come: |log| asked(log, "UploadPart") > 2,
            reused: [0, 0],
        },
        Moment {
            what: "two parts were through",
            harm: parts_from(3, FOR_EVER),
            come: |log| parts_through(log) == 2,
            reused: [2, 2],
        },
        Moment {
            what: "parts broke off",
            harm: parts_from(2, Fault::CutRequest(3 << 20)),
            come: |log| parts_through(log) == 1 && asked(log, "UploadPart") > 6,
            reused: [1, 1],
        },
        Moment {
            what: "the payload was whole, and its header not there",
            harm: header_put(Fault::Reset),
            come: header_asked,
            reused: [5, 5],
        },
        Moment {
            what: "the header was there, and its answer lost",
            harm: header_put(Fault::DropAnswer),
            come: header_there,
            reused: [5, 5],
        },
    ]
}

#[test]
fn killed_push_repeats_or_loses_work() {
    let Some(bench) = Bench::new("killed-push") else { return };
    let (mut kills, mut cut, mut reused) = (0, 0, 0);
    for (n, moment) in moments().into_iter().enumerate() {
        let name = format!("m{n}");
        let source = bench.noise("weights.bin", n as u64, LEN);
        let push = format!("push weights.bin VAULT {name} --json");
        bench.proxy.clear_log();
        bench.proxy.add(moment.harm);
        let running = bench.start(&push);
        bench.until(moment.what, moment.come);
        bench.until_noted(moment.reused[0]);
        running.kill();
        kills += 1;
        let first = bench.proxy.log();
        cut += first.iter().filter(|e| e.operation == "UploadPart" && e.status.is_none()).count();
        bench.proxy.clear_rules();
        bench.proxy.clear_log();

        let json = bench.run(&push).ok().json();
        let (again, up) = (json["parts_reused"].as_u64().unwrap(), bench.proxy.counts().up);
        assert!((moment.reused[0]..=moment.reused[1]).contains(&again), "{}: {again} reused", moment.what);
        let left = json["payload_bytes"].as_u64().unwrap().saturating_sub(again * PART);
        assert!(up < left + PART, "{}: {up} bytes sent, {left} were left", moment.what);
        reused += again;
        one_body_for_each_part(&[first, bench.proxy.log()].concat());

        bench.holds_only(&name, json["id"].as_str().unwrap());
        bench.run(&format!("pull VAULT {name} -o {name}.out")).ok();
        let lost = differing(&source, &bench.shop.read(&format!("{name}.out/weights.bin")));
        assert_eq!(lost, 0, "{}", moment.what);
    }
    say(&format!("pushes killed: {kills} survived; parts cut: {cut}; parts reused: {reused}; bytes lost: 0"));
}

fn differing(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count() + a.len().abs_diff(b.len())
}

/// What happens to the source between two runs.
type Change = (&'static str, fn(&mut Vec<u8>));

const CHANGES: [Change; 4] = [
    ("a byte of the first part", |source| source[5_000] ^= 1),
    ("a byte of a part that had not begun", |source| source[LEN - 1_000] ^= 1),
    ("longer", |source| source.extend([7; 3_000_000])),
    ("shorter", |source| source.truncate(LEN - 20_000_000)),
];

#[test]
fn changed_source_sealed_under_the_old_key() {
    let Some(bench) = Bench::new("changed-source") else { return };
    for (n, (what, change)) in CHANGES.into_iter().enumerate() {
        let name = format!("m{n}");
        let mut source = bench.noise("weights.bin", 50 + n as u64, LEN);
        let push = format!("push weights.bin VAULT {name}");
        bench.proxy.clear_log();
        bench.proxy.add(parts_from(3, Fault::CutRequest(5 << 20)));
        let running = bench.start(&push);
        bench.until("two parts through, three cut", |log| {
            let cut: BTreeSet<_> = log.iter().filter(|e| e.request_bytes == 5 << 20).map(|e| &e.target).collect();
            parts_through(log) == 2 && cut.len() == 3
        });
        bench.until_noted(2);
        running.kill();
        let old = payload_ids(&bench.proxy.log());
        bench.proxy.clear_rules();

        change(&mut source);
        bench.shop.write("weights.bin", &source);
        let done = bench.run(&push).ok();
        assert!(done.stderr.contains("beginning anew, under a new key"), "{what}: {}", done.stderr);
        let json = bench.run(&format!("ls VAULT {name} --json")).ok().json();
        let id = json["versions"][0]["id"].as_str().unwrap();
        assert!(old.len() == 1 && !old.contains(id), "{what}: {old:?}, then {id}");
        one_body_for_each_part(&bench.proxy.log());
        bench.holds_only(&name, id); // so the old id never became an object, and its upload is aborted
        assert!(asked(&bench.proxy.log(), "AbortMultipartUpload") > 0);
        bench.run(&format!("pull VAULT {name} -o {name}.out")).ok();
        assert_eq!(differing(&source, &bench.shop.read(&format!("{name}.out/weights.bin"))), 0, "{what}");
    }
}

/// Artifacts that parts were sent of.
fn payload_ids(log: &[Exchange]) -> BTreeSet<String> {
    let parts = log.iter().filter(|e| part_number(&e.target).is_some());
    parts.map(|e| e.target.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

/// Records of pushes that nobody repeats go when what they left in the vault goes, and not before.
#[test]
fn records_of_given_up_pushes_stay_for_ever() {
    let Some(bench) = Bench::new("given-up") else { return };
    bench.noise("m.bin", 9, LEN);
    bench.proxy.add(parts_from(3, FOR_EVER));
    let push = bench.start("push m.bin VAULT m");
    bench.until("two parts", |log| parts_through(log) == 2);
    assert_eq!(bench.records(), 1);
    let used = bench.run("gc VAULT --older-than 0s --json").ok().json();
    assert!(used["garbage"].as_array().unwrap().iter().all(|g| g["what"] != "record"), "in use: {used}");
    push.kill();
    bench.proxy.clear_rules();
    bench.run("gc VAULT --delete --yes").ok();
    assert_eq!(bench.records(), 1, "young things are no garbage");
    std::thread::sleep(Duration::from_millis(1100)); // the store's clock counts seconds
    let listed = bench.run("gc VAULT --older-than 0s --delete --yes").ok().text();
    assert!(listed.contains("a push of m from this machine") && listed.contains("2 objects removed"), "{listed}");
    assert_eq!((bench.records(), bench.uploads()), (0, vec![]));
    let done = bench.run("push m.bin VAULT m --json").ok().json();
    assert_eq!(done["parts_reused"], 0);
}

/// Parts that are not kept, but sealed again when they are sent: killed in the middle of one, with the source as it was
/// and with another.
#[test]
fn killed_push_of_large_parts_sends_two_bodies() {
    let Some(bench) = Bench::new("large-killed") else { return };
    for (n, changed) in [false, true].into_iter().enumerate() {
        let (name, mut source) = (format!("m{n}"), bench.noise("weights.bin", 70 + n as u64, 180_000_000));
        let push = format!("push weights.bin VAULT {name} --part-size 50 --json");
        bench.proxy.clear_log();
        bench.proxy.add(parts_from(2, Fault::CutRequest(20 << 20)));
        let running = bench.start(&push);
        bench.until("one part through, three cut", |log| {
            let cut: BTreeSet<_> = log.iter().filter(|e| e.request_bytes == 20 << 20).map(|e| &e.target).collect();
            parts_through(log) == 1 && cut.len() == 3
        });
        bench.until_noted(1);
        running.kill();
        bench.proxy.clear_rules();
        if changed {
            source[170_000_000] ^= 1;
            bench.shop.write("weights.bin", &source);
        }
        let old = payload_ids(&bench.proxy.log());
        let done = bench.run(&push).ok().json();
        assert_eq!(old.contains(done["id"].as_str().unwrap()), !changed);
        assert_eq!(done["parts_reused"], u64::from(!changed));
        one_body_for_each_part(&bench.proxy.log());
        bench.holds_only(&name, done["id"].as_str().unwrap());
        bench.run(&format!("pull VAULT {name} -o {name}.out")).ok();
        assert_eq!(differing(&source, &bench.shop.read(&format!("{name}.out/weights.bin"))), 0);
    }
    say("large parts: kills survived: 2; bytes lost: 0");
}

/// A large part is read again when it is sent: a file that somebody writes to meanwhile is not sent under the same key.
#[test]
fn source_written_to_while_it_is_sent_is_published() {
    let Some(bench) = Bench::new("written-to") else { return };
    let mut source = bench.noise("weights.bin", 80, 120_000_000);
    bench.proxy.throttle(Some(10_000_000));
    let push = bench.start("push weights.bin VAULT m --part-size 50");
    bench.until("three parts on their way", |log| asked(log, "UploadPart") == 3);
    source[100_000_000] ^= 1;
    bench.shop.write("weights.bin", &source);
    push.wait().fails(1, "weights.bin: changed while it was being sealed");
    assert_eq!((bench.objects(), bench.uploads(), bench.records()), (vec![], vec![], 0));
    one_body_for_each_part(&bench.proxy.log());
}
