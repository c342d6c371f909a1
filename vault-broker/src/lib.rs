//! The key broker: challenge, verification, appraisal, release, limits, release log. docs/KEY_RELEASE.md sections 4 to 7.
//!
//! [`judge`] decides what state cannot, [`state`] decides the rest and remembers, [`server`] speaks HTTP over TLS. The clock and
//! randomness are read in the server and nowhere below.

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
