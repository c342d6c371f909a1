//! `mvault enclave run`: boots an image, serves it the sealed model and the broker's connection, and forwards its clients.

mod qemu;
mod relay;

use crate::aws::AwsArgs;
use crate::commands::artifact::Artifact;
use crate::error::CliError;
use crate::output::Output;
use qemu::{Machine, Signer};
use relay::{Event, Relay};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a machine may take to power off after its last line. Emulated ones have been seen to halt instead.
const POWER_OFF: Duration = Duration::from_secs(5);

/// Boot an enclave image, serve it a sealed model, and forward its clients
///
/// The parent's part: it carries ciphertext and TLS, and is trusted with nothing. Boots in QEMU's nitro-enclave machine, by emulation.
/// Ends with the enclave, or at Ctrl-C.
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
    let began = Instant::now();
    let machine = Machine::prepare(args, signer.as_ref())?;
    let credentials = args.keys.kms.as_ref().map(|_| args.aws.connect(out)).transpose()?;
    if let Some(aws) = &credentials {
        aws.credentials()?; // now, not after the boot
    }
    let (file, offset, len) = parts.at();
    let header = artifact.header.bytes();
    std::thread::scope(|scope| {
        let relay = Relay::start(scope, &machine, args, (header, file, offset, len), credentials, events.clone())?;
        let mut machine = machine.start(events)?;
        let patience = args.timeout.map(Duration::from_secs);
        let mut failed = None;
        let mut last: Option<Instant> = None;
        let ended = loop {
            let left = patience.map_or(Duration::from_hours(24), |p| p.saturating_sub(began.elapsed()));
            let left = last.map_or(left, |said| left.min(POWER_OFF.saturating_sub(said.elapsed())));
            match told.recv_timeout(left) {
                Ok(Event::Last) => last = Some(Instant::now()),
                Ok(Event::Line(line)) => {
                    let at = began.elapsed().as_secs_f64();
                    out.event(
                        &json!({ "line": line, "s": at, "dev_root": !mark.is_empty() }),
                        &format!("{mark}{line}"),
                    )?;
                    if let Some((_, why)) = line.split_once(" failed: ") {
                        failed = Some(why.to_owned());
                    }
                    if line.contains("[E-10] ready") {
                        let at = began.elapsed().as_secs_f64();
                        let words = format!("{mark}ready after {at:.1} s: https://{}", relay.address);
                        out.event(&json!({ "ready": relay.address.to_string(), "s": at }), &words)?;
                    }
                }
                Ok(Event::Console(line)) if args.console => {
                    out.event(&json!({ "console": line }), &format!("{mark}console: {line}"))?;
                }
                Ok(Event::Console(_)) => {}
                Ok(Event::Relay(line)) => {
                    out.event(&json!({ "relay": line }), &format!("{mark}relay: {line}"))?;
                }
                Ok(Event::Ended(status)) => break Some(status),
                Err(RecvTimeoutError::Timeout) if last.is_some() => break Some("it did not power off".to_owned()),
                Err(RecvTimeoutError::Timeout) if patience.is_none() => {}
                Ok(Event::Interrupted) | Err(_) => break None,
            }
        };
        // What was on its way when the machine ended.
        while let Ok(event) = told.recv_timeout(Duration::from_millis(200)) {
            if let Event::Line(line) = event {
                out.event(&json!({ "line": line }), &format!("{mark}{line}"))?;
                failed = line.split_once(" failed: ").map(|(_, why)| why.to_owned()).or(failed);
            }
        }
        let console = machine.stop();
        relay.stop();
        match (failed, ended) {
            (Some(why), _) => Err(refused(&why)),
            (None, None) => out.event(&json!({ "stopped": true }), &format!("{mark}stopped")),
            (None, Some(status)) => Err(CliError::failed(format!("the machine ended by itself: {status}"))
                .hint(if console.is_empty() { "--console shows more".into() } else { console })),
        }
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
