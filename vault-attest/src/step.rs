//! The numbered steps of docs/KEY_RELEASE.md, and what a failed one says.
//!
//! Expected and actual are for operators: a broker tells its peer the step alone.

use std::fmt;

/// A numbered step of docs/KEY_RELEASE.md. Displayed as `V-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Verification of evidence, section 2: 1 to 23.
    V(u8),
    /// Appraisal, section 3: 1 to 11.
    P(u8),
    /// The release protocol, section 4: 1 to 12 at the broker, 20 to 23 at the enclave.
    R(u8),
    /// An answer of AWS KMS, section 9.
    C(u8),
    /// The release log, section 6.
    L(u8),
    /// Attested TLS, docs/ENCLAVE.md section 6.
    T(u8),
}

impl Step {
    /// The step of this name, such as `V-7`.
    pub fn parse(text: &str) -> Option<Self> {
        let (letter, number) = text.split_once('-')?;
        let n: u8 = number.parse().ok()?;
        let step = match letter {
            "V" => Self::V(n),
            "P" => Self::P(n),
            "R" => Self::R(n),
            "C" => Self::C(n),
            "L" => Self::L(n),
            "T" => Self::T(n),
            _ => return None,
        };
        (step.to_string() == text).then_some(step)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, n) = match self {
            Self::V(n) => ('V', n),
            Self::P(n) => ('P', n),
            Self::R(n) => ('R', n),
            Self::C(n) => ('C', n),
            Self::L(n) => ('L', n),
            Self::T(n) => ('T', n),
        };
        write!(f, "{letter}-{n}")
    }
}

/// Why a step refused: what it wanted and what it met. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {what}: expected {expected}, found {actual}")]
pub struct Refusal {
    /// The step that failed.
    pub step: Step,
    /// What was looked at, such as `PCR0`.
    pub what: String,
    /// What it had to be.
    pub expected: String,
    /// What it was; cut to a length fit to print, and without control characters.
    pub actual: String,
}

impl Refusal {
    /// Longest `expected` or `actual`, in bytes: six PCRs fit.
    pub const MAX_SHOWN: usize = 768;

    /// A refusal; both values are made printable.
    pub fn new(step: Step, what: impl Into<String>, expected: impl fmt::Display, actual: impl fmt::Display) -> Self {
        let (expected, actual) = (shown(&expected.to_string()), shown(&actual.to_string()));
        Self { step, what: what.into(), expected, actual }
    }
}

/// Untrusted text, printable and of bounded length.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    if out.len() > Refusal::MAX_SHOWN {
        let cut = (0..=Refusal::MAX_SHOWN - 3).rev().find(|&n| out.is_char_boundary(n)).unwrap_or(0);
        out.truncate(cut);
        out.push('\u{2026}');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_back() {
        for step in [Step::V(1), Step::P(10), Step::R(23), Step::C(3), Step::L(6)] {
            assert_eq!(Step::parse(&step.to_string()), Some(step));
        }
        for bad in ["", "V", "V7", "V-", "V-07", "V-256", "X-1", "v-1", "V-+1"] {
            assert_eq!(Step::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_printable_and_bounded() {
        let refusal = Refusal::new(Step::V(7), "module_id", "text", "a\x1b[2J\u{e9}".repeat(400));
        assert!(refusal.actual.len() <= Refusal::MAX_SHOWN);
        assert!(!refusal.to_string().contains('\x1b'));
    }
}
