//! Runs one command and says what it cost: wall time, CPU time and peak memory.
//!
//! CPU time and `peak_rss` come from wait4(2) and include a pipeline's own children (the peak is the largest single
//! process). `peak_anon` is the largest RssAnon of a single process, read every 5 ms: memory the process asked for,
//! without the page cache and without mapped files.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SAMPLE: Duration = Duration::from_millis(5);

/// What to run: a program with its arguments, and where its standard output goes.
#[derive(Clone)]
pub struct Step {
    program: OsString,
    args: Vec<OsString>,
    stdout: Option<PathBuf>,
    pipeline: bool,
}

impl Step {
    /// One program.
    pub fn program(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), args: Vec::new(), stdout: None, pipeline: false }
    }

    /// A bash pipeline; `args` are its `$1`, `$2` and so on, so that no path is ever part of the script.
    pub fn bash(script: &str) -> Self {
        let step = Self::program("bash").args(["-c", &format!("set -euo pipefail; {script}"), "bash"]);
        Self { pipeline: true, ..step }
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sends standard output to a file; by default it goes nowhere.
    pub fn stdout(mut self, path: &Path) -> Self {
        self.stdout = Some(path.to_owned());
        self
    }
}

/// What a command cost.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// Wall time, from before the start to after the end.
    pub wall: Duration,
    /// User and system time of the process and the children it waited for.
    pub cpu: Duration,
    /// Largest resident set of one process, in bytes, mapped files included.
    pub peak_rss: u64,
    /// Largest anonymous memory of the process, in bytes, as sampled; not known of a pipeline.
    pub peak_anon: Option<u64>,
}

/// Runs the commands of one machine folder: same environment for every contender.
pub struct Runner {
    /// Working directory, home and temporary folder of everything that is run.
    pub dir: PathBuf,
    /// More of the environment.
    pub env: Vec<(&'static str, String)>,
    /// The processors that everything runs on, as taskset(1) lists them; all by default.
    pub cores: Option<String>,
}

impl Runner {
    /// Runs `step`; an error carries the end of what the command wrote to standard error.
    pub fn run(&self, step: &Step) -> Result<Cost, String> {
        let name = step.program.to_string_lossy().into_owned();
        let errors = self.dir.join("stderr");
        let stdout = match &step.stdout {
            Some(path) => Stdio::from(File::create(path).map_err(|e| format!("{}: {e}", path.display()))?),
            None => Stdio::null(),
        };
        let stderr = File::create(&errors).map_err(|e| format!("{}: {e}", errors.display()))?;
        let mut command = on_cores(self.cores.as_deref(), &step.program);
        command.args(&step.args).current_dir(&self.dir).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR", "GNUPGHOME"] {
            command.env(variable, &self.dir);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let start = Instant::now();
        let child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        let done = AtomicBool::new(false);
        let (reaped, peak_anon) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| sample_anon(child.id(), &done));
            let reaped = reap(child.id()).map(|(status, usage)| (status, usage, start.elapsed()));
            done.store(true, Ordering::Relaxed);
            (reaped, sampler.join().unwrap_or(0))
        });
        let (status, usage, wall) = reaped.map_err(|e| format!("{name}: {e}"))?;
        if !status.success() {
            let text = std::fs::read_to_string(&errors).unwrap_or_default();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
            return Err(format!("{name}: {status}: {last}"));
        }
        Ok(Cost {
            wall,
            cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
            peak_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            peak_anon: (!step.pipeline).then_some(peak_anon),
        })
    }

    /// Runs `step` and gives what it wrote to standard output.
    pub fn output(&self, step: &Step) -> Result<String, String> {
        let path = self.dir.join("stdout");
        self.run(&step.clone().stdout(&path))?;
        std::fs::read_to_string(&path).map_err(|e| e.to_string())
    }
}

/// A command that runs on these processors alone.
pub fn on_cores(cores: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(cores) = cores else { return Command::new(program) };
    let mut command = Command::new("taskset"); // it becomes the program: the process is the same
    command.args(["-c", cores]).arg(program);
    command
}

/// The largest RssAnon of a process until `done`.
fn sample_anon(pid: u32, done: &AtomicBool) -> u64 {
    let path = format!("/proc/{pid}/status");
    let mut peak = 0;
    while !done.load(Ordering::Relaxed) {
        peak = peak.max(rss_anon(&path).unwrap_or(0));
        std::thread::sleep(SAMPLE);
    }
    peak
}

fn rss_anon(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[expect(unsafe_code, reason = "std's wait() drops the child's resource usage, and no safe crate here wraps wait4")]
fn reap(pid: u32) -> std::io::Result<(ExitStatus, libc::rusage)> {
    let pid = libc::pid_t::try_from(pid).map_err(std::io::Error::other)?;
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live locals of the types that wait4 writes.
        let got = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if got == pid {
            // SAFETY: a zeroed rusage is valid (plain integers), and wait4 has filled it.
            return Ok((ExitStatus::from_raw(status), unsafe { usage.assume_init() }));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
