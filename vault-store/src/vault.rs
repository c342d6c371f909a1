//! A vault: models by name, their versions, payloads and tags, over any store. Publishing is one conditional write of
//! the header; what is there is never overwritten. FORMAT.md section 11.
//!
//! Headers and tags that come back are untrusted: well-formed, and no more.

use crate::error::{Cause, Result, StoreError};
use crate::layout::{MAX_HEADER_OBJECT, MAX_JOB_OBJECT, MAX_TAG_OBJECT, Name, TagName, Target, payload_id, version};
use crate::store::{Condition, Item, Meta, Store, Upload};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use vault_core::header::Header;

/// Small requests at once.
const AT_ONCE: usize = 16;

/// A vault in a store.
#[derive(Clone, Copy)]
pub struct Vault<'a> {
    store: &'a dyn Store,
}

/// Which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The highest.
    Latest,
    /// This one.
    Version(u64),
    /// The one that a tag points at.
    Tag(TagName),
}

/// A published header.
pub struct Published {
    /// The version.
    pub version: u64,
    /// The header; unverified.
    pub header: Header,
    /// The header object.
    pub meta: Meta,
}

/// How publishing ended.
pub enum Outcome {
    /// The version is ours.
    Published,
    /// It was someone else's already.
    Taken(Box<Published>),
}

/// A job of a CI, which publishes once however often it runs `[F-49]`.
pub struct Job<'a> {
    /// Its name in the vault.
    pub mark: [u8; 32],
    /// The proof, of a version and an artifact's salt, that it was this job.
    pub proof: &'a (dyn Fn(u64, &[u8; 32]) -> [u8; 32] + Sync),
}

/// A payload object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The artifact it belongs to.
    pub id: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970 by the store's clock.
    pub modified: Option<u64>,
}

/// Something that no version needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Garbage {
    /// An upload that was not completed.
    Upload(Upload),
    /// A payload that no header names.
    Payload {
        /// The model's name.
        name: String,
        /// The object.
        payload: Payload,
    },
}

impl<'a> Vault<'a> {
    /// The vault in `store`.
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store }
    }

    /// Its store.
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// Names of models, ascending.
    pub fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        self.store.list("", &mut |item| {
            if let Item::Folder(name) = item {
                names.extend(Name::new(&name));
            }
        })?;
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(names)
    }

    /// Versions of a model, ascending, with the time each header was written.
    pub fn versions(&self, name: &Name) -> Result<BTreeMap<u64, Option<u64>>> {
        let mut versions = BTreeMap::new();
        self.store.list(&name.folder(), &mut |item| {
            if let Item::Object { name, modified, .. } = item
                && let Some(version) = version(&name)
            {
                versions.insert(version, modified);
            }
        })?;
        Ok(versions)
    }

    /// Payloads of a model.
    pub fn payloads(&self, name: &Name) -> Result<Vec<Payload>> {
        let mut payloads = Vec::new();
        self.store.list(&name.payloads(), &mut |item| {
            if let Item::Object { name, size, modified } = item
                && let Some(id) = payload_id(&name)
            {
                payloads.push(Payload { id, size, modified });
            }
        })?;
        Ok(payloads)
    }

    /// Tags of a model, and what they point at; `None` for one that is damaged.
    pub fn tags(&self, name: &Name) -> Result<Vec<(TagName, Option<Target>)>> {
        let mut names = Vec::new();
        self.store.list(&name.tags(), &mut |item| {
            if let Item::Object { name, .. } = item {
                names.extend(TagName::new(&name));
            }
        })?;
        names.sort();
        in_parallel(names, |tag| {
            let read = self.store.read(&name.tag(tag), MAX_TAG_OBJECT);
            match read {
                Ok((bytes, _)) => Ok(Target::parse(&bytes)),
                Err(e) if matches!(e.cause, Cause::NotFound | Cause::Malformed) => Ok(None),
                Err(e) => Err(e),
            }
        })
    }

    /// The header of a version.
    pub fn header(&self, name: &Name, version: u64) -> Result<Published> {
        let key = name.header(version);
        let (bytes, meta) = self.store.read(&key, MAX_HEADER_OBJECT)?;
        let header = Header::parse(&bytes).map_err(|e| self.malformed(&key, &e.to_string()))?;
        if header.bytes().len() != bytes.len() {
            return Err(self.malformed(&key, "bytes follow the header"));
        }
        Ok(Published { version, header, meta })
    }

    /// Headers of several versions at once; an error of one is no error of all.
    pub fn headers(&self, name: &Name, versions: Vec<u64>) -> Vec<(u64, Result<Published>)> {
        let read = in_parallel(versions, |version| Ok(self.header(name, *version)));
        read.unwrap_or_default()
    }

    fn malformed(&self, key: &str, why: &str) -> StoreError {
        StoreError::new("read", self.store.place(key), Cause::Malformed, why)
    }

    /// What a tag points at `[F-43]`, and the ETag of the tag.
    pub fn target(&self, name: &Name, tag: &TagName) -> Result<(Target, String)> {
        let key = name.tag(tag);
        let (bytes, meta) = self.store.read(&key, MAX_TAG_OBJECT)?;
        let target = Target::parse(&bytes).ok_or_else(|| self.malformed(&key, "not a tag [F-43]"))?;
        Ok((target, meta.etag))
    }

    /// Finds a version and reads its header.
    pub fn find(&self, name: &Name, selector: &Selector) -> Result<Published> {
        let nothing = |what: String| StoreError::new("find", self.store.place(&name.folder()), Cause::NotFound, what);
        match selector {
            Selector::Version(version) => self.header(name, *version),
            Selector::Latest => {
                let versions = self.versions(name)?;
                let latest = versions.last_key_value().map(|(v, _)| *v);
                self.header(name, latest.ok_or_else(|| nothing("no version of it here".into()))?)
            }
            Selector::Tag(tag) => {
                let (target, _) = self.target(name, tag)?;
                let found = self.header(name, target.version)?;
                if found.header.prelude().salt != target.id {
                    let what =
                        format!("version {} is not the one that @{} was set to [F-43]", target.version, tag.as_str());
                    return Err(self.malformed(&name.tag(tag), &what));
                }
                Ok(found)
            }
        }
    }

    /// Publishes a version, if there is none.
    pub fn publish(&self, name: &Name, version: u64, header: &Header, publisher: Option<&str>) -> Result<Outcome> {
        let written = self.store.write(&name.header(version), header.bytes(), Condition::Absent, publisher);
        match written {
            Ok(_) => Ok(Outcome::Published),
            // An earlier try may have arrived and only its answer been lost.
            Err(e) if e.cause == Cause::Precondition || e.is_transient() => match self.header(name, version) {
                Ok(there) if there.header.bytes() == header.bytes() => Ok(Outcome::Published),
                Ok(there) => Ok(Outcome::Taken(Box::new(there))),
                Err(_) => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    /// Gives a version another header for the same payload, if it still has the one that was read.
    pub fn replace_header(&self, name: &Name, old: &Published, new: &Header) -> Result<()> {
        let key = name.header(old.version);
        if old.header.prelude().salt != new.prelude().salt {
            return Err(self.malformed(&key, "the new header is of another artifact"));
        }
        let condition = Condition::Is(&old.meta.etag);
        match self.store.write(&key, new.bytes(), condition, old.meta.publisher.as_deref()) {
            Err(e) if e.cause == Cause::Precondition => match self.header(name, old.version) {
                Ok(there) if there.header.bytes() == new.bytes() => Ok(()),
                _ => Err(e),
            },
            done => done.map(|_| ()),
        }
    }

    /// Points a tag at a version, and says where it pointed before. If someone else moves it meanwhile, the later one
    /// starts again from what is there.
    pub fn set_tag(&self, name: &Name, tag: &TagName, target: &Target) -> Result<Option<Target>> {
        let key = name.tag(tag);
        let mut tries = 0;
        loop {
            let before = match self.store.read(&key, MAX_TAG_OBJECT) {
                Ok(read) => Some(read),
                Err(e) if e.cause == Cause::NotFound => None,
                Err(e) => return Err(e),
            };
            let condition = before.as_ref().map_or(Condition::Absent, |(_, meta)| Condition::Is(&meta.etag));
            match self.store.write(&key, target.encode().as_bytes(), condition, None) {
                Err(e) if e.cause == Cause::Precondition && tries < 8 => tries += 1,
                Err(e) => return Err(e),
                Ok(_) => return Ok(before.and_then(|(bytes, _)| Target::parse(&bytes))),
            }
        }
    }

    /// What a job published, if its object says so with the right proof and the version is there `[F-49]`.
    pub fn published_by(&self, name: &Name, job: &Job<'_>) -> Result<Option<Published>> {
        let Some((bytes, _)) = self.job_object(name, job)? else { return Ok(None) };
        let Some((target, proof)) = Target::parse_job(&bytes) else { return Ok(None) };
        // Compared in constant time.
        if blake3::Hash::from((job.proof)(target.version, &target.id)) != blake3::Hash::from(proof) {
            return Ok(None);
        }
        let there = match self.header(name, target.version) {
            Ok(there) if there.header.prelude().salt == target.id => there,
            Ok(_) => return Ok(None),
            Err(e) if e.cause == Cause::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match self.store.head(&name.payload(&target.id)) {
            Ok(_) => Ok(Some(there)),
            Err(e) if e.cause == Cause::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes down what a job is about to publish `[F-49]`.
    pub fn set_job(&self, name: &Name, job: &Job<'_>, target: &Target) -> Result<()> {
        let text = target.encode_job(&(job.proof)(target.version, &target.id));
        let mut tries = 0;
        loop {
            let before = self.job_object(name, job)?;
            let condition = before.as_ref().map_or(Condition::Absent, |(_, etag)| Condition::Is(etag));
            match self.store.write(&name.job(&job.mark), text.as_bytes(), condition, None) {
                Err(e) if e.cause == Cause::Precondition && tries < 8 => tries += 1,
                done => return done.map(drop),
            }
        }
    }

    /// The bytes of a job's object, and its ETag.
    fn job_object(&self, name: &Name, job: &Job<'_>) -> Result<Option<(Vec<u8>, String)>> {
        match self.store.read(&name.job(&job.mark), MAX_JOB_OBJECT) {
            Ok((bytes, meta)) => Ok(Some((bytes, meta.etag))),
            Err(e) if matches!(e.cause, Cause::NotFound | Cause::NoSuchBucket) && !self.store.is_remote() => Ok(None),
            Err(e) if e.cause == Cause::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes a tag.
    pub fn remove_tag(&self, name: &Name, tag: &TagName) -> Result<()> {
        self.store.head(&name.tag(tag))?;
        self.store.remove(&name.tag(tag))
    }

    /// Removes a version: its header, then its payload.
    pub fn remove(&self, name: &Name, published: &Published) -> Result<()> {
        self.store.remove(&name.header(published.version))?;
        let salt = &published.header.prelude().salt;
        let others = self.named_payloads(name)?;
        if others.is_some_and(|ids| ids.contains(salt)) { Ok(()) } else { self.store.remove(&name.payload(salt)) }
    }

    /// Ids of the payloads that headers name; `None` if a header cannot be read, and then nothing may be removed.
    fn named_payloads(&self, name: &Name) -> Result<Option<Vec<[u8; 32]>>> {
        let versions = self.versions(name)?.into_keys().collect();
        let headers = self.headers(name, versions);
        Ok(headers.into_iter().map(|(_, h)| h.ok().map(|h| h.header.prelude().salt)).collect())
    }

    /// What no version needs and is older than `before` (seconds since 1970 by the store's clock). Payloads are listed
    /// before headers, so that what is published meanwhile is seen as needed.
    pub fn garbage(&self, before: u64) -> Result<Vec<Garbage>> {
        let old = |time: Option<u64>| time.is_some_and(|t| t < before);
        let mut garbage = Vec::new();
        let mut models = self.names()?;
        // A first push that was given up has left an upload and no object.
        for upload in self.store.uploads("")? {
            let name = upload.key.split_once("/payloads/").and_then(|(name, _)| Name::new(name).ok());
            models.extend(name.filter(|n| !models.contains(n)));
        }
        for model in models {
            let payloads = self.payloads(&model)?;
            let uploads = self.store.uploads(&model.payloads())?;
            let Some(wanted_ids) = self.named_payloads(&model)? else { continue };
            for payload in payloads {
                let key = model.payload(&payload.id);
                let wanted = wanted_ids.contains(&payload.id) || uploads.iter().any(|u| u.key == key);
                if !wanted && old(payload.modified) {
                    garbage.push(Garbage::Payload { name: model.as_str().into(), payload });
                }
            }
            garbage.extend(uploads.into_iter().filter(|u| old(u.started)).map(Garbage::Upload));
        }
        Ok(garbage)
    }

    /// Removes it, unless a header names it by now.
    pub fn collect(&self, garbage: &Garbage) -> Result<bool> {
        match garbage {
            Garbage::Upload(upload) => self.store.abort(upload).map(|()| true),
            Garbage::Payload { name, payload } => {
                let name = Name::new(name)?;
                if self.named_payloads(&name)?.is_none_or(|ids| ids.contains(&payload.id)) {
                    return Ok(false);
                }
                self.store.remove(&name.payload(&payload.id)).map(|()| true)
            }
        }
    }
}

/// `f` of each item, several at a time, in order.
fn in_parallel<T: Send + Sync, R: Send>(items: Vec<T>, f: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<(T, R)>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = f(item);
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    items.into_iter().zip(results).map(|(item, (_, result))| Ok((item, result?))).collect()
}
