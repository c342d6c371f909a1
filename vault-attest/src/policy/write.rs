//! Policy files as `mvault policy new` writes them: commented, and read back before anyone sees them.

use super::{Policy, PolicyError, Release, Signer};
use crate::nitro::hex;
use crate::time::rfc3339;
use std::fmt::Write;

/// A policy to be written.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// Oldest evidence in seconds.
    pub max_age_s: u64,
    /// The least model version.
    pub minimum_model_version: Option<u64>,
    /// Artifact ids, in hex.
    pub artifacts: Vec<String>,
    /// Model names.
    pub models: Vec<String>,
    /// Broker key ids, in hex.
    pub recipients: Vec<String>,
    /// Publishers' keys.
    pub signers: Vec<Signer>,
    /// The releases.
    pub releases: Vec<DraftRelease>,
}

/// A release to be written.
#[derive(Debug, Clone)]
pub struct DraftRelease {
    /// Name, measurements and times.
    pub release: Release,
    /// A comment above it, such as where the measurements come from.
    pub comment: String,
}

impl Draft {
    /// The file's text, which [`Policy::parse`] accepts.
    pub fn text(&self) -> Result<String, PolicyError> {
        let mut out =
            String::from("# Which enclaves get the keys of which models: docs/KEY_RELEASE.md, section 3.\n\n");
        let _ = writeln!(out, "version = 1\nname = {}\nplatform = \"aws-nitro\"", quoted(&self.name));
        let _ = writeln!(out, "max_age_s = {} # oldest evidence, in seconds", self.max_age_s);
        if let Some(version) = self.minimum_model_version {
            let _ = writeln!(out, "minimum_model_version = {version}");
        }
        let signers = self.signers.iter().map(Signer::text).collect();
        let lists = [
            ("artifacts", &self.artifacts),
            ("models", &self.models),
            ("recipients", &self.recipients),
            ("signers", &signers),
        ];
        if lists.iter().any(|(_, list)| !list.is_empty()) {
            out.push_str("\n[scope]\n");
        }
        for (key, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            let items: Vec<_> = list.iter().map(|item| quoted(item)).collect();
            let _ = writeln!(out, "{key} = [{}]", items.join(", "));
        }
        for release in &self.releases {
            out.push_str(&release_text(release));
        }
        Policy::parse(out.as_bytes()).map(|_| out)
    }
}

/// One `[[release]]`, to be put at the end of a policy.
pub fn release_text(draft: &DraftRelease) -> String {
    let release = &draft.release;
    let mut out = String::from("\n");
    let comment: String = draft.comment.chars().filter(|c| !c.is_control()).collect();
    if !comment.is_empty() {
        let _ = writeln!(out, "# {comment}");
    }
    let _ = writeln!(out, "[[release]]\nname = {}", quoted(&release.name));
    for (index, pcr) in &release.pcrs {
        let _ = writeln!(out, "pcr{index} = \"{}\"", hex(pcr));
    }
    for (key, time) in [("not_before", release.not_before_s), ("not_after", release.not_after_s)] {
        if let Some(time) = time {
            let _ = writeln!(out, "{key} = \"{}\"", rfc3339(time));
        }
    }
    out
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
