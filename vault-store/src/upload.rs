//! The sending half of the transfer engine: takes ciphertext at offsets from the sealing workers, gathers it into
//! parts, and sends several at once. Memory is the parts in flight: a worker that is ahead of the network waits.
//!
//! Parts are taken into memory in ascending order, so the lowest unfinished part can always be filled: no deadlock.

use crate::error::{Cause, Result, StoreError};
use crate::plan::{MAX_PARTS, Plan};
use crate::record::Record;
use crate::store::{Part, Store, Upload, Whole, crc64, join_crc64};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use vault_core::io::WriteAt;
use vault_core::signature::PayloadHasher;

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
                    scope.spawn(|| engine.sender());
                }
                let _close = CloseOnPanic(&engine);
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

/// A sealer that panics must not leave the senders waiting for parts.
struct CloseOnPanic<'e, 'a>(&'e Engine<'a>);

impl Drop for CloseOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(false);
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
    changed: Condvar,
}

/// The payload digest, as far as parts have come in order.
struct Payload {
    hasher: PayloadHasher,
    parts: u32,
    waiting: BTreeMap<u32, Vec<([u8; 32], usize)>>,
}

#[derive(Default)]
struct State {
    /// The lowest part that was not taken into memory yet, less one.
    taken: u32,
    filling: BTreeMap<u32, (BytesMut, usize)>,
    ready: VecDeque<(u32, Bytes)>,
    spare: Vec<BytesMut>,
    in_memory: usize,
    done: BTreeMap<u32, Part>,
    reused: u32,
    upload: Option<Upload>,
    failure: Option<StoreError>,
    differs: bool,
    /// There was a failure.
    failed: bool,
    closed: bool,
    /// Highest byte written.
    end: u64,
}

impl<'a> Engine<'a> {
    fn new(mut sending: Sending<'a>) -> Self {
        let record = sending.record.take().map_or_else(OnceLock::new, OnceLock::from);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let payload = Mutex::new(Payload { hasher: PayloadHasher::new(), parts: 0, waiting: BTreeMap::new() });
        Self { sending, record, there: HashMap::new(), whole: None, payload, state, changed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: StoreError, differs: bool) {
        let mut state = self.lock();
        state.differs |= differs;
        state.failed = true;
        state.failure.get_or_insert(error);
        self.changed.notify_all();
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

    /// Copies `data` into the part it belongs to; waits until that part may be in memory.
    fn fill(&self, number: u32, at: usize, data: &[u8], size: usize) -> Result<()> {
        if u64::from(number) > MAX_PARTS {
            return Err(self.error("UploadPart", Cause::Other, "more than 10,000 parts: too large for a piped upload"));
        }
        let mut state = self.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.taken >= number {
                break;
            }
            if state.in_memory < self.sending.plan.in_flight() {
                state.taken += 1;
                state.in_memory += 1;
                let next = state.taken;
                let (_, len) = self.sending.plan.part(next);
                let mut buffer = state.spare.pop().unwrap_or_default();
                buffer.resize(usize::try_from(len).unwrap_or_default(), 0);
                state.filling.insert(next, (buffer, 0));
            } else {
                state = self.wait(state);
            }
        }
        let (offset, _) = self.sending.plan.part(number);
        state.end = state.end.max(offset + (at + data.len()) as u64);
        if let Some((buffer, filled)) = state.filling.get_mut(&number) {
            if let Some(space) = buffer.get_mut(at..at + data.len()) {
                space.copy_from_slice(data);
            }
            *filled += data.len();
            if *filled == size
                && let Some((buffer, _)) = state.filling.remove(&number)
            {
                state.ready.push_back((number, buffer.freeze()));
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Nothing more will be written. What is in memory is sent if all of it was written, and let go otherwise.
    fn close(&self, complete: bool) {
        let mut state = self.lock();
        state.closed = true;
        if complete && (state.upload.is_some() || state.taken > 1 || self.whole.is_some()) {
            Self::last_part(&mut state, self.sending.plan);
        }
        if !complete {
            state.ready.clear();
        }
        self.changed.notify_all();
    }

    fn last_part(state: &mut State, plan: Plan) {
        if let Some((number, (mut buffer, filled))) = state.filling.pop_first() {
            debug_assert_eq!(plan.part(number).0 + filled as u64, state.end);
            buffer.truncate(filled);
            if filled > 0 {
                state.ready.push_back((number, buffer.freeze()));
            }
        }
    }

    /// Sends ready parts until there are no more.
    fn sender(&self) {
        loop {
            let mut state = self.lock();
            let (number, body) = loop {
                if state.failure.is_some() {
                    return;
                }
                match state.ready.pop_front() {
                    Some(part) => break part,
                    None if state.closed => return,
                    None => state = self.wait(state),
                }
            };
            drop(state);
            match self.send(number, &body) {
                Ok((part, reused)) => {
                    (self.sending.progress)(body.len() as u64);
                    let mut state = self.lock();
                    state.done.insert(number, part);
                    state.reused += u32::from(reused);
                    state.in_memory -= 1;
                    if let Ok(buffer) = body.try_into_mut() {
                        state.spare.push(buffer);
                    }
                    self.changed.notify_all();
                }
                Err(e) => return self.fail(e, false),
            }
        }
    }

    /// Sends one part, or finds that the store has it.
    fn send(&self, number: u32, body: &Bytes) -> Result<(Part, bool)> {
        let (offset, _) = self.sending.plan.part(number);
        let digest = self.digest(number, body);
        if self.whole.is_some() {
            return self.compared(number, offset, body, &digest);
        }
        let upload = self.upload()?;
        self.recorded(offset, body, &digest)?;
        if let Some(part) = self.there.get(&number).filter(|p| p.size == body.len() as u64) {
            return Ok((Part { crc: crc64(body), ..part.clone() }, true));
        }
        let part = self.sending.store.send(&upload, number, offset, body.clone())?;
        self.record.get().map_or(Ok(()), |r| r.confirmed(number, &part.etag))?;
        Ok((part, false))
    }

    /// The payload is there as a whole: this part of it must be one that was sent.
    fn compared(&self, number: u32, offset: u64, body: &[u8], digest: &str) -> Result<(Part, bool)> {
        if !self.record.get().is_some_and(|r| r.may_have_sent(offset)) {
            return Err(self.different());
        }
        self.recorded(offset, body, digest)?;
        Ok((Part { number, size: body.len() as u64, etag: String::new(), crc: 0 }, true))
    }

    fn different(&self) -> StoreError {
        let error =
            self.error("UploadPart", Cause::Other, "the source is not what it was before the interruption [F-45]");
        self.fail(error.clone(), true);
        error
    }

    /// The digest of a part for the record: BLAKE3 over the leaves of its chunks, which the payload digest is made of too.
    fn digest(&self, number: u32, body: &[u8]) -> String {
        let chunk = self.sending.plan.chunk();
        let leaves: Vec<_> = body.chunks(chunk).map(|c| (*blake3::hash(c).as_bytes(), c.len())).collect();
        let mut hasher = blake3::Hasher::new();
        for (leaf, _) in &leaves {
            hasher.update(leaf);
        }
        let mut payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        payload.waiting.insert(number, leaves);
        let Payload { hasher: whole, parts, waiting } = &mut *payload;
        while let Some(leaves) = waiting.remove(&(*parts + 1)) {
            for (leaf, len) in &leaves {
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
    fn recorded(&self, offset: u64, body: &[u8], digest: &str) -> Result<()> {
        let Some(record) = self.record.get() else { return Ok(()) };
        let same = record.about_to_send(offset, body.len() as u64, digest)?;
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
            let body = state.filling.pop_first().map(|(_, (mut buffer, filled))| {
                buffer.truncate(filled);
                buffer.freeze()
            });
            drop(state);
            let body = body.unwrap_or_default();
            let digest = self.digest(1, &body);
            self.recorded(0, &body, &digest)?;
            self.sending.store.put(self.sending.key, body.clone())?;
            (self.sending.progress)(body.len() as u64);
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

impl WriteAt for Engine<'_> {
    fn write_all_at(&self, mut data: &[u8], mut offset: u64) -> std::io::Result<()> {
        while !data.is_empty() {
            let number = self.sending.plan.locate(offset);
            let (start, size) = self.sending.plan.part(number);
            let (at, size) = (offset - start, usize::try_from(size).unwrap_or(usize::MAX));
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(data.len().min(size - at));
            self.fill(number, at, now, size)?;
            data = later;
            offset += now.len() as u64;
        }
        Ok(())
    }
}
