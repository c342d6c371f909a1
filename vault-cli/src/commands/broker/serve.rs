//! `mvault broker serve`: reads everything, says where it listens, and answers until it is told to stop.

use super::read_keyring;
use crate::aws::AwsArgs;
use crate::error::{CliError, io};
use crate::keys::IdentityArgs;
use crate::output::Output;
use crate::process::on_interrupt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use vault_attest::nitro::Roots;
use vault_attest::tlog::LogSigner;
use vault_broker::config::Config;
use vault_broker::judge::Judge;
use vault_broker::server::{ServeError, Server};
use vault_broker::state::{StateLedger, open};

/// Start a broker; Ctrl-C or SIGTERM stops it when what is under way is done, SIGHUP reads policies anew
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault broker serve broker
  mvault broker serve broker --passphrase-fd 3 3</run/credentials/passphrase
  mvault broker serve broker -i aws-kms
  kill -HUP PID          read policies, revocations and certificate anew")]
pub struct Args {
    /// The broker's folder
    folder: PathBuf,
    /// Also take evidence that chains to this certificate (PEM): whoever has its key can get every key that
    /// this broker releases. For emulators.
    #[arg(long, value_name = "ROOT.PEM")]
    dangerous_dev_root: Vec<PathBuf>,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let config = Config::read(&args.folder)?;
    let roots = roots(&args.dangerous_dev_root, out)?;
    let keyring = read_keyring(&config, &args.identity, &args.aws, out)?;
    let signer = LogSigner::new(&config.origin, keyring.log_seed())
        .map_err(|e| CliError::failed(format!("broker.toml: origin: {e}")))?;
    let (writer, reader) = (open(&config.state, true)?, open(&config.state, true)?);
    let ledger = StateLedger::start(writer, reader, signer, config.quotas.clone())?;
    let server = Server::bind(&config, args.folder.clone(), Judge::new(keyring, roots), Arc::new(ledger))?;
    let (listen, admin) = server.addresses().map_err(io("the broker's address"))?;
    vault_broker::logs::start();
    let policies = server.policies();
    if policies.is_empty() {
        out.warning(&format!("{}: no policy yet, so nothing is released", config.policies.display()));
    }
    out.note(&format!("listening on https://{listen}, policies: {}", policies.join(", ")));
    out.note(&format!("metrics and health on http://{admin}"));
    let (stop, stopped) = watch::channel(false);
    on_interrupt(Box::new(move || {
        let _ = stop.send(true); // nobody to tell once the server is gone
    }));
    server.run(stopped);
    out.note("stopped");
    Ok(())
}

/// AWS's root, and those that were asked for by name.
pub(crate) fn roots(dangerous: &[PathBuf], out: &Output) -> Result<Roots, CliError> {
    let mut roots = Roots::aws();
    for path in dangerous {
        let der = root_der(path)?;
        out.warning(&format!(
            "--dangerous-dev-root {}: whoever has its key can forge evidence of any enclave",
            path.display()
        ));
        roots = roots.dangerous_with(&der);
    }
    Ok(roots)
}

fn root_der(path: &Path) -> Result<Vec<u8>, CliError> {
    let pem = super::read_bounded(path, 64 * 1024)?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| {
        CliError::failed(format!("{}: no certificate in it", path.display())).hint("expected one certificate in PEM")
    })?;
    Ok(certificate.to_vec())
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Config(error) => error.into(),
            ServeError::Listen { address, source } => {
                io(address)(source).hint("is another broker running? change listen or admin in broker.toml")
            }
            other => Self::failed(other.to_string()),
        }
    }
}
