//! Every near miss is refused at its step, and `mvault broker why` names its cause and what to do: broker/why.md, written anew
//! with `MVAULT_BLESS=1`, to be read before it is committed.

use crate::cases::{CASES, World};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use vault_attest::tlog::LogVerifier;
use vault_core::header::Header;
use vault_enclave::Tcp;
use vault_enclave::release::{Attester, Client, Pinned, ReleaseError};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/why.md");

#[test]
fn near_misses_are_refused_at_their_step_and_why_says_what_to_do() {
    let mut world = World::new();
    let mut found = String::from("# What is said about requests that one thing is wrong with\n");
    for (name, step, make) in CASES {
        let body = make(&mut world);
        for before in std::mem::take(&mut world.granted_before) {
            world.asker.ask(&before).granted();
        }
        let refusal = world.asker.ask(&body).refused();
        let why = world.rig.why(&*refusal.id);
        assert_eq!(refusal.step, *step, "{name}: {why}");
        assert!(why.contains("\nfix: "), "{name}: {why}");
        let told = format!("{} {} {}", refusal.step, refusal.retry, refusal.hint);
        assert!(!told.contains("a0a0") && !told.contains("prod"), "{name} tells the peer too much: {told}");
        write!(found, "\n## {name}\n\n```\nthe peer is told: {told}\n{}```\n", blurred(&why)).unwrap();
    }
    for (name, said) in client_cases(&mut world) {
        write!(found, "\n## {name}\n\n```\n{}```\n", blurred(&said)).unwrap();
    }
    write!(found, "\n## kms_condition_missing\n\n```\n{}```\n", blurred(&kms_condition_missing(&world))).unwrap();
    let good = world.good(|_| {});
    world.asker.ask(&good).granted(); // after all of that an honest enclave still gets its key
    let bless = std::env::var_os("MVAULT_BLESS").is_some();
    if bless {
        std::fs::write(GOLDEN, &found).unwrap();
    }
    let wanted = std::fs::read_to_string(Path::new(GOLDEN)).unwrap();
    for (wanted, found) in wanted.lines().zip(found.lines()) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.lines().count(), wanted.lines().count());
    world.rig.shop.mvault("broker log broker --verify").ok();
}

/// What is said about a key policy of AWS KMS that demands no evidence.
fn kms_condition_missing(world: &World) -> String {
    let role = "arn:aws:iam::111122223333:role";
    let args = format!("policy kms broker/policies/prod.toml --admin {role}/keys --principal {role}/enclaves");
    let shop = &world.rig.shop;
    let mut policy = shop.mvault(&args).ok().json();
    shop.write("good.json", policy.to_string().as_bytes());
    shop.mvault("policy lint good.json --policy broker/policies/prod.toml").ok();
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.retain(|statement| statement["Effect"] == "Allow");
    for statement in statements {
        statement.as_object_mut().unwrap().remove("Condition");
    }
    shop.write("open.json", policy.to_string().as_bytes());
    shop.mvault("policy lint open.json --policy broker/policies/prod.toml").fails(1, "open").text()
}

/// Fails before there is anything to sign.
struct NoHardware;

impl Attester for NoHardware {
    fn attest(&mut self, _: &[u8; 32], _: &[u8; 32], _: Option<&[u8]>) -> Result<Vec<u8>, String> {
        Err("/dev/nsm: no such file".into())
    }
}

/// What an enclave says whose own configuration is wrong: the broker never learns of most of them.
fn client_cases(world: &mut World) -> Vec<(&'static str, String)> {
    let rig = &world.rig;
    let (port, keys) = (rig.address.port(), rig.keyring().keys().iter().map(|k| *k.key.id()).collect());
    let good = Pinned {
        url: format!("https://localhost:{port}"),
        ca_pem: rig.ca().into_bytes(),
        keys,
        log: LogVerifier::parse(&rig.client("log")).unwrap(),
    };
    let other = rig.shop.read("broker2/tls/ca.pem");
    let plain = format!("localhost:{}", rig.admin.port());
    let at = format!("localhost:{port}");
    let header = Header::parse_unpadded(&rig.header("prod")).unwrap();
    let cases = [
        ("tls_ca_of_another_broker", Pinned { ca_pem: other, ..good.clone() }, &at),
        (
            "tls_name_that_the_certificate_has_not",
            Pinned { url: format!("https://127.0.0.2:{port}"), ..good.clone() },
            &at,
        ),
        ("tls_on_a_plain_port", good.clone(), &plain),
        ("url_without_tls", Pinned { url: format!("http://localhost:{port}"), ..good.clone() }, &at),
        ("wrong_broker_key_pinned", Pinned { keys: vec![[5; 32]], ..good.clone() }, &at),
        ("no_nsm", good.clone(), &at),
    ];
    let ask = |pinned: Pinned, at: &str| {
        let clock = Arc::new(rustls::time_provider::DefaultTimeProvider);
        let client = Client::new(pinned, Arc::new(Tcp(at.to_owned())), clock)?;
        client.request_key(&header, &mut NoHardware, &mut crate::cases::system_rng()).map(|_| ())
    };
    let mut said = Vec::new();
    for (name, pinned, at) in cases {
        let error: ReleaseError = ask(pinned, at).expect_err(name);
        let text = format!("{error}\n{}\n", error.hint());
        said.push((name, text.replace(&format!(":{port}"), ":PORT").replace(&rig.admin.port().to_string(), "PORT")));
    }
    said
}

/// What differs from run to run, left out: hex, base64, times, ages.
fn blurred(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|line| {
        !["time:", "source:", "log entry:", "artifact:", "PCR", "broker key:"].iter().any(|head| line.starts_with(head))
    }) {
        let shown = line.split_once("signers = [\"").map(|(before, _)| format!("{before}signers = [\"KEY\"]"));
        let mut rest = shown.as_deref().unwrap_or(line);
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let (before, word) = rest.split_at(start);
            let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || "-:.".contains(c))).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            out.push_str(before);
            out.push_str(&blurred_word(word));
            rest = after;
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

fn blurred_word(word: &str) -> String {
    let hex = |w: &str| w.len() >= 32 && w.bytes().all(|b| b.is_ascii_hexdigit());
    let repeated = hex(word) && word.as_bytes().chunks(2).all(|pair| pair == &word.as_bytes()[..2]);
    let time = word.len() > 19 && word.as_bytes()[10] == b'T' && word.starts_with("20");
    let fixed = ["2099-", "2020-"].iter().any(|year| word.starts_with(year));
    if repeated {
        format!("{}…", &word[..8]) // a PCR of the tests
    } else if hex(word) {
        "HEX".into()
    } else if time && !fixed {
        "TIME".into()
    } else if word.len() > 2 && word.bytes().all(|b| b.is_ascii_digit()) && is_age(word) {
        "AGE".into()
    } else {
        word.into()
    }
}

/// Ages of evidence in seconds, which a slow machine makes longer, and times in seconds since 1970.
fn is_age(word: &str) -> bool {
    word.parse::<u64>().is_ok_and(|n| (100..=110).contains(&n) || (3590..=3700).contains(&n) || n > 1_700_000_000)
}
