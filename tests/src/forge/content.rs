//! What an artifact holds, as FORMAT.md sections 6 and 7 lay it out, before and after encoding.

use super::cbor::Cbor;
use sha2::{Digest, Sha256};

/// Models and what is said of them.
#[derive(Debug, Clone)]
pub struct Content {
    pub name: String,
    pub version: u64,
    pub folder: bool,
    pub entries: Vec<(String, Vec<u8>)>,
    /// Each entry has its SHA-256.
    pub sha256: bool,
    /// The one entry's size is null in the table.
    pub piped: bool,
    pub sealed_at: Option<u64>,
    pub extensions: Vec<(String, Vec<u8>)>,
    pub kind: String,
    pub labels: Vec<(String, String)>,
}

impl Content {
    pub fn file(path: &str, data: Vec<u8>) -> Self {
        Self {
            name: "model".into(),
            version: 1,
            folder: false,
            entries: vec![(path.into(), data)],
            sha256: false,
            piped: false,
            sealed_at: None,
            extensions: Vec::new(),
            kind: "other".into(),
            labels: Vec::new(),
        }
    }

    pub fn folder(entries: Vec<(String, Vec<u8>)>) -> Self {
        Self { folder: true, entries, ..Self::file("", Vec::new()) }
    }

    pub fn table(&self) -> Cbor {
        let rows = self.entries.iter().map(|(path, data)| {
            let size = if self.piped { Cbor::Null } else { Cbor::Uint(data.len() as u64) };
            Cbor::Array(vec![Cbor::text(path), size])
        });
        Cbor::record(vec![Some(Cbor::Array(rows.collect())), Some(Cbor::Bool(self.sha256))])
    }

    pub fn manifest(&self) -> Cbor {
        let mut offset = table_block(&self.table().encode()).len() as u64;
        let mut rows = Vec::new();
        for (path, data) in &self.entries {
            let size = data.len() as u64;
            let scan = vec![Cbor::text("other"), Cbor::Uint(3), Cbor::Array(Vec::new()), Cbor::Uint(0)];
            let sha256 = self.sha256.then(|| Cbor::Bytes(Sha256::digest(data).to_vec()));
            rows.push(Cbor::Array(vec![
                Cbor::text(path),
                Cbor::Uint(size),
                Cbor::Uint(offset),
                Cbor::Bytes(blake3::hash(data).as_bytes().to_vec()),
                sha256.unwrap_or(Cbor::Null),
                Cbor::Array(scan),
            ]));
            offset += size.next_multiple_of(4096);
        }
        let extensions = self.extensions.iter().map(|(k, v)| (k.clone(), Cbor::Bytes(v.clone())));
        Cbor::record(vec![
            Some(Cbor::text(&self.name)),
            Some(Cbor::Uint(self.version)),
            Some(Cbor::Uint(u64::from(self.folder))),
            Some(Cbor::Array(rows)),
            Some(Cbor::text("forge 1")),
            self.sealed_at.map(Cbor::Uint),
            Some(Cbor::text_map(extensions)),
        ])
    }

    pub fn about(&self) -> Cbor {
        let labels = self.labels.iter().map(|(k, v)| (k.clone(), Cbor::text(v)));
        Cbor::record(vec![
            Some(Cbor::text(&self.name)),
            Some(Cbor::Uint(self.version)),
            Some(Cbor::text(&self.kind)),
            Some(Cbor::text_map(labels)),
        ])
    }

    pub fn about_padded(&self) -> Vec<u8> {
        about_padded(&self.about().encode())
    }

    pub fn plain(&self) -> Plain {
        Plain {
            table: table_block(&self.table().encode()),
            entries: self.entries.iter().flat_map(|(_, data)| padded(data)).collect(),
            manifest: self.manifest().encode(),
            trailer: None,
        }
    }

    /// All entries' bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|(_, data)| data.iter().copied()).collect()
    }
}

/// The payload plaintext in parts.
#[derive(Debug, Clone)]
pub struct Plain {
    /// The table block, with its padding.
    pub table: Vec<u8>,
    /// The entries, each with its padding.
    pub entries: Vec<u8>,
    pub manifest: Vec<u8>,
    /// `None`: the trailer that the manifest has.
    pub trailer: Option<Vec<u8>>,
}

impl Plain {
    pub fn bytes(&self) -> Vec<u8> {
        let trailer = self.trailer.clone().unwrap_or_else(|| trailer(self.manifest.len() as u64));
        [&self.table[..], &self.entries, &self.manifest, &trailer].concat()
    }
}

pub fn trailer(len: u64) -> Vec<u8> {
    [&b"mvault-m"[..], &len.to_be_bytes()].concat()
}

/// `n || map || zeros`, as an about block holds it.
pub fn about_padded(map: &[u8]) -> Vec<u8> {
    let mut padded = u16::try_from(map.len()).unwrap().to_be_bytes().to_vec();
    padded.extend(map);
    padded.resize(padded.len().next_multiple_of(256), 0);
    padded
}

pub fn table_block(table: &[u8]) -> Vec<u8> {
    padded(&[&u32::try_from(table.len()).unwrap().to_be_bytes()[..], table].concat())
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut padded = data.to_vec();
    padded.resize(data.len().next_multiple_of(4096), 0);
    padded
}
