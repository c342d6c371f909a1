//! The tables: ratio first, then the rate, the spread, memory and CPU.

use std::time::Duration;

use crate::contenders::{AGE, COPY, Engine, MVAULT, READ, Task};
use crate::measure::Cost;
use crate::rounds::{CaseResult, Row};

const ENGINE: &str = "AEAD engine alone, all cores, in cache (limit)";
const ENGINE_MEMORY: &str = "AEAD engine alone, all cores, over memory (limit)";
const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

/// Prints one table a task.
pub fn print(result: &CaseResult) {
    for (task, title) in TASKS {
        println!("{title}: {}, medians of {} rounds", result.title, result.rounds);
        println!(
            "  {:>9}  {:>9}  {:>7}  {:>15}  {:>8}  {:>8}  {:>9}",
            "mvault is", "wall", "GiB/s", "slowest..best", "anon MiB", "peak MiB", "CPU s/GiB"
        );
        for row in &result.rows {
            print_row(result, row, task);
        }
        for name in [ENGINE, ENGINE_MEMORY] {
            if let Some((rate, ratio)) = engine(result, task, name) {
                let (ratio, gap) = (times(ratio), " ".repeat(49));
                println!("  {ratio:>9}  {:>9}  {rate:>7.2}  {gap}{name}", "");
            }
        }
        if let Err(problem) = &result.engine {
            println!("  {:>9}  {ENGINE}: {problem}", "missing");
        }
        println!();
    }
}

/// Prints one table for all tasks, with wall times only: for inputs that take milliseconds.
pub fn print_short(result: &CaseResult) {
    println!("{}, medians of {} rounds (in brackets: mvault is that many times as fast)", result.title, result.rounds);
    println!("  {:>18}  {:>18}  {:>18}", "seal to a file", "open to a file", "open to memory");
    for row in &result.rows {
        if let Err(problem) = &row.costs {
            println!("  {:>18}  {:>18}  {:>18}  {}: {problem}", "missing", "", "", row.name);
            continue;
        }
        if TASKS.iter().all(|(task, _)| row.costs(*task).is_ok_and(<[Cost]>::is_empty)) {
            continue; // cat reads no folder
        }
        let cells = TASKS.map(|(task, _)| {
            let costs = row.costs(task).unwrap_or_default();
            let time = median(costs.iter().map(|cost| cost.wall.as_secs_f64()).collect());
            let time = time.map(|time| wall(Duration::from_secs_f64(time)));
            time.map_or_else(String::new, |time| format!("{time} ({})", times(ratio(result, row.name, task))))
        });
        println!("  {:>18}  {:>18}  {:>18}  {}", cells[0], cells[1], cells[2], row.name);
    }
    println!();
}

/// The targets against what was measured.
pub fn print_targets(result: &CaseResult) {
    println!("Targets ({}; ratios of speeds):", result.title);
    let targets = [
        ("seal to a file", Task::Seal, AGE, 2.0),
        ("seal to a file", Task::Seal, COPY, 1.0),
        ("open to a file", Task::Open, AGE, 4.0),
        ("open to a file", Task::Open, COPY, 1.1),
        ("open to memory", Task::Memory, READ, 0.6),
        ("open to memory", Task::Memory, ENGINE, 0.8),
        ("open to memory", Task::Memory, ENGINE_MEMORY, 0.8),
    ];
    for (what, task, other, wanted) in targets {
        let got = match other {
            ENGINE | ENGINE_MEMORY => engine(result, task, other).and_then(|(_, ratio)| ratio),
            _ => ratio(result, other, task),
        };
        let verdict = verdict(got, wanted);
        println!("  {verdict:>12}  {:>6}  at least {wanted:.2}x  {what}, against {other}", times(got));
    }
}

/// What is said of a target.
pub fn verdict(got: Option<f64>, wanted: f64) -> &'static str {
    match got {
        Some(got) if got >= wanted => "pass",
        Some(_) => "MISS",
        None => "not measured",
    }
}

/// The same figures for machines.
pub fn json(result: &CaseResult) -> serde_json::Value {
    let tasks = TASKS.map(|(task, title)| {
        let rows: Vec<_> = result.rows.iter().map(|row| row_json(result, row, task)).collect();
        serde_json::json!({
            "task": title,
            "rows": rows,
            "engine_gib_s": engine(result, task, ENGINE).map(|(rate, _)| rate),
            "engine_ratio": engine(result, task, ENGINE).and_then(|(_, ratio)| ratio),
            "engine_memory_gib_s": engine(result, task, ENGINE_MEMORY).map(|(rate, _)| rate),
            "engine_memory_ratio": engine(result, task, ENGINE_MEMORY).and_then(|(_, ratio)| ratio),
        })
    });
    serde_json::json!({ "input": result.title, "bytes": result.bytes, "rounds": result.rounds, "tasks": tasks })
}

/// The middle of the values (the mean of the middle two).
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// A time for people.
pub fn wall(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

const TASKS: [(Task, &str); 3] =
    [(Task::Seal, "Seal to a file"), (Task::Open, "Open to a file"), (Task::Memory, "Open to memory (mvault verify)")];

fn print_row(result: &CaseResult, row: &Row, task: Task) {
    let costs = match row.costs(task) {
        Ok([]) => return,
        Ok(costs) => costs,
        Err(problem) => return println!("  {:>9}  {}: {problem}", "missing", row.name),
    };
    let rates: Vec<f64> = costs.iter().map(|cost| rate(result.bytes, cost)).collect();
    let best = rates.iter().copied().fold(0.0, f64::max);
    let slowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let of = |value: fn(&Cost) -> f64| median(costs.iter().map(value).collect()).unwrap_or(0.0);
    let anon = median(costs.iter().filter_map(|cost| cost.peak_anon).map(|bytes| bytes as f64).collect());
    println!(
        "  {:>9}  {:>9}  {:>7.2}  {:>15}  {:>8}  {:>8.1}  {:>9.2}  {}",
        times(ratio(result, row.name, task)),
        wall(Duration::from_secs_f64(of(|cost| cost.wall.as_secs_f64()))),
        median(rates).unwrap_or(0.0),
        format!("{slowest:.2}..{best:.2}"),
        anon.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes / MIB)),
        of(|cost| cost.peak_rss as f64) / MIB,
        of(|cost| cost.cpu.as_secs_f64()) / (result.bytes as f64 / GIB),
        row.name,
    );
}

fn row_json(result: &CaseResult, row: &Row, task: Task) -> serde_json::Value {
    match row.costs(task) {
        Err(problem) => serde_json::json!({ "name": row.name, "missing": problem }),
        Ok(costs) => serde_json::json!({
            "name": row.name,
            "mvault_is_times": ratio(result, row.name, task),
            "seconds": costs.iter().map(|cost| cost.wall.as_secs_f64()).collect::<Vec<_>>(),
            "cpu_seconds": costs.iter().map(|cost| cost.cpu.as_secs_f64()).collect::<Vec<_>>(),
            "peak_rss_bytes": costs.iter().map(|cost| cost.peak_rss).max(),
            "peak_anon_bytes": costs.iter().map(|cost| cost.peak_anon).max(),
        }),
    }
}

/// mvault's speed divided by the other's, round by round, and the median of that.
fn ratio(result: &CaseResult, other: &str, task: Task) -> Option<f64> {
    let costs = |name: &str| result.rows.iter().find(|row| row.name == name)?.costs(task).ok();
    let pairs = costs(MVAULT)?.iter().zip(costs(other)?);
    median(pairs.map(|(ours, theirs)| theirs.wall.as_secs_f64() / ours.wall.as_secs_f64()).collect())
}

/// The engine's median rate, and mvault's speed divided by the engine's.
fn engine(result: &CaseResult, task: Task, name: &str) -> Option<(f64, Option<f64>)> {
    let rates = result.engine.as_ref().ok().filter(|_| name == ENGINE || task != Task::Seal)?;
    let pick = |engine: &Engine| match (task, name) {
        (Task::Seal, _) => engine.seal,
        (_, ENGINE_MEMORY) => engine.open_memory,
        _ => engine.open,
    };
    let rate_alone = median(rates.iter().map(pick).collect())?;
    let ours = result.rows.iter().find(|row| row.name == MVAULT)?.costs(task).ok();
    let ratio = ours.and_then(|costs| {
        median(costs.iter().zip(rates).map(|(cost, alone)| rate(result.bytes, cost) / pick(alone)).collect())
    });
    Some((rate_alone, ratio))
}

fn rate(bytes: u64, cost: &Cost) -> f64 {
    bytes as f64 / GIB / cost.wall.as_secs_f64()
}

/// A ratio for people.
pub fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"))
}
