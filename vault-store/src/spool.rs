//! What an interrupted pull leaves for the next one: ciphertext only, in a file of the payload's size with holes, and
//! beside it a journal of the blocks that are in it with their digests. Nothing in either is trusted: a block whose
//! digest is not the journal's counts as missing, and vault-core verifies every chunk as if it came from the store.
//!
//! A pull that only passes through begins to keep blocks after a while ([`Spool::passing`]): what is fetched in a few
//! seconds is not worth a second write. `pull --sealed` keeps every block, since the file is what was asked for.

use crate::download::Cut;
use crate::error::{Result, StoreError};
use rustix::fs::{FlockOperation, flock};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A partly filled payload on disk.
pub struct Spool {
    path: PathBuf,
    /// Where the payload starts in the file.
    offset: u64,
    cut: Cut,
    /// Keep blocks from then on.
    from: Instant,
    /// The file is what was asked for: not being able to write it is an error.
    wanted: bool,
    state: Mutex<State>,
}

/// A block that is being kept.
pub struct Keeping {
    block: u64,
    at: u64,
    hasher: blake3::Hasher,
}

#[derive(Default)]
struct State {
    files: Option<(File, File)>,
    blocks: HashMap<u64, blake3::Hash>,
    /// The disk is full, or it cannot be written: the pull goes on without it.
    broken: bool,
}

impl Spool {
    /// For a pull of which nothing has to stay: keeps blocks `after` this time. The payload has the offset `offset` in
    /// the file at `path`; what is there from before is used.
    pub fn passing(path: &Path, offset: u64, cut: Cut, after: Duration) -> Result<Self> {
        let (from, state) = (Instant::now() + after, Mutex::default());
        let spool = Self { path: path.into(), offset, cut, from, wanted: false, state };
        if path.exists() {
            spool.open(&mut spool.lock())?;
        }
        Ok(spool)
    }

    /// For a pull whose result the file is.
    pub fn keeping(path: &Path, offset: u64, cut: Cut) -> Result<Self> {
        let (from, state) = (Instant::now(), Mutex::default());
        let spool = Self { path: path.into(), offset, cut, from, wanted: true, state };
        spool.open(&mut spool.lock())?;
        Ok(spool)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> PathBuf {
        let mut name = self.path.file_name().map(ToOwned::to_owned).unwrap_or_default();
        name.push(".blocks");
        self.path.with_file_name(name)
    }

    /// Opens or makes both files; another pull that has them goes first.
    fn open(&self, state: &mut State) -> Result<()> {
        let place = self.path.display().to_string();
        let failed = || StoreError::io("keep what was downloaded", &place);
        let options = |append: bool| {
            let mut options = OpenOptions::new();
            options.read(true).create(true).truncate(false);
            if append {
                options.append(true)
            } else {
                options.write(true)
            };
            options
        };
        let data = options(false).open(&self.path).map_err(failed())?;
        flock(&data, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            StoreError::new("keep what was downloaded", &place, crate::Cause::Other, "another pull is writing it")
        })?;
        let journal = options(true).open(self.journal()).map_err(failed())?;
        for line in BufReader::new(&journal).lines().map_while(std::io::Result::ok) {
            let Some((block, digest)) = line.split_once(' ') else { continue };
            if let (Ok(block), Ok(digest)) = (block.parse(), blake3::Hash::from_hex(digest)) {
                state.blocks.insert(block, digest);
            }
        }
        state.files = Some((data, journal));
        Ok(())
    }

    /// Whether the journal has a block.
    pub fn has(&self, block: u64) -> bool {
        self.lock().blocks.contains_key(&block)
    }

    /// Reads a block that an earlier pull left; false if there is none, or it is not what the journal says.
    pub fn read(&self, block: u64, buffer: &mut [u8]) -> bool {
        let state = self.lock();
        let (Some(digest), Some((file, _))) = (state.blocks.get(&block), &state.files) else { return false };
        let (digest, Ok(file)) = (*digest, file.try_clone()) else { return false };
        drop(state);
        file.read_exact_at(buffer, self.offset + block * self.cut.block).is_ok() && blake3::hash(buffer) == digest
    }

    /// Keeps a block. Where the file is only for the next try, a full disk ends keeping, not the pull.
    pub fn keep(&self, block: u64, data: &[u8]) -> Result<()> {
        let mut keeping = self.begin(block);
        self.add(&mut keeping, data)?;
        self.end(keeping)
    }

    /// A block that will come bit by bit, front to back, if it shall be kept.
    pub fn begin(&self, block: u64) -> Option<Keeping> {
        let keep = Instant::now() >= self.from && !self.lock().broken;
        keep.then(|| Keeping { block, at: block * self.cut.block, hasher: blake3::Hasher::new() })
    }

    /// The next bytes of a block.
    pub fn add(&self, keeping: &mut Option<Keeping>, data: &[u8]) -> Result<()> {
        let Some(block) = keeping else { return Ok(()) };
        if let Err(e) = self.write(block.at, data) {
            *keeping = None;
            return self.failed(e);
        }
        block.hasher.update(data);
        block.at += data.len() as u64;
        Ok(())
    }

    /// All of a block has come.
    pub fn end(&self, keeping: Option<Keeping>) -> Result<()> {
        let Some(Keeping { block, hasher, .. }) = keeping else { return Ok(()) };
        self.enter(block, hasher.finalize()).or_else(|e| self.failed(e))
    }

    fn failed(&self, e: StoreError) -> Result<()> {
        self.lock().broken = true;
        if self.wanted { Err(e) } else { Ok(()) }
    }

    fn write(&self, at: u64, data: &[u8]) -> Result<()> {
        let failed = || StoreError::io("write", self.path.display().to_string());
        let mut state = self.lock();
        if state.files.is_none() {
            self.open(&mut state)?;
        }
        let Some(file) = state.files.as_ref().map(|(data, _)| data.try_clone()) else { return Ok(()) };
        drop(state);
        file.map_err(failed())?.write_all_at(data, self.offset + at).map_err(failed())
    }

    /// A block is in the file.
    fn enter(&self, block: u64, digest: blake3::Hash) -> Result<()> {
        let failed = || StoreError::io("write", self.path.display().to_string());
        let mut state = self.lock();
        if let Some((_, journal)) = &mut state.files {
            journal.write_all(format!("{block} {}\n", digest.to_hex()).as_bytes()).map_err(failed())?;
        }
        state.blocks.insert(block, digest);
        Ok(())
    }

    /// A block turned out to be wrong.
    pub fn forget(&self, block: u64) {
        self.lock().blocks.remove(&block);
    }

    /// How many blocks are kept.
    pub fn blocks(&self) -> usize {
        self.lock().blocks.len()
    }

    /// Whether every block of a payload of `size` bytes is in the file.
    pub fn is_whole(&self, size: u64) -> bool {
        let state = self.lock();
        !state.broken && (0..size.div_ceil(self.cut.block)).all(|block| state.blocks.contains_key(&block))
    }

    /// Writes the header in front, syncs, and gives the file its name, over another only with `force`.
    pub fn finish(self, header: &[u8], size: u64, target: &Path, force: bool) -> Result<()> {
        let failed = || StoreError::io("write", target.display().to_string());
        if let Some((file, _)) = &self.lock().files {
            file.write_all_at(header, 0).map_err(failed())?;
            file.set_len(self.offset + size).map_err(failed())?;
            file.sync_all().map_err(failed())?;
        }
        if force {
            fs::rename(&self.path, target).map_err(failed())?;
        } else {
            fs::hard_link(&self.path, target).map_err(failed())?;
            fs::remove_file(&self.path).map_err(failed())?;
        }
        let _ = fs::remove_file(self.journal());
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(failed())
    }

    /// The pull is over.
    pub fn remove(self) {
        for path in [self.journal(), self.path.clone()] {
            let _ = fs::remove_file(path);
        }
    }
}
