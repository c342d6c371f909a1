//! What a scan carries along: the findings so far, the path of members, and the budget.
//!
//! A finding's grade decides the verdict, and danger wins over everything. Text that comes
//! from the input is cleaned here, in one place, before it can reach a terminal or a log.

use super::{Finding, Format, MAX_FINDING_BYTES, MAX_FINDINGS, Report, Verdict};
use std::cell::Cell;
use std::rc::Rc;

/// Containers inside containers that are opened; what lies deeper is not scanned.
pub(super) const MAX_DEPTH: u32 = 4;
/// Longest member path kept for a finding, in bytes.
const MAX_MEMBER_BYTES: usize = 300;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Grade {
    /// Code could run.
    Danger,
    /// Something could not be read.
    NotScanned,
    /// A structure is broken.
    Malformed,
}

/// Findings of one parser or of a whole scan.
#[derive(Clone, Default)]
pub(super) struct Log {
    findings: Vec<(Grade, Finding)>,
    more: u64,
    danger: bool,
    not_scanned: bool,
    malformed: bool,
    /// Pickles parsed to their STOP.
    pub pickles: u64,
    /// First global of TorchScript's own `__torch__` space: fine only inside such an archive,
    /// which the zip walk knows at its end.
    pub pending: Option<Finding>,
}

impl Log {
    /// Adds one finding.
    pub fn add(&mut self, grade: Grade, what: &str, offset: u64) {
        self.push(grade, Finding { member: None, what: clean(what), offset });
    }

    /// Adds a finding that is already made.
    pub fn push(&mut self, grade: Grade, finding: Finding) {
        match grade {
            Grade::Danger => self.danger = true,
            Grade::NotScanned => self.not_scanned = true,
            Grade::Malformed => self.malformed = true,
        }
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push((grade, finding));
            return;
        }
        self.more = self.more.saturating_add(1);
        if grade == Grade::Danger {
            // A flood of lesser findings must not hide what is dangerous.
            if let Some(slot) = self.findings.iter_mut().rev().find(|f| f.0 != Grade::Danger) {
                *slot = (grade, finding);
            }
        }
    }

    /// Notes a global of the `__torch__` space.
    pub fn pend(&mut self, what: &str, offset: u64) {
        if self.pending.is_none() {
            self.pending = Some(Finding { member: None, what: clean(what), offset });
        }
    }

    /// Takes another log's findings over, naming the member they stand in.
    pub fn absorb(&mut self, other: Log, member: Option<&str>) {
        for (grade, mut finding) in other.findings {
            if finding.member.is_none() {
                finding.member = member.map(str::to_owned);
            }
            self.push(grade, finding);
        }
        self.more = self.more.saturating_add(other.more);
        self.pickles = self.pickles.saturating_add(other.pickles);
        if self.pending.is_none() {
            self.pending = other.pending.map(|mut f| {
                f.member = f.member.or_else(|| member.map(str::to_owned));
                f
            });
        }
    }

    /// True when nothing at all was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.pending.is_none()
    }
}

/// What is shared by all layers of one scan.
#[derive(Default)]
pub(super) struct Budget {
    /// Bytes of the outermost input read so far.
    pub outer: Cell<u64>,
    /// Bytes that came out of decompression so far, all layers together.
    pub inflated: Cell<u64>,
}

/// Where [`Ctx::leave`] goes back to: the path outside of a member.
pub(super) struct Outer(Option<String>);

/// State of one scan.
pub(super) struct Ctx {
    pub log: Log,
    pub depth: u32,
    member: Option<String>,
    pub budget: Rc<Budget>,
}

impl Ctx {
    pub fn new() -> Self {
        Self { log: Log::default(), depth: 0, member: None, budget: Rc::default() }
    }

    /// Adds a finding about the member being read.
    pub fn add(&mut self, grade: Grade, what: &str, offset: u64) {
        let member = self.member.clone();
        self.log.push(grade, Finding { member, what: clean(what), offset });
    }

    /// Takes over a parser's findings.
    pub fn absorb(&mut self, log: Log) {
        let member = self.member.clone();
        self.log.absorb(log, member.as_deref());
    }

    /// Steps into a member; `None` when that is deeper than [`MAX_DEPTH`].
    pub fn enter(&mut self, name: Option<&str>) -> Option<Outer> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let outer = self.member.clone();
        if let Some(name) = name {
            let path = match &outer {
                Some(outer) => format!("{outer}!{name}"),
                None => name.to_owned(),
            };
            self.member = Some(clean_to(&path, MAX_MEMBER_BYTES));
        }
        Some(Outer(outer))
    }

    /// Steps out again, to what [`Ctx::enter`] returned.
    pub fn leave(&mut self, outer: Outer) {
        self.depth = self.depth.saturating_sub(1);
        self.member = outer.0;
    }

    /// The report, once everything is read.
    pub fn into_report(mut self, format: Format, bytes: u64) -> Report {
        if let Some(pending) = self.log.pending.take() {
            self.log.push(Grade::Danger, pending);
        }
        let log = self.log;
        let verdict = if log.danger {
            Verdict::Dangerous
        } else if log.not_scanned {
            Verdict::NotScanned
        } else if log.malformed {
            Verdict::Malformed
        } else if log.pickles > 0 {
            Verdict::Safe
        } else {
            Verdict::NotAPickle
        };
        let findings = log.findings.into_iter().map(|f| f.1).collect();
        Report { format, verdict, findings, more: log.more, bytes }
    }
}

/// Makes foreign text harmless: no control characters, bounded length.
pub(super) fn clean(text: &str) -> String {
    clean_to(text, MAX_FINDING_BYTES)
}

fn clean_to(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        // Bidirectional overrides and separators can forge a line as well as a control can.
        let harmless = !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        let c = if harmless { c } else { '\u{fffd}' };
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}
