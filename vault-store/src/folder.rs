//! A vault in a local folder: the default, with no server. Objects are whole or absent: small ones are written under
//! a temporary name, synced and linked; parts of an upload go into a hidden file with a journal of their digests beside
//! it. A lock on the folder makes conditional replacements one step. Links below the folder are not followed.

use crate::body::Body;
use crate::error::{Cause, Result, StoreError};
use crate::memory::now;
use crate::store::{Condition, Item, Meta, Part, Store, Take, Upload, Whole};
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, openat};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Read and written at a time.
const STEP: usize = 1024 * 1024;
/// Objects up to this size have an ETag made of their bytes.
const SMALL: u64 = 2 * 1024 * 1024;
/// End of the name of an upload's data.
const DATA: &str = ".upload";
/// End of the name of an upload's journal.
const JOURNAL: &str = ".parts";

/// A vault in a folder.
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The vault in `root`, which is made when something is written to it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Opens a regular file below the root, following no link.
    fn open(&self, operation: &'static str, key: &str) -> Result<(File, fs::Metadata)> {
        let failed = || StoreError::io(operation, self.place(key));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(CWD, self.path(key), flags, Mode::empty()).map_err(|e| failed()(e.into()))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(failed())?;
        if metadata.is_file() {
            return Ok((file, metadata));
        }
        Err(StoreError::new(operation, self.place(key), Cause::NotFound, "not a regular file"))
    }

    fn meta(&self, operation: &'static str, key: &str, file: &File, metadata: &fs::Metadata) -> Result<Meta> {
        let size = metadata.len();
        let etag = if size <= SMALL {
            let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
            file.read_exact_at(&mut bytes, 0).map_err(StoreError::io(operation, self.place(key)))?;
            blake3::hash(&bytes).to_hex().to_string()
        } else {
            format!("{:x}-{:x}-{size:x}", metadata.ino(), metadata.mtime_nsec())
        };
        let publisher = uzers::get_user_by_uid(metadata.uid()).map(|u| u.name().to_string_lossy().into_owned());
        Ok(Meta { size, etag, modified: modified(metadata), publisher })
    }

    fn make_parent(&self, key: &str) -> Result<PathBuf> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(StoreError::io("create folder", parent.display().to_string()))?;
        Ok(path)
    }

    /// Held while what a condition is about must not change.
    fn lock(&self) -> Result<File> {
        let path = self.make_parent(".mvault-lock")?;
        let failed = || StoreError::io("lock", path.display().to_string());
        let file = File::options().create(true).append(true).open(&path).map_err(failed())?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| failed()(e.into()))?;
        Ok(file)
    }

    fn data(&self, upload: &Upload) -> PathBuf {
        let (folder, name) = upload.key.rsplit_once('/').unwrap_or(("", &upload.key));
        self.root.join(folder).join(format!(".{name}.{}{DATA}", upload.id))
    }

    fn opened_data(&self, operation: &'static str, upload: &Upload) -> Result<File> {
        File::options().read(true).write(true).open(self.data(upload)).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                StoreError::new(operation, self.place(&upload.key), Cause::NoSuchUpload, "no such upload")
            }
            _ => StoreError::io(operation, self.place(&upload.key))(e),
        })
    }

    /// Gives a complete file its name, if that is free.
    fn publish(&self, operation: &'static str, key: &str, temporary: &Path) -> Result<()> {
        let path = self.path(key);
        let failed = || StoreError::io(operation, self.place(key));
        linkat(CWD, temporary, CWD, &path, AtFlags::empty()).map_err(|e| failed()(e.into()))?;
        fs::remove_file(temporary).map_err(failed())?;
        sync_parent(&path).map_err(failed())
    }

    /// Whether the object has the bytes of `file`.
    fn is_there(&self, key: &str, file: &File, size: u64) -> bool {
        self.open("complete", key).is_ok_and(|(there, metadata)| {
            metadata.len() == size
                && digest(&there, 0, size).is_ok_and(|d| digest(file, 0, size).is_ok_and(|own| d == own))
        })
    }
}

impl Store for Folder {
    fn uri(&self) -> String {
        self.root.display().to_string()
    }

    fn place(&self, key: &str) -> String {
        self.path(key).display().to_string()
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn read(&self, key: &str, max: usize) -> Result<(Vec<u8>, Meta)> {
        let (file, metadata) = self.open("read", key)?;
        if metadata.len() > max as u64 {
            let message = format!("{} bytes, expected at most {max}", metadata.len());
            return Err(StoreError::new("read", self.place(key), Cause::Malformed, message));
        }
        let meta = self.meta("read", key, &file, &metadata)?;
        let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0).map_err(StoreError::io("read", self.place(key)))?;
        Ok((bytes, meta))
    }

    fn head(&self, key: &str) -> Result<Meta> {
        let (file, metadata) = self.open("read", key)?;
        self.meta("read", key, &file, &metadata)
    }

    fn fetch(&self, key: &str, range: Range<u64>, take: &mut Take<'_>) -> Result<u64> {
        let (file, metadata) = self.open("read", key)?;
        let failed = || StoreError::io("read", self.place(key));
        let end = range.end.min(metadata.len());
        let mut at = range.start;
        let mut buffer = vec![0; STEP.min(usize::try_from(end.saturating_sub(at)).unwrap_or(STEP))];
        while at < end {
            let n = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let Some(space) = buffer.get_mut(..n) else { break };
            file.read_exact_at(space, at).map_err(failed())?;
            take(space).map_err(failed())?;
            at += n as u64;
        }
        Ok(metadata.len())
    }

    fn write(&self, key: &str, bytes: &[u8], condition: Condition<'_>, _: Option<&str>) -> Result<String> {
        let path = self.make_parent(key)?;
        let failed = || StoreError::io("write", self.place(key));
        let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(path.parent().unwrap_or(&self.root));
        let new = new.as_mut().map_err(|e| failed()(std::io::Error::new(e.kind(), e.to_string())))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        new.as_file().set_permissions(mode).map_err(failed())?;
        new.write_all(bytes).and_then(|()| new.as_file().sync_all()).map_err(failed())?;
        match condition {
            Condition::Absent => {
                linkat(CWD, new.path(), CWD, &path, AtFlags::empty()).map_err(|e| failed()(e.into()))?;
            }
            Condition::Is(etag) => {
                let _lock = self.lock()?;
                if self.head(key).map_or(true, |m| m.etag != etag) {
                    let message = "it was changed meanwhile";
                    return Err(StoreError::new("write", self.place(key), Cause::Precondition, message));
                }
                fs::rename(new.path(), &path).map_err(failed())?;
            }
        }
        sync_parent(&path).map_err(failed())?;
        Ok(blake3::hash(bytes).to_hex().to_string())
    }

    fn remove(&self, key: &str) -> Result<()> {
        // Not between another's look at the object and its new bytes, which would bring it back.
        let _lock = if self.path(key).symlink_metadata().is_ok() { Some(self.lock()?) } else { None };
        match fs::remove_file(self.path(key)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", self.place(key))(e)),
            _ => Ok(()),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Item)) -> Result<()> {
        let folder = self.path(prefix);
        let failed = || StoreError::io("list", folder.display().to_string());
        let items = match fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !prefix.is_empty() => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::new("list", self.uri(), Cause::NoSuchBucket, "no such folder"));
            }
            items => items.map_err(failed())?,
        };
        for item in items {
            let item = item.map_err(failed())?;
            let Ok(name) = item.file_name().into_string() else { continue };
            let Ok(metadata) = item.metadata() else { continue };
            if name.starts_with('.') {
                continue;
            }
            if metadata.is_dir() {
                each(Item::Folder(name));
            } else if metadata.is_file() {
                each(Item::Object { name, size: metadata.len(), modified: modified(&metadata) });
            }
        }
        Ok(())
    }

    fn begin(&self, key: &str) -> Result<Upload> {
        let upload = Upload { key: key.into(), id: format!("{:016x}", fastrand::u64(..)), started: Some(now()) };
        self.make_parent(key)?;
        let path = self.data(&upload);
        File::create_new(&path).map_err(StoreError::io("begin upload", path.display().to_string()))?;
        Ok(upload)
    }

    fn send(&self, upload: &Upload, number: u32, offset: u64, body: &Body<'_>) -> Result<Part> {
        let file = self.opened_data("send part", upload)?;
        let failed = || StoreError::io("send part", self.place(&upload.key));
        let (mut at, mut hasher) = (offset, blake3::Hasher::new());
        body.each(&mut |piece| {
            file.write_all_at(&piece, at).map_err(failed())?;
            hasher.update(&piece);
            at += piece.len() as u64;
            Ok(())
        })?;
        let etag = hasher.finalize().to_hex().to_string();
        let path = journal(&self.data(upload));
        let mut journal = File::options().create(true).append(true).open(&path).map_err(failed())?;
        journal.write_all(format!("{number} {offset} {} {etag}\n", body.len()).as_bytes()).map_err(failed())?;
        Ok(Part { number, size: body.len(), etag, crc: body.crc() })
    }

    /// What the journal says and the file still has: after a power cut they may differ.
    fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let file = self.opened_data("list parts", upload)?;
        let Ok(journal) = File::open(journal(&self.data(upload))) else { return Ok(Vec::new()) };
        let mut parts = std::collections::BTreeMap::new();
        for line in BufReader::new(journal).lines() {
            let line = line.map_err(StoreError::io("list parts", self.place(&upload.key)))?;
            let mut words = line.split(' ');
            let mut number = || words.next().and_then(|w| w.parse::<u64>().ok());
            let (Some(n), Some(offset), Some(size)) = (number(), number(), number()) else { continue };
            let (Some(etag), Ok(n)) = (words.next(), u32::try_from(n)) else { continue };
            if digest(&file, offset, size).is_ok_and(|d| d == etag) {
                parts.insert(n, Part { number: n, size, etag: etag.into(), crc: 0 });
            }
        }
        Ok(parts.into_values().collect())
    }

    fn complete(&self, upload: &Upload, _: &[Part], whole: Whole) -> Result<()> {
        let file = self.opened_data("complete", upload)?;
        let failed = || StoreError::io("complete", self.place(&upload.key));
        if file.metadata().map_err(failed())?.len() != whole.size {
            let message = "the parts are not the whole";
            return Err(StoreError::new("complete", self.place(&upload.key), Cause::BadDigest, message));
        }
        file.sync_all().map_err(failed())?;
        let data = self.data(upload);
        match self.publish("complete", &upload.key, &data) {
            // Of an earlier push, of which no record is left.
            Err(e) if e.cause == Cause::Precondition && self.is_there(&upload.key, &file, whole.size) => {
                self.abort(upload)
            }
            published => {
                published?;
                let _ = fs::remove_file(journal(&data));
                Ok(())
            }
        }
    }

    fn abort(&self, upload: &Upload) -> Result<()> {
        let data = self.data(upload);
        for path in [journal(&data), data] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("abort", path.display().to_string())(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn uploads(&self, prefix: &str) -> Result<Vec<Upload>> {
        let mut uploads = Vec::new();
        let Ok(items) = fs::read_dir(self.path(prefix)) else { return Ok(uploads) };
        for item in items.flatten() {
            let Ok(name) = item.file_name().into_string() else { continue };
            let named = name.strip_prefix('.').and_then(|n| n.strip_suffix(DATA)).and_then(|n| n.rsplit_once('.'));
            if let Some((object, id)) = named {
                let started = item.metadata().ok().as_ref().and_then(modified);
                uploads.push(Upload { key: format!("{prefix}{object}"), id: id.into(), started });
            }
        }
        Ok(uploads)
    }

    fn put(&self, key: &str, body: Bytes) -> Result<()> {
        match self.write(key, &body, Condition::Absent, None) {
            Err(e) if e.cause == Cause::Precondition && fs::read(self.path(key)).is_ok_and(|there| there == body) => {
                Ok(())
            }
            written => written.map(|_| ()),
        }
    }
}

fn journal(data: &Path) -> PathBuf {
    let mut name = data.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(JOURNAL);
    data.with_file_name(name)
}

fn digest(file: &File, mut offset: u64, size: u64) -> std::io::Result<String> {
    let (mut hasher, mut buffer, end) = (blake3::Hasher::new(), vec![0; STEP], offset.saturating_add(size));
    while offset < end {
        let n = usize::try_from(end - offset).unwrap_or(STEP).min(STEP);
        let Some(space) = buffer.get_mut(..n) else { break };
        file.read_exact_at(space, offset)?;
        hasher.update(space);
        offset += n as u64;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn modified(metadata: &fs::Metadata) -> Option<u64> {
    Some(metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
