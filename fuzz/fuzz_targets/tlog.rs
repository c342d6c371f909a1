//! Proofs, checkpoints, keys and entries of any bytes: nothing panics, and what is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_attest::tlog::{
    LogEntry, LogProof, LogVerifier, consistency_text, parse_consistency, tree, verify_log_proof,
};

fuzz_target!(|data: &[u8]| {
    let verifier = LogVerifier::new("example.com/log", [1; 32]).expect("a name");
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = verifier.verify(text);
        let _ = verify_log_proof(b"entry", text, &verifier);
        if let Ok(proof) = LogProof::parse(text) {
            assert_eq!(proof.to_string(), text);
            let _ = verifier.verify(&proof.checkpoint);
        }
        if let Ok(proof) = parse_consistency(text) {
            assert_eq!(consistency_text(&proof), text);
        }
        if let Ok(key) = LogVerifier::parse(text) {
            assert_eq!(key.to_string(), text);
        }
    }
    if let Ok(entry) = LogEntry::parse(data) {
        assert_eq!(entry.to_bytes(), data);
    }
    paths(data);
});

/// Sizes, indexes and hashes of any value.
fn paths(data: &[u8]) {
    let Some((numbers, rest)) = data.split_at_checked(16) else { return };
    let (a, b) = numbers.split_at(8);
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    let hashes: Vec<tree::Hash> = rest.chunks_exact(32).map(|hash| hash.try_into().expect("32 bytes")).collect();
    let [leaf, root, path @ ..] = &hashes[..] else { return };
    let _ = tree::verify_inclusion(leaf, number(a), path, number(b), root);
    let _ = tree::verify_consistency(number(a), leaf, number(b), root, path);
}
