//! The broker's state: the same cases on SQLite and on a real PostgreSQL (docs/KEY_RELEASE.md sections 5 and 6).

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

#[path = "state/deciding.rs"]
mod deciding;
#[path = "state/killing.rs"]
mod killing;
#[path = "state/tampering.rs"]
mod tampering;

use mvault_tests::postgres::Postgres;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use vault_attest::tlog::{LogEntry, LogSigner};
use vault_broker::state::{Decided, Decision, State, StateError};
use vault_core::secret::Secret;

/// When decisions are made: 2026-11-18T16:00:00Z.
const NOW_S: u64 = 1_795_017_600;
const HOUR: u64 = 3600;

fn signer() -> LogSigner {
    LogSigner::new("keys.example/log", &Secret::take(&mut [7; 32])).unwrap()
}

/// A database that a test has for itself.
enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(&'static Postgres, String),
}

impl Place {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = Postgres::shared()?;
        Some(Self::Postgres(server, format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))))
    }

    /// A fresh one of each kind.
    fn each() -> impl Iterator<Item = Self> {
        std::iter::once(Self::sqlite()).chain(Self::postgres())
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Sqlite(folder) => folder.path().join("state.db"),
            Self::Postgres(..) => panic!("a server has no file"),
        }
    }

    fn try_open(&self) -> Result<State, StateError> {
        match self {
            Self::Sqlite(_) => State::sqlite(&self.path()),
            Self::Postgres(server, name) => State::postgres(&server.database(name)),
        }
    }

    fn open(&self) -> State {
        self.try_open().unwrap()
    }

    /// Behind the broker's back.
    fn sql(&self, sql: &str) {
        match self {
            Self::Sqlite(_) => rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap(),
            Self::Postgres(server, name) => server.sql(name, sql),
        }
    }

    /// A byte string in SQL.
    fn bytes(&self, bytes: &[u8]) -> String {
        let hex = bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
        match self {
            Self::Sqlite(_) => format!("x'{hex}'"),
            Self::Postgres(..) => format!("'\\x{hex}'::bytea"),
        }
    }
}

fn nonce(n: u32) -> [u8; 32] {
    let mut nonce = [0x4E; 32];
    nonce[..4].copy_from_slice(&n.to_be_bytes());
    nonce
}

fn id(n: u32) -> [u8; 16] {
    let mut id = [0x1D; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    id
}

/// A grant, as it comes from the judge: decision `n`, with a nonce.
fn grant(n: u32, with: u32) -> Decision {
    at(NOW_S, n, with)
}

/// The same at a time.
fn at(now_s: u64, n: u32, with: u32) -> Decision {
    let mut entry = LogEntry::new(&id(n), now_s * 1000);
    entry.binding = Some(with.to_string());
    entry.answer = Some("00".repeat(32));
    Decision { entry, nonce: Some((nonce(with), now_s + 120)), quotas: Vec::new() }
}

fn decide(state: &State, decision: Decision) -> Decided {
    state.decide(vec![decision], &signer()).unwrap().remove(0)
}
