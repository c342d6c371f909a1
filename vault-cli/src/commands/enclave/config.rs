//! `mvault enclave config`: the measured configuration of an image.

use crate::error::{CliError, io};
use crate::files::{Access, write_new};
use crate::output::Output;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use vault_core::header::hex;
use vault_core::signature::PublisherPublicKey;
use vault_enclave::config::{BrokerFile, Config, ConfigError, MAX_FILE, Serve, Watch};

/// Write the measured configuration of an image: which broker, signer, model and version it takes
///
/// Everything that is not pinned here is the parent's choice. Limits of serving have their defaults written out, to be changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault enclave config --broker broker/client.toml --model minilm --signer sign.pem.pub -o enclave.toml
  mvault enclave config --broker client.toml --model minilm --min-version 3 --signer sign.pem.pub \\
                        --golden golden.json -o enclave.toml")]
pub struct Args {
    /// What the image pins of the broker: client.toml of `mvault broker init`
    #[arg(long, value_name = "FILE")]
    broker: PathBuf,
    /// The model's name; any other is refused
    #[arg(long, value_name = "NAME")]
    model: String,
    /// The lowest version that is taken
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_version: u64,
    /// The publisher's public key (PEM): what it did not sign is refused
    #[arg(long, value_name = "FILE")]
    signer: PathBuf,
    /// The model's file that has questions and right answers; a wrong answer stops the enclave
    #[arg(long, value_name = "PATH")]
    golden: Option<String>,
    /// Where to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite it
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct File<'a> {
    version: u64,
    model: Model<'a>,
    broker: BrokerFile,
    serve: Serve,
    watch: Watch,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    minimum_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    golden: Option<&'a str>,
    signer: String,
}

const HEAD: &str =
    "# Measured configuration of an mvault enclave: docs/ENCLAVE.md section 2. Nothing here is secret.\n\n";

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let broker: BrokerFile = toml::from_str(&text(&args.broker)?).map_err(|e| {
        CliError::failed(format!("{}: {}", args.broker.display(), e.message()))
            .hint("`mvault broker init` writes client.toml")
    })?;
    let broker = BrokerFile { recipient: String::new(), ..broker };
    let signer = PublisherPublicKey::from_pem(&text(&args.signer)?).map_err(|_| {
        CliError::failed(format!("{}: no public key of a publisher", args.signer.display()))
            .hint("`mvault keygen --signing` makes a pair; the public one ends in .pub")
    })?;
    let model = Model {
        name: &args.model,
        minimum_version: args.min_version,
        golden: args.golden.as_deref(),
        signer: signer.to_pem().map_err(CliError::from)?,
    };
    let file = File { version: 1, model, broker, serve: Serve::default(), watch: Watch::default() };
    let body = toml::to_string(&file).map_err(|e| CliError::failed(e.to_string()))?;
    let text = format!("{HEAD}{body}");
    check(text.as_bytes(), &args.output)?;
    write_new(&args.output, text.as_bytes(), Access::Public, args.force)?;
    let (shown, id) = (args.output.display(), hex(&signer.key_id()));
    let report =
        json!({ "config": shown.to_string(), "model": args.model, "minimum_version": args.min_version, "signer": id });
    let words = format!(
        "wrote {shown}: {:?} from version {}, signed by {}…\n\n\
         build an image   mvault enclave build --kernel bzImage --config {shown} -o model.eif",
        args.model,
        args.min_version,
        id.get(..16).unwrap_or_default()
    );
    out.result(&report, &words)
}

/// Checks a configuration as the enclave will; `mvault enclave build` refuses one that would not boot.
pub fn check(file: &[u8], path: &Path) -> Result<Config, CliError> {
    Config::parse(file).map_err(|e| {
        let hint = match e {
            ConfigError::Toml(_) => "docs/ENCLAVE.md section 2 has the form; `mvault enclave config` writes one",
            _ => "docs/ENCLAVE.md section 2 has the limits",
        };
        CliError::failed(format!("{}: {e}", path.display())).hint(hint)
    })
}

fn text(path: &Path) -> Result<String, CliError> {
    let bytes = std::fs::read(path).map_err(io(path.display()))?;
    if bytes.len() > MAX_FILE {
        return Err(CliError::failed(format!("{}: {} bytes; at most {MAX_FILE}", path.display(), bytes.len())));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
