//! deploy/ci: the steps of the GitHub action and of the GitLab template, taken out of their files and run in a shell
//! against the server, with what the CI would put in the environment.

use crate::bench::Bench;
use crate::common::Done;
use mvault_tests::server::Server;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

const COMMIT: &str = "0123456789012345678901234567890123456789";

fn ci(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/ci")).join(file)
}

/// The lines of a block in YAML that begins with `head`, without their indentation.
fn block(text: &str, head: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|l| l.trim() != head);
    let indent = lines.next().unwrap_or_else(|| panic!("no {head}")).find(|c| c != ' ').unwrap();
    let inside = lines.take_while(|l| l.trim().is_empty() || l.find(|c| c != ' ').is_some_and(|i| i > indent));
    inside.map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect()
}

/// `NAME: VALUE` lines, their values filled in.
fn variables(lines: &[String], fill: &dyn Fn(&str) -> String) -> Vec<(String, String)> {
    lines.iter().map(|l| l.split_once(": ").map(|(k, v)| (k.to_owned(), fill(v))).unwrap()).collect()
}

fn run(bench: &Bench<'_>, script: &[String], env: &[(String, String)]) -> Done {
    let key = String::from_utf8(bench.shop.read("sign.pem")).unwrap();
    let mut command = bench.shop.command("bash");
    command.args(["-eo", "pipefail", "-c", &script.join("\n")]);
    command.envs(bench.env.iter().map(|(k, v)| (k, v))).envs(env.iter().map(|(k, v)| (k, v)));
    let done: Done = command.env("MVAULT_SIGN_KEY", &key).output().unwrap().into();
    let body = key.lines().nth(1).unwrap();
    assert!(!(done.text() + &done.stderr).contains(body), "the key is in the log");
    done
}

fn bench(bucket: &'static str) -> Option<Bench<'static>> {
    let bench = Bench::new(bucket)?;
    bench.shop.mvault("keygen --signing -o sign.pem").ok();
    Some(bench)
}

/// The step of the action, with inputs and contexts filled in.
fn github(bench: &Bench<'_>, tag: &str) -> Done {
    github_as(bench, tag, "", &[])
}

/// The same as a role in AWS, with more in the environment.
fn github_as(bench: &Bench<'_>, tag: &str, role: &str, more: &[(&str, &str)]) -> Done {
    let text = std::fs::read_to_string(ci("github/action.yml")).unwrap();
    let uri = bench.uri();
    let fill = |value: &str| {
        [
            ("inputs.path", "bert"),
            ("inputs.vault", uri.as_str()),
            ("inputs.name", "bert"),
            ("inputs.tag", tag),
            ("inputs.region || env.AWS_REGION", "us-east-1"),
            ("github.repository", "team/bert"),
            ("github.sha", COMMIT),
            ("github.server_url", "https://github.example"),
            ("github.run_id", "42"),
            ("inputs.sign-key", ""),
            ("inputs.recipients", ""),
            ("inputs.role", role),
        ]
        .iter()
        .fold(value.to_owned(), |v, (name, with)| v.replace(&format!("${{{{ {name} }}}}"), with))
    };
    let mut env = variables(&block(&text, "env:"), &fill);
    assert!(env.iter().all(|(_, v)| !v.contains("${{")), "{env:?}");
    let at = |name: &str| bench.shop.path(name).display().to_string();
    for (name, value) in [
        ("GITHUB_ACTION_PATH", ci("github").display().to_string()),
        ("GITHUB_OUTPUT", at("output")),
        ("GITHUB_STEP_SUMMARY", at("summary.md")),
        ("GITHUB_ACTIONS", "true".into()),
    ] {
        env.push((name.into(), value));
    }
    env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    run(bench, &block(&text, "run: |"), &env)
}

/// GitHub's service that gives a job its token; sends what it was asked.
fn token_service(value: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token?api-version=2.0", listener.local_addr().unwrap());
    let (asked, requests) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = vec![0; 4096];
        let n = stream.read(&mut head).unwrap();
        let body = format!("{{\"count\":1,\"value\":\"{value}\"}}");
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).unwrap();
        asked.send(String::from_utf8_lossy(&head[..n]).into_owned()).unwrap();
    });
    (url, requests)
}

#[test]
fn github_action_publishes_once() {
    let Some(bench) = bench("ci-github") else { return };
    for tag in ["staging", "prod"] {
        let done = github(&bench, tag).ok();
        assert!(
            done.text().contains(&format!("published: bert:1 in {}, tagged {tag}", bench.uri())),
            "{}",
            done.text()
        );
    }
    let output = String::from_utf8(bench.shop.read("output")).unwrap();
    assert!(output.contains("version=1\nid="), "{output}");
    assert!(String::from_utf8(bench.shop.read("summary.md")).unwrap().contains("tagged `prod`"));
    bench.run("pull VAULT bert@prod -o back --signer sign.pem.pub").ok();
    bench.shop.sh("diff -r bert back").ok();
    bench.run("pull VAULT bert --sealed").ok();
    let shown = bench.run("provenance show bert.mvault --json").ok().json();
    assert_eq!(shown["builder"], "https://github.example/team/bert/actions/runs/42");
}

#[test]
fn refused_pickle_is_annotated() {
    let Some(bench) = bench("ci-refused") else { return };
    bench.shop.sh("cp evil.pkl bert/").ok();
    let done = github(&bench, "prod");
    assert!(done.stderr.contains("::error file=bert/evil.pkl,title="), "{}", done.stderr);
    done.fails(1, "dangerous");
    assert_eq!(bench.objects(), Vec::<String>::new());
    let summary: serde_json::Value = serde_json::from_slice(&bench.shop.read("mvault-publish.json")).unwrap();
    assert_eq!((&summary["ok"], &summary["exit"]), (&false.into(), &1.into()));
}

/// moto gives credentials for any token; the exchange is the one that AWS documents. Whether AWS would trust the token is the role's affair.
#[test]
fn role_is_taken_by_the_jobs_token_and_no_key_that_lives_long() {
    let Some(server) = Server::moto() else { return };
    let mut bench = Bench::on(&server, "ci-oidc");
    bench.shop.mvault("keygen --signing -o sign.pem").ok();
    let (admin, rest) = bench.env.clone().into_iter().partition(|(name, _)| name.contains("ACCESS_KEY"));
    bench.env = rest;
    let role = "arn:aws:iam::111122223333:role/publisher";
    github_as(&bench, "prod", "", &[]).fails(5, "credentials");
    github_as(&bench, "prod", role, &[]).fails(1, "id-token: write");
    let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyZXBvOnRlYW0vYmVydCJ9.c2lnbmF0dXJl";
    let (url, asked) = token_service(jwt);
    let of_job =
        [("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "job-bearer-5f3a")];
    let left = || std::fs::read_dir("/dev/shm").unwrap().filter(|f| name_of(f).starts_with("mvault-token.")).count();
    let before = left();
    let done = github_as(&bench, "prod", role, &of_job).ok();
    let asked = asked.recv().unwrap();
    assert!(asked.contains("GET /token?api-version=2.0&audience=sts.amazonaws.com "), "{asked}");
    assert!(asked.contains("Authorization: bearer job-bearer-5f3a"), "{asked}");
    let said = done.text() + &done.stderr;
    assert!(said.contains("published: bert:1") && !said.contains(jwt) && !said.contains("job-bearer"), "{said}");
    assert_eq!(left(), before, "the token stays in memory after the job");
    let exchange = bench.proxy.log().into_iter().find(|e| e.method == "POST" && e.target == "/");
    assert!(exchange.is_some(), "STS was not asked");
    let admin: Vec<(String, String)> = admin;
    bench.env.extend(admin);
    bench.run("pull VAULT bert:1 -o back --signer sign.pem.pub").ok();
}

fn name_of(entry: &std::io::Result<std::fs::DirEntry>) -> String {
    entry.as_ref().map_or_else(|_| String::new(), |entry| entry.file_name().to_string_lossy().into_owned())
}

#[test]
fn gitlab_template_publishes_once() {
    let Some(bench) = bench("ci-gitlab") else { return };
    let text = std::fs::read_to_string(ci("gitlab/publish.yml")).unwrap();
    let given = [
        ("CI_PROJECT_PATH", "team/bert"),
        ("CI_COMMIT_SHA", COMMIT),
        ("MVAULT_NAME", "bert"),
        ("CI_PROJECT_URL", "https://gitlab.example/team/bert"),
        ("CI_JOB_URL", "https://gitlab.example/team/bert/-/jobs/7"),
    ];
    let fill =
        |value: &str| given.iter().fold(value.to_owned(), |v, (name, with)| v.replace(&format!("${name}"), with));
    let mut env = variables(&block(&text, "variables:"), &fill);
    let uri = bench.uri();
    for (name, value) in
        [("MVAULT_MODEL", "bert"), ("MVAULT_VAULT", &uri), ("MVAULT_NAME", "bert"), ("MVAULT_TAG", "prod")]
    {
        env.push((name.into(), value.into()));
    }
    let script: Vec<_> = block(&text, "script:").iter().map(|l| l.trim_start_matches("- ").to_owned()).collect();
    assert_eq!(script, ["deploy/ci/publish.sh"]);
    let script = [ci("publish.sh").display().to_string()];
    for _ in 0..2 {
        run(&bench, &script, &env).ok();
    }
    bench.run("pull VAULT bert:1 -o back --signer sign.pem.pub").ok();
    bench.run("pull VAULT bert:2 -o never").fails(5, "");
    let done =
        run(&bench, &script, &[env, vec![("MVAULT_VAULT".into(), "s3://no-such-bucket-here/x".into())]].concat());
    done.fails(5, "no-such-bucket-here");
}
