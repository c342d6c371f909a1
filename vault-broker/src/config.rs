//! `broker.toml`: where the broker listens, what it keeps, what it allows. docs/OPERATIONS.md explains each line.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Largest configuration read.
const MAX_FILE: u64 = 256 * 1024;

/// A configuration, with paths resolved against its folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The release log's origin, such as `keys.example.com/mvault`; also the name of its key.
    pub origin: String,
    /// Where enclaves ask, over TLS.
    pub listen: SocketAddr,
    /// Metrics and health, in plain HTTP: a loopback address.
    pub admin: SocketAddr,
    /// The sealed keyring.
    #[serde(default = "default_keyring")]
    pub keyring: PathBuf,
    /// The folder of policy files.
    #[serde(default = "default_policies")]
    pub policies: PathBuf,
    /// Certificate and key.
    #[serde(default)]
    pub tls: Tls,
    /// The database.
    #[serde(default)]
    pub state: StateConfig,
    /// What one peer, and all together, may take.
    #[serde(default)]
    pub limits: Limits,
    /// How many releases an hour.
    #[serde(default)]
    pub quotas: Quotas,
    /// What gets no key any more.
    #[serde(default)]
    pub revoked: Revoked,
}

/// Where the certificate is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Which database.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// A SQLite file; the default is `state.db`.
    pub sqlite: Option<PathBuf>,
    /// A PostgreSQL connection string without a password, for several replicas.
    pub postgres: Option<String>,
}

/// Limits on peers. A source is an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one source.
    pub connections_per_source: usize,
    /// Requests a second, all sources together.
    pub requests_per_second: u32,
    /// Requests a second from one source.
    pub requests_per_second_per_source: u32,
    /// Seconds for the TLS handshake, and for the head of a request.
    pub head_timeout_s: u64,
    /// Seconds for a request's body.
    pub body_timeout_s: u64,
    /// Seconds for a decision.
    pub decision_timeout_s: u64,
    /// Seconds that a connection lives at most.
    pub connection_life_s: u64,
    /// Decisions being made at a time.
    pub decisions: usize,
    /// Seconds that what is under way gets when the broker stops.
    pub stop_timeout_s: u64,
}

/// Releases an hour; 0 is no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// For stanzas of one broker key.
    pub per_key: u64,
    /// To images of one PCR0.
    pub per_measurement: u64,
    /// To one source.
    pub per_source: u64,
}

/// What is refused with R-7.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoked {
    /// Artifact ids, 64 hex digits each.
    pub artifacts: Vec<String>,
    /// Broker key ids, 64 hex digits each: everything sealed for that key.
    pub recipients: Vec<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: "tls/cert.pem".into(), key: "tls/key.pem".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_source: 256,
            requests_per_second: 2000,
            requests_per_second_per_source: 100,
            head_timeout_s: 10,
            body_timeout_s: 10,
            decision_timeout_s: 30,
            connection_life_s: 300,
            decisions: 256,
            stop_timeout_s: 20,
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self { per_key: 0, per_measurement: 10_000, per_source: 1000 }
    }
}

fn default_keyring() -> PathBuf {
    "broker.keys".into()
}

fn default_policies() -> PathBuf {
    "policies".into()
}

/// Why a configuration is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It says something that is not allowed.
    #[error("{path}{}: {message}", if *line > 0 { format!(":{line}") } else { String::new() })]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// The line, from 1; 0 if it is about the whole file.
        line: usize,
        /// What, and what it must be.
        message: String,
    },
}

impl Config {
    /// Reads `broker.toml` of a broker's folder.
    pub fn read(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join("broker.toml");
        let text = read_text(&path)?;
        Self::parse(&text, &path).map(|config| config.resolved(folder))
    }

    /// Parses a text that is, or will be, the file `path`; its paths are not resolved.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let wrong = |line, message| ConfigError::Wrong { path: path.to_owned(), line, message };
        let config: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |span| 1 + text.bytes().take(span.start).filter(|&b| b == b'\n').count());
            wrong(line, e.message().to_owned())
        })?;
        config.fault().map_or(Ok(config), |message| Err(wrong(0, message)))
    }

    fn fault(&self) -> Option<String> {
        let limits = &self.limits;
        let counts = [
            ("connections", limits.connections),
            ("connections_per_source", limits.connections_per_source),
            ("decisions", limits.decisions),
            ("requests_per_second", limits.requests_per_second as usize),
            ("requests_per_second_per_source", limits.requests_per_second_per_source as usize),
        ];
        let times = [
            ("head_timeout_s", limits.head_timeout_s),
            ("body_timeout_s", limits.body_timeout_s),
            ("decision_timeout_s", limits.decision_timeout_s),
            ("connection_life_s", limits.connection_life_s),
        ];
        if !self.admin.ip().is_loopback() {
            return Some(format!(
                "admin = {}: metrics and health are plain HTTP, for a loopback address only",
                self.admin
            ));
        }
        if let Some((name, _)) = counts.iter().find(|(_, n)| *n == 0) {
            return Some(format!("limits.{name} = 0: nobody could ask"));
        }
        if let Some((name, s)) = times.iter().find(|(_, s)| !(1..=3600).contains(s)) {
            return Some(format!("limits.{name} = {s}: 1 to 3600 seconds"));
        }
        if self.state.sqlite.is_some() && self.state.postgres.is_some() {
            return Some("state: either sqlite or postgres".into());
        }
        if self.origin.is_empty() || self.origin.chars().any(|c| c.is_whitespace() || c == '+') {
            return Some(format!("origin = {:?}: a name without blanks and plus signs", self.origin));
        }
        let ids = self.revoked.artifacts.iter().chain(&self.revoked.recipients);
        let bad = ids.into_iter().find(|id| vault_attest::policy::parse_id(id).is_none());
        bad.map(|id| format!("revoked: {id:?} is not 64 hex digits"))
    }

    fn resolved(mut self, folder: &Path) -> Self {
        for path in [&mut self.keyring, &mut self.policies, &mut self.tls.certificate, &mut self.tls.key] {
            *path = folder.join(&*path);
        }
        if self.state.postgres.is_none() {
            let sqlite = self.state.sqlite.take().unwrap_or_else(|| "state.db".into());
            self.state.sqlite = Some(folder.join(sqlite));
        }
        self
    }
}

/// A text file of bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let io = |source| ConfigError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io(std::io::Error::other("over 256 KiB")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "origin = \"keys.example/log\"\nlisten = \"127.0.0.1:8443\"\nadmin = \"127.0.0.1:9443\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("broker.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn paths_are_those_of_the_folder() {
        let config = parse(GOOD).unwrap().resolved(Path::new("/b"));
        assert_eq!(config.state.sqlite.as_deref(), Some(Path::new("/b/state.db")));
        assert_eq!(config.tls.key, Path::new("/b/tls/key.pem"));
        assert!(
            parse(&format!("{GOOD}[state]\npostgres = \"host=/run\"\n"))
                .unwrap()
                .resolved(Path::new("/b"))
                .state
                .sqlite
                .is_none()
        );
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, named) in [
            (GOOD.replace("admin = \"127.0.0.1", "admin = \"0.0.0.0"), "loopback"),
            (format!("{GOOD}lissten = 1\n"), "broker.toml:4: unknown field `lissten`"),
            (format!("{GOOD}[limits]\nconnections = 0\n"), "limits.connections = 0"),
            (format!("{GOOD}[limits]\nhead_timeout_s = 0\n"), "limits.head_timeout_s = 0"),
            (format!("{GOOD}[limits]\nrequests_per_second = -1\n"), "broker.toml:5"),
            (format!("{GOOD}[state]\nsqlite = \"a\"\npostgres = \"b\"\n"), "either sqlite or postgres"),
            (format!("{GOOD}[revoked]\nartifacts = [\"12\"]\n"), "\"12\" is not 64 hex digits"),
            (GOOD.replace("keys.example/log", "a b"), "without blanks"),
            (GOOD.replace("127.0.0.1:8443", "8443"), "broker.toml:2"),
            ("x".into(), "broker.toml:1"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
