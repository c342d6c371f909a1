//! Pulls and pushes that are interrupted: what they leave is ciphertext, and the next run goes on from it.

use crate::bench::{Bench, FOR_EVER, PART, parts_from, parts_through};
use mvault_tests::proxy::Exchange;
use std::path::PathBuf;

const LEN: usize = 100_000_000;
const SLOW: Option<u64> = Some(25_000_000);

fn fetched(log: &[Exchange]) -> u64 {
    log.iter().filter(|e| e.target.contains("/payloads/")).map(|e| e.response_bytes).sum()
}

fn pushed(bucket: &'static str, seed: u64) -> Option<(Bench<'static>, Vec<u8>)> {
    let bench = Bench::new(bucket)?;
    let source = bench.noise("big.bin", seed, LEN);
    bench.run("push big.bin VAULT big").ok();
    std::fs::remove_file(bench.shop.path("big.bin")).unwrap();
    Some((bench, source))
}

/// Starts a pull and ends it, roughly, when so many bytes have come.
fn interrupted(bench: &Bench<'_>, args: &str, kill: bool) {
    bench.proxy.clear_log();
    bench.proxy.throttle(SLOW);
    let running = bench.start(args);
    // Ranges under way share the rate: when the second four begin, the first are kept.
    bench.until("two blocks and more", |log| fetched(log) > 75_000_000);
    if kill {
        running.kill();
    } else {
        running.interrupt();
        assert_eq!(running.wait().code, 130);
    }
    bench.proxy.throttle(None);
    bench.proxy.clear_log();
}

/// Files that an interrupted pull has left, by name.
fn leftovers(bench: &Bench<'_>) -> Vec<PathBuf> {
    let walk = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().map(|i| i.unwrap().path());
    let mut found: Vec<_> = walk(bench.shop.path("")).chain(walk(bench.shop.path("out"))).collect();
    found.retain(|p| p.is_file() && !["model.pkl", "evil.pkl"].contains(&p.file_name().unwrap().to_str().unwrap()));
    found.sort();
    found
}

/// No 32 bytes of the source, at a hundred places, are in any leftover.
#[track_caller]
fn only_ciphertext(bench: &Bench<'_>, source: &[u8]) {
    let samples: std::collections::HashSet<&[u8]> = (0..100).map(|n| &source[n * (LEN / 100) + 7..][..32]).collect();
    let left = leftovers(bench);
    assert!(!left.is_empty(), "nothing is left: nothing was shown");
    for path in left {
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(32).any(|w| samples.contains(w)), "plaintext in {}", path.display());
    }
}

#[test]
fn killed_pull_leaves_plaintext_or_begins_anew() {
    let Some((bench, source)) = pushed("killed-pull", 30) else { return };
    let pull = "pull VAULT big -o out --keep-after 0";
    interrupted(&bench, pull, true);
    only_ciphertext(&bench, &source);
    let done = bench.run(pull).ok();
    assert!(done.stderr.contains("going on with an interrupted pull"), "{}", done.stderr);
    let again = fetched(&bench.proxy.log());
    assert!(again < LEN as u64 - PART, "{again} bytes fetched again");
    assert!(bench.shop.read("out/big.bin") == source);
    let left: Vec<_> = leftovers(&bench).into_iter().filter(|p| !p.ends_with("out/big.bin")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn damaged_leftover_believed() {
    let Some((bench, source)) = pushed("damaged-leftover", 31) else { return };
    for (pull, result) in
        [("pull VAULT big -o out --keep-after 0", "out/big.bin"), ("pull VAULT big --sealed", "big.mvault")]
    {
        interrupted(&bench, pull, true);
        only_ciphertext(&bench, &source);
        let left = leftovers(&bench).into_iter().find(|p| p.extension().is_some_and(|e| e == "mvault-part")).unwrap();
        let mut bytes = std::fs::read(&left).unwrap();
        for at in (0..bytes.len()).step_by(1 << 20) {
            bytes[at] ^= 1;
        }
        std::fs::write(&left, &bytes).unwrap();
        bench.run(pull).ok();
        if result.ends_with(".mvault") {
            bench.run("open big.mvault -o sealed").ok();
            assert!(bench.shop.read("sealed/big.bin") == source);
        } else {
            assert!(bench.shop.read(result) == source);
        }
        assert!(!left.exists());
    }
}

#[test]
fn killed_sealed_pull_begins_anew() {
    let Some((bench, source)) = pushed("killed-sealed-pull", 32) else { return };
    interrupted(&bench, "pull VAULT big --sealed", true);
    assert!(!bench.shop.exists("big.mvault"), "half of it has its name");
    bench.run("pull VAULT big --sealed").ok();
    let again = fetched(&bench.proxy.log());
    assert!(again < LEN as u64 - PART, "{again} bytes fetched again");
    bench.run("open big.mvault -o out").ok();
    assert!(bench.shop.read("out/big.bin") == source);
}

#[test]
fn ctrl_c_leaves_plaintext_or_half_a_model() {
    let Some(bench) = Bench::new("ctrl-c") else { return };
    let source = bench.noise("big.bin", 33, LEN);
    bench.proxy.add(parts_from(3, FOR_EVER));
    let running = bench.start("push big.bin VAULT big");
    bench.until("two parts through", |log| parts_through(log) == 2);
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.interrupt();
    assert_eq!(running.wait().code, 130);
    assert!(bench.objects().is_empty(), "{:?}", bench.objects());
    bench.proxy.clear_rules();
    let done = bench.run("push big.bin VAULT big").ok();
    assert!(done.stderr.contains("going on with an interrupted push: 2 parts there"), "{}", done.stderr);
    std::fs::remove_file(bench.shop.path("big.bin")).unwrap();

    let pull = "pull VAULT big -o out --keep-after 0";
    interrupted(&bench, pull, false);
    only_ciphertext(&bench, &source);
    assert!(!bench.shop.exists("out/big.bin"));
    let done = bench.run(pull).ok();
    assert!(done.stderr.contains("going on with an interrupted pull"), "{}", done.stderr);
    assert!(bench.shop.read("out/big.bin") == source);
}
