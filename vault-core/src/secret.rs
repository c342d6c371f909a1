//! Memory for keys and passphrases: one locked page each, left out of core dumps, wiped on drop.
//!
//! [`Secret`] has no Debug, Clone, Copy or Serialize. Where the system refuses to lock memory
//! (RLIMIT_MEMLOCK), the secret still works and [`memory_locked`] says so, for the caller to pass on.

use memmap2::{Advice, MmapMut};
use rand_core::CryptoRng;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroize;

static LOCK_FAILED: AtomicBool = AtomicBool::new(false);

/// False once the system has refused to lock a secret's memory in this process.
pub fn memory_locked() -> bool {
    !LOCK_FAILED.load(Ordering::Relaxed)
}

/// `len` secret bytes in anonymous memory of their own.
pub struct Secret {
    memory: MmapMut,
    len: usize,
}

impl Secret {
    /// Zero bytes, to be filled.
    ///
    /// # Panics
    /// If the system has no page of memory left.
    pub fn zeroed(len: usize) -> Self {
        let memory = MmapMut::map_anon(len.max(1)).expect("one page of anonymous memory");
        if memory.lock().is_err() {
            LOCK_FAILED.store(true, Ordering::Relaxed);
        }
        // Not on every system; core dumps are switched off for the process as well.
        let _ = memory.advise(Advice::DontDump);
        Self { memory, len }
    }

    /// Fresh random bytes.
    pub fn random(len: usize, rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Self::zeroed(len);
        rng.fill_bytes(secret.expose_mut());
        secret
    }

    /// Takes the bytes over and wipes the place they came from.
    pub fn take(from: &mut [u8]) -> Self {
        let mut secret = Self::zeroed(from.len());
        secret.expose_mut().copy_from_slice(from);
        from.zeroize();
        secret
    }

    /// The bytes. Call it where they are used, never to keep them.
    pub fn expose(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }

    /// The bytes, to be filled in.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }

    /// Reads text to its end, at most `max` bytes, without leaving copies behind.
    pub fn read_from(input: &mut dyn std::io::Read, max: usize) -> std::io::Result<Self> {
        let mut secret = Self::zeroed(max + 1);
        let mut filled = 0;
        loop {
            let Some(space) = secret.expose_mut().get_mut(filled..).filter(|s| !s.is_empty()) else {
                return Err(std::io::Error::other(format!("more than {max} bytes")));
            };
            match input.read(space) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        secret.len = filled;
        Ok(secret)
    }

    /// Cuts the end of line off, and only that (FORMAT.md 4.1).
    #[must_use]
    pub fn without_newline(mut self) -> Self {
        let text = self.expose();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        self.len = text.strip_suffix(b"\r").unwrap_or(text).len();
        self
    }

    /// True if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.memory.as_mut().zeroize();
    }
}
