//! A store around another one that writes down what is sent, and fails when it is told to.

use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use vault_store::body::Body;
use vault_store::error::Result;
use vault_store::store::{Condition, Item, Meta, Part, Take, Upload, Whole};
use vault_store::{Cause, Store, StoreError};

pub struct Recording<'a> {
    inner: &'a dyn Store,
    /// Digests of every body that was ever sent for a place of a payload.
    bodies: Mutex<HashMap<(String, u64), Vec<blake3::Hash>>>,
    /// Parts to let through before everything fails; negative: no limit.
    left: AtomicI64,
    /// Fail when the payload has been completed.
    pub after_complete: bool,
    /// Break, not fail, when a part is sent.
    pub panics: bool,
    sent: AtomicI64,
}

impl<'a> Recording<'a> {
    pub fn new(inner: &'a dyn Store) -> Self {
        let (bodies, left, sent) = (Mutex::default(), AtomicI64::new(-1), AtomicI64::new(0));
        Self { inner, bodies, left, after_complete: false, panics: false, sent }
    }

    /// Lets `parts` through, then cuts the network.
    pub fn cut_after(&self, parts: i64) {
        self.left.store(parts, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }

    /// Parts sent since the last call.
    pub fn sent(&self) -> i64 {
        self.sent.swap(0, Ordering::SeqCst)
    }

    /// No place of any payload was sent with two different bodies `[F-45]`.
    pub fn assert_one_body_a_place(&self) {
        let bodies = self.bodies.lock().unwrap();
        assert!(!bodies.is_empty());
        for ((key, offset), digests) in bodies.iter() {
            assert!(digests.iter().all(|d| *d == digests[0]), "two bodies for {key} at {offset} [F-45]");
        }
    }

    fn note(&self, key: &str, offset: u64, body: &Bytes) {
        let mut bodies = self.bodies.lock().unwrap();
        bodies.entry((key.to_owned(), offset)).or_default().push(blake3::hash(body));
    }

    fn gone(&self) -> StoreError {
        StoreError::new("UploadPart", self.inner.uri(), Cause::Other, "the test cut the network")
    }

    fn pass(&self) -> Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        if left < 0 {
            return Ok(());
        }
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n > 0).then_some(n - 1)).is_ok() {
            return Ok(());
        }
        Err(self.gone())
    }
}

impl Store for Recording<'_> {
    fn uri(&self) -> String {
        self.inner.uri()
    }

    fn place(&self, key: &str) -> String {
        self.inner.place(key)
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    fn read(&self, key: &str, max: usize) -> Result<(Vec<u8>, Meta)> {
        self.inner.read(key, max)
    }

    fn head(&self, key: &str) -> Result<Meta> {
        self.inner.head(key)
    }

    fn fetch(&self, key: &str, range: Range<u64>, take: &mut Take<'_>) -> Result<u64> {
        self.inner.fetch(key, range, take)
    }

    fn write(&self, key: &str, bytes: &[u8], condition: Condition<'_>, publisher: Option<&str>) -> Result<String> {
        self.inner.write(key, bytes, condition, publisher)
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.inner.remove(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Item)) -> Result<()> {
        self.inner.list(prefix, each)
    }

    fn begin(&self, key: &str) -> Result<Upload> {
        self.inner.begin(key)
    }

    fn send(&self, upload: &Upload, number: u32, offset: u64, body: &Body<'_>) -> Result<Part> {
        self.note(&upload.key, offset, &body.joined()?); // the network may have seen it, whatever follows
        assert!(!self.panics, "the test broke the sender");
        self.pass()?;
        self.sent.fetch_add(1, Ordering::SeqCst);
        self.inner.send(upload, number, offset, body)
    }

    fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        self.inner.parts(upload)
    }

    fn complete(&self, upload: &Upload, parts: &[Part], whole: Whole) -> Result<()> {
        self.inner.complete(upload, parts, whole)?;
        if self.after_complete && self.left.load(Ordering::SeqCst) >= 0 { Err(self.gone()) } else { Ok(()) }
    }

    fn abort(&self, upload: &Upload) -> Result<()> {
        self.inner.abort(upload)
    }

    fn uploads(&self, prefix: &str) -> Result<Vec<Upload>> {
        self.inner.uploads(prefix)
    }

    fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.note(key, 0, &body);
        self.inner.put(key, body)
    }
}
