//! Harm on the way: networks cut, servers restarted, bursts of refusals, lost answers, flipped bits. The same process
//! goes on where it can, and refuses where it must.

use crate::bench::{Bench, Running, asked, header_put, one_body_for_each_part, part_number, parts_through};
use mvault_tests::proxy::{Exchange, Fault, Rule};
use mvault_tests::server::Server;
use std::time::Duration;

const LEN: usize = 60_000_000;
/// Slow enough to do harm in the middle.
const SLOW: Option<u64> = Some(20_000_000);

fn is_payload_get(exchange: &Exchange) -> bool {
    exchange.operation == "GetObject" && exchange.target.contains("/payloads/")
}

/// What was asked for is under way: some of it is through, not all.
fn in_the_middle(log: &[Exchange]) -> bool {
    let up: u64 = log.iter().filter(|e| e.operation == "UploadPart").map(|e| e.request_bytes).sum();
    let down: u64 = log.iter().filter(|e| is_payload_get(e)).map(|e| e.response_bytes).sum();
    up + down > 10_000_000
}

/// Pushes and pulls, with harm in the middle of each.
fn with_harm(bench: &Bench<'_>, harm: impl Fn(&Bench<'_>)) {
    let source = bench.noise("big.bin", 3, LEN);
    for args in ["push big.bin VAULT big --json", "pull VAULT big -o out --json"] {
        bench.proxy.clear_log();
        bench.proxy.throttle(SLOW);
        let mut running: Running = bench.start(args);
        bench.until("in the middle", in_the_middle);
        harm(bench);
        assert!(!running.ended(), "{args}: {}", running.wait().stderr);
        bench.proxy.throttle(None);
        running.wait().ok();
    }
    assert!(bench.shop.read("out/big.bin") == source);
    let listed = bench.run("ls VAULT big --json").ok().json();
    bench.holds_only("big", listed["versions"][0]["id"].as_str().unwrap());
}

#[test]
fn pulled_cable_ends_the_transfer() {
    let Some(bench) = Bench::new("pulled-cable") else { return };
    with_harm(&bench, |bench| {
        bench.proxy.block();
        std::thread::sleep(Duration::from_secs(3));
        bench.proxy.unblock();
    });
}

#[test]
fn restarted_server_ends_the_transfer() {
    let Some(server) = Server::seaweed() else { return };
    with_harm(&Bench::on(&server, "restarted"), |bench| bench.server.restart());
}

#[test]
fn burst_of_refusals_ends_the_transfer() {
    let Some(bench) = Bench::new("refusals") else { return };
    let source = bench.noise("big.bin", 4, LEN);
    let hits = [
        bench.proxy.add(Rule::new("CreateMultipartUpload", "", Fault::SLOW_DOWN).times(2)),
        bench.proxy.add(Rule::new("UploadPart", "", Fault::SLOW_DOWN).nth(2).times(12)),
        bench.proxy.add(Rule::new("UploadPart", "", Fault::Reset).nth(20).times(2)),
        bench.proxy.add(Rule::new("CompleteMultipartUpload", "", Fault::INTERNAL_ERROR).times(2)),
        // So does S3 answer when it fails while it completes.
        bench.proxy.add(Rule::new("CompleteMultipartUpload", "", Fault::Answer(200, "InternalError")).nth(3)),
        bench.proxy.add(Rule::new("PutObject", "", Fault::SLOW_DOWN).times(2)),
        bench.proxy.add(Rule::new("GetObject", "/payloads/", Fault::SLOW_DOWN).times(5)),
        bench.proxy.add(Rule::new("GetObject", "/payloads/", Fault::CutResponse(3_000_000)).nth(6).times(3)),
    ];
    bench.run("push big.bin VAULT big").ok();
    bench.run("pull VAULT big -o out").ok();
    assert!(bench.shop.read("out/big.bin") == source);
    let counts = hits.map(|h| h.count());
    assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
    assert_eq!(counts[1], 12, "a burst on parts");
}

#[test]
fn lost_answers_publish_twice_or_not_at_all() {
    let Some(bench) = Bench::new("lost-answers") else { return };
    let source = bench.noise("big.bin", 5, LEN);
    let complete = bench.proxy.add(Rule::new("CompleteMultipartUpload", "", Fault::DropAnswer).times(2));
    let header = bench.proxy.add(header_put(Fault::DropAnswer).times(1));
    let part = bench.proxy.add(Rule::new("UploadPart", "partNumber=2", Fault::DropAnswer).times(2));
    let pushed = bench.run("push big.bin VAULT big --tag prod --json").ok().json();
    assert!(complete.count() > 0 && header.count() == 1 && part.count() == 2);
    assert_eq!(pushed["model_version"], 1);
    let id = pushed["id"].as_str().unwrap();
    assert_eq!(bench.objects(), ["big/1".to_owned(), format!("big/payloads/{id}"), "big/tags/prod".into()]);
    one_body_for_each_part(&bench.proxy.log());
    bench.run("pull VAULT big@prod -o out").ok();
    assert!(bench.shop.read("out/big.bin") == source);
}

#[test]
fn flipped_bit_of_an_answer_released() {
    let Some(bench) = Bench::new("flipped-answers") else { return };
    let source = bench.noise("big.bin", 6, LEN);
    let digest = bench.run("push big.bin VAULT big --json").ok().json()["digest"].as_str().unwrap().to_owned();
    let block = 16 << 20;
    let ranged = |r: &mvault_tests::proxy::Request, start: u64| {
        r.target.contains("/payloads/") && r.header("range").is_some_and(|h| h.starts_with(&format!("bytes={start}-")))
    };
    // Once: fetched again, and right.
    for (out, flip) in [("a", 5_000_000), ("b", block - 1)] {
        let hits = bench.proxy.add(Rule::when(Fault::FlipResponse(flip), move |r| ranged(r, block)).times(1));
        bench.run(&format!("pull VAULT big -o {out}")).ok();
        assert_eq!(hits.count(), 1);
        assert!(bench.shop.read(&format!("{out}/big.bin")) == source);
        bench.proxy.clear_rules();
    }
    // At every try: refused, and nothing written. The block's fourth byte, and what is fetched of it alone.
    let before = bench.shop.names();
    bench.proxy.add(Rule::when(Fault::FlipResponse(3), |r| r.target.contains("/payloads/")));
    let done = bench.run("pull VAULT big -o c --keep-after 0").fails(3, "[F-25]");
    assert!(done.stderr.contains("nothing was written"), "{}", done.stderr);
    bench.run("cat VAULT/big:1 big.bin --range 30000000-30000100").fails(3, "[F-25]");
    bench.run(&format!("pull VAULT big --sealed --expect-digest {digest}")).fails(3, "[F-21]");
    assert_eq!(bench.shop.names(), before);
}

#[test]
fn flipped_bit_of_a_part_stored() {
    let Some(bench) = Bench::new("flipped-parts") else { return };
    let source = bench.noise("big.bin", 7, LEN);
    let hits = bench.proxy.add(Rule::new("UploadPart", "partNumber=2", Fault::FlipRequest(9_000_000)).times(2));
    bench.run("push big.bin VAULT big").ok();
    let log = bench.proxy.log();
    let of_two: Vec<_> = log.iter().filter(|e| part_number(&e.target) == Some(2)).collect();
    assert_eq!(hits.count(), 2);
    assert!(of_two.len() == 3 && of_two[0].status == Some(400) && of_two[2].status == Some(200), "{of_two:#?}");
    assert_eq!(parts_through(&log), 4);
    bench.proxy.clear_rules();
    bench.run("pull VAULT big -o out").ok();
    assert!(bench.shop.read("out/big.bin") == source);
    assert!(asked(&log, "UploadPart") == 6);
}

#[test]
fn payload_that_rotted_released() {
    let Some(bench) = Bench::new("rotted") else { return };
    bench.noise("big.bin", 8, 40_000_000);
    let pushed = bench.run("push big.bin local big --json").ok().json();
    let payload = format!("local/big/payloads/{}", pushed["id"].as_str().unwrap());
    let good = bench.shop.read(&payload);
    for at in [0, 20_000_000, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        bench.shop.write(&payload, &bad);
        let before = bench.shop.names();
        bench.run("pull local big -o out").fails(3, "[F-");
        assert_eq!(bench.shop.names(), before, "byte {at}");
    }
    bench.shop.write(&payload, &good);
    bench.run("pull local big -o out").ok();
}
