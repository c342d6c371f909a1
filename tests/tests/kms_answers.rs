//! Hostile answers of KMS: whatever lengths and depths they claim, they cost no more heap than their 8 KiB deserve, and
//! no stack.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

use mvault_tests::forge::kms::{Answer, RSAES_OAEP, indefinite, seq, tlv};
use peak_alloc::PeakAlloc;
use vault_attest::kms::{Envelope, MAX_ANSWER, RecipientKey};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Four copies of the largest answer.
const MOST_HEAP: usize = 4 * MAX_ANSWER;
/// Bytes of stack, a tenth of what recursion to the depth of the deepest answer would take.
const STACK: usize = 128 << 10;

fn forms() -> [Answer; 2] {
    let key = RecipientKey::generate().unwrap();
    [Answer::aws(key.public_key_der(), &[1; 32]), Answer::localstack(key.public_key_der(), &[1; 32])]
}

/// Whether it has the form; panics if that took too much to find out.
fn parse(what: &str, answer: &[u8]) -> bool {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let parsed = Envelope::parse(answer).is_ok();
    let heap = HEAP.peak_usage().saturating_sub(before);
    assert!(heap <= MOST_HEAP, "{what}: {heap} bytes of heap");
    parsed
}

/// `depth` headers, one within the other.
fn nested(tag: u8, depth: usize, end: bool) -> Vec<u8> {
    let (begin, end) = ([tag, 0x80].repeat(depth), [0, 0].repeat(if end { depth } else { 0 }));
    [begin, end].concat()
}

/// The same with definite lengths.
fn nested_definite(tag: u8, most: usize) -> Vec<u8> {
    let mut value = vec![];
    while value.len() + 8 < most {
        value = tlv(tag, &value);
    }
    value
}

fn lengths_that_lie() {
    for answer in forms() {
        let good = answer.encode();
        assert!(parse("good", &good));
        for at in 0..good.len() {
            for lie in [
                &[0x80][..],
                &[0x81, 0xFF],
                &[0x82, 0xFF, 0xFF],
                &[0x83, 0xFF, 0xFF, 0xFF],
                &[0x84, 0x0F, 0xFF, 0xFF, 0xFF],
                &[0x84, 0xFF, 0xFF, 0xFF, 0xFF],
                &[0x88, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
                &[0xFF; 9],
            ] {
                parse("a length", &[&good[..at], lie, &good[at + 1..]].concat());
                parse("a length at the end", &[&good[..at], lie].concat());
            }
        }
    }
}

fn depths_without_end() {
    for tag in [0x24, 0x30, 0x31, 0xA0, 0xA1, 0xBF] {
        let room = MAX_ANSWER - 1024;
        let deep = [
            nested(tag, room / 2, false),
            nested(tag, room / 4, true),
            nested(tag, 60, true),
            nested_definite(tag, room),
        ];
        for deep in &deep {
            assert!(!parse("alone", deep));
            for good in forms() {
                let recipient = |algorithm: Vec<u8>| {
                    let mut answer = good.clone();
                    answer.recipients[0].algorithm = algorithm;
                    answer
                };
                let mut rid = good.clone();
                rid.recipients[0].rid = tlv(0x30, deep);
                for (what, answer) in [
                    ("originator", Answer { originator: tlv(0xA0, deep), ..good.clone() }),
                    ("certificates", Answer { originator: tlv(0xA0, &tlv(0xA0, deep)), ..good.clone() }),
                    ("attributes", Answer { attributes: tlv(0xA1, deep), ..good.clone() }),
                    ("content", Answer { content: indefinite(0xA0, deep), ..good.clone() }),
                    ("content's IV", Answer { content_encryption: seq(&[RSAES_OAEP, deep]), ..good.clone() }),
                    ("parameters", recipient(seq(&[RSAES_OAEP, deep]))),
                    ("parameters of the hash", recipient(seq(&[RSAES_OAEP, &seq(&[&tlv(0xA0, deep)])]))),
                    ("rid", rid),
                ] {
                    assert!(!parse(what, &answer.encode()), "{what}");
                }
            }
        }
    }
}

fn many_of_everything() {
    for good in forms() {
        let empty = Answer { recipients: vec![], ..good.clone() };
        let room = MAX_ANSWER - empty.encode().len() - 16;
        let set = |item: &[u8]| tlv(0x31, &item.repeat(room / item.len()));
        for item in [&[0x30, 0][..], &[0xA4, 0], &[0x30, 0x80, 0, 0], &[5, 0], &[0xA3, 5, 2, 1, 0, 0x30, 0]] {
            // In place of the empty set of recipients.
            let whole = empty.encode();
            let at = whole.windows(2).position(|w| w == [0x31, 0]).unwrap();
            let many = [&whole[..at], &set(item), &whole[at + 2..]].concat();
            assert!(!parse("many recipients", &many));
            assert!(!parse("many parts", &Answer { content: indefinite(0xA0, &set(item)), ..good.clone() }.encode()));
        }
        let parts = indefinite(0xA0, &tlv(4, &[]).repeat(room / 4));
        assert!(!parse("empty parts", &Answer { content: parts, ..good.clone() }.encode()));
        let parts = indefinite(0xA0, &tlv(4, &[1]).repeat(room / 3 / 16 * 16 - 512));
        assert!(parse("parts of one byte", &Answer { content: parts, ..good.clone() }.encode()));
    }
}

/// One test: the heap is measured.
#[test]
fn hostile_answers_cost_what_they_weigh() {
    let all = || {
        lengths_that_lie();
        depths_without_end();
        many_of_everything();
    };
    std::thread::Builder::new().stack_size(STACK).spawn(all).unwrap().join().unwrap();
}
