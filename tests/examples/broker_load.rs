//! Load on a real `mvault broker serve`: releases a second and latency over TLS with forged valid evidence, and the broker's
//! memory after a tenth of them and after all. `broker_load MVAULT [RELEASES [CONNECTIONS]...]`; everything happens in a temporary folder.
//!
//! The floor is one verification of a document (its chain's P-384 signatures). Clients run on the same cores, where they sign
//! evidence and make keys, so the broker's own processor time a release stands beside the rate: the ratio is floor / that.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a report is all this program makes
#![allow(clippy::cast_precision_loss)] // counts become rates; nobody reads the 53rd bit

use mvault_tests::asker::wire::Wire;
use mvault_tests::asker::{Asker, Attempt, Said, now_s};
use mvault_tests::evidence::{Evidence, TestRoot};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use vault_attest::nitro::{Mode, verify};
use vault_attest::release::Challenge;
use vault_core::header::{Header, hex};

/// Releases of one step, unless there is another number.
const RELEASES: usize = 2000;

struct Broker {
    child: Child,
    folder: tempfile::TempDir,
    wire: Wire,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mvault = args.next().expect("broker_load MVAULT [RELEASES [CONNECTIONS]...]");
    let releases = args.next().map_or(RELEASES, |n| n.parse().unwrap());
    let root = TestRoot::new();
    let broker = start(&fs::canonicalize(mvault).unwrap(), &root);
    let file = fs::read(broker.folder.path().join("model.mvault")).unwrap();
    let header = Header::read(&mut &file[..]).unwrap().unpadded().to_vec();
    let floor = floor(&root);
    println!("floor: {:.2} ms of P-384 verifications a document on one core", floor * 1e3);
    println!(
        "client: {:.2} ms of key, evidence and signature a request, on the same cores\n",
        work(&root, &header) * 1e3
    );
    println!("connections  releases/s  p50 ms  p99 ms  broker CPU ms  floor / CPU  broker MiB early, late");
    let asked: Vec<usize> = args.map(|n| n.parse().unwrap()).collect();
    for connections in if asked.is_empty() { vec![1, 16, 128] } else { asked } {
        let worked = cpu_ms(broker.child.id());
        let (seconds, mut times, early) = run(&broker, &root, &header, connections, releases);
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let rate = times.len() as f64 / seconds;
        let cpu = (cpu_ms(broker.child.id()) - worked) / times.len() as f64;
        println!(
            "{connections:>11}  {rate:>10.0}  {:>6.1}  {:>6.1}  {cpu:>13.2}  {:>11.2}  {early:>16}, {:>4}",
            at(50),
            at(99),
            floor * 1e3 / cpu,
            resident_mib(broker.child.id())
        );
    }
}

fn start(mvault: &Path, root: &TestRoot) -> Broker {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_owned();
    let run = |line: &str| {
        let mut command = Command::new(mvault);
        let command = command.args(line.split(' ')).current_dir(&at).env("HOME", &at).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "{line}");
    };
    run("keygen");
    run("broker init broker --host localhost --listen 127.0.0.1:0 --admin 127.0.0.1:0");
    let mut policy = String::from(
        "version = 1\nname = \"prod\"\nplatform = \"aws-nitro\"\nmax_age_s = 300\n[[release]]\nname = \"1\"\n",
    );
    for index in 0..3 {
        writeln!(policy, "pcr{index} = \"{}\"", hex(&Evidence::pcr(index))).unwrap();
    }
    fs::write(at.join("broker/policies/prod.toml"), policy).unwrap();
    let config = fs::read_to_string(at.join("broker/broker.toml")).unwrap();
    let free = [
        ("requests_per_second", "1000000"),
        ("requests_per_second_per_source", "1000000"),
        ("per_measurement", "0"),
        ("per_source", "0"),
        ("connection_life_s", "3600"),
    ];
    let config: String = config
        .lines()
        .map(|line| {
            let changed = free.iter().find(|(key, _)| line.starts_with(&format!("# {key} = ")));
            changed.map_or_else(|| format!("{line}\n"), |(key, value)| format!("{key} = {value}\n"))
        })
        .collect();
    fs::write(at.join("broker/broker.toml"), config).unwrap();
    fs::write(at.join("root.pem"), root.pem()).unwrap();
    fs::write(at.join("model"), [0xF7; 1000]).unwrap();
    let client = fs::read_to_string(at.join("broker/client.toml")).unwrap();
    let line = client.lines().find_map(|line| line.strip_prefix("recipient = \"")?.strip_suffix('"')).unwrap();
    fs::write(at.join("line.txt"), format!("{line}/prod\n")).unwrap();
    run("seal model -o model.mvault -R line.txt");
    let log = fs::File::create(at.join("log")).unwrap();
    let mut command = Command::new(mvault);
    command.args(["broker", "serve", "broker", "--dangerous-dev-root", "root.pem"]).current_dir(&at).env("HOME", &at);
    let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let address = loop {
        let said = fs::read_to_string(at.join("log")).unwrap();
        if let Some((address, _)) = said.split_once("https://").and_then(|(_, rest)| rest.split_once(',')) {
            break address.parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let wire = Wire::new(address, &fs::read_to_string(at.join("broker/tls/ca.pem")).unwrap());
    Broker { child, folder, wire }
}

/// Seconds that one verification takes here and now.
fn floor(root: &TestRoot) -> f64 {
    let document = Evidence::at(now_s()).with_nonce(&[1; 32]).with_user_data(&[2; 32]).sign(&root.chain(now_s()));
    let (roots, began, n) = (root.roots(), Instant::now(), 200);
    for _ in 0..n {
        verify(&document, &roots, Mode::Live { now_s: now_s() }).unwrap();
    }
    began.elapsed().as_secs_f64() / f64::from(n)
}

/// Seconds that a client spends on one request.
fn work(root: &TestRoot, header: &[u8]) -> f64 {
    let (chain, began, n) = (Arc::new(root.chain(now_s())), Instant::now(), 200);
    for _ in 0..n {
        Attempt::new([1; 32], &[], header, &chain).body();
    }
    began.elapsed().as_secs_f64() / f64::from(n)
}

/// All releases over so many connections; the time of each is that of challenge and release, without the client's work.
fn run(
    broker: &Broker,
    root: &TestRoot,
    header: &[u8],
    connections: usize,
    releases: usize,
) -> (f64, Vec<Duration>, u64) {
    let next = AtomicUsize::new(0);
    let askers: Vec<_> = (0..connections)
        .map(|_| Asker::new(broker.wire.another(), TestRoot::from_pem(&root.pem(), &root.key_pem())))
        .collect();
    let began = Instant::now();
    let times = std::thread::scope(|scope| {
        let clients: Vec<_> = askers
            .into_iter()
            .map(|mut asker| {
                scope.spawn({
                    let next = &next;
                    move || client(&mut asker, header, next, releases)
                })
            })
            .collect();
        while next.load(Relaxed) < releases / 10 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let early = resident_mib(broker.child.id());
        (clients.into_iter().flat_map(|client| client.join().unwrap()).collect(), early)
    });
    (began.elapsed().as_secs_f64(), times.0, times.1)
}

fn client(asker: &mut Asker, header: &[u8], next: &AtomicUsize, releases: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    while next.fetch_add(1, Relaxed) < releases {
        let began = Instant::now();
        let Challenge { nonce, keys, .. } = asker.challenge();
        let challenged = began.elapsed();
        let keys: Vec<_> = keys.iter().map(|key| **key).collect();
        let body = Attempt::new(*nonce, &keys, header, &asker.chain).body();
        let began = Instant::now();
        match asker.ask(&body) {
            Said::Granted(_) => times.push(challenged + began.elapsed()),
            other => drop(other.granted()),
        }
    }
    times
}

/// Milliseconds of processor time that a process has had, of all its threads (proc(5): fields 14 and 15, in 1/100 s).
fn cpu_ms(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() * 10.0).sum()
}

fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
