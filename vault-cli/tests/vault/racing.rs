//! Two publishers of one version: one wins with all of its model, the other is told who was first.

use crate::bench::{Bench, Running, asked, header_put};
use mvault_tests::proxy::{Fault, Rule};
use std::time::Duration;

const LEN: usize = 20_000_000;

struct Race<'s> {
    bench: Bench<'s>,
    sources: [Vec<u8>; 2],
}

impl Race<'static> {
    fn new(bucket: &'static str) -> Option<Self> {
        let bench = Bench::new(bucket)?;
        let sources = [0, 1].map(|n| bench.noise(&format!("{n}.bin"), 20 + n, LEN));
        Some(Self { bench, sources })
    }

    fn push(&self, n: usize, what: &str) -> Running {
        self.bench.start(&format!("push {n}.bin VAULT {what} --publisher someone-{n} --json"))
    }

    /// One of `running` won `name:1`: the other was told by whom, and nothing of it is left.
    #[track_caller]
    fn one_wins(&self, name: &str, running: [Running; 2]) -> usize {
        let [a, b] = running.map(Running::wait);
        assert!((a.code == 0) != (b.code == 0), "{} {}\n{} {}", a.code, a.stderr, b.code, b.stderr);
        let winner = usize::from(a.code != 0);
        let (won, lost) = if winner == 0 { (a, b) } else { (b, a) };
        assert_eq!(lost.code, 5);
        let who = format!("version 1 was published by someone-{winner} at 20");
        for words in [&who, "push without --model-version", &format!("{}/{name}/1", self.bench.uri())] {
            assert!(lost.stderr.contains(words), "expected {words:?} in: {}", lost.stderr);
        }
        self.bench.holds_only(name, won.json()["id"].as_str().unwrap());
        self.is(&format!("{name}:1"), winner);
        winner
    }

    #[track_caller]
    fn is(&self, reference: &str, n: usize) {
        let out = reference.replace(':', "-");
        self.bench.run(&format!("pull VAULT {reference} -o {out}.{n}")).ok();
        let pulled = self.bench.shop.read(&format!("{out}.{n}/{n}.bin"));
        assert!(pulled == self.sources[n], "{reference} is not all of the winner's");
    }
}

#[test]
fn two_publishers_of_one_version_both_succeed_or_mix() {
    let Some(race) = Race::new("racing") else { return };
    // As it comes.
    for round in 0..3 {
        let name = format!("m{round}");
        let running = [0, 1].map(|n| race.push(n, &format!("{name}:1")));
        race.one_wins(&name, running);
    }
    // The first is held before it publishes; the second comes and goes.
    race.bench.proxy.clear_log();
    let held = race.bench.proxy.add(header_put(Fault::Delay(Duration::from_secs(4))).times(1));
    let first = race.push(0, "held:1");
    race.bench.until("held at its header", |log| asked(log, "PutObject") == 1);
    let second = race.push(1, "held:1");
    assert_eq!(race.one_wins("held", [first, second]), 1);
    assert_eq!(held.count(), 1);
    // The winner's answer is lost while the second waits.
    race.bench.proxy.add(header_put(Fault::DropAnswer).times(1));
    let running = [0, 1].map(|n| race.push(n, "lost:1"));
    race.one_wins("lost", running);
}

#[test]
fn version_that_is_there_sent_first() {
    let Some(race) = Race::new("late") else { return };
    race.push(0, "m:1").wait().ok();
    race.bench.proxy.clear_log();
    let late = race.push(1, "m:1").wait().fails(5, "was published by someone-0");
    assert_eq!(late.json()["exit"], 5);
    assert_eq!(asked(&race.bench.proxy.log(), "CreateMultipartUpload"), 0);
    race.is("m:1", 0);
}

#[test]
fn publishers_without_a_version_lose_a_model() {
    let Some(race) = Race::new("unversioned") else { return };
    race.bench.proxy.add(Rule::new("UploadPart", "", Fault::Delay(Duration::from_secs(1)))); // both choose before
    let [a, b] = [0, 1].map(|n| race.push(n, "m")).map(Running::wait);
    let versions = race.bench.run("ls VAULT m --json").ok().json()["count"].as_u64().unwrap();
    let good = [&a, &b].iter().filter(|d| d.code == 0).count() as u64;
    assert!(good >= 1 && versions == good, "{good} succeeded, {versions} are there");
    for (n, done) in [a, b].into_iter().enumerate() {
        if done.code == 0 {
            let version = done.json()["model_version"].as_u64().unwrap();
            race.is(&format!("m:{version}"), n);
        } else {
            let done = done.fails(5, "version 1 was published by");
            assert!(done.stderr.contains("hint: "), "{}", done.stderr);
        }
    }
    assert!(race.bench.uploads().is_empty() && race.bench.records() == 0);
}
