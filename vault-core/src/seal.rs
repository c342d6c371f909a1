//! Sealing: one pass over the source, all cores, flat memory. FORMAT.md sections 5 to 7.
//!
//! Workers claim batches of chunks, read and hash them; in turn they join digests and feed the scanner;
//! then they encrypt and write. The tail (last partial chunk, manifest, trailer) follows when all is known.

mod entries;
mod replay;
mod source;

use crate::about::About;
use crate::aead::{Engine, TAG_LEN};
use crate::cbor::{Nullable, TextMap};
use crate::chunk::ChunkCipher;
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::geometry::{Chunking, MAX_CHUNKS};
use crate::header::{CHUNK_SIZES, DEFAULT_CHUNK_SIZE, DEFAULT_HEADER_LEN, Header};
use crate::io::{Input, Output};
use crate::keys::{Dek, Schedule};
use crate::layout::{self, Layout};
use crate::manifest::{Manifest, Table, TableEntry, check_name, check_path};
use crate::recipient::Recipient;
use crate::signature::{PayloadDigest, PayloadHasher, PublisherKey, identity_commitment};
use entries::Entries;
use minicbor::bytes::ByteVec;
use rand_core::CryptoRng;
use replay::Replay;
use source::{Batch, Hashed, Source};
use std::sync::{Mutex, PoisonError};

/// Plaintext bytes a worker handles at a time; two buffers of it stay in a core's L2.
pub(crate) const BATCH: usize = 256 * 1024;

/// One file to seal.
pub struct SourceEntry<'a> {
    /// Relative path (FORMAT.md [F-32]).
    pub path: String,
    /// Its bytes. At most one entry of an artifact, the only one, may be a stream.
    pub input: Input<'a>,
}

/// What to seal, and how.
#[expect(clippy::struct_excessive_bools)] // independent yes-or-no questions, each a flag of `mvault seal`
pub struct SealOptions<'a> {
    /// The model's name: one path component.
    pub name: String,
    /// The model's version.
    pub model_version: u64,
    /// True for a folder, false for one file.
    pub folder: bool,
    /// What kind of model it is, for the about block.
    pub kind: String,
    /// Labels for the about block.
    pub labels: TextMap<String>,
    /// Manifest extensions.
    pub extensions: TextMap<ByteVec>,
    /// The tool and its version.
    pub tool: String,
    /// Seconds since 1970, if the time shall be in the manifest.
    pub sealed_at: Option<u64>,
    /// Chunk size in bytes, a power of two.
    pub chunk_size: u32,
    /// Least header length in bytes.
    pub header_len: u32,
    /// Also record the SHA-256 of each entry.
    pub sha256: bool,
    /// Also compute the payload digest; a signature has it in any case.
    pub payload_digest: bool,
    /// Seal pickles that are dangerous or could not be scanned.
    pub dangerous_allow_unsafe_pickle: bool,
    /// Seal safetensors, GGUF and ONNX files whose structure is broken.
    pub dangerous_allow_malformed: bool,
    /// The publisher's key.
    pub sign: Option<&'a PublisherKey>,
    /// The bulk engine.
    pub engine: Engine,
    /// Worker threads.
    pub threads: usize,
    /// Called with the number of plaintext bytes done since the last call.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl SealOptions<'_> {
    /// Defaults for a model of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            model_version: 1,
            folder: false,
            kind: String::new(),
            labels: TextMap::default(),
            extensions: TextMap::default(),
            tool: concat!("mvault ", env!("CARGO_PKG_VERSION")).into(),
            sealed_at: None,
            chunk_size: DEFAULT_CHUNK_SIZE,
            header_len: DEFAULT_HEADER_LEN,
            sha256: false,
            payload_digest: false,
            dangerous_allow_unsafe_pickle: false,
            dangerous_allow_malformed: false,
            sign: None,
            engine: Engine::fastest(),
            threads: 1,
            progress: &|_| {},
        }
    }

    fn wants_leaves(&self) -> bool {
        self.sign.is_some() || self.payload_digest
    }

    fn check(&self, recipients: usize, stream_out: bool) -> Result<()> {
        check_name(&self.name).map_err(|e| Error::Usage(e.to_string()))?;
        if recipients == 0 {
            return Err(Error::Usage("no recipient".into()));
        }
        if !self.chunk_size.is_power_of_two() || !CHUNK_SIZES.contains(&self.chunk_size) {
            return Err(Error::Usage("the chunk size must be a power of two from 4096 to 1048576".into()));
        }
        if self.sign.is_some() && stream_out {
            return Err(Error::Usage(
                "a signature is in the header, which goes out first: --sign needs a file to write to".into(),
            ));
        }
        Ok(())
    }
}

/// What was sealed.
#[derive(Debug)]
pub struct Sealed {
    /// The header.
    pub header: Header,
    /// The manifest.
    pub manifest: Manifest,
    /// Payload length in bytes.
    pub payload_len: u64,
    /// Payload digest (FORMAT.md 4.6), if a signature or the options asked for it.
    pub payload_digest: Option<[u8; 32]>,
}

/// What one artifact is sealed under: its DEK and its salt. Made anew for every artifact by [`seal`]; held only by
/// who may have to go on with an interrupted push.
pub struct SealKey {
    dek: Dek,
    salt: [u8; 32],
}

impl SealKey {
    /// A fresh DEK and salt.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let dek = Dek::random(rng);
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        Self { dek, salt }
    }

    /// Those of a header that was unlocked.
    pub(crate) fn of(dek: Dek, salt: [u8; 32]) -> Self {
        Self { dek, salt }
    }

    /// The artifact's salt, also its id.
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// A header without about block and signature from which these recipients get the key back, for the record of a
    /// push (FORMAT.md section 12). It is not published.
    pub fn header_for(
        &self,
        recipients: &[&dyn Recipient],
        chunk_size: u32,
        rng: &mut dyn CryptoRng,
    ) -> Result<Header> {
        let wrapped = recipients.iter().map(|r| r.wrap_dek(&self.salt, &self.dek, rng));
        let sections = wrapped.collect::<Result<Vec<_>>>()?;
        Header::compose(&self.dek, self.salt, chunk_size, &sections, crate::header::HEADER_STEP)
    }
}

/// Seals `entries` (sorted here) to `recipients`. On an error the output is not an artifact; the caller
/// removes it.
pub fn seal(
    entries: Vec<SourceEntry<'_>>,
    recipients: &[&dyn Recipient],
    options: &SealOptions<'_>,
    rng: &mut dyn CryptoRng,
    output: Output<'_>,
) -> Result<Sealed> {
    dangerous_seal_under(&SealKey::random(rng), entries, recipients, options, rng, output)
}

/// Seals under a key that may have sealed something before: the caller answers for it that of two results that differ
/// in a chunk, only one ever leaves this process (FORMAT.md [F-45]). The payload depends on key, entries and options
/// alone, so that the same source gives the same bytes again.
pub fn dangerous_seal_under(
    key: &SealKey,
    mut entries: Vec<SourceEntry<'_>>,
    recipients: &[&dyn Recipient],
    options: &SealOptions<'_>,
    rng: &mut dyn CryptoRng,
    output: Output<'_>,
) -> Result<Sealed> {
    options.check(recipients.len(), matches!(output, Output::Stream(_)))?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let table = table_of(&entries, options.sha256)?;
    let SealKey { dek, salt } = key;
    let salt = *salt;
    let schedule = dek.schedule(&salt, options.chunk_size);
    let mut sections = Vec::with_capacity(recipients.len() + 2);
    for recipient in recipients {
        sections.push(recipient.wrap_dek(&salt, dek, rng)?);
    }
    let about = About {
        name: options.name.clone(),
        model_version: options.model_version,
        kind: options.kind.clone(),
        labels: options.labels.clone(),
    };
    sections.push(about.seal(&schedule, &salt, rng)?);
    let mut header = Header::compose(dek, salt, options.chunk_size, &sections, options.header_len)?;
    // With a signature to come, a header with one of no payload tells how long it will be.
    if let Some(key) = options.sign {
        let empty = PayloadDigest { len: 0, digest: [0; 32] };
        let with = [&sections[..], &[key.sign(header.prelude(), [0; 32], &empty)]].concat();
        header = Header::compose(dek, salt, options.chunk_size, &with, options.header_len)?;
    }
    let header_len = header.prelude().header_len;
    let sink = Sink::new(output, u64::from(header_len));
    sink.begin(&header)?;
    let sealing = Sealing {
        gate: Gate::default(),
        schedule: &schedule,
        options,
        source: Source::new(entries, &table, Chunking::new(options.chunk_size))?,
        entries: Mutex::new(Entries::new(&table, options)),
        sink,
        payload: Mutex::new(PayloadHasher::new()),
    };
    let (manifest, payload) = sealing.run(&table)?;
    let sink = sealing.sink;
    if let Some(key) = options.sign {
        let identity = identity_commitment(&salt, &manifest.name, manifest.model_version);
        sections.push(key.sign(header.prelude(), identity, &payload));
        header = Header::compose(dek, salt, options.chunk_size, &sections, header_len)?;
        sink.begin(&header)?;
    }
    sink.flush()?;
    let payload_digest = options.wants_leaves().then_some(payload.digest);
    Ok(Sealed { header, manifest, payload_len: payload.len, payload_digest })
}

fn table_of(entries: &[SourceEntry<'_>], sha256: bool) -> Result<Table> {
    for entry in entries {
        check_path(&entry.path).map_err(|e| Error::Usage(format!("cannot be sealed: {e}")))?;
    }
    let rows = entries.iter().map(|e| TableEntry {
        path: e.path.clone(),
        size: Nullable(match &e.input {
            Input::At { len, .. } => Some(*len),
            Input::Stream(_) => None,
        }),
    });
    let table = Table { entries: rows.collect(), sha256 };
    table.check().map_err(|e| Error::Usage(format!("cannot be sealed: {e}")))?;
    Ok(table)
}

struct Sealing<'a, 'i, 'o> {
    gate: Gate<Work>,
    schedule: &'a Schedule,
    options: &'a SealOptions<'a>,
    source: Source<'i>,
    entries: Mutex<Entries<'a>>,
    sink: Sink<'o>,
    payload: Mutex<PayloadHasher>,
}

/// Most bytes of plaintext that are sealed and wait for what is in front of them: two batches for a file.
const AHEAD: usize = 512 << 10;
/// The same where what is sealed is also sent from this machine, and a worker often waits for a processor.
const AHEAD_SENDING: usize = 4 << 20;

/// A batch and what came of it, with buffers that are used again.
#[derive(Default)]
struct Work {
    batch: Batch,
    hashed: Vec<Hashed>,
    sealed: Vec<u8>,
    sealed_len: usize,
    leaves: Vec<([u8; 32], usize)>,
    failure: Option<Error>,
}

impl Sealing<'_, '_, '_> {
    fn run(&self, table: &Table) -> Result<(Manifest, PayloadDigest)> {
        let run = || self.gate.run(self.options.threads, &|| self.worker()).and_then(|()| self.tail(table));
        let (Some(at), Some(replay)) = (self.sink.payload(), Replay::of(self)) else { return run() };
        let mut done = None;
        at.write_with(&replay.again(), &mut || done.insert(run()).is_ok());
        done.unwrap_or_else(|| Err(Error::Usage("nothing was sealed".into())))
    }

    /// What depends on order is left to [`Self::settle`]: a worker that the system holds up holds up no other.
    fn worker(&self) {
        let mut cipher = ChunkCipher::new(self.schedule, self.options.engine);
        let ahead = if self.sink.header_len.is_none() { AHEAD_SENDING } else { AHEAD } / self.source.batch_len();
        let mut work = Work::default();
        while !self.gate.stopped() {
            let Some((ticket, read)) = self.source.claim(&mut work.batch) else { return };
            work.failure = read.and_then(|()| self.work(&mut work, &mut cipher)).err();
            if !self.gate.hand_in(ticket, work, ahead, |work| self.settle(work)) {
                return;
            }
            work = self.gate.spare().unwrap_or_default();
        }
    }

    fn work(&self, work: &mut Work, cipher: &mut ChunkCipher<'_>) -> Result<()> {
        let Work { batch, hashed, sealed, sealed_len, leaves, .. } = work;
        *hashed = self.source.hash(batch, false)?;
        *leaves = self.seal_chunks(cipher, batch.first_chunk, &batch.plain, sealed);
        *sealed_len = sealed.len();
        self.sink.write_parallel(sealed, self.source.chunking().sealed_offset(batch.first_chunk))
    }

    /// In order, one at a time.
    fn settle(&self, work: &mut Work) -> Result<()> {
        let Work { batch, hashed, sealed, sealed_len, leaves, failure } = work;
        lock(&self.entries).absorb(std::mem::take(hashed), &batch.plain)?;
        if let Some(failure) = failure.take() {
            return Err(failure);
        }
        (self.options.progress)(batch.plain.len() as u64);
        self.sink.write_in_order(sealed)?;
        self.count(leaves, *sealed_len);
        Ok(())
    }

    /// Seals full chunks (and a short last one) into `sealed`, in place of what is there; their leaves if somebody asks
    /// for them.
    fn seal_chunks(
        &self,
        cipher: &mut ChunkCipher<'_>,
        first: u64,
        plain: &[u8],
        sealed: &mut Vec<u8>,
    ) -> Vec<([u8; 32], usize)> {
        let (mut leaves, chunking) = (Vec::new(), self.source.chunking());
        let len = plain.len() + TAG_LEN * plain.len().div_ceil(chunking.plain());
        sealed.reserve_exact(len.saturating_sub(sealed.len()));
        sealed.resize(len, 0);
        let chunks = plain.chunks(chunking.plain()).zip(sealed.chunks_mut(chunking.sealed()));
        for (i, (plain, sealed)) in (first..).zip(chunks) {
            cipher.seal(i, plain, sealed);
            if self.options.wants_leaves() {
                leaves.push((blake3::hash(sealed).into(), sealed.len()));
            }
        }
        leaves
    }

    fn count(&self, leaves: &[([u8; 32], usize)], len: usize) {
        let mut payload = lock(&self.payload);
        if leaves.is_empty() {
            payload.skip(len);
        }
        for (leaf, len) in leaves {
            payload.push(leaf, *len);
        }
    }

    /// The last partial chunk of the entries, the manifest and the trailer. The final chunk is short, and
    /// empty if need be.
    fn tail(&self, table: &Table) -> Result<(Manifest, PayloadDigest)> {
        let mut batch = Batch::default();
        let mut layout = Layout::of(table)?;
        self.source.rest(&mut batch)?;
        if let Some(size) = self.source.stream_size() {
            layout.set_size(size)?;
        }
        let mut entries = lock(&self.entries);
        entries.absorb(self.source.hash(&batch, true)?, &batch.plain)?;
        (self.options.progress)(batch.plain.len() as u64);
        let manifest = entries.finish(table, &layout)?;
        drop(entries);
        let end = layout.manifest_offset().unwrap_or_default();
        let start = batch.first_chunk * self.source.chunking().plain() as u64;
        let mut plain = std::mem::take(&mut batch.plain);
        plain.resize(usize::try_from(end - start).unwrap_or(plain.len()), 0);
        let tail = layout::encode_tail(&manifest);
        let limit =
            if self.source.stream_size().is_some() { layout::MAX_MANIFEST_UNSIZED } else { layout::MAX_MANIFEST };
        if tail.len() as u64 - layout::TRAILER_LEN > limit {
            return Err(Error::Usage(format!("the manifest is larger than {limit} bytes")));
        }
        plain.extend_from_slice(&tail);
        let chunk = self.source.chunking().plain();
        let chunks = batch.first_chunk + plain.len() as u64 / chunk as u64 + 1;
        if chunks > MAX_CHUNKS {
            return Err(Error::Usage("too large: more than 2^32 chunks".into()));
        }
        let mut cipher = ChunkCipher::new(self.schedule, self.options.engine);
        let mut sealed = Vec::with_capacity(plain.len() + 16 * (plain.len() / chunk + 2));
        let mut leaves = self.seal_chunks(&mut cipher, batch.first_chunk, &plain, &mut sealed);
        if plain.len().is_multiple_of(chunk) {
            let mut last = [0; TAG_LEN];
            cipher.seal(chunks - 1, b"", &mut last);
            sealed.extend_from_slice(&last);
            if self.options.wants_leaves() {
                leaves.push((blake3::hash(&last).into(), last.len()));
            }
        }
        let len = sealed.len();
        self.sink.write_parallel(&mut sealed, self.source.chunking().sealed_offset(batch.first_chunk))?;
        self.sink.write_in_order(&sealed)?;
        self.count(&leaves, len);
        let payload = std::mem::replace(&mut *lock(&self.payload), PayloadHasher::new());
        Ok((manifest, payload.finish()))
    }
}

/// Where the sealed bytes go: at their offset from all workers, or front to back in turn.
struct Sink<'a> {
    output: Mutex<Option<&'a mut (dyn std::io::Write + Send)>>,
    at: Option<&'a dyn crate::io::WriteAt>,
    /// Where the payload starts; `None` where the header is not written.
    header_len: Option<u64>,
}

impl<'a> Sink<'a> {
    fn new(output: Output<'a>, header_len: u64) -> Self {
        match output {
            Output::At(at) => Self { output: Mutex::new(None), at: Some(at), header_len: Some(header_len) },
            Output::Payload(at) => Self { output: Mutex::new(None), at: Some(at), header_len: None },
            Output::Stream(stream) => Self { output: Mutex::new(Some(stream)), at: None, header_len: Some(header_len) },
        }
    }

    fn begin(&self, header: &Header) -> Result<()> {
        match self.at {
            _ if self.header_len.is_none() => Ok(()),
            Some(at) => at.write_all_at(header.bytes(), 0).map_err(Error::io("write the header")),
            None => self.write_in_order(header.bytes()),
        }
    }

    /// Where the payload goes, if it goes there alone.
    fn payload(&self) -> Option<&'a dyn crate::io::WriteAt> {
        self.at.filter(|_| self.header_len.is_none())
    }

    /// Leaves a buffer to go on with in `sealed`.
    fn write_parallel(&self, sealed: &mut Vec<u8>, offset: u64) -> Result<()> {
        let Some(at) = self.at else { return Ok(()) };
        let written = at.write_owned_at(std::mem::take(sealed), self.header_len.unwrap_or_default() + offset);
        *sealed = written.map_err(Error::io("write the artifact"))?;
        Ok(())
    }

    fn write_in_order(&self, sealed: &[u8]) -> Result<()> {
        let mut output = lock(&self.output);
        let Some(stream) = output.as_mut() else { return Ok(()) };
        stream.write_all(sealed).map_err(Error::io("write the artifact"))
    }

    fn flush(&self) -> Result<()> {
        let mut output = lock(&self.output);
        let Some(stream) = output.as_mut() else { return Ok(()) };
        stream.flush().map_err(Error::io("write the artifact"))
    }
}

/// A lock whose holder cannot leave a broken state behind: workers stop as a whole on a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
