//! The TOML schema of a policy `[P-1]`. The toml crate refuses duplicate keys, serde unknown ones; the rest is here.

use super::{Lines, MAX_AGE_S, MAX_FILE, MAX_RELEASES, Policy, PolicyError, Release, Scope, Signer, p1, parse_id};
use crate::evidence::{Pcr, Platform};
use crate::time::parse_rfc3339;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;
use vault_core::recipient::broker::is_policy_name;

/// What stands in `scope.signers`.
const SIGNER: &str = "a P-256 public key, its DER SubjectPublicKeyInfo in base64 on one line";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<i64>,
    name: Spanned<String>,
    platform: Spanned<String>,
    max_age_s: Spanned<i64>,
    minimum_model_version: Option<Spanned<i64>>,
    #[serde(default)]
    scope: Option<ScopeTable>,
    release: Spanned<Vec<Spanned<ReleaseTable>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeTable {
    artifacts: Option<Spanned<Vec<Spanned<String>>>>,
    models: Option<Spanned<Vec<Spanned<String>>>>,
    recipients: Option<Spanned<Vec<Spanned<String>>>>,
    signers: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseTable {
    name: Spanned<String>,
    pcr0: Spanned<String>,
    pcr1: Spanned<String>,
    pcr2: Spanned<String>,
    pcr3: Option<Spanned<String>>,
    pcr4: Option<Spanned<String>>,
    pcr8: Option<Spanned<String>>,
    not_before: Option<Spanned<String>>,
    not_after: Option<Spanned<String>>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Policy, PolicyError> {
    if bytes.len() > MAX_FILE {
        let found = format!("{} bytes", bytes.len());
        return Err(p1(0, "the file", "at most 262144 bytes", found, "is it a policy? `mvault policy new` writes one"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| p1(0, "the file", "text", "other bytes", "is it a policy? `mvault policy new` writes one"))?;
    let file: File = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(0, |span| Starts::new(text).line_at(span.start));
        p1(
            line,
            "the file",
            "the schema of KEY_RELEASE.md 3",
            e.message(),
            "compare with what `mvault policy new` writes",
        )
    })?;
    let mut reader = Reader {
        starts: Starts::new(text),
        lines: Lines { text: text.lines().map(cut).collect(), of: BTreeMap::new() },
    };
    let head = reader.head(&file)?;
    let scope = file.scope.as_ref().map_or(Ok(Scope::default()), |scope| reader.scope(scope))?;
    let releases = reader.releases(&file.release)?;
    let (name, digest, lines) = (file.name.into_inner(), Sha256::digest(bytes).into(), reader.lines);
    let (max_age_s, minimum_model_version) = head;
    Ok(Policy { name, digest, platform: Platform::AwsNitro, max_age_s, minimum_model_version, scope, releases, lines })
}

/// Where lines begin.
struct Starts(Vec<usize>);

impl Starts {
    fn new(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line that byte `at` is in, from 1.
    fn line_at(&self, at: usize) -> usize {
        self.0.partition_point(|&start| start <= at)
    }
}

/// A line as messages show it.
fn cut(line: &str) -> String {
    line.trim().chars().filter(|c| !c.is_control()).take(160).collect()
}

struct Reader {
    starts: Starts,
    lines: Lines,
}

impl Reader {
    /// Remembers where a key stands.
    fn note<T>(&mut self, key: impl Into<String>, value: &Spanned<T>) -> usize {
        let line = self.starts.line_at(value.span().start);
        self.lines.of.insert(key.into(), line);
        line
    }

    /// max_age_s and minimum_model_version.
    fn head(&mut self, file: &File) -> Result<(u64, Option<u64>), PolicyError> {
        let line = self.note("version", &file.version);
        if *file.version.get_ref() != 1 {
            return Err(p1(line, "version", "1", file.version.get_ref(), "a newer mvault may read it"));
        }
        let (line, name) = (self.note("name", &file.name), file.name.get_ref());
        if !is_policy_name(name) {
            return Err(p1(
                line,
                "name",
                "1 to 64 of a-z 0-9 . _ -",
                name,
                "stanzas carry the name; choose a plain one",
            ));
        }
        let (line, platform) = (self.note("platform", &file.platform), file.platform.get_ref());
        if platform != Platform::AwsNitro.name() {
            return Err(p1(line, "platform", "aws-nitro", platform, "no other platform is supported yet"));
        }
        let (line, age) = (self.note("max_age_s", &file.max_age_s), *file.max_age_s.get_ref());
        let age = u64::try_from(age).ok().filter(|age| (1..=MAX_AGE_S).contains(age));
        let age = age.ok_or_else(|| {
            let fix = "evidence is made on demand: 300 is plenty";
            p1(line, "max_age_s", "1 to 86400 seconds", file.max_age_s.get_ref(), fix)
        })?;
        let Some(minimum) = &file.minimum_model_version else { return Ok((age, None)) };
        let line = self.note("minimum_model_version", minimum);
        let version = u64::try_from(*minimum.get_ref()).ok().filter(|&v| v > 0);
        let fix = "versions count from 1; leave the line out to allow any";
        let version = version.ok_or_else(|| p1(line, "minimum_model_version", "1 or more", minimum.get_ref(), fix))?;
        Ok((age, Some(version)))
    }

    fn scope(&mut self, table: &ScopeTable) -> Result<Scope, PolicyError> {
        let id = |text: &str| parse_id(text);
        let name = |text: &str| (!text.is_empty() && text.len() <= 255).then(|| text.to_owned());
        Ok(Scope {
            artifacts: self.list("scope.artifacts", table.artifacts.as_ref(), "an artifact's id, 64 hex digits", id)?,
            models: self.list("scope.models", table.models.as_ref(), "a name of 1 to 255 bytes", name)?,
            recipients: self.list(
                "scope.recipients",
                table.recipients.as_ref(),
                "a broker key's id, 64 hex digits",
                id,
            )?,
            signers: self.list("scope.signers", table.signers.as_ref(), SIGNER, Signer::parse)?,
        })
    }

    fn list<T: Ord + Clone>(
        &mut self,
        key: &str,
        list: Option<&Spanned<Vec<Spanned<String>>>>,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, PolicyError> {
        let Some(list) = list else { return Ok(None) };
        let line = self.note(key, list);
        if list.get_ref().is_empty() {
            return Err(p1(
                line,
                key,
                "at least one",
                "none",
                "an empty list allows nothing; leave the line out for any",
            ));
        }
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        for item in list.get_ref() {
            let line = self.starts.line_at(item.span().start);
            let value = parse(item.get_ref());
            let value =
                value.ok_or_else(|| p1(line, key, expected, item.get_ref(), "copy it from `mvault inspect`"))?;
            if !seen.insert(value.clone()) {
                return Err(p1(line, key, "each once", item.get_ref(), "remove one of the two"));
            }
            all.push(value);
        }
        Ok(Some(all))
    }

    fn releases(&mut self, tables: &Spanned<Vec<Spanned<ReleaseTable>>>) -> Result<Vec<Release>, PolicyError> {
        let (line, tables) = (self.starts.line_at(tables.span().start), tables.get_ref());
        if !(1..=MAX_RELEASES).contains(&tables.len()) {
            return Err(p1(line, "release", "1 to 1024", tables.len(), "name the releases that may get keys"));
        }
        let (mut all, mut names, mut measured) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for table in tables {
            let release = self.release(table.get_ref())?;
            let line = self.starts.line_at(table.get_ref().name.span().start);
            if !names.insert(release.name.clone()) {
                return Err(p1(line, "release", "each name once", &release.name, "give it another name"));
            }
            if !measured.insert(release.pcrs.clone()) {
                let fix = "the same image needs one release only";
                return Err(p1(line, "release", "other measurements than the releases before", &release.name, fix));
            }
            all.push(release);
        }
        Ok(all)
    }

    fn release(&mut self, table: &ReleaseTable) -> Result<Release, PolicyError> {
        let name = table.name.get_ref().clone();
        let line = self.note(format!("release.{name}"), &table.name);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(p1(line, "release", "a name of 1 to 64 printable characters", &name, "such as 1.4.0"));
        }
        let given = [
            (0, Some(&table.pcr0)),
            (1, Some(&table.pcr1)),
            (2, Some(&table.pcr2)),
            (3, table.pcr3.as_ref()),
            (4, table.pcr4.as_ref()),
            (8, table.pcr8.as_ref()),
        ];
        let mut pcrs = BTreeMap::new();
        for (index, value) in given {
            if let Some(value) = value {
                pcrs.insert(index, self.pcr(&name, index, value)?);
            }
        }
        let not_before_s = self.time(&name, "not_before", table.not_before.as_ref())?;
        let not_after_s = self.time(&name, "not_after", table.not_after.as_ref())?;
        if let (Some(from), Some(to)) = (not_before_s, not_after_s)
            && from >= to
        {
            return Err(p1(line, "not_after", "later than not_before", &name, "the release could never get a key"));
        }
        Ok(Release { name, pcrs, not_before_s, not_after_s })
    }

    fn pcr(&mut self, release: &str, index: u8, value: &Spanned<String>) -> Result<Pcr, PolicyError> {
        let (key, text) = (format!("pcr{index}"), value.get_ref());
        let line = self.note(format!("release.{release}.{key}"), value);
        let fix = match text.len() {
            64 => "64 digits are a SHA-256; PCRs of Nitro are SHA-384: `nitro-cli describe-eif`",
            _ => "copy it from `nitro-cli describe-eif` or `mvault attest explain`",
        };
        let pcr = super::parse_pcr(text).ok_or_else(|| p1(line, &*key, "96 hex digits", text, fix))?;
        if pcr == [0; 48] {
            let fix = "zeros are what a debug enclave measures, and its parent reads its console; build and run without --debug-mode";
            return Err(p1(line, key, "a measurement", "zeros", fix));
        }
        Ok(pcr)
    }

    fn time(&mut self, release: &str, key: &str, value: Option<&Spanned<String>>) -> Result<Option<u64>, PolicyError> {
        let Some(value) = value else { return Ok(None) };
        let line = self.note(format!("release.{release}.{key}"), value);
        let seconds = parse_rfc3339(value.get_ref());
        let wrong = || p1(line, key, "an RFC 3339 time", value.get_ref(), "such as \"2026-11-01T00:00:00Z\"");
        seconds.ok_or_else(wrong).map(Some)
    }
}
