//! `make bench`: mvault beside its peers and beside the machine's limits, in one run and one table.
//!
//! Every round runs each contender once (seal, open to a file, open to memory) and the order turns by one each round,
//! so that a slow minute of the machine hits all of them. Shown are medians; a ratio is the median over the rounds of
//! mvault's speed divided by the other's in the same round. Everything happens in one folder, by default in tmpfs.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is all this program makes")]
#![allow(clippy::cast_precision_loss, reason = "byte counts become rates; nobody reads the 53rd bit")]

mod attest;
mod contenders;
mod growth;
mod limit;
mod machine;
mod measure;
mod rounds;
mod s3;
mod table;
mod warm;

use std::fs;
use std::path::{Path, PathBuf};

use contenders::Input;
use measure::Runner;

const USAGE: &str = "usage: mvault-bench --dir EMPTY_FOLDER --mvault PROGRAM --rage PROGRAM --models FOLDER
                    [--size BYTES, 2G, 512M] [--rounds N] [--growth-max BYTES] [--json FILE]";

struct Options {
    dir: PathBuf,
    mvault: PathBuf,
    rage: PathBuf,
    models: PathBuf,
    size: u64,
    rounds: usize,
    growth_max: u64,
    json: Option<PathBuf>,
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [flag, file, bytes] = args.as_slice()
        && flag == limit::FLAG
    {
        return limit::write(Path::new(file), bytes.parse().unwrap_or(0));
    }
    if args.first().is_some_and(|first| first == "s3") {
        std::process::exit(s3::main(args.into_iter().skip(1)));
    }
    if args.first().is_some_and(|first| first == "attest") {
        std::process::exit(attest::main(args.into_iter().skip(1)));
    }
    let options = match options(args.into_iter()) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("mvault-bench: error: {problem}\n{USAGE}");
            std::process::exit(2);
        }
    };
    if let Err(problem) = bench(&options) {
        eprintln!("mvault-bench: error: {problem}");
        std::process::exit(1);
    }
}

fn bench(options: &Options) -> Result<(), String> {
    let runner = Runner { dir: options.dir.clone(), env: Vec::new(), cores: None };
    let machine = contenders::describe(&runner, &options.mvault, &options.rage);
    println!("{machine}\n");
    let size = fitting(options.size, &options.dir, 3)?;
    let growth = growth::need(options.growth_max, machine::room(&options.dir)?);
    let _held = warm_up(&options.dir, (size * 3).max(growth))?;
    let contenders = contenders::all(&runner, &options.mvault, &options.rage);
    let mut results = Vec::new();
    for case in cases(options, size)? {
        let case = case?;
        eprintln!("bench: {}, {} rounds", case.title, case.rounds);
        let result = rounds::run(&runner, &contenders, &case, &options.mvault)?;
        if results.is_empty() {
            table::print(&result);
        } else {
            table::print_short(&result);
        }
        results.push(result);
        if case.input.path.starts_with(&options.dir) {
            fs::remove_file(&case.input.path).map_err(|e| e.to_string())?;
        }
    }
    let growth = growth::run(&runner, &contenders, options.growth_max);
    growth::print(&growth);
    if let Some(first) = results.first() {
        table::print_targets(first);
    }
    machine::stop_agents(&runner);
    if let Some(path) = &options.json {
        let value = serde_json::json!({
            "machine": machine,
            "cases": results.iter().map(table::json).collect::<Vec<_>>(),
            "growth": growth::json(&growth),
        });
        let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())?;
        fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// In tmpfs, where files are memory: makes sure that all the memory the bench needs is this machine's already.
fn warm_up(dir: &Path, bytes: u64) -> Result<Option<warm::Warm>, String> {
    if !machine::in_memory(dir) {
        println!("Not in tmpfs: the disk is part of every figure.\n");
        return Ok(None);
    }
    let room = machine::room(dir)?;
    let bytes = bytes.saturating_add(512 << 20).min(room.saturating_sub(512 << 20));
    eprintln!("bench: touching {} of memory", machine::size(bytes));
    let held = warm::warm(dir, bytes).map_err(|e| format!("{}: {e}", dir.display()))?;
    println!(
        "Memory: {} touched before measuring (first touch: {:.2} GiB/s), so that the host's pages are no part of it.\n",
        machine::size(bytes),
        held.first_touch
    );
    Ok(Some(held))
}

/// The big random file, then a real model folder and two real model files.
fn cases(options: &Options, size: u64) -> Result<Vec<Result<rounds::Case, String>>, String> {
    let random = options.dir.join("random.bin");
    machine::write_random(&random, size).map_err(|e| format!("{}: {e}", random.display()))?;
    let real = [
        ("minilm", "the all-MiniLM-L6-v2 folder"),
        ("silero/silero_vad_16k.safetensors", "silero_vad_16k.safetensors"),
        ("profanity/model.joblib", "alt-profanity-check's model.joblib"),
    ];
    let title = format!("{} of random data", machine::size(size));
    let mut cases = vec![Ok(rounds::Case {
        title,
        rounds: options.rounds,
        input: Input { path: random, bytes: size, folder: false },
    })];
    cases.extend(real.into_iter().map(|(name, title)| {
        let path = options.models.join(name);
        let bytes = machine::bytes_in(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let title = format!("{title}, {}", machine::size(bytes));
        // Short runs are cheap and noisy: more of them.
        let rounds = options.rounds.max(11);
        Ok(rounds::Case { title, rounds, input: Input { folder: path.is_dir(), path, bytes } })
    }));
    Ok(cases)
}

/// The size that fits so many times into the folder's file system and the machine's memory.
fn fitting(wanted: u64, dir: &Path, times: u64) -> Result<u64, String> {
    let room = machine::room(dir)?;
    let mut size = wanted;
    while size > 1 << 20 && size.saturating_mul(times) + (256 << 20) > room {
        size /= 2;
    }
    if size < wanted {
        println!(
            "Only {} free: {} of data instead of {}.\n",
            machine::size(room),
            machine::size(size),
            machine::size(wanted)
        );
    }
    Ok(size)
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut dir, mut mvault, mut rage, mut models, mut json) = (None, None, None, None, None);
    let (mut size, mut rounds, mut growth_max) = (2 << 30, 5, 8 << 30);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--dir" => dir = Some(PathBuf::from(value)),
            "--mvault" => mvault = Some(PathBuf::from(value)),
            "--rage" => rage = Some(PathBuf::from(value)),
            "--models" => models = Some(PathBuf::from(value)),
            "--json" => json = Some(std::path::absolute(value).map_err(|e| e.to_string())?),
            "--size" => size = bytes(&value)?,
            "--growth-max" => growth_max = bytes(&value)?,
            "--rounds" => rounds = value.parse().map_err(|_| format!("--rounds {value} is not a number"))?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    let need = |path: Option<PathBuf>, name: &str| path.ok_or_else(|| format!("{name} is missing"));
    let (dir, mvault) = (need(dir, "--dir")?, need(mvault, "--mvault")?);
    let (rage, models) = (need(rage, "--rage")?, need(models, "--models")?);
    Ok(Options { dir, mvault, rage, models, size, rounds: rounds.max(1), growth_max, json })
}

/// `2G`, `512M`, `64K` or plain bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'G' | b'g') => (text.get(..text.len() - 1), 30),
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 20),
        Some(b'K' | b'k') => (text.get(..text.len() - 1), 10),
        _ => (Some(text), 0),
    };
    let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("not a size: {text}"))
}
