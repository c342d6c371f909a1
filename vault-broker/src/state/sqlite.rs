//! SQLite in a file: write-ahead log, `synchronous=FULL`, so a committed transaction outlives a power cut.
//!
//! Several processes may open one file on a local disk; they take turns.

use super::StateError;
use super::backend::{Added, Backend, Head, QuotaKey, Row, SCHEMA, Used, VERSION, to_i64, to_u64};
use rusqlite::{Connection, OptionalExtension, Params, params};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use vault_attest::tlog::Hash;
use vault_attest::tlog::tree::empty_root;
use vault_attest::{Refusal, Step};

/// How long to wait for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// One connection.
pub struct Sqlite(Connection);

/// Makes the file, if it is not there, for its owner alone. The write-ahead log takes its mode over.
pub fn make_file(path: &Path) -> Result<(), StateError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map(drop).map_err(|e| StateError::Unavailable(format!("{}: {e}", path.display())))
}

impl Sqlite {
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let at = |e: &dyn std::fmt::Display| StateError::Unavailable(format!("{}: {e}", path.display()));
        let connection = Connection::open(path).map_err(|e| at(&e))?;
        let mut sqlite = Self(connection);
        match sqlite.prepare() {
            Err(StateError::Unavailable(why)) => Err(at(&why)),
            other => other.map(|()| sqlite),
        }
    }

    fn prepare(&mut self) -> Result<(), StateError> {
        self.0.busy_timeout(BUSY)?;
        self.0.set_prepared_statement_cache_capacity(64);
        let mode: String = self.0.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StateError::Unavailable(format!(
                "no write-ahead log there (journal mode {mode}): use a local disk"
            )));
        }
        self.0.execute_batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")?;
        self.begin_write()?;
        let tables = self.make();
        if tables.is_err() {
            self.rollback();
        }
        tables
    }

    fn make(&mut self) -> Result<(), StateError> {
        let there: i64 =
            self.0
                .query_row("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'mvault_schema'", [], |row| row.get(0))?;
        if there == 0 {
            self.0.execute_batch(&SCHEMA.replace("BYTES", "BLOB").replace("KEY PRIMARY", "INTEGER PRIMARY"))?;
            self.run("INSERT INTO mvault_schema VALUES (?1)", [VERSION])?;
            self.run("INSERT INTO head VALUES (1, 0, ?1, '')", [&empty_root()[..]])?;
        }
        let found = self.0.query_row("SELECT MAX(version) FROM mvault_schema", [], |row| row.get(0))?;
        if found > VERSION {
            return Err(StateError::TooNew { found, known: VERSION });
        }
        self.commit()
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize, StateError> {
        Ok(self.0.prepare_cached(sql)?.execute(params)?)
    }
}

impl Backend for Sqlite {
    fn begin_write(&mut self) -> Result<(), StateError> {
        Ok(self.0.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn begin_read(&mut self) -> Result<(), StateError> {
        Ok(self.0.execute_batch("BEGIN")?)
    }

    fn commit(&mut self) -> Result<(), StateError> {
        Ok(self.0.execute_batch("COMMIT")?)
    }

    fn rollback(&mut self) {
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("ROLLBACK"); // a transaction that cannot be rolled back was not committed
        }
    }

    fn head(&mut self, _lock: bool) -> Result<Head, StateError> {
        let mut statement = self.0.prepare_cached("SELECT size, root, checkpoint FROM head WHERE one = 1")?;
        let head = statement
            .query_row([], |row| Ok(Head { size: to_u64(row.get(0)?), root: row.get(1)?, checkpoint: row.get(2)? }));
        Ok(head?)
    }

    fn nodes(&mut self, positions: &[u64]) -> Result<Vec<Hash>, StateError> {
        let mut statement = self.0.prepare_cached("SELECT hash FROM node WHERE position = ?1")?;
        let mut nodes = Vec::with_capacity(positions.len());
        for at in positions {
            let node = statement.query_row([to_i64(*at)], |row| row.get::<_, Hash>(0)).optional()?;
            nodes.push(node.ok_or_else(|| Refusal::new(Step::L(2), format!("node {at}"), "a hash", "none"))?);
        }
        Ok(nodes)
    }

    fn use_nonces(&mut self, nonces: &[([u8; 32], u64)]) -> Result<Vec<[u8; 32]>, StateError> {
        let mut unused = Vec::new();
        for (nonce, expires) in nonces {
            let sql = "INSERT INTO nonce VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            if self.run(sql, params![&nonce[..], to_i64(*expires)])? == 1 {
                unused.push(*nonce);
            }
        }
        Ok(unused)
    }

    fn used(&mut self, quotas: &[QuotaKey], after: u64) -> Result<Vec<Used>, StateError> {
        let sql = "SELECT COALESCE(SUM(used), 0), COALESCE(MIN(since), 0) FROM quota
                   WHERE scope = ?1 AND subject = ?2 AND since > ?3";
        let mut statement = self.0.prepare_cached(sql)?;
        let mut used = Vec::with_capacity(quotas.len());
        for (scope, subject) in quotas {
            let one = statement.query_row(params![*scope as i64, subject, to_i64(after)], |row| {
                Ok(Used { count: to_u64(row.get(0)?), oldest: to_u64(row.get(1)?) })
            });
            used.push(one?);
        }
        Ok(used)
    }

    fn add(&mut self, added: &Added<'_>) -> Result<(), StateError> {
        for (index, (id, entry)) in (added.first_index..).zip(added.entries) {
            self.run("INSERT INTO entry VALUES (?1, ?2, ?3)", params![to_i64(index), &id[..], entry])?;
        }
        for (position, hash) in (added.first_node..).zip(added.nodes) {
            self.run("INSERT INTO node VALUES (?1, ?2)", params![to_i64(position), &hash[..]])?;
        }
        for ((scope, subject), since, used) in added.quotas {
            let sql = "INSERT INTO quota VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (scope, subject, since) DO UPDATE SET used = quota.used + excluded.used";
            self.run(sql, params![*scope as i64, subject, to_i64(*since), to_i64(*used)])?;
        }
        let head = added.head;
        let sql = "UPDATE head SET size = ?1, root = ?2, checkpoint = ?3 WHERE one = 1";
        self.run(sql, params![to_i64(head.size), &head.root[..], head.checkpoint])?;
        Ok(())
    }

    fn entry(&mut self, id: &[u8; 16]) -> Result<Option<Row>, StateError> {
        let mut statement = self.0.prepare_cached("SELECT idx, id, entry FROM entry WHERE id = ?1")?;
        Ok(statement.query_row([&id[..]], row).optional()?)
    }

    fn entries(&mut self, from: u64, max: u32) -> Result<Vec<Row>, StateError> {
        let sql = "SELECT idx, id, entry FROM entry WHERE idx >= ?1 ORDER BY idx LIMIT ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map(params![to_i64(from), max], row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn node_page(&mut self, from: u64, max: u32) -> Result<Vec<(u64, Vec<u8>)>, StateError> {
        let sql = "SELECT position, hash FROM node WHERE position >= ?1 ORDER BY position LIMIT ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map(params![to_i64(from), max], |row| Ok((to_u64(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn counts(&mut self) -> Result<(u64, u64), StateError> {
        let sql = "SELECT (SELECT COUNT(*) FROM entry), (SELECT COUNT(*) FROM node)";
        Ok(self.0.query_row(sql, [], |row| Ok((to_u64(row.get(0)?), to_u64(row.get(1)?))))?)
    }

    fn repeated_id(&mut self) -> Result<Option<Vec<u8>>, StateError> {
        let sql = "SELECT id FROM entry GROUP BY id HAVING COUNT(*) > 1 LIMIT 1";
        Ok(self.0.query_row(sql, [], |row| row.get(0)).optional()?)
    }

    fn clean(&mut self, nonces_before: u64, quotas_before: u64) -> Result<(), StateError> {
        self.run("DELETE FROM nonce WHERE expires < ?1", [to_i64(nonces_before)])?;
        self.run("DELETE FROM quota WHERE since < ?1", [to_i64(quotas_before)])?;
        Ok(())
    }
}

impl From<rusqlite::Error> for StateError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Unavailable(e.to_string())
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row { index: to_u64(row.get(0)?), id: row.get(1)?, entry: row.get(2)? })
}
