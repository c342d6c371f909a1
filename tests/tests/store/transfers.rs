//! Models pushed to a store and pulled from it, and what pushes and pulls in the other cases are made of.

use mvault_tests::artifact::{Files2, identity};
use mvault_tests::{noise, rng};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use vault_core::aead::Engine;
use vault_core::header::AuthenticatedHeader;
use vault_core::io::{Input, ReadAt};
use vault_core::open::{OpenOptions, PartReader, Release, open};
use vault_core::recipient::Recipient;
use vault_core::seal::{SealOptions, Sealed, SourceEntry, dangerous_seal_under};
use vault_core::{Error as CoreError, io};
use vault_store::download::{Cut, Download, front};
use vault_store::layout::Name;
use vault_store::parts::Parts;
use vault_store::push::{Model, Note, Push, Pushed};
use vault_store::vault::{Selector, Vault};
use vault_store::{Cause, Store, StoreError};

/// Why a push failed.
#[derive(Debug)]
pub enum Failure {
    Store(StoreError),
    Core(CoreError),
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl From<CoreError> for Failure {
    fn from(e: CoreError) -> Self {
        match &e {
            CoreError::Io { source, .. } if vault_store::error::in_io(source).is_some() => {
                Self::Store(vault_store::error::in_io(source).unwrap().clone())
            }
            _ => Self::Core(e),
        }
    }
}

impl Failure {
    pub fn cause(&self) -> Cause {
        match self {
            Self::Store(e) => e.cause.clone(),
            Self::Core(e) => panic!("{e}"),
        }
    }
}

type Sealing = Result<Sealed, Failure>;
/// Seals what it gets.
type Seal<'a> = dyn FnMut(Vec<SourceEntry<'_>>) -> Sealing + 'a;

/// A push in a test.
pub struct Case<'a> {
    pub store: &'a dyn Store,
    pub name: &'a str,
    pub version: Option<u64>,
    pub records: Option<&'a Path>,
    pub part_size: Option<u64>,
    pub seed: u64,
}

impl<'a> Case<'a> {
    /// Each has a DEK and a salt of its own.
    pub fn new(store: &'a dyn Store, name: &'a str) -> Self {
        static SEED: AtomicU64 = AtomicU64::new(1);
        Self { store, name, version: None, records: None, part_size: None, seed: SEED.fetch_add(1, Ordering::Relaxed) }
    }

    pub fn push(&self, files: &[(&str, &[u8])]) -> Result<(Pushed, Vec<Note>), Failure> {
        let files: Vec<_> = files.iter().map(|(path, data)| (*path, data as &dyn ReadAt, data.len() as u64)).collect();
        self.push_from(&files)
    }

    /// Each file with its length in bytes.
    pub fn push_from(&self, files: &[(&str, &dyn ReadAt, u64)]) -> Result<(Pushed, Vec<Note>), Failure> {
        self.push_entries(Some(files.iter().map(|(_, _, len)| len).sum()), files.len() > 1, &mut |seal| {
            let entry = |(path, file, len): &(&str, _, _)| {
                let (path, (file, len)) = ((*path).to_owned(), (*file, *len));
                SourceEntry { path, input: Input::At { file, offset: 0, len } }
            };
            seal(files.iter().map(entry).collect())
        })
    }

    pub fn push_piped(&self, path: &str, data: &[u8]) -> Result<(Pushed, Vec<Note>), Failure> {
        self.push_entries(None, false, &mut |seal| {
            let mut pipe = std::io::Cursor::new(data);
            seal(vec![SourceEntry { path: path.into(), input: Input::Stream(&mut pipe) }])
        })
    }

    fn push_entries(
        &self,
        len: Option<u64>,
        folder: bool,
        with_entries: &mut dyn FnMut(&mut Seal<'_>) -> Sealing,
    ) -> Result<(Pushed, Vec<Note>), Failure> {
        let (name, notes) = (Name::new(self.name).unwrap(), Mutex::new(Vec::new()));
        let own = identity(1);
        let push = Push {
            vault: Vault::new(self.store),
            name: &name,
            version: self.version,
            tag: None,
            publisher: Some("a tester"),
            job: None,
            len,
            part_size: self.part_size,
            records: self.records,
            progress: &|_| {},
            note: &|note| notes.lock().unwrap().push(note),
        };
        let model = Model {
            chunk_size: 16 * 1024,
            sealed_at: Some(1_700_000_000),
            own: &[own.recipient()],
            unlock: &|header| header.unlock(&[&own]).ok(),
        };
        let recipients: [&dyn Recipient; 1] = [own.recipient()];
        let (pushed, _) = push.model(&model, &mut rng(self.seed), &mut |terms| {
            let mut options = SealOptions::new(self.name);
            options.model_version = terms.version;
            options.sealed_at = terms.sealed_at;
            options.chunk_size = model.chunk_size;
            options.threads = 2;
            options.folder = folder;
            with_entries(&mut |entries| {
                let (to, rng) = (io::Output::Payload(terms.payload), &mut rng(self.seed ^ 0xFFFF));
                Ok(dangerous_seal_under(terms.key, entries, &recipients, &options, rng, to)?)
            })
        })?;
        Ok((pushed, notes.into_inner().unwrap()))
    }
}

fn unlocked(store: &dyn Store, name: &Name, selector: &Selector) -> (AuthenticatedHeader, String) {
    let found = Vault::new(store).find(name, selector).unwrap();
    let key = name.payload(&found.header.prelude().salt);
    (found.header.unlock(&[&identity(1)]).unwrap(), key)
}

/// All bytes of a model, pulled.
pub fn pulled(store: &dyn Store, name: &str, selector: &Selector) -> Vec<u8> {
    let (header, key) = unlocked(store, &Name::new(name).unwrap(), selector);
    let len = store.head(&key).unwrap().size;
    let mut bytes = Vec::new();
    let options = OpenOptions { threads: 2, ..OpenOptions::default() };
    let cut = Cut::of(header.header().prelude().chunk_size);
    let download = Download::new(store, &key, len, cut, 2, None);
    download
        .run(|file| open(Input::At { file, offset: 0, len }, &header, &options, Release::Stream(&mut bytes)))
        .unwrap();
    bytes
}

/// The same, into files, in whatever order it comes; and how many bytes that took.
fn pulled_into_files(store: &dyn Store, name: &str) -> (Vec<(String, Vec<u8>)>, u64) {
    let (header, key) = unlocked(store, &Name::new(name).unwrap(), &Selector::Latest);
    let cut = Cut::of(header.header().prelude().chunk_size);
    let (first, len) = front(store, &key, cut).unwrap();
    let (options, files) = (OpenOptions { threads: 2, ..OpenOptions::default() }, Files2::default());
    let download = Download::new(store, &key, len, cut, 2, None).in_any_order(first);
    let opened =
        download.run(|file| open(Input::At { file, offset: 0, len }, &header, &options, Release::Files(&files)));
    opened.unwrap();
    assert!(download.counts().0 >= len, "{name}");
    (files.0.into_inner().unwrap(), download.counts().0)
}

pub fn every_size_comes_back(store: &dyn Store) {
    for len in [0, 1, 12_287, 16_384, 5 << 20, (16 << 20) - 16_384, (35 << 20) + 7] {
        let data = noise(len as u64, len);
        let name = format!("m{len}");
        Case::new(store, &name).push(&[("weights.bin", &data)]).unwrap();
        assert!(pulled(store, &name, &Selector::Latest) == data, "{len}");
        let (files, fetched) = pulled_into_files(store, &name);
        assert!(files == [("weights.bin".into(), data)], "{len}");
        assert!(fetched < len as u64 + (1 << 20), "{len}: {fetched} bytes were fetched");
    }
}

/// Too large to be kept until it is sent.
pub const LARGE_PART: u64 = 49 << 20;

/// Parts that are not kept, but sealed again when they are sent: several, one alone, and less than one.
pub fn parts_made_again_come_back(store: &dyn Store) {
    for len in [(120 << 20) + 7, 55 << 20, 20_000] {
        let (data, name) = (noise(len as u64, len), format!("m{len}"));
        let case = Case { part_size: Some(LARGE_PART + (10 << 20)), ..Case::new(store, &name) };
        case.push(&[("weights.bin", &data)]).unwrap();
        assert!(pulled(store, &name, &Selector::Latest) == data, "{len}");
    }
}

pub fn piped_models_come_back(store: &dyn Store) {
    for len in [0, 100_000, (20 << 20) + 1] {
        let data = noise(len as u64, len);
        let name = format!("p{len}");
        Case::new(store, &name).push_piped("weights.bin", &data).unwrap();
        assert!(pulled(store, &name, &Selector::Latest) == data, "{len}");
        assert!(pulled_into_files(store, &name).0 == [("weights.bin".into(), data)], "{len}");
    }
}

pub fn folders_come_back(store: &dyn Store) {
    let (a, b) = (noise(1, 3_000_000), noise(2, 40_000));
    Case::new(store, "bert").push(&[("a/model.bin", &a), ("config.bin", &b), ("empty.bin", b"")]).unwrap();
    assert!(pulled(store, "bert", &Selector::Version(1)) == [a.clone(), b.clone()].concat());
    let expected = [("a/model.bin", a), ("config.bin", b), ("empty.bin", Vec::new())];
    assert!(pulled_into_files(store, "bert").0 == expected.map(|(path, data)| (path.to_owned(), data)));
}

pub fn sealed_files_are_pushed_without_a_key(store: &dyn Store) {
    let data = noise(8, (100 << 20) + 5);
    let made = vault_store::memory::Memory::new();
    Case::new(&made, "m").push(&[("weights.bin", &data)]).unwrap();
    let found = Vault::new(&made).find(&Name::new("m").unwrap(), &Selector::Latest).unwrap();
    let mut payload = Vec::new();
    made.fetch(&Name::new("m").unwrap().payload(&found.header.prelude().salt), 0..u64::MAX, &mut |d| {
        payload.extend_from_slice(d);
        Ok(())
    })
    .unwrap();
    let (name, len) = (Name::new("m").unwrap(), payload.len() as u64);
    let push = Push {
        vault: Vault::new(store),
        name: &name,
        version: Some(1),
        tag: None,
        publisher: None,
        job: None,
        len: Some(len),
        part_size: Some(LARGE_PART),
        records: None,
        progress: &|_| {},
        note: &|_| {},
    };
    push.sealed(&found.header, &payload, 0, len).unwrap();
    assert!(pulled(store, "m", &Selector::Latest) == data);
}

pub fn parts_are_read_alone(store: &dyn Store) {
    let (a, b) = (noise(3, 5_000_000), noise(4, 2_000_000));
    Case::new(store, "m").push(&[("a.bin", &a), ("b.bin", &b)]).unwrap();
    let (header, key) = unlocked(store, &Name::new("m").unwrap(), &Selector::Latest);
    let parts = Parts::open(store, key, header.header().prelude().chunk_size).unwrap();
    let reader = PartReader::new(&parts, 0, parts.size(), &header, Engine::fastest()).unwrap();
    for (path, data) in [("a.bin", &a), ("b.bin", &b)] {
        let place = reader.place(path).unwrap().clone();
        for (from, to) in [(0, 8), (16_383, 16_385), (100_000, 1_900_000), (0, data.len() as u64)] {
            let mut bytes = Vec::new();
            let take = &mut |d: &[u8]| std::io::Write::write_all(&mut bytes, d);
            reader.read(&place, from..to, take).unwrap();
            assert!(bytes == data[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()], "{path} {from}..{to}");
        }
    }
}

/// The scanner stops the push in the middle: nothing may be published.
pub fn failed_seal_publishes_nothing(store: &dyn Store) {
    let evil = b"cposix\nsystem\n(S'true'\ntR.".to_vec();
    let big = noise(5, 20 << 20);
    let failed = Case::new(store, "m").push(&[("a.bin", &big), ("z.pkl", &evil)]).unwrap_err();
    assert!(matches!(failed, Failure::Core(CoreError::Unsafe { .. })), "{failed:?}");
    let vault = Vault::new(store);
    assert!(vault.versions(&Name::new("m").unwrap()).unwrap_or_default().is_empty());
    assert!(store.uploads("m/payloads/").unwrap().is_empty(), "an upload without a record is taken back");
}
