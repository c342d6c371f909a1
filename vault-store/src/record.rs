//! The record of a push, so that a killed one can go on: FORMAT.md section 12. What is about to be sent stands in it
//! first, with its digest; the DEK stands in it only wrapped, as a header. One process at a time holds a record.

use crate::error::{Cause, Result, StoreError};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;
use vault_core::header::{Header, hex};

/// Largest record read: 10,000 parts with two lines each, and a header.
const MAX_RECORD: u64 = 16 * 1024 * 1024;
/// End of a record's file name.
const ENDING: &str = ".push";

/// What a push is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    mvault_push: u8,
    /// The vault's URI.
    pub vault: String,
    /// The model's name.
    pub name: String,
    /// The model's version.
    pub version: u64,
    /// The manifest's time.
    pub sealed_at: Option<u64>,
    /// Plaintext bytes a chunk.
    pub chunk_size: u32,
    /// [`crate::plan::Plan::size`].
    pub part_size: u64,
    /// The header in hex.
    header: String,
}

impl Subject {
    /// Of a new push. Without a header it can be no record.
    pub fn new(
        vault: &str,
        name: &str,
        version: u64,
        sealed_at: Option<u64>,
        chunk_size: u32,
        part_size: u64,
        header: Option<&Header>,
    ) -> Self {
        Self {
            mvault_push: 1,
            vault: vault.into(),
            name: name.into(),
            version,
            sealed_at,
            chunk_size,
            part_size,
            header: header.map(|h| hex(h.bytes())).unwrap_or_default(),
        }
    }

    /// The header that has the DEK.
    pub fn header(&self) -> Option<Header> {
        let digits = self.header.as_bytes();
        let value = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(value(*high)? * 16 + value(*low)?),
                _ => None,
            })
            .collect();
        let bytes = bytes?;
        Header::parse(&bytes)
            .ok()
            .filter(|h| h.bytes().len() == bytes.len() && h.prelude().chunk_size == self.chunk_size)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Subject(Subject),
    Upload { upload: String },
    Sent { sent: u64, len: u64, blake3: String },
    Done { done: u32, etag: String },
}

/// A record that this process holds.
pub struct Record {
    path: PathBuf,
    subject: Subject,
    state: Mutex<State>,
}

struct State {
    file: File,
    upload: Option<String>,
    sent: HashMap<u64, (u64, String)>,
    done: HashMap<u32, String>,
}

impl Record {
    /// Begins a record in `folder`, which is made if need be.
    pub fn create(folder: &Path, subject: Subject, id: &[u8; 32]) -> Result<Self> {
        let path = folder.join(format!("{}{ENDING}", hex(id)));
        let failed = || StoreError::io("write the record of the push", path.display().to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed())?;
        let file = OpenOptions::new().append(true).read(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed())?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| failed()(e.into()))?;
        let state = State { file, upload: None, sent: HashMap::new(), done: HashMap::new() };
        let record = Self { path, subject: subject.clone(), state: Mutex::new(state) };
        record.append(&Line::Subject(subject))?;
        File::open(folder).and_then(|f| f.sync_all()).map_err(StoreError::io("sync", folder.display().to_string()))?;
        Ok(record)
    }

    /// A record in `folder` for which `fits` holds and that no other process uses. What is not a record is passed over.
    pub fn find(folder: &Path, fits: &dyn Fn(&Subject) -> bool) -> Option<Self> {
        paths(folder).into_iter().find_map(|path| Self::open(path, fits))
    }

    /// Records of pushes to `vault` that no process uses, last written before `before`, and when that was, in seconds
    /// since 1970 by this machine's clock.
    pub fn abandoned(folder: &Path, vault: &str, before: u64) -> Vec<(u64, Self)> {
        let written = |path: &Path| {
            let modified = fs::symlink_metadata(path).and_then(|m| m.modified()).ok()?;
            modified.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs())
        };
        let old = paths(folder).into_iter().filter_map(|p| Some((written(&p).filter(|t| *t < before)?, p)));
        old.filter_map(|(time, path)| Some((time, Self::open(path, &|s| s.vault == vault)?))).collect()
    }

    fn open(path: PathBuf, fits: &dyn Fn(&Subject) -> bool) -> Option<Self> {
        let mut file = OpenOptions::new().append(true).read(true).open(&path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        let mut text = String::new();
        (&mut file).take(MAX_RECORD + 1).read_to_string(&mut text).ok()?;
        if text.len() as u64 > MAX_RECORD {
            return None; // a part of a record would forget what was sent [F-45]
        }
        // A line that was being written when the power went has no end.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64).ok()?;
        }
        let mut lines = text.get(..whole)?.lines();
        let Line::Subject(subject) = serde_json::from_str(lines.next()?).ok()? else { return None };
        if subject.mvault_push != 1 || !fits(&subject) || !path.exists() {
            return None;
        }
        let mut state = State { file, upload: None, sent: HashMap::new(), done: HashMap::new() };
        for line in lines {
            match serde_json::from_str(line).ok()? {
                Line::Subject(_) => return None,
                Line::Upload { upload } => {
                    state.upload = Some(upload);
                    state.done.clear();
                }
                Line::Sent { sent, len, blake3 } => {
                    state.sent.insert(sent, (len, blake3));
                }
                Line::Done { done, etag } => {
                    state.done.insert(done, etag);
                }
            }
        }
        Some(Self { path, subject, state: Mutex::new(state) })
    }

    /// What it is of.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The upload that parts belong to.
    pub fn upload(&self) -> Option<String> {
        self.lock().upload.clone()
    }

    /// How many parts the store has confirmed.
    pub fn done(&self) -> usize {
        self.lock().done.len()
    }

    /// Whether the store has confirmed this part under this tag.
    pub fn is_done(&self, number: u32, etag: &str) -> bool {
        self.lock().done.get(&number).is_some_and(|e| e == etag)
    }

    /// Whether the part may be known to the store: something was about to be sent at its place.
    pub fn may_have_sent(&self, offset: u64) -> bool {
        self.lock().sent.contains_key(&offset)
    }

    /// Parts go to this upload from now on.
    pub fn set_upload(&self, id: &str) -> Result<()> {
        self.append(&Line::Upload { upload: id.into() })?;
        let mut state = self.lock();
        state.upload = Some(id.into());
        state.done.clear();
        Ok(())
    }

    /// Before a piece is sent: compares it with what was sent at its place before `[F-45]`, and puts it on stable
    /// storage `[F-44]`. False if it differs; then nothing of it may be sent.
    pub fn about_to_send(&self, offset: u64, len: u64, digest: &str) -> Result<bool> {
        if let Some(before) = self.lock().sent.get(&offset) {
            return Ok(before.0 == len && before.1 == digest);
        }
        // Pieces of one plan do not overlap but at the end, where the object's length may have changed.
        let overlaps = |(at, (n, _)): (&u64, &(u64, String))| *at < offset + len && offset < at + n;
        if self.lock().sent.iter().any(overlaps) {
            return Ok(false);
        }
        self.append(&Line::Sent { sent: offset, len, blake3: digest.into() })?;
        self.lock().sent.insert(offset, (len, digest.into()));
        Ok(true)
    }

    /// The store has the part.
    pub fn confirmed(&self, number: u32, etag: &str) -> Result<()> {
        self.append(&Line::Done { done: number, etag: etag.into() })?;
        self.lock().done.insert(number, etag.into());
        Ok(())
    }

    /// The push is over, or can never go on.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(StoreError::io("remove", self.path.display().to_string()))
    }

    fn append(&self, line: &Line) -> Result<()> {
        let place = self.path.display().to_string();
        let text = serde_json::to_string(line);
        let text = text.map_err(|e| StoreError::new("write the record", &place, Cause::Other, e.to_string()))?;
        let mut state = self.lock();
        let written = state.file.write_all(format!("{text}\n").as_bytes()).and_then(|()| state.file.sync_data());
        written.map_err(StoreError::io("write the record of the push", place))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files of records, sorted.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = items.map(|i| i.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == &ENDING[1..]));
    paths.sort();
    paths
}
