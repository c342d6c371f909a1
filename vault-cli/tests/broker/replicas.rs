//! Two brokers of one keyring and one PostgreSQL: a nonce of one is good at the other, and used on one it is used on both.

use crate::rig::Rig;
use mvault_tests::asker::{Asker, Said};
use mvault_tests::postgres::Postgres;
use std::path::Path;
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

#[test]
fn a_nonce_used_on_one_replica_is_refused_on_the_other() {
    let Some(server) = Postgres::shared() else { return println!("skipped: no PostgreSQL") };
    let (mut one, mut two) = (Rig::new(), Rig::new());
    one.set("postgres", &format!("{:?}", server.database("replicas")));
    std::fs::remove_dir_all(two.shop.path("broker")).unwrap();
    for name in ["broker", "home", "root.pem", "root.key"] {
        let _ = std::fs::remove_dir_all(two.shop.path(name));
        let _ = std::fs::remove_file(two.shop.path(name));
        copy(&one.shop.path(name), &two.shop.path(name));
    }
    one.start();
    two.start();
    let header = one.seal("model", "prod");
    let key = String::from_utf8(one.shop.read("root.key")).unwrap();
    let root = mvault_tests::evidence::TestRoot::from_pem(&one.root.pem(), &key);
    let (mut here, mut there) = (one.asker(), Asker::new(two.wire(), root));
    for _ in 0..5 {
        let body = here.attempt(&header).body();
        here.ask(&body).granted();
        assert_eq!(there.ask(&body).refused().step, "R-11");
        let body = there.attempt(&header).body();
        here.ask(&body).granted();
        assert_eq!(there.ask(&body).refused().step, "R-11");
    }
    // At once: one of the two grants it, whichever.
    for _ in 0..10 {
        let body = here.attempt(&header).body();
        let outcomes = std::thread::scope(|scope| {
            let first = scope.spawn(|| here.ask(&body));
            [there.ask(&body), first.join().unwrap()]
        });
        let granted = outcomes.iter().filter(|said| matches!(said, Said::Granted(_))).count();
        assert_eq!(granted, 1);
    }
    two.kill();
    one.shop.mvault("broker log broker --verify").ok();
    let log = one.shop.mvault("broker log broker --json").ok().json();
    assert_eq!(log["size"], 40);
}

/// A broker that cannot log a decision releases nothing, says so, and goes on when its database is back.
#[test]
fn a_database_that_is_gone_releases_nothing() {
    let Some(server) = Postgres::start() else { return println!("skipped: no PostgreSQL") };
    let mut rig = Rig::new();
    rig.set("postgres", &format!("{:?}", server.database("gone")));
    rig.start();
    let header = rig.seal("model", "prod");
    let mut asker = rig.asker();
    let body = asker.attempt(&header).body();
    let waiting = asker.attempt(&header).body();
    asker.ask(&body).granted();
    server.stop();
    for _ in 0..3 {
        match asker.ask(&waiting) {
            Said::Other(status, _) => assert_eq!(status, 503),
            Said::Granted(_) => panic!("released without a log"),
            Said::Refused(refusal) => panic!("refused at {}", refusal.step),
        }
    }
    assert!(rig.admin("/metrics").contains("mvault_broker_state_errors_total 3"), "{}", rig.admin("/metrics"));
    assert!(rig.admin("/readyz").starts_with("HTTP/1.1 503"), "{}", rig.admin("/readyz"));
    server.restart();
    asker.ask(&waiting).granted(); // the nonce was not used up by what could not be decided
    assert_eq!(rig.shop.mvault("broker log broker --json").ok().json()["size"], 2);
}
