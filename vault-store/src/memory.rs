//! A store in memory: for programs that hold a vault themselves, such as a relay beside an enclave, and the reference
//! that the other back-ends are compared with.

use crate::body::Body;
use crate::error::{Cause, Result, StoreError};
use crate::store::{Condition, Item, Meta, Part, Store, Take, Upload, Whole, crc64};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A vault in memory.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Pending>,
    count: u64,
}

struct Object {
    body: Bytes,
    meta: Meta,
}

struct Pending {
    upload: Upload,
    parts: BTreeMap<u32, Bytes>,
}

impl Memory {
    /// An empty vault.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn object(&self, operation: &'static str, key: &str) -> Result<&Object> {
        self.objects.get(key).ok_or_else(|| fail(operation, key, Cause::NotFound, "not found"))
    }

    fn pending(&mut self, operation: &'static str, upload: &Upload) -> Result<&mut Pending> {
        let found = self.uploads.get_mut(&upload.id).filter(|p| p.upload.key == upload.key);
        found.ok_or_else(|| fail(operation, &upload.key, Cause::NoSuchUpload, "no such upload"))
    }

    fn insert(&mut self, operation: &'static str, key: &str, body: Bytes, who: Option<&str>) -> Result<String> {
        if self.objects.contains_key(key) {
            return Err(fail(operation, key, Cause::Precondition, "there is an object already"));
        }
        Ok(self.replace(key, body, who))
    }

    fn replace(&mut self, key: &str, body: Bytes, who: Option<&str>) -> String {
        self.count += 1;
        let etag = format!("\"{}\"", self.count);
        let publisher = who.map(str::to_owned);
        let meta = Meta { size: body.len() as u64, etag: etag.clone(), modified: Some(now()), publisher };
        self.objects.insert(key.into(), Object { body, meta });
        etag
    }
}

impl Store for Memory {
    fn uri(&self) -> String {
        "memory".into()
    }

    fn place(&self, key: &str) -> String {
        place(key)
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn read(&self, key: &str, max: usize) -> Result<(Vec<u8>, Meta)> {
        let state = self.lock();
        let object = state.object("read", key)?;
        if object.body.len() > max {
            return Err(fail("read", key, Cause::Malformed, format!("larger than {max} bytes")));
        }
        Ok((object.body.to_vec(), object.meta.clone()))
    }

    fn head(&self, key: &str) -> Result<Meta> {
        Ok(self.lock().object("head", key)?.meta.clone())
    }

    fn fetch(&self, key: &str, range: Range<u64>, take: &mut Take<'_>) -> Result<u64> {
        let body = self.lock().object("read", key)?.body.clone();
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(body.len());
        let data = body.get(at(range.start)..at(range.end)).unwrap_or_default();
        take(data).map_err(StoreError::io("read", place(key)))?;
        Ok(body.len() as u64)
    }

    fn write(&self, key: &str, bytes: &[u8], condition: Condition<'_>, publisher: Option<&str>) -> Result<String> {
        let (mut state, body) = (self.lock(), Bytes::copy_from_slice(bytes));
        match condition {
            Condition::Absent => state.insert("write", key, body, publisher),
            Condition::Is(etag) => {
                let current = state.objects.get(key).is_some_and(|o| o.meta.etag == etag);
                let changed = || fail("write", key, Cause::Precondition, "it was changed meanwhile");
                if current { Ok(state.replace(key, body, publisher)) } else { Err(changed()) }
            }
        }
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.lock().objects.remove(key);
        Ok(())
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Item)) -> Result<()> {
        let state = self.lock();
        let mut last = None;
        for (key, object) in &state.objects {
            let Some(name) = key.strip_prefix(prefix) else { continue };
            match name.split_once('/') {
                Some((folder, _)) if last.as_deref() == Some(folder) => {}
                Some((folder, _)) => {
                    last = Some(folder.to_owned());
                    each(Item::Folder(folder.into()));
                }
                None => {
                    let Meta { size, modified, .. } = object.meta;
                    each(Item::Object { name: name.into(), size, modified });
                }
            }
        }
        Ok(())
    }

    fn begin(&self, key: &str) -> Result<Upload> {
        let mut state = self.lock();
        state.count += 1;
        let upload = Upload { key: key.into(), id: state.count.to_string(), started: Some(now()) };
        let pending = Pending { upload: upload.clone(), parts: BTreeMap::new() };
        state.uploads.insert(upload.id.clone(), pending);
        Ok(upload)
    }

    fn send(&self, upload: &Upload, number: u32, _: u64, body: &Body<'_>) -> Result<Part> {
        let (size, crc, bytes) = (body.len(), body.crc(), body.joined()?);
        self.lock().pending("send", upload)?.parts.insert(number, bytes);
        Ok(Part { number, size, etag: format!("{crc:016x}"), crc })
    }

    fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let mut state = self.lock();
        let parts = &state.pending("list parts", upload)?.parts;
        let part = |(number, body): (&u32, &Bytes)| Part {
            number: *number,
            size: body.len() as u64,
            etag: format!("{:016x}", crc64(body)),
            crc: 0,
        };
        Ok(parts.iter().map(part).collect())
    }

    fn complete(&self, upload: &Upload, parts: &[Part], whole: Whole) -> Result<()> {
        let mut state = self.lock();
        let have = &state.pending("complete", upload)?.parts;
        let bodies: Vec<_> = parts.iter().filter_map(|p| have.get(&p.number)).collect();
        let body = Bytes::from(bodies.iter().flat_map(|b| b.iter().copied()).collect::<Vec<u8>>());
        if body.len() as u64 != whole.size || crc64(&body) != whole.crc {
            return Err(fail("complete", &upload.key, Cause::BadDigest, "the parts are not the whole"));
        }
        state.insert("complete", &upload.key, body, None)?;
        state.uploads.remove(&upload.id);
        Ok(())
    }

    fn abort(&self, upload: &Upload) -> Result<()> {
        self.lock().uploads.remove(&upload.id);
        Ok(())
    }

    fn uploads(&self, prefix: &str) -> Result<Vec<Upload>> {
        let state = self.lock();
        let uploads = state.uploads.values().map(|p| p.upload.clone());
        Ok(uploads.filter(|u| u.key.starts_with(prefix)).collect())
    }

    fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.lock().insert("write", key, body, None).map(|_| ())
    }
}

fn place(key: &str) -> String {
    format!("memory:{key}")
}

fn fail(operation: &'static str, key: &str, cause: Cause, message: impl Into<String>) -> StoreError {
    StoreError::new(operation, place(key), cause, message)
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
