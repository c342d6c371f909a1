//! The key broker: challenge, verification, appraisal, release, limits, release log. docs/KEY_RELEASE.md sections 4 to 7.
//!
//! [`handler`] decides, [`server`] speaks HTTP over TLS, [`state`] remembers. The clock and randomness are read here and
//! nowhere below.

pub mod advice;
pub mod config;
pub mod judge;
pub mod keyring;
pub mod ledger;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod rules;
pub mod server;
pub mod state;
pub mod tls;
