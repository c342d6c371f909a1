//! What a vault promises of versions, tags, headers and garbage: FORMAT.md section 11.

use crate::transfers::{Case, Failure, pulled};
use mvault_tests::artifact::identity;
use mvault_tests::{noise, rng};
use std::sync::Barrier;
use vault_store::layout::{Name, TagName, Target};
use vault_store::store::Condition;
use vault_store::vault::{Garbage, Selector, Vault};
use vault_store::{Cause, Store};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Two push one version at the same time, several times over: one wins, the other is told who, when and what to do, and
/// takes its payload back. What is there is one of the two models, whole.
pub fn two_publishers_never_mix(store: &dyn Store) {
    let models = [noise(1, 3_000_000), noise(2, 3_000_000)];
    for round in 1..=4 {
        let start = Barrier::new(2);
        let results: Vec<_> = std::thread::scope(|scope| {
            let publish = |i: usize| {
                start.wait();
                let case = Case { version: Some(round), ..Case::new(store, "m") };
                case.push(&[("weights.bin", &models[i])]).map(|_| ())
            };
            let threads: Vec<_> = (0..2).map(|i| scope.spawn(move || publish(i))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let winner = results.iter().position(Result::is_ok).unwrap();
        let Err(Failure::Store(loser)) = &results[1 - winner] else { panic!("{results:?}") };
        assert_eq!(loser.cause, Cause::Taken, "{loser}");
        assert!(loser.message.contains(&format!("version {round} was published by")), "{loser}");
        assert!(loser.message.contains("20") && loser.hint().unwrap().contains("next one"), "{loser}");
        assert!(pulled(store, "m", &Selector::Version(round)) == models[winner], "mixed in round {round}");
        let payloads = Vault::new(store).payloads(&name("m")).unwrap();
        assert_eq!(payloads.len() as u64, round, "the loser's payload was not taken back");
    }
}

pub fn next_version_is_free(store: &dyn Store) {
    let (vault, data) = (Vault::new(store), noise(3, 1000));
    assert!(vault.find(&name("m"), &Selector::Latest).is_err());
    for version in [None, None, Some(7), None] {
        Case { version, ..Case::new(store, "m") }.push(&[("w", &data)]).unwrap();
    }
    let versions: Vec<_> = vault.versions(&name("m")).unwrap().into_keys().collect();
    assert_eq!(versions, [1, 2, 7, 8]);
    assert_eq!(vault.find(&name("m"), &Selector::Latest).unwrap().version, 8);
    assert_eq!(vault.names().unwrap(), [name("m")]);
    let taken = Case { version: Some(7), ..Case::new(store, "m") }.push(&[("w", &data)]).map(|_| ()).unwrap_err();
    assert_eq!(taken.cause(), Cause::Taken, "a version was overwritten");
}

pub fn tags_move(store: &dyn Store) {
    let (vault, data, prod) = (Vault::new(store), noise(4, 1000), TagName::new("prod").unwrap());
    for _ in 0..2 {
        Case::new(store, "m").push(&[("w", &data)]).unwrap();
    }
    let target = |v| Target::of(v, &vault.header(&name("m"), v).unwrap().header);
    assert_eq!(vault.set_tag(&name("m"), &prod, &target(1)).unwrap(), None);
    assert_eq!(vault.find(&name("m"), &Selector::Tag(prod.clone())).unwrap().version, 1);
    assert_eq!(vault.set_tag(&name("m"), &prod, &target(2)).unwrap(), Some(target(1)));
    assert_eq!(vault.tags(&name("m")).unwrap(), [(prod.clone(), Some(target(2)))]);
    // Many at once: each of them has its say, one of them is the last.
    std::thread::scope(|scope| {
        for i in 0..6 {
            let (vault, prod, target) = (&vault, &prod, target(1 + i % 2));
            scope.spawn(move || vault.set_tag(&name("m"), prod, &target).unwrap());
        }
    });
    assert!((1..=2).contains(&vault.target(&name("m"), &prod).unwrap().0.version));
    vault.remove_tag(&name("m"), &prod).unwrap();
    assert_eq!(vault.find(&name("m"), &Selector::Tag(prod.clone())).unwrap_err_cause(), Cause::NotFound);
    assert_eq!(vault.remove_tag(&name("m"), &prod).unwrap_err().cause, Cause::NotFound);
}

pub fn tag_of_a_version_made_anew_is_refused(store: &dyn Store) {
    let (vault, data, prod) = (Vault::new(store), noise(5, 1000), TagName::new("prod").unwrap());
    Case { version: Some(1), ..Case::new(store, "m") }.push(&[("w", &data)]).unwrap();
    let first = vault.find(&name("m"), &Selector::Version(1)).unwrap();
    vault.set_tag(&name("m"), &prod, &Target::of(1, &first.header)).unwrap();
    vault.remove(&name("m"), &first).unwrap();
    assert!(vault.payloads(&name("m")).unwrap().is_empty());
    Case { version: Some(1), ..Case::new(store, "m") }.push(&[("w", &data)]).unwrap();
    let refused = vault.find(&name("m"), &Selector::Tag(prod)).map(|_| ()).unwrap_err();
    assert!(refused.cause == Cause::Malformed && refused.message.contains("[F-43]"), "{refused}");
    store.write("m/tags/junk", b"mvault-tag-v1 01 x\n", Condition::Absent, None).unwrap();
    let junk = vault.find(&name("m"), &Selector::Tag(TagName::new("junk").unwrap())).map(|_| ()).unwrap_err();
    assert!(junk.message.contains("not a tag"), "{junk}");
}

pub fn stale_header_is_not_replaced(store: &dyn Store) {
    let (vault, data) = (Vault::new(store), noise(6, 1_000_000));
    Case::new(store, "m").push(&[("w", &data)]).unwrap();
    let read = vault.find(&name("m"), &Selector::Latest).unwrap();
    let unlocked = read.header.unlock(&[&identity(1)]).unwrap();
    let add = |seed| unlocked.with_recipients(&|_| true, &[identity(seed).recipient()], &mut rng(seed)).unwrap();
    vault.replace_header(&name("m"), &read, &add(2)).unwrap();
    let stale = vault.replace_header(&name("m"), &read, &add(3)).unwrap_err();
    assert_eq!(stale.cause, Cause::Precondition, "someone's change was lost: {stale}");
    let now = vault.find(&name("m"), &Selector::Latest).unwrap();
    assert_eq!(now.header.stanzas().count(), 2);
    assert_eq!(now.meta.publisher, read.meta.publisher);
    assert!(pulled(store, "m", &Selector::Latest) == data);
    let other = Case::new(store, "n").push(&[("w", &data)]).unwrap().0;
    assert!(vault.replace_header(&name("m"), &now, &other.header).is_err(), "a header of another artifact");
}

/// A cleaner takes what is old and named by nobody; not what is young, nor what a header or an upload names.
pub fn garbage_is_old_and_unnamed(store: &dyn Store) {
    let (vault, data) = (Vault::new(store), noise(7, 1000));
    for _ in 0..2 {
        Case::new(store, "m").push(&[("w", &data)]).unwrap();
    }
    let orphan = vault.find(&name("m"), &Selector::Version(1)).unwrap().header.prelude().salt;
    store.remove("m/1").unwrap();
    let begun = name("m").payload(&[9; 32]);
    let upload = store.begin(&begun).unwrap();
    let future = u64::MAX;
    let first = store.begin(&name("never-published").payload(&[8; 32])).unwrap();
    assert_eq!(vault.garbage(0).unwrap(), [], "young things are no garbage");
    let garbage = vault.garbage(future).unwrap();
    assert!(garbage.iter().any(|g| matches!(g, Garbage::Payload { payload, .. } if payload.id == orphan)));
    assert!(garbage.iter().any(|g| matches!(g, Garbage::Upload(u) if u.id == upload.id)), "{garbage:?}");
    assert!(garbage.iter().any(|g| matches!(g, Garbage::Upload(u) if u.id == first.id)), "{garbage:?}");
    assert_eq!(garbage.len(), 3, "{garbage:?}");
    // Someone publishes it between the list and the sweep: it stays.
    let of_2 = vault.payloads(&name("m")).unwrap().into_iter().find(|p| p.id != orphan).unwrap();
    assert!(!vault.collect(&Garbage::Payload { name: "m".into(), payload: of_2 }).unwrap());
    for item in &garbage {
        assert!(vault.collect(item).unwrap());
    }
    assert_eq!(vault.garbage(future).unwrap(), []);
    assert!(store.head(&name("m").payload(&orphan)).is_err());
    assert!(!pulled(store, "m", &Selector::Version(2)).is_empty());
    assert!(vault.collect(&garbage[0]).unwrap(), "collecting twice is no error");
}

pub fn pages_of_versions(store: &dyn Store) {
    const COUNT: u64 = 10_050;
    std::thread::scope(|scope| {
        for lane in 0..16 {
            scope.spawn(move || {
                for version in (1..=COUNT).filter(|v| v % 16 == lane) {
                    store.write(&format!("m/{version}"), b"x", Condition::Absent, None).unwrap();
                }
            });
        }
    });
    let versions = Vault::new(store).versions(&name("m")).unwrap();
    assert_eq!(versions.len() as u64, COUNT);
    assert!(versions.into_keys().eq(1..=COUNT));
}

trait Reason {
    fn unwrap_err_cause(self) -> Cause;
}

impl<T> Reason for vault_store::Result<T> {
    fn unwrap_err_cause(self) -> Cause {
        self.map(|_| ()).unwrap_err().cause
    }
}
