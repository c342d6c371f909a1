//! Peers that are old, slow, silent, too many or too big are turned away, and others are served meanwhile.

use crate::rig::Rig;
use mvault_tests::asker::wire::read_answer;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A broker with a short patience.
fn impatient() -> Rig {
    let mut rig = Rig::new();
    for key in ["head_timeout_s", "body_timeout_s"] {
        rig.set(key, "1");
    }
    rig.start();
    rig
}

/// A ClientHello as TLS 1.2 has it: without supported_versions there is no 1.3.
fn hello_of_tls_1_2() -> Vec<u8> {
    let groups = [0, 10, 0, 4, 0, 2, 0, 29];
    let schemes = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [&[0, 16][..], &groups, &schemes].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0xC0, 0x2B], &[1, 0], &extensions].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

/// Reads to the end, whatever ends it.
fn rest(stream: &mut impl Read) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..n]);
    }
    all
}

fn tcp(rig: &Rig) -> TcpStream {
    let stream = TcpStream::connect(rig.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

#[test]
fn tls_1_2_and_plain_http_are_refused() {
    let rig = Rig::started();
    let mut stream = tcp(&rig);
    stream.write_all(&hello_of_tls_1_2()).unwrap();
    let said = rest(&mut stream);
    assert_eq!((said.first(), said.last()), (Some(&21), Some(&70)), "expected the alert protocol_version in {said:?}");
    let mut stream = tcp(&rig);
    stream.write_all(b"POST /v1/challenge HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(!String::from_utf8_lossy(&rest(&mut stream)).contains("HTTP"));
    rig.asker().challenge();
    assert!(rig.admin("/metrics").contains("mvault_broker_handshake_errors_total 2"));
}

#[test]
fn slow_and_silent_clients_are_cut_off() {
    let rig = impatient();
    let began = Instant::now();
    let mut silent = tcp(&rig);
    let mut slow_head = rig.wire().connect().unwrap();
    slow_head.write_all(b"POST /v1/release HTTP/1.1\r\nhost: ").unwrap();
    let mut slow_body = rig.wire().connect().unwrap();
    slow_body.write_all(b"POST /v1/release HTTP/1.1\r\nhost: localhost\r\ncontent-length: 90000\r\n\r\nx").unwrap();
    rig.asker().challenge(); // others are served meanwhile
    assert_eq!(rest(&mut silent), b"");
    let (answer, _) = read_answer(&mut slow_body).unwrap();
    assert_eq!(answer.status, 408);
    let said = String::from_utf8_lossy(&rest(&mut slow_head)).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    // Cut off by the second that is configured, not by the ten that are the default.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn oversize_and_garbage_requests_are_refused() {
    let rig = Rig::started();
    let mut wire = rig.wire();
    assert_eq!(wire.post("/v1/release", &vec![0; 98_305]).unwrap().status, 413);
    assert_eq!(rig.wire().post("/v1/release", &vec![0; 98_304]).unwrap().status, 400);
    let chunks = "POST /v1/release HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = rig.wire().connect().unwrap();
    stream.write_all(chunks.as_bytes()).unwrap();
    for _ in 0..8 {
        let chunk = [&b"4000\r\n"[..], &[0; 0x4000], b"\r\n"].concat();
        if stream.write_all(&chunk).is_err() {
            break; // answered and closed already
        }
    }
    assert_eq!(read_answer(&mut stream).unwrap().0.status, 413);
    let header = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let headers = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(40));
    for garbage in ["\0\u{1}\u{2}", "GET / HTTP/9\r\n\r\n", "hello\r\n\r\n", &header, &headers] {
        let mut stream = rig.wire().connect().unwrap();
        stream.write_all(garbage.as_bytes()).unwrap();
        let _ = stream.sock.shutdown(std::net::Shutdown::Write); // it may be closed already
        let said = String::from_utf8_lossy(&rest(&mut stream)).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    for (path, status) in [("/", 404), ("/v1/release", 404), ("/v1/log/consistency?from=2&to=1", 404)] {
        assert_eq!(rig.wire().get(path).unwrap().status, status, "{path}");
    }
    assert_eq!(rig.wire().get("/v1/log/consistency?from=x").unwrap().status, 400);
    rig.asker().challenge();
}

#[test]
fn too_many_connections_and_requests_are_turned_away() {
    let mut rig = Rig::new();
    rig.set("connections", "5");
    rig.set("connections_per_source", "4");
    rig.set("requests_per_second_per_source", "2");
    rig.start();
    let mut wires: Vec<_> = (0..4).map(|_| rig.wire().connect().unwrap()).collect();
    let error = rig.wire().connect().err().map(|e| e.kind());
    assert!(matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)), "{error:?}");
    let mut statuses = Vec::new();
    for _ in 0..8 {
        wires[0].write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        statuses.push(read_answer(&mut wires[0]).unwrap().0.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    drop(wires);
    let metrics = rig.admin("/metrics");
    for limit in ["connections_per_source", "requests_per_second_per_source"] {
        assert!(metrics.contains(&format!("mvault_broker_limited_total{{limit=\"{limit}\"}}")), "{metrics}");
    }
    let log = rig.shop.mvault("broker log broker --json").ok().json();
    assert_eq!(log["size"], 0, "what limits turned away does not fill the log");
}
