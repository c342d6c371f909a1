//! Facts about this machine, and the data that is measured with.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::measure::{Runner, Step};

/// The machine, and the versions of `programs` (name, program, the argument that makes it say), in a few lines.
pub fn describe(runner: &Runner, programs: &[(&str, &Path, &str)]) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
    };
    let flags = field("flags");
    let features: Vec<&str> = ["aes", "vaes", "vpclmulqdq", "avx2", "avx512f", "sha_ni"]
        .into_iter()
        .filter(|feature| flags.split(' ').any(|flag| flag == *feature))
        .collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = memory("MemTotal:").unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let mut text = format!(
        "Machine: {}, {cores} cores, {}; {}; Linux {}; load {load}\nVersions:",
        field("model name"),
        features.join(" "),
        size(memory),
        kernel.trim(),
    );
    let version = |program: &Path, arg: &str| match runner.output(&Step::program(program).args([arg])) {
        Ok(output) => output.lines().next().unwrap_or_default().trim().to_owned(),
        Err(problem) => format!("missing ({problem})"),
    };
    for (name, program, arg) in programs {
        let line = version(program, arg);
        let line = line.strip_prefix(name).map_or(line.as_str(), str::trim_start);
        text = text + " " + name + " " + line + ";";
    }
    text
}

/// gpg starts an agent in the temporary folder; ask it to end.
pub fn stop_agents(runner: &Runner) {
    // No gpg, no agent: nothing to do about a failure.
    let _ = runner.run(&Step::program("gpgconf").args(["--kill", "gpg-agent"]));
}

/// Bytes that can still be put into the folder; in tmpfs that is also memory.
pub fn room(dir: &Path) -> Result<u64, String> {
    let free: u64 = df(dir, "avail")?.parse().map_err(|_| "df: unexpected output")?;
    Ok(if in_memory(dir) { free.min(memory("MemAvailable:").unwrap_or(free)) } else { free })
}

/// Whether the folder is in tmpfs.
pub fn in_memory(dir: &Path) -> bool {
    df(dir, "fstype").is_ok_and(|kind| kind == "tmpfs")
}

fn df(dir: &Path, field: &str) -> Result<String, String> {
    let runner = Runner { dir: dir.to_owned(), env: Vec::new(), cores: None };
    let text = runner.output(&Step::program("df").args(["-B1", &format!("--output={field}")]).args([dir]))?;
    Ok(text.lines().nth(1).unwrap_or_default().trim().to_owned())
}

/// All bytes of a file or of the files below a folder.
pub fn bytes_in(path: &Path) -> io::Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    fs::read_dir(path)?.map(|entry| bytes_in(&entry?.path())).sum()
}

/// Fills a new file with data that no compressor shrinks (xorshift64*; speed matters, secrecy does not).
pub fn write_random(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut left = bytes;
    while left > 0 {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        let take = left.min(8);
        file.write_all(word.get(..usize::try_from(take).unwrap_or(8)).unwrap_or(&word))?;
        left -= take;
    }
    file.flush()
}

/// A size for people: `64 KiB`, `86.7 MiB`, `2 GiB`.
pub fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..=0xF_FFFF => (1 << 10, "KiB"),
        0x10_0000..=0x3FFF_FFFF => (1 << 20, "MiB"),
        _ => (1_u64 << 30, "GiB"),
    };
    let number = format!("{:.1}", bytes as f64 / unit as f64);
    format!("{} {name}", number.strip_suffix(".0").unwrap_or(&number))
}

fn memory(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text.lines().find(|line| line.starts_with(name))?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
