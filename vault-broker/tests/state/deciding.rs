//! Nonces, quotas, transactions, concurrency, reopening.

use super::{HOUR, NOW_S, Place, at, decide, grant, id, nonce, signer};
use std::sync::Arc;
use vault_attest::tlog::{LogEntry, Outcome, verify_consistency, verify_log_proof};
use vault_attest::{Refusal, Step};
use vault_broker::config::Quotas;
use vault_broker::state::{QuotaUse, Scope, State, StateError, Writer};

#[test]
fn nonce_used_on_one_replica_is_refused_on_the_other() {
    for place in Place::each() {
        let (one, other) = (place.open(), place.open());
        assert_eq!(decide(&one, grant(1, 1)).refused, None);
        let again = decide(&other, grant(2, 1));
        assert_eq!(again.refused, Some(Step::R(11)));
        let entry = LogEntry::parse(&again.entry).unwrap();
        assert_eq!((entry.outcome, entry.answer, entry.step.as_deref()), (Outcome::Refused, None, Some("R-11")));
        assert_eq!(decide(&one, grant(3, 3)).index, 2);
        one.verify(signer().verifier(), None).unwrap();
    }
}

#[test]
fn one_of_a_batch_uses_a_nonce_and_the_first_does() {
    for place in Place::each() {
        let decided = place.open().decide((0..6).map(|n| grant(n, n / 3)).collect(), &signer()).unwrap();
        let refused: Vec<_> = decided.iter().map(|d| d.refused.is_some()).collect();
        assert_eq!(refused, [false, true, true, false, true, true]);
        for (n, decided) in (0..).zip(&decided) {
            let logged = verify_log_proof(&decided.entry, &decided.proof, signer().verifier()).unwrap();
            assert_eq!((logged.index, logged.checkpoint.size()), (n, 6));
        }
    }
}

#[test]
fn a_refusal_of_an_earlier_step_keeps_its_step_and_uses_its_nonce_up() {
    for place in Place::each() {
        let state = place.open();
        let mut refused = grant(1, 1);
        refused.entry.refuse(&Refusal::new(Step::V(22), "signature", "the leaf's", "another"), None);
        let bytes = refused.entry.to_bytes();
        let decided = decide(&state, refused);
        assert_eq!((decided.refused, decided.entry), (None, bytes));
        assert_eq!(decide(&state, grant(2, 1)).refused, Some(Step::R(11)));
    }
}

#[test]
fn quotas_slide_and_do_not_count_what_they_refuse() {
    for place in Place::each() {
        let state = place.open();
        let asked = |now, n, subject: &[u8]| {
            let mut decision = at(now, n, n);
            decision.quotas = vec![QuotaUse { scope: Scope::Source, subject: subject.to_vec(), limit: 3 }];
            decide(&state, decision)
        };
        for n in 0..3 {
            assert_eq!(asked(NOW_S + 600 * u64::from(n), n, b"a").refused, None);
        }
        let full = asked(NOW_S + 1300, 3, b"a");
        assert_eq!((full.refused, full.wait_s), (Some(Step::R(12)), Some(HOUR - 1300)));
        assert_eq!(asked(NOW_S + 1300, 4, b"b").refused, None, "another source has room");
        assert_eq!(asked(NOW_S + HOUR - 1, 5, b"a").refused, Some(Step::R(12)));
        // The first has left the window, the refused were never in it: one more, and no second.
        assert_eq!(asked(NOW_S + HOUR, 6, b"a").refused, None);
        assert_eq!(asked(NOW_S + HOUR, 7, b"a").refused, Some(Step::R(12)));
        // R-12 has used its nonce up too.
        assert_eq!(decide(&state, at(NOW_S + HOUR, 8, 3)).refused, Some(Step::R(11)));
    }
}

#[test]
fn quota_is_shared_by_replicas_and_holds_within_a_batch() {
    for place in Place::each() {
        let quota = QuotaUse { scope: Scope::Key, subject: vec![1; 32], limit: 5 };
        let batch = |from| {
            (from..from + 4).map(|n| {
                let mut decision = grant(n, n);
                decision.quotas = vec![quota.clone()];
                decision
            })
        };
        let granted = |state: State, from| {
            let decided = state.decide(batch(from).collect(), &signer()).unwrap();
            decided.iter().filter(|d| d.refused.is_none()).count()
        };
        assert_eq!((granted(place.open(), 0), granted(place.open(), 10)), (4, 1));
    }
}

#[test]
fn a_batch_that_fails_leaves_nothing_behind() {
    for place in Place::each() {
        let state = place.open();
        decide(&state, grant(0, 0));
        let mut without_id = grant(2, 2);
        without_id.entry.id = "none".into();
        let failed = state.decide(vec![grant(1, 1), without_id], &signer());
        assert!(matches!(failed, Err(StateError::Usage(_))));
        // The same decision id a second time: the database refuses that.
        let failed = state.decide(vec![grant(1, 1), grant(0, 5)], &signer());
        assert!(matches!(failed, Err(StateError::Unavailable(_))));
        assert_eq!(state.size().unwrap(), 1);
        assert_eq!(decide(&state, grant(1, 1)).refused, None, "its nonce was not used");
        state.verify(signer().verifier(), None).unwrap();
    }
}

#[test]
fn concurrent_decisions_of_replicas_make_one_log() {
    for place in Place::each() {
        let start = || Writer::start(Arc::new(place.open()), signer(), Quotas::default()).unwrap();
        let writers = [start(), start()];
        let granted: usize = std::thread::scope(|scope| {
            let run = |n: u32| {
                let writer = &writers[n as usize % 2];
                scope.spawn(move || {
                    (0..8)
                        .filter(|m| {
                            let decided = writer.decide(grant(n * 8 + m, m * 4 + n % 4)).unwrap();
                            verify_log_proof(&decided.entry, &decided.proof, signer().verifier()).unwrap();
                            decided.refused.is_none()
                        })
                        .count()
                })
            };
            let threads: Vec<_> = (0..16).map(run).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 32, "each of 32 nonces once");
        let report = writers[0].state().verify(signer().verifier(), None).unwrap();
        assert_eq!((report.entries, report.granted), (128, 32));
    }
}

#[test]
fn everything_is_there_after_reopening() {
    for place in Place::each() {
        let state = place.open();
        state.decide(Vec::new(), &signer()).unwrap();
        let verifier = signer().verifier().clone();
        let empty = verifier.verify(&state.checkpoint().unwrap()).unwrap();
        let decided: Vec<_> = (0..300)
            .map(|n| grant(n, n))
            .collect::<Vec<_>>()
            .chunks(70)
            .flat_map(|batch| state.decide(batch.to_vec(), &signer()).unwrap())
            .collect();
        drop(state);
        let state = place.open();
        let now = verifier.verify(&state.checkpoint().unwrap()).unwrap();
        verify_consistency(&empty, &now, &state.consistency(0, 300).unwrap().unwrap()).unwrap();
        assert_eq!(state.consistency(1, 301).unwrap(), None);
        assert_eq!(state.consistency(5, 4).unwrap(), None);
        let row = state.entry(&id(123)).unwrap().unwrap();
        assert_eq!((row.index, &row.entry), (123, &decided[123].entry));
        assert_eq!(state.entry(&[0; 16]).unwrap(), None);
        assert_eq!(state.entries(298, 10).unwrap().len(), 2);
        assert_eq!(state.inclusion(0, 300).unwrap().unwrap().len(), 9);
        assert_eq!(decide(&state, grant(400, 299)).refused, Some(Step::R(11)));
        assert_eq!(state.verify(&verifier, Some(&now)).unwrap().goes_on_from, Some(300));
    }
}

#[test]
fn nonces_are_kept_an_hour_after_they_expired() {
    for place in Place::each() {
        let state = place.open();
        decide(&state, grant(1, 1));
        let expiry = NOW_S + 120;
        state.clean(expiry + HOUR).unwrap();
        assert_eq!(decide(&state, grant(2, 1)).refused, Some(Step::R(11)));
        state.clean(expiry + HOUR + 1).unwrap();
        assert_eq!(decide(&state, grant(3, 1)).refused, None, "forgotten; R-3 refuses it long since");
    }
}

#[test]
fn a_newer_schema_is_refused() {
    for place in Place::each() {
        drop(place.open());
        place.sql("UPDATE mvault_schema SET version = 2");
        assert!(matches!(place.try_open(), Err(StateError::TooNew { found: 2, known: 1 })));
    }
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let place = Place::sqlite();
    std::fs::write(place.path(), b"not a database at all, but long enough to have a header").unwrap();
    assert!(matches!(place.try_open(), Err(StateError::Unavailable(_))));
}

#[test]
fn a_log_of_another_key_is_not_signed_on() {
    for place in Place::each() {
        decide(&place.open(), grant(1, 1));
        let other = vault_core::secret::Secret::take(&mut [8; 32]);
        let other = vault_attest::tlog::LogSigner::new("keys.example/log", &other).unwrap();
        let refused = place.open().decide(vec![grant(2, 2)], &other);
        assert!(matches!(refused, Err(StateError::Tampered(refusal)) if refusal.step == Step::L(3)));
    }
}

#[test]
fn connections_that_would_not_be_encrypted_are_refused() {
    for text in [
        "host=db.example user=u",
        "host=192.0.2.1",
        "host=/run,db.example",
        "hostaddr=192.0.2.1",
        "user=u password=pa55",
        "what",
    ] {
        let Err(StateError::Usage(why)) = State::postgres(text) else { panic!("{text}") };
        assert!(!why.contains("pa55"), "{why}");
    }
}

#[test]
fn a_database_that_crashes_fails_the_batch_and_comes_back() {
    let Some(server) = mvault_tests::postgres::Postgres::start() else { return };
    let state = State::postgres(&server.database("crash")).unwrap();
    decide(&state, grant(1, 1));
    server.crash();
    let results: Vec<_> = (2..5).map(|n| state.decide(vec![grant(n, n)], &signer()).is_ok()).collect();
    assert_eq!(results, [false, true, true], "the broken connection is seen once, and replaced");
    assert_eq!(decide(&state, grant(9, 1)).refused, Some(Step::R(11)));
    let _ = state.size(); // the reading connection broke as well
    assert_eq!(state.verify(signer().verifier(), None).unwrap().entries, 4);
    assert_ne!(nonce(1), nonce(2));
}
