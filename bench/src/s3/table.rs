//! The tables of the S3 bench: ratio first, then rates, memory, the client's CPU and the server's.

use std::time::Duration;

use super::Kind;
use super::contenders::{LOOP, MVAULT, RAW, SMALL_LOOP};
use super::rounds::{CaseResult, Row, Run, Task};
use crate::machine;
use crate::table::{median, times, verdict, wall};

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;
const TASKS: [(Task, &str); 2] = [(Task::Put, "Put"), (Task::Get, "Get")];

/// Prints a table for put and one for get.
pub fn print(result: &CaseResult) {
    for (task, title) in TASKS {
        let size = machine::size(result.bytes);
        println!("{title}: {size} of random data, {}, medians of {} rounds", result.server, result.rounds);
        println!(
            "  {:>9}  {:>9}  {:>7}  {:>13}  {:>8}  {:>8}  {:>9}  {:>12}",
            "mvault is", "wall", "MiB/s", "slowest..best", "anon MiB", "peak MiB", "CPU s/GiB", "server s/GiB"
        );
        for row in &result.rows {
            print_row(result, row, task);
        }
        println!();
    }
}

fn print_row(result: &CaseResult, row: &Row, task: Task) {
    let runs = match row.runs(task) {
        Ok([]) => return,
        Ok(runs) => runs,
        Err(problem) => return println!("  {:>9}  {}: {problem}", "missing", row.name),
    };
    let rates: Vec<f64> = runs.iter().map(|run| result.bytes as f64 / MIB / seconds(run)).collect();
    let best = rates.iter().copied().fold(0.0, f64::max);
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect()).unwrap_or(0.0);
    let anon = median(runs.iter().filter_map(|run| run.client.peak_anon).map(|bytes| bytes as f64).collect());
    let gibs = result.bytes as f64 / GIB;
    println!(
        "  {:>9}  {:>9}  {:>7.0}  {:>13}  {:>8}  {:>8.1}  {:>9.2}  {:>12.2}  {}",
        times(ratio(result, row.name, task)),
        wall(Duration::from_secs_f64(of(seconds))),
        median(rates).unwrap_or(0.0),
        format!("{slowest:.0}..{best:.0}"),
        anon.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes / MIB)),
        of(|run| run.client.peak_rss as f64) / MIB,
        of(|run| run.client.cpu.as_secs_f64()) / gibs,
        of(|run| run.server_cpu) / gibs,
        row.name,
    );
}

/// A target, and what was measured.
struct Target {
    what: String,
    wanted: f64,
    got: Option<f64>,
}

/// The targets against what was measured.
pub fn print_targets(results: &[CaseResult]) {
    println!("Targets (ratios of speeds):");
    for target in targets(results) {
        let verdict = verdict(target.got, target.wanted);
        println!("  {verdict:>12}  {:>6}  at least {:.2}x  {}", times(target.got), target.wanted, target.what);
    }
}

/// The same for machines.
pub fn targets_json(results: &[CaseResult]) -> serde_json::Value {
    let one = |target: Target| {
        let verdict = verdict(target.got, target.wanted);
        serde_json::json!({ "what": target.what, "at_least": target.wanted, "ratio": target.got, "verdict": verdict })
    };
    targets(results).into_iter().map(one).collect()
}

fn targets(results: &[CaseResult]) -> Vec<Target> {
    let mut targets = Vec::new();
    for result in results {
        for (task, verb) in [(Task::Put, "push"), (Task::Get, "pull")] {
            let server = result.server;
            if result.kind != Kind::Null {
                let (name, got) = best_raw(result, task).map_or(("none ran", None), |(name, got)| (name, Some(got)));
                let what = format!("{verb} on {server}, against the best raw client ({name})");
                targets.push(Target { what, wanted: 0.9, got });
                continue;
            }
            for other in [LOOP, SMALL_LOOP] {
                let wanted = if task == Task::Put { 0.8 } else { 0.6 };
                let what = format!("{verb} on {server}, against the {other}");
                targets.push(Target { what, wanted, got: ratio(result, other, task) });
            }
        }
    }
    targets
}

/// The raw client that mvault is slowest against.
fn best_raw(result: &CaseResult, task: Task) -> Option<(&'static str, f64)> {
    let ratios = RAW.into_iter().filter_map(|name| Some((name, ratio(result, name, task)?)));
    ratios.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

/// The figures of one server for machines.
pub fn json(result: &CaseResult) -> serde_json::Value {
    let tasks = TASKS.map(|(task, title)| {
        let rows = result.rows.iter().filter(|row| !matches!(row.runs(task), Ok([])));
        serde_json::json!({ "task": title, "rows": rows.map(|row| row_json(result, row, task)).collect::<Vec<_>>() })
    });
    serde_json::json!({ "server": result.server, "bytes": result.bytes, "rounds": result.rounds, "tasks": tasks })
}

fn row_json(result: &CaseResult, row: &Row, task: Task) -> serde_json::Value {
    match row.runs(task) {
        Err(problem) => serde_json::json!({ "name": row.name, "missing": problem }),
        Ok(runs) => serde_json::json!({
            "name": row.name,
            "mvault_is_times": ratio(result, row.name, task),
            "seconds": runs.iter().map(seconds).collect::<Vec<_>>(),
            "cpu_seconds": runs.iter().map(|run| run.client.cpu.as_secs_f64()).collect::<Vec<_>>(),
            "server_cpu_seconds": runs.iter().map(|run| run.server_cpu).collect::<Vec<_>>(),
            "peak_rss_bytes": runs.iter().map(|run| run.client.peak_rss).max(),
            "peak_anon_bytes": runs.iter().map(|run| run.client.peak_anon).max(),
        }),
    }
}

/// mvault's speed divided by the other's, round by round, and the median of that.
fn ratio(result: &CaseResult, other: &str, task: Task) -> Option<f64> {
    let runs = |name: &str| result.rows.iter().find(|row| row.name == name)?.runs(task).ok();
    let pairs = runs(MVAULT)?.iter().zip(runs(other)?);
    median(pairs.map(|(ours, theirs)| seconds(theirs) / seconds(ours)).collect())
}

fn seconds(run: &Run) -> f64 {
    run.client.wall.as_secs_f64()
}
