//! Test vectors: `tests/vectors/*.vec`, one defect each, described in themselves. A text header of `key: value`
//! lines, an empty line, then the artifact, compressed with zlib. tests/vectors/README.md explains the keys.

pub mod broker;
pub mod encoding;
pub mod kms;
pub mod negative;
pub mod positive;
pub mod wrong;

use crate::forge::content::Content;
use crate::forge::{KeyFile, Parts};
use base64ct::{Base64, Encoding};
use flate2::Compression;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// One vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// Pairs in the order of the file.
    pub fields: Vec<(String, String)>,
    pub artifact: Vec<u8>,
}

/// Where vectors are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// The vectors in the folder, in order of their names.
pub fn stored() -> Vec<Vector> {
    let mut paths: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "vec"));
    let mut vectors: Vec<_> = paths.iter().map(|p| Vector::decode(&std::fs::read(p).unwrap())).collect();
    vectors.sort_by(|a, b| a.name().cmp(b.name()));
    vectors
}

/// Vectors that are much like others, or large: the hostile corpus tries them, the folder does without.
const NOT_STORED: [&str; 79] = [
    "about-empty",
    "about-length",
    "about-other-salt",
    "about-version",
    "argon2id-lanes-high",
    "argon2id-memory-
    high",
    "argon2id-memory-max",
    "argon2id-passes-0",
    "argon2id-passes-high",
    "argon2id-short",
    "blake3-short",
    "broker-as-x-wing",
    "broker-tag",
    "blake3-wrong-many-chunks",
    "cbor-     float",
    "cbor-bignum",
    "entry-padding-last",
    "cbor-cut",
    "cbor-extension-twice",
    "cbor-
    indefinite-text",
    "cbor-key-missing",
    "cbor-long-length",
    "cbor-negative",
    "cbor-row-long",
    "cbor-
    sha256-int",
    "cbor-sha256-missing",
    "cbor-undefined",
    "chunk-2",
    "chunk-next-segment",
    "chunk-size-0",
    "chunk-size-odd",
    "commitment-other-chunk-size",
    "cut-17-past-edge",
    "entry-offset-max",
    "extension-key-
    long",
    "extension-long",
    "finding-long",
    "format-long",
    "header-cut-prelude",
    "header-len-0",
    "header-len-
    large",
    "header-len-max",
    "identity-none",
    "kind-long",
    "kms-blob-changed",
    "kms-other-data-key",
    "label-long",
    "mac-stanza-added",
    "magic-cut",
    "manifest-len-max",
    "member-long",
    "name-control",
    "name-empty",
    "name-parent",
    "near-paths",
    "no-entry-
    table",
    "no-section",
    "one-chunk",
    "path-delete",
    "path-dot",
    "path-newline",
    "path-parent-inside",
    "path-
    trailing-slash",
    "paths-equal",
    "piped-empty",
    "piped-manifest-too-long",
    "piped-size-near-max",
    "section-
    head-cut",
    "sections-descend",
    "sections-len-max",
    "signature-flipped",
    "signature-other-chunk-size",
    "signature-other-version",
    "signature-s-zero",
    "stanza-last",
    "stanza-other-type",
    "table-len-max",
    "version-0",
    "xwing-long",
];

/// The vectors as the generator makes them, in order of their names.
pub fn made() -> Vec<Vector> {
    let mut made = all();
    made.retain(|v| !NOT_STORED.contains(&v.name()));
    made
}

/// The vectors of [`made`] and more.
pub fn all() -> Vec<Vector> {
    let mut all = [positive::all(), negative::all(), wrong::all(), encoding::all(), kms::all(), broker::all()].concat();
    all.sort_by(|a, b| a.name().cmp(b.name()));
    all
}

impl Vector {
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn one<'a>(&'a self, key: &'a str) -> &'a str {
        self.all(key).next().unwrap_or_else(|| panic!("{:?}: no {key}", self.fields))
    }

    pub fn name(&self) -> &str {
        self.one("name")
    }

    pub fn opens(&self) -> bool {
        self.one("expect") == "open"
    }

    /// The rules a refusal may name.
    pub fn rules(&self) -> Vec<u8> {
        self.all("rule").flat_map(str::split_whitespace).map(|r| r[2..].parse().unwrap()).collect()
    }

    /// DER keys of the signers that are demanded.
    pub fn signers(&self) -> Vec<Vec<u8>> {
        self.all("signer").map(|s| Base64::decode_vec(s).unwrap()).collect()
    }

    /// Data keys that KMS would have given.
    pub fn data_keys(&self) -> Vec<Vec<u8>> {
        self.hex("data-key")
    }

    /// Seeds of brokers' keys.
    pub fn broker_seeds(&self) -> Vec<Vec<u8>> {
        self.hex("broker-seed")
    }

    fn hex(&self, key: &str) -> Vec<Vec<u8>> {
        let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
        self.all(key).map(|hex| hex.as_bytes().chunks(2).map(byte).collect()).collect()
    }

    pub fn encode(&self) -> Vec<u8> {
        let lines = self.fields.iter().fold(String::new(), |lines, (k, v)| lines + k + ": " + v + "\n");
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&self.artifact).unwrap();
        [lines.as_bytes(), b"\n", &zlib.finish().unwrap()].concat()
    }

    pub fn decode(file: &[u8]) -> Self {
        let end = file.windows(2).position(|w| w == b"\n\n").unwrap();
        let text = std::str::from_utf8(&file[..end]).unwrap();
        let pair = |line: &str| line.split_once(": ").map(|(k, v)| (k.into(), v.into())).unwrap();
        let fields: Vec<(String, String)> = text.lines().map(pair).collect();
        assert_eq!(fields[0], ("mvault-vector".into(), "1".into()), "not a vector of this version");
        let mut artifact = Vec::new();
        flate2::read::ZlibDecoder::new(&file[end + 2..]).read_to_end(&mut artifact).unwrap();
        Self { fields, artifact }
    }
}

/// A vector in the making: who reads it, and what comes of it.
pub struct Case {
    fields: Vec<(String, String)>,
}

impl Case {
    pub fn new(name: &str, about: &str) -> Self {
        let case = Self { fields: Vec::new() };
        case.with("mvault-vector", "1").with("name", name).with("about", about)
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.fields.push((key.into(), value.into()));
        self
    }

    #[must_use]
    pub fn signer(self, der: &[u8]) -> Self {
        self.with("signer", Base64::encode_string(der))
    }

    /// Opens, and gives `content`.
    pub fn opens(self, content: &Content, artifact: Vec<u8>) -> Vector {
        let mut case = self.with("expect", "open").with("model", format!("{} {}", content.version, content.name));
        for (path, data) in &content.entries {
            case = case.with("entry", format!("{} {} {path}", sha256(data), data.len()));
        }
        case.released(&content.bytes(), artifact)
    }

    /// Is refused under one of `rules`, after `released` came out of a stream.
    pub fn refused(self, rules: &str, released: &[u8], artifact: Vec<u8>) -> Vector {
        self.with("expect", "refuse").with("rule", rules).released(released, artifact)
    }

    fn released(self, bytes: &[u8], artifact: Vec<u8>) -> Vector {
        let released = format!("{} {}", bytes.len(), sha256(bytes));
        Vector { fields: self.with("released", released).fields, artifact }
    }
}

/// Lower-case hex of the SHA-256.
pub fn sha256(data: &[u8]) -> String {
    vault_core::header::hex(&Sha256::digest(data))
}

/// The key file most vectors are for.
pub fn reader() -> KeyFile {
    KeyFile::new(1)
}

/// An artifact of an empty file, for defects in front of the content.
pub fn empty(number: u64) -> Parts {
    Parts::new(number, &Content::file("model.bin", Vec::new()), 4096, &[&reader()])
}
