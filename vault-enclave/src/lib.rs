//! What runs inside the enclave, docs/ENCLAVE.md: the measured configuration, the key request (docs/KEY_RELEASE.md section 4), the
//! weights' way into memory, and serving over attested TLS. `mvault-init` (init/) boots it.
//!
//! Connections, the clock, randomness and the hardware are arguments: an enclave has none of its own to trust.

pub mod attested;
pub mod config;
mod connect;
pub mod fetch;
pub mod kms;
pub mod log;
pub mod model;
pub mod release;
pub mod serve;
pub mod watch;
pub mod weights;

pub use connect::{Connection, Dial, Tcp, host_of};

/// vsock ports between an enclave and its parent: docs/ENCLAVE.md section 4.
pub mod port {
    /// Lines for the operator, from the enclave.
    pub const JOURNAL: u32 = 7001;
    /// The sealed artifact, for the enclave.
    pub const MODEL: u32 = 7002;
    /// TLS to the broker or to AWS KMS, for the enclave.
    pub const BROKER: u32 = 7003;
    /// The parent's AWS credentials, for the enclave.
    pub const CREDENTIALS: u32 = 7004;
    /// TLS from clients, to the enclave.
    pub const SERVE: u32 = 7443;
}
