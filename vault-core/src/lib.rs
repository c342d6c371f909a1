//! The mvault sealed format: seal, open, range reads, keys, recipients, manifest, scan; what differs between two models.
//!
//! Everything here is synchronous and pure: no network, no clock, no environment. Time and
//! randomness are parameters, storage is behind [`std::io`]-like traits. The bytes are
//! specified in `docs/FORMAT.md`; code that touches them cites its rules (`[F-12]`).

pub mod about;
pub mod aead;
pub mod cbor;
mod chunk;
pub mod compare;
mod digest;
pub mod error;
mod feed;
mod gate;
pub mod geometry;
pub mod header;
pub mod io;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod model_signature;
pub mod open;
pub mod provenance;
pub mod recipient;
pub mod scan;
pub mod seal;
pub mod secret;
pub mod signature;

pub use error::{Error, Result, Rule};
pub use minicbor::bytes::ByteVec;
pub use rand_core::CryptoRng;
