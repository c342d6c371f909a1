//! A workshop beside a vault in S3: a real server, and a proxy between it and `mvault` that counts and does harm.

use crate::common::{Done, Workshop};
use mvault_tests::proxy::{Exchange, Fault, Proxy, Rule};
use mvault_tests::server::{Server, env_of};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any test.
pub const FOR_EVER: Fault = Fault::Delay(Duration::from_hours(1));
/// Bytes of a part.
pub const PART: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_mins(1);

pub struct Bench<'s> {
    pub shop: Workshop,
    pub server: &'s Server,
    pub proxy: Proxy,
    pub bucket: &'static str,
    pub env: Vec<(String, String)>,
}

impl Bench<'static> {
    /// With a bucket and a key of its own, on the server that the tests share.
    pub fn new(bucket: &'static str) -> Option<Self> {
        Server::shared().map(|server| Bench::on(server, bucket))
    }
}

impl<'s> Bench<'s> {
    pub fn on(server: &'s Server, bucket: &'static str) -> Self {
        server.create_bucket(bucket);
        let proxy = Proxy::start(server.address());
        let env = env_of(server.keys(), &proxy.endpoint());
        let bench = Self { shop: Workshop::new(), server, proxy, bucket, env };
        bench.run("keygen").ok();
        bench
    }

    /// A command with this bench's environment.
    pub fn command(&self, args: &str) -> Command {
        let mut command = self.shop.command(env!("CARGO_BIN_EXE_mvault"));
        command.args(args.replace("VAULT", &self.uri()).split_whitespace());
        command.envs(self.env.iter().map(|(k, v)| (k, v))).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `mvault`; VAULT in the arguments is the vault.
    pub fn run(&self, args: &str) -> Done {
        self.start(args).wait()
    }

    pub fn start(&self, args: &str) -> Running {
        Running(self.command(args).spawn().unwrap())
    }

    pub fn uri(&self) -> String {
        format!("s3://{}/team", self.bucket)
    }

    /// The path of an object, for [`Server::curl`].
    pub fn path(&self, key: &str) -> String {
        format!("/{}/team/{key}", self.bucket)
    }

    /// Keys of the vault's objects.
    pub fn objects(&self) -> Vec<String> {
        let keys = self.server.list(self.bucket, "team/");
        keys.iter().map(|key| key["team/".len()..].to_owned()).collect()
    }

    /// Uploads that were begun and not ended.
    pub fn uploads(&self) -> Vec<String> {
        let listed = self.server.curl("GET", &format!("/{}?uploads", self.bucket), &[], b"");
        assert_eq!(listed.status, 200, "{listed:?}");
        listed.all("UploadId")
    }

    /// Records of interrupted pushes.
    pub fn records(&self) -> usize {
        self.record_paths().len()
    }

    fn record_paths(&self) -> Vec<PathBuf> {
        let items = std::fs::read_dir(self.shop.path("home/.local/state/mvault/pushes"));
        items.into_iter().flatten().map(|item| item.unwrap().path()).collect()
    }

    /// Waits until a push has noted that the server took so many parts: some time after the proxy has seen the answers.
    #[track_caller]
    pub fn until_noted(&self, parts: u64) {
        let began = Instant::now();
        let noted = || {
            let texts = self.record_paths().into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
            texts.map(|text| text.matches("{\"done\":").count() as u64).max().unwrap_or(0)
        };
        while noted() < parts {
            assert!(began.elapsed() < PATIENCE, "{} parts noted, not {parts}", noted());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Bytes that do not compress, as a file; the same for the same `seed`.
    pub fn noise(&self, name: &str, seed: u64, len: usize) -> Vec<u8> {
        let bytes = mvault_tests::noise(seed, len);
        self.shop.write(name, &bytes);
        bytes
    }

    /// Waits until the proxy's log is so.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&[Exchange]) -> bool) {
        let began = Instant::now();
        while !is_so(&self.proxy.log()) {
            assert!(began.elapsed() < PATIENCE, "never {what}: {}", summary(&self.proxy.log()));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Exactly one version of `name` is there, whole, and nothing of any try: no record, no upload, no other payload.
    #[track_caller]
    pub fn holds_only(&self, name: &str, id: &str) {
        let objects: Vec<_> = self.objects().into_iter().filter(|o| o.starts_with(&format!("{name}/"))).collect();
        assert_eq!(objects, [format!("{name}/1"), format!("{name}/payloads/{id}")]);
        assert_eq!((self.uploads(), self.records()), (vec![], 0));
    }
}

/// A command that runs.
pub struct Running(Child);

impl Running {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn wait(self) -> Done {
        let done: Done = self.0.wait_with_output().unwrap().into();
        let said = done.text() + &done.stderr;
        assert!(!said.contains("mvault-test-admin-secret"), "a secret in {said}");
        done
    }

    /// As the system does when memory runs out, or a power cut.
    #[track_caller]
    pub fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "it has ended: {}", self.wait().stderr);
        self.0.kill().unwrap();
        self.wait();
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }

    pub fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

/// The number of the part that a request is about.
pub fn part_number(target: &str) -> Option<u32> {
    let query = target.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).and_then(|n| n.parse().ok())
}

/// Harm to parts from `first` on.
pub fn parts_from(first: u32, fault: Fault) -> Rule {
    Rule::when(fault, move |r| r.method == "PUT" && part_number(&r.target).is_some_and(|n| n >= first))
}

/// Harm to the request that publishes `NAME:1`.
pub fn header_put(fault: Fault) -> Rule {
    Rule::when(fault, |r| r.operation() == "PutObject" && r.target.split('?').next().unwrap().ends_with("/1"))
}

/// How many parts the server has taken.
pub fn parts_through(log: &[Exchange]) -> usize {
    log.iter().filter(|e| e.operation == "UploadPart" && e.status == Some(200) && e.complete).count()
}

pub fn asked(log: &[Exchange], operation: &str) -> usize {
    log.iter().filter(|e| e.operation == operation).count()
}

/// FORMAT.md section 12: under one payload key, no two different bodies for one place.
#[track_caller]
pub fn one_body_for_each_part(log: &[Exchange]) {
    let mut seen: HashMap<(&str, Option<u32>), Vec<&Exchange>> = HashMap::new();
    for exchange in log.iter().filter(|e| e.method == "PUT" && e.target.contains("/payloads/")) {
        let place = (exchange.target.split('?').next().unwrap(), part_number(&exchange.target));
        for before in seen.entry(place).or_default().iter() {
            assert!(before.body.agrees_with(&exchange.body), "two bodies for {place:?} [F-45]");
        }
        seen.entry(place).or_default().push(exchange);
    }
    assert!(!seen.is_empty());
}

fn summary(log: &[Exchange]) -> String {
    let line = |e: &Exchange| format!("{} {:?} {}", e.operation, e.status, e.request_bytes);
    log.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Past the test harness, which hides what passing tests print.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
