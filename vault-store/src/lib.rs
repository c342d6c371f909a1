//! Where sealed artifacts live: a local folder, S3, or memory, all with one layout; the engine that moves them in
//! parallel parts and goes on where it was interrupted; and AWS KMS recipients.
//!
//! Everything that comes from a store is untrusted until vault-core has authenticated it. The layout and the
//! rules of resuming are in `docs/FORMAT.md`, sections 14 and 15.

pub mod aws;
pub mod error;

pub use error::{Cause, Result, StoreError};
