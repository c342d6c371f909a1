//! How each server is started, and how it shows that it is ready.

use super::Server;
use super::process::free_ports;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bucket that [`Server::reader`] may read; not made by itself.
pub const READ_ONLY_BUCKET: &str = "read-only";

/// Made and removed to see whether a server is ready.
const PROBE: &str = "mvault-probe";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Seaweed,
    SeaweedTls,
    Moto,
    MiniStack,
    LocalStack,
}

/// A server that can be started again and again on the same data.
pub struct Spec {
    pub command: Command,
    /// Where clients connect.
    pub port: u16,
    pub ca: Option<PathBuf>,
    /// What it leaves outside of its folder.
    pub litter: Vec<PathBuf>,
}

impl Kind {
    /// The program, or `None` where it may be missing.
    pub fn program(self) -> Option<PathBuf> {
        let (variable, name) = match self {
            Self::Seaweed | Self::SeaweedTls => ("MVAULT_TEST_WEED", ""),
            Self::Moto => ("MVAULT_TEST_SERVERS", "moto_server"),
            Self::MiniStack => ("MVAULT_TEST_SERVERS", "ministack"),
            Self::LocalStack => ("MVAULT_TEST_LOCALSTACK", "python"),
        };
        let program =
            env::var_os(variable).map(|at| if name.is_empty() { at.into() } else { Path::new(&at).join(name) });
        if let Some(program) = program {
            assert!(program.exists(), "{variable}: there is no {}", program.display());
            return Some(program);
        }
        let needed = self != Self::LocalStack && env::var_os("CI").is_some_and(|v| v == "true");
        assert!(!needed, "no {self:?}: set {variable}, as scripts/test.sh does");
        say(&format!("skipped: no {self:?} ({variable} is not set)"));
        None
    }

    pub fn spec(self, program: &Path, folder: &Path) -> Spec {
        match self {
            Self::Seaweed => seaweed(program, folder, false),
            Self::SeaweedTls => seaweed(program, folder, true),
            Self::Moto => moto(program),
            Self::MiniStack => ministack(program, folder),
            Self::LocalStack => localstack(program, folder),
        }
    }

    /// Whether the server does what it is for: a signed write for S3, saying that KMS is there for LocalStack.
    pub fn ready(self, server: &Server) -> bool {
        let ask = |method, path: &str, body: &[u8]| server.try_curl_as(server.keys(), method, path, &[], body);
        if self == Self::LocalStack {
            return ask("GET", "/_localstack/health", b"").is_ok_and(|r| r.text().contains("\"kms\""));
        }
        // The second write of SeaweedFS, in a bucket that is there, can fail while the first was good.
        let object = format!("/{PROBE}/probe");
        let made = ask("PUT", &format!("/{PROBE}"), b"").is_ok_and(|r| r.status == 200 || r.status == 409);
        made && ask("PUT", &object, b"\0probe").is_ok_and(|r| r.status == 200)
            && ask("GET", &object, b"").is_ok_and(|r| r.body == b"\0probe")
            && ask("DELETE", &object, b"").is_ok_and(|r| r.status == 204)
            && ask("DELETE", &format!("/{PROBE}"), b"").is_ok_and(|r| r.status == 204)
    }
}

/// All of SeaweedFS in one process. Every port is named: left out, one is another instance's.
fn seaweed(program: &Path, folder: &Path, tls: bool) -> Spec {
    let [master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc, https] = free_ports();
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    fs::write(folder.join("s3.json"), identities()).unwrap();
    let mut command = Command::new(program);
    command.args(["-logtostderr=true", "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
    // one master need not wait for others; no telemetry; no catalog servers; a volume is made for each bucket and more
    command.args(["-master.peers=none", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
    // AWS makes no bucket by the way, and encrypts at rest when it is asked to
    command.arg("-s3.autoCreateBucket=false").env("WEED_S3_SSE_KEY", "mvault-tests");
    command.args(["-volume.max=1000", "-master.volumeSizeLimitMB=1024", "-volume.preStopSeconds=0"]);
    for (name, port) in [
        ("master.port", master),
        ("master.port.grpc", master_grpc),
        ("volume.port", volume),
        ("volume.port.grpc", volume_grpc),
        ("filer.port", filer),
        ("filer.port.grpc", filer_grpc),
        ("s3.port", s3),
        ("s3.port.grpc", s3_grpc),
    ] {
        command.arg(format!("-{name}={port}"));
    }
    for (name, path) in
        [("dir", "data"), ("s3.config", "s3.json"), ("filer.localSocket", "filer.sock"), ("s3.localSocket", "s3.sock")]
    {
        command.arg(format!("-{name}={}", folder.join(path).display()));
    }
    let ca = tls.then(|| {
        certificates(folder);
        command.arg(format!("-s3.port.https={https}"));
        command.arg(format!("-s3.cert.file={}", folder.join("server.pem").display()));
        command.arg(format!("-s3.key.file={}", folder.join("server.key").display()));
        folder.join("ca.pem")
    });
    let sockets = [("master", master_grpc), ("volume", volume_grpc), ("filer", filer_grpc), ("s3", s3_grpc)];
    let litter = sockets.map(|(what, port)| format!("/tmp/seaweedfs-{what}-grpc-{port}.sock").into()).to_vec();
    Spec { command, port: if tls { https } else { s3 }, ca, litter }
}

fn identities() -> String {
    let read_only = format!(r#""Read:{READ_ONLY_BUCKET}","List:{READ_ONLY_BUCKET}""#);
    let everything = r#""Admin","Read","Write","List","Tagging""#;
    let identity = |name: &str, actions: &str| {
        let access = format!("MVAULTTEST{}", name.to_uppercase());
        let credentials = format!(r#"{{"accessKey":"{access}","secretKey":"mvault-test-{name}-secret"}}"#);
        format!(r#"{{"name":"{name}","credentials":[{credentials}],"actions":[{actions}]}}"#)
    };
    format!(r#"{{"identities":[{},{}]}}"#, identity("admin", everything), identity("reader", &read_only))
}

/// ca.pem, and server.pem with server.key that it vouches for.
fn certificates(folder: &Path) {
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(["req", "-x509", "-nodes", "-days", "30"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        let output = command.args(args).output().expect("openssl");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    };
    let authority = ["-addext", "keyUsage=critical,keyCertSign"];
    openssl(&[&["-subj", "/CN=mvault tests", "-keyout", "ca.key", "-out", "ca.pem"], &authority[..]].concat());
    let names =
        ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=mvault test server"];
    openssl(&[&signed[..], &names, &["-keyout", "server.key", "-out", "server.pem"]].concat());
}

fn moto(program: &Path) -> Spec {
    let [port] = free_ports();
    let mut command = python(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    Spec { command, port, ca: None, litter: Vec::new() }
}

fn ministack(program: &Path, folder: &Path) -> Spec {
    let [port] = free_ports();
    let mut command = python(program);
    command.env("GATEWAY_PORT", port.to_string()).env("BIND_HOST", "127.0.0.1").env("TMPDIR", folder);
    // keeps buckets over a restart, and leaves out what would listen on all addresses
    command.env("S3_PERSIST", "1").env("S3_DATA_DIR", folder.join("data")).env("IOT_MTLS_ENABLED", "0");
    Spec { command, port, ca: None, litter: Vec::new() }
}

fn localstack(program: &Path, folder: &Path) -> Spec {
    let [port] = free_ports();
    let mut command = python(program);
    command.args(["-m", "localstack.runtime.main"]).env("TMPDIR", folder);
    command.env("GATEWAY_LISTEN", format!("127.0.0.1:{port}")).env("LOCALSTACK_VOLUME_DIR", folder.join("data"));
    // no licence, no reports, no certificate from elsewhere, no name server of its own, and the services asked for
    command.envs([
        ("ACTIVATE_PRO", "0"),
        ("DISABLE_EVENTS", "1"),
        ("SKIP_SSL_CERT_DOWNLOAD", "1"),
        ("DNS_ADDRESS", "0"),
    ]);
    command.envs([("SERVICES", "kms,s3,sts"), ("EAGER_SERVICE_LOADING", "0")]);
    Spec { command, port, ca: None, litter: Vec::new() }
}

/// A Python program that takes no advice from the caller's environment on whom to be.
fn python(program: &Path) -> Command {
    let mut command = Command::new(program);
    let aws = env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("AWS_"));
    aws.for_each(|name| {
        command.env_remove(name);
    });
    command.env_remove("PYTHONPATH").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen to be skipped")]
fn say(text: &str) {
    eprintln!("{text}");
}
