//! The sending half of the transfer engine: takes ciphertext at offsets from the sealing workers, gathers it into
//! parts, and sends several at once. Memory is the parts in flight: a worker that is ahead of the network waits. What a
//! worker sealed is not copied: its buffer is a piece of the part until that is sent, and the worker gets another one.
//!
//! Workers write whole chunks, so that digests are made of a piece while it is in the worker's cache. Parts are taken into
//! memory in ascending order, so the lowest unfinished part can always be filled: no deadlock.
//!
//! Parts of very large models are too large to be kept. Of those only the digests are: when a part is whole and stands in
//! the record, its pieces are sealed again, one at a time, and each chunk is compared before it is sent.

use crate::body::{Body, Gathering, Give, Pool};
use crate::error::{Cause, Result, StoreError};
use crate::plan::{MAX_PARTS, MOST_IN_FLIGHT, Plan};
use crate::record::Record;
use crate::store::{Part, Store, Upload, Whole, join_crc64};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use vault_core::io::{Again, WriteAt};
use vault_core::signature::PayloadHasher;

/// Bytes of a piece that is sealed again, about.
const PIECE: u64 = 1 << 20;

/// What was sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Bytes of the payload.
    pub len: u64,
    /// Parts of it that had been sent before.
    pub reused: u32,
    /// Parts of it that were sent now.
    pub sent: u32,
    /// Payload digest (FORMAT.md 4.6).
    pub digest: [u8; 32],
}

/// Makes the record of a push, when the first part is about to be sent; `None` where none is kept.
pub type MakeRecord<'a> = dyn Fn() -> Result<Option<Record>> + Sync + 'a;

/// How to send a payload.
pub struct Sending<'a> {
    /// Where to.
    pub store: &'a dyn Store,
    /// The payload's key.
    pub key: &'a str,
    /// How it is cut.
    pub plan: Plan,
    /// The record of the interrupted push that this one goes on with.
    pub record: Option<Record>,
    /// Makes one otherwise.
    pub make_record: &'a MakeRecord<'a>,
    /// Called with the bytes that were sent or found to be there.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// How a payload was not sent.
pub struct Failed<E> {
    /// Why.
    pub error: E,
    /// The source is not the one of the interrupted push: nothing more may be sent under its DEK `[F-45]`.
    pub differs: bool,
    /// It was the sending that failed, not the sealing: another try may go on.
    pub sending: bool,
    /// The record, which then must go, or with which the push can go on.
    pub record: Option<Record>,
    /// The upload that was begun.
    pub upload: Option<Upload>,
}

impl Sending<'_> {
    /// Runs `seal`, which writes the payload, while what it writes is sent. When it has returned, completes the payload.
    pub fn run<T, E: From<StoreError>>(
        self,
        seal: impl FnOnce(&dyn WriteAt) -> Result<T, E>,
    ) -> Result<(T, Sent, Option<Record>), Box<Failed<E>>> {
        let mut engine = Engine::new(self);
        let outcome = engine.resume().map_err(E::from).and_then(|()| {
            std::thread::scope(|scope| {
                for _ in 0..engine.sending.plan.in_flight() {
                    scope.spawn(|| engine.sender(None));
                }
                let _fail = FailOnPanic(&engine);
                let sealed = seal(&engine);
                engine.close(sealed.is_ok());
                sealed
            })
        });
        let finished = outcome.and_then(|value| match engine.finish() {
            Ok(sent) => Ok((value, sent)),
            Err(e) => {
                engine.fail(e.clone(), false);
                Err(e.into())
            }
        });
        let Engine { record, state, .. } = engine;
        let (record, state) = (record.into_inner(), state.into_inner().unwrap_or_else(PoisonError::into_inner));
        match finished {
            Ok((value, sent)) => Ok((value, sent, record)),
            Err(error) => {
                let (differs, sending) = (state.differs, state.failed);
                Err(Box::new(Failed { error, differs, sending, record, upload: state.upload }))
            }
        }
    }
}

/// A sealer that panics must not leave the senders waiting for parts, nor a sender the sealer for room.
struct FailOnPanic<'e, 'a>(&'e Engine<'a>);

impl Drop for FailOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(self.0.error("UploadPart", Cause::Other, "a thread of the push failed"), false);
        }
    }
}

struct Engine<'a> {
    sending: Sending<'a>,
    record: OnceLock<Record>,
    /// Parts that the store had when this run began.
    there: HashMap<u32, Part>,
    /// Size of the payload, if the interrupted push had completed it.
    whole: Option<u64>,
    payload: Mutex<Payload>,
    state: Mutex<State>,
    pool: Pool,
    /// There is room for another part, or a failure.
    room: Condvar,
    /// There is a part to send, or none will follow.
    ready: Condvar,
}

/// BLAKE3 of a chunk and its length.
type Leaf = ([u8; 32], usize);

/// A part that is not whole yet, or the last one: what workers wrote of it, and the leaves by where they are in it.
#[derive(Default)]
struct Filling {
    body: Gathering,
    leaves: BTreeMap<usize, Vec<Leaf>>,
}

/// A part that can be sent.
#[derive(Default)]
struct Ready {
    /// Without its front, if that was not kept.
    body: Body<'static>,
    /// Bytes of it that are made again.
    front: u64,
    leaves: Arc<Vec<Leaf>>,
}

/// The payload digest, as far as parts have come in order.
struct Payload {
    hasher: PayloadHasher,
    parts: u32,
    waiting: BTreeMap<u32, Arc<Vec<Leaf>>>,
}

#[derive(Default)]
struct State {
    /// The lowest part that was not taken into memory yet, less one.
    taken: u32,
    filling: BTreeMap<u32, Filling>,
    /// Parts to send that are in memory, and those that are made again.
    ready: [VecDeque<(u32, Ready)>; 2],
    /// Parts that are filled or sent.
    in_flight: usize,
    /// So many bytes of the payload can be made again, and are not kept.
    again: u64,
    done: BTreeMap<u32, Part>,
    reused: u32,
    upload: Option<Upload>,
    failure: Option<StoreError>,
    differs: bool,
    /// The sending failed.
    failed: bool,
    closed: bool,
    /// Highest byte written.
    end: u64,
}

impl<'a> Engine<'a> {
    fn new(mut sending: Sending<'a>) -> Self {
        let record = sending.record.take().map_or_else(OnceLock::new, OnceLock::from);
        let (state, pool, room, ready) = (Mutex::default(), Pool::default(), Condvar::new(), Condvar::new());
        let payload = Mutex::new(Payload { hasher: PayloadHasher::new(), parts: 0, waiting: BTreeMap::new() });
        Self { sending, record, there: HashMap::new(), whole: None, payload, state, pool, room, ready }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: StoreError, differs: bool) {
        let mut state = self.lock();
        state.differs |= differs;
        state.failed |= error.cause != Cause::SourceChanged;
        state.failure.get_or_insert(error);
        self.wake_all();
    }

    fn wake_all(&self) {
        self.room.notify_all();
        self.ready.notify_all();
    }

    /// Learns what the store has of the interrupted upload.
    fn resume(&mut self) -> Result<()> {
        let Some(record) = self.record.get() else { return Ok(()) };
        let Some(id) = record.upload() else { return Ok(()) };
        let upload = Upload { key: self.sending.key.into(), id, started: None };
        let parts = match self.sending.store.parts(&upload) {
            Ok(parts) => parts,
            // Completed already, or cleaned up: then parts are sent again.
            Err(e) if matches!(e.cause, Cause::NoSuchUpload | Cause::NotFound) => {
                self.whole = self.sending.store.head(self.sending.key).ok().map(|m| m.size);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        self.lock().upload = Some(upload);
        for part in parts {
            let (offset, _) = self.sending.plan.part(part.number.max(1));
            if !record.may_have_sent(offset) {
                self.lock().differs = true;
                return Err(self.error(
                    "ListParts",
                    Cause::Other,
                    "a part of the upload is not in the push's record [F-45]",
                ));
            }
            if record.is_done(part.number, &part.etag) {
                self.there.insert(part.number, part);
            }
        }
        Ok(())
    }

    fn error(&self, operation: &'static str, cause: Cause, message: &str) -> StoreError {
        StoreError::new(operation, self.sending.store.place(self.sending.key), cause, message)
    }

    /// Puts `data` into the part it belongs to; waits until that part may be in memory.
    fn fill(&self, number: u32, at: usize, data: Bytes, size: usize) -> Result<()> {
        if u64::from(number) > MAX_PARTS {
            return Err(self.error("UploadPart", Cause::Other, "more than 10,000 parts: too large for a piped upload"));
        }
        let (offset, _) = self.sending.plan.part(number);
        let end = offset + (at + data.len()) as u64;
        debug_assert!(at.is_multiple_of(self.sending.plan.chunk()));
        let leaf = |c: &[u8]| (*blake3::hash(c).as_bytes(), c.len());
        let leaves = data.chunks(self.sending.plan.chunk()).map(leaf).collect();
        let mut state = self.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.taken >= number {
                break;
            }
            let most = if state.again > 0 { usize_of(MOST_IN_FLIGHT) } else { self.sending.plan.in_flight() };
            if state.in_flight < most {
                state.taken += 1;
                state.in_flight += 1;
                let next = state.taken;
                let (offset, size) = self.sending.plan.part(next);
                let body = Gathering::with_front(state.again.saturating_sub(offset).min(size));
                state.filling.insert(next, Filling { body, leaves: BTreeMap::new() });
            } else {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.end = state.end.max(end);
        if let Some(part) = state.filling.get_mut(&number) {
            part.body.add(at as u64, data);
            part.leaves.insert(at, leaves);
            if part.body.gathered() == size as u64
                && let Some(part) = state.filling.remove(&number)
            {
                state.make_ready(number, part);
                self.ready.notify_all();
            }
        }
        Ok(())
    }

    /// Nothing more will be written. What is in memory is sent if all of it was written, and let go otherwise.
    fn close(&self, complete: bool) {
        let mut state = self.lock();
        state.closed = true;
        let single = state.taken <= 1 && state.again == 0;
        if complete && (state.upload.is_some() || !single || self.whole.is_some()) {
            self.last_part(&mut state);
        }
        if !complete {
            state.ready = Default::default();
        }
        self.wake_all();
    }

    fn last_part(&self, state: &mut State) {
        if let Some((number, part)) = state.filling.pop_first() {
            debug_assert_eq!(self.sending.plan.part(number).0 + part.body.gathered(), state.end);
            if part.body.gathered() > 0 {
                state.make_ready(number, part);
            }
        }
    }

    /// Sends ready parts until there are no more: those in memory, or those that are made `again`.
    fn sender(&self, again: Option<&Again<'_>>) {
        let _fail = FailOnPanic(self);
        loop {
            let mut state = self.lock();
            let (number, part) = loop {
                if state.failure.is_some() {
                    return;
                }
                let [kept, made] = &mut state.ready;
                match if again.is_some() { made } else { kept }.pop_front() {
                    Some(part) => break part,
                    None if state.closed => return,
                    None => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            match self.send(number, &part, again) {
                Ok((part, reused)) => {
                    (self.sending.progress)(part.size);
                    let mut state = self.lock();
                    state.done.insert(number, part);
                    state.reused += u32::from(reused);
                    state.in_flight -= 1;
                    self.room.notify_all();
                }
                Err(e) => return self.fail(e, false),
            }
        }
    }

    /// Sends one part, or finds that the store has it.
    fn send(&self, number: u32, part: &Ready, again: Option<&Again<'_>>) -> Result<(Part, bool)> {
        let (offset, _) = self.sending.plan.part(number);
        let Ready { body, front, leaves } = part;
        let digest = self.digest(number, leaves);
        if self.whole.is_some() {
            return self.compared(number, offset, body, &digest);
        }
        let upload = self.upload()?;
        self.recorded(offset, body.len(), &digest)?;
        if let Some(part) = self.there.get(&number).filter(|p| p.size == body.len()) {
            return Ok((Part { crc: body.crc(), ..part.clone() }, true));
        }
        let make = |give: &mut Give<'_>| match again {
            Some(again) => self.make(again, offset, *front, leaves, give),
            None => Ok(()),
        };
        let with_front = again.map(|_| body.with_front(&make));
        let part = self.sending.store.send(&upload, number, offset, with_front.as_ref().unwrap_or(body))?;
        self.record.get().map_or(Ok(()), |r| r.confirmed(number, &part.etag))?;
        Ok((part, false))
    }

    /// Makes the front of a part again. What differs from the first time is not given `[F-45]`.
    fn make(&self, again: &Again<'_>, offset: u64, len: u64, leaves: &[Leaf], give: &mut Give<'_>) -> Result<()> {
        let place = || self.sending.store.place(self.sending.key);
        let changed =
            || StoreError::new("push", place(), Cause::SourceChanged, "the source changed while it was sent [F-45]");
        let step = (PIECE / again.unit as u64).max(1) * again.unit as u64;
        let (mut done, mut leaves) = (0, leaves.iter());
        while done < len {
            let mut piece = self.pool.take();
            piece.resize(usize_of((len - done).min(step)), 0);
            again.bytes.read_exact_at(&mut piece, offset + done).map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => changed(),
                _ => StoreError::io("read the source of", place())(e),
            })?;
            let same = |chunk: &[u8]| leaves.next().is_some_and(|(leaf, _)| blake3::hash(chunk) == *leaf);
            if !piece.chunks(again.unit).all(same) {
                return Err(changed());
            }
            done += piece.len() as u64;
            give(self.pool.lend(piece))?;
        }
        Ok(())
    }

    /// The payload is there as a whole: this part of it must be one that was sent.
    fn compared(&self, number: u32, offset: u64, body: &Body<'_>, digest: &str) -> Result<(Part, bool)> {
        if !self.record.get().is_some_and(|r| r.may_have_sent(offset)) {
            return Err(self.different());
        }
        self.recorded(offset, body.len(), digest)?;
        Ok((Part { number, size: body.len(), etag: String::new(), crc: 0 }, true))
    }

    fn different(&self) -> StoreError {
        let error =
            self.error("UploadPart", Cause::Other, "the source is not what it was before the interruption [F-45]");
        self.fail(error.clone(), true);
        error
    }

    /// The digest of a part for the record: BLAKE3 over the leaves of its chunks, which the payload digest is made of too.
    fn digest(&self, number: u32, leaves: &Arc<Vec<Leaf>>) -> String {
        let mut hasher = blake3::Hasher::new();
        for (leaf, _) in leaves.iter() {
            hasher.update(leaf);
        }
        let mut payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        payload.waiting.insert(number, Arc::clone(leaves));
        let Payload { hasher: whole, parts, waiting } = &mut *payload;
        while let Some(leaves) = waiting.remove(&(*parts + 1)) {
            for (leaf, len) in leaves.iter() {
                whole.push(leaf, *len);
            }
            *parts += 1;
        }
        hasher.finalize().to_hex().to_string()
    }

    /// When every part was seen.
    fn payload_digest(&self) -> [u8; 32] {
        let payload = Payload { hasher: PayloadHasher::new(), parts: 0, waiting: BTreeMap::new() };
        let mut held = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, payload).hasher.finish().digest
    }

    /// `[F-44]` `[F-45]`
    fn recorded(&self, offset: u64, len: u64, digest: &str) -> Result<()> {
        let Some(record) = self.record.get() else { return Ok(()) };
        let same = record.about_to_send(offset, len, digest)?;
        if same { Ok(()) } else { Err(self.different()) }
    }

    /// The upload that parts go to, begun by whoever comes first.
    fn upload(&self) -> Result<Upload> {
        let mut state = self.lock();
        if let Some(upload) = &state.upload {
            return Ok(upload.clone());
        }
        let upload = self.sending.store.begin(self.sending.key)?;
        state.upload = Some(upload.clone());
        if self.record.get().is_none()
            && let Some(record) = (self.sending.make_record)()?
        {
            let _ = self.record.set(record); // the state's lock is held: nobody else does
        }
        if let Some(record) = self.record.get() {
            record.set_upload(&upload.id)?;
        }
        Ok(upload)
    }

    /// Every part is there: makes the payload of them, or of the only one.
    fn finish(&self) -> Result<Sent> {
        let mut state = self.lock();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        let (len, reused) = (state.end, state.reused);
        if let Some(whole) = self.whole {
            drop(state);
            return if whole == len {
                Ok(Sent { len, reused, sent: 0, digest: self.payload_digest() })
            } else {
                Err(self.different())
            };
        }
        if state.upload.is_none() {
            let part = state.filling.pop_first().map(|(_, part)| part.ready());
            drop(state);
            let Ready { body, leaves, .. } = part.unwrap_or_default();
            let digest = self.digest(1, &leaves);
            self.recorded(0, body.len(), &digest)?;
            self.sending.store.put(self.sending.key, body.joined()?)?;
            (self.sending.progress)(body.len());
            return Ok(Sent { len, reused: 0, sent: 1, digest: self.payload_digest() });
        }
        let parts: Vec<_> = state.done.values().cloned().collect();
        let upload = state.upload.clone();
        drop(state);
        let crc = parts.iter().fold(0, |crc, part| join_crc64(crc, part.crc, part.size));
        if let Some(upload) = upload {
            self.sending.store.complete(&upload, &parts, Whole { size: len, crc })?;
        }
        let sent = u32::try_from(parts.len()).unwrap_or(u32::MAX) - reused;
        Ok(Sent { len, reused, sent, digest: self.payload_digest() })
    }
}

impl Filling {
    fn ready(self) -> Ready {
        let front = self.body.front().min(self.body.gathered());
        let leaves = self.leaves.into_values().flatten().collect();
        Ready { body: self.body.done(), front, leaves: Arc::new(leaves) }
    }
}

impl State {
    fn make_ready(&mut self, number: u32, part: Filling) {
        let part = part.ready();
        let [kept, made] = &mut self.ready;
        if part.front > 0 { made } else { kept }.push_back((number, part));
    }
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl WriteAt for Engine<'_> {
    fn write_all_at(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        let mut buffer = self.pool.take();
        buffer.clear();
        buffer.extend_from_slice(data);
        self.write_owned_at(buffer, offset).map(drop)
    }

    /// Whole chunks, except at the payload's end.
    fn write_owned_at(&self, data: Vec<u8>, mut offset: u64) -> std::io::Result<Vec<u8>> {
        let mut data = self.pool.lend(data);
        while !data.is_empty() {
            let number = self.sending.plan.locate(offset);
            let (start, size) = self.sending.plan.part(number);
            let (at, size) = (usize_of(offset - start), usize_of(size));
            let now = data.split_to(data.len().min(size - at));
            offset += now.len() as u64;
            self.fill(number, at, now, size)?;
        }
        Ok(self.pool.take())
    }

    fn write_with(&self, again: &Again<'_>, write: &mut dyn FnMut() -> bool) {
        if !self.sending.plan.is_made_again() {
            write();
            return;
        }
        self.lock().again = again.len;
        std::thread::scope(|scope| {
            for _ in 0..MOST_IN_FLIGHT {
                scope.spawn(|| self.sender(Some(again)));
            }
            let _fail = FailOnPanic(self);
            let complete = write();
            self.close(complete);
        });
    }
}
