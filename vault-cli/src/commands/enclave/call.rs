//! `mvault enclave call`: a request to an enclave that was attested on the same connection, docs/ENCLAVE.md section 6.

use crate::commands::attest::read_policy;
use crate::commands::broker::roots;
use crate::error::{CliError, io};
use crate::output::Output;
use getrandom::SysRng;
use rand_core::TryRng;
use serde_json::json;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use vault_core::header::hex;
use vault_enclave::Tcp;
use vault_enclave::attested::{Attested, CallError, Wanted};
use zeroize::Zeroizing;

/// Ask an attested enclave: verify what runs at the other end of this connection, then send
///
/// Nothing is sent before the evidence for the connection's key verifies, the policy holds, and PCR16 says which model was loaded.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault enclave call --policy minilm.toml https://127.0.0.1:8443 'This is an example sentence'
  mvault enclave call --policy minilm.toml --model minilm --min-version 3 https://host:8443 --data request.json
  mvault enclave call --policy minilm.toml https://host:8443/health --get")]
pub struct Args {
    /// `https://HOST:PORT[/PATH]` of the parent's forwarder; without a path /v1/embeddings
    url: String,
    /// Texts to embed
    #[arg(conflicts_with_all = ["data", "get"])]
    texts: Vec<String>,
    /// The policy that its evidence must satisfy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The body to send, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "get")]
    data: Option<PathBuf>,
    /// Send no body
    #[arg(long)]
    get: bool,
    /// The name that its model must have
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The lowest version that its model must have
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_version: u64,
    /// A file with the client's token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Also take evidence that chains to this certificate (PEM): whoever has its key can forge evidence of any enclave
    #[arg(long, value_name = "ROOT.PEM")]
    dangerous_dev_root: Vec<PathBuf>,
}

/// Largest request that is read, in bytes.
const MAX_DATA: u64 = 16 * 1024 * 1024;

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let (authority, path) = split(&args.url)?;
    let policy = read_policy(&args.policy)?;
    let roots = roots(&args.dangerous_dev_root, out)?;
    let body = body(args)?;
    let token = args.token_file.as_ref().map(|path| std::fs::read_to_string(path).map_err(io(path.display())));
    let token = token.transpose()?.map(|token| Zeroizing::new(token.trim().to_owned()));
    let mut nonce = [0; 32];
    SysRng.try_fill_bytes(&mut nonce).map_err(|e| CliError::failed(e.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let wanted =
        Wanted { policy: &policy, roots: &roots, name: args.model.as_deref(), minimum_version: args.min_version };
    let named = |e| call_error(e, authority);
    let attested = Attested::connect(Arc::new(Tcp(authority.to_owned())), &wanted, nonce, now_ms).map_err(named)?;
    let model = &attested.model;
    let dev = if args.dangerous_dev_root.is_empty() { "" } else { "[dev root] " };
    out.note(&format!(
        "{dev}attested: policy {} release {:?}, model {} version {}, artifact {}…",
        policy.name(),
        attested.release,
        model.name,
        model.version,
        hex(model.artifact.get(..8).unwrap_or_default())
    ));
    let token = token.as_ref().map(|token| token.as_str());
    let (status, answer) = attested.request(path, body.as_deref(), token).map_err(named)?;
    if status != 200 {
        let told: Option<serde_json::Value> = serde_json::from_slice(&answer).ok();
        let words = told.as_ref().and_then(|told| told.pointer("/error/message")?.as_str());
        let words = crate::output::printable(words.unwrap_or("no reason given"));
        return Err(CliError::failed(format!("{authority}: the enclave answered with status {status}: {words}")));
    }
    out.bytes(&answer)?;
    out.bytes(b"\n")
}

/// Host with port, and path.
fn split(url: &str) -> Result<(&str, &str), CliError> {
    let wrong = || CliError::usage(format!("{url}: expected https://HOST:PORT[/PATH]"));
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let (authority, path) = rest.find('/').map_or((rest, "/v1/embeddings"), |at| rest.split_at(at));
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() || authority.contains(['@', '?', '#']) {
        return Err(wrong());
    }
    Ok((authority, path))
}

fn body(args: &Args) -> Result<Option<Vec<u8>>, CliError> {
    match &args.data {
        Some(path) => {
            let mut body = Vec::new();
            let read = if path.as_os_str() == "-" {
                std::io::stdin().lock().take(MAX_DATA).read_to_end(&mut body)
            } else {
                std::fs::File::open(path).and_then(|file| file.take(MAX_DATA).read_to_end(&mut body))
            };
            read.map_err(io(path.display()))?;
            Ok(Some(body))
        }
        None if args.get => Ok(None),
        None if args.texts.is_empty() => Err(CliError::usage("nothing to send").hint("texts, --data FILE, or --get")),
        None => Ok(Some(json!({ "input": args.texts }).to_string().into_bytes())),
    }
}

fn call_error(error: CallError, authority: &str) -> CliError {
    let message = format!("{authority}: {error}");
    match error {
        CallError::NotAuthentic(refusal) => {
            let hint = vault_broker::advice::fix(&refusal);
            let made = if refusal.step == vault_attest::Step::V(23) {
                CliError::denied(message)
            } else {
                CliError::not_authentic(message)
            };
            made.by_rule(refusal.step).hint(hint)
        }
        CallError::Denied(denial) => CliError::denied(message).by_rule(denial.refusal.step).hint(denial.fix),
        CallError::Model { .. } => {
            CliError::denied(message).by_rule("T-6").hint("nothing was sent; the enclave runs another model")
        }
        _ => CliError::failed(message)
            .hint("is the enclave ready, and its parent forwarding? `mvault enclave run` says so"),
    }
}
