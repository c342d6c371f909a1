//! Keeps enough free memory at hand that writing a file measures the writer, not the machine's host.
//!
//! A virtual machine may give its free memory back to the host two seconds after it was freed (free page reporting);
//! touching it again then costs several times what any contender does, and hits whoever runs next. The kernel reports
//! whole free blocks of 2 MiB only. So: fill memory once, and free all of it but one page in 64. What is free then is
//! never a whole block, stays with this machine, and is what the kernel hands out first. All contenders draw from it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

const PAGE: usize = 4096;
const GROUP: usize = 64 * PAGE;

/// The pages that are held; dropping it lets go of them.
pub struct Warm {
    held: PathBuf,
    /// How fast memory could be filled the first time, GiB/s.
    pub first_touch: f64,
}

/// Touches `bytes` of the memory behind `dir` (a folder in tmpfs) and leaves it free, but with the machine.
pub fn warm(dir: &Path, bytes: u64) -> std::io::Result<Warm> {
    let held = dir.join("held");
    let freed = dir.join("freed");
    let (mut keep, mut drop) = (File::create(&held)?, File::create(&freed)?);
    let (page, rest) = ([1; PAGE], vec![1; GROUP - PAGE]);
    let start = Instant::now();
    for _ in 0..bytes / GROUP as u64 {
        drop.write_all(&rest)?;
        keep.write_all(&page)?;
    }
    let first_touch = bytes as f64 / (1_u64 << 30) as f64 / start.elapsed().as_secs_f64();
    fs::remove_file(&freed)?;
    Ok(Warm { held, first_touch })
}

impl Drop for Warm {
    fn drop(&mut self) {
        // The folder goes with everything in it anyway.
        let _ = fs::remove_file(&self.held);
    }
}
