//! The verbs, one a file.

mod artifact;
pub mod bench;
pub mod cat;
pub mod completions;
pub mod iam;
pub mod inspect;
pub mod keygen;
pub mod open;
pub mod recipients;
mod rewrite;
pub mod scan;
pub mod seal;
mod select;
pub mod verify;
