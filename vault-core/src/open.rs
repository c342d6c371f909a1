//! Opening: whole artifacts, front to back or from any offset. FORMAT.md sections 5 to 8.
//!
//! Workers read and open batches of chunks and hash what they hold; in turn the results are compared,
//! released and counted. The first chunk that fails stops all; what is released in order before is exactly the
//! verified chunks in front of it. What comes over a network is opened in any order where none is needed
//! (`open/arriving.rs`).

mod arriving;
mod judge;
mod range;
mod source;

pub use range::{PartReader, Place, RangeReader};

use crate::aead::Engine;
use crate::chunk::ChunkCipher;
use crate::error::{Error, Result, not_signed, require};
use crate::gate::Gate;
use crate::geometry::Chunking;
use crate::header::AuthenticatedHeader;
use crate::io::Input;
use crate::manifest::Manifest;
use crate::seal::lock;
use crate::signature::{PayloadHasher, PublisherPublicKey};
pub use source::run_len;

use judge::{Judge, Pieces, Plain, Plan};
use source::{Batch, Source};
use std::sync::{Mutex, PoisonError};

/// How to open.
pub struct OpenOptions<'a> {
    /// If any are given, the artifact must be signed by one of them.
    pub signers: &'a [PublisherPublicKey],
    /// If given, the payload must have this digest (FORMAT.md 4.6), signed or not.
    pub payload_digest: Option<[u8; 32]>,
    /// The bulk engine.
    pub engine: Engine,
    /// Worker threads.
    pub threads: usize,
    /// Called with the number of plaintext bytes done since the last call.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self { signers: &[], payload_digest: None, engine: Engine::fastest(), threads: 1, progress: &|_| {} }
    }
}

/// Files under temporary names, written by several threads.
pub trait EntrySink: Sync {
    /// Called once, before any write, with paths and (where known) sizes in bytes. Paths are checked.
    fn begin(&self, entries: &[(String, Option<u64>)]) -> std::io::Result<()>;
    /// Writes `data` at `offset` of entry `index`.
    fn write_at(&self, index: usize, offset: u64, data: &[u8]) -> std::io::Result<()>;
}

/// Takes verified bytes in order.
pub trait OrderedSink: Send {
    /// Called once, before any bytes, with paths and (where known) sizes in bytes.
    fn begin(&mut self, entries: &[(String, Option<u64>)]) -> std::io::Result<()>;
    /// The next bytes: `data` at `offset` of entry `index`.
    fn write(&mut self, index: usize, offset: u64, data: &[u8]) -> std::io::Result<()>;
    /// Everything was verified.
    fn end(&mut self) -> std::io::Result<()>;
}

/// All entries' bytes, one after another.
struct Concatenated<'a>(&'a mut (dyn std::io::Write + Send));

impl OrderedSink for Concatenated<'_> {
    fn begin(&mut self, _: &[(String, Option<u64>)]) -> std::io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: usize, _: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write_all(data)
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// What to do with verified plaintext.
pub enum Release<'a> {
    /// Nothing: verify only.
    Nothing,
    /// To temporary names; the caller renames after success and removes after failure `[F-38]`.
    Files(&'a dyn EntrySink),
    /// All entries' bytes, front to back, as they are verified chunk by chunk.
    Stream(&'a mut (dyn std::io::Write + Send + 'a)),
    /// The same, told which entry the bytes are of.
    Ordered(&'a mut (dyn OrderedSink + 'a)),
}

/// A whole artifact that was read and verified: every chunk, the manifest, the digests and, where
/// demanded, the signature.
#[derive(Debug)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// Payload length in bytes.
    pub payload_len: u64,
    /// Key id of the signer that was demanded and found.
    pub signer: Option<[u8; 32]>,
}

/// Reads the whole payload and releases the entries. `input` starts at the payload. If it fails, what was
/// written under temporary names must be removed `[F-38]`; what [`Release::Stream`] got is verified bytes of
/// an artifact that as a whole is not.
pub fn open(
    input: Input<'_>,
    header: &AuthenticatedHeader,
    options: &OpenOptions<'_>,
    release: Release<'_>,
) -> Result<Verified> {
    let prelude = header.header().prelude();
    let chunking = Chunking::new(prelude.chunk_size);
    let signature = if options.signers.is_empty() {
        None
    } else {
        let section = header.header().signature().ok_or_else(not_signed)?;
        section.verify(prelude, options.signers)?;
        Some(section)
    };
    let mut cipher = ChunkCipher::new(header.schedule(), options.engine);
    let (source, table, known_size) = Source::begin(input, chunking, &mut cipher)?;
    let mut concatenated;
    let (files, ordered): (_, Option<&mut dyn OrderedSink>) = match release {
        Release::Nothing => (None, None),
        Release::Files(files) => (Some(files), None),
        Release::Stream(stream) => {
            concatenated = Concatenated(stream);
            (None, Some(&mut concatenated))
        }
        Release::Ordered(ordered) => (None, Some(ordered)),
    };
    let plan = Plan::new(table, known_size, files)?;
    let unordered = if ordered.is_none() && !plan.needs_order() { source.arriving() } else { None };
    let opening = Opening {
        gate: Gate::default(),
        chunking,
        source,
        header,
        options,
        leaves: signature.is_some() || options.payload_digest.is_some(),
        payload: Mutex::new(PayloadHasher::new()),
        judge: Mutex::new(Judge::new(&plan, ordered)?),
        plan: &plan,
    };
    match unordered {
        Some(unordered) => arriving::open(&opening, &unordered)?,
        None => opening.gate.run(options.threads, &|| opening.worker())?,
    }
    let payload = opening.payload.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    let judge = opening.judge.into_inner().unwrap_or_else(PoisonError::into_inner);
    let manifest = judge.finish(|manifest| {
        check_about(header, manifest)?;
        require(options.payload_digest.is_none_or(|d| d == payload.digest), 21, || {
            format!("the payload's digest is {}, not the one that is demanded", crate::header::hex(&payload.digest))
        })?;
        let Some(section) = &signature else { return Ok(()) };
        section.check_payload(&payload)?;
        section.check_identity(&prelude.salt, &manifest.name, manifest.model_version)
    })?;
    Ok(Verified { manifest, payload_len: payload.len, signer: signature.map(|s| s.key_id) })
}

/// `[F-36]`
fn check_about(header: &AuthenticatedHeader, manifest: &Manifest) -> Result<()> {
    let about = header.about().map(|a| (a.name.as_str(), a.model_version));
    require(about.is_none_or(|a| a == (&manifest.name, manifest.model_version)), 36, || {
        "name or version in the about block are not the manifest's".into()
    })
}

struct Opening<'a, 'i, 's> {
    gate: Gate<Option<Outcome<'static>>>,
    chunking: Chunking,
    source: Source<'i>,
    header: &'a AuthenticatedHeader,
    options: &'a OpenOptions<'a>,
    plan: &'a Plan<'a>,
    /// A signature will be compared.
    leaves: bool,
    payload: Mutex<PayloadHasher>,
    judge: Mutex<Judge<'a, 's>>,
}

/// What became of a batch.
struct Outcome<'b> {
    plain: Plain<'b>,
    pieces: Result<Pieces>,
    /// Whether every chunk of it verified.
    opened: Result<()>,
    leaves: Vec<([u8; 32], usize)>,
    sealed: usize,
}

impl Opening<'_, '_, '_> {
    fn worker(&self) {
        let mut cipher = ChunkCipher::new(self.header.schedule(), self.options.engine);
        let mut batch = Batch::default();
        while !self.gate.stopped() {
            let Some((ticket, read)) = self.source.claim(&mut batch) else { return };
            let opened = match read {
                Ok(()) => self.open_batch(&mut batch, &mut cipher),
                Err(e) => {
                    batch.plain.clear(); // still the batch before: verified, but of another place
                    Err(e)
                }
            };
            let leaves = self.leaves(&batch);
            let start = batch.first_chunk * self.chunking.plain() as u64;
            let written = self.plan.write_out(start, &batch.plain);
            let pieces = written.map(|()| self.plan.hash(start, &batch.plain));
            let sealed = batch.sealed.len();
            let outcome = Outcome { plain: Plain::all(start, &batch.plain), pieces, opened, leaves, sealed };
            let passed = self.gate.in_turn(ticket, || self.settle(outcome));
            if passed.is_none() || batch.last {
                return;
            }
        }
    }

    /// In order, one at a time.
    fn settle(&self, outcome: Outcome<'_>) -> Result<()> {
        let Outcome { plain, pieces, opened, leaves, sealed } = outcome;
        lock(&self.judge).accept(&plain, pieces?)?;
        opened?; // what was verified in front of a failing chunk has been released
        self.count(&leaves, sealed);
        (self.options.progress)(plain.range.end - plain.range.start);
        Ok(())
    }

    /// Opens the batch; if a chunk does not verify and the source can fetch it anew, once more: what a network
    /// changed on the way is not the artifact's fault.
    fn open_batch(&self, batch: &mut Batch, cipher: &mut ChunkCipher<'_>) -> Result<()> {
        match batch.open(cipher, self.chunking) {
            Err(e) if e.rule() == Some(crate::error::Rule(25)) && self.source.read_again(batch)? => {
                batch.open(cipher, self.chunking)
            }
            opened => opened,
        }
    }

    fn leaves(&self, batch: &Batch) -> Vec<([u8; 32], usize)> {
        let chunks = batch.sealed.chunks(self.chunking.sealed()).filter(|_| self.leaves);
        chunks.map(|c| (blake3::hash(c).into(), c.len())).collect()
    }

    fn count(&self, leaves: &[([u8; 32], usize)], len: usize) {
        let mut payload = lock(&self.payload);
        if !self.leaves {
            payload.skip(len);
        }
        for (leaf, len) in leaves {
            payload.push(leaf, *len);
        }
    }
}

/// The digest of a payload, read without any key, to be compared with a signature.
pub fn payload_digest(
    input: &mut dyn std::io::Read,
    chunk_size: u32,
    progress: &dyn Fn(u64),
) -> Result<crate::signature::PayloadDigest> {
    let mut hasher = PayloadHasher::new();
    let mut chunk = vec![0; Chunking::new(chunk_size).sealed()];
    loop {
        let n = crate::io::fill(input, &mut chunk).map_err(Error::io("read the artifact"))?;
        let data = chunk.get(..n).unwrap_or_default();
        if n > 0 {
            hasher.push(&blake3::hash(data).into(), n);
        }
        progress(n as u64);
        if n < chunk.len() {
            return Ok(hasher.finish());
        }
    }
}
