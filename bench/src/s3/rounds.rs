//! The rounds: each contender puts and gets once a round, on an emptied server, in an order that turns.

use std::fs;
use std::path::{Path, PathBuf};

use super::contenders::{self, Contender, Place};
use super::servers::{KEPT, Server};
use super::{Kind, Options};
use crate::measure::{Cost, Runner, Step};

/// What is measured.
pub struct Case {
    /// On which kind of server.
    pub kind: Kind,
    /// The plaintext file.
    pub source: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How often.
    pub rounds: usize,
}

/// The two things that are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// File to server.
    Put,
    /// Server to file.
    Get,
}

/// One run.
pub struct Run {
    /// The client's cost.
    pub client: Cost,
    /// The server's CPU seconds meanwhile.
    pub server_cpu: f64,
}

/// One contender's runs.
pub struct Row {
    /// The contender.
    pub name: &'static str,
    /// A run each round for put and get (empty where it does not do that), or why it could not run.
    pub runs: Result<[Vec<Run>; 2], String>,
}

impl Row {
    /// The runs of one task.
    pub fn runs(&self, task: Task) -> Result<&[Run], &str> {
        self.runs.as_ref().map(|runs| runs[task as usize].as_slice()).map_err(String::as_str)
    }
}

/// All that was measured on one server.
pub struct CaseResult {
    /// Which kind.
    pub kind: Kind,
    /// Its name.
    pub server: &'static str,
    /// Bytes of plaintext.
    pub bytes: u64,
    /// Rounds that were run.
    pub rounds: usize,
    /// One row a contender, in a fixed order.
    pub rows: Vec<Row>,
}

/// Measures everyone. A contender that fails is reported in its row, never dropped.
pub fn run(runner: &Runner, options: &Options, server: &mut dyn Server, case: &Case) -> Result<CaseResult, String> {
    let out = runner.dir.join("out");
    let url = server.url().to_owned();
    let source = &case.source;
    // The null sink forgets what is put in a round; what is got there was put once before, and kept.
    let get = if case.kind == Kind::Null { KEPT } else { "put" };
    let place = |put| Place { runner, options, url: &url, source, put, get, out: &out };
    let mut entries = contenders::all(&place("put"), case.kind);
    if case.kind == Kind::Null {
        keep(runner, &mut entries, contenders::all(&place(KEPT), case.kind));
    }
    let mut rows: Vec<Row> = Vec::new();
    for (name, contender) in &entries {
        let runs = contender.as_ref().map(|_| Default::default()).map_err(Clone::clone);
        rows.push(Row { name, runs });
        if let Ok(Contender { other_get: Some((name, ..)), .. }) = contender {
            rows.push(Row { name, runs: Ok(Default::default()) });
        }
    }
    for round in 0..case.rounds {
        for turn in 0..entries.len() {
            let Some((name, Ok(contender))) = entries.get((round + turn) % entries.len()) else { continue };
            let mut meter =
                Meter { runner, server: &mut *server, rows: &mut rows, source, out: &out, check: round == 0 };
            if let Err(problem) = meter.turn(name, contender) {
                meter.fail(name, problem);
            }
            server.clear(runner)?;
        }
    }
    fs::remove_dir_all(&out).map_err(|e| e.to_string())?;
    Ok(CaseResult { kind: case.kind, server: server.name(), bytes: case.bytes, rounds: case.rounds, rows })
}

/// Puts once what the rounds will get.
fn keep(runner: &Runner, entries: &mut [contenders::Entry], kept: Vec<contenders::Entry>) {
    for ((_, entry), (_, kept)) in entries.iter_mut().zip(kept) {
        if let (Ok(_), Ok(kept)) = (&entry, kept)
            && let Err(problem) = runner.run(&kept.put)
        {
            *entry = Err(problem);
        }
    }
}

/// One contender's turn.
struct Meter<'a> {
    runner: &'a Runner,
    server: &'a mut dyn Server,
    rows: &'a mut [Row],
    source: &'a Path,
    out: &'a Path,
    /// Whether results are compared with the source.
    check: bool,
}

impl Meter<'_> {
    fn turn(&mut self, name: &'static str, contender: &Contender) -> Result<(), String> {
        if let Some(prepare) = &contender.prepare {
            self.runner.run(prepare)?;
        }
        self.measure(name, Task::Put, &contender.put)?;
        self.get(name, &contender.get, None)?;
        match &contender.other_get {
            Some((name, step, finish)) => self.get(name, step, Some(finish)).or_else(|problem| {
                self.fail(name, problem);
                Ok(())
            }),
            None => Ok(()),
        }
    }

    /// Gets into an empty folder; what then is there must be what was put.
    fn get(&mut self, name: &'static str, step: &Step, finish: Option<&Step>) -> Result<(), String> {
        if self.out.exists() {
            fs::remove_dir_all(self.out).map_err(|e| e.to_string())?;
        }
        fs::create_dir(self.out).map_err(|e| e.to_string())?;
        self.measure(name, Task::Get, step)?;
        if !self.check {
            return Ok(());
        }
        if let Some(finish) = finish {
            self.runner.run(finish)?;
        }
        let files = files_in(self.out).map_err(|e| e.to_string())?;
        let [file] = files.as_slice() else { return Err(format!("it got {} files instead of one", files.len())) };
        let same = self.runner.run(&Step::program("cmp").args([self.source, file]));
        same.map(drop).map_err(|_| "what it got is not what it put".to_owned())
    }

    fn measure(&mut self, name: &'static str, task: Task, step: &Step) -> Result<(), String> {
        let before = cpu_seconds(self.server.pid());
        let client = self.runner.run(step)?;
        let run = Run { client, server_cpu: cpu_seconds(self.server.pid()) - before };
        if let Some(Row { runs: Ok(runs), .. }) = self.rows.iter_mut().find(|row| row.name == name) {
            runs[task as usize].push(run);
        }
        Ok(())
    }

    fn fail(&mut self, name: &'static str, problem: String) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == name) {
            row.runs = Err(problem);
        }
    }
}

/// Every file below a folder.
fn files_in(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_in(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// User and system time that a process has used: fields 14 and 15 of its stat, in hundredths of a second.
fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
