//! Publishers at the same time, as it comes: one has the version, with all of its model, and the other is told who was
//! first.

use crate::bench::{Bench, Running, asked, header_put};
use mvault_tests::proxy::{Fault, Rule};
use std::time::Duration;

const LEN: usize = 20_000_000;

struct Race {
    bench: Bench<'static>,
    sources: [Vec<u8>; 2],
}

impl Race {
    fn new(bucket: &'static str) -> Option<Self> {
        let bench = Bench::new(bucket)?;
        let sources = [0, 1].map(|n| bench.noise(&format!("{n}.bin"), 20 + n, LEN));
        Some(Self { bench, sources })
    }

    fn push(&self, n: usize, what: &str) -> Running {
        self.bench.start(&format!("push {n}.bin VAULT {what} --publisher someone-{n} --json"))
    }

    #[track_caller]
    fn is(&self, reference: &str, n: usize) {
        let out = reference.replace(':', "-");
        self.bench.run(&format!("pull VAULT {reference} -o {out}")).ok();
        let pulled = self.bench.shop.read(&format!("{out}/{n}.bin"));
        assert!(pulled == self.sources[n], "{reference} is not all of the winner's");
    }
}

#[test]
fn publishers_of_one_version_both_succeed_or_mix() {
    let Some(race) = Race::new("racing") else { return };
    for round in 0..4 {
        let name = format!("m{round}");
        if round == 3 {
            // Whoever is first does not hear of it, and asks again.
            race.bench.proxy.add(header_put(Fault::DropAnswer).times(1));
        }
        let [a, b] = [0, 1].map(|n| race.push(n, &format!("{name}:1"))).map(Running::wait);
        assert!((a.code == 0) != (b.code == 0), "{} {}\n{} {}", a.code, a.stderr, b.code, b.stderr);
        let winner = usize::from(a.code != 0);
        let (won, lost) = if winner == 0 { (a, b) } else { (b, a) };
        let who = format!("version 1 was published by someone-{winner} at 20");
        let lost = lost.fails(5, &who);
        for words in ["push without --model-version", &format!("{}/{name}/1", race.bench.uri())] {
            assert!(lost.stderr.contains(words), "expected {words:?} in: {}", lost.stderr);
        }
        race.bench.holds_only(&name, won.json()["id"].as_str().unwrap());
        race.is(&format!("{name}:1"), winner);
    }
}

#[test]
fn version_that_is_there_costs_an_upload() {
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
    // Both choose one before the first is there.
    race.bench.proxy.add(Rule::new("UploadPart", "", Fault::Delay(Duration::from_secs(1))));
    let done = [0, 1].map(|n| race.push(n, "m")).map(Running::wait);
    let versions = race.bench.run("ls VAULT m --json").ok().json()["count"].as_u64().unwrap();
    let good = done.iter().filter(|d| d.code == 0).count() as u64;
    assert!(good >= 1 && versions == good, "{good} succeeded, {versions} are there");
    for (n, done) in done.into_iter().enumerate() {
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
