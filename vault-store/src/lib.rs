//! Where sealed artifacts live: a local folder, S3, or memory, all with one layout; the engine that moves them in
//! parallel parts and goes on where it was interrupted; and AWS KMS recipients.
//!
//! Everything that comes from a store is untrusted until vault-core has authenticated it. The layout and the
//! rules of resuming are in `docs/FORMAT.md`, sections 11 and 12.

pub mod arrivals;
pub mod aws;
pub mod body;
pub mod download;
pub mod error;
pub mod folder;
pub mod kms;
pub mod layout;
pub mod memory;
pub mod parts;
pub mod plan;
pub mod push;
pub mod record;
mod retry;
pub mod s3;
pub mod spool;
pub mod store;
pub mod upload;
pub mod uri;
pub mod vault;

pub use error::{Cause, Result, StoreError};
pub use store::Store;
