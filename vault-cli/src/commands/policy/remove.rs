//! `mvault policy remove-release`: one release out of a policy, by its lines. The rest of the file stays to the byte, and what
//! is written was read back first: it says what the policy said before, without that release.

use super::{read_bounded, wrong};
use crate::error::{CliError, io};
use crate::files::{Access, write_new};
use crate::output::Output;
use std::path::{Path, PathBuf};
use vault_attest::policy::{MAX_FILE, Policy};

/// Take an image release out: its enclaves get no key any more
///
/// The file's text stays but for the release and the comment right above it. The broker takes it at the next SIGHUP.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mvault policy remove-release minilm-prod.toml 1.4.0")]
pub struct Args {
    /// A policy
    file: PathBuf,
    /// The release's name, as `mvault policy check` shows it
    release: String,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let bytes = read_bounded(&args.file, MAX_FILE)?;
    let before = Policy::parse(&bytes).map_err(|e| wrong(&args.file, &e))?;
    let names: Vec<_> = before.releases().iter().map(|release| release.name.as_str()).collect();
    if !names.contains(&args.release.as_str()) {
        return Err(CliError::usage(format!("{}: no release {} in it", args.file.display(), args.release))
            .hint(format!("it has: {}", names.join(", "))));
    }
    if names.len() == 1 {
        return Err(CliError::failed(format!("{}: {} is its only release", args.file.display(), args.release))
            .hint("a policy names an image: add another release first, or remove the file and send SIGHUP"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let after = without(&text, &args.release).filter(|after| only_release_is_gone(&before, after, &args.release));
    let after = after.ok_or_else(|| by_hand(&args.file))?;
    // A symbolic link stays one: what it points at is replaced.
    let target = args.file.canonicalize().map_err(io(args.file.display()))?;
    write_new(&target, after.as_bytes(), Access::Public, true)?;
    let said = super::new::said(&args.file, after.as_bytes(), "release removed")?;
    out.result(&said.json, &said.text)
}

fn by_hand(file: &Path) -> CliError {
    CliError::failed(format!("{}: its lines are not laid out as expected; nothing was changed", file.display()))
        .hint("take the [[release]] out in an editor, then `mvault policy check`")
}

/// The text without the lines of this release, and the comment and one empty line right above it.
fn without(text: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let heads: Vec<usize> = (0..lines.len()).filter(|&n| lines.get(n).is_some_and(|l| l.starts_with('['))).collect();
    let starts = heads.iter().map(|&head| start(&lines, head)).chain([lines.len()]).collect::<Vec<_>>();
    for (head, bounds) in heads.iter().zip(starts.windows(2)) {
        let &[from, to] = bounds else { continue };
        if is_release(&lines.get(*head..to)?.concat(), name) {
            return Some([lines.get(..from)?, lines.get(to..)?].concat().concat());
        }
    }
    None
}

/// Where what belongs to the table that begins at line `head` begins.
fn start(lines: &[&str], head: usize) -> usize {
    let above = |n: usize| n.checked_sub(1).and_then(|n| lines.get(n)).map(|line| line.trim());
    let mut from = head;
    while above(from).is_some_and(|line| line.starts_with('#')) {
        from -= 1;
    }
    if above(from) == Some("") { from - 1 } else { from }
}

fn is_release(table: &str, name: &str) -> bool {
    let table: Option<toml::Table> = toml::from_str(table).ok();
    let release = table.as_ref().and_then(|table| table.get("release")?.get(0)?.get("name")?.as_str());
    release == Some(name)
}

fn only_release_is_gone(before: &Policy, after: &str, name: &str) -> bool {
    let Ok(after) = Policy::parse(after.as_bytes()) else { return false };
    let gone = format!("release.{name}.");
    let others = before.differences(&after).into_iter().filter(|d| !(d.key.starts_with(&gone) && d.after.is_none()));
    let one_fewer = after.releases().len() + 1 == before.releases().len();
    one_fewer && after.releases().iter().all(|release| release.name != name) && others.count() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "# ours\nversion = 1\nname = \"prod\"\nplatform = \"aws-nitro\"\nmax_age_s = 300\n";

    fn policy(releases: &[&str]) -> String {
        let release = |(n, name): (usize, &&str)| {
            let pcr = |index: usize| format!("pcr{index} = \"{}\"\n", format!("{n}{}", index + 1).repeat(48));
            format!("\n# built by {name}\n[[release]]\nname = \"{name}\"\n{}{}{}", pcr(0), pcr(1), pcr(2))
        };
        TOP.to_owned() + &releases.iter().enumerate().map(release).collect::<Vec<_>>().concat()
    }

    #[test]
    fn the_file_is_what_it_was_before_the_release_was_added() {
        let (one, two) = (policy(&["1.4.0"]), policy(&["1.4.0", "1.5.0"]));
        assert_eq!(without(&two, "1.5.0").as_ref(), Some(&one));
        let three = policy(&["1.4.0", "1.5.0", "1.5.1"]);
        for name in ["1.4.0", "1.5.0", "1.5.1"] {
            let after = without(&three, name).unwrap_or_default();
            assert!(!after.contains(name) && after.starts_with("# ours\n"), "{after}");
            assert!(Policy::parse(three.as_bytes()).is_ok_and(|before| only_release_is_gone(&before, &after, name)));
        }
        assert_eq!(without(&two, "1.5"), None);
    }

    #[test]
    fn a_release_whose_name_begins_like_it_stays() {
        let three = policy(&["1", "1.5", "1.6"]);
        let Ok(before) = Policy::parse(three.as_bytes()) else { panic!() };
        let one_gone = without(&three, "1").unwrap_or_default();
        assert!(only_release_is_gone(&before, &one_gone, "1") && one_gone.contains("\"1.5\""));
        assert!(!only_release_is_gone(&before, &without(&one_gone, "1.5").unwrap_or_default(), "1"));
    }

    #[test]
    fn a_text_that_says_something_else_too_is_not_taken() {
        let three = policy(&["1.4.0", "1.5.0", "1.6.0"]);
        let Ok(before) = Policy::parse(three.as_bytes()) else { panic!() };
        let two_gone = without(&three, "1.5.0").and_then(|text| without(&text, "1.6.0")).unwrap_or_default();
        assert!(!only_release_is_gone(&before, &two_gone, "1.5.0"));
        let older = without(&three, "1.5.0").unwrap_or_default().replace("= 300", "= 86400");
        assert!(!only_release_is_gone(&before, &older, "1.5.0"));
        assert!(!only_release_is_gone(&before, &three, "1.5.0"));
    }
}
