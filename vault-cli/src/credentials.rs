//! Credentials that lie in a model's folder: by the names of files, and by the shape of what is in text files, notebooks
//! and their outputs among them. Says what and where; what was found is never shown, nor kept. Files with a zero byte in
//! their first 8 KiB are not text: only their names are looked at, so weights are not read a second time.

use crate::error::{CliError, io};
use crate::sources::Model;
use memchr::memmem::Finder;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes looked at to tell whether a file is text.
const HEAD: usize = 8 * 1024;
/// Bytes read at a time.
const BLOCK: usize = 1 << 20;
/// Bytes of a block that the next one sees again: longer than any prefix and its least continuation.
const OVERLAP: usize = 1024;
/// Findings told of one file; more would help nobody.
const MOST: usize = 20;

/// A credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The file, as it would be in the artifact.
    pub path: String,
    /// Its line, from 1; `None` where the name tells.
    pub line: Option<u64>,
    /// What it looks like.
    pub what: &'static str,
}

/// All that is found in `model`, by path and line.
pub fn find(model: &Model) -> Result<Vec<Credential>, CliError> {
    let shapes = Shape::all();
    let mut found = Vec::new();
    for (path, file) in model.files() {
        if let Some(what) = by_name(path) {
            found.push(Credential { path: path.into(), line: None, what });
        }
        if file.metadata().is_ok_and(|m| m.is_file()) {
            let lines = in_file(file, &shapes).map_err(io(path))?;
            found.extend(lines.into_iter().map(|(line, what)| Credential {
                path: path.into(),
                line: Some(line),
                what,
            }));
        }
    }
    found.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(found)
}

/// Files that are there to hold credentials.
fn by_name(path: &str) -> Option<&'static str> {
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or_default();
    let sample = [".example", ".sample", ".template", ".dist"].iter().any(|end| name.ends_with(end));
    let in_folder = |folder: &str| lower.starts_with(folder) || lower.contains(&format!("/{folder}"));
    match name {
        ".env" | ".envrc" => Some("a file of environment variables"),
        _ if name.starts_with(".env.") && !sample => Some("a file of environment variables"),
        ".netrc" | "_netrc" | ".git-credentials" | ".pypirc" | ".npmrc" | ".pgpass" => Some("a file of passwords"),
        "id_rsa" | "id_dsa" | "id_ecdsa" | "id_ed25519" => Some("an SSH private key"),
        "credentials" | "config" if in_folder(".aws/") => Some("AWS credentials"),
        "config" if in_folder(".kube/") => Some("a Kubernetes configuration"),
        "config.json" if in_folder(".docker/") => Some("registry credentials"),
        "kaggle.json" => Some("a Kaggle token"),
        _ if in_folder(".ssh/") => Some("a file of SSH's folder"),
        _ => None,
    }
}

/// Lines of a text file, and what is there.
fn in_file(file: &File, shapes: &[Shape]) -> std::io::Result<Vec<(u64, &'static str)>> {
    let (mut found, mut buffer) = (Vec::new(), vec![0; BLOCK + OVERLAP]);
    let (mut kept, mut offset, mut line) = (0, 0, 1);
    loop {
        let room = buffer.get_mut(kept..).unwrap_or_default();
        let read = read_full(file, room, offset)?;
        let block = buffer.get(..kept + read).unwrap_or_default();
        if offset == 0 && block.get(..HEAD.min(block.len())).is_some_and(|head| head.contains(&0)) {
            return Ok(found);
        }
        let last = read < BLOCK;
        let end = if last { block.len() } else { block.len() - OVERLAP };
        // A match that begins in the overlap is seen again, whole, in the next block.
        let mut hits: Vec<_> = shapes.iter().flat_map(|s| s.hits(block).into_iter().map(|at| (at, s.what))).collect();
        hits.retain(|(at, _)| *at < end);
        hits.sort_unstable();
        let mut from = 0;
        for (at, what) in hits {
            line += newlines(block.get(from..at).unwrap_or_default());
            from = at;
            if found.last() != Some(&(line, what)) && found.len() < MOST {
                found.push((line, what));
            }
        }
        line += newlines(block.get(from..end).unwrap_or_default());
        if last || found.len() >= MOST {
            return Ok(found);
        }
        offset += read as u64;
        kept = OVERLAP;
        buffer.copy_within(end..end + OVERLAP, 0);
    }
}

/// At most a block of the bytes at `offset`; fewer only at the end.
fn read_full(file: &File, room: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let room = &mut room[..BLOCK];
    let mut done = 0;
    while done < room.len() {
        match file.read_at(&mut room[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

fn newlines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// How a kind of credential begins, and how it goes on.
struct Shape {
    what: &'static str,
    start: Finder<'static>,
    goes_on: fn(&[u8]) -> bool,
}

impl Shape {
    fn all() -> Vec<Self> {
        let shape = |what, start: &'static str, goes_on| Self { what, start: Finder::new(start), goes_on };
        vec![
            shape("a private key", "-----BEGIN ", |rest| {
                memchr::memmem::find(&rest[..rest.len().min(40)], b"PRIVATE KEY").is_some()
            }),
            shape("a PuTTY private key", "PuTTY-User-Key-File-", |_| true),
            shape("an age identity", "AGE-SECRET-KEY-1", |rest| run(rest, is_word) >= 40),
            shape("an mvault key", "MVAULT-SECRET-XW1-", |rest| run(rest, is_word) >= 40),
            shape("an AWS access key id", "AKIA", |rest| run(rest, is_upper) == 16),
            shape("a temporary AWS access key id", "ASIA", |rest| run(rest, is_upper) == 16),
            shape("an AWS secret access key", "aws_secret_access_key", assigned),
            shape("an AWS secret access key", "AWS_SECRET_ACCESS_KEY", assigned),
            shape("a GitHub token", "ghp_", |rest| run(rest, is_word) >= 36),
            shape("a GitHub token", "gho_", |rest| run(rest, is_word) >= 36),
            shape("a GitHub token", "ghs_", |rest| run(rest, is_word) >= 36),
            shape("a GitHub token", "ghu_", |rest| run(rest, is_word) >= 36),
            shape("a GitHub token", "github_pat_", |rest| run(rest, is_word) >= 22),
            shape("a GitLab token", "glpat-", |rest| run(rest, is_token) >= 20),
            shape("a Hugging Face token", "hf_", |rest| run(rest, |b| b.is_ascii_alphabetic()) >= 30),
            shape("an Anthropic API key", "sk-ant-", |rest| run(rest, is_token) >= 20),
            shape("an OpenAI API key", "sk-proj-", |rest| run(rest, is_token) >= 20),
            shape("an API key", "sk-", |rest| run(rest, |b| b.is_ascii_alphanumeric()) >= 40),
            shape("a Google API key", "AIza", |rest| run(rest, is_token) == 35),
            shape("a Slack token", "xoxb-", |rest| run(rest, is_token) >= 20),
            shape("a Slack token", "xoxp-", |rest| run(rest, is_token) >= 20),
            shape("a PyPI token", "pypi-AgEIcHlwaS5vcmc", |_| true),
            shape("a JSON web token", "eyJ", is_jwt),
            shape("a password in a URL", "://", has_password),
        ]
    }

    /// Where it is in `text`.
    fn hits(&self, text: &[u8]) -> Vec<usize> {
        let start = self.start.needle();
        // A word that only contains the prefix is another word; a URL's scheme and a dash come before theirs.
        let worded = start.first().is_some_and(u8::is_ascii_alphanumeric);
        let apart = |at: usize| !worded || at.checked_sub(1).and_then(|i| text.get(i)).is_none_or(|b| !is_word(*b));
        let rest = |at: usize| text.get(at + start.len()..).unwrap_or_default();
        self.start
            .find_iter(text)
            .filter(|at| (apart(*at) || after_escape(text, *at)) && (self.goes_on)(rest(*at)))
            .collect()
    }
}

/// Whether the letter before is of an escape in JSON: `\nAKIA…`.
fn after_escape(text: &[u8], at: usize) -> bool {
    at >= 2 && text.get(at - 2) == Some(&b'\\') && text.get(at - 1).is_some_and(|b| b"nrt".contains(b))
}

fn run(text: &[u8], class: fn(u8) -> bool) -> usize {
    text.iter().take_while(|b| class(**b)).count()
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn is_token(b: u8) -> bool {
    is_word(b) || b == b'-'
}

fn is_upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

/// `= "40 characters of base64"`, with or without quotes.
fn assigned(rest: &[u8]) -> bool {
    let skip = run(rest, |b| b" \t\"'\\=:".contains(&b));
    let sign = rest.get(..skip).is_some_and(|s| s.contains(&b'=') || s.contains(&b':'));
    sign && run(&rest[skip..], |b| b.is_ascii_alphanumeric() || b"/+".contains(&b)) == 40
}

/// Three runs of base64url, dots between, of which the second is an object, too.
fn is_jwt(rest: &[u8]) -> bool {
    let first = run(rest, is_token);
    let Some(second) = rest.get(first..).and_then(|r| r.strip_prefix(b".eyJ")) else { return false };
    let len = run(second, is_token);
    first >= 10 && len >= 10 && second.get(len) == Some(&b'.') && second.get(len + 1).is_some_and(|b| is_token(*b))
}

/// `user:password@host`; placeholders are none.
fn has_password(rest: &[u8]) -> bool {
    let authority =
        &rest[..run(rest, |b| b.is_ascii_graphic() && !b"/\"'`<>{}$\\[]()|,".contains(&b)).min(OVERLAP / 2)];
    let Some(at) = memchr::memrchr(b'@', authority) else { return false };
    let Some(colon) = memchr::memchr(b':', &authority[..at]) else { return false };
    let password = &authority[colon + 1..at];
    let hidden = password.iter().all(|b| b"*xX.".contains(b)) || password.eq_ignore_ascii_case(b"password");
    authority.len() > at + 1 && password.len() >= 4 && !hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn found(text: &[u8]) -> Vec<(u64, &'static str)> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text).expect("written");
        in_file(&file, &Shape::all()).expect("read")
    }

    /// Made here, so that no scanner finds one in this file.
    fn token(start: &str, n: usize) -> String {
        format!("{start}{}", "aB3dE6gH9k".repeat(6).get(..n).unwrap_or_default())
    }

    #[test]
    fn credential_missed() {
        let aws = format!("AKI{}", "A2B3C4D5E6F7G8H9I0");
        let aws = &aws[..20];
        for (text, what) in [
            (format!("-----BEGIN RSA {} KEY-----\n", "PRIVATE"), "a private key"),
            (format!("key = {aws}"), "an AWS access key id"),
            (format!("aws_secret_access_key = {}", token("", 40)), "an AWS secret access key"),
            (format!("\"outputs\": [\"user\\n{aws}\"]"), "an AWS access key id"),
            (token("ghp_", 36), "a GitHub token"),
            (token("glpat-", 20), "a GitLab token"),
            (format!("hf_{}", "abcdefghij".repeat(4)), "a Hugging Face token"),
            (format!("{}.{}.sig", token("eyJ", 20), token("eyJ", 20)), "a JSON web token"),
            (format!("git clone https://me:{}@example.com/r", "tr0ub4dor"), "a password in a URL"),
        ] {
            assert_eq!(found(format!("first\n{text}\n").as_bytes()), [(2, what)], "{text}");
        }
    }

    #[test]
    fn harmless_text_named() {
        for text in [
            "the AKIA prefix, and MAKIAABCDEFGHIJKLMNOP",
            "https://example.com:8080/a@b and user@example.com",
            "postgres://user:****@db/x and postgres://user:${PASSWORD}@db/x",
            "-----BEGIN CERTIFICATE-----",
            "hf_hub_download(repo_id) sk-learn ghp_short",
            "eyJ.eyJ.",
        ] {
            assert_eq!(found(text.as_bytes()), [], "{text}");
        }
        assert_eq!(found(&[token("ghp_", 36).as_bytes(), b"\0"].concat()), [], "not text");
    }

    #[test]
    fn credential_across_two_blocks_missed_or_told_twice() {
        let secret = token("ghp_", 36);
        for before in [BLOCK - OVERLAP - 20, BLOCK - 20, BLOCK, BLOCK + OVERLAP - 1, 2 * BLOCK - 3, 2 * BLOCK + 100] {
            let text = format!("{}\n{secret}\n{}", "x\n".repeat(before / 2), "y".repeat(BLOCK));
            let line = before as u64 / 2 + 2;
            assert_eq!(found(text.as_bytes()), [(line, "a GitHub token")], "at {before}");
        }
    }

    #[test]
    fn secret_file_passed_by_its_name() {
        for path in [".env", "a/.env.production", ".aws/credentials", "x/.ssh/known_hosts", "id_ed25519", "A/.NETRC"] {
            assert!(by_name(path).is_some(), "{path}");
        }
        for path in ["config.json", "a/environment.yml", ".env.example", "credentials", "onnx/config"] {
            assert_eq!(by_name(path), None, "{path}");
        }
    }
}
