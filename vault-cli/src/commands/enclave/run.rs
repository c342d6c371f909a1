//! `mvault enclave run`: boots an image, serves it the sealed model and the broker's connection, and forwards its clients.

mod channel;
mod nitro;
mod qemu;
mod relay;

use crate::aws::AwsArgs;
use crate::commands::artifact::Artifact;
use crate::error::CliError;
use crate::output::Output;
use channel::Way;
use getrandom::SysRng;
use nitro::Nitro;
use qemu::{Accelerator, Machine, Signer};
use rand_core::TryRng;
use relay::{Event, Relay};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long a machine may take to power off after its last line. Emulated ones have been seen to halt instead.
const POWER_OFF: Duration = Duration::from_secs(5);

/// How long KVM may take to the first line before emulation is tried. Emulation takes 1.2 s here.
const FIRST_LINE: Duration = Duration::from_secs(5);

/// Boot an enclave image, serve it a sealed model, and forward its clients
///
/// The parent's part: it carries ciphertext and TLS, and is trusted with nothing. Boots by nitro-cli on EC2, elsewhere in QEMU's
/// nitro-enclave machine. Ends with the enclave, or at Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault enclave run model.eif minilm.mvault --broker broker.example:8443
  mvault enclave run model.eif s3://models/team/minilm@prod --broker 127.0.0.1:8443 --listen 127.0.0.1:9443
  mvault enclave run model.eif s3://models/team/minilm --kms kms.eu-west-1.amazonaws.com:443
  mvault enclave run model.eif minilm.mvault --broker 127.0.0.1:8443 --dangerous-dev-signer dev/

Exit codes: 0 stopped, 1 failed, 3 the model is not authentic, 4 broker or KMS refused.")]
pub struct Args {
    /// The image
    #[arg(value_name = "EIF")]
    image: PathBuf,
    /// The sealed model: a file, or `s3://BUCKET/PREFIX/NAME[:VERSION|@TAG]`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    keys: KeysArgs,
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// The enclave's memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..=1_048_576))]
    memory: u32,
    /// The enclave's processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=128))]
    cpus: u32,
    /// What boots it
    #[arg(long, value_enum, default_value_t = MachineName::Auto)]
    machine: MachineName,
    /// Folder with qemu-system-x86_64 and vhost-device-vsock [default: what scripts/setup.sh emulator built]
    #[arg(long, value_name = "DIR")]
    emulator: Option<PathBuf>,
    /// Let the emulator's NSM sign with key.pem, leaf.pem and bundle.pem of this folder: a development authority, which is trusted
    /// only where --dangerous-dev-root names its root
    #[arg(long, value_name = "DIR")]
    dangerous_dev_signer: Option<PathBuf>,
    /// Show the kernel's console too
    #[arg(long)]
    console: bool,
    /// Stop after so many seconds
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Where the image's key request goes.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct KeysArgs {
    /// Where TLS to the broker is forwarded, and nowhere else
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Where TLS to AWS KMS is forwarded, and nowhere else. This machine's AWS credentials sign the request
    #[arg(long, value_name = "HOST:PORT")]
    kms: Option<String>,
}

impl KeysArgs {
    /// What it is, and its address.
    fn address(&self) -> (&'static str, &str) {
        match (&self.broker, &self.kms) {
            (Some(address), _) => ("broker", address),
            (_, kms) => ("AWS KMS", kms.as_deref().unwrap_or_default()),
        }
    }
}

/// What boots an image.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MachineName {
    /// nitro-cli where there is /dev/nitro_enclaves; else QEMU, with KVM where that carries the guest
    Auto,
    /// nitro-cli, on EC2
    Nitro,
    /// QEMU, with KVM
    Kvm,
    /// QEMU, by emulation
    Emulation,
}

/// What is tried, in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Boot {
    Nitro,
    Qemu(Accelerator),
}

impl MachineName {
    fn boots(self) -> Vec<Boot> {
        let emulation = Boot::Qemu(Accelerator::Emulation);
        match self {
            Self::Nitro => vec![Boot::Nitro],
            Self::Kvm => vec![Boot::Qemu(Accelerator::Kvm)],
            Self::Auto if Path::new(nitro::DEVICE).exists() => vec![Boot::Nitro],
            Self::Auto if qemu::kvm_opens() => vec![Boot::Qemu(Accelerator::Kvm), emulation],
            Self::Auto | Self::Emulation => vec![emulation],
        }
    }
}

/// A machine that is ready to boot.
enum Prepared {
    Nitro(Nitro),
    Qemu(Machine),
}

/// A machine that runs.
enum Running {
    Nitro(nitro::Running),
    Qemu(qemu::Running),
}

impl Prepared {
    fn new(boot: Boot, args: &Args, signer: Option<&Signer>) -> Result<Self, CliError> {
        match boot {
            Boot::Qemu(accelerator) => Machine::prepare(args, signer, accelerator).map(Self::Qemu),
            Boot::Nitro if signer.is_some() => {
                Err(CliError::usage("--dangerous-dev-signer is of the emulator: on EC2 the hardware signs"))
            }
            Boot::Nitro => {
                let random = SysRng.try_next_u32().map_err(|e| CliError::failed(e.to_string()))?;
                Nitro::prepare(args, FIRST_CID + random % (i32::MAX.unsigned_abs() - FIRST_CID)).map(Self::Nitro)
            }
        }
    }

    fn way(&self) -> Way {
        match self {
            Self::Nitro(machine) => machine.way(),
            Self::Qemu(machine) => machine.way(),
        }
    }

    fn start(self, events: Sender<Event>) -> Result<Running, CliError> {
        match self {
            Self::Nitro(machine) => machine.start(events).map(Running::Nitro),
            Self::Qemu(machine) => machine.start(events).map(Running::Qemu),
        }
    }
}

impl Running {
    /// Ends it; gives the last lines of its console.
    fn stop(&mut self) -> String {
        match self {
            Self::Qemu(machine) => machine.stop(),
            Self::Nitro(machine) => {
                machine.stop();
                String::new()
            }
        }
    }
}

/// The lowest CID that is nobody's by convention.
const FIRST_CID: u32 = 16;

/// How an attempt ended.
enum Outcome {
    /// Ctrl-C, or time was up.
    Stopped,
    /// It ended by itself, with a line that says why.
    Failed(String),
    /// It ended by itself: the status, and the last of its console.
    Died(String, String),
    /// KVM opened, and no line came: nothing ran.
    Silent,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let artifact = Artifact::open(&args.model, &args.aws, out)?;
    let parts = artifact.parts()?;
    let signer = args.dangerous_dev_signer.as_deref().map(Signer::read).transpose()?;
    let mark = if signer.is_some() {
        out.warning("--dangerous-dev-signer: this enclave's evidence is signed by a development authority, not by AWS");
        "[dev root] "
    } else {
        ""
    };
    let (events, told) = channel();
    let interrupted = events.clone();
    ctrlc::set_handler(move || {
        let _ = interrupted.send(Event::Interrupted); // nobody waits any more: it ends anyway
    })
    .map_err(|e| CliError::failed(format!("the interrupt handler cannot be set: {e}")))?;
    let credentials = args.keys.kms.as_ref().map(|_| args.aws.connect(out)).transpose()?;
    let (file, offset, len) = parts.at();
    let model = (artifact.header.bytes(), file, offset, len);
    let boots = args.machine.boots();
    for (place, boot) in boots.iter().enumerate() {
        let machine = Prepared::new(*boot, args, signer.as_ref())?;
        if let Some(aws) = &credentials {
            aws.credentials()?; // now, not after the boot
        }
        let more = boots.len() > place + 1;
        let outcome = std::thread::scope(|scope| {
            let credentials = credentials.clone();
            let relay = Relay::start(scope, &machine.way(), args, model, credentials, events.clone())?;
            let mut machine = machine.start(events.clone())?;
            follow(args, out, mark, &told, &relay, &mut machine, more)
        })?;
        return match outcome {
            Outcome::Silent => {
                out.note("KVM opens on this machine, and the enclave does not run on it: emulating; --machine emulation does at once");
                continue;
            }
            Outcome::Stopped => out.event(&json!({ "stopped": true }), &format!("{mark}stopped")),
            Outcome::Failed(why) => Err(refused(&why)),
            Outcome::Died(status, console) => {
                let error = CliError::failed(format!("the machine ended by itself: {status}"));
                Err(error.hint(if console.is_empty() { "--console shows more".into() } else { console }))
            }
        };
    }
    Ok(())
}

/// Says what happens until it ends.
fn follow(
    args: &Args,
    out: &mut Output,
    mark: &str,
    told: &Receiver<Event>,
    relay: &Relay,
    machine: &mut Running,
    more: bool,
) -> Result<Outcome, CliError> {
    let (began, patience) = (Instant::now(), args.timeout.map(Duration::from_secs));
    let (mut failed, mut last, mut spoke) = (None, None::<Instant>, false);
    let ended = loop {
        let left = patience.map_or(Duration::from_hours(24), |p| p.saturating_sub(began.elapsed()));
        let left = last.map_or(left, |said| left.min(POWER_OFF.saturating_sub(said.elapsed())));
        let left = if spoke || !more { left } else { left.min(FIRST_LINE.saturating_sub(began.elapsed())) };
        match told.recv_timeout(left) {
            Ok(Event::Last) => last = Some(Instant::now()),
            Ok(Event::Line(line)) => {
                spoke = true;
                let at = began.elapsed().as_secs_f64();
                out.event(&json!({ "line": line, "s": at, "dev_root": !mark.is_empty() }), &format!("{mark}{line}"))?;
                if let Some((_, why)) = line.split_once(" failed: ") {
                    failed = Some(why.to_owned());
                }
                if line.contains("[E-10] ready") {
                    let words = format!("{mark}ready after {at:.1} s: https://{}", relay.address);
                    out.event(&json!({ "ready": relay.address.to_string(), "s": at }), &words)?;
                }
            }
            Ok(Event::Console(line)) if args.console => {
                out.event(&json!({ "console": line }), &format!("{mark}console: {line}"))?;
            }
            Ok(Event::Console(_)) => {}
            Ok(Event::Relay(line)) => out.event(&json!({ "relay": line }), &format!("{mark}relay: {line}"))?,
            Ok(Event::Ended(status)) => break Some(status),
            Err(RecvTimeoutError::Timeout) if last.is_some() => break Some("it did not power off".to_owned()),
            Err(RecvTimeoutError::Timeout) if more && !spoke => break Some("it says nothing".to_owned()),
            Err(RecvTimeoutError::Timeout) if patience.is_none() => {}
            Ok(Event::Interrupted) | Err(_) => break None,
        }
    };
    // What was on its way when the machine ended.
    while let Ok(event) = told.recv_timeout(Duration::from_millis(200)) {
        if let Event::Line(line) = event {
            spoke = true;
            out.event(&json!({ "line": line }), &format!("{mark}{line}"))?;
            failed = line.split_once(" failed: ").map(|(_, why)| why.to_owned()).or(failed);
        }
    }
    let console = machine.stop();
    // The end of its process, if it was us who ended it: not an event of the next attempt.
    while let Ok(Event::Ended(_) | Event::Console(_)) = told.recv_timeout(Duration::from_millis(200)) {}
    Ok(match (failed, ended) {
        (Some(why), _) => Outcome::Failed(why),
        (None, None) => Outcome::Stopped,
        (None, Some(_)) if more && !spoke => Outcome::Silent,
        (None, Some(status)) => Outcome::Died(status, console),
    })
}

/// The enclave's last line, with the exit code of what failed.
fn refused(why: &str) -> CliError {
    let message = format!("the enclave: {}", crate::output::printable(why));
    let step = why.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(step, _)| step);
    let refused_by_broker = why.contains("refused at step");
    let refused_by_kms = why.contains("AWS KMS: AccessDeniedException");
    match step {
        Some("E-5") if refused_by_broker => {
            CliError::denied(message).by_rule("E-5").hint("`mvault broker why` says expected, actual and what to do")
        }
        Some("E-5") if refused_by_kms => CliError::denied(message)
            .by_rule("E-5")
            .hint("`mvault enclave measure --kms` prints what the key's policy must demand of this image"),
        Some(step @ ("E-4" | "E-6" | "E-7")) if !why.contains("the parent's model") => CliError::not_authentic(message)
            .by_rule(step)
            .hint("the image pins signer, name and version of its model; docs/ENCLAVE.md section 3"),
        Some(step) => CliError::failed(message).by_rule(step).hint("docs/ENCLAVE.md section 3 has the step"),
        None => CliError::failed(message),
    }
}
