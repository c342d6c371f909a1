//! Evidence -> verified evidence -> appraisal; policies; key-release messages: docs/KEY_RELEASE.md.
//!
//! Pure: no network, clock or environment. Time, roots, nonces and randomness are arguments.
//! Code cites the steps it implements (`[V-7]`), and a refusal names the one that failed.

pub mod eif;
pub mod evidence;
pub mod key_policy;
pub mod kms;
pub mod nitro;
pub mod policy;
pub mod release;
pub mod step;
pub mod time;
pub mod tlog;

pub use evidence::{Pcr, Platform, VerifiedEvidence};
pub use step::{Refusal, Step};
