//! `mvault-bench attest`: verifying Nitro evidence on one core, beside the signatures in it alone.
//!
//! The floor is what cannot be saved: as many P-384 verifications as a document has signatures, by the same library over
//! messages of the same size. Documents are genuine ones, from `--documents FOLDER`; each round judges each of them
//! once at its own time, then does the floor's signatures, so that a slow minute of the machine hits both.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vault_attest::nitro::{Mode, Roots, unverified_outline, verify};

const USAGE: &str = "usage: mvault-bench attest --documents FOLDER [--rounds N] [--json FILE]";
/// Milliseconds a document may take on one core.
const TARGET_MS: f64 = 5.0;

struct Options {
    documents: PathBuf,
    rounds: usize,
    json: Option<PathBuf>,
}

/// Runs the bench as `args` say; the exit code.
pub fn main(args: impl Iterator<Item = String>) -> i32 {
    let options = match options(args) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("mvault-bench: error: {problem}\n{USAGE}");
            return 2;
        }
    };
    bench(&options).map_or_else(
        |problem| {
            eprintln!("mvault-bench: error: {problem}");
            1
        },
        |()| 0,
    )
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut documents, mut rounds, mut json) = (None, 201, None);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--documents" => documents = Some(PathBuf::from(value)),
            "--rounds" => rounds = value.parse().map_err(|_| format!("not a number: {value}"))?,
            "--json" => json = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    let documents = documents.ok_or("--documents is missing")?;
    Ok(Options { documents, rounds: rounds.max(1), json })
}

fn bench(options: &Options) -> Result<(), String> {
    let documents = genuine(&options.documents)?;
    let signatures: usize = documents.iter().map(|document| unverified_outline(document).certificates.len()).sum();
    let size = documents.iter().map(Vec::len).sum::<usize>() / documents.len();
    let floor = Floor::new(size)?;
    let (mut verified, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        verified.push(milliseconds(|| documents.iter().all(|d| verify(d, &Roots::aws(), Mode::Archived).is_ok()))?);
        alone.push(milliseconds(|| (0..signatures).all(|_| floor.verify()))?);
    }
    let count = documents.len() as f64;
    let ratio = median(verified.iter().zip(&alone).map(|(verified, alone)| verified / alone).collect());
    let (each, floor_each) = (median(verified) / count, median(alone) / count);
    println!(
        "Nitro evidence, one core, medians of {} rounds over {} genuine documents of {size} bytes with {:.1} signatures",
        options.rounds,
        documents.len(),
        signatures as f64 / count,
    );
    println!("  {each:>6.2} ms  a document, V-1 to V-23 (wanted: under {TARGET_MS} ms)");
    println!("  {floor_each:>6.2} ms  its P-384 signatures alone (floor): {ratio:.2} times that");
    if let Some(path) = &options.json {
        let value = serde_json::json!({
            "documents": documents.len(), "bytes": size, "signatures": signatures, "rounds": options.rounds,
            "ms_a_document": each, "ms_floor": floor_each, "ratio": ratio,
        });
        let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if each > TARGET_MS { Err(format!("a document takes {each:.2} ms")) } else { Ok(()) }
}

/// The documents of a folder that verify.
fn genuine(folder: &Path) -> Result<Vec<Vec<u8>>, String> {
    let problem = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut documents = Vec::new();
    for file in std::fs::read_dir(folder).map_err(problem)? {
        let path = file.map_err(problem)?.path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            documents.push(std::fs::read(&path).map_err(problem)?);
        }
    }
    documents.retain(|document| verify(document, &Roots::aws(), Mode::Archived).is_ok());
    if documents.is_empty() { Err(format!("{}: no genuine document", folder.display())) } else { Ok(documents) }
}

/// One signature over a message of a document's size.
struct Floor {
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Floor {
    fn new(size: usize) -> Result<Self, String> {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).map_err(|e| e.to_string())?;
        let message = vec![7; size];
        let signature = key.sign(&SystemRandom::new(), &message).map_err(|e| e.to_string())?.as_ref().to_vec();
        Ok(Self { key: key.public_key().as_ref().to_vec(), message, signature })
    }

    fn verify(&self) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, black_box(&self.key));
        key.verify(&self.message, &self.signature).is_ok()
    }
}

fn milliseconds(work: impl FnOnce() -> bool) -> Result<f64, String> {
    let start = Instant::now();
    let good = black_box(work());
    let time = start.elapsed().as_secs_f64() * 1000.0;
    if good { Ok(time) } else { Err("a signature that is good was refused".into()) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
