//! Vectors of broker stanzas: FORMAT.md section 4.4. The seed of the broker's key stands in the vector, so that the derivation
//! is pinned without a broker.

use super::kms::artifact;
use super::positive::{file, number};
use super::{Case, Vector, empty, reader};
use crate::forge::{BROKER, KeyFile, Keys, Section};
use vault_core::header::hex;

/// Where the policy's name begins: after tag, ciphertext and length.
const NAME_AT: usize = 8 + 1120 + 1;

fn key() -> KeyFile {
    KeyFile::new(4)
}

fn with_seed(name: &str, about: &str) -> Case {
    Case::new(name, about).with("broker-seed", hex(&key().seed))
}

fn good(keys: &Keys) -> Section {
    keys.broker(&key(), b"minilm-prod", [0; 32], 1)
}

/// The stanza with this byte of the body flipped.
fn flipped(keys: &Keys, at: usize) -> Section {
    let mut stanza = good(keys);
    stanza.1[at] ^= 1;
    stanza
}

/// Stanzas of other forms, all wrapped with the right KEK.
fn other_forms(keys: &Keys) -> Vec<Section> {
    let named = |name: &[u8]| keys.broker(&key(), name, [0; 32], 2);
    let (mut long, mut short) = (good(keys), good(keys));
    long.1.push(0);
    short.1.pop();
    vec![
        named(b""),
        named(&[b'a'; 65]),
        named(b"MiniLM"),
        named(b"minilm prod"),
        named("minilm-größe".as_bytes()),
        named(b"minilm\n"),
        named(&[0xFF; 4]),
        long,
        short,
        (BROKER, vec![]),
        (BROKER, good(keys).1[..NAME_AT].to_vec()),
    ]
}

pub(super) fn all() -> Vec<Vector> {
    [opened(), refused()].concat()
}

fn opened() -> Vec<Vector> {
    let small = file(0);
    let mut beside = empty(number("broker-beside-key"));
    beside.sections.insert(0, good(&beside.keys));
    let pinned = |k: &Keys| vec![k.broker(&key(), &[b'z'; 64], [0xD1; 32], 3)];
    let passed = |k: &Keys| {
        let stranger = k.broker(&KeyFile::new(5), b"minilm-prod", [0; 32], 4);
        [other_forms(k), vec![stranger, flipped(k, 300), good(k)]].concat()
    };
    vec![
        with_seed("broker", "a key broker, any content of the policy")
            .opens(&small, artifact("broker", &|k| vec![good(k)]).build()),
        with_seed("broker-pinned", "a policy's name of 64 bytes, and the digest of one policy file")
            .opens(&small, artifact("broker-pinned", &pinned).build()),
        Case::new("broker-beside-key", "a key file; the broker stanza before it is not for it")
            .with("identity", reader().secret_line())
            .opens(&small, beside.build()),
        with_seed(
            "broker-passed-over",
            "broker stanzas of other forms, another broker's, a damaged one, then one that opens",
        )
        .opens(&small, artifact("broker-passed-over", &passed).build()),
    ]
}

fn refused() -> Vec<Vector> {
    let of = |rules: &str, name: &str, about: &str, stanzas: &dyn Fn(&Keys) -> Vec<Section>| {
        with_seed(name, about).refused(rules, b"", artifact(name, stanzas).build())
    };
    let other = |k: &Keys| Keys { salt: [9; 32], ..k.clone() };
    vec![
        of("F-47 F-18", "broker-forms", "broker stanzas of other forms, wrapped with the right KEK", &other_forms),
        of("F-18", "broker-other-artifact", "the stanza was wrapped for another salt", &|k| vec![good(&other(k))]),
        of("F-18", "broker-other-key", "the stanza is another broker's, under this one's tag", &|k| {
            let mut stanza = k.broker(&KeyFile::new(5), b"minilm-prod", [0; 32], 1);
            stanza.1[..8].copy_from_slice(&good(k).1[..8]);
            vec![stanza]
        }),
        of("F-18", "broker-tag", "the tag is not of this key", &|k| vec![flipped(k, 0)]),
        of("F-18", "broker-policy-changed", "the policy's name was changed after wrapping", &|k| {
            vec![flipped(k, NAME_AT + 1)]
        }),
        of("F-18", "broker-digest-changed", "a policy's digest was put in after wrapping", &|k| {
            vec![flipped(k, NAME_AT + 11 + 31)]
        }),
        of("F-18", "broker-as-x-wing", "an x-wing stanza's key derivation in a broker stanza", &|k| {
            vec![k.broker_labelled("x-wing", &key(), b"minilm-prod", [0; 32], 1)]
        }),
        of("F-12", "broker-critical", "a broker stanza carries the critical bit", &|k| {
            vec![(BROKER | 0x8000, good(k).1)]
        }),
    ]
}
