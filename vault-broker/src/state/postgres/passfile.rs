//! The password file of PostgreSQL: PGPASSFILE, or ~/.pgpass; lines `host:port:database:user:password`.
//!
//! The only place a password is taken from. Read once, at the start; it must be nobody else's to read.

use super::StateError;
use postgres::Config;
use postgres::config::Host;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use zeroize::Zeroizing;

const MAX_FILE: u64 = 64 << 10;

/// The password of the first line that fits the connection.
pub fn password(config: &Config) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    let named = std::env::var_os("PGPASSFILE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let Some(path) = named.clone().or(home) else { return Ok(None) };
    let usage = |why: String| StateError::Usage(format!("{}: {why}", path.display()));
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(_) if named.is_none() => return Ok(None),
        Err(e) => return Err(usage(e.to_string())),
    };
    let mode = file.metadata().map_err(|e| usage(e.to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(usage("others can read it: chmod 600 it".into()));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_FILE).unwrap_or_default()));
    file.by_ref().take(MAX_FILE).read_to_string(&mut text).map_err(|e| usage(e.to_string()))?;
    let (host, port) = (host(config), config.get_ports().first().copied().unwrap_or(5432).to_string());
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    Ok(find(&text, [&host, &port, database, user]))
}

/// As libpq names it: a socket's folder is `localhost`.
fn host(config: &Config) -> String {
    match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        _ => "localhost".into(),
    }
}

fn find(text: &str, wanted: [&str; 4]) -> Option<Zeroizing<Vec<u8>>> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split(line)?;
        let fits = fields
            .iter()
            .zip(wanted)
            .all(|(field, wanted)| field.as_slice() == b"*" || field.as_slice() == wanted.as_bytes());
        fits.then(|| fields.into_iter().nth(4)).flatten()
    })
}

/// Five fields; a backslash takes a colon's or a backslash's meaning away.
fn split(line: &str) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    let (mut fields, mut escaped) = (vec![Zeroizing::new(Vec::with_capacity(line.len()))], false);
    for byte in line.bytes() {
        let last = fields.len() == 5;
        match byte {
            b'\\' if !escaped => escaped = true,
            b':' if !escaped && !last => fields.push(Zeroizing::new(Vec::with_capacity(line.len()))),
            _ => {
                fields.last_mut()?.push(byte);
                escaped = false;
            }
        }
    }
    (fields.len() == 5).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<Vec<u8>> {
        find(text, ["localhost", "5432", "mvault", "broker"]).map(|password| password.to_vec())
    }

    #[test]
    fn the_first_line_that_fits() {
        let other = "otherhost:5432:mvault:broker:no\n# localhost:5432:mvault:broker:no\nshort\n";
        assert_eq!(found(&format!("{other}*:*:mvault:broker:a\\:b\\\\c:d\n*:*:*:*:late")), Some(b"a:b\\c:d".to_vec()));
        assert_eq!(found(other), None);
        assert_eq!(found(""), None);
    }
}
