//! What mvault asks of a store: small objects with conditions, ranges of large ones, lists, and uploads in parts that
//! outlive the process that began them. Three back-ends: [`crate::folder`], [`crate::s3`], [`crate::memory`].
//!
//! Keys are relative to the vault, `/`-separated, and made by [`crate::layout`] alone. What a store returns is
//! untrusted: callers bound it and authenticate it. Methods block; the transfer engine calls them from several threads.

use crate::body::Body;
use crate::error::Result;
use bytes::Bytes;
use std::ops::Range;

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Bytes.
    pub size: u64,
    /// Changes with the content: S3's ETag, as the store writes it.
    pub etag: String,
    /// Seconds since 1970 by the store's clock.
    pub modified: Option<u64>,
    /// Who put it there: what the publisher said (S3), or the file's owner. Not authenticated.
    pub publisher: Option<String>,
}

/// When to write.
#[derive(Debug, Clone, Copy)]
pub enum Condition<'a> {
    /// Only if there is nothing: `If-None-Match: *`.
    Absent,
    /// Only over the object with this ETag: `If-Match`.
    Is(&'a str),
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An object.
    Object {
        /// What follows the prefix in its key.
        name: String,
        /// Bytes.
        size: u64,
        /// Seconds since 1970 by the store's clock.
        modified: Option<u64>,
    },
    /// There are objects below this name.
    Folder(String),
}

/// An upload that was begun and not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The object it will be.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// Seconds since 1970 by the store's clock.
    pub started: Option<u64>,
}

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 1 on.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// The store's tag of it.
    pub etag: String,
    /// CRC-64/NVME, computed here.
    pub crc: u64,
}

/// What a whole object must be.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// Bytes.
    pub size: u64,
    /// CRC-64/NVME over all of it.
    pub crc: u64,
}

/// Fetches ranges side by side on the thread that asks for what has come: all of their connections' work is done there.
/// What breaks on the way is asked for again from where it broke.
pub trait Receiver {
    /// Asks for the bytes of `range`, which come under `number`.
    fn begin(&mut self, number: u64, key: &str, range: Range<u64>);

    /// Waits for what comes next.
    fn next(&mut self) -> Came;
}

/// What has come of a range.
pub enum Came {
    /// The next bytes of the range of this number.
    Bytes(u64, Bytes),
    /// All of it has come, or it will not.
    End(u64, Result<()>),
}

/// Takes bytes in order.
pub type Take<'a> = dyn FnMut(&[u8]) -> std::io::Result<()> + 'a;

/// A place for sealed artifacts.
pub trait Store: Send + Sync {
    /// `s3://bucket/prefix`, or a path.
    fn uri(&self) -> String;

    /// A key as shown in messages.
    fn place(&self, key: &str) -> String;

    /// Whether transfers go over a network: worth resuming and many at once.
    fn is_remote(&self) -> bool;

    /// A small object, whole; refused if it has more than `max` bytes.
    fn read(&self, key: &str, max: usize) -> Result<(Vec<u8>, Meta)>;

    /// Of an object without its bytes.
    fn head(&self, key: &str) -> Result<Meta>;

    /// The bytes of `range` that exist, in order, and the object's size. What breaks on the way is asked for again
    /// from where it broke.
    fn fetch(&self, key: &str, range: Range<u64>, take: &mut Take<'_>) -> Result<u64>;

    /// The bytes of `range` that exist, in place of what is in `buffer`. The way for large ranges: no thread waits for
    /// each piece that arrives.
    fn fetch_into(&self, key: &str, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.clear();
        let take = &mut |data: &[u8]| {
            buffer.extend_from_slice(data);
            Ok(())
        };
        self.fetch(key, range, take).map(drop)
    }

    /// A way to the store for one thread alone. Every store that is remote has one; `None` of others.
    fn receiver(&self) -> Result<Option<Box<dyn Receiver>>> {
        Ok(None)
    }

    /// Writes a small object; its ETag.
    fn write(&self, key: &str, bytes: &[u8], condition: Condition<'_>, publisher: Option<&str>) -> Result<String>;

    /// Removes an object; none is no error.
    fn remove(&self, key: &str) -> Result<()>;

    /// Objects and folders directly below `prefix` (empty, or ending in `/`), page by page, in no certain order.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Item)) -> Result<()>;

    /// Begins an upload.
    fn begin(&self, key: &str) -> Result<Upload>;

    /// Sends part `number`, which starts at `offset` of the object. The same part may be sent again.
    fn send(&self, upload: &Upload, number: u32, offset: u64, body: &Body<'_>) -> Result<Part>;

    /// The parts an upload has; `crc` is zero.
    fn parts(&self, upload: &Upload) -> Result<Vec<Part>>;

    /// Makes the object of its parts, only if there is none.
    fn complete(&self, upload: &Upload, parts: &[Part], whole: Whole) -> Result<()>;

    /// Forgets an upload and its parts; none is no error.
    fn abort(&self, upload: &Upload) -> Result<()>;

    /// Uploads below `prefix` that were not completed.
    fn uploads(&self, prefix: &str) -> Result<Vec<Upload>>;

    /// Writes a payload that is one part, only if there is none.
    fn put(&self, key: &str, body: Bytes) -> Result<()>;
}

/// CRC-64/NVME as S3 computes it.
pub fn crc64(data: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, data)
}

/// CRC-64/NVME of two runs of bytes, of which the second has `len` bytes.
pub fn join_crc64(first: u64, second: u64, len: u64) -> u64 {
    crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, first, second, len)
}
