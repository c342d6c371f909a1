//! What runs inside the enclave. So far: asking a broker for a key (docs/KEY_RELEASE.md section 4, R-20 to R-23).
//!
//! Connections, the clock, randomness and the hardware are arguments: an enclave has none of its own to trust.

mod connect;
pub mod log;
pub mod release;

pub use connect::{Connection, Dial, Tcp};
