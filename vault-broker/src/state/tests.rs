//! The ledger that the server sees. Everything below it is tested on both databases in tests/tests/state.rs.

use super::*;
use crate::config::Quotas;
use crate::judge::{Judged, QuotaKeys};
use crate::ledger::Ledger;
use std::sync::Arc;
use vault_attest::Step;
use vault_attest::tlog::{LogEntry, Outcome, verify_consistency, verify_log_proof};
use vault_core::secret::Secret;

fn signer() -> LogSigner {
    LogSigner::new("keys.example/log", &Secret::take(&mut [7; 32])).unwrap()
}

fn start(path: &Path, quotas: Quotas) -> Writer {
    Writer::start(Arc::new(State::sqlite(path).unwrap()), signer(), quotas).unwrap()
}

fn grant(n: u8, nonce: u8) -> Judged {
    let id = [n; 16];
    let mut entry = LogEntry::new(&id, 1_795_000_000_000);
    entry.source = Some("192.0.2.1".into());
    entry.answer = Some("00".repeat(32));
    let quota = Some(QuotaKeys { key: [1; 32], pcr0: [2; 48] });
    let answer = Some((vec![0; 1120], [0; 48]));
    Judged { id, nonce: Some(([nonce; 32], 4_000_000_000)), entry, quota, answer, refused: None }
}

#[test]
fn decisions_are_logged_with_proofs_and_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let ledger = start(&path, Quotas::default());
    let verifier = signer().verifier().clone();
    let before = verifier.verify(&ledger.checkpoint().unwrap()).unwrap();
    for n in 0..20 {
        let settled = ledger.settle(grant(n, n)).unwrap();
        assert_eq!(settled.refused, None);
        let logged = verify_log_proof(&settled.entry, &settled.proof, &verifier).unwrap();
        assert_eq!((logged.index, logged.checkpoint.size()), (u64::from(n), u64::from(n) + 1));
    }
    drop(ledger);
    let ledger = start(&path, Quotas::default());
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
fn each_quota_refuses_what_is_over_and_does_not_count_it() {
    for (quotas, what) in [
        (Quotas { per_key: 2, per_measurement: 0, per_source: 0 }, "of this broker key"),
        (Quotas { per_key: 0, per_measurement: 2, per_source: 0 }, "of this measurement"),
        (Quotas { per_key: 0, per_measurement: 0, per_source: 2 }, "of this source"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let ledger = start(&folder.path().join("state.db"), quotas);
        let settle = |n| ledger.settle(grant(n, n)).unwrap();
        assert_eq!((settle(1).refused, settle(2).refused), (None, None));
        let third = settle(3);
        assert_eq!(third.refused, Some(Step::R(12)));
        assert!(third.wait_s.is_some_and(|s| (1..=3600).contains(&s)));
        let entry = LogEntry::parse(&third.entry).unwrap();
        assert!(entry.expected.unwrap().contains(what));
        assert_eq!((entry.outcome, entry.answer), (Outcome::Refused, None));
        let mut other = grant(4, 4);
        other.entry.source = Some("192.0.2.2".into());
        other.quota = Some(QuotaKeys { key: [9; 32], pcr0: [9; 48] });
        assert_eq!(ledger.settle(other).unwrap().refused, None, "another subject has room");
    }
}
