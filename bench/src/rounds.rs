//! The rounds: each contender once per round, in an order that turns.

use std::fs;
use std::path::Path;

use crate::contenders::{self, Contender, Entry, Input, Scratch, Task};
use crate::machine;
use crate::measure::{Cost, Runner};

/// One input and how often it is measured.
pub struct Case {
    /// What the tables call it.
    pub title: String,
    /// How many times each contender runs.
    pub rounds: usize,
    /// What is sealed.
    pub input: Input,
}

/// All that was measured on one input.
pub struct CaseResult {
    /// What the tables call it.
    pub title: String,
    /// Bytes of plaintext.
    pub bytes: u64,
    /// Rounds that were run.
    pub rounds: usize,
    /// One row a contender, in a fixed order.
    pub rows: Vec<Row>,
    /// The AEAD engine alone on all cores, a round each.
    pub engine: Result<Vec<contenders::Engine>, String>,
}

/// One contender's runs.
pub struct Row {
    /// The contender.
    pub name: &'static str,
    /// One cost a round for seal, open and memory (empty where it does not do that), or why it could not run.
    pub costs: Result<[Vec<Cost>; 3], String>,
}

impl Row {
    /// The runs of one task.
    pub fn costs(&self, task: Task) -> Result<&[Cost], &str> {
        self.costs.as_ref().map(|costs| costs[task as usize].as_slice()).map_err(String::as_str)
    }
}

/// Measures every contender on one input. A contender that fails is reported in its row, never dropped.
pub fn run(runner: &Runner, contenders: &[Entry], case: &Case, mvault: &Path) -> Result<CaseResult, String> {
    let scratch = Scratch { sealed: runner.dir.join("sealed"), opened: runner.dir.join("opened") };
    let mut rows: Vec<Row> = contenders.iter().map(|(name, _)| Row { name, costs: Ok(Default::default()) }).collect();
    for ((_, contender), row) in contenders.iter().zip(&mut rows) {
        let checked =
            contender.as_ref().map_err(Clone::clone).and_then(|contender| check(runner, contender, case, &scratch));
        if let Err(problem) = checked {
            row.costs = Err(problem);
        }
    }
    let mut engine = Ok(Vec::new());
    for round in 0..case.rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let (Some((_, Ok(contender))), Some(row)) = (contenders.get(index), rows.get_mut(index)) else { continue };
            if let Ok(costs) = &mut row.costs
                && let Err(problem) = once(runner, contender, &case.input, &scratch, costs)
            {
                row.costs = Err(problem);
            }
        }
        // The engine alone says nothing about small files.
        if case.input.bytes >= 1 << 26 && !case.input.folder {
            engine = engine.and_then(|mut rates: Vec<_>| {
                rates.push(contenders::engine(runner, mvault)?);
                Ok(rates)
            });
        }
    }
    clean(&scratch).map_err(|e| e.to_string())?;
    Ok(CaseResult { title: case.title.clone(), bytes: case.input.bytes, rounds: case.rounds, rows, engine })
}

/// Seals, opens and reads once.
fn once(
    runner: &Runner,
    contender: &Contender,
    input: &Input,
    scratch: &Scratch,
    costs: &mut [Vec<Cost>; 3],
) -> Result<(), String> {
    clean(scratch).and_then(|()| fs::create_dir(&scratch.opened)).map_err(|e| e.to_string())?;
    for task in [Task::Seal, Task::Memory, Task::Open] {
        if let Some(step) = contender.step(task, input, scratch) {
            costs[task as usize].push(runner.run(&step)?);
        }
    }
    Ok(())
}

/// One unmeasured pass over a small input of the same kind: what comes out must be what went in.
fn check(runner: &Runner, contender: &Contender, case: &Case, scratch: &Scratch) -> Result<(), String> {
    let small = runner.dir.join("check.bin");
    let input = if case.input.folder || case.input.bytes <= 1 << 27 {
        Input { path: case.input.path.clone(), bytes: case.input.bytes, folder: case.input.folder }
    } else {
        machine::write_random(&small, 3 << 20).map_err(|e| e.to_string())?;
        Input { path: small, bytes: 3 << 20, folder: false }
    };
    let mut costs = Default::default();
    once(runner, contender, &input, scratch, &mut costs)?;
    if costs[Task::Open as usize].is_empty() || !contender.round_trips() {
        return Ok(());
    }
    let name = input.path.file_name().unwrap_or_default();
    let same = crate::measure::Step::program("diff").args(["-rq"]).args([&input.path, &scratch.opened.join(name)]);
    runner.run(&same).map(drop).map_err(|_| "what it opened is not what it sealed".to_owned())
}

fn clean(scratch: &Scratch) -> std::io::Result<()> {
    let parent = scratch.sealed.parent().unwrap_or(Path::new("."));
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Some contenders leave a second file beside the sealed one (a MAC).
        if name.starts_with("sealed") || name == "opened" {
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
    }
    Ok(())
}
