//! Which entries of the release log `mvault broker log` lists.
//!
//! Every entry is looked at: clocks are set back, and replicas have one each, so the log's order need not be that of its
//! times. Nothing is left out in doubt, and what is listed is not verified: `--verify` does that.

use clap::ValueEnum;
use vault_attest::policy::{parse_id, parse_pcr};
use vault_attest::time::parse_rfc3339;
use vault_attest::tlog::{LogEntry, Outcome};
use vault_core::header::hex;

/// Entries listed if nothing is asked for.
const LAST: u64 = 20;
/// They list nothing.
const OTHER: [&str; 3] = ["client", "verify", "checkpoint"];

/// What is asked for; all of it has to hold.
#[derive(clap::Args)]
pub struct FilterArgs {
    /// List from this entry on, counted from 0, or from this time on, such as 2026-11-27T08:00:00Z
    #[arg(long, value_name = "INDEX|TIME", value_parser = parse_place, conflicts_with_all = OTHER)]
    since: Option<Place>,
    /// List what is before this entry or this time
    #[arg(long, value_name = "INDEX|TIME", value_parser = parse_place, conflicts_with_all = OTHER)]
    until: Option<Place>,
    /// List decisions about this artifact only, by its id
    #[arg(long, value_name = "ID", value_parser = parse_artifact, conflicts_with_all = OTHER)]
    artifact: Option<String>,
    /// List decisions about images of this PCR0 only; refusals before the evidence was verified have none
    #[arg(long, value_name = "HEX", value_parser = parse_pcr0, conflicts_with_all = OTHER)]
    pcr0: Option<String>,
    /// List grants only, or refusals only
    #[arg(long, value_enum, conflicts_with_all = OTHER)]
    outcome: Option<Wanted>,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An entry, counted from 0.
    Index(u64),
    /// Seconds since 1970.
    Time(u64),
}

/// How a decision went.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Wanted {
    /// The key was released
    Granted,
    /// It was not
    Refused,
}

fn parse_place(text: &str) -> Result<Place, String> {
    if let Ok(index) = text.parse() {
        return Ok(Place::Index(index));
    }
    let time = parse_rfc3339(text).filter(|_| !text.contains('.'));
    time.map(Place::Time)
        .ok_or_else(|| "expected an index, or a time in whole seconds such as 2026-11-27T08:00:00Z".into())
}

fn parse_artifact(text: &str) -> Result<String, String> {
    parse_id(text)
        .map(|id| hex(&id))
        .ok_or_else(|| "expected 64 hex digits: `mvault inspect` shows an artifact's id".into())
}

fn parse_pcr0(text: &str) -> Result<String, String> {
    let pcr = parse_pcr(text);
    pcr.map(|pcr| hex(&pcr))
        .ok_or_else(|| "expected 96 hex digits: `mvault enclave measure` shows an image's PCR0".into())
}

impl FilterArgs {
    /// The first entry to look at, in a log of `size`.
    pub fn first(&self, size: u64) -> u64 {
        match self.since {
            Some(Place::Index(index)) => index,
            None if !self.is_given() => size.saturating_sub(LAST),
            _ => 0,
        }
    }

    fn is_given(&self) -> bool {
        let times = self.since.is_some() || self.until.is_some();
        times || self.artifact.is_some() || self.pcr0.is_some() || self.outcome.is_some()
    }

    /// Whether nothing from this entry on is listed.
    pub fn ends_at(&self, index: u64) -> bool {
        matches!(self.until, Some(Place::Index(end)) if index >= end)
    }

    /// Whether this entry is listed. One without a time that can be read is at every time.
    pub fn takes(&self, entry: &LogEntry) -> bool {
        let time = parse_rfc3339(&entry.time);
        let early = matches!((self.since, time), (Some(Place::Time(since)), Some(time)) if time < since);
        let late = matches!((self.until, time), (Some(Place::Time(until)), Some(time)) if time >= until);
        let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let outcome = match self.outcome {
            None => true,
            Some(Wanted::Granted) => entry.outcome == Outcome::Granted,
            Some(Wanted::Refused) => entry.outcome == Outcome::Refused,
        };
        !early && !late && outcome && same(&self.artifact, &entry.artifact) && same(&self.pcr0, &entry.pcr0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: FilterArgs = FilterArgs { since: None, until: None, artifact: None, pcr0: None, outcome: None };
    /// 2026-11-27T08:00:00Z
    const AT: u64 = 1_795_766_400;

    fn entry(ms: u64) -> LogEntry {
        LogEntry::new(&[1; 16], AT * 1000 + ms)
    }

    #[test]
    fn places_are_indexes_or_times_of_any_offset() {
        assert_eq!(parse_place("17"), Ok(Place::Index(17)));
        assert_eq!(parse_place("2026-11-27T08:00:00Z"), Ok(Place::Time(AT)));
        assert_eq!(parse_place("2026-11-27T09:00:00+01:00"), Ok(Place::Time(AT)));
        for bad in ["", "-1", "yesterday", "2026-11-27", "2026-11-27T08:00:00", "2026-11-27T08:00:00.5Z"] {
            assert!(parse_place(bad).is_err(), "{bad}");
        }
        assert!(parse_artifact(&"a".repeat(63)).is_err() && parse_pcr0(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_time_begins_with_its_second_and_ends_before_it() {
        let since = FilterArgs { since: Some(Place::Time(AT)), ..NONE };
        assert!(
            since.takes(&entry(0)) && since.takes(&entry(999)) && !since.takes(&LogEntry::new(&[1; 16], AT * 1000 - 1))
        );
        let until = FilterArgs { until: Some(Place::Time(AT + 1)), ..NONE };
        assert!(until.takes(&entry(999)) && !until.takes(&entry(1000)));
        let strange = LogEntry { time: "?".into(), ..entry(0) };
        assert!(since.takes(&strange) && until.takes(&strange));
    }

    #[test]
    fn indexes_bound_what_is_read_and_any_filter_reads_all() {
        assert_eq!((NONE.first(7), NONE.first(100)), (0, 80));
        assert_eq!(FilterArgs { since: Some(Place::Index(5)), ..NONE }.first(100), 5);
        assert_eq!(FilterArgs { outcome: Some(Wanted::Granted), ..NONE }.first(100), 0);
        let until = FilterArgs { until: Some(Place::Index(5)), ..NONE };
        assert!(until.first(100) == 0 && !until.ends_at(4) && until.ends_at(5));
    }

    #[test]
    fn artifact_image_and_outcome_have_to_be_the_entrys() {
        let mut known = entry(0);
        (known.artifact, known.pcr0) = (Some("ab".repeat(32)), Some("cd".repeat(48)));
        let wanted = FilterArgs {
            artifact: Some(parse_artifact(&"AB".repeat(32)).unwrap_or_default()),
            pcr0: Some("cd".repeat(48)),
            outcome: Some(Wanted::Granted),
            ..NONE
        };
        assert!(wanted.takes(&known) && !wanted.takes(&entry(0)));
        let refused = LogEntry { outcome: Outcome::Refused, ..known };
        assert!(!wanted.takes(&refused) && FilterArgs { outcome: Some(Wanted::Refused), ..NONE }.takes(&refused));
    }
}
