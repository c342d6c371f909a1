//! What comes over a network in any order is opened to the same bytes, and refused for the same reasons, as what is read
//! front to back. The names of the tests are the defects.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

use mvault_tests::arriving::{Coming, Defect, open_coming};
use mvault_tests::artifact::{Files2, identity, open_file, options, rule, seal_files};
use mvault_tests::{noise, rng};
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use vault_core::Error;
use vault_core::header::Header;
use vault_core::io::Input;
use vault_core::open::{OpenOptions, Release, open};
use vault_core::seal::SealOptions;
use vault_core::signature::PublisherKey;

/// A model of several batches, its key, and where its payload starts.
fn sealed(sha256: bool) -> (Vec<u8>, [Vec<u8>; 3]) {
    let files = [noise(1, 900_000), noise(2, 5), noise(3, 400_001)];
    let [a, b, c] = &files;
    let entries: [(&str, &[u8]); 4] = [("a/weights.bin", a), ("b.bin", b), ("c.bin", c), ("empty.bin", b"")];
    let (key, options) = (identity(1), SealOptions { folder: true, sha256, ..options("m") });
    let (artifact, _) = seal_files(&entries, &[key.recipient()], &options, 3).unwrap();
    (artifact, files)
}

fn message(artifact: &[u8], defect: Defect, again: bool) -> String {
    let (result, _) = open_coming(artifact, &[&identity(1)], &[], |c| (c.defect, c.again) = (defect, again));
    result.unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_gives_the_same(seed: u64, threads in 1..5_usize, size in 0..1_500_000_usize, demand: bool, large: bool) {
        let (key, signer) = (identity(1), PublisherKey::generate(&mut rng(7)));
        let data = noise(seed, size);
        let chunk_size = if large { 65_536 } else { 4096 };
        let sealing = SealOptions { sign: Some(&signer), chunk_size, ..options("m") };
        let (artifact, made) = seal_files(&[("m.bin", &data)], &[key.recipient()], &sealing, seed).unwrap();
        let header = Header::parse(&artifact).unwrap().unlock(&[&key]).unwrap();
        let payload = &artifact[header.header().prelude().header_len as usize..];
        let (coming, files) = (Coming::new(payload, seed), Files2::default());
        let signers = if demand { vec![signer.public()] } else { Vec::new() };
        let opening = OpenOptions { signers: &signers, payload_digest: made.payload_digest, threads, ..OpenOptions::default() };
        let input = Input::At { file: &coming, offset: 0, len: payload.len() as u64 };
        open(input, &header, &opening, Release::Files(&files)).unwrap();
        prop_assert!(files.0.into_inner().unwrap() == [("m.bin".to_owned(), data)]);
        prop_assert_eq!(coming.taken.into_inner(), threads);
    }
}

#[test]
fn chunk_flipped() {
    let (artifact, files) = sealed(false);
    let header = Header::parse(&artifact[..]).unwrap().prelude().header_len as usize;
    for place in [0, 8300, 500_000, artifact.len() - header - 1] {
        let mut changed = artifact.clone();
        changed[header + place] ^= 4;
        let (expected, _) = open_file(&changed, &[&identity(1)], &[]);
        assert_eq!(rule(&expected), Some(25));
        let (result, _) = open_coming(&changed, &[&identity(1)], &[], |_| {});
        assert_eq!(result.unwrap_err().to_string(), expected.unwrap_err().to_string(), "{place}");
        if place < 8224 {
            continue; // the table is read before anything comes
        }
        // Only on the way, and nothing else can be had; and where it can, the artifact is as good as ever.
        assert!(message(&artifact, Defect::Flipped(place), false).ends_with("[F-25]"));
        let (result, opened) = open_coming(&artifact, &[&identity(1)], &[], |c| {
            (c.defect, c.again) = (Defect::Flipped(place), true);
        });
        result.unwrap();
        assert!(opened.iter().map(|(_, data)| data).take(3).eq(&files), "{place}");
    }
}

#[test]
fn first_of_two_failing_chunks_is_named() {
    let (mut artifact, _) = sealed(false);
    let header = Header::parse(&artifact[..]).unwrap().prelude().header_len as usize;
    for chunk in [40, 150] {
        artifact[header + chunk * 4112] ^= 1;
    }
    for seed in 0..30 {
        let (result, _) = open_coming(&artifact, &[&identity(1)], &[], |c| c.seed = seed);
        assert!(result.unwrap_err().to_string().starts_with("chunk 40 "));
    }
}

#[test]
fn range_twice() {
    let (artifact, _) = sealed(false);
    assert!(message(&artifact, Defect::Twice, false).contains("read the artifact"));
}

#[test]
fn range_missing() {
    let (artifact, _) = sealed(false);
    assert!(message(&artifact, Defect::Missing, false).contains("read the artifact"));
}

#[test]
fn range_shifted() {
    let (artifact, _) = sealed(false);
    assert!(message(&artifact, Defect::Shifted, false).contains("read the artifact"));
}

#[test]
fn network_fails() {
    let (artifact, _) = sealed(false);
    let (result, _) = open_coming(&artifact, &[&identity(1)], &[], |c| c.defect = Defect::Cut);
    assert!(matches!(result, Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn sha256_needs_the_order() {
    let (artifact, files) = sealed(true);
    let (key, sink) = (identity(1), Files2::default());
    let header = Header::parse(&artifact[..]).unwrap().unlock(&[&key]).unwrap();
    let payload = &artifact[header.header().prelude().header_len as usize..];
    let coming = Coming::new(payload, 1);
    let input = Input::At { file: &coming, offset: 0, len: payload.len() as u64 };
    open(input, &header, &OpenOptions::default(), Release::Files(&sink)).unwrap();
    assert_eq!(coming.taken.load(Ordering::Relaxed), 0);
    assert!(sink.0.into_inner().unwrap().iter().map(|(_, data)| data).take(3).eq(&files));
}
