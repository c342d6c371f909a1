//! PostgreSQL for several replicas: each locks the head's row while it decides, so decisions have one order.
//!
//! A batch takes a handful of round trips: rows go as arrays. A connection that breaks fails what is under way and is made
//! anew for the next. The server must keep what it has committed: one that runs with `fsync` off is refused.

use super::StateError;
use super::backend::{Added, Backend, Head, QuotaKey, Row, SCHEMA, Used, VERSION, to_i64, to_u64};
use postgres::config::Host;
use postgres::{Client, Config, NoTls};
use std::collections::HashMap;
use std::time::Duration;
use vault_attest::tlog::Hash;
use vault_attest::tlog::tree::empty_root;
use vault_attest::{Refusal, Step};

mod passfile;

/// How long to wait for a connection, and for an answer of a machine that is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// One for all brokers: whoever makes the tables, does it alone.
const SCHEMA_LOCK: i64 = 0x6d76_6175_6c74; // "mvault"
/// No transaction of ours takes that long; a replica that hangs gives the head back.
const SETTINGS: &str = "
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local');
    SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '30s'; SET client_min_messages = 'warning';
";

/// One connection, and how to make another.
pub struct Postgres {
    config: Config,
    client: Option<Client>,
    /// Between BEGIN and its end: a connection that breaks then is not replaced, or half of a batch would be written.
    in_transaction: bool,
}

impl Postgres {
    /// Checks where the connection goes, makes it, and makes the tables if there are none.
    pub fn open(text: &str) -> Result<Self, StateError> {
        let usage = |why: &str| StateError::Usage(format!("[state] postgres: {why}"));
        let mut config: Config = text.parse().map_err(|_| usage("not a connection string (key=value …)"))?;
        if config.get_password().is_some() {
            return Err(usage("holds a password: put it into the file that PGPASSFILE names"));
        }
        if !config.get_hosts().iter().all(local) || !config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback) {
            return Err(usage(
                "a host that is not this machine: connections there would not be encrypted; \
                              use the Unix socket, or a tunnel that ends at 127.0.0.1",
            ));
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path("/var/run/postgresql");
        }
        if let Some(password) = passfile::password(&config)? {
            config.password(&*password);
        }
        if config.get_application_name().is_none() {
            config.application_name("mvault-broker");
        }
        config.connect_timeout(PATIENCE).tcp_user_timeout(PATIENCE);
        let mut postgres = Self { config, client: None, in_transaction: false };
        let made = postgres.make();
        if made.is_err() {
            postgres.rollback();
        }
        made.map(|()| postgres)
    }

    fn make(&mut self) -> Result<(), StateError> {
        self.begin_write()?;
        let client = self.same()?;
        client.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK])?;
        if client.query_one("SELECT to_regclass('mvault_schema') IS NULL", &[])?.try_get(0)? {
            client.batch_execute(&SCHEMA.replace("BYTES", "BYTEA").replace("KEY PRIMARY", "BIGINT PRIMARY"))?;
            client.execute("INSERT INTO mvault_schema VALUES ($1)", &[&VERSION])?;
            client.execute("INSERT INTO head VALUES (1, 0, $1, '')", &[&&empty_root()[..]])?;
        }
        let found: i64 = client.query_one("SELECT MAX(version) FROM mvault_schema", &[])?.try_get(0)?;
        if found > VERSION {
            return Err(StateError::TooNew { found, known: VERSION });
        }
        self.commit()
    }

    /// The connection; a new one if it broke.
    fn client(&mut self) -> Result<&mut Client, StateError> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let mut client = self.config.connect(NoTls)?;
            client.batch_execute(SETTINGS)?;
            let fsync: String = client.query_one("SELECT current_setting('fsync')", &[])?.try_get(0)?;
            if fsync != "on" {
                return Err(StateError::Unavailable("the server runs with fsync off, and would lose decisions".into()));
            }
            self.client = Some(client);
        }
        self.client.as_mut().ok_or_else(|| StateError::Unavailable("no connection".into()))
    }

    /// The connection of the transaction under way.
    fn same(&mut self) -> Result<&mut Client, StateError> {
        let client = self.client.as_mut().filter(|_| self.in_transaction);
        client.ok_or_else(|| StateError::Unavailable("no transaction".into()))
    }

    /// The connection for a single read, in a transaction or not.
    fn reader(&mut self) -> Result<&mut Client, StateError> {
        if self.in_transaction { self.same() } else { self.client() }
    }

    fn begin(&mut self, how: &str) -> Result<(), StateError> {
        self.client()?.batch_execute(how)?;
        self.in_transaction = true;
        Ok(())
    }
}

impl Backend for Postgres {
    fn begin_write(&mut self) -> Result<(), StateError> {
        self.begin("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    }

    fn begin_read(&mut self) -> Result<(), StateError> {
        self.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    }

    fn commit(&mut self) -> Result<(), StateError> {
        self.same()?.batch_execute("COMMIT")?;
        self.in_transaction = false;
        Ok(())
    }

    fn rollback(&mut self) {
        if !std::mem::take(&mut self.in_transaction) {
            return;
        }
        if self.client.as_mut().is_some_and(|client| client.batch_execute("ROLLBACK").is_err()) {
            self.client = None; // the server forgets the transaction with the connection
        }
    }

    fn head(&mut self, lock: bool) -> Result<Head, StateError> {
        let lock = if lock { "FOR UPDATE" } else { "" };
        let sql = format!("SELECT size, root, checkpoint FROM head WHERE one = 1 {lock}");
        let row = self.reader()?.query_one(&sql, &[])?;
        Ok(Head { size: to_u64(row.try_get(0)?), root: hash(row.try_get(1)?)?, checkpoint: row.try_get(2)? })
    }

    fn nodes(&mut self, positions: &[u64]) -> Result<Vec<Hash>, StateError> {
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<i64> = positions.iter().copied().map(to_i64).collect();
        let rows = self.reader()?.query("SELECT position, hash FROM node WHERE position = ANY($1)", &[&wanted])?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            found.insert(row.try_get::<_, i64>(0)?, hash(row.try_get(1)?)?);
        }
        let missing = |at| Refusal::new(Step::L(2), format!("node {at}"), "a hash", "none");
        wanted.iter().map(|at| found.get(at).copied().ok_or_else(|| missing(at).into())).collect()
    }

    fn use_nonces(&mut self, nonces: &[([u8; 32], u64)]) -> Result<Vec<[u8; 32]>, StateError> {
        let (bytes, expires): (Vec<&[u8]>, Vec<i64>) =
            nonces.iter().map(|(nonce, expires)| (&nonce[..], to_i64(*expires))).unzip();
        let sql =
            "INSERT INTO nonce SELECT * FROM unnest($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING RETURNING nonce";
        let rows = self.same()?.query(sql, &[&bytes, &expires])?;
        rows.iter().map(|row| hash(row.try_get(0)?)).collect()
    }

    fn used(&mut self, quotas: &[QuotaKey], after: u64) -> Result<Vec<Used>, StateError> {
        let (scopes, subjects): (Vec<i64>, Vec<&[u8]>) =
            quotas.iter().map(|(scope, subject)| (*scope as i64, &subject[..])).unzip();
        let sql = "SELECT COALESCE(SUM(q.used), 0)::bigint, COALESCE(MIN(q.since), 0)
                   FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS w (scope, subject, nth)
                   LEFT JOIN quota q ON q.scope = w.scope AND q.subject = w.subject AND q.since > $3
                   GROUP BY w.nth ORDER BY w.nth";
        let rows = self.same()?.query(sql, &[&scopes, &subjects, &to_i64(after)])?;
        rows.iter().map(|r| Ok(Used { count: to_u64(r.try_get(0)?), oldest: to_u64(r.try_get(1)?) })).collect()
    }

    fn add(&mut self, added: &Added<'_>) -> Result<(), StateError> {
        let client = self.same()?;
        let (ids, entries): (Vec<&[u8]>, Vec<&[u8]>) = added.entries.iter().map(|(id, e)| (&id[..], &e[..])).unzip();
        let sql = "INSERT INTO entry SELECT $1 + nth - 1, id, entry
                   FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS w (id, entry, nth)";
        client.execute(sql, &[&to_i64(added.first_index), &ids, &entries])?;
        let hashes: Vec<&[u8]> = added.nodes.iter().map(|hash| &hash[..]).collect();
        let sql =
            "INSERT INTO node SELECT $1 + nth - 1, hash FROM unnest($2::bytea[]) WITH ORDINALITY AS w (hash, nth)";
        client.execute(sql, &[&to_i64(added.first_node), &hashes])?;
        if !added.quotas.is_empty() {
            let rows = added.quotas.iter();
            let scopes: Vec<i64> = rows.clone().map(|((scope, _), _, _)| *scope as i64).collect();
            let subjects: Vec<&[u8]> = rows.clone().map(|((_, subject), _, _)| &subject[..]).collect();
            let since: Vec<i64> = rows.clone().map(|(_, since, _)| to_i64(*since)).collect();
            let used: Vec<i64> = rows.map(|(_, _, used)| to_i64(*used)).collect();
            let sql = "INSERT INTO quota SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[])
                       ON CONFLICT (scope, subject, since) DO UPDATE SET used = quota.used + excluded.used";
            client.execute(sql, &[&scopes, &subjects, &since, &used])?;
        }
        let head = added.head;
        let sql = "UPDATE head SET size = $1, root = $2, checkpoint = $3 WHERE one = 1";
        client.execute(sql, &[&to_i64(head.size), &&head.root[..], &head.checkpoint])?;
        Ok(())
    }

    fn entry(&mut self, id: &[u8; 16]) -> Result<Option<Row>, StateError> {
        let found = self.reader()?.query_opt("SELECT idx, id, entry FROM entry WHERE id = $1", &[&&id[..]])?;
        found.map(|found| row(&found)).transpose()
    }

    fn entries(&mut self, from: u64, max: u32) -> Result<Vec<Row>, StateError> {
        let sql = "SELECT idx, id, entry FROM entry WHERE idx >= $1 ORDER BY idx LIMIT $2";
        self.reader()?.query(sql, &[&to_i64(from), &i64::from(max)])?.iter().map(row).collect()
    }

    fn node_page(&mut self, from: u64, max: u32) -> Result<Vec<(u64, Vec<u8>)>, StateError> {
        let sql = "SELECT position, hash FROM node WHERE position >= $1 ORDER BY position LIMIT $2";
        let rows = self.reader()?.query(sql, &[&to_i64(from), &i64::from(max)])?;
        rows.iter().map(|row| Ok((to_u64(row.try_get(0)?), row.try_get(1)?))).collect()
    }

    fn counts(&mut self) -> Result<(u64, u64), StateError> {
        let sql = "SELECT (SELECT COUNT(*) FROM entry), (SELECT COUNT(*) FROM node)";
        let row = self.reader()?.query_one(sql, &[])?;
        Ok((to_u64(row.try_get(0)?), to_u64(row.try_get(1)?)))
    }

    fn repeated_id(&mut self) -> Result<Option<Vec<u8>>, StateError> {
        let sql = "SELECT id FROM entry GROUP BY id HAVING COUNT(*) > 1 LIMIT 1";
        let found = self.reader()?.query_opt(sql, &[])?;
        found.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    fn clean(&mut self, nonces_before: u64, quotas_before: u64) -> Result<(), StateError> {
        let client = self.same()?;
        client.execute("DELETE FROM nonce WHERE expires < $1", &[&to_i64(nonces_before)])?;
        client.execute("DELETE FROM quota WHERE since < $1", &[&to_i64(quotas_before)])?;
        Ok(())
    }
}

impl From<postgres::Error> for StateError {
    fn from(e: postgres::Error) -> Self {
        // The server's words; the connection string is not among them.
        let more = std::error::Error::source(&e).map(|source| format!(": {source}")).unwrap_or_default();
        Self::Unavailable(format!("postgres: {e}{more}"))
    }
}

/// On this machine: a Unix socket, or loopback.
fn local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

fn hash(bytes: &[u8]) -> Result<Hash, StateError> {
    bytes
        .try_into()
        .map_err(|_| Refusal::new(Step::L(2), "a hash", "32 bytes", format!("{} bytes", bytes.len())).into())
}

fn row(row: &postgres::Row) -> Result<Row, StateError> {
    Ok(Row { index: to_u64(row.try_get(0)?), id: row.try_get(1)?, entry: row.try_get(2)? })
}
