//! `mvault broker init`: a broker's folder, whole or not at all.

use super::client::ClientFile;
use super::now_s;
use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::{CliError, io};
use crate::files::{Access, write_new};
use crate::keys::RecipientArgs;
use crate::output::Output;
use crate::process::{keep_on_interrupt, remove_on_interrupt};
use rand_core::UnwrapErr;
use serde_json::json;
use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use vault_attest::tlog::LogSigner;
use vault_broker::keyring::Keyring;
use vault_broker::tls;
use vault_core::recipient::Recipient;

/// Make a broker: its keys (sealed), a CA and certificate, configuration, and what enclaves pin
///
/// The keyring is a sealed artifact: for the recipients given, for a passphrase (-p), or else for your own key.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault broker init broker --host keys.example.com --listen 0.0.0.0:8443
  mvault broker init broker --host localhost -p          keys under a passphrase
  mvault broker init broker --host keys.example.com -r aws-kms:alias/broker
  mvault recipients add broker/broker.keys -r …          another operator's key

Then: put policies into broker/policies (mvault policy new), seal models with
-r LINE/POLICY, and start it: mvault broker serve broker")]
pub struct Args {
    /// The folder to make
    folder: PathBuf,
    /// The name or address that enclaves reach the broker by; the first is in client.toml; may be repeated
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// Where to listen for enclaves
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where to listen for metrics and health checks; a loopback address
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9443")]
    admin: SocketAddr,
    /// The release log's name [default: HOST/mvault]
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    #[command(flatten)]
    recipients: RecipientArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let folder = &args.folder;
    if folder.symlink_metadata().is_ok() {
        return Err(CliError::failed(format!("{}: already exists", folder.display()))
            .hint("a broker's keys are never overwritten: choose another folder"));
    }
    if !args.admin.ip().is_loopback() {
        return Err(CliError::usage(format!("--admin {}: metrics and health are plain HTTP", args.admin))
            .hint("give a loopback address, such as 127.0.0.1:9443"));
    }
    let recipients = args.recipients.all(&Project::find()?, &args.aws, out)?;
    let recipients: Vec<&dyn Recipient> = recipients.iter().map(AsRef::as_ref).collect();
    let made = Made::new(args, &recipients)?;
    let building = beside(folder);
    remove_on_interrupt(building.clone());
    let written = made.write(&building).and_then(|()| fs::rename(&building, folder).map_err(io(folder.display())));
    if written.is_err() {
        let _ = fs::remove_dir_all(&building);
    }
    keep_on_interrupt(&building);
    written?;
    report(folder, &made.client, out)
}

fn report(folder: &Path, client: &ClientFile, out: &mut Output) -> Result<(), CliError> {
    let shown = folder.display();
    let json = json!({
        "ok": true,
        "folder": shown.to_string(),
        "url": client.url,
        "recipient": client.recipient,
        "key": client.keys.first(),
        "log": client.log,
    });
    let text = format!(
        "made {shown}: broker.toml, broker.keys (sealed), tls/, policies/, client.toml\n\n\
         next: a policy            mvault policy new --from measurements.json -o {shown}/policies/prod.toml\n      \
         seal for it         mvault seal model -r \"$(mvault broker recipient {shown} prod)\"\n      \
         start it            mvault broker serve {shown}\n      \
         enclaves pin        {shown}/client.toml\n"
    );
    out.result(&json, &text)
}

/// A name for the folder while it is built.
fn beside(folder: &Path) -> PathBuf {
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    folder.with_file_name(format!(".{name}.{}.mvault-new", std::process::id()))
}

/// Everything that goes into the folder.
struct Made {
    config: String,
    keyring: Vec<u8>,
    ca: String,
    chain: String,
    key: zeroize::Zeroizing<String>,
    client: ClientFile,
}

impl Made {
    fn new(args: &Args, recipients: &[&dyn Recipient]) -> Result<Self, CliError> {
        let mut rng = UnwrapErr(getrandom::SysRng);
        let host = args.hosts.first().map(String::as_str).unwrap_or_default();
        let origin = args.origin.clone().unwrap_or_else(|| format!("{host}/mvault"));
        let keyring = Keyring::generate(now_s(), &mut rng)?;
        let signer = LogSigner::new(&origin, keyring.log_seed())
            .map_err(|e| CliError::usage(format!("--origin {origin}: {e}")))?;
        let failed = |e: tls::TlsError| CliError::failed(e.to_string()).hint("--host takes DNS names and IP addresses");
        let ca = tls::make_ca(keyring.ca(), &origin, now_s()).map_err(failed)?;
        let (chain, key) =
            tls::make_server(keyring.ca(), &origin, &args.hosts, now_s(), tls::SERVER_DAYS).map_err(failed)?;
        let url_host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let url = format!("https://{url_host}:{}", args.listen.port());
        let client = ClientFile::new(&url, &keyring, signer.verifier(), &ca);
        let keyring = keyring.seal(recipients, &mut rng)?;
        Ok(Self { config: config_text(&origin, args.listen, args.admin), keyring, ca, chain, key, client })
    }

    fn write(&self, folder: &Path) -> Result<(), CliError> {
        for path in [folder.to_owned(), folder.join("tls"), folder.join("policies")] {
            DirBuilder::new().mode(0o700).create(&path).map_err(io(path.display()))?;
        }
        let client = self.client.text();
        let files: [(&str, &[u8], Access); 6] = [
            ("broker.toml", self.config.as_bytes(), Access::Public),
            ("broker.keys", &self.keyring, Access::Owner),
            ("client.toml", client.as_bytes(), Access::Public),
            ("tls/ca.pem", self.ca.as_bytes(), Access::Public),
            ("tls/cert.pem", self.chain.as_bytes(), Access::Public),
            ("tls/key.pem", self.key.as_bytes(), Access::Owner),
        ];
        files.iter().try_for_each(|(name, bytes, access)| write_new(&folder.join(name), bytes, *access, false))
    }
}

/// `broker.toml` with everything it can say.
fn config_text(origin: &str, listen: SocketAddr, admin: SocketAddr) -> String {
    format!(
        "\
# A key broker of mvault: docs/OPERATIONS.md. Paths are relative to this file's folder. Lines that are commented
# out show their defaults. `kill -HUP` reads policies, [revoked] and the certificate anew; the rest needs a restart.

origin = {origin:?} # the release log's name; never change it
listen = \"{listen}\" # for enclaves: TLS 1.3
admin = \"{admin}\" # for this host only: /metrics, /healthz, /readyz
# keyring = \"broker.keys\"
# policies = \"policies\"

[tls]
# certificate = \"tls/cert.pem\"
# key = \"tls/key.pem\"

[state] # one of the two
# sqlite = \"state.db\"
# postgres = \"host=/run/postgresql dbname=mvault user=mvault\" # several replicas; no password here (PGPASSFILE)

[limits] # a source is an IPv4 address or an IPv6 /64
# connections = 1024
# connections_per_source = 256
# requests_per_second = 2000
# requests_per_second_per_source = 100
# head_timeout_s = 10
# body_timeout_s = 10
# decision_timeout_s = 30
# connection_life_s = 300
# decisions = 256
# stop_timeout_s = 20

[quotas] # releases an hour; 0 is no limit
# per_key = 0
# per_measurement = 10000
# per_source = 1000

[revoked] # these get no key any more
# artifacts = [\"64 hex digits\"]
# recipients = [\"64 hex digits: a broker key's id\"]
"
    )
}
