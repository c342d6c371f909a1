//! `mvault publish`: what a CI job runs. Credentials in the model's folder and dangerous pickles stop it before anything
//! is published; then one read seals, signs and sends; the header appears last, then the tag. A job that runs again finds
//! what it published (FORMAT.md `[F-49]`).

use super::push::{PushArgs, push, sealed};
use crate::credentials::{Credential, find};
use crate::error::CliError;
use crate::output::{Output, printable};
use crate::sources::Model;
use serde_json::json;
use std::path::Path;

/// Longest name of a job in bytes.
const MAX_JOB: usize = 512;

/// Publish a model from a CI job: checked, signed, sealed, pushed, tagged
///
/// Like push, and: it must be signed, credentials that lie in the folder stop it, and a job that runs again does not
/// publish twice. Nothing is published unless all of it is. The weights are read once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault publish bert/ s3://bucket/team bert -R team.txt --sign sign.pem \\
      --tag staging --job \"$CI_PROJECT_PATH $CI_COMMIT_SHA\" --json
  mvault publish model.pt vault bert --sign sign.pem --annotate github

A job's name should name what it publishes: the repository and the commit.
Exit codes: 0 published, or there already; 1 refused: a credential, a dangerous
pickle; 2 usage; 5 the store failed: run it again, it goes on.")]
pub struct Args {
    #[command(flatten)]
    what: PushArgs,
    /// The job's name: what it published once is not published again
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Name refused files to the CI, too, as its own annotations
    #[arg(long, value_name = "CI", value_enum)]
    annotate: Option<Annotate>,
    /// Publish although credentials seem to be in the folder
    #[arg(long)]
    dangerous_allow_credentials: bool,
}

/// Whose annotations.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Annotate {
    /// Workflow commands of GitHub Actions, on stderr
    Github,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let path = args.what.path.as_path();
    let Some(key) = args.what.how.signing_key()? else {
        return Err(CliError::usage("what a job publishes is signed")
            .hint("--sign KEY.PEM; `mvault keygen --signing -o sign.pem` makes a key"));
    };
    if path == Path::new("-") {
        return Err(CliError::usage("standard input cannot be searched for credentials before it is sent")
            .hint("publish a file or a folder, or use `mvault push`"));
    }
    if sealed(path)?.is_some() {
        return Err(CliError::usage(format!("{}: it is sealed already, and cannot be searched", path.display()))
            .hint("publish the plain model, or send it as it is with `mvault push`"));
    }
    if let Some(job) = args.job.as_deref().filter(|j| j.trim().is_empty() || j.len() > MAX_JOB) {
        let what = if job.len() > MAX_JOB { "is longer than 512 bytes" } else { "is empty" };
        return Err(CliError::usage(format!("--job {what}")).hint("name the repository and the commit"));
    }
    let found = find(&Model::open(path, args.what.how.follow_symlinks)?)?;
    if !found.is_empty() {
        credentials(args, &found, out)?;
    }
    let report = push(&args.what, Some(&key), args.job.as_deref(), out).inspect_err(|error| {
        if args.annotate == Some(Annotate::Github) {
            let file = error.refused_file().map_or_else(|| path.display().to_string(), |f| in_source(path, f));
            out.annotation(&github(&file, None, "mvault publish", error.message()));
        }
    })?;
    out.result(&report.json, &report.text)
}

/// Credentials were found: each is told, none is shown.
fn credentials(args: &Args, found: &[Credential], out: &mut Output) -> Result<(), CliError> {
    let path = args.what.path.as_path();
    let place = |c: &Credential| {
        let line = c.line.map(|l| format!(":{l}")).unwrap_or_default();
        format!("{}{line}", printable(&in_source(path, &c.path)))
    };
    for credential in found {
        if args.annotate == Some(Annotate::Github) {
            let file = in_source(path, &credential.path);
            out.annotation(&github(&file, credential.line, "credential in a model", credential.what));
        }
        if args.dangerous_allow_credentials {
            out.warning(&format!("{}: {}: published all the same", place(credential), credential.what));
        }
    }
    if args.dangerous_allow_credentials {
        return Ok(());
    }
    let message = match found {
        [one] => format!("{}: {}", place(one), one.what),
        [one, rest @ ..] => format!("{}: {}; and {} more", place(one), one.what, rest.len()),
        [] => String::new(),
    };
    let hint = "nothing was sent; take it out of the folder, and revoke it if others could read it. \
                If it is none: --dangerous-allow-credentials";
    let shown: Vec<_> = found.iter().map(|c| json!({ "path": c.path, "line": c.line, "what": c.what })).collect();
    let lines: Vec<_> = found.iter().map(|c| format!("{}: {}", place(c), c.what)).collect();
    let json = json!({ "ok": false, "error": message, "hint": hint, "exit": 1, "credentials": shown });
    out.result(&json, &(lines.join("\n") + "\n"))?;
    Err(CliError::reported(message).hint(hint))
}

/// A file of the model as the CI's checkout names it.
fn in_source(model: &Path, entry: &str) -> String {
    if model.is_dir() { model.join(entry).display().to_string() } else { model.display().to_string() }
}

/// A workflow command of GitHub Actions; what is in it cannot end it or begin another.
fn github(file: &str, line: Option<u64>, title: &str, message: &str) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let line = line.map(|l| format!(",line={l}")).unwrap_or_default();
    format!("::error file={}{line},title={}::{}", property(file), property(title), data(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotation_ended_by_a_file_name() {
        let line = github("a,b:c\n::set-env name=X::1", Some(3), "t", "50%\n::stop");
        assert_eq!(line, "::error file=a%2Cb%3Ac%0A%3A%3Aset-env name=X%3A%3A1,line=3,title=t::50%25%0A::stop");
    }
}
