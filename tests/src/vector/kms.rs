//! Vectors of aws-kms stanzas, FORMAT.md 4.3, which no KMS is needed for: the reader is given the data key (`data-key`)
//! that KMS would have given, or another identity.

use super::positive::{file, number};
use super::{Case, Vector, empty, reader};
use crate::forge::{AWS_KMS, Keys, Parts, Section};
use vault_core::header::hex;

const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
/// What KMS makes of a data key: as long as it is today.
const BLOB: [u8; 184] = [0xB1; 184];
const DATA_KEY: [u8; 32] = [0xD7; 32];

/// An artifact with these stanzas and no other.
pub(super) fn artifact(name: &str, stanzas: &dyn Fn(&Keys) -> Vec<Section>) -> Parts {
    let mut parts = Parts::new(number(name), &file(0), 4096, &[]);
    let stanzas = stanzas(&parts.keys);
    parts.header_len = 16_384;
    parts.sections.splice(0..0, stanzas);
    parts
}

fn with_data_key(name: &str, about: &str) -> Case {
    Case::new(name, about).with("data-key", hex(&DATA_KEY))
}

fn good(keys: &Keys) -> Section {
    keys.aws_kms(ARN.as_bytes(), &BLOB, DATA_KEY)
}

/// Stanzas of other forms, all wrapped with the right data key.
fn other_forms(keys: &Keys) -> Vec<Section> {
    let arn = |arn: &str| keys.aws_kms(arn.as_bytes(), &BLOB, DATA_KEY);
    let (mut long, mut short) = (good(keys), good(keys));
    long.1.push(0);
    short.1.pop();
    let id = "k".repeat(2049 - ARN.len() + 36);
    vec![
        arn("arn:aws:kms:eu-west-1:111122223333:alias/models"),
        arn("arn:aws:kms:eu-west-1.example/:111122223333:key/1234"),
        arn("arn:aws:kms:-eu:111122223333:key/1234"),
        arn("arn:aws:kms:eu-west-1:1111222233334:key/1234"),
        arn(&format!("{ARN}\n")),
        arn(&ARN.replace("1234abcd-12ab-34cd-56ef-1234567890ab", &id)),
        keys.aws_kms(ARN.as_bytes(), &[], DATA_KEY),
        keys.aws_kms(ARN.as_bytes(), &[1; 6145], DATA_KEY),
        long,
        short,
        (AWS_KMS, vec![]),
        (AWS_KMS, vec![0, 200, 1]),
    ]
}

pub(super) fn all() -> Vec<Vector> {
    [opened(), refused()].concat()
}

fn opened() -> Vec<Vector> {
    let small = file(0);
    let most = |keys: &Keys| {
        let arn = format!("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/{}", "k".repeat(2048 - 50));
        vec![keys.aws_kms(arn.as_bytes(), &[2; 6144], DATA_KEY)]
    };
    let mut beside = empty(number("kms-beside-key"));
    beside.sections.insert(0, good(&beside.keys));
    let passed = artifact("kms-passed-over", &|keys| {
        let mut damaged = good(keys);
        damaged.1[300] ^= 1;
        [other_forms(keys), vec![damaged, good(keys)]].concat()
    });
    vec![
        with_data_key("kms", "a key in AWS KMS").opens(&small, artifact("kms", &|k| vec![good(k)]).build()),
        with_data_key("kms-most", "the longest ARN and the longest blob")
            .opens(&small, artifact("kms-most", &most).build()),
        Case::new("kms-beside-key", "a key file; the aws-kms stanza before it is not for it")
            .with("identity", reader().secret_line())
            .opens(&file(0), beside.build()),
        with_data_key("kms-passed-over", "aws-kms stanzas of other forms and a damaged one, then one that opens")
            .opens(&small, passed.build()),
    ]
}

fn refused() -> Vec<Vector> {
    let of = |rules: &str, name: &str, about: &str, stanzas: &dyn Fn(&Keys) -> Vec<Section>| {
        with_data_key(name, about).refused(rules, b"", artifact(name, stanzas).build())
    };
    let other = |k: &Keys| Keys { salt: [9; 32], ..k.clone() };
    vec![
        of("F-40 F-18", "kms-forms", "aws-kms stanzas of other forms, wrapped with the right data key", &other_forms),
        of("F-18", "kms-other-artifact", "the stanza was wrapped for another salt", &|k| vec![good(&other(k))]),
        of("F-18", "kms-other-data-key", "the stanza was wrapped with another data key", &|k| {
            vec![k.aws_kms(ARN.as_bytes(), &BLOB, [1; 32])]
        }),
        of("F-18", "kms-arn-changed", "the ARN was changed after wrapping", &|k| {
            let mut stanza = good(k);
            stanza.1[2 + ARN.len() - 1] = b'c';
            vec![stanza]
        }),
        of("F-18", "kms-blob-changed", "the blob was changed after wrapping", &|k| {
            let mut stanza = good(k);
            stanza.1[100] ^= 1;
            vec![stanza]
        }),
        of("F-12", "kms-critical", "an aws-kms stanza carries the critical bit", &|k| {
            vec![(AWS_KMS | 0x8000, good(k).1)]
        }),
    ]
}
