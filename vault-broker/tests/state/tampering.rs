//! Whoever may write the database changes the log: each change is caught, by the step that names it.

use super::{Place, grant, id, signer};
use vault_attest::Step;
use vault_attest::tlog::{Checkpoint, LogEntry};
use vault_broker::state::{State, StateError};

/// Entries of the log, and those of the checkpoint that somebody kept.
const SIZE: u32 = 9;
const KEPT: u32 = 5;

/// A log of nine entries; and the checkpoint at five, kept elsewhere.
fn log(place: &Place) -> (State, String) {
    let state = place.open();
    let append = |range: std::ops::Range<u32>| state.decide(range.map(|n| grant(n, n)).collect(), &signer()).unwrap();
    append(0..KEPT);
    let kept = state.checkpoint().unwrap();
    append(KEPT..SIZE);
    (state, kept)
}

fn checkpoint(note: &str) -> Checkpoint {
    signer().verifier().verify(note).unwrap()
}

fn step(result: Result<impl Sized, StateError>) -> Option<Step> {
    match result {
        Ok(_) => None,
        Err(StateError::Tampered(refusal)) => Some(refusal.step),
        Err(other) => panic!("{other}"),
    }
}

fn entry(state: &State, n: u32) -> Vec<u8> {
    state.entry(&id(n)).unwrap().unwrap().entry
}

/// What is done, in SQL, and the step that catches it.
fn changes(place: &Place, state: &State, kept: &str) -> Vec<(&'static str, String, Step)> {
    let mut edited = LogEntry::parse(&entry(state, 3)).unwrap();
    edited.source = Some("192.0.2.66".into());
    let (edited, b) = (edited.to_bytes(), |bytes: &[u8]| place.bytes(bytes));
    let swap = |n: u32, with: u32| {
        let (id, entry) = (b(&id(with)), b(&entry(state, with)));
        format!("INSERT INTO entry VALUES ({n}, {id}, {entry});")
    };
    let zero = b(&[0; 32]);
    let foreign = signer().sign(u64::from(SIZE), [0; 32]);
    let root = b(checkpoint(kept).root());
    vec![
        ("edited", format!("UPDATE entry SET entry = {} WHERE idx = 3", b(&edited)), Step::L(1)),
        ("no entry any more", format!("UPDATE entry SET entry = {} WHERE idx = 3", b(b"{}")), Step::L(1)),
        ("dropped in the middle", "DELETE FROM entry WHERE idx = 4".into(), Step::L(6)),
        ("dropped at the end", "DELETE FROM entry WHERE idx = 8".into(), Step::L(6)),
        (
            "dropped and moved up",
            "DELETE FROM entry WHERE idx = 4; UPDATE entry SET idx = 4 WHERE idx = 8".into(),
            Step::L(1),
        ),
        ("reordered", format!("DELETE FROM entry WHERE idx IN (2, 3); {} {}", swap(2, 3), swap(3, 2)), Step::L(1)),
        ("renumbered", "UPDATE entry SET idx = 20 WHERE idx = 8".into(), Step::L(6)),
        ("another id beside it", format!("UPDATE entry SET id = {} WHERE idx = 8", b(&[9; 16])), Step::L(6)),
        ("one more", format!("INSERT INTO entry VALUES (9, {}, {})", b(&id(99)), b(&edited)), Step::L(6)),
        ("leaf's hash", format!("UPDATE node SET hash = {zero} WHERE position = 3"), Step::L(1)),
        ("inner hash", format!("UPDATE node SET hash = {zero} WHERE position = 2"), Step::L(2)),
        ("hash dropped", "DELETE FROM node WHERE position = 14".into(), Step::L(2)),
        ("one more hash", format!("INSERT INTO node VALUES (99, {zero})"), Step::L(2)),
        ("root", format!("UPDATE head SET root = {zero}"), Step::L(3)),
        ("size", "UPDATE head SET size = 3".into(), Step::L(3)),
        ("no checkpoint", "UPDATE head SET size = 0, checkpoint = ''".into(), Step::L(3)),
        ("unsigned root", "UPDATE head SET checkpoint = replace(checkpoint, '9', '8')".into(), Step::L(3)),
        ("a root that the tree has not", format!("UPDATE head SET checkpoint = '{foreign}'"), Step::L(3)),
        ("an older head", format!("UPDATE head SET size = {KEPT}, root = {root}, checkpoint = '{kept}'"), Step::L(6)),
    ]
}

#[test]
fn every_change_is_caught_by_its_step() {
    let kinds: [fn() -> Option<Place>; 2] = [|| Some(Place::sqlite()), Place::postgres];
    for fresh in kinds {
        let Some(first) = fresh() else { continue };
        let (state, kept) = log(&first);
        assert_eq!(state.verify(signer().verifier(), Some(&checkpoint(&kept))).unwrap().entries, 9);
        for (what, sql, caught) in changes(&first, &state, &kept) {
            let place = fresh().unwrap();
            let (state, _) = log(&place);
            place.sql(&sql);
            assert_eq!(step(state.verify(signer().verifier(), None)), Some(caught), "{what}");
        }
    }
}

#[test]
fn a_decision_id_twice_is_caught() {
    for place in Place::each() {
        let state = place.open();
        place.sql("DROP INDEX entry_id");
        state.decide(vec![grant(1, 1), grant(1, 2)], &signer()).unwrap();
        assert_eq!(step(state.verify(signer().verifier(), None)), Some(Step::L(6)));
    }
}

/// With the log key at hand, all of it can be written anew, without a fault in itself.
#[test]
fn a_rewritten_and_signed_log_is_caught_by_a_kept_checkpoint() {
    for (place, other) in Place::each().zip(Place::each()) {
        let (_, kept) = log(&place);
        let kept = checkpoint(&kept);
        let rewritten = other.open();
        let mut decisions: Vec<_> = (0..SIZE).map(|n| grant(n, n)).collect();
        decisions[1].entry.source = Some("192.0.2.66".into());
        rewritten.decide(decisions, &signer()).unwrap();
        assert_eq!(rewritten.verify(signer().verifier(), None).unwrap().entries, 9);
        assert_eq!(step(rewritten.verify(signer().verifier(), Some(&kept))), Some(Step::L(5)));
    }
}

#[test]
fn a_log_that_was_cut_is_caught_by_a_later_checkpoint() {
    for place in Place::each() {
        let (state, kept) = log(&place);
        let latest = checkpoint(&state.checkpoint().unwrap());
        let root = place.bytes(checkpoint(&kept).root());
        place.sql(&format!(
            "DELETE FROM entry WHERE idx >= 5; DELETE FROM node WHERE position >= 8;
             UPDATE head SET size = 5, root = {root}, checkpoint = '{kept}'"
        ));
        assert_eq!(state.verify(signer().verifier(), None).unwrap().entries, 5);
        assert_eq!(step(state.verify(signer().verifier(), Some(&latest))), Some(Step::L(5)));
        // A broker that runs has seen the longer log, and does not go on: nonces are missing as well.
        assert_eq!(step(state.decide(vec![grant(50, 50)], &signer())), Some(Step::L(5)));
    }
}

#[test]
fn a_changed_log_is_not_signed_on() {
    for (change, caught) in [
        ("UPDATE node SET hash = ZERO WHERE position = 15", Step::L(2)),
        ("DELETE FROM node WHERE position = 15", Step::L(2)),
        ("UPDATE head SET size = 3", Step::L(3)),
        ("UPDATE head SET root = ZERO", Step::L(3)),
        ("UPDATE head SET size = 0, checkpoint = ''", Step::L(3)),
    ] {
        for place in Place::each() {
            let (state, _) = log(&place);
            place.sql(&change.replace("ZERO", &place.bytes(&[0; 32])));
            for state in [state, place.open()] {
                assert_eq!(step(state.decide(vec![grant(50, 50)], &signer())), Some(caught), "{change}");
            }
        }
    }
}
