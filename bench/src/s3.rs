//! `mvault-bench s3`: push and pull beside raw uploaders and downloaders and beside encrypted rivals, on one server.
//!
//! The server is SeaweedFS, started for this run with its data in the bench's folder. It spends some 9 CPU seconds a GiB
//! on an upload whatever the client does, so on few cores it bounds every put: client CPU stands beside each rate. Where
//! clients and server share the processors, what a client needs is what the server lacks; so the fastest run a second time
//! with half of them for the server and half for the client, as if the server were another machine, and a third time on a
//! server that costs nothing (`null-s3`), which shows the clients' own limits.
//! As in the other bench: contenders take turns, the order turns each round, medians are shown.

mod contenders;
mod large;
mod rounds;
mod servers;
mod table;

use std::fs;
use std::path::PathBuf;

use crate::machine;
use crate::measure::Runner;
use servers::{NullSink, Server, Weed};

const USAGE: &str = "usage: mvault-bench s3 --dir EMPTY_FOLDER --mvault PROGRAM --peers FOLDER_OF_PROGRAMS
                    --weed PROGRAM [--size BYTES, 1G, 512M] [--rounds N] [--json FILE]";

/// What is measured, and with whom.
pub struct Options {
    dir: PathBuf,
    mvault: PathBuf,
    /// The folder of s5cmd and rclone.
    peers: PathBuf,
    weed: PathBuf,
    size: u64,
    rounds: usize,
    json: Option<PathBuf>,
}

/// Runs the bench as `args` say; the exit code.
pub fn main(args: impl Iterator<Item = String>) -> i32 {
    let options = match options(args) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("mvault-bench: error: {problem}\n{USAGE}");
            return 2;
        }
    };
    bench(&options).map_or_else(
        |problem| {
            eprintln!("mvault-bench: error: {problem}");
            1
        },
        |()| 0,
    )
}

fn bench(options: &Options) -> Result<(), String> {
    let mut runner = Runner { dir: options.dir.clone(), env: servers::environment(), cores: None };
    let machine = contenders::describe(&runner, options);
    println!("{machine}\n");
    // At once there may be the source, what is stored of it (on the null sink: of each contender), and what was read.
    let size = crate::fitting(options.size, &options.dir, 8)?;
    let _held = crate::warm_up(&options.dir, size * 7)?;
    let source = options.dir.join("source.bin");
    machine::write_random(&source, size).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut results = Vec::new();
    for kind in [Kind::Real, Kind::Apart, Kind::Null] {
        let halves = halves();
        runner.cores = None;
        let mut server: Box<dyn Server> = match (kind, halves) {
            (Kind::Apart, None) => {
                println!("One processor: client and server cannot have their own.\n");
                continue;
            }
            (Kind::Apart, Some((servers, clients))) => {
                runner.cores = Some(clients);
                Box::new(Weed::start(&runner, &options.weed, Some(&servers))?)
            }
            (Kind::Real, _) => Box::new(Weed::start(&runner, &options.weed, None)?),
            (Kind::Null, _) => Box::new(NullSink::start(&runner)?),
        };
        eprintln!("bench: {} to {} and back, {} rounds", machine::size(size), server.name(), options.rounds);
        let case = rounds::Case { kind, source: source.clone(), bytes: size, rounds: options.rounds };
        let result = rounds::run(&runner, options, server.as_mut(), &case)?;
        table::print(&result);
        results.push(result);
    }
    runner.cores = None;
    let large = large::run(&runner, options)?;
    large::print(&large);
    table::print_targets(&results);
    let Some(path) = &options.json else { return Ok(()) };
    let servers: Vec<_> = results.iter().map(table::json).collect();
    let value = serde_json::json!({ "machine": machine, "servers": servers, "large": large::json(&large), "targets": table::targets_json(&results) });
    let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())?;
    fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
}

/// Which server is measured on, and so who takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SeaweedFS; everyone.
    Real,
    /// SeaweedFS on processors of its own; mvault and the fastest raw clients.
    Apart,
    /// null-s3; mvault and the raw clients that may be faster than a real server.
    Null,
}

/// Half of the processors for the server, the others for clients: of those that this process may use (proc(5):
/// Cpus_allowed_list), which need not be the first ones. `None` if there is one.
fn halves() -> Option<(String, String)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores: Vec<u32> = Vec::new();
    for range in allowed.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        cores.extend(first..=last);
    }
    let (servers, clients) = cores.split_at(cores.len() / 2);
    let text = |cores: &[u32]| cores.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    (!servers.is_empty()).then(|| (text(servers), text(clients)))
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut dir, mut mvault, mut peers, mut weed, mut json) = (None, None, None, None, None);
    let (mut size, mut rounds) = (1 << 30, 3);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        // Everything runs in a folder of its own.
        let path = || std::path::absolute(&value).map(Some).map_err(|e| format!("{name} {value}: {e}"));
        match name.as_str() {
            "--dir" => dir = path()?,
            "--mvault" => mvault = path()?,
            "--peers" => peers = path()?,
            "--weed" => weed = path()?,
            "--json" => json = path()?,
            "--size" => size = crate::bytes(&value)?,
            "--rounds" => rounds = value.parse().map_err(|_| format!("--rounds {value} is not a number"))?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    let need = |path: Option<PathBuf>, name: &str| path.ok_or_else(|| format!("{name} is missing"));
    let (dir, mvault) = (need(dir, "--dir")?, need(mvault, "--mvault")?);
    let (peers, weed) = (need(peers, "--peers")?, need(weed, "--weed")?);
    Ok(Options { dir, mvault, peers, weed, size, rounds: rounds.max(1), json })
}
