//! `mvault bench`: the AEAD engines and the digest on this machine, in memory.

use crate::error::CliError;
use crate::output::{Output, table};
use crate::process::threads;
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};
use vault_core::aead::Engine;

/// Bytes a step: a chunk.
const CHUNK: usize = 64 * 1024;

/// Measure the encryption engines on this machine
///
/// Seals and opens 64 KiB chunks in memory, on one core and on all, in cache (each core its own few chunks)
/// and over a buffer far larger than the caches. GiB are 2^30 bytes.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mvault bench --json")]
pub struct Args {
    /// Milliseconds a measurement
    #[arg(long, default_value_t = 300, value_name = "MS")]
    millis: u64,
    /// Size of the large buffer, MiB a core
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=16384))]
    buffer: u32,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let (all, time) = (threads(None), Duration::from_millis(args.millis.clamp(1, 60_000)));
    let mut rows = vec![
        ["engine", "seal/core", "open/core", "seal/all", "open/all", "open/all, memory"].map(String::from).to_vec(),
    ];
    let mut values = Vec::new();
    for engine in Engine::ALL {
        let seal = |threads| rate(threads, time, &|| sealer(engine, CHUNK));
        let open = |threads, len| rate(threads, time, &|| opener(engine, len));
        let large = args.buffer as usize * 1024 * 1024;
        let figures = [seal(1), open(1, CHUNK), seal(all), open(all, CHUNK), open(all, large)];
        let [seal_one, open_one, seal_all, open_all, open_memory] = figures;
        let mut row = vec![engine.name().to_owned()];
        row.extend(figures.map(|f| format!("{f:.2}")));
        rows.push(row);
        values.push(json!({
            "name": engine.name(),
            "one_core_gib_s": open_one, "all_cores_gib_s": open_all,
            "seal_one_core_gib_s": seal_one, "seal_all_cores_gib_s": seal_all,
            "open_memory_all_cores_gib_s": open_memory,
        }));
    }
    let blake3 = [rate(1, time, &hasher), rate(all, time, &hasher)];
    let chosen = Engine::fastest().name();
    let json = json!({
        "ok": true, "engines": values, "chosen": chosen, "cores": all,
        "blake3": { "one_core_gib_s": blake3[0], "all_cores_gib_s": blake3[1] },
        "hardware_aes": Engine::hardware_aes(),
    });
    let text = format!(
        "{}blake3: {:.2} a core, {:.2} on all; {all} cores; GiB/s\nbulk data uses {chosen}\n",
        table(&rows),
        blake3[0],
        blake3[1]
    );
    out.result(&json, &text)
}

/// A step of work; returns the bytes it did.
type Step = Box<dyn FnMut() -> usize>;

/// GiB a second of `threads` workers over `time`.
#[expect(clippy::cast_precision_loss)] // a rate needs three digits
fn rate(threads: usize, time: Duration, make: &(dyn Fn() -> Step + Sync)) -> f64 {
    let ready = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut step = make();
                    step();
                    ready.wait();
                    let (start, mut bytes) = (Instant::now(), 0_usize);
                    while start.elapsed() < time {
                        bytes += step();
                    }
                    bytes as f64 / start.elapsed().as_secs_f64()
                })
            })
            .collect();
        let sum: f64 = workers.into_iter().map(|w| w.join().unwrap_or_default()).sum();
        sum / f64::from(1 << 30)
    })
}

fn sealer(engine: Engine, len: usize) -> Step {
    let (key, mut data) = (engine.key(&[7; 32]), vec![1_u8; len]);
    let mut n = 0_u64;
    Box::new(move || {
        n += 1;
        black_box(key.seal(nonce(n), b"", &mut data));
        len
    })
}

/// Opens chunk after chunk of `len` bytes of ciphertext.
fn opener(engine: Engine, len: usize) -> Step {
    let key = engine.key(&[7; 32]);
    let mut sealed = vec![1_u8; len / CHUNK * (CHUNK + 16)];
    for chunk in sealed.chunks_exact_mut(CHUNK + 16) {
        let (text, tag) = chunk.split_at_mut(CHUNK);
        tag.copy_from_slice(&key.seal(nonce(0), b"", text));
    }
    let (mut plain, mut at) = (vec![0_u8; CHUNK], 0);
    Box::new(move || {
        let chunk = sealed.get(at..at + CHUNK + 16).unwrap_or_default();
        black_box(key.open(nonce(0), b"", chunk, &mut plain).is_ok());
        at = (at + CHUNK + 16) % sealed.len();
        CHUNK
    })
}

fn hasher() -> Step {
    let data = vec![1_u8; CHUNK];
    Box::new(move || {
        black_box(blake3::hash(&data));
        CHUNK
    })
}

fn nonce(n: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&n.to_be_bytes());
    nonce
}
