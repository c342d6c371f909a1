//! `mvault keygen`: a key file and its recipient line, or a publisher's signing key.

use crate::config::default_identity;
use crate::error::{CliError, io};
use crate::files::{Access, exists, write_new};
use crate::keys::{PassphraseArgs, load_identities, new_passphrase};
use crate::output::Output;
use rand_core::UnwrapErr;
use std::path::{Path, PathBuf};
use vault_core::recipient::keyfile::{KeyLine, encode_protected, encode_recipient, encode_secret};
use vault_core::recipient::xwing::XWingIdentity;
use vault_core::signature::PublisherKey;
use zeroize::Zeroizing;

/// Make a key; prints the recipient line that others seal for
///
/// Without -o the key becomes yours: `mvault seal` and `mvault open` use it by default.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault keygen                         your key, in your configuration folder
  mvault keygen -o ci.txt               a key file, mode 0600
  mvault keygen -p -o alice.txt         protected by a passphrase
  mvault keygen --public ci.txt         its recipient line again
  mvault keygen --signing -o sign.pem   a publisher's key, and sign.pem.pub")]
pub struct Args {
    /// Where to write the secret key
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Make a publisher's signing key (ECDSA P-256, PEM) and its public key FILE.pub
    #[arg(long, requires = "output")]
    signing: bool,
    /// Print the recipient line of an existing key file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "signing"])]
    public: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    if let Some(path) = &args.public {
        return show(path, out);
    }
    match &args.output {
        Some(path) if args.signing => signing(path, out),
        Some(path) => identity(path, args, out),
        None => {
            let path = default_identity()?;
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(io(folder.display()))?;
            identity(&path, args, out)
        }
    }
}

fn identity(path: &Path, args: &Args, out: &mut Output) -> Result<(), CliError> {
    if path.symlink_metadata().is_ok() {
        return Err(exists(path).hint("a key is never overwritten: move it away first, or choose another name with -o"));
    }
    let mut rng = UnwrapErr(getrandom::SysRng);
    let identity = XWingIdentity::generate(&mut rng);
    let recipient = encode_recipient(identity.recipient());
    let secret = match new_passphrase(&args.passphrase)? {
        Some(passphrase) => Zeroizing::new(encode_protected(&identity, &passphrase, &mut rng)?),
        None => encode_secret(&identity),
    };
    let text = Zeroizing::new(format!(
        "# mvault secret key: keep it, and keep it to yourself\n# recipient: {recipient}\n{}\n",
        *secret
    ));
    write_new(path, text.as_bytes(), Access::Owner, false)?;
    out.note(&format!("secret key in {}; the recipient line:", path.display()));
    let json = serde_json::json!({ "ok": true, "recipient": recipient, "file": path.display().to_string() });
    out.result(&json, &format!("{recipient}\n"))
}

fn signing(path: &Path, out: &mut Output) -> Result<(), CliError> {
    let public_path = PathBuf::from(format!("{}.pub", path.display()));
    for path in [path, &public_path] {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path).hint("a key is never overwritten: choose another name with -o"));
        }
    }
    let key = PublisherKey::generate(&mut UnwrapErr(getrandom::SysRng));
    let public = key.public();
    write_new(path, key.to_pem()?.as_bytes(), Access::Owner, false)?;
    write_new(&public_path, public.to_pem()?.as_bytes(), Access::Public, false)?;
    let id = vault_core::header::hex(&public.key_id());
    out.note(&format!("signing key in {}, public key in {}", path.display(), public_path.display()));
    let json = serde_json::json!({
        "ok": true, "key_id": id,
        "file": path.display().to_string(), "public": public_path.display().to_string(),
    });
    out.result(&json, &format!("{id}\n"))
}

fn show(path: &Path, out: &mut Output) -> Result<(), CliError> {
    let mut lines = Vec::new();
    for key in load_identities(path)? {
        let KeyLine::Secret(identity) = key else {
            return Err(CliError::failed(format!("{}: protected by a passphrase", path.display()))
                .hint("its recipient line is in the file's comment"));
        };
        lines.push(encode_recipient(identity.recipient()));
    }
    let json = serde_json::json!({ "ok": true, "recipients": lines });
    out.result(&json, &format!("{}\n", lines.join("\n")))
}
