//! That the proxy passes what it should unchanged, counts it rightly, and does the harm it is told and no other.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

#[path = "proxy/peers.rs"]
mod peers;

use base64ct::{Base64, Encoding};
use mvault_tests::noise;
use mvault_tests::proxy::{Fault, Proxy, Request, Rule};
use mvault_tests::server::{Server, signed_request};
use peers::{Client, Origin, Seen};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
const GET: &str = "GET /b/k HTTP/1.1\r\nHost: proxy\r\n\r\n";
const PUT: &str = "PUT /b/k HTTP/1.1\r\nHost: proxy\r\nContent-Length: 10\r\n\r\nabcdefghij";

fn setup() -> (Origin, Proxy, Client) {
    let origin = Origin::start(HELLO);
    let proxy = Proxy::start(origin.address);
    let client = Client::connect(proxy.address()).unwrap();
    (origin, proxy, client)
}

fn get() -> Seen {
    Seen { head: GET.into(), body: Vec::new() }
}

#[test]
fn bytes_changed_on_the_way() {
    let (origin, _proxy, mut client) = setup();
    let head =
        "PUT /b/a%20k?x-id=PutObject HTTP/1.1\r\nhost: Some:1\r\nX-Odd-CASE:  two  spaces\r\nContent-Length: 4\r\n\r\n";
    let (answer, body) = client.ask(&format!("{head}\0\r\n\0")).unwrap();
    assert_eq!((answer.as_str(), &body[..]), (&HELLO[..HELLO.len() - 10], &b"0123456789"[..]));
    assert_eq!(origin.seen(1), [Seen { head: head.into(), body: b"\0\r\n\0".to_vec() }]);
}

#[test]
fn second_request_of_a_connection_not_counted() {
    let (_origin, proxy, mut client) = setup();
    client.ask(PUT).unwrap();
    client.ask("GET /b/k HTTP/1.1\r\nRange: bytes=1-2\r\n\r\n").unwrap();
    client.ask("GET /b/k HTTP/1.1\r\n\r\n").unwrap();
    let counts = proxy.counts();
    assert_eq!((counts.of("PutObject"), counts.of("GetObject"), counts.of("GET"), counts.total()), (1, 2, 2, 3));
    assert_eq!((counts.up, counts.down), (10, 30));
    let log = proxy.log();
    assert_eq!(
        (log[1].method.as_str(), log[1].target.as_str(), log[1].range.as_deref()),
        ("GET", "/b/k", Some("bytes=1-2"))
    );
    assert_eq!((log[0].status, log[0].request_bytes, log[0].response_bytes), (Some(200), 10, 10));
    assert!(log.iter().all(|exchange| exchange.complete));
    assert_eq!(proxy.connections(), 1);
    proxy.clear_log();
    assert_eq!(proxy.counts().total(), 0);
}

#[test]
fn chunk_sizes_counted_as_body() {
    let origin = Origin::start("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let proxy = Proxy::start(origin.address);
    let mut client = Client::connect(proxy.address()).unwrap();
    for _ in 0..2 {
        let put = "PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n";
        assert_eq!(client.ask(put).unwrap().1, b"abcde");
    }
    assert_eq!(origin.seen(2)[1].body, b"0123456789x");
    assert_eq!((proxy.counts().up, proxy.counts().down), (22, 10));
}

#[test]
fn answer_without_a_length_cut_short() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; GET.len()]).unwrap(); // what is left unread makes a reset
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end").unwrap();
    });
    let client = TcpStream::connect(proxy.address()).unwrap();
    (&client).write_all(GET.as_bytes()).unwrap();
    let answer = std::io::read_to_string(client).unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\nto the end");
}

#[test]
fn client_that_waits_for_100_continue_left_waiting() {
    let (origin, _proxy, mut client) = setup();
    client.send(b"PUT /b/k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").unwrap();
    assert!(client.answer().unwrap().0.starts_with("HTTP/1.1 100"));
    client.send(b"hi").unwrap();
    assert_eq!(client.answer().unwrap().1, b"0123456789");
    assert_eq!(origin.seen(1)[0].body, b"hi");
}

#[test]
fn refusal_in_the_middle_of_an_upload_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // reads what fits into no buffer, then no more
        std::io::copy(&mut (&stream).take(1 << 20), &mut std::io::sink()).unwrap();
    });
    let mut client = Client::connect(proxy.address()).unwrap();
    let head = format!("PUT /b/k HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 64 << 20);
    client.send(head.as_bytes()).unwrap();
    let _ = client.send(&vec![0; 64 << 20]); // may or may not fit before the proxy hangs up
    // Linux gives what has come before it tells of the reset
    assert!(client.answer().unwrap().0.starts_with("HTTP/1.1 403"));
}

#[test]
fn server_asked_before_a_reset() {
    let (origin, proxy, mut client) = setup();
    let hits = proxy.add(Rule::new("GET", "/k", Fault::Reset));
    assert_eq!(client.ask(GET).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((origin.seen(0).len(), hits.count()), (0, 1));
    assert_eq!((proxy.log()[0].status, proxy.log()[0].complete), (None, false));
}

#[test]
fn server_asked_before_an_answer_in_its_place() {
    let (origin, proxy, mut client) = setup();
    proxy.add(Rule::new("", "", Fault::SLOW_DOWN).nth(1).times(2));
    let (head, body) = client.ask(PUT).unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("<Code>SlowDown</Code>"));
    client.send(b"HEAD /b/k HTTP/1.1\r\n\r\n").unwrap();
    assert!(client.head().unwrap().starts_with("HTTP/1.1 503 "));
    // a body after HEAD's answer would be taken for the next answer's head
    assert_eq!(client.ask(GET).unwrap().1, b"0123456789");
    assert_eq!(proxy.log()[1].response_bytes, 0);
    assert_eq!(origin.seen(1), [get()]);
}

#[test]
fn kms_answered_in_xml() {
    let (_origin, proxy, mut client) = setup();
    proxy.add(Rule::new("Decrypt", "", Fault::Answer(400, "ThrottlingException")));
    let call = "POST / HTTP/1.1\r\nX-Amz-Target: TrentService.Decrypt\r\nContent-Length: 2\r\n\r\n{}";
    let (head, body) = client.ask(call).unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("application/x-amz-json-1.1"), "{head}");
    assert!(body.starts_with(br#"{"__type":"ThrottlingException""#));
}

#[test]
fn request_cut_elsewhere() {
    let (origin, proxy, mut client) = setup();
    proxy.add(Rule::new("PutObject", "", Fault::CutRequest(7)));
    assert!(client.ask(PUT).is_err());
    assert_eq!(proxy.log()[0].request_bytes, 7);
    // a reset can overtake bytes
    let seen = origin.seen(1);
    assert!(seen.iter().all(|seen| b"abcdefg".starts_with(&seen.body)), "{seen:?}");
}

#[test]
fn answer_cut_elsewhere() {
    let (_origin, proxy, mut client) = setup();
    proxy.add(Rule::new("", "", Fault::CutResponse(7)));
    client.send(GET.as_bytes()).unwrap();
    let (_, body, whole) = client.partial_answer().unwrap();
    assert_eq!((&body[..], whole), (&b"0123456"[..], false));
    assert_eq!((proxy.log()[0].response_bytes, proxy.log()[0].complete), (7, false));
}

#[test]
fn stalled_answer_goes_on_or_ends() {
    let (_origin, proxy, mut client) = setup();
    proxy.add(Rule::new("", "", Fault::StallResponse(4)));
    client.timeout(Duration::from_millis(300));
    let began = Instant::now();
    client.send(GET.as_bytes()).unwrap();
    let (_, body, whole) = client.partial_answer().unwrap();
    assert_eq!((&body[..], whole), (&b"0123"[..], false));
    assert!(began.elapsed() >= Duration::from_millis(300), "it ended");
}

#[test]
fn other_bits_flipped() {
    let (origin, proxy, mut client) = setup();
    let up = proxy.add(Rule::new("PUT", "", Fault::FlipRequest(9)));
    let down = proxy.add(Rule::new("GET", "", Fault::FlipResponse(0)));
    assert_eq!(client.ask(PUT).unwrap().1, b"0123456789");
    assert_eq!(origin.seen(1)[0].body, b"abcdefghik");
    assert_eq!(client.ask(GET).unwrap().1, b"1123456789");
    assert_eq!((up.count(), down.count()), (1, 1));
}

#[test]
fn bit_of_a_later_chunk_not_flipped() {
    let (origin, proxy, mut client) = setup();
    proxy.add(Rule::new("", "", Fault::FlipRequest(3)));
    client.ask("PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n").unwrap();
    assert_eq!(origin.seen(1)[0].body, b"abce");
}

#[test]
fn dropped_answer_of_a_request_that_was_not_done() {
    let (origin, proxy, mut client) = setup();
    proxy.add(Rule::new("PutObject", "", Fault::DropAnswer).nth(1));
    assert_eq!(client.ask(PUT).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(origin.seen(1)[0].body, b"abcdefghij");
    assert_eq!((proxy.log()[0].status, proxy.log()[0].response_bytes), (Some(200), 0));
    let mut again = Client::connect(proxy.address()).unwrap();
    assert_eq!(again.ask(PUT).unwrap().1, b"0123456789");
}

#[test]
fn delayed_request_answered_at_once() {
    let (_origin, proxy, mut client) = setup();
    proxy.add(Rule::new("", "", Fault::Delay(Duration::from_millis(200))));
    let began = Instant::now();
    client.ask(GET).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[test]
fn throttled_bodies_pass_at_once() {
    let origin = Origin::start(&format!("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n{}", "x".repeat(40_000)));
    let proxy = Proxy::start(origin.address);
    proxy.throttle(Some(200_000));
    let timed = |request: &str| {
        let began = Instant::now();
        Client::connect(proxy.address()).unwrap().ask(request).unwrap();
        began.elapsed()
    };
    let up = format!("PUT /b/k HTTP/1.1\r\nContent-Length: 40000\r\n\r\n{}", "y".repeat(40_000));
    assert!(timed(GET) >= Duration::from_millis(190));
    assert!(timed(&up) >= Duration::from_millis(380));
    proxy.clear_rules();
    assert!(timed(GET) < Duration::from_millis(190), "still throttled");
}

#[test]
fn blocked_proxy_answers() {
    let (origin, proxy, mut client) = setup();
    client.ask(GET).unwrap();
    proxy.block();
    assert!(client.ask(GET).is_err(), "an open connection goes on");
    assert_eq!(Client::connect(proxy.address()).err().map(|e| e.kind()), Some(ErrorKind::ConnectionRefused));
    assert_eq!(origin.seen(1).len(), 1);
    proxy.unblock();
    Client::connect(proxy.address()).unwrap().ask(GET).unwrap();
}

#[test]
fn dropped_proxy_answers() {
    let (_origin, proxy, mut client) = setup();
    client.ask(GET).unwrap();
    let address = proxy.address();
    drop(proxy);
    assert!(client.ask(GET).is_err());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn rule_strikes_another_request() {
    let (_origin, proxy, mut client) = setup();
    let third = proxy.add(Rule::new("GET", "/b/k", Fault::INTERNAL_ERROR).nth(3));
    let put =
        proxy.add(Rule::when(Fault::INTERNAL_ERROR, |request| request.header("if-none-match") == Some("*")).times(1));
    let mut status = |request: &str| client.ask(request).unwrap().0[9..12].to_owned();
    assert_eq!([GET, GET, PUT, GET, GET].map(&mut status), ["200", "200", "200", "500", "200"]);
    let once = "PUT /b/k HTTP/1.1\r\nIf-None-Match: *\r\n\r\n";
    assert_eq!([once, once].map(&mut status), ["500", "200"]);
    assert_eq!((third.count(), put.count()), (1, 1));
}

#[test]
fn operations_misnamed() {
    for line in [
        "CreateMultipartUpload POST /b/k?uploads",
        "CompleteMultipartUpload POST /b/k?uploadId=1",
        "AbortMultipartUpload DELETE /b/k?uploadId=1&x-id=AbortMultipartUpload",
        "UploadPart PUT /b/k?partNumber=1&uploadId=1",
        "ListParts GET /b/k?uploadId=1",
        "PutObject PUT /b/k?x-id=PutObject",
        "GetObject GET /b/some/k",
        "ListObjectsV2 GET /b/?list-type=2&prefix=a%2Fb",
        "ListMultipartUploads GET /b?uploads",
        "HeadObject HEAD /b/k",
        "DeleteObject DELETE /b/k",
        "CreateBucket PUT /b/",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let request = Request { method: words[1].into(), target: words[2].into(), headers: Vec::new() };
        assert_eq!(request.operation(), words[0], "{line}");
    }
}

/// The Host header is signed: a proxy that rewrote it would be refused.
#[test]
fn signature_for_the_proxy_refused_by_seaweed() {
    let Some(server) = Server::shared() else { return };
    server.create_bucket("proxied");
    let proxy = Proxy::start(server.address());
    let data = noise(5, 3_000_000);
    let send = |method, headers: &[(&str, &str)], body: &[u8]| {
        signed_request(server.keys(), &proxy.endpoint(), None, method, "/proxied/a key", headers, body)
    };
    proxy.add(Rule::new("PutObject", "a%20key", Fault::DropAnswer).nth(1));
    let lost = send("PUT", &[("If-None-Match", "*")], &data);
    assert!(lost.is_err(), "{lost:?}");
    assert_eq!(send("PUT", &[("If-None-Match", "*")], &data).unwrap().status, 412, "it was not stored");
    assert!(send("GET", &[], b"").unwrap().body == data);
    assert_eq!((proxy.counts().up, proxy.counts().down >= 3_000_000), (6_000_000, true));
    // SeaweedFS compares with a checksum that it is given, and never with the payload's digest in the signature
    proxy.add(Rule::new("PutObject", "", Fault::FlipRequest(1_000_000)));
    let checksum = Base64::encode_string(&Sha256::digest(&data));
    let flipped = send("PUT", &[("x-amz-checksum-sha256", &checksum)], &data).unwrap();
    assert_eq!(flipped.status, 400, "a flipped bit was not noticed");
}
