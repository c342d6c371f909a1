//! What is said when a store does not do as it should: who, where, what the server said, and the next step; soon, with
//! exit code 5, and with nothing left behind.

use crate::bench::Bench;
use crate::common::Done;
use mvault_tests::canned::Canned;
use mvault_tests::proxy::{Fault, Rule};
use mvault_tests::server::{Keys, READ_ONLY_BUCKET, Server, env_of};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Each begins with another operation of S3.
const COMMANDS: [(&str, &str); 6] = [
    ("push bert VAULT m", "ListObjectsV2"),
    ("push bert VAULT m:1", "GetObject"),
    ("pull VAULT m:1 -o out", "GetObject"),
    ("pull VAULT m --sealed", "ListObjectsV2"),
    ("cat VAULT/m:1 config.json", "GetObject"),
    ("gc VAULT", "ListObjectsV2"),
];

/// Fails with 5 and soon, names the object, the operation and each of `words`, and leaves nothing.
#[track_caller]
fn refused(bench: &Bench<'_>, args: &str, operation: &str, words: &[&str]) -> Done {
    let (before, began) = (bench.shop.names(), Instant::now());
    let done = bench.run(args);
    assert!(began.elapsed() < Duration::from_secs(12), "{args}: {:?}", began.elapsed());
    assert_eq!(done.code, 5, "{args}: {}{}", done.text(), done.stderr);
    let hint = "mvault: hint: ";
    for word in words.iter().chain([&bench.uri().as_str(), &operation, &hint]) {
        assert!(done.stderr.contains(word), "{args}: expected {word:?} in: {}", done.stderr);
    }
    assert_eq!((bench.shop.names(), bench.records()), (before, 0), "{args}");
    done
}

#[track_caller]
fn all_refused(bench: &Bench<'_>, words: &[&str]) {
    for (args, operation) in COMMANDS {
        refused(bench, args, operation, words);
    }
}

/// A bench whose server is a canned one, or none.
fn facing(endpoint: &str) -> Option<Bench<'static>> {
    let mut bench = Bench::new("errors")?;
    bench.env = env_of(&Keys::new("MVAULTTESTADMIN", "mvault-test-admin-secret"), endpoint);
    Some(bench)
}

fn set(bench: &mut Bench<'_>, name: &str, value: &str) {
    bench.env.retain(|(n, _)| n != name);
    bench.env.push((name.into(), value.into()));
}

#[test]
fn missing_bucket_not_named() {
    let Some(mut bench) = Bench::new("errors") else { return };
    bench.bucket = "mvault-no-such-bucket";
    all_refused(&bench, &["HTTP 404", "mvault does not create buckets"]);
}

#[test]
fn wrong_region_not_named() {
    let malformed = "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'";
    for (status, code, said, header) in [
        (400, "AuthorizationHeaderMalformed", malformed, None),
        (400, "AuthorizationHeaderMalformed", "malformed", Some("eu-west-1")),
        (301, "PermanentRedirect", "use another endpoint", Some("eu-west-1")),
    ] {
        let canned = Canned::s3(status, code, said, header);
        let Some(bench) = facing(&canned.endpoint()) else { return };
        all_refused(&bench, &[&format!("HTTP {status}"), "canned-1", "AWS_REGION=eu-west-1"]);
    }
}

#[test]
fn wrong_clock_not_named() {
    let said = "The difference between the request time and the current time is too large.";
    let canned = Canned::s3(403, "RequestTimeTooSkewed", said, None);
    let Some(bench) = facing(&canned.endpoint()) else { return };
    all_refused(&bench, &["RequestTimeTooSkewed", said, "HTTP 403", "canned-1", "clock is off"]);
}

#[test]
fn expired_token_not_named() {
    let canned = Canned::s3(400, "ExpiredToken", "The provided token has expired.", None);
    let Some(bench) = facing(&canned.endpoint()) else { return };
    all_refused(&bench, &["ExpiredToken", "HTTP 400", "canned-1", "aws sso login"]);
}

#[test]
fn missing_permission_not_named() {
    let Some(mut bench) = Bench::new(READ_ONLY_BUCKET) else { return };
    bench.run("push bert VAULT there").ok();
    bench.env = env_of(bench.server.reader(), &bench.proxy.endpoint());
    let before = bench.objects();
    let words = ["AccessDenied", "HTTP 403", "request ", "`mvault iam` prints the policy"];
    let put = [&words[..], &["s3:PutObject"]].concat();
    refused(&bench, "push bert VAULT m", "PutObject", &put);
    bench.noise("big.bin", 1, 20_000_000);
    let done = refused(&bench, "push big.bin VAULT m --json", "", &[]);
    assert_eq!(done.json()["operation"], "CreateMultipartUpload");
    refused(&bench, "rm VAULT there:1 --yes", "DeleteObject", &[&words[..], &["s3:DeleteObject"]].concat());
    refused(&bench, "tag VAULT there prod", "PutObject", &put);
    bench.bucket = "errors-of-others";
    bench.server.create_bucket(bench.bucket);
    refused(&bench, "pull VAULT m:1", "GetObject", &[&words[..], &["s3:GetObject"]].concat());
    refused(&bench, "ls VAULT", "ListObjectsV2", &[&words[..], &["s3:ListBucket"]].concat());
    bench.bucket = READ_ONLY_BUCKET;
    assert_eq!(bench.objects(), before);
}

#[test]
fn wrong_secret_and_unknown_key_not_named() {
    let Some(mut bench) = Bench::new("errors") else { return };
    set(&mut bench, "AWS_SECRET_ACCESS_KEY", "no-such-secret");
    all_refused(&bench, &["SignatureDoesNotMatch", "HTTP 403", "AWS_SECRET_ACCESS_KEY"]);
    set(&mut bench, "AWS_ACCESS_KEY_ID", "NOSUCHKEY");
    all_refused(&bench, &["InvalidAccessKeyId", "HTTP 403", "AWS_ACCESS_KEY_ID"]);
}

#[test]
fn missing_credentials_not_named() {
    let Some(mut bench) = Bench::new("errors") else { return };
    bench.env.retain(|(name, _)| !name.contains("KEY"));
    all_refused(&bench, &["no credentials were found", "AWS_PROFILE"]);
    assert_eq!(bench.proxy.counts().of("GetObject"), 0);
}

#[test]
fn closed_port_waited_for() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(bench) = facing(&format!("http://127.0.0.1:{port}")) else { return };
    refused(&bench, "push bert VAULT m", "ListObjectsV2", &["connection refused", "--endpoint-url"]);
    refused(&bench, "pull VAULT m:1", "GetObject", &["connection refused", "--endpoint-url"]);
}

#[test]
fn unknown_host_not_named() {
    let Some(bench) = facing("https://s3.invalid") else { return };
    refused(&bench, "push bert VAULT m", "ListObjectsV2", &["the host name does not resolve", "endpoint's host name"]);
    refused(&bench, "pull VAULT m:1", "GetObject", &["the host name does not resolve", "endpoint's host name"]);
}

#[test]
fn certificate_of_nobody_believed() {
    let Some(server) = Server::seaweed_tls() else { return };
    let mut bench = Bench::on(&server, "tls");
    bench.env = server.env();
    for (args, operation) in COMMANDS {
        refused(&bench, args, operation, &["certificate", "--ca-bundle"]);
    }
    let ca = server.ca().unwrap().display();
    bench.run(&format!("push bert VAULT m --ca-bundle {ca}")).ok();
    set(&mut bench, "AWS_CA_BUNDLE", &ca.to_string());
    bench.run("pull VAULT m -o out").ok();
    assert_eq!(bench.shop.read("out/config.json"), bench.shop.read("bert/config.json"));
    bench.run("pull VAULT m -o out --ca-bundle bert/config.json").fails(5, "no certificate in PEM in it");
}

#[test]
fn plain_http_sent_to_others() {
    // TEST-NET-1, which nobody has: a connection would take its time.
    let Some(bench) = facing("http://192.0.2.1") else { return };
    for (args, operation) in COMMANDS {
        let began = Instant::now();
        refused(&bench, args, operation, &["plain http to a host that is not this machine", "--dangerous-plain-http"]);
        assert!(began.elapsed() < Duration::from_secs(3), "{args}: {:?}", began.elapsed());
    }
    let args = "ls VAULT --dangerous-plain-http --endpoint-url http://s3.invalid";
    let done = refused(&bench, args, "ListObjectsV2", &["the host name does not resolve"]);
    assert!(done.stderr.contains("mvault: warning: --dangerous-plain-http"), "{}", done.stderr);
}

#[test]
fn server_that_is_no_s3_believed() {
    let canned = Canned::new(|_, _| (200, "<html>It works!</html>".into()));
    let Some(bench) = facing(&canned.endpoint()) else { return };
    refused(&bench, "push bert VAULT m", "ListObjectsV2", &["is the endpoint an S3 server?"]);
    bench.run("pull VAULT m:1").fails(5, "s3://errors/team/m/1");
}

#[test]
fn server_that_fails_for_good_not_named() {
    let Some(bench) = Bench::new("errors") else { return };
    bench.proxy.add(Rule::new("", "", Fault::INTERNAL_ERROR));
    refused(&bench, "pull VAULT m:1", "GetObject", &["InternalError", "HTTP 500", "PROXY", "run the same command"]);
    bench.proxy.clear_rules();
    bench.proxy.add(Rule::new("", "", Fault::SLOW_DOWN));
    refused(&bench, "push bert VAULT m", "ListObjectsV2", &["SlowDown", "HTTP 503", "PROXY", "slow down"]);
}

/// A small file system, while it lasts.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(path: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let options = format!("size={size}");
        let mut mount = std::process::Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", &options, "mvault-test"]).arg(&path).output();
        if done.is_ok_and(|d| d.status.success()) {
            return Some(Self(path));
        }
        crate::bench::say("skipped: a full disk (mounting takes root)");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn full_disk_leaves_plaintext() {
    let Some(bench) = Bench::new("full-disk") else { return };
    let Some(_mount) = Mount::new(bench.shop.path("small"), "40m") else { return };
    let source = bench.noise("big.bin", 2, 60_000_000);
    bench.run("push big.bin VAULT big").ok();
    for sealed in ["-o small --keep-after 0", "-o small/big.mvault --sealed"] {
        let done = bench.run(&format!("pull VAULT big {sealed}"));
        assert!([1, 5].contains(&done.code), "{}: {}", done.code, done.stderr);
        assert!(done.stderr.contains("no space left on device"), "{}", done.stderr);
        assert!(done.stderr.contains("hint: "), "{}", done.stderr);
        for name in std::fs::read_dir(bench.shop.path("small")).unwrap().map(|i| i.unwrap().file_name()) {
            let name = name.into_string().unwrap();
            assert!(name.contains(".mvault-part"), "{sealed}: {name} is left");
            let left = std::fs::read(bench.shop.path("small").join(&name)).unwrap();
            assert!(!left.windows(64).any(|w| w == &source[1000..1064]), "plaintext in {name}");
            std::fs::remove_file(bench.shop.path("small").join(&name)).unwrap();
        }
    }
}
