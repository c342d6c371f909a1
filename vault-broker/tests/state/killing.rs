//! A process that decides is killed at random moments: what it said is in the log, and no nonce is granted twice.

use super::{Place, decide, grant, signer};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use vault_attest::Step;
use vault_attest::tlog::{LogEntry, Outcome};
use vault_broker::config::Quotas;
use vault_broker::state::{State, Writer};

const CHILD: &str = "MVAULT_TEST_STATE_CHILD";
const ROUNDS: u32 = 50;

#[test]
fn killed_at_50_random_moments() {
    let place = Place::sqlite();
    drop(place.open());
    let mut said = HashSet::new();
    for round in 0..ROUNDS {
        // Nonces begin where the killed one was: the last of them are tried again.
        let from = said.iter().map(|(_, nonce)| *nonce).max().unwrap_or(0);
        let new = run_and_kill(&place.path(), round, from);
        assert!(!new.is_empty(), "round {round}: killed before anything was decided");
        let state = place.open();
        for (id, nonce) in new {
            let row = state.entry(&super::id(id)).unwrap();
            let row = row.unwrap_or_else(|| panic!("round {round}: decision {id} was told and is not in the log"));
            let entry = LogEntry::parse(&row.entry).unwrap();
            assert_eq!((entry.outcome, entry.binding), (Outcome::Granted, Some(nonce.to_string())));
            assert!(said.insert((id, nonce)));
        }
        let again = decide(&state, grant(u32::MAX - round, from));
        assert!(round == 0 || again.refused == Some(Step::R(11)), "round {round}: nonce {from} twice");
    }
    let state = place.open();
    let report = state.verify(signer().verifier(), None).unwrap();
    assert!(report.granted >= said.len() as u64);
    nonces_granted_once(&state, report.entries);
}

fn nonces_granted_once(state: &State, entries: u64) {
    let mut nonces = HashSet::new();
    for from in (0..entries).step_by(100) {
        for row in state.entries(from, 100).unwrap() {
            let entry = LogEntry::parse(&row.entry).unwrap();
            if entry.outcome == Outcome::Granted {
                assert!(nonces.insert(entry.binding.clone()), "nonce {:?} granted twice", entry.binding);
            }
        }
    }
}

/// What the child told before it was killed: decisions granted, and their nonces.
fn run_and_kill(path: &Path, round: u32, from: u32) -> Vec<(u32, u32)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killing::child", "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env(CHILD, format!("{}\n{round}\n{from}", path.display()));
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let parse = |line: &str| {
        let (id, nonce) = line.strip_prefix("granted ")?.split_once(' ')?;
        Some((id.parse().ok()?, nonce.strip_suffix('.')?.parse().ok()?))
    };
    let first = lines.find_map(|line| parse(&line));
    let random = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    std::thread::sleep(Duration::from_micros(u64::from(random / 1000 % 20_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    // What stood in the pipe was told; a line without its end was not.
    first.into_iter().chain(lines.filter_map(|line| parse(&line))).collect()
}

/// The process that is killed; nothing when it is run as a test.
#[test]
fn child() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let [path, round, from] = text.split('\n').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let (round, from): (u32, u32) = (round.parse().unwrap(), from.parse().unwrap());
    let state = Arc::new(State::sqlite(Path::new(path)).unwrap());
    let writer = Writer::start(state, signer(), Quotas::default()).unwrap();
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let (id, nonce) = (round * 100_000 + n, from + n / 2); // each nonce twice
                    if writer.decide(grant(id, nonce)).unwrap().refused.is_none() {
                        let line = format!("granted {id} {nonce}.\n");
                        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
}
