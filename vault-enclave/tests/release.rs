//! The enclave's client against brokers that lie, and against whoever sits between: KEY_RELEASE.md. Each test is
//! named after what would go wrong.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

#[path = "release/canned.rs"]
mod canned;

use canned::{Answer, Canned, Draft, Keys, Wrapped, elsewhere, refusal, rng, step, wrapped};
use rustls::NamedGroup;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use vault_attest::release::{Grant, MAX_ANSWER, MEDIA_TYPE, Retry, answer_digest, encode};
use vault_attest::tlog::{LogSigner, Outcome};
use vault_core::header::{Header, hex};
use vault_core::io::{Input, Output};
use vault_core::recipient::Recipient;
use vault_core::recipient::broker::{BrokerKey, BrokerRecipient};
use vault_core::recipient::xwing::XWingIdentity;
use vault_core::seal::{SealOptions, SourceEntry, seal};
use vault_core::secret::Secret;
use vault_core::signature::{PublisherKey, SignatureSection};
use vault_enclave::Tcp;
use vault_enclave::release::{Attester, Client, Pinned, ReleaseError, ReleasedKey, Source};

/// 2026-11-18: within the canned certificate's year.
const NOW_S: u64 = 1_795_000_000;

#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// Says what it is told; the canned broker does not look.
struct Paper(bool);

impl Attester for Paper {
    fn attest(&mut self, nonce: &[u8; 32], user_data: &[u8; 32], _: Option<&[u8]>) -> Result<Vec<u8>, String> {
        if self.0 { Ok([&nonce[..], user_data].concat()) } else { Err("no device".into()) }
    }
}

fn sealed(to: &dyn Recipient) -> Header {
    let (mut input, mut artifact) = (&b"weights"[..], Vec::new());
    let entry = SourceEntry { path: "m".into(), input: Input::Stream(&mut input) };
    seal(vec![entry], &[to], &SealOptions::new("m"), &mut rng(), Output::Stream(&mut artifact)).unwrap();
    Header::parse(&artifact).unwrap()
}

fn for_key(key: &BrokerKey) -> Header {
    sealed(&BrokerRecipient::new(key.public().clone(), "prod", None).unwrap())
}

fn pinned(broker: &Canned) -> Pinned {
    let url = format!("https://localhost:{}", broker.port);
    let (keys, log) = (vec![*broker.keys.broker.id()], broker.keys.log.verifier().clone());
    Pinned { url, ca_pem: broker.ca_pem.clone().into_bytes(), keys, log }
}

fn client(broker: &Canned, pinned: Pinned, now_s: u64) -> Client {
    Client::new(pinned, Arc::new(Tcp(format!("127.0.0.1:{}", broker.port))), Arc::new(Clock(now_s))).unwrap()
}

fn ask(broker: &Canned) -> Result<ReleasedKey, ReleaseError> {
    let header = for_key(&broker.keys.broker);
    client(broker, pinned(broker), NOW_S).request_key(&header, &mut Paper(true), &mut rng())
}

/// The step at which the client refused.
#[track_caller]
fn refused_at(broker: &Canned) -> String {
    match ask(broker) {
        Err(ReleaseError::Protocol(refusal)) => step(&refusal),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it took the answer"),
    }
}

fn honest(_: &mut Draft, _: &[u8]) {}

fn unchanged(_: &mut Grant) {}

#[test]
fn an_honest_brokers_key_opens_the_artifact_and_no_other() {
    let broker = Canned::granting(honest, unchanged);
    let header = for_key(&broker.keys.broker);
    let key = client(&broker, pinned(&broker), NOW_S).request_key(&header, &mut Paper(true), &mut rng()).unwrap();
    assert!(header.unlock(&[key.identity()]).is_ok());
    assert!(for_key(&broker.keys.broker).unlock(&[key.identity()]).is_err());
    let Source::Broker { decision, logged } = &key.source else { panic!("{}", key.source) };
    assert_eq!((decision.as_str(), logged.index), ("09090909090909090909090909090909", 0));
    assert_eq!(broker.asked(), ["/v1/challenge", "/v1/release"]);
    assert!(broker.groups().iter().all(|group| *group == NamedGroup::X25519MLKEM768), "{:?}", broker.groups());
}

#[test]
fn challenges_of_another_form_are_refused_at_r_20() {
    let challenged = |body: fn(&Keys) -> Vec<u8>| Canned::new(Box::new(move |k, _, _, _| (200, MEDIA_TYPE, body(k))));
    let trailing = |k: &Keys| [encode(&k.challenge()), vec![0]].concat();
    let no_keys = |k: &Keys| {
        let mut challenge = k.challenge();
        challenge.keys.clear();
        encode(&challenge)
    };
    for broker in [challenged(|_| vec![]), challenged(trailing), challenged(no_keys)] {
        assert_eq!(refused_at(&broker), "R-20");
        assert_eq!(broker.asked(), ["/v1/challenge"]);
    }
}

#[test]
fn a_key_that_is_not_pinned_is_not_asked_for() {
    let broker = Canned::granting(honest, unchanged);
    let other = BrokerKey::generate(&mut rng());
    let stranger = XWingIdentity::generate(&mut rng());
    let pins = |id: &[u8; 32]| Pinned { keys: vec![*id], ..pinned(&broker) };
    let cases = [
        ("the broker has another", pins(other.id()), for_key(&other)),
        ("sealed for another broker", pinned(&broker), for_key(&other)),
        ("sealed for a key file", pinned(&broker), sealed(stranger.recipient())),
    ];
    for (what, pinned, header) in cases {
        let asked = client(&broker, pinned, NOW_S).request_key(&header, &mut Paper(true), &mut rng());
        let Err(ReleaseError::Protocol(refusal)) = asked else { panic!("{what}") };
        assert_eq!(step(&refusal), "R-20", "{what}");
    }
    assert!(!broker.asked().contains(&"/v1/release".into()));
}

#[test]
fn without_evidence_nothing_is_sent() {
    let broker = Canned::granting(honest, unchanged);
    let header = for_key(&broker.keys.broker);
    let asked = client(&broker, pinned(&broker), NOW_S).request_key(&header, &mut Paper(false), &mut rng());
    assert!(matches!(asked, Err(ReleaseError::Attester(why)) if why == "no device"));
    assert_eq!(broker.asked(), ["/v1/challenge"]);
}

#[test]
fn grants_of_another_form_are_refused_at_r_21() {
    let grants: [fn(&mut Grant); 4] = [
        |grant| grant.enc = vec![1; 1119].into(),
        |grant| grant.entry = vec![].into(),
        |grant| grant.entry = vec![b' '; 16 * 1024 + 1].into(),
        |grant| grant.proof.clear(),
    ];
    for change in grants {
        assert_eq!(refused_at(&Canned::granting(honest, change)), "R-21");
    }
    let body = |body: fn(Answer) -> Vec<u8>| {
        Canned::releasing(move |keys, request, _| (200, MEDIA_TYPE, body(keys.grant(request, &|_| (), &|_| ()))))
    };
    let bodies: [fn(Answer) -> Vec<u8>; 3] =
        [|_| vec![], |good| [good.2, vec![0]].concat(), |good| good.2.split_last().unwrap().1.to_vec()];
    for cut in bodies {
        assert_eq!(refused_at(&body(cut)), "R-21");
    }
}

/// A broker that logs what it answers, and answers nothing that opens.
#[test]
fn a_dek_of_another_artifact_or_for_another_enclave_is_refused_at_r_21() {
    fn answering(with: fn(&Draft, &[u8]) -> Wrapped) -> Canned {
        let lie = move |draft: &mut Draft, request: &[u8]| {
            (draft.enc, draft.wrapped) = with(draft, request);
            draft.entry.answer = Some(hex(&answer_digest(&draft.enc, &draft.wrapped)));
        };
        Canned::granting(lie, unchanged)
    }
    assert_eq!(refused_at(&answering(|draft, request| wrapped([3; 32], request, &draft.binding))), "R-21");
    assert_eq!(refused_at(&answering(|draft, request| elsewhere(&draft.binding, request))), "R-21");
    assert_eq!(refused_at(&answering(|draft, _| (draft.enc.clone(), [0; 48]))), "R-21");
    let other_binding = |_: &Draft, request: &[u8]| {
        let salt_of_none = vault_core::header::Section { kind: 4, body: vec![] };
        let binding = vault_attest::release::Binding::new(&[0; 32], &[0; 1216], &[0; 32], &salt_of_none);
        wrapped([3; 32], request, &binding)
    };
    assert_eq!(refused_at(&answering(other_binding)), "R-21");
}

/// What stands in the log is not this decision, or not a grant.
#[test]
fn a_log_entry_of_another_decision_is_refused_at_r_22() {
    let lies: [fn(&mut Draft, &[u8]); 9] = [
        |draft, _| draft.entry.id = hex(&[8; 16]),
        |draft, _| draft.entry.artifact = Some(hex(&[8; 32])),
        |draft, _| draft.entry.artifact = None,
        |draft, _| draft.entry.binding = Some(hex(&[8; 32])),
        |draft, _| draft.entry.binding = None,
        |draft, _| draft.entry.answer = Some(hex(&[8; 32])),
        |draft, _| draft.entry.answer = None,
        |draft, _| draft.entry.outcome = Outcome::Refused,
        |draft, _| draft.entry.v = 2,
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        assert_eq!(refused_at(&Canned::granting(lie, unchanged)), "R-22", "lie {n}");
    }
}

/// Whoever sits between, or holds the broker's X-Wing key without its log key.
#[test]
fn an_answer_that_the_pinned_log_does_not_hold_is_refused_at_r_22() {
    fn other_log(name: &str) -> Option<LogSigner> {
        LogSigner::new(name, &Secret::random(32, &mut rng())).ok()
    }
    let lies: [fn(&mut Draft, &[u8]); 2] =
        [|draft, _| draft.log = other_log("test.example/log"), |draft, _| draft.log = other_log("other.example/log")];
    for lie in lies {
        assert_eq!(refused_at(&Canned::granting(lie, unchanged)), "R-22");
    }
    let changes: [fn(&mut Grant); 6] = [
        |grant| grant.id = [8; 16].into(),
        |grant| grant.wrapped[0] ^= 1,
        |grant| grant.enc[0] ^= 1,
        |grant| *grant.entry.last_mut().unwrap() = b' ',
        |grant| grant.proof = grant.proof.replace("index 0", "index 1"),
        |grant| grant.proof.truncate(grant.proof.len() - 20),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        assert_eq!(refused_at(&Canned::granting(honest, change)), "R-22", "change {n}");
    }
}

#[test]
fn an_obligation_is_signed_and_kept() {
    let broker = Canned::granting(|draft, _| draft.entry.minimum_model_version = Some(3), unchanged);
    let key = ask(&broker).unwrap();
    assert!(key.check_version(3).is_ok() && key.check_version(4).is_ok());
    assert_eq!(step(&key.check_version(2).unwrap_err()), "R-23");
    let dropped = |grant: &mut Grant| {
        let text = String::from_utf8(grant.entry.to_vec()).unwrap();
        grant.entry = text.replace("\"minimum_model_version\":3,", "").into_bytes().into();
    };
    let lie = |draft: &mut Draft, _: &[u8]| draft.entry.minimum_model_version = Some(3);
    assert_eq!(refused_at(&Canned::granting(lie, dropped)), "R-22");
    assert!(ask(&Canned::granting(honest, unchanged)).unwrap().check_version(0).is_ok());
}

/// The signature of an artifact that somebody signed.
fn signature() -> SignatureSection {
    let (key, to) = (PublisherKey::generate(&mut rng()), XWingIdentity::generate(&mut rng()));
    let file = tempfile::tempfile().unwrap();
    let entry = SourceEntry { path: "m".into(), input: Input::At { file: &&b"weights"[..], offset: 0, len: 7 } };
    let options = SealOptions { sign: Some(&key), ..SealOptions::new("m") };
    seal(vec![entry], &[to.recipient()], &options, &mut rng(), Output::At(&file)).unwrap();
    let mut start = vec![0; 16 << 10];
    file.read_exact_at(&mut start, 0).unwrap();
    Header::read(&mut &start[..]).unwrap().signature().unwrap()
}

#[test]
fn a_signer_that_the_policy_demands_is_an_obligation() {
    let ids = ["ab".repeat(32), "cd".repeat(32)];
    let demand = |draft: &mut Draft, [signer, payload]: [Option<&String>; 2]| {
        (draft.entry.signer, draft.entry.payload) = (signer.cloned(), payload.cloned());
    };
    let [signer, payload] = ids.clone();
    let both = move |draft: &mut Draft, _: &[u8]| demand(draft, [Some(&signer), Some(&payload)]);
    let key = ask(&Canned::granting(both, unchanged)).unwrap();
    assert_eq!(step(&key.check_signature(None).unwrap_err()), "R-23");
    let other = key.check_signature(Some(&signature())).unwrap_err();
    assert_eq!((step(&other).as_str(), other.what.as_str()), ("R-23", "the model's signer"));
    let section = signature();
    let (id, digest) = (hex(&section.key_id), hex(&section.payload.digest));
    for (digest, fine) in [(digest, true), (ids[1].clone(), false)] {
        let id = id.clone();
        let of_ours = move |draft: &mut Draft, _: &[u8]| demand(draft, [Some(&id), Some(&digest)]);
        let checked = ask(&Canned::granting(of_ours, unchanged)).unwrap().check_signature(Some(&section));
        assert_eq!(
            checked.map_err(|refusal| refusal.what),
            if fine { Ok(()) } else { Err("the signed payload".into()) }
        );
    }
    let signer = ids[0].clone();
    let half = move |draft: &mut Draft, _: &[u8]| demand(draft, [Some(&signer), None]);
    assert_eq!(refused_at(&Canned::granting(half, unchanged)), "R-21");
    assert!(ask(&Canned::granting(honest, unchanged)).unwrap().check_signature(None).is_ok());
}

#[test]
fn it_asks_again_for_a_new_challenge_once_and_otherwise_not() {
    let releases = |broker: &Canned| broker.asked().iter().filter(|path| *path == "/v1/release").count();
    let first = Canned::releasing(|keys, body, before| match before {
        0 => refusal("R-3", "new-challenge", None),
        _ => keys.grant(body, &|_| (), &|_| ()),
    });
    assert!(ask(&first).is_ok());
    assert_eq!(first.asked(), ["/v1/challenge", "/v1/release", "/v1/challenge", "/v1/release"]);
    for (step, retry, wait, times) in
        [("R-3", "new-challenge", None, 2), ("P-5", "never", None, 1), ("R-12", "later", Some(30), 1)]
    {
        let broker = Canned::releasing(move |_, _, _| refusal(step, retry, wait));
        let Err(ReleaseError::Refused { step: at, id, retry: again, hint, wait_s }) = ask(&broker).map(|_| ()) else {
            panic!("{step}")
        };
        assert_eq!((at.as_str(), id.as_str(), hint.as_str()), (step, "09".repeat(16).as_str(), "a hint[2J"));
        assert_eq!((again.to_string().as_str(), wait_s, releases(&broker)), (retry, wait, times));
    }
    assert_eq!(Retry::parse("never"), Some(Retry::Never));
}

#[test]
fn answers_that_are_no_messages_say_so() {
    let error = |status, media_type, body: &'static [u8]| {
        ask(&Canned::releasing(move |_, _, _| (status, media_type, body.to_vec()))).map(|_| ()).unwrap_err()
    };
    for refused in [error(403, MEDIA_TYPE, b""), error(403, MEDIA_TYPE, b"\xa0")] {
        assert!(matches!(&refused, ReleaseError::Protocol(refusal) if step(refusal) == "R-21"), "{refused}");
    }
    let unavailable = error(503, "text/plain", b"the database\x1b[2J fails\nsecond line");
    assert!(matches!(&unavailable, ReleaseError::Status { status: 503, .. }));
    assert_eq!(unavailable.to_string(), "the broker answered with status 503: the database[2J fails");
    assert!(matches!(error(200, "text/html", b"<html>"), ReleaseError::Status { status: 200, .. }));
    let unknown = Canned::releasing(|_, _, _| refusal("X-1", "never", None));
    assert_eq!(refused_at(&unknown), "R-21");
}

#[test]
fn an_answer_without_end_is_cut() {
    let broker = Canned::releasing(|_, _, _| (200, MEDIA_TYPE, vec![0; MAX_ANSWER + 1]));
    assert!(matches!(ask(&broker), Err(ReleaseError::Connection { .. })));
}

/// One rule of the certificate broken at a time.
#[test]
fn a_server_that_is_not_the_pinned_one_gets_no_request() {
    let broker = Canned::granting(honest, unchanged);
    let other = Canned::granting(honest, unchanged);
    let header = for_key(&broker.keys.broker);
    let other_ca = Pinned { ca_pem: other.ca_pem.clone().into_bytes(), ..pinned(&broker) };
    let other_name = Pinned { url: format!("https://broker.example:{}", broker.port), ..pinned(&broker) };
    let year = 366 * 86_400;
    let cases = [
        ("another CA", other_ca, NOW_S),
        ("another name", other_name, NOW_S),
        ("expired", pinned(&broker), NOW_S + year),
        ("not yet valid", pinned(&broker), NOW_S - year),
    ];
    for (what, pinned, now_s) in cases {
        let asked = client(&broker, pinned, now_s).request_key(&header, &mut Paper(true), &mut rng());
        assert!(matches!(asked, Err(ReleaseError::Tls { .. })), "{what}: {}", asked.err().unwrap());
    }
    assert!(broker.asked().is_empty());
}

#[test]
fn a_server_without_tls_or_none_at_all_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut broker = Canned::granting(honest, unchanged);
    broker.port = listener.local_addr().unwrap().port();
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        stream
    });
    let asked = ask(&broker);
    assert!(matches!(asked, Err(ReleaseError::Tls { .. })), "{}", asked.err().unwrap());
    drop(plain.join().unwrap()); // and the port with it: nobody listens any more
    let asked = ask(&broker);
    assert!(matches!(asked, Err(ReleaseError::Connection { .. })), "{}", asked.err().unwrap());
}

#[test]
fn pins_that_are_none_are_refused_before_anything_is_sent() {
    let broker = Canned::granting(honest, unchanged);
    let made =
        |pinned: Pinned| Client::new(pinned, Arc::new(Tcp("127.0.0.1:1".into())), Arc::new(Clock(NOW_S))).map(|_| ());
    for url in ["http://localhost", "https://", "https://a/b", "https://u@a", "https://a:x", "https://a:65536", "a", ""]
    {
        let refused = made(Pinned { url: url.into(), ..pinned(&broker) });
        assert!(matches!(refused, Err(ReleaseError::Pinned(_))), "{url}");
    }
    for url in ["https://a", "https://a:1", "https://127.0.0.1:8443", "https://[::1]:8443"] {
        assert!(made(Pinned { url: url.into(), ..pinned(&broker) }).is_ok(), "{url}");
    }
    for ca_pem in [&b""[..], b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(made(Pinned { ca_pem: ca_pem.into(), ..pinned(&broker) }), Err(ReleaseError::Pinned(_))));
    }
}
