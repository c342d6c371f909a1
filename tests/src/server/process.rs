//! One server process at a time, and its folder, neither of which outlives the test process.
//!
//! A small shell, the keeper, reads the server's pid from a pipe that this process holds. When the pipe closes, because
//! the server is dropped or because the test process was killed, it kills the last pid it was told and removes the
//! folder. It needs no unsafe code, and works for servers in statics, which are never dropped.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How long a server may take to end by itself. SeaweedFS closes its stores at once and then waits for streams between
/// its own parts, without an end.
const GRACE: Duration = Duration::from_secs(2);

const KEEPER: &str = r#"
    trap '' INT TERM HUP
    while read -r line; do pid=$line; done
    [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
    rm -rf -- "$@" || { sleep 1; rm -rf -- "$@"; }
"#;

/// An empty temporary folder; [`Process`] has it removed.
pub struct Folder(PathBuf);

impl Folder {
    /// Made at once.
    #[expect(clippy::new_without_default)] // a folder on disk is no default
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("mvault-server-").tempdir().expect("a temporary folder").keep())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

pub struct Process {
    folder: Folder,
    command: Command,
    child: Option<Child>,
    keeper: Child,
}

impl Process {
    /// Runs nothing yet. `litter` is what the server leaves outside of its folder.
    pub fn new(folder: Folder, command: Command, litter: Vec<PathBuf>) -> Self {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(folder.path()).args(litter);
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("sh");
        Self { folder, command, child: None, keeper }
    }

    pub fn start(&mut self) {
        let log = File::options().append(true).create(true).open(self.log_path()).expect("a log");
        let copy = log.try_clone().expect("a second handle");
        self.command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(copy).stderr(log);
        let child = self.command.spawn().unwrap_or_else(|e| panic!("server not started: {e}"));
        self.tell(&child.id().to_string());
        self.child = Some(child);
    }

    /// Asks it to end, and ends it when it does not.
    pub fn stop(&mut self) {
        let Some(child) = &self.child else { return };
        let asked = Command::new("kill").arg(child.id().to_string()).status().is_ok_and(|status| status.success());
        let began = Instant::now();
        while asked && began.elapsed() < GRACE && !self.ended() {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill(); // it may have ended by itself
        child.wait().expect("our own child");
        self.tell("");
    }

    /// Whether it is over without having been told.
    pub fn ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("our own child").is_some())
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The end of what it said: enough to see why it does not start.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(8 << 10)..]).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn tell(&mut self, pid: &str) {
        if let Some(pipe) = &mut self.keeper.stdin {
            let _ = writeln!(pipe, "{pid}"); // a keeper that is gone keeps nothing
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// `N` ports of 127.0.0.1 that nobody listens on, below those that the system hands to outgoing connections: a port
/// stays free for its server while that is being restarted. No two servers of this process get the same.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let clock = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    let mut next = (std::process::id().wrapping_mul(7919) ^ clock) % 12_000;
    std::array::from_fn(|_| {
        for _ in 0..12_000 {
            next = (next + 1) % 12_000;
            let port = 20_000 + u16::try_from(next).expect("below 12,000");
            if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                taken.insert(port);
                return port;
            }
        }
        panic!("no free port between 20000 and 31999");
    })
}
