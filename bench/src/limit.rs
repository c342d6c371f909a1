//! The limit of writing one file on all cores: every core writes pieces of it at their offsets, and does nothing else.
//! Run as a program of its own (`mvault-bench --write-limit FILE BYTES`), like every other contender.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the bench calls itself for this.
pub const FLAG: &str = "--write-limit";

/// Bytes a write: what mvault writes at once.
const PIECE: usize = 256 * 1024;

/// Writes `bytes` to `file`.
///
/// # Panics
/// If the file cannot be written: the bench shows the row as failed.
pub fn write(file: &Path, bytes: u64) {
    let out = File::create_new(file).expect("the output is new");
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let piece = vec![7_u8; PIECE];
                loop {
                    let at = next.fetch_add(PIECE as u64, Ordering::Relaxed);
                    let Some(left) = bytes.checked_sub(at).filter(|left| *left > 0) else { return };
                    let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                    out.write_all_at(&piece[..len], at).expect("there is room");
                }
            });
        }
    });
}
