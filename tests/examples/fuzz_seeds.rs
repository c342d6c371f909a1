//! What the fuzz targets of the format start from: `cargo run --release -p mvault-tests --example fuzz_seeds DIR` fills
//! DIR/header, DIR/stanza, DIR/manifest and DIR/payload from the vectors, and DIR/kms_recipient.

#![allow(clippy::unwrap_used)] // a tool of the tests: a panic is the report

use mvault_tests::forge::content::Content;
use mvault_tests::forge::kms::Answer;
use mvault_tests::vector::{all, sha256};
use std::fs;
use std::path::PathBuf;
use vault_attest::kms::RecipientKey;

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "fuzz/corpus".into()));
    let write = |target: &str, how: Option<u8>, seed: &[u8]| {
        let bytes: Vec<u8> = how.into_iter().chain(seed.iter().copied()).collect();
        let folder = dir.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(&sha256(&bytes)[..16]), bytes).unwrap();
    };
    for vector in all() {
        let bytes = &vector.artifact;
        let header = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
        write("header", None, header);
        let Some(len) = header.get(20..24) else { continue };
        let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
        if let Some(sections) = header.get(88..88_usize.saturating_add(len)) {
            write("stanza", Some(0), sections);
            write("stanza", Some(3), &sections[sections.len().saturating_sub(200)..]);
            if sections.starts_with(&[0, 3]) {
                write("stanza", Some(5), &sections[4..]);
            }
        }
    }
    let content =
        Content { sealed_at: Some(1), extensions: vec![("k".into(), vec![1])], ..Content::file("m", vec![1; 10]) };
    for content in [&content, &Content { piped: true, ..content.clone() }, &Content { sha256: true, ..content.clone() }]
    {
        let (table, manifest) = (content.table().encode(), content.manifest().encode());
        write("manifest", Some(0), &table);
        write("manifest", Some(1), &manifest);
        write("manifest", Some(2), &[&[u8::try_from(table.len()).unwrap()], &table[..], &manifest].concat());
        write("manifest", Some(3), &content.plain().bytes());
        write("stanza", Some(3), &content.about().encode());
    }
    for op in 0..6 {
        write("payload", Some(1), &[op, 0, 65, 20, 1]);
        write("payload", Some(1), &[op, 1, 1, 200, 17, op, 0, 2, 3, 4]);
    }
    let key = RecipientKey::generate().unwrap();
    for answer in [Answer::aws(key.public_key_der(), &[1; 32]), Answer::localstack(key.public_key_der(), &[1; 32])] {
        write("kms_recipient", None, &answer.encode());
    }
    write("payload", Some(1), &[]);
    write("payload", Some(0), &[0; 4128]);
}
