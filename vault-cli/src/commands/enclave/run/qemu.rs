//! QEMU's nitro-enclave machine: a vsock device on Unix sockets, and the machine itself, by KVM or by emulation.

use super::Args;
use super::channel::Way;
use super::relay::Event;
use crate::error::{CliError, io};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the vsock device may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// Console lines that are kept for an error's sake.
const KEPT: usize = 3;
/// Where Debian's packages have the firmware.
const FIRMWARE: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// What carries the machine's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's own, by KVM.
    Kvm,
    /// QEMU's.
    Emulation,
}

/// Whether KVM opens here. That a guest runs is another matter: there are machines where it opens, and the guest dies.
pub fn kvm_opens() -> bool {
    std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A development authority's files.
pub struct Signer {
    key: PathBuf,
    leaf: PathBuf,
    bundle: PathBuf,
}

impl Signer {
    /// Of a folder.
    pub fn read(folder: &Path) -> Result<Self, CliError> {
        let file = |name: &str| {
            let path = folder.join(name);
            std::fs::metadata(&path).map_err(|e| io(path.display())(e).hint("scripts/dev-root.sh makes the three"))?;
            std::path::absolute(&path).map_err(io(path.display()))
        };
        Ok(Self { key: file("key.pem")?, leaf: file("leaf.pem")?, bundle: file("bundle.pem")? })
    }
}

/// A machine that is prepared.
pub struct Machine {
    folder: tempfile::TempDir,
    vsock: Option<Kill>,
    qemu: Command,
}

/// A machine that runs.
pub struct Running {
    qemu: Arc<Mutex<Kill>>,
    console: Arc<Mutex<VecDeque<String>>>,
    _vsock: Option<Kill>,
    _folder: tempfile::TempDir,
}

/// A child process that does not outlive us.
struct Kill(Child);

impl Drop for Kill {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

impl Machine {
    /// Finds the emulator and starts the vsock device.
    pub fn prepare(args: &Args, signer: Option<&Signer>, accelerator: Accelerator) -> Result<Self, CliError> {
        let emulator = args.emulator.clone().map_or_else(find, Ok)?;
        let program = |name: &str| {
            let path = emulator.join(name);
            if path.is_file() { Ok(path) } else { Err(missing(&path)) }
        };
        let (qemu, device) = (program("qemu-system-x86_64")?, program("vhost-device-vsock")?);
        let image = std::path::absolute(&args.image).map_err(io(args.image.display()))?;
        std::fs::metadata(&image).map_err(io(args.image.display()))?;
        let folder = tempfile::Builder::new().prefix("mvault-enclave.").tempdir().map_err(io("a temporary folder"))?;
        let (socket, uds) = (folder.path().join("vhost"), folder.path().join("vsock"));
        let vm = format!("guest-cid=4,socket={},uds-path={}", socket.display(), uds.display());
        let child = Command::new(device)
            .args(["--vm", &vm])
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let vsock = Kill(child.map_err(io("vhost-device-vsock"))?);
        let began = Instant::now();
        while !socket.exists() {
            if began.elapsed() > PATIENCE {
                return Err(CliError::failed("vhost-device-vsock does not listen"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut command = Command::new(qemu);
        for folder in FIRMWARE {
            command.args(["-L", folder]);
        }
        let machine = "nitro-enclave,vsock=c,id=i-0123456789abcdef0-enc0123456789abcdef,\
                       parent-role=arn:aws:iam::123456789012:role/parent,parent-id=i-0123456789abcdef0";
        command.args(["-M", machine, "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        // Or the NSM's queue is looked at once unasked; a guest that has put half of a request into it just then is never answered.
        command.args(["-global", "virtio-mmio.ioeventfd=off"]);
        command.args(match accelerator {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Emulation => ["-accel", "tcg", "-cpu", "max"],
        });
        command.args(["-m", &format!("{}M", args.memory), "-smp", &args.cpus.to_string()]);
        command.arg("-kernel").arg(image);
        command.args(["-chardev", &format!("socket,id=c,path={}", socket.display())]);
        if let Some(khz) = clock_khz().filter(|_| accelerator == Accelerator::Emulation) {
            command.args(["-append", &format!("tsc_early_khz={khz} tsc=nowatchdog")]); // or its clock runs wild under load
        }
        if let Some(Signer { key, leaf, bundle }) = signer {
            for (name, path) in [("dev-key", key), ("dev-cert", leaf), ("dev-cabundle", bundle)] {
                command.args(["-global", &format!("virtio-nsm-device.{name}={}", path.display())]);
            }
        }
        Ok(Self { folder, vsock: Some(vsock), qemu: command })
    }

    /// Where its ports are.
    pub fn way(&self) -> Way {
        Way::Unix(self.folder.path().join("vsock"))
    }

    /// Boots it; its console lines and its end are events.
    pub fn start(mut self, events: Sender<Event>) -> Result<Running, CliError> {
        let command = self.qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(io("qemu-system-x86_64"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let console = Arc::new(Mutex::new(VecDeque::new()));
        let qemu = Arc::new(Mutex::new(Kill(child)));
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [stdout.map(|s| Box::new(s) as _), stderr.map(|s| Box::new(s) as _)];
        let readers: Vec<_> = streams
            .into_iter()
            .flatten()
            .map(|stream| {
                let (events, console) = (events.clone(), Arc::clone(&console));
                std::thread::spawn(move || read_console(stream, &events, &console))
            })
            .collect();
        let waited = Arc::clone(&qemu);
        std::thread::spawn(move || {
            for reader in readers {
                let _ = reader.join(); // the streams end with the process
            }
            let status = loop {
                let status = waited.lock().unwrap_or_else(PoisonError::into_inner).0.try_wait();
                match status {
                    Ok(Some(status)) => break status.to_string(),
                    Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                    Err(error) => break error.to_string(),
                }
            };
            let _ = events.send(Event::Ended(status)); // nobody waits any more
        });
        Ok(Running { qemu, console, _vsock: self.vsock.take(), _folder: self.folder })
    }
}

impl Running {
    /// Ends it; gives the last lines of its console.
    pub fn stop(&mut self) -> String {
        let mut qemu = self.qemu.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = qemu.0.kill(); // it may have ended
        let _ = qemu.0.wait();
        let console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        console.iter().cloned().collect::<Vec<_>>().join(" | ")
    }
}

fn read_console(stream: Box<dyn std::io::Read + Send>, events: &Sender<Event>, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).take(400).collect();
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(line.clone());
        let _ = events.send(Event::Console(line)); // nobody waits any more
    }
}

/// The newest emulator that scripts/setup.sh built.
fn find() -> Result<PathBuf, CliError> {
    let cache = std::env::home_dir().unwrap_or_default().join(".cache/mvault");
    let entries = std::fs::read_dir(&cache).into_iter().flatten().flatten();
    let built = entries.filter(|e| e.file_name().to_string_lossy().starts_with("emulator-"));
    let complete = built.filter_map(|e| Some((e.path().join("complete").metadata().ok()?.modified().ok()?, e.path())));
    complete.max().map(|(_, path)| path).ok_or_else(|| missing(&cache.join("emulator-*")))
}

fn missing(path: &Path) -> CliError {
    CliError::failed(format!("{}: not there", path.display()))
        .hint("`scripts/setup.sh emulator` builds the emulator, once; --emulator DIR takes another")
}

/// The rate of the processor's counter in kHz, where the system says it and it is constant.
fn clock_khz() -> Option<u64> {
    if Path::new("/sys/devices/system/cpu/cpu0/cpufreq").exists() {
        return None; // then cpuinfo has the rate of the moment
    }
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("cpu MHz"))?;
    let (whole, part) = line.split_once(": ")?.1.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 1000 + part.get(..3)?.parse::<u64>().ok()?)
}
