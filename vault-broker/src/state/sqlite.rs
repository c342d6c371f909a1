//! State in one SQLite file: write-ahead log, every commit on disk before it returns. Several processes may have it open.

use super::{Counted, Database, Head, Row, SCHEMA, StateError, Transaction};
use rusqlite::{Connection, OptionalExtension, ToSql, TransactionBehavior, params};
use std::path::Path;
use std::time::Duration;
use vault_attest::tlog::Hash;

const TABLES: &str = "
CREATE TABLE schema (version INTEGER NOT NULL);
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, checkpoint TEXT NOT NULL);
CREATE TABLE entries (idx INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, entry BLOB NOT NULL);
CREATE TABLE nodes (pos INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE nonces (nonce BLOB PRIMARY KEY, expiry INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX nonces_by_expiry ON nonces (expiry);
CREATE TABLE counts (what INTEGER NOT NULL, subject BLOB NOT NULL, hour INTEGER NOT NULL, n INTEGER NOT NULL,
                     PRIMARY KEY (what, subject, hour)) WITHOUT ROWID;
CREATE INDEX counts_by_hour ON counts (hour);
INSERT INTO head VALUES (1, 0, '');
";

/// A SQLite database.
pub struct Sqlite(Connection);

impl From<rusqlite::Error> for StateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl Sqlite {
    /// Opens the file, and makes it (mode 0600) if there is none.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        use std::os::unix::fs::OpenOptionsExt;
        let io = |e: std::io::Error| StateError::Database(format!("{}: {e}", path.display()));
        // SQLite gives its -wal and -shm files the mode of this one.
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        Self::existing(path)
    }

    /// Opens the file, which must be there.
    pub fn existing(path: &Path) -> Result<Self, StateError> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)
            .map_err(|e| StateError::Database(format!("{}: {e}", path.display())))?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        make_tables(&mut connection)?;
        Ok(Self(connection))
    }
}

fn make_tables(connection: &mut Connection) -> Result<(), StateError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let made = transaction.query_row("SELECT 1 FROM sqlite_master WHERE name = 'schema'", [], |_| Ok(())).optional()?;
    if made.is_none() {
        transaction.execute_batch(TABLES)?;
        transaction.execute("INSERT INTO schema VALUES (?1)", [SCHEMA])?;
    }
    let found: i64 = transaction.query_row("SELECT version FROM schema", [], |row| row.get(0))?;
    if found != SCHEMA {
        return Err(StateError::Schema { found });
    }
    transaction.commit()?;
    Ok(())
}

impl Database for Sqlite {
    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StateError> {
        Ok(Box::new(Open(self.0.transaction_with_behavior(TransactionBehavior::Immediate)?)))
    }

    fn begin_read(&mut self) -> Result<Box<dyn Transaction + '_>, StateError> {
        Ok(Box::new(Open(self.0.transaction_with_behavior(TransactionBehavior::Deferred)?)))
    }
}

struct Open<'c>(rusqlite::Transaction<'c>);

impl Open<'_> {
    fn run(&self, sql: &str, parameters: &[&dyn ToSql]) -> Result<usize, StateError> {
        Ok(self.0.prepare_cached(sql)?.execute(parameters)?)
    }
}

/// SQLite's integers are signed; nothing here gets near their end.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> Result<u64, StateError> {
    u64::try_from(n).map_err(|_| StateError::Row("negative number"))
}

fn code(what: Counted) -> i64 {
    match what {
        Counted::Key => 0,
        Counted::Measurement => 1,
        Counted::Source => 2,
    }
}

fn row((index, id, entry): (i64, Vec<u8>, Vec<u8>)) -> Result<Row, StateError> {
    let id = id.try_into().map_err(|_| StateError::Row("decision id"))?;
    Ok(Row { index: unsigned(index)?, id, entry })
}

type Columns = (i64, Vec<u8>, Vec<u8>);

fn columns(row: &rusqlite::Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

impl Transaction for Open<'_> {
    fn head(&mut self) -> Result<Head, StateError> {
        let mut statement = self.0.prepare_cached("SELECT size, checkpoint FROM head WHERE one = 1")?;
        let found: (i64, String) = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Head { size: unsigned(found.0)?, checkpoint: found.1 })
    }

    fn set_head(&mut self, head: &Head) -> Result<(), StateError> {
        let sql = "UPDATE head SET size = ?1, checkpoint = ?2 WHERE one = 1";
        self.run(sql, params![signed(head.size), head.checkpoint]).map(|_| ())
    }

    fn nodes(&mut self, positions: &[u64]) -> Result<Vec<Hash>, StateError> {
        let mut statement = self.0.prepare_cached("SELECT hash FROM nodes WHERE pos = ?1")?;
        let node = |position: &u64| {
            let hash: Vec<u8> =
                statement.query_row([signed(*position)], |row| row.get(0)).optional()?.unwrap_or_default();
            Hash::try_from(hash).map_err(|_| StateError::Row("tree"))
        };
        positions.iter().map(node).collect()
    }

    fn put_nodes(&mut self, first: u64, nodes: &[Hash]) -> Result<(), StateError> {
        for (position, node) in (first..).zip(nodes) {
            self.run("INSERT INTO nodes VALUES (?1, ?2)", params![signed(position), &node[..]])?;
        }
        Ok(())
    }

    fn use_nonce(&mut self, nonce: &[u8; 32], expiry_s: u64) -> Result<bool, StateError> {
        let sql = "INSERT INTO nonces VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        Ok(self.run(sql, params![&nonce[..], signed(expiry_s)])? == 1)
    }

    fn count(&mut self, what: Counted, subject: &[u8], window: u64) -> Result<u64, StateError> {
        let sql = "SELECT n FROM counts WHERE what = ?1 AND subject = ?2 AND hour = ?3";
        let mut statement = self.0.prepare_cached(sql)?;
        let found = statement.query_row(params![code(what), subject, signed(window)], |row| row.get(0)).optional()?;
        unsigned(found.unwrap_or(0))
    }

    fn add_count(&mut self, what: Counted, subject: &[u8], window: u64) -> Result<(), StateError> {
        let sql = "INSERT INTO counts VALUES (?1, ?2, ?3, 1) ON CONFLICT DO UPDATE SET n = n + 1";
        self.run(sql, params![code(what), subject, signed(window)]).map(|_| ())
    }

    fn append(&mut self, row: &Row) -> Result<(), StateError> {
        let sql = "INSERT INTO entries VALUES (?1, ?2, ?3)";
        self.run(sql, params![signed(row.index), &row.id[..], row.entry]).map(|_| ())
    }

    fn find(&mut self, id: &[u8; 16]) -> Result<Option<Row>, StateError> {
        let mut statement = self.0.prepare_cached("SELECT idx, id, entry FROM entries WHERE id = ?1")?;
        statement.query_row([&id[..]], columns).optional()?.map(row).transpose()
    }

    fn rows(&mut self, from: u64, most: usize) -> Result<Vec<Row>, StateError> {
        let sql = "SELECT idx, id, entry FROM entries WHERE idx >= ?1 ORDER BY idx LIMIT ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let found = statement.query_map(params![signed(from), most], columns)?;
        found.map(|columns| row(columns?)).collect()
    }

    fn row_count(&mut self) -> Result<u64, StateError> {
        unsigned(self.0.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?)
    }

    fn forget(&mut self, nonces_before_s: u64, windows_before: u64) -> Result<(), StateError> {
        self.run("DELETE FROM nonces WHERE expiry < ?1", params![signed(nonces_before_s)])?;
        self.run("DELETE FROM counts WHERE hour < ?1", params![signed(windows_before)]).map(|_| ())
    }

    fn commit(self: Box<Self>) -> Result<(), StateError> {
        Ok(self.0.commit()?)
    }
}
