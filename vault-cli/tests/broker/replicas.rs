//! Two brokers of one keyring and one PostgreSQL: a nonce of one is good at the other, and used on one it is used on both.

use crate::rig::Rig;
use mvault_tests::asker::Asker;
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
        let granted = outcomes.iter().filter(|said| matches!(said, mvault_tests::asker::Said::Granted(_))).count();
        assert_eq!(granted, 1);
    }
    two.kill();
    one.shop.mvault("broker log broker --verify").ok();
    let log = one.shop.mvault("broker log broker --json").ok().json();
    assert_eq!(log["size"], 40);
}
