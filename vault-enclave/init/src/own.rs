//! The image's own server, docs/ENCLAVE.md section 3: a program of /app with the opened model in a memory-backed folder.

use crate::machine;
use rustix::fs::Mode;
use serde::Deserialize;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use vault_core::open::EntrySink;
use vault_enclave::model::Statement;

/// What `mvault enclave build --cmd` wrote.
const FILE: &str = "/etc/mvault/command.toml";
/// Where the opened model is: a tmpfs, memory of the enclave.
pub const MODEL: &str = "/run/model";
/// Where the server must listen, on the loopback.
const PORT: u16 = 8000;
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandFile {
    command: Vec<String>,
}

/// The image's own command, if it has one.
pub fn command() -> Result<Option<Vec<String>>, String> {
    let text = match fs::read_to_string(FILE) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| format!("{FILE}: {e}"))?,
    };
    let file: CommandFile = toml::from_str(&text).map_err(|e| format!("{FILE}: {}", e.message()))?;
    if file.command.is_empty() { Err(format!("{FILE}: no command")) } else { Ok(Some(file.command)) }
}

/// The model's files on their way into memory.
pub struct Folder {
    files: OnceLock<Vec<File>>,
}

impl Folder {
    /// In [`MODEL`], which is made.
    pub fn new() -> Self {
        Self { files: OnceLock::new() }
    }
}

impl EntrySink for Folder {
    fn begin(&self, entries: &[(String, Option<u64>)]) -> io::Result<()> {
        rustix::process::umask(Mode::from_raw_mode(0o077));
        let files = entries.iter().map(|(path, size)| {
            let path: PathBuf = Path::new(MODEL).join(path); // checked by the format: relative, no .., no links
            fs::create_dir_all(path.parent().unwrap_or(Path::new(MODEL)))?;
            let file = File::options().write(true).create_new(true).open(path)?;
            file.set_len(size.unwrap_or(0))?;
            Ok(file)
        });
        let files = files.collect::<io::Result<_>>()?;
        self.files.set(files).map_err(|_| io::Error::other("a second table"))
    }

    fn write_at(&self, index: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        let file = self.files.get().and_then(|files| files.get(index));
        file.ok_or_else(|| io::Error::other("an entry that is not in the table"))?.write_all_at(data, offset)
    }
}

/// Starts it and waits until it listens. Its output goes nowhere: it may hold what it was asked.
pub fn start(command: &[String], model: &Statement) -> Result<(Child, SocketAddr), String> {
    machine::loopback_up().map_err(|e| format!("the loopback: {e}"))?;
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let child = Command::new(program)
        .args(arguments)
        .current_dir("/app")
        .env_clear()
        .env("MVAULT_MODEL", MODEL)
        .env("MVAULT_MODEL_NAME", &model.name)
        .env("MVAULT_MODEL_VERSION", model.version.to_string())
        .env("PORT", PORT.to_string())
        .env("HOME", "/tmp")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|e| format!("{program}: {e}"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let began = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Err(format!("{program} ended before it listened on port {PORT}: {status}"));
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{program} does not listen on port {PORT}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((child, address))
}
