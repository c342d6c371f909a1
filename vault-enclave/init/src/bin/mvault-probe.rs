//! `/init` of a bench image: how fast bytes come through the parent, with nothing done to them. The rate that loading is held against.

#![allow(clippy::cast_precision_loss)] // rates of a report

#[path = "../journal.rs"]
#[allow(dead_code)] // shared with mvault-init
mod journal;
#[path = "../link.rs"]
#[allow(dead_code)]
mod link;
#[path = "../machine.rs"]
#[allow(dead_code)]
mod machine;

use journal::Journal;
use link::{Parent, find_parent};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use vault_core::aead::Engine;
use vault_core::io::ReadAt;
use vault_enclave::fetch::{Remote, What};
use vault_enclave::port;

/// What loading asks for at a time: a batch of chunks.
const PIECE: u64 = 4 * (64 * 1024 + 16);

fn main() {
    let journal = Journal::new();
    if std::process::id() != 1 {
        journal.say("this is /init of a bench image");
        std::process::exit(2);
    }
    let said = probe(&journal).unwrap_or_else(|error| format!("failed: {error}"));
    journal.last(&said);
    machine::power_off();
}

fn probe(journal: &Journal) -> Result<String, String> {
    machine::mount_all()?;
    machine::open_console();
    let (cid, stream) = find_parent().map_err(|e| e.to_string())?;
    journal.connect(stream);
    let dial = Parent { cid, port: port::MODEL };
    let payload = Remote::open(&dial, What::Payload).map_err(|e| e.to_string())?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut best = 0.0_f64;
    for connections in [1, cpus, 2 * cpus, 4 * cpus] {
        let (next, began) = (AtomicU64::new(0), Instant::now());
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..connections).map(|_| scope.spawn(|| read(&payload, &next))).collect();
            readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| "a reader panicked".to_owned())?)
        })?;
        let rate = payload.len() as f64 / 1e6 / began.elapsed().as_secs_f64();
        journal.say(&format!("raw vsock: {connections} connections, {rate:.1} MB/s"));
        best = best.max(rate);
    }
    // What loading does besides: opens each chunk, hashes its ciphertext for the signature and its plaintext for the manifest.
    let hashed = rate(|chunk| {
        let _ = blake3::hash(chunk);
    });
    journal.say(&format!("BLAKE3: {hashed:.1} MB/s on one processor"));
    for engine in Engine::ALL {
        let key = engine.key(&[7; 32]);
        let mut sealed = vec![0; CHUNK];
        let tag = key.seal([1; 12], &[], &mut sealed);
        sealed.extend(tag);
        let mut plain = vec![0; CHUNK];
        let opened = rate(|_| {
            let _ = key.open([1; 12], &[], &sealed, &mut plain);
        });
        journal.say(&format!("AES-256-GCM by {engine}: {opened:.1} MB/s on one processor"));
    }
    Ok(format!("raw vsock: at best {best:.1} MB/s"))
}

const CHUNK: usize = 64 * 1024;

/// MB/s of a job on chunks.
fn rate(mut job: impl FnMut(&[u8])) -> f64 {
    let (chunk, began, mut bytes) = (vec![5; CHUNK], Instant::now(), 0);
    while began.elapsed().as_secs_f64() < 0.5 {
        job(&chunk);
        bytes += CHUNK;
    }
    bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
}

fn read(payload: &Remote<'_>, next: &AtomicU64) -> Result<(), String> {
    let mut buffer = Vec::new();
    loop {
        let at = next.fetch_add(PIECE, Ordering::Relaxed);
        let len = payload.len().saturating_sub(at).min(PIECE);
        if len == 0 {
            return Ok(());
        }
        buffer.resize(usize::try_from(len).map_err(|e| e.to_string())?, 0);
        payload.read_exact_at(&mut buffer, at).map_err(|e| e.to_string())?;
    }
}
