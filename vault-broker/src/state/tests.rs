use super::*;
use crate::config::Quotas;
use crate::judge::{Judged, QuotaKeys};
use crate::ledger::Ledger;
use std::path::Path;
use std::sync::Arc;
use vault_attest::Step;
use vault_attest::tlog::{LogEntry, LogSigner, Outcome, verify_consistency, verify_log_proof};
use vault_core::secret::Secret;

fn signer() -> LogSigner {
    LogSigner::new("keys.example/log", &Secret::take(&mut [7; 32])).unwrap()
}

fn start(path: &Path, quotas: Quotas) -> Result<StateLedger, StateError> {
    StateLedger::start(Box::new(Sqlite::open(path)?), Box::new(Sqlite::open(path)?), signer(), quotas)
}

fn grant(n: u8, nonce: u8) -> Judged {
    let id = [n; 16];
    let mut entry = LogEntry::new(&id, 1_795_000_000_000);
    entry.source = Some("192.0.2.1".into());
    let quota = Some(QuotaKeys { key: [1; 32], pcr0: [2; 48] });
    let answer = Some((vec![0; 1120], [0; 48]));
    Judged { id, nonce: Some(([nonce; 32], 4_000_000_000)), entry, quota, answer, refused: None }
}

#[test]
fn decisions_are_logged_with_proofs_and_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = start(&path, Quotas::default()).unwrap();
    let verifier = signer().verifier().clone();
    let before = verifier.verify(&ledger.checkpoint().unwrap()).unwrap();
    for n in 0..20 {
        let settled = ledger.settle(grant(n, n)).unwrap();
        assert_eq!(settled.refused, None);
        let logged = verify_log_proof(&settled.entry, &settled.proof, &verifier).unwrap();
        assert_eq!((logged.index, logged.checkpoint.size()), (u64::from(n), u64::from(n) + 1));
        assert!(verify_log_proof(b"another entry", &settled.proof, &verifier).is_err());
    }
    drop(ledger);
    let ledger = start(&path, Quotas::default()).unwrap();
    let after = verifier.verify(&ledger.checkpoint().unwrap()).unwrap();
    let proof = ledger.consistency(before.size(), after.size()).unwrap().unwrap();
    verify_consistency(&before, &after, &proof).unwrap();
    assert_eq!((after.size(), ledger.size().unwrap()), (20, 20));
    assert!(ledger.consistency(3, 21).unwrap().is_none());
    assert!(ledger.consistency(4, 3).unwrap().is_none());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn nonce_used_on_one_replica_is_refused_on_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let (one, other) = (start(&path, Quotas::default()).unwrap(), start(&path, Quotas::default()).unwrap());
    assert_eq!(one.settle(grant(1, 1)).unwrap().refused, None);
    let again = other.settle(grant(2, 1)).unwrap();
    assert_eq!(again.refused, Some(Step::R(11)));
    let entry = LogEntry::parse(&again.entry).unwrap();
    assert_eq!((entry.outcome, entry.answer), (Outcome::Refused, None));
    // The log went on from what the other replica wrote.
    assert_eq!(one.settle(grant(3, 3)).unwrap().refused, None);
    assert_eq!(one.size().unwrap(), 3);
}

#[test]
fn many_at_once_use_a_nonce_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(start(&folder.path().join("state.db"), Quotas::default()).unwrap());
    let threads: Vec<_> = (0..64)
        .map(|n| {
            let ledger = Arc::clone(&ledger);
            std::thread::spawn(move || ledger.settle(grant(n, n % 8)).unwrap().refused.is_none())
        })
        .collect();
    let granted = threads.into_iter().map(|t| t.join().unwrap()).filter(|granted| *granted).count();
    assert_eq!((granted, ledger.size().unwrap()), (8, 64));
}

#[test]
fn quotas_refuse_what_is_over_and_do_not_count_it() {
    for (quotas, what) in [
        (Quotas { per_key: 2, per_measurement: 0, per_source: 0 }, "of this broker key"),
        (Quotas { per_key: 0, per_measurement: 2, per_source: 0 }, "of this PCR0"),
        (Quotas { per_key: 0, per_measurement: 0, per_source: 2 }, "of this source"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let ledger = start(&folder.path().join("state.db"), quotas).unwrap();
        let refused = |n| ledger.settle(grant(n, n)).unwrap();
        assert_eq!((refused(1).refused, refused(2).refused), (None, None));
        let third = refused(3);
        assert_eq!(third.refused, Some(Step::R(12)));
        assert!(third.wait_s.is_some_and(|s| (1..=3600).contains(&s)));
        let entry = LogEntry::parse(&third.entry).unwrap();
        assert!(entry.expected.unwrap().contains(what));
        let mut other = grant(4, 4);
        other.entry.source = Some("192.0.2.2".into());
        other.quota = Some(QuotaKeys { key: [9; 32], pcr0: [9; 48] });
        assert_eq!(ledger.settle(other).unwrap().refused, None, "another subject has room");
    }
}

#[test]
fn a_log_that_was_changed_is_not_signed_on() {
    let changes: [(&str, &str); 4] = [
        ("UPDATE nodes SET hash = zeroblob(32) WHERE pos = 7", "L-3"),
        ("UPDATE head SET size = 3", "L-3"),
        ("UPDATE head SET size = 0, checkpoint = ''", "L-3"),
        ("DELETE FROM nodes WHERE pos = 7", "tree"),
    ];
    for (sql, named) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let ledger = start(&path, Quotas::default()).unwrap();
        (0..5).for_each(|n| drop(ledger.settle(grant(n, n)).unwrap()));
        rusqlite::Connection::open(&path).unwrap().execute(sql, []).unwrap();
        let error = ledger.settle(grant(9, 9)).unwrap_err().to_string();
        assert!(error.contains(named) || error.contains("L-5"), "{sql}: {error}");
        assert!(start(&path, Quotas::default()).is_err(), "{sql}");
    }
}

#[test]
fn tables_of_another_version_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    drop(Sqlite::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().execute("UPDATE schema SET version = 2", []).unwrap();
    assert!(matches!(Sqlite::open(&path), Err(StateError::Schema { found: 2 })));
    std::fs::write(&path, b"not a database at all, but long enough to have a header").unwrap();
    assert!(matches!(Sqlite::open(&path), Err(StateError::Database(_))));
}
