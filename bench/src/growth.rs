//! How mvault's time and memory grow with the size of what it seals.
//!
//! Memory is anonymous memory (RssAnon, sampled every 5 ms): the page cache and mapped input are not mvault's to bound.
//! The peak with mapped files (ru_maxrss) stands beside it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::contenders::{Contender, Entry, Input, MVAULT, Scratch, Task};
use crate::machine;
use crate::measure::{Cost, Runner};
use crate::table;

const SIZES: [u64; 5] = [64 << 10, 1 << 20, 64 << 20, 1 << 30, 8 << 30];
const MIB: f64 = (1_u64 << 20) as f64;

/// One size: where it was measured, and what sealing and opening cost.
pub struct Point {
    bytes: u64,
    place: &'static str,
    costs: Result<(Cost, Cost), String>,
}

/// Measures each size up to `max`: medians of five runs for the small ones, one run from 1 GiB on.
pub fn run(runner: &Runner, contenders: &[Entry], max: u64) -> Vec<Point> {
    let ours = contenders.iter().find(|(name, _)| *name == MVAULT);
    let Some((_, contender)) = ours else { return Vec::new() };
    SIZES
        .into_iter()
        .filter(|bytes| *bytes <= max)
        .map(|bytes| {
            let result = contender.as_ref().map_err(Clone::clone).and_then(|contender| {
                let (dir, place) = roomy(runner, bytes)?;
                eprintln!("bench: growth, {} {place}", machine::size(bytes));
                let costs = measure(runner, contender, &dir, bytes);
                fs::remove_dir_all(dir).map_err(|e| e.to_string())?;
                Ok((place, costs?))
            });
            let (place, costs) = result.map_or_else(|e| ("nowhere", Err(e)), |(place, costs)| (place, Ok(costs)));
            Point { bytes, place, costs }
        })
        .collect()
}

/// The space that the largest size which fits into `room` takes.
pub fn need(max: u64, room: u64) -> u64 {
    SIZES.into_iter().filter(|bytes| *bytes <= max).map(space).filter(|need| *need <= room).max().unwrap_or(0)
}

/// The input and the sealed file, or the sealed file and what is opened, and a little more.
fn space(bytes: u64) -> u64 {
    bytes * 2 + (512 << 20)
}

/// Prints the table.
pub fn print(points: &[Point]) {
    println!("How time and memory grow (anon: RssAnon sampled every 5 ms, without page cache and mapped files)");
    println!(
        "  {:>8}  {:>9}  {:>7}  {:>8}  {:>8}  {:>9}  {:>7}  {:>8}  {:>8}",
        "size", "seal", "GiB/s", "anon MiB", "peak MiB", "open", "GiB/s", "anon MiB", "peak MiB"
    );
    for point in points {
        match &point.costs {
            Ok((seal, open)) => {
                println!(
                    "  {:>8}  {}  {}  {}",
                    machine::size(point.bytes),
                    cells(point, seal),
                    cells(point, open),
                    point.place
                );
            }
            Err(problem) => println!("  {:>8}  not measured: {problem}", machine::size(point.bytes)),
        }
    }
    println!();
}

/// The same for machines.
pub fn json(points: &[Point]) -> serde_json::Value {
    let cost = |cost: &Cost| {
        serde_json::json!({
            "seconds": cost.wall.as_secs_f64(),
            "cpu_seconds": cost.cpu.as_secs_f64(),
            "peak_anon_bytes": cost.peak_anon,
            "peak_rss_bytes": cost.peak_rss,
        })
    };
    points
        .iter()
        .map(|point| match &point.costs {
            Ok((seal, open)) => {
                serde_json::json!({ "bytes": point.bytes, "place": point.place, "seal": cost(seal), "open": cost(open) })
            }
            Err(problem) => serde_json::json!({ "bytes": point.bytes, "missing": problem }),
        })
        .collect()
}

fn cells(point: &Point, cost: &Cost) -> String {
    format!(
        "{:>9}  {:>7.2}  {:>8.1}  {:>8.1}",
        table::wall(cost.wall),
        point.bytes as f64 / MIB / 1024.0 / cost.wall.as_secs_f64(),
        cost.peak_anon.unwrap_or(0) as f64 / MIB,
        cost.peak_rss as f64 / MIB,
    )
}

/// A new folder with room for the input and the sealed file (the input goes before the sealed file is opened):
/// in the bench's own, or else below the system's temporary folder.
fn roomy(runner: &Runner, bytes: u64) -> Result<(PathBuf, &'static str), String> {
    let need = space(bytes);
    let disk = std::env::temp_dir();
    for (parent, place) in [(&runner.dir, "in tmpfs"), (&disk, "on disk (too large for tmpfs here)")] {
        if machine::room(parent).is_ok_and(|room| room >= need) {
            let dir = parent.join("growth");
            fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            return Ok((dir, place));
        }
    }
    Err(format!("needs {} of free space", machine::size(need)))
}

fn measure(runner: &Runner, contender: &Contender, dir: &Path, bytes: u64) -> Result<(Cost, Cost), String> {
    let input = Input { path: dir.join("input.bin"), bytes, folder: false };
    let scratch = Scratch { sealed: dir.join("sealed"), opened: dir.join("opened") };
    let rounds = if bytes < 1 << 30 { 5 } else { 1 };
    let (mut seals, mut opens) = (Vec::new(), Vec::new());
    machine::write_random(&input.path, bytes).map_err(|e| e.to_string())?;
    for _ in 0..rounds {
        let step = contender.step(Task::Seal, &input, &scratch).ok_or("mvault does not seal")?;
        remove(&scratch.sealed).map_err(|e| e.to_string())?;
        seals.push(runner.run(&step)?);
    }
    remove(&input.path).map_err(|e| e.to_string())?;
    for _ in 0..rounds {
        let step = contender.step(Task::Open, &input, &scratch).ok_or("mvault does not open")?;
        remove(&scratch.opened).and_then(|()| fs::create_dir(&scratch.opened)).map_err(|e| e.to_string())?;
        opens.push(runner.run(&step)?);
    }
    Ok((middle(seals), middle(opens)))
}

/// The median wall and CPU time, and the highest memory of all runs.
fn middle(costs: Vec<Cost>) -> Cost {
    let mut sorted = costs;
    sorted.sort_by_key(|cost| cost.wall);
    let mut cost = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    for other in &sorted {
        cost.peak_anon = cost.peak_anon.max(other.peak_anon);
        cost.peak_rss = cost.peak_rss.max(other.peak_rss);
    }
    cost
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}
