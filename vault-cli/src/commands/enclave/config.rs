//! `mvault enclave config`: the measured configuration of an image.

use crate::error::{CliError, io};
use crate::files::{Access, write_new};
use crate::output::Output;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use vault_core::header::hex;
use vault_core::recipient::aws_kms::KeyArn;
use vault_core::signature::PublisherPublicKey;
use vault_enclave::config::{BrokerFile, Config, ConfigError, Engine, KmsFile, MAX_FILE, Serve, Watch};
use vault_enclave::kms::default_url;

/// Write the measured configuration of an image: which broker, signer, model and version it takes
///
/// Everything that is not pinned here is the parent's choice. Limits of serving have their defaults written out, to be changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault enclave config --broker broker/client.toml --model minilm --signer sign.pem.pub -o enclave.toml
  mvault enclave config --broker client.toml --model minilm --min-version 3 --signer sign.pem.pub \\
                        --golden golden.json -o enclave.toml
  mvault enclave config --kms arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab \\
                        --model minilm --signer sign.pem.pub -o enclave.toml")]
pub struct Args {
    #[command(flatten)]
    keys: KeysArgs,
    /// The CAs of KMS's certificate, PEM [default: Amazon's roots of this system]
    #[arg(long, value_name = "FILE", requires = "kms")]
    kms_ca: Option<PathBuf>,
    /// Another KMS endpoint than that of the key's region
    #[arg(long, value_name = "URL", requires = "kms")]
    kms_url: Option<String>,
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
    /// What computes
    #[arg(long, value_enum, default_value_t = EngineName::Bert)]
    engine: EngineName,
    /// Where to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite it
    #[arg(long)]
    force: bool,
}

/// Who releases the model's key.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct KeysArgs {
    /// What the image pins of the broker: client.toml of `mvault broker init`
    #[arg(long, value_name = "FILE")]
    broker: Option<PathBuf>,
    /// The key in AWS KMS that the image asks about, in place of a broker
    #[arg(long, value_name = "ARN")]
    kms: Option<String>,
}

/// The built-in engines; `enclave build --cmd` brings another.
#[derive(Clone, Copy, clap::ValueEnum)]
enum EngineName {
    /// Encoders of sentences, from safetensors
    Bert,
    /// A graph, tensors in and out
    Onnx,
}

#[derive(Serialize)]
struct File<'a> {
    version: u64,
    model: Model<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<BrokerFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms: Option<KmsFile>,
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
    let broker = args.keys.broker.as_deref().map(broker).transpose()?;
    let kms = args.keys.kms.as_deref().map(|arn| kms(arn, args)).transpose()?;
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
    let engine = match args.engine {
        EngineName::Bert => Engine::Bert,
        EngineName::Onnx => Engine::Onnx,
    };
    let serve = Serve { engine, ..Serve::default() };
    let file = File { version: 1, model, broker, kms, serve, watch: Watch::default() };
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

fn broker(path: &Path) -> Result<BrokerFile, CliError> {
    let file: BrokerFile = toml::from_str(&text(path)?).map_err(|e| {
        CliError::failed(format!("{}: {}", path.display(), e.message())).hint("`mvault broker init` writes client.toml")
    })?;
    Ok(BrokerFile { recipient: String::new(), ..file })
}

fn kms(arn: &str, args: &Args) -> Result<KmsFile, CliError> {
    let key = KeyArn::parse(arn).ok_or_else(|| {
        CliError::usage(format!("--kms {arn}: expected arn:aws:kms:REGION:ACCOUNT:key/ID"))
            .hint("an alias can be moved to another key: `aws kms describe-key` prints the ARN")
    })?;
    let url = args.kms_url.clone().unwrap_or_else(|| default_url(&key));
    let ca = args.kms_ca.as_deref().map_or_else(amazon_roots, text)?;
    Ok(KmsFile { key: arn.to_owned(), url, ca })
}

/// Where Debian, Fedora and Alpine have the CAs that they trust.
const SYSTEM_CAS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// SHA-256 of Amazon Root CA 1 to 4 (amazontrust.com/repository): which certificates they are does not depend on the system.
const AMAZON: [&str; 4] = [
    "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
    "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
    "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
    "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
];

/// Amazon's four roots in PEM, found by fingerprint.
fn amazon_roots() -> Result<String, CliError> {
    let bundle = SYSTEM_CAS.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let known: Vec<_> = bundle.split_inclusive(END).filter_map(certificate).collect();
    let roots = AMAZON.iter().map(|wanted| known.iter().find(|(digest, _)| digest == wanted).map(|(_, pem)| *pem));
    roots.map(|pem| pem.map(|pem| format!("{pem}\n"))).collect::<Option<String>>().ok_or_else(|| {
        CliError::failed("Amazon's root certificates are not among this system's").hint(
            "`apt-get install ca-certificates` brings them; or --kms-ca FILE: amazontrust.com/repository has them",
        )
    })
}

const END: &str = "-----END CERTIFICATE-----";

/// Fingerprint and text of a certificate in PEM, with what is before it.
fn certificate(text: &str) -> Option<(String, &str)> {
    let pem = text.get(text.find("-----BEGIN CERTIFICATE-----")?..)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some((hex(&Sha256::digest(&der)), pem))
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
