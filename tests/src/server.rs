//! Real servers for tests, each a process of its own on free ports of 127.0.0.1, with an empty data folder.
//!
//! SeaweedFS is the one to test against: it checks signatures and checksums, and lets one of many racing conditional
//! writes win. moto, MiniStack and LocalStack are further opinions and bring KMS. `scripts/test.sh` says in
//! `MVAULT_TEST_WEED`, `MVAULT_TEST_SERVERS` and `MVAULT_TEST_LOCALSTACK` where the programs are; a constructor
//! returns `None` where one is missing, and panics instead when `CI=true`.
//! A server and its folder are gone when its `Server` is dropped, and when the test process ends in any other way.

mod kind;
pub mod process;
mod signed;

pub use kind::READ_ONLY_BUCKET;
pub use signed::{Keys, Response, request as signed_request};

use kind::Kind;
use process::{Folder, Process};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a server may take until it answers; LocalStack on a busy machine is the slowest.
const PATIENCE: Duration = Duration::from_secs(90);

/// One running server. Every method takes `&self`: one server can serve all tests of a binary.
pub struct Server {
    kind: Kind,
    keys: Keys,
    reader: Keys,
    ca: Option<PathBuf>,
    port: u16,
    process: Mutex<Process>,
}

impl Server {
    /// SeaweedFS.
    pub fn seaweed() -> Option<Self> {
        Self::start(Kind::Seaweed)
    }

    /// SeaweedFS over TLS, with a certificate for 127.0.0.1 and localhost from the authority in [`Server::ca`].
    pub fn seaweed_tls() -> Option<Self> {
        Self::start(Kind::SeaweedTls)
    }

    /// One SeaweedFS for all tests of this process; use a bucket of your own on it, and never stop it.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(Self::seaweed).as_ref()
    }

    /// moto: S3 and KMS in memory; lets every key in.
    pub fn moto() -> Option<Self> {
        Self::start(Kind::Moto)
    }

    /// MiniStack: S3 and KMS; lets every key in.
    pub fn ministack() -> Option<Self> {
        Self::start(Kind::MiniStack)
    }

    /// LocalStack: KMS whose Decrypt honours `Recipient`. Not everywhere: skipped in CI too where it is missing.
    pub fn localstack() -> Option<Self> {
        Self::start(Kind::LocalStack)
    }

    /// Where clients connect: `http://127.0.0.1:PORT`, or https.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.ca.is_some() { "https" } else { "http" }, self.address())
    }

    /// The same without the scheme, for a [`crate::proxy::Proxy`].
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The certificate authority (PEM) to trust for [`Server::seaweed_tls`].
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Keys that may do everything.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Keys that may read and list [`READ_ONLY_BUCKET`] and nothing else; only SeaweedFS holds them to it.
    pub fn reader(&self) -> &Keys {
        &self.reader
    }

    pub fn access_key(&self) -> &str {
        &self.keys.access
    }

    pub fn secret_key(&self) -> &str {
        &self.keys.secret
    }

    /// What to set for an AWS client that talks to this server, and hears of nothing else on the machine.
    pub fn env(&self) -> Vec<(String, String)> {
        env_of(&self.keys, &self.endpoint())
    }

    /// Ends the server as an operator would; its data stay. Returns when the process is gone.
    pub fn stop(&self) {
        self.process().stop();
    }

    /// Ends the server as a power cut of its machine would, but for what the kernel holds.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts the server again, on its port and with its data; stops it before if it runs.
    pub fn restart(&self) {
        let mut process = self.process();
        process.stop();
        process.start();
        self.wait(&mut process).unwrap_or_else(|why| panic!("{why}"));
    }

    /// The process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().pid()
    }

    /// The end of what the server has said so far.
    pub fn log(&self) -> String {
        self.process().log()
    }

    /// Makes a bucket; it may be there already.
    pub fn create_bucket(&self, name: &str) {
        let made = self.curl("PUT", &format!("/{name}"), &[], b"");
        let there = made.status == 409 && made.text().contains("BucketAlreadyOwnedByYou");
        assert!(made.status == 200 || there, "bucket {name} not made: {made:?}");
    }

    /// Signs and sends one request. `path` is `/bucket/key?name=value&…`, not percent-encoded. Panics when there is
    /// no answer; any status is an answer.
    pub fn curl(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_curl_as(&self.keys, method, path, headers, body).unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    /// [`Server::curl`] as somebody else; `Err` is why there was no answer, in curl's words.
    pub fn try_curl_as(
        &self,
        keys: &Keys,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, String> {
        signed::request(keys, &self.endpoint(), self.ca(), method, path, headers, body)
    }

    /// One call of KMS: `kms("CreateKey", "{}")`.
    pub fn kms(&self, action: &str, json: &str) -> Response {
        let target = format!("TrentService.{action}");
        let headers = [("X-Amz-Target", target.as_str()), ("Content-Type", "application/x-amz-json-1.1")];
        self.curl("POST", "/", &headers, json.as_bytes())
    }

    /// The names of a bucket's objects that begin with `prefix`, in the server's order; at most 1,000.
    pub fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let listed = self.curl("GET", &format!("/{bucket}?list-type=2&prefix={prefix}"), &[], b"");
        assert_eq!(listed.status, 200, "{listed:?}");
        listed.all("Key")
    }

    fn start(kind: Kind) -> Option<Self> {
        let program = kind.program()?;
        let mut failures = String::new();
        // Somebody else can take a free port between choosing and using it.
        for _ in 0..3 {
            let folder = Folder::new();
            let spec = kind.spec(&program, folder.path());
            let process = Process::new(folder, spec.command, spec.litter);
            let keys = Keys::new("MVAULTTESTADMIN", "mvault-test-admin-secret");
            let reader = Keys::new("MVAULTTESTREADER", "mvault-test-reader-secret");
            let server = Self { kind, keys, reader, ca: spec.ca, port: spec.port, process: Mutex::new(process) };
            server.process().start();
            let ready = server.wait(&mut server.process());
            match ready {
                Ok(()) => return Some(server),
                Err(why) => failures += &why,
            }
        }
        panic!("{kind:?} does not start: {failures}");
    }

    /// Returns when the server does what it is for.
    fn wait(&self, process: &mut Process) -> Result<(), String> {
        let began = Instant::now();
        while !self.kind.ready(self) {
            let late = began.elapsed() > PATIENCE;
            if late || process.ended() {
                let what = if late { "is not ready" } else { "has ended" };
                return Err(format!("{:?} {what}; it says:\n{}\n", self.kind, process.log()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Server::env`] for any keys and endpoint: somebody else's keys, or a proxy in front of the server.
pub fn env_of(keys: &Keys, endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ACCESS_KEY_ID", keys.access.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &keys.secret),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
