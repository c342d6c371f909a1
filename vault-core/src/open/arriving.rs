//! Opening what comes over a network, in any order, each chunk on the thread that received it: it is still in that
//! processor's cache, and nobody waits for a turn. What is left of a batch, hashes and lengths, is settled in order, so
//! verdicts are those of an ordered pass: the first chunk that fails decides. Entries go to temporary names `[F-38]`.

use super::source::{Unordered, run_len};
use super::{Opening, Outcome};
use crate::chunk::ChunkCipher;
use crate::error::{Error, Result, refused};
use crate::geometry::Chunking;
use crate::io::ReadAt;
use crate::seal::lock;
use std::sync::Mutex;

/// Runs workers until all of `unordered` is opened.
pub(super) fn open(opening: &Opening<'_, '_, '_>, unordered: &Unordered<'_>) -> Result<()> {
    let pass = Pass { opening, unordered, lanes: Default::default(), spare: Mutex::default() };
    opening.gate.run(opening.options.threads, &|| {
        opening.gate.pass(pass.worker());
    })?;
    let batches = unordered.payload.sealed_len.div_ceil(run_len(opening.chunking));
    if opening.gate.settled() < batches { Err(wrong("a part of it did not come")) } else { Ok(()) }
}

struct Pass<'p, 'a, 'i, 's> {
    opening: &'p Opening<'a, 'i, 's>,
    unordered: &'p Unordered<'p>,
    lanes: [Lane; LANES],
    /// Buffers for plaintext.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Files that are written side by side.
const LANES: usize = 16;
/// Batches that may wait in a lane.
const WAITING: usize = 4;

/// Batches that wait to be written.
#[derive(Default)]
struct Lane {
    turn: Mutex<()>,
    waiting: Mutex<Vec<Written>>,
}

/// A batch that is to be written.
struct Written {
    sealed_start: u64,
    start: u64,
    plain: Vec<u8>,
    len: usize,
    outcome: Outcome<'static>,
}

/// A batch that is partly here.
struct Batch {
    /// Where it starts and ends in the payload.
    start: u64,
    end: u64,
    /// What was taken of it, up to here.
    at: u64,
    /// The front of a chunk whose rest has not come.
    cut: Vec<u8>,
    /// Verified plaintext is in front of `verified`.
    plain: Vec<u8>,
    verified: usize,
    opened: Result<()>,
    leaves: Vec<([u8; 32], usize)>,
}

impl Pass<'_, '_, '_, '_> {
    fn worker(&self) -> Result<()> {
        let opening = self.opening;
        let mut cipher = ChunkCipher::new(opening.header.schedule(), opening.options.engine);
        let reading = || Error::io("read the artifact");
        let mut arrivals = self.unordered.from.receive().map_err(reading())?;
        let mut batches = Vec::new();
        while !opening.gate.stopped()
            && let Some((at, data)) = arrivals.next().map_err(reading())?
        {
            self.take(at, data, &mut batches, &mut cipher)?;
        }
        Ok(())
    }

    /// What came may be the end of a batch, and some more.
    fn take(&self, mut at: u64, mut data: &[u8], batches: &mut Vec<Batch>, cipher: &mut ChunkCipher<'_>) -> Result<()> {
        while !data.is_empty() {
            let index = match batches.iter().position(|b| b.at == at && b.at < b.end) {
                Some(index) => index,
                None => self.begin(at, batches)?,
            };
            let Some(batch) = batches.get_mut(index) else { break };
            let taken = self.chunk(batch, data, cipher)?;
            at += taken as u64;
            data = data.get(taken..).unwrap_or_default();
            if batch.at == batch.end {
                self.finish(batch);
            }
        }
        Ok(())
    }

    /// A batch that starts at `at`, in the buffers of one that is done if there is one.
    fn begin(&self, at: u64, batches: &mut Vec<Batch>) -> Result<usize> {
        let (full, len) = (run_len(self.opening.chunking), self.unordered.payload.sealed_len);
        if !at.is_multiple_of(full) || at >= len {
            return Err(wrong("a part of it came that is not the next"));
        }
        let index = batches.iter().position(|b| b.at == b.end).unwrap_or_else(|| {
            batches.push(Batch::default());
            batches.len() - 1
        });
        if let Some(batch) = batches.get_mut(index) {
            batch.begin(at..len.min(at + full), self.opening.chunking);
        }
        Ok(index)
    }

    /// Opens the batch's next chunk, or keeps what has come of it; how much of `data` that was.
    fn chunk(&self, batch: &mut Batch, data: &[u8], cipher: &mut ChunkCipher<'_>) -> Result<usize> {
        let step = self.opening.chunking.sealed();
        let start = batch.at - batch.cut.len() as u64;
        let whole = usize::try_from(batch.end - start).unwrap_or(step).min(step);
        if batch.cut.is_empty()
            && let Some(chunk) = data.get(..whole)
        {
            batch.at += whole as u64;
            self.open_chunk(batch, start, chunk, cipher)?;
            return Ok(whole);
        }
        let (now, _) = data.split_at(data.len().min(whole - batch.cut.len()));
        batch.cut.extend_from_slice(now);
        batch.at += now.len() as u64;
        if batch.cut.len() == whole {
            let chunk = std::mem::take(&mut batch.cut);
            self.open_chunk(batch, start, &chunk, cipher)?;
            batch.cut = chunk;
            batch.cut.clear();
        }
        Ok(now.len())
    }

    /// Opens the chunk at `start`; if it does not verify, once more as it is fetched anew. After one that does not, the
    /// rest of the batch is passed over.
    fn open_chunk(&self, batch: &mut Batch, start: u64, chunk: &[u8], cipher: &mut ChunkCipher<'_>) -> Result<()> {
        if batch.opened.is_err() {
            return Ok(());
        }
        let index = start / self.opening.chunking.sealed() as u64;
        if !batch.open(index, chunk, cipher) {
            let anew = fetch_anew(self.unordered.file, start, chunk.len())?;
            if !anew.as_ref().is_some_and(|chunk| batch.open(index, chunk, cipher)) {
                batch.opened = Err(refused(25, format!("chunk {index} of the payload was changed, moved or cut")));
                return Ok(());
            }
            batch.leaves.extend(anew.iter().filter(|_| self.opening.leaves).map(|c| (blake3::hash(c).into(), c.len())));
        } else if self.opening.leaves {
            batch.leaves.push((blake3::hash(chunk).into(), chunk.len()));
        }
        Ok(())
    }

    /// All of the batch has come. One thread writes to a file at a time, since the system would let the others wait: they
    /// leave to it what they have, and go on.
    fn finish(&self, batch: &mut Batch) {
        let chunking = self.opening.chunking;
        let start = batch.start / chunking.sealed() as u64 * chunking.plain() as u64;
        let plain = batch.plain.get(..batch.verified).unwrap_or_default();
        let outcome = Outcome {
            pieces: self.opening.plan.check_filling(start, plain).map(|()| self.opening.plan.hash(start, plain)),
            plain: self.opening.plan.tail_of(start, plain),
            opened: std::mem::replace(&mut batch.opened, Ok(())),
            leaves: std::mem::take(&mut batch.leaves),
            sealed: usize::try_from(batch.end - batch.start).unwrap_or_default(),
        };
        let spare = lock(&self.spare).pop().unwrap_or_default();
        let plain = std::mem::replace(&mut batch.plain, spare);
        let written = Written { sealed_start: batch.start, start, plain, len: batch.verified, outcome };
        let Some(lane) = self.lanes.get(self.opening.plan.entry_at(start) % LANES) else { return };
        let mut waiting = lock(&lane.waiting);
        waiting.push(written);
        let many = waiting.len() > WAITING;
        drop(waiting);
        self.write_out(lane, many);
    }

    /// Writes what waits in the lane, unless another thread is at it; `wait` for that one.
    fn write_out(&self, lane: &Lane, wait: bool) {
        while !lock(&lane.waiting).is_empty() {
            let turn = if wait { Some(lock(&lane.turn)) } else { lane.turn.try_lock().ok() };
            let Some(_turn) = turn else { return };
            loop {
                let Some(Written { sealed_start, start, plain, len, mut outcome }) = lock(&lane.waiting).pop() else {
                    break;
                };
                let written = self.opening.plan.write_out(start, plain.get(..len).unwrap_or_default());
                outcome.pieces = outcome.pieces.and_then(|pieces| written.map(|()| pieces));
                lock(&self.spare).push(plain);
                self.settle(sealed_start, outcome);
            }
        }
    }

    /// Settles it, and those that waited for it, when all in front of it are settled.
    fn settle(&self, start: u64, outcome: Outcome<'static>) {
        let (gate, ticket) = (&self.opening.gate, start / run_len(self.opening.chunking));
        gate.hand_in(ticket, Some(outcome), usize::MAX, |outcome| {
            outcome.take().map_or(Ok(()), |outcome| self.opening.settle(outcome))
        });
        gate.spare();
    }
}

impl Default for Batch {
    fn default() -> Self {
        let (cut, plain, leaves) = Default::default();
        Self { start: 0, end: 0, at: 0, cut, plain, verified: 0, opened: Ok(()), leaves }
    }
}

impl Batch {
    fn begin(&mut self, sealed: std::ops::Range<u64>, chunking: Chunking) {
        (self.start, self.at, self.end) = (sealed.start, sealed.start, sealed.end);
        let most = usize::try_from(self.end - self.start).unwrap_or_default();
        self.plain.resize(most.max(chunking.plain()), 0);
        self.verified = 0;
    }

    /// True if the chunk verified; then its plaintext is appended `[F-25]`.
    fn open(&mut self, index: u64, chunk: &[u8], cipher: &mut ChunkCipher<'_>) -> bool {
        let len = chunk.len().saturating_sub(crate::aead::TAG_LEN);
        let Some(plain) = self.plain.get_mut(self.verified..self.verified + len) else { return false };
        let opened = cipher.open(index, chunk, plain).is_ok();
        self.verified += if opened { len } else { 0 };
        opened
    }
}

/// A chunk once more; `None` if the source has nothing else to give.
fn fetch_anew(file: &dyn ReadAt, start: u64, len: usize) -> Result<Option<Vec<u8>>> {
    if !file.forget(start, len as u64) {
        return Ok(None);
    }
    let mut chunk = vec![0; len];
    file.read_exact_at(&mut chunk, start).map_err(Error::io("read the artifact"))?;
    Ok(Some(chunk))
}

fn wrong(what: &str) -> Error {
    Error::io("read the artifact")(std::io::Error::other(what))
}
