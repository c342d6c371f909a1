//! Memory of a push by the size of the model. Nobody waits for 5 TiB: the source is a file of holes, and the push is
//! stopped after some seconds, when the parts in flight are what they will be until the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Options;
use super::servers::{BUCKET, NullSink, Server};
use crate::machine;
use crate::measure::{Cost, Runner, Step};

/// The usual parts, the largest that are kept until they are sent, some that are not, and the largest object of S3.
const SIZES: [u64; 4] = [64 << 30, 450 << 30, 1 << 40, 5 << 40];
/// When each push is stopped.
const SECONDS: &str = "20";
const LIMIT_MIB: f64 = 256.0;
const MIB: f64 = (1_u64 << 20) as f64;

/// One size.
pub struct Point {
    bytes: u64,
    seen: Result<Seen, String>,
}

struct Seen {
    part_bytes: u64,
    /// Parts that the server had when the push was stopped.
    parts: usize,
    cost: Cost,
}

/// Pushes each for a while, to the null sink.
pub fn run(runner: &Runner, options: &Options) -> Result<Vec<Point>, String> {
    let server = NullSink::start(runner)?;
    runner.run(&Step::program(&options.mvault).args(["keygen"]))?; // who has a key keeps a record
    let point = |bytes| {
        eprintln!("bench: {SECONDS} s of a push of {}", machine::size(bytes));
        Point { bytes, seen: push(runner, options, server.url(), bytes) }
    };
    Ok(SIZES.into_iter().map(point).collect())
}

fn push(runner: &Runner, options: &Options, url: &str, bytes: u64) -> Result<Seen, String> {
    let source = runner.dir.join("holes.bin");
    File::create(&source).and_then(|file| file.set_len(bytes)).map_err(|e| format!("{}: {e}", source.display()))?;
    let vault = format!("s3://{BUCKET}/large");
    let step = Step::bash(r#"timeout --foreground -s INT "$@" || test $? = 124"#)
        .args([SECONDS])
        .args([&options.mvault])
        .args(["push", "--endpoint-url", url])
        .args([&source])
        .args([&vault, "model"]);
    let ran = runner.run(&step);
    fs::remove_file(&source).map_err(|e| e.to_string())?;
    let records = runner.dir.join(".local/state/mvault/pushes");
    let record = record_in(&records);
    let _ = fs::remove_dir_all(&records); // none if the push failed before it sent anything
    let cost = ran?;
    let (part_bytes, parts) = record?;
    Ok(Seen { part_bytes, parts, cost })
}

/// Bytes of a part and how many are done, as the one record in a folder has it (FORMAT.md section 12).
fn record_in(folder: &Path) -> Result<(u64, usize), String> {
    let paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|item| item.path()).collect();
    let [path] = paths.as_slice() else { return Err(format!("{} records of one push", paths.len())) };
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let first: serde_json::Value =
        serde_json::from_str(text.lines().next().unwrap_or_default()).map_err(|e| e.to_string())?;
    Ok((first["part_size"].as_u64().unwrap_or_default(), text.matches("{\"done\":").count()))
}

/// Prints the table.
pub fn print(points: &[Point]) {
    println!("Memory of a push, by the size of the model (a file of holes; the first {SECONDS} s, to the null sink)");
    println!("  {:>8}  {:>8}  {:>7}  {:>7}  {:>8}", "size", "part MiB", "parts", "MiB/s", "peak MiB");
    for point in points {
        let size = machine::size(point.bytes);
        match &point.seen {
            Ok(seen) => println!(
                "  {size:>8}  {:>8.0}  {:>7}  {:>7.0}  {:>8.1}",
                seen.part_bytes as f64 / MIB,
                seen.parts,
                seen.rate(),
                seen.peak(),
            ),
            Err(problem) => println!("  {size:>8}  not measured: {problem}"),
        }
    }
    let worst = points.iter().map(|point| point.seen.as_ref().map_or(f64::INFINITY, Seen::peak)).fold(0.0, f64::max);
    let verdict = if worst <= LIMIT_MIB { "pass" } else { "MISS" };
    println!("  {verdict:>12}  {worst:.1} MiB, of at most {LIMIT_MIB} MiB at any size\n");
}

/// The same for machines.
pub fn json(points: &[Point]) -> serde_json::Value {
    let one = |point: &Point| match &point.seen {
        Ok(seen) => serde_json::json!({
            "bytes": point.bytes,
            "part_bytes": seen.part_bytes,
            "parts": seen.parts,
            "peak_rss_bytes": seen.cost.peak_rss,
        }),
        Err(problem) => serde_json::json!({ "bytes": point.bytes, "missing": problem }),
    };
    points.iter().map(one).collect()
}

impl Seen {
    /// MiB/s of what the server has, in whole parts.
    fn rate(&self) -> f64 {
        self.part_bytes as f64 * self.parts as f64 / MIB / self.cost.wall.as_secs_f64()
    }

    fn peak(&self) -> f64 {
        self.cost.peak_rss as f64 / MIB
    }
}
