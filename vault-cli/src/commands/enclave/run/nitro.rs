//! EC2: AWS's `nitro-cli` boots the image. Never run there so far: nitro-cli and EC2 are out of this project's reach (docs/ENCLAVE.md).

use super::relay::Event;
use super::{Args, channel::Way};
use crate::error::{CliError, io};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// The device of machines that can have enclaves.
pub const DEVICE: &str = "/dev/nitro_enclaves";
/// How often it is looked whether the enclave is still there.
const GLANCE: Duration = Duration::from_secs(2);
const INSTALL: &str =
    "`sudo dnf install aws-nitro-enclaves-cli`, and `sudo systemctl start nitro-enclaves-allocator` for its memory";

/// What `run-enclave` and `describe-enclaves` say of one, in part.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    #[serde(rename = "EnclaveID")]
    enclave_id: String,
}

/// An enclave that is to be booted.
pub struct Nitro {
    cli: PathBuf,
    arguments: Vec<OsString>,
    cid: u32,
}

/// An enclave that runs; it ends when this is dropped.
pub struct Running {
    cli: PathBuf,
    id: String,
}

impl Nitro {
    /// Finds nitro-cli. The enclave's CID is chosen here: the ports must be open, to it alone, before it boots.
    pub fn prepare(args: &Args, cid: u32) -> Result<Self, CliError> {
        let cli = find("nitro-cli").ok_or_else(|| CliError::failed("nitro-cli: not found").hint(INSTALL))?;
        if !Path::new(DEVICE).exists() {
            return Err(CliError::failed(format!("{DEVICE}: not there")).hint(
                "launch the instance with enclaves enabled (EnclaveOptions.Enabled), and install the driver: see AWS's documentation",
            ));
        }
        let image = std::path::absolute(&args.image).map_err(io(args.image.display()))?;
        std::fs::metadata(&image).map_err(io(args.image.display()))?;
        Ok(Self { cli, arguments: arguments(&image, args.memory, args.cpus, cid), cid })
    }

    /// Where its ports are.
    pub fn way(&self) -> Way {
        Way::Vsock(self.cid)
    }

    /// Boots it; its end is an event. It is never in debug mode, so it has no console.
    pub fn start(self, events: Sender<Event>) -> Result<Running, CliError> {
        let output = run(&self.cli, &self.arguments)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
            return Err(CliError::failed(format!("nitro-cli run-enclave: {}", crate::output::printable(line)))
                .hint("`nitro-cli explain --error-code` has its errors; memory and processors come from /etc/nitro_enclaves/allocator.yaml"));
        }
        let id = started(&output.stdout)?;
        let running = Running { cli: self.cli.clone(), id: id.clone() };
        std::thread::spawn(move || {
            while is_there(&self.cli, &id) {
                std::thread::sleep(GLANCE);
            }
            let _ = events.send(Event::Ended("it is not among nitro-cli's enclaves any more".into())); // nobody waits any more
        });
        Ok(running)
    }
}

impl Running {
    /// Ends it.
    pub fn stop(&self) {
        let arguments = ["terminate-enclave", "--enclave-id", &self.id].map(OsString::from);
        let _ = run(&self.cli, &arguments); // it may have ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// No `--debug-mode`, whatever happens: its PCRs would be zeros, and its console the parent's.
fn arguments(image: &Path, memory_mib: u32, cpus: u32, cid: u32) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["run-enclave".into(), "--eif-path".into(), image.into()];
    for (name, value) in [("--memory", memory_mib), ("--cpu-count", cpus), ("--enclave-cid", cid)] {
        all.extend([name.into(), value.to_string().into()]);
    }
    all
}

fn run(cli: &Path, arguments: &[OsString]) -> Result<Output, CliError> {
    Command::new(cli).args(arguments).stdin(Stdio::null()).output().map_err(io("nitro-cli"))
}

/// The id in what run-enclave says: lines for people, then JSON.
fn started(stdout: &[u8]) -> Result<String, CliError> {
    let said = String::from_utf8_lossy(stdout);
    let json = said.find('{').and_then(|at| said.get(at..)).unwrap_or_default();
    let said = serde_json::from_str::<Said>(json).ok().filter(|said| !said.enclave_id.is_empty());
    said.map(|said| said.enclave_id)
        .ok_or_else(|| CliError::failed("nitro-cli run-enclave: no EnclaveID in its answer"))
}

/// Whether describe-enclaves knows it. One that cannot be asked is not said to be gone.
fn is_there(cli: &Path, id: &str) -> bool {
    let Ok(output) = run(cli, &["describe-enclaves".into()]) else { return true };
    match serde_json::from_slice::<Vec<Said>>(&output.stdout) {
        Ok(all) => all.iter().any(|said| said.enclave_id == id),
        Err(_) => true,
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is the report

    use super::*;

    #[test]
    fn enclaves_are_never_started_in_debug_mode() {
        let all = arguments(Path::new("/a b/m.eif"), 1024, 2, 77);
        let all: Vec<_> = all.iter().map(|a| a.to_str().unwrap()).collect();
        let expected =
            ["run-enclave", "--eif-path", "/a b/m.eif", "--memory", "1024", "--cpu-count", "2", "--enclave-cid", "77"];
        assert_eq!(all, expected);
    }

    /// The form is AWS's documentation's.
    #[test]
    fn the_id_is_read_behind_lines_for_people() {
        let said = b"Start allocating memory...\nStarted enclave with enclave-cid: 16, memory: 512 MiB, cpu-ids: [1, 3]\n{\n \
                     \"EnclaveName\": \"m\", \"EnclaveID\": \"i-05f6ed443aEXAMPLE-enc173dfe3eEXAMPLE\",\n \"ProcessID\": 7077, \"EnclaveCID\": 16}";
        assert_eq!(started(said).unwrap(), "i-05f6ed443aEXAMPLE-enc173dfe3eEXAMPLE");
        for wrong in [&b""[..], b"{}", b"{\"EnclaveID\": \"\"}", b"[1]"] {
            assert!(started(wrong).is_err());
        }
    }
}
