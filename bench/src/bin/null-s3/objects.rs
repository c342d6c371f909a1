//! What the server remembers: objects, with or without their bytes, and uploads under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::body::Body;

/// Bodies up to this many bytes are always kept.
const SMALL: u64 = 1 << 20;

/// Header fields, in the order in which they are answered.
pub type Fields = Vec<(String, String)>;

/// An object.
pub struct Object {
    pub len: u64,
    pub etag: String,
    /// Its bytes, in the pieces in which they came; none if they were dropped.
    pub bytes: Option<Vec<Vec<u8>>>,
    /// Metadata and checksums, as headers.
    pub fields: Fields,
}

/// A part of an upload.
pub struct Part {
    pub len: u64,
    pub etag: String,
    pub checksums: Fields,
    bytes: Option<Vec<u8>>,
}

/// An upload under way.
pub struct Upload {
    pub object: String,
    pub fields: Fields,
    pub parts: BTreeMap<u32, Part>,
}

/// Everything; objects by `bucket/key`.
#[derive(Default)]
pub struct Contents {
    pub objects: BTreeMap<String, Arc<Object>>,
    pub tags: HashMap<String, Vec<u8>>,
    pub uploads: BTreeMap<String, Upload>,
    count: u64,
}

impl Contents {
    /// An ETag that no other object has.
    pub fn etag(&mut self) -> String {
        self.count += 1;
        format!("\"{:032x}\"", self.count)
    }

    /// Makes an object of an upload; false if there is no such upload.
    pub fn complete(&mut self, id: &str, checksums: Fields) -> Option<Arc<Object>> {
        let upload = self.uploads.remove(id)?;
        let len = upload.parts.values().map(|part| part.len).sum();
        let count = upload.parts.len();
        let bytes = upload.parts.into_values().map(|part| part.bytes).collect();
        let etag = format!("{}-{count}\"", self.etag().trim_end_matches('"'));
        let fields = upload.fields.into_iter().chain(checksums).collect();
        let object = Arc::new(Object { len, etag, bytes, fields });
        self.objects.insert(upload.object, Arc::clone(&object));
        Some(object)
    }
}

/// The contents, and which bodies are kept.
pub struct State {
    keep: Option<String>,
    contents: Mutex<Contents>,
}

impl State {
    /// An empty server.
    pub fn new(keep: Option<String>) -> Self {
        Self { keep, contents: Mutex::default() }
    }

    /// The contents; every change to them is whole, so that a worker that panicked leaves nothing half done.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a body with this key may be to be kept.
    pub fn keeps(&self, key: &str) -> u64 {
        let all = self.keep.as_ref().is_some_and(|prefix| key.starts_with(prefix.as_str()));
        if all { u64::MAX } else { SMALL }
    }
}

impl Part {
    /// A part of a body.
    pub fn new(body: Body, etag: String, checksums: Fields) -> Self {
        Self { len: body.len, etag, checksums, bytes: body.bytes }
    }
}
