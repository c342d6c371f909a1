//! Helpers shared by the integration tests: repeatable randomness, sealing into memory, reading back.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)] // tests: a panic is the report

pub mod arriving;
pub mod artifact;
pub mod asker;
pub mod canned;
pub mod evidence;
pub mod forge;
pub mod front;
pub mod fuzz;
pub mod postgres;
pub mod proxy;
pub mod publisher;
pub mod server;
pub mod vector;

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::path::PathBuf;

/// Randomness that is the same on every run.
pub fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// `len` bytes that do not compress and do not look like a model.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    rand_core::Rng::fill_bytes(&mut rng(seed ^ 0x006E_6F69_7365), &mut data);
    if let Some(first) = data.first_mut() {
        *first = 0xF7; // never the start of a pickle or an archive
    }
    data
}

/// A folder under `../shared/vectors`; absent ones fail in CI and are skipped elsewhere.
pub fn shared_vectors(folder: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "vectors not present: {}", path.display());
    None
}
