//! `mvault broker certificate`: a new certificate and key by the CA that images pin. They are written in the order of vault-broker's
//! `tls.rs`, so that at no moment, and after no crash, the certificate is without its key.

use super::client::ClientFile;
use super::{lock, now_s, read_keyring};
use crate::aws::AwsArgs;
use crate::error::CliError;
use crate::files::{Access, folder_of, place, write_new};
use crate::keys::IdentityArgs;
use crate::output::Output;
use rustls::Error;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use vault_attest::time::rfc3339;
use vault_broker::config::{Config, Tls};
use vault_broker::tls::{self, TlsError};
use vault_enclave::host_of;

/// Renew the broker's TLS certificate and its key, by the CA that images pin: they stay as they are
///
/// The broker goes on with the old certificate until SIGHUP; replicas get both files of tls/ before theirs. The names are those of
/// the present certificate, unless --host names others.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault broker certificate broker && systemctl reload mvault-broker
  mvault broker certificate broker -i aws-kms --days 90
  mvault broker certificate broker --host keys.example.com --host 10.2.0.5    one more way to it")]
pub struct Args {
    /// The broker's folder
    folder: PathBuf,
    /// A name or address that enclaves reach the broker by, that of client.toml among them; may be repeated
    /// [default: those of the present certificate]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Days that it is valid
    #[arg(long, value_name = "N", default_value_t = tls::SERVER_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let config = Config::read(&args.folder)?;
    let client = ClientFile::read(&args.folder.join("client.toml"))?;
    let hosts = if args.hosts.is_empty() { present(&config.tls.certificate)? } else { args.hosts.clone() };
    let keyring = read_keyring(&config, &args.identity, &args.aws, out)?;
    let made = tls::make_server(keyring.ca(), &config.origin, &hosts, now_s(), args.days);
    let (pem, key) =
        made.map_err(|e| CliError::failed(e.to_string()).hint("--host takes DNS names and IP addresses"))?;
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect::<Vec<_>>();
    let host = host_of(&client.url).unwrap_or_default();
    tls::check_reached(&chain, &client.ca, host, now_s()).map_err(|e| unreached(&e, host))?;
    let until = tls::end_of(&chain).map(rfc3339).map_err(CliError::failed)?;
    replace(&config.tls, &pem, &key)?;
    let shown = config.tls.certificate.display();
    let json = json!({ "ok": true, "certificate": shown.to_string(), "hosts": hosts, "until": until });
    let text = format!("{shown}: for {}, until {until}\nthe broker takes it at SIGHUP\n", hosts.join(", "));
    out.result(&json, &text)
}

/// What the certificate in use is for.
fn present(certificate: &Path) -> Result<Vec<String>, CliError> {
    let no_names = |e: String| CliError::failed(e).hint("name all hosts with --host");
    let chain = tls::read_chain(certificate).map_err(|e| no_names(e.to_string()))?;
    tls::names(&chain).map_err(|e| no_names(format!("{}: {e}", certificate.display())))
}

/// A certificate that images as they are would refuse is not written.
fn unreached(error: &TlsError, host: &str) -> CliError {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
    match error {
        TlsError::Refused(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            CliError::failed(format!("client.toml has the broker at {host}, which this certificate would not be for"))
                .hint(format!("--host {host}, beside the others"))
        }
        _ => CliError::failed(error.to_string()).hint(
            "its CA is not that of this keyring and of origin in broker.toml: a certificate by that CA goes into tls/ by hand",
        ),
    }
}

fn replace(files: &Tls, pem: &str, key: &str) -> Result<(), CliError> {
    for path in [&files.certificate, &files.key] {
        if path.is_symlink() {
            return Err(CliError::failed(format!(
                "{}: a symbolic link, which a new file would replace",
                path.display()
            ))
            .hint("name its target in [tls] of broker.toml"));
        }
    }
    let _lock = lock(folder_of(&files.key))?;
    let next = tls::next_key(&files.key);
    // An interrupted renewal: its certificate is in its place, and this is its key.
    if tls::pair(&files.certificate, &files.key).is_err() && tls::pair(&files.certificate, &next).is_ok() {
        place(&next, &files.key, true)?;
    }
    write_new(&next, key.as_bytes(), Access::Owner, true)?;
    if let Err(error) = write_new(&files.certificate, pem.as_bytes(), Access::Public, true) {
        if tls::pair(&files.certificate, &files.key).is_ok() {
            let _ = fs::remove_file(&next); // the old pair is whole; else the new one is
        }
        return Err(error);
    }
    place(&next, &files.key, true)
}
