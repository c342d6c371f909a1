//! The verbs, one a file.

mod artifact;
pub mod attest;
pub mod bench;
pub mod broker;
pub mod cat;
pub mod completions;
pub mod enclave;
pub mod gc;
pub mod iam;
pub mod inspect;
pub mod keygen;
pub mod ls;
pub mod open;
pub mod policy;
pub mod provenance;
pub mod publish;
pub mod pull;
pub mod push;
pub mod recipients;
mod rewrite;
pub mod rm;
pub mod scan;
pub mod seal;
mod select;
pub mod sign;
pub mod tag;
pub mod verify;
