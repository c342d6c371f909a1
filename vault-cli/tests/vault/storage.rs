//! What a store does to a payload: answers that are refusals, servers that die, bytes that rot.

use crate::bench::{Bench, asked, header_put, one_body_for_each_part};
use mvault_tests::proxy::{Exchange, Fault, Rule};
use mvault_tests::server::Server;
use std::time::Duration;

const LEN: usize = 60_000_000;

/// Everything but the parts themselves is refused for a while, also in the way of S3: 200, and an error.
#[test]
fn refusals_around_the_parts_end_a_push() {
    let Some(bench) = Bench::new("around") else { return };
    let source = bench.noise("m.bin", 41, LEN);
    let hits = [
        bench.proxy.add(Rule::new("CreateMultipartUpload", "", Fault::SLOW_DOWN).times(2)),
        bench.proxy.add(Rule::new("UploadPart", "partNumber=2", Fault::DropAnswer).times(2)),
        bench.proxy.add(Rule::new("CompleteMultipartUpload", "", Fault::INTERNAL_ERROR).times(2)),
        bench.proxy.add(Rule::new("CompleteMultipartUpload", "", Fault::Answer(200, "InternalError")).nth(3)),
        bench.proxy.add(header_put(Fault::SLOW_DOWN).times(2)),
        bench.proxy.add(Rule::new("PutObject", "/tags/", Fault::SLOW_DOWN).times(2)),
    ];
    let pushed = bench.run("push m.bin VAULT m --tag prod --json").ok().json();
    assert_eq!(hits.map(|h| h.count()), [2, 2, 2, 1, 2, 2]);
    let id = pushed["id"].as_str().unwrap();
    assert_eq!(bench.objects(), ["m/1".to_owned(), format!("m/payloads/{id}"), "m/tags/prod".into()]);
    one_body_for_each_part(&bench.proxy.log());
    bench.run("pull VAULT m@prod -o back").ok();
    assert!(bench.shop.read("back/m.bin") == source);
}

#[test]
fn killed_server_ends_a_pull() {
    let Some(server) = Server::seaweed() else { return };
    let bench = Bench::on(&server, "killed");
    let source = bench.noise("m.bin", 42, LEN);
    bench.run("push m.bin VAULT m").ok();
    bench.proxy.clear_log();
    bench.proxy.throttle(Some(20_000_000));
    let pull = bench.start("pull VAULT m -o back");
    let fetched = |log: &[Exchange]| log.iter().map(|e| e.response_bytes).sum::<u64>();
    bench.until("fetching", |log| fetched(log) > 10_000_000);
    server.kill();
    assert!(fetched(&bench.proxy.log()) < LEN as u64, "it was too late");
    bench.proxy.throttle(None);
    std::thread::sleep(Duration::from_secs(1));
    server.restart();
    pull.wait().ok();
    assert!(bench.shop.read("back/m.bin") == source);
    assert!(asked(&bench.proxy.log(), "GetObject") > 5);
}

/// Of the last of a payload, or when all of it was pulled as it is.
#[test]
fn flipped_bit_is_released_or_leaves_a_folder() {
    let Some(bench) = Bench::new("flipped") else { return };
    let source = bench.noise("m.bin", 43, LEN);
    let digest = bench.run("push m.bin VAULT m --json").ok().json()["digest"].as_str().unwrap().to_owned();
    for (n, flip) in [0, 5_000_000, 16_000_000].into_iter().enumerate() {
        // Of a range behind the first one: not what is read for the table.
        let second = |r: &mvault_tests::proxy::Request| {
            let start = r.header("range").and_then(|h| h.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
            r.target.contains("/payloads/") && start.is_some_and(|start: u64| start > 1_000_000)
        };
        let hits = bench.proxy.add(Rule::when(Fault::FlipResponse(flip), second).times(1));
        bench.run(&format!("pull VAULT m -o back{n}")).ok();
        assert_eq!(hits.count(), 1);
        assert!(bench.shop.read(&format!("back{n}/m.bin")) == source);
    }
    let before = bench.shop.names();
    bench.proxy.add(Rule::new("GetObject", "/payloads/", Fault::FlipResponse(3)));
    let done = bench.run("pull VAULT m -o never --keep-after 0").fails(3, "[F-25]");
    assert!(done.stderr.contains("nothing was written"), "{}", done.stderr);
    bench.run(&format!("pull VAULT m --sealed --expect-digest {digest}")).fails(3, "[F-21]");
    assert_eq!(bench.shop.names(), before);
}

#[test]
fn rotten_payload_is_released() {
    let Some(bench) = Bench::new("rotten") else { return };
    let source = bench.noise("m.bin", 44, 40_000_000);
    let pushed = bench.run("push m.bin local m --json").ok().json();
    let payload = format!("local/m/payloads/{}", pushed["id"].as_str().unwrap());
    let good = bench.shop.read(&payload);
    let flipped = [0, 20_000_000, good.len() - 1].map(|at| {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        bad
    });
    let mut longer = good.clone();
    longer.extend_from_slice(&good[..1000]);
    for bad in flipped.into_iter().chain([longer, good[..good.len() - 16400].to_vec(), Vec::new()]) {
        bench.shop.write(&payload, &bad);
        let before = bench.shop.names();
        bench.run("pull local m -o back").fails(3, "[F-");
        assert_eq!(bench.shop.names(), before);
    }
    bench.shop.write(&payload, &good);
    bench.run("pull local m -o back").ok();
    assert!(bench.shop.read("back/m.bin") == source);
}
