//! The servers: started for this run on free loopback ports, emptied between contenders, ended with the run.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine;
use crate::measure::{Runner, Step, on_cores};

/// The bucket that everyone uses.
pub const BUCKET: &str = "bench";
const KEY_ID: &str = "mvaultbench";
const SECRET: &str = "mvault-bench-secret";
/// Objects under this prefix stay in the null sink's memory.
pub const KEPT: &str = "kept";
/// How long a server may take to answer, and how long to give space back.
const PATIENCE: Duration = Duration::from_mins(1);

/// What every contender finds in its environment.
pub fn environment() -> Vec<(&'static str, String)> {
    [
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// Where contenders put and get.
pub trait Server {
    /// For people.
    fn name(&self) -> &'static str;
    /// `http://127.0.0.1:PORT`.
    fn url(&self) -> &str;
    /// The process, for its CPU time.
    fn pid(&self) -> u32;
    /// Removes all objects and gives their space back.
    fn clear(&mut self, runner: &Runner) -> Result<(), String>;
}

/// Ends the process when the run is over, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// SeaweedFS with all its parts in one process.
pub struct Weed {
    process: Process,
    url: String,
    master: u16,
    data: PathBuf,
    apart: bool,
}

impl Weed {
    /// Starts it, on these processors alone if they are named, and waits until it takes an object.
    pub fn start(runner: &Runner, program: &Path, cores: Option<&str>) -> Result<Self, String> {
        let dir = runner.dir.join("weed");
        let data = dir.join("data");
        let io = |e: std::io::Error| format!("{}: {e}", dir.display());
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(io)?; // of an earlier one, which has ended
        }
        fs::create_dir_all(&data).map_err(io)?;
        let identity = serde_json::json!({ "identities": [{
            "name": "bench",
            "credentials": [{ "accessKey": KEY_ID, "secretKey": SECRET }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let config = dir.join("s3.json");
        fs::write(&config, identity.to_string()).map_err(io)?;
        let log = File::create(dir.join("log")).map_err(io)?;
        let names = ["master", "volume", "filer", "s3"];
        let ports = free_ports(names.len() * 2).map_err(io)?;
        let mut command = on_cores(cores, program);
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=1024", "-volume.max=100"]);
        command.arg(format!("-dir={}", data.display())).arg(format!("-s3.config={}", config.display()));
        for (name, pair) in names.iter().zip(ports.chunks(2)) {
            for (port, suffix) in pair.iter().zip(["", ".grpc"]) {
                command.arg(format!("-{name}.port{suffix}={port}"));
            }
        }
        command.current_dir(&dir).env("HOME", &dir).stdin(Stdio::null());
        command.stderr(log.try_clone().map_err(io)?).stdout(log);
        let process = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let (master, s3) = (ports.first().copied().unwrap_or(0), ports.get(6).copied().unwrap_or(0));
        let apart = cores.is_some();
        let server = Self { process: Process(process), url: format!("http://127.0.0.1:{s3}"), master, data, apart };
        server.wait(runner)?;
        Ok(server)
    }

    /// Until it has a bucket and takes an object.
    fn wait(&self, runner: &Runner) -> Result<(), String> {
        let start = Instant::now();
        let make = sdk_loop()?.args(["make", BUCKET, "--endpoint-url"]).args([&self.url]);
        while let Err(problem) = runner.run(&make) {
            if start.elapsed() > PATIENCE {
                return Err(format!("SeaweedFS does not answer: {problem}"));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}

impl Server for Weed {
    fn name(&self) -> &'static str {
        if self.apart { "SeaweedFS on processors of its own" } else { "SeaweedFS" }
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Chunks of deleted objects become holes in its volumes within a second or two; compaction frees them.
    fn clear(&mut self, runner: &Runner) -> Result<(), String> {
        runner.run(&sdk_loop()?.args(["clear", BUCKET, "--endpoint-url"]).args([&self.url]))?;
        let start = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let vacuum = http_get(self.master, "/vol/vacuum?garbageThreshold=0.0001");
            vacuum.map_err(|e| format!("SeaweedFS's master: {e}"))?;
            // Its files come and go while it compacts: a failure to look is no failure.
            if machine::bytes_in(&self.data).is_ok_and(|bytes| bytes < 64 << 20) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err("SeaweedFS does not give space back".to_owned());
            }
        }
    }
}

/// Our own server that drops what it gets.
pub struct NullSink {
    process: Process,
    url: String,
}

impl NullSink {
    /// Starts it.
    pub fn start(_: &Runner) -> Result<Self, String> {
        let program = beside("null-s3")?;
        let mut command = Command::new(&program);
        command.args(["--keep", &format!("{KEPT}/")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let mut url = String::new();
        let stdout = process.stdout.take();
        let process = Process(process);
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut url).map_err(|e| format!("null-s3: {e}"))?;
        }
        Ok(Self { process, url: url.trim().to_owned() })
    }
}

impl Server for NullSink {
    fn name(&self) -> &'static str {
        "the null sink"
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    fn clear(&mut self, _: &Runner) -> Result<(), String> {
        Ok(()) // what was dropped takes no space, and what was kept is read in every round
    }
}

/// The raw client, which also makes and empties buckets.
pub fn sdk_loop() -> Result<Step, String> {
    beside("sdk-loop").map(Step::program)
}

/// A program that was built with this one.
fn beside(name: &str) -> Result<PathBuf, String> {
    Ok(std::env::current_exe().map_err(|e| e.to_string())?.with_file_name(name))
}

/// Ports that nobody listens on at this moment.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let listeners: std::io::Result<Vec<_>> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    listeners?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn http_get(port: u16, target: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}
