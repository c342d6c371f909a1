//! A PostgreSQL of the tests' own: a fresh cluster in a temporary folder, on a Unix socket, gone with the test process.
//!
//! Its programs are where `MVAULT_TEST_POSTGRES` says (`scripts/test.sh` sets it), or where Debian has them. The server refuses
//! root, so a root runs it as `postgres` or `nobody`. [`Postgres::start`] returns `None` where there is none, and panics
//! instead when `CI=true`.

use crate::server::process::{Folder, Process};
use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_mins(1);

/// One running cluster.
pub struct Postgres {
    socket: PathBuf,
    process: Mutex<Process>,
    bin: PathBuf,
}

impl Postgres {
    /// A new cluster, trusting who comes through its socket.
    pub fn start() -> Option<Self> {
        let bin = programs()?;
        let folder = Folder::new();
        let (data, socket) = (folder.path().join("data"), folder.path().to_owned());
        let user = other_user(folder.path());
        // The server's user has to come through, and to write the socket.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        if let Some(user) = &user {
            let owned = Command::new("chown").arg(user).arg(&data).arg(&socket).status();
            assert!(owned.is_ok_and(|status| status.success()), "chown to {user}");
        }
        let mut init = program(&bin, "initdb", user.as_deref());
        init.args(["--auth=trust", "--username=mvault", "--encoding=UTF8", "--locale=C", "--no-instructions", "-D"])
            .arg(&data);
        let output = init.output().expect("initdb");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut server = program(&bin, "postgres", user.as_deref());
        server.arg("-D").arg(&data).arg("-k").arg(&socket);
        server.args(["-c", "listen_addresses=", "-c", "max_connections=50", "-c", "shared_buffers=16MB"]);
        server.args(["-c", "dynamic_shared_memory_type=mmap"]); // in its folder: a killed server leaves nothing in /dev/shm
        let process = Mutex::new(Process::new(folder, server, Vec::new()));
        let cluster = Self { socket, process, bin };
        cluster.restart();
        Some(cluster)
    }

    /// One cluster for all tests of this process; make a database of your own on it, and never stop it.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// The connection string of a database, made if it is not there.
    pub fn database(&self, name: &str) -> String {
        let made = self.client("createdb").arg(name).output().expect("createdb");
        let why = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success() || why.contains("already exists"), "createdb: {why}");
        format!("host={} user=mvault dbname={name}", self.socket.display())
    }

    /// Runs SQL behind everybody's back.
    pub fn sql(&self, database: &str, sql: &str) {
        let psql = self.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]).output();
        let output = psql.expect("psql");
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends it at once, as a crash would, and starts it again on the same data.
    pub fn crash(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.kill();
        drop(process);
        self.restart();
    }

    /// Ends it at once, until it is started again.
    pub fn stop(&self) {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// Starts it again on the same data.
    pub fn restart(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        process.start();
        while !self.client("pg_isready").arg("-q").status().is_ok_and(|status| status.success()) {
            if process.ended() {
                // Children of a server that was killed keep its memory for a moment.
                assert!(began.elapsed() < PATIENCE, "postgres does not start: {}", process.log());
                process.kill();
                process.start();
            }
            assert!(began.elapsed() < PATIENCE, "postgres is not ready: {}", process.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.arg("-h").arg(&self.socket).args(["-U", "mvault"]).env_remove("PGPASSFILE");
        command
    }
}

/// Where the programs are.
fn programs() -> Option<PathBuf> {
    let named = env::var_os("MVAULT_TEST_POSTGRES").map(PathBuf::from);
    let debian = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max()
    };
    let found = named.or_else(debian).filter(|bin| bin.join("initdb").exists());
    if found.is_none() {
        assert!(
            env::var_os("CI").is_none_or(|v| v != "true"),
            "no PostgreSQL: set MVAULT_TEST_POSTGRES, as scripts/test.sh does"
        );
        say("skipped: no PostgreSQL (MVAULT_TEST_POSTGRES is not set)");
    }
    found
}

/// Who runs the server when we are root.
fn other_user(folder: &Path) -> Option<String> {
    if fs::metadata(folder).unwrap().uid() != 0 {
        return None;
    }
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = |name: &str| known.lines().any(|line| line.starts_with(&format!("{name}:")));
    Some(["postgres", "nobody"].into_iter().find(|name| known(name)).expect("a user beside root").to_owned())
}

/// A program of the server's, as that user.
fn program(bin: &Path, name: &str, user: Option<&str>) -> Command {
    let path = bin.join(name);
    let Some(user) = user else { return Command::new(path) };
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--regid"])
        .arg(group(user))
        .args(["--clear-groups", "--"])
        .arg(path)
        .current_dir("/");
    command
}

/// A user's own group.
fn group(user: &str) -> String {
    let output = Command::new("id").args(["-g", user]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen to be skipped")]
fn say(text: &str) {
    eprintln!("{text}");
}
