//! Errors by whose fault they are. Everything that keeps an artifact from being authenticated is
//! [`Error::Refused`] with the rule of `docs/FORMAT.md` that failed; the caller's own mistakes and the
//! system's failures are other variants. No variant carries plaintext or key material.

use std::{fmt, io};

/// A numbered rule of `docs/FORMAT.md`; displays as `F-25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule(pub u8);

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "F-{}", self.0)
    }
}

/// What went wrong in the core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The artifact breaks a rule of the format: it is not authentic, or cannot be shown to be.
    #[error("{what} [{rule}]")]
    Refused {
        /// The rule that failed.
        rule: Rule,
        /// What was expected and what was found, without secrets.
        what: String,
    },
    /// The scanner's verdict on an entry forbids sealing it.
    #[error("{path}: {verdict}: {what}")]
    Unsafe {
        /// The entry's path.
        path: String,
        /// `dangerous`, `not-scanned` or `malformed`.
        verdict: crate::scan::Verdict,
        /// The first finding.
        what: String,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A source file changed while it was being read.
    #[error("{path}: changed while it was being sealed ({what})")]
    SourceChanged {
        /// The entry's path.
        path: String,
        /// What differed.
        what: String,
    },
    /// A file, pipe or store failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// The system's error.
        source: io::Error,
    },
}

/// The core's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The rule a refusal names.
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Self::Refused { rule, .. } => Some(*rule),
            _ => None,
        }
    }

    pub(crate) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}

/// A refusal under rule `n` of FORMAT.md.
pub(crate) fn refused(n: u8, what: impl Into<String>) -> Error {
    Error::Refused { rule: Rule(n), what: what.into() }
}

/// A signer is demanded and there is no signature `[F-20]`.
pub fn not_signed() -> Error {
    refused(20, "the artifact is not signed, and a signer is demanded")
}

/// Refuses under rule `n` unless `ok`.
pub(crate) fn require(ok: bool, n: u8, what: impl FnOnce() -> String) -> Result<()> {
    if ok { Ok(()) } else { Err(refused(n, what())) }
}
