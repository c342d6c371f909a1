//! Networks that break, lie and come back, and servers that restart: what was published is whole, what was pulled is the
//! source, and nothing is published twice.

use crate::bench::{Bench, PART, asked, header_put, one_body_for_each_part, parts_through, say};
use mvault_tests::proxy::{Fault, Rule};
use mvault_tests::server::Server;
use std::time::Duration;

const LEN: usize = 60_000_000;

fn pulls(bench: &Bench<'_>, what: &str, source: &[u8]) {
    bench.run(&format!("pull VAULT {what} -o back -f")).ok();
    assert!(bench.shop.read("back/m.bin") == source, "{what}: not what was pushed");
    let left: Vec<_> = std::fs::read_dir(bench.shop.path("back")).unwrap().map(|i| i.unwrap().file_name()).collect();
    assert_eq!(left, ["m.bin"], "something is left beside it");
}

#[test]
fn cut_network_ends_a_transfer() {
    let Some(bench) = Bench::new("cut") else { return };
    let source = bench.noise("m.bin", 1, LEN);
    bench.proxy.throttle(Some(30_000_000));
    let push = bench.start("push m.bin VAULT m");
    bench.until("sending", |log| parts_through(log) >= 1);
    bench.proxy.block();
    std::thread::sleep(Duration::from_secs(3));
    bench.proxy.unblock();
    push.wait().ok();
    one_body_for_each_part(&bench.proxy.log());
    bench.proxy.clear_log();
    bench.proxy.throttle(Some(30_000_000));
    let pull = bench.start("pull VAULT m -o back");
    bench.until("fetching", |log| asked(log, "GetObject") >= 2);
    std::thread::sleep(Duration::from_millis(300));
    bench.proxy.block();
    std::thread::sleep(Duration::from_secs(3));
    bench.proxy.unblock();
    pull.wait().ok();
    assert!(bench.shop.read("back/m.bin") == source);
}

#[test]
fn restarted_server_ends_a_transfer() {
    let Some(server) = Server::seaweed() else { return };
    let bench = Bench::on(&server, "restart");
    let source = bench.noise("m.bin", 2, LEN);
    bench.proxy.throttle(Some(30_000_000));
    let push = bench.start("push m.bin VAULT m");
    bench.until("sending", |log| parts_through(log) >= 1);
    server.restart();
    push.wait().ok();
    bench.proxy.clear_rules();
    pulls(&bench, "m", &source);
}

#[test]
fn busy_server_ends_a_transfer() {
    let Some(bench) = Bench::new("busy") else { return };
    let source = bench.noise("m.bin", 3, LEN);
    let slow = bench.proxy.add(Rule::new("UploadPart", "", Fault::SLOW_DOWN).times(6));
    let cut = bench.proxy.add(Rule::new("UploadPart", "", Fault::CutRequest(3_000_000)).nth(8).times(2));
    bench.run("push m.bin VAULT m").ok();
    assert_eq!((slow.count(), cut.count()), (6, 2));
    let slow = bench.proxy.add(Rule::new("GetObject", "payloads", Fault::SLOW_DOWN).times(3));
    let broken = bench.proxy.add(Rule::new("GetObject", "payloads", Fault::CutResponse(5_000_000)).nth(5).times(3));
    pulls(&bench, "m", &source);
    assert!(slow.count() == 3 && broken.count() == 3, "{} {}", slow.count(), broken.count());
    say("parts cut: 5, answers 503: 9, bytes lost: 0");
}

/// A part that is not kept is sealed again for each try: cut, flipped and refused, it is the same bytes in the end.
#[test]
fn broken_large_part_is_sealed_another_way() {
    let Some(bench) = Bench::new("large-parts") else { return };
    let source = bench.noise("m.bin", 9, 150_000_000);
    let slow = bench.proxy.add(Rule::new("UploadPart", "", Fault::SLOW_DOWN).times(2));
    let cut = bench.proxy.add(Rule::new("UploadPart", "", Fault::CutRequest(30 << 20)).nth(4).times(3));
    let flipped = bench.proxy.add(Rule::new("UploadPart", "", Fault::FlipRequest(1_000_000)).nth(8));
    let pushed = bench.run("push m.bin VAULT m --part-size 64 --json").ok().json();
    assert_eq!((slow.count(), cut.count(), flipped.count()), (2, 3, 1));
    assert_eq!((&pushed["parts_sent"], &pushed["parts_reused"]), (&3.into(), &0.into()));
    one_body_for_each_part(&bench.proxy.log());
    bench.holds_only("m", pushed["id"].as_str().unwrap());
    pulls(&bench, "m:1", &source);
}

/// The server did it, and its answer is lost: done is done, once.
#[test]
fn lost_answer_publishes_twice_or_not_at_all() {
    let Some(bench) = Bench::new("lost") else { return };
    let source = bench.noise("m.bin", 4, LEN);
    let complete = bench.proxy.add(Rule::new("CompleteMultipartUpload", "", Fault::DropAnswer).times(1));
    let header = bench.proxy.add(header_put(Fault::DropAnswer).times(1));
    let pushed = bench.run("push m.bin VAULT m --json").ok().json();
    assert_eq!((complete.count(), header.count()), (1, 1));
    assert_eq!(pushed["model_version"], 1);
    bench.holds_only("m", pushed["id"].as_str().unwrap());
    pulls(&bench, "m:1", &source);
}

#[test]
fn flipped_bit_is_released_or_kept() {
    let Some(bench) = Bench::new("flip") else { return };
    let source = bench.noise("m.bin", 5, LEN);
    let up = bench.proxy.add(Rule::new("UploadPart", "", Fault::FlipRequest(1_000_000)).times(2));
    bench.run("push m.bin VAULT m").ok();
    assert_eq!(up.count(), 2);
    let down = bench.proxy.add(Rule::new("GetObject", "payloads", Fault::FlipResponse(2_000_000)).times(2));
    pulls(&bench, "m", &source);
    assert_eq!(down.count(), 2, "nothing was flipped");
    bench.proxy.add(Rule::new("GetObject", "payloads", Fault::FlipResponse(10_000)));
    let done = bench.run("pull VAULT m -o never").fails(3, "[F-25]");
    assert!(done.stderr.contains("nothing was written") && !bench.shop.exists("never"));
    bench.run("cat VAULT/m:1 m.bin --range 0-99").fails(3, "[F-25]");
}

/// What an interrupted pull leaves is ciphertext; the next one uses it, and does not trust it.
#[test]
fn killed_pull_leaves_plaintext_or_loses_work() {
    let Some(bench) = Bench::new("pull") else { return };
    let len = 150_000_000; // more than the ranges that are under way at once
    let source = bench.noise("m.bin", 6, len);
    bench.run("push m.bin VAULT m").ok();
    let mut reused = 0;
    for (way, spoil) in
        [("-o back --keep-after 0", false), ("-o back --keep-after 0", true), ("-o m.mvault --sealed", true)]
    {
        bench.proxy.throttle(Some(30_000_000));
        let pull = bench.start(&format!("pull VAULT m {way}"));
        bench.until("fetching", |log| {
            log.iter().filter(|e| e.target.contains("/payloads/") && e.complete && e.response_bytes > PART / 2).count()
                >= 1
        });
        std::thread::sleep(Duration::from_millis(400));
        pull.kill();
        bench.proxy.clear_rules();
        let folder = if way.contains("back") { bench.shop.path("back") } else { bench.shop.path(".") };
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|i| i.unwrap().path()).collect();
        let left: Vec<_> = left.into_iter().filter(|p| p.to_string_lossy().contains(".mvault-part")).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        for path in &left {
            let bytes = std::fs::read(path).unwrap();
            assert!(!bytes.windows(64).any(|w| w == &source[1_000_000..1_000_064]), "plaintext in {}", path.display());
        }
        if spoil {
            let part = left.iter().find(|p| p.to_string_lossy().ends_with("part")).unwrap();
            let mut bytes = std::fs::read(part).unwrap();
            for at in (20_000..bytes.len()).step_by(1_000_000) {
                bytes[at] ^= 1;
            }
            std::fs::write(part, bytes).unwrap();
        }
        bench.proxy.clear_log();
        let done = bench.run(&format!("pull VAULT m {way}")).ok();
        assert!(done.stderr.contains("going on with an interrupted pull"), "{}", done.stderr);
        let down = bench.proxy.counts().down;
        assert!(spoil || down < len as u64 - PART / 2, "{down} bytes came again");
        reused += (len as u64).saturating_sub(down);
        if way.contains("sealed") {
            bench.run("open m.mvault -o back").ok();
        }
        assert!(bench.shop.read("back/m.bin") == source);
        assert!(!bench.shop.names().iter().any(|n| n.contains("mvault-part")));
        std::fs::remove_dir_all(bench.shop.path("back")).unwrap();
        bench.proxy.clear_log();
    }
    say(&format!("pulls killed: 3 survived; bytes not fetched again: {reused}; bytes lost: 0"));
}

/// Ctrl-C: no version, no plaintext; the same command goes on.
#[test]
fn interrupt_publishes_half() {
    let Some(bench) = Bench::new("interrupt") else { return };
    let source = bench.noise("m.bin", 7, LEN);
    bench.proxy.throttle(Some(25_000_000));
    let push = bench.start("push m.bin VAULT m");
    bench.until_noted(1);
    push.interrupt();
    assert_eq!(push.wait().code, 130);
    assert!(bench.objects().is_empty(), "{:?}", bench.objects());
    bench.proxy.clear_rules();
    let pushed = bench.run("push m.bin VAULT m --json").ok().json();
    assert!(pushed["parts_reused"].as_u64() >= Some(1), "{pushed}");
    bench.proxy.throttle(Some(25_000_000));
    let pull = bench.start("pull VAULT m -o back");
    bench.until("fetching", |log| asked(log, "GetObject") >= 2);
    std::thread::sleep(Duration::from_millis(300));
    pull.interrupt();
    assert_eq!(pull.wait().code, 130);
    assert!(!bench.shop.exists("back/m.bin"));
    bench.proxy.clear_rules();
    pulls(&bench, "m", &source);
}
