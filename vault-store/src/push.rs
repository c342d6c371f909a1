//! Publishing: a payload sent while it is sealed, or from a sealed file; then, in one conditional write, its header.
//! An interrupted push goes on under its record; one that lost to another publisher says to whom, and takes its
//! payload back. FORMAT.md sections 11 and 12.

use crate::error::{Cause, Result, StoreError, time_text};
use crate::layout::{Name, TagName, Target};
use crate::plan::Plan;
use crate::record::{Record, Subject};
use crate::store::Upload;
use crate::upload::{Failed, Sending, Sent};
use crate::vault::{Job, Outcome, Published, Vault};
use std::path::Path;
use vault_core::CryptoRng;
use vault_core::geometry::Chunking;
use vault_core::header::{AuthenticatedHeader, Header, hex};
use vault_core::io::{Again, ReadAt, WriteAt};
use vault_core::recipient::Recipient;
use vault_core::seal::{SealKey, Sealed};

/// Bytes of a sealed file read at a time, or one chunk.
const STEP: u64 = 1 << 20;

/// What to publish, and how.
pub struct Push<'a> {
    /// Where to.
    pub vault: Vault<'a>,
    /// The model.
    pub name: &'a Name,
    /// Its version; the next one if there is none.
    pub version: Option<u64>,
    /// A tag to point at it.
    pub tag: Option<&'a TagName>,
    /// Who says they publish; shown to others, not authenticated.
    pub publisher: Option<&'a str>,
    /// The job that publishes, if it has one.
    pub job: Option<&'a Job<'a>>,
    /// About how long the payload will be, in bytes.
    pub len: Option<u64>,
    /// About how many bytes a part has; by itself, 16 MiB, or more if the payload is large.
    pub part_size: Option<u64>,
    /// Where records of pushes are kept; without it a killed push begins anew.
    pub records: Option<&'a Path>,
    /// Called with the bytes that were sent or found to be there.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Called with what is worth telling.
    pub note: &'a (dyn Fn(Note) + Sync),
}

/// What is worth telling while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// An interrupted push goes on; this many parts are there.
    GoesOn(usize),
    /// The source is not what it was: the push begins anew under another key.
    BeginsAnew,
}

/// What a model is sealed with in a push.
pub struct Terms<'a> {
    /// Pass it to [`vault_core::seal::dangerous_seal_under`]; what comes out is compared with what was sent before.
    pub key: &'a SealKey,
    /// The version.
    pub version: u64,
    /// The manifest's time.
    pub sealed_at: Option<u64>,
    /// Where the payload goes.
    pub payload: &'a dyn WriteAt,
}

/// A model to be sealed.
pub struct Model<'a> {
    /// Plaintext bytes a chunk.
    pub chunk_size: u32,
    /// The manifest's time.
    pub sealed_at: Option<u64>,
    /// For whom the record of the push is: the publisher's own keys.
    pub own: &'a [&'a dyn Recipient],
    /// Opens the header of a record.
    pub unlock: &'a dyn Fn(&Header) -> Option<AuthenticatedHeader>,
}

/// What was published.
#[derive(Debug)]
pub struct Pushed {
    /// The version.
    pub version: u64,
    /// The header.
    pub header: Header,
    /// How the payload was sent.
    pub sent: Sent,
    /// Where the tag pointed before.
    pub tag_before: Option<Target>,
}

impl Push<'_> {
    /// Seals and publishes a model. `seal` may be called a second time, if the source changed since an interrupted push.
    pub fn model<E: From<StoreError> + From<vault_core::Error>>(
        &self,
        model: &Model<'_>,
        rng: &mut dyn CryptoRng,
        seal: &mut dyn FnMut(&Terms<'_>) -> Result<Sealed, E>,
    ) -> Result<(Pushed, Sealed), E> {
        let mut record = self.find_record(&|s| s.chunk_size == model.chunk_size);
        loop {
            let kept = record.take().and_then(|r| Some(((model.unlock)(&r.subject().header()?)?.seal_key(), r)));
            let (key, subject, going_on) = if let Some((key, record)) = kept {
                (key, record.subject().clone(), Some(record))
            } else {
                let key = SealKey::random(rng);
                let header = key.header_for(model.own, model.chunk_size, rng);
                let version = self.pick_version()?;
                let header = if model.own.is_empty() { None } else { Some(header?) };
                (key, self.subject(version, model.sealed_at, model.chunk_size, header.as_ref())?, None)
            };
            if let Err(e) = self.check_free(subject.version, key.salt()) {
                match going_on {
                    // Meanwhile someone else published the version it would have been: on to the next.
                    Some(record) if e.cause == Cause::Taken && self.version.is_none() => {
                        let upload = record.upload().map(|id| self.upload(&key, id));
                        self.drop_attempt(Some(record), upload.as_ref());
                        continue;
                    }
                    _ => return Err(e.into()),
                }
            }
            self.tell(going_on.as_ref());
            let keep = !model.own.is_empty();
            let outcome = self.send(going_on, &subject, keep, key.salt(), &mut |payload| {
                seal(&Terms { key: &key, version: subject.version, sealed_at: subject.sealed_at, payload })
            });
            match outcome {
                Ok((sealed, sent, record)) => {
                    let pushed = self.publish(subject.version, &sealed.header, sent, record)?;
                    return Ok((pushed, sealed));
                }
                Err(failed) if failed.differs => {
                    self.drop_attempt(failed.record, failed.upload.as_ref());
                    (self.note)(Note::BeginsAnew);
                }
                Err(failed) => {
                    // With a record the next push goes on; what nobody goes on with is taken back.
                    if !failed.sending || failed.record.is_none() {
                        self.drop_attempt(failed.record, failed.upload.as_ref());
                    }
                    return Err(failed.error);
                }
            }
        }
    }

    /// Publishes an artifact as it is: no key is needed.
    pub fn sealed(&self, header: &Header, payload: &dyn ReadAt, offset: u64, len: u64) -> Result<Pushed> {
        let salt = header.prelude().salt;
        let mut record = self.find_record(&|s| s.header().is_some_and(|h| h.prelude().salt == salt));
        loop {
            let going_on = record.take();
            let subject = match &going_on {
                Some(record) => record.subject().clone(),
                None => self.subject(self.pick_version()?, None, header.prelude().chunk_size, Some(header))?,
            };
            self.check_free(subject.version, &salt)?;
            self.tell(going_on.as_ref());
            let chunk = Chunking::new(header.prelude().chunk_size).sealed() as u64;
            let copy = &mut |to: &dyn WriteAt| {
                let from = Shifted { bytes: payload, offset };
                let again = Again {
                    bytes: &from,
                    len: len / chunk * chunk,
                    unit: usize::try_from(chunk).unwrap_or(usize::MAX),
                };
                let mut copied = Ok(());
                to.write_with(&again, &mut || {
                    copied = copy(&from, len, chunk, to);
                    copied.is_ok()
                });
                copied
            };
            match self.send(going_on, &subject, true, &salt, copy) {
                Ok(((), sent, record)) => return self.publish(subject.version, header, sent, record),
                Err(failed) if failed.differs => {
                    self.drop_attempt(failed.record, failed.upload.as_ref());
                    (self.note)(Note::BeginsAnew);
                }
                Err(failed) => {
                    // With a record the next push goes on; what nobody goes on with is taken back.
                    if !failed.sending || failed.record.is_none() {
                        self.drop_attempt(failed.record, failed.upload.as_ref());
                    }
                    return Err(failed.error);
                }
            }
        }
    }

    fn upload(&self, key: &SealKey, id: String) -> Upload {
        Upload { key: self.name.payload(key.salt()), id, started: None }
    }

    fn tell(&self, record: Option<&Record>) {
        if let Some(record) = record {
            (self.note)(Note::GoesOn(record.done()));
        }
    }

    fn subject(
        &self,
        version: u64,
        sealed_at: Option<u64>,
        chunk_size: u32,
        header: Option<&Header>,
    ) -> Result<Subject> {
        let plan = Plan::new(self.len, chunk_size, self.part_size).ok_or_else(|| {
            let message = "larger than 5 TiB, the most that S3 keeps in one object";
            StoreError::new("push", self.vault.store().place(&self.name.folder()), Cause::Other, message)
        })?;
        Ok(Subject::new(
            &self.vault.store().uri(),
            self.name.as_str(),
            version,
            sealed_at,
            chunk_size,
            plan.size(),
            header,
        ))
    }

    /// The record of an interrupted push of this model to this vault.
    fn find_record(&self, fits: &dyn Fn(&Subject) -> bool) -> Option<Record> {
        let uri = self.vault.store().uri();
        Record::find(self.records?, &|s| {
            s.vault == uri
                && s.name == self.name.as_str()
                && self.version.is_none_or(|v| v == s.version)
                && Plan::new(self.len, s.chunk_size, self.part_size).is_some_and(|p| p.size() == s.part_size)
                && fits(s)
        })
    }

    fn pick_version(&self) -> Result<u64> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let versions = self.vault.versions(self.name);
        let versions = match versions {
            // A vault in a folder that is not made yet.
            Err(e) if e.cause == Cause::NoSuchBucket && !self.vault.store().is_remote() => return Ok(1),
            versions => versions?,
        };
        Ok(versions.last_key_value().map_or(1, |(v, _)| v.saturating_add(1)))
    }

    /// Before anything is sent: fails if the version is someone else's.
    fn check_free(&self, version: u64, salt: &[u8; 32]) -> Result<()> {
        match self.vault.header(self.name, version) {
            Ok(there) if there.header.prelude().salt == *salt => Ok(()),
            Ok(there) => Err(self.taken(&there)),
            Err(e) if e.cause == Cause::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn send<T, E: From<StoreError>>(
        &self,
        record: Option<Record>,
        subject: &Subject,
        keep: bool,
        salt: &[u8; 32],
        seal: &mut dyn FnMut(&dyn WriteAt) -> Result<T, E>,
    ) -> Result<(T, Sent, Option<Record>), Box<Failed<E>>> {
        let make_record = || match self.records {
            Some(folder) if keep => Record::create(folder, subject.clone(), salt).map(Some),
            _ => Ok(None),
        };
        let sending = Sending {
            store: self.vault.store(),
            key: &self.name.payload(salt),
            plan: Plan::of_size(subject.part_size, subject.chunk_size),
            record,
            make_record: &make_record,
            progress: self.progress,
        };
        sending.run(seal)
    }

    /// The payload is whole: writes the header, which publishes, and points the tag at it.
    fn publish(&self, version: u64, header: &Header, sent: Sent, record: Option<Record>) -> Result<Pushed> {
        let (store, salt) = (self.vault.store(), &header.prelude().salt);
        if let Some(job) = self.job {
            self.vault.set_job(self.name, job, &Target::of(version, header))?; // first: a job that ends between is known
        }
        match self.vault.publish(self.name, version, header, self.publisher)? {
            Outcome::Published => {}
            Outcome::Taken(there) if there.header.prelude().salt == *salt => {} // ours, of an earlier try
            Outcome::Taken(there) => {
                let _ = store.remove(&self.name.payload(salt)); // or `mvault gc` does
                if let Some(record) = record {
                    record.remove()?;
                }
                return Err(self.taken(&there));
            }
        }
        // A cleaner may have taken a payload that was long on its way.
        if let Err(e) = store.head(&self.name.payload(salt)) {
            if e.cause == Cause::NotFound {
                let _ = store.remove(&self.name.header(version));
            }
            return Err(e);
        }
        if let Some(record) = record {
            record.remove()?;
        }
        let target = Target { version, id: *salt };
        let tag_before = self.tag.map(|tag| self.vault.set_tag(self.name, tag, &target)).transpose()?.flatten();
        Ok(Pushed { version, header: header.clone(), sent, tag_before })
    }

    fn taken(&self, there: &Published) -> StoreError {
        let who = there.meta.publisher.as_deref().unwrap_or("someone");
        let when = there.meta.modified.map(|t| format!(" at {}", time_text(t))).unwrap_or_default();
        let signed = there.header.signature().map(|s| format!(", signed by key {}…", hex(&s.key_id[..8])));
        let message = format!(
            "version {} was published by {who}{when} (artifact {}…{})",
            there.version,
            hex(&there.header.prelude().salt[..8]),
            signed.unwrap_or_default(),
        );
        let place = self.vault.store().place(&self.name.header(there.version));
        StoreError::new("publish", place, Cause::Taken, message)
    }

    /// Nothing of an attempt may go on: its upload and its record go.
    fn drop_attempt(&self, record: Option<Record>, upload: Option<&Upload>) {
        if let Some(upload) = upload {
            let _ = self.vault.store().abort(upload); // or `mvault gc` does
        }
        if let Some(record) = record {
            let _ = record.remove();
        }
    }
}

/// Who publishes, as far as this machine can tell: `user@host`.
pub fn publisher() -> String {
    let user = uzers::get_current_username().map(|u| u.to_string_lossy().into_owned());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{}@{host}", user.unwrap_or_else(|| "someone".into()))
}

/// A payload in a file with a header.
struct Shifted<'a> {
    bytes: &'a dyn ReadAt,
    offset: u64,
}

impl ReadAt for Shifted<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.bytes.read_exact_at(buf, self.offset + offset)
    }
}

/// Copies whole chunks of a payload, as the engine takes them.
fn copy(from: &dyn ReadAt, len: u64, chunk: u64, to: &dyn WriteAt) -> Result<()> {
    let failed = || StoreError::io("read", "the artifact");
    let step = (STEP / chunk).max(1) * chunk;
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < len {
        let n = (len - done).min(step);
        buffer.resize(usize::try_from(n).unwrap_or_default(), 0);
        from.read_exact_at(&mut buffer, done).map_err(failed())?;
        buffer = to.write_owned_at(buffer, done).map_err(|e| match crate::error::in_io(&e) {
            Some(store) => store.clone(),
            None => failed()(e),
        })?;
        done += n;
    }
    Ok(())
}
