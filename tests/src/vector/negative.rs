//! Vectors with a defect in the header, its stanzas or the ciphertext. What is wrong is wrong under right keys
//! wherever a sealer could have made it so.

use super::positive::{file, number};
use super::{Case, Vector, empty, reader};
use crate::forge::content::about_padded;
use crate::forge::{ABOUT, ARGON2ID, COST, KeyFile, Keys, Parts, SIGNATURE, publisher, signer_der};

/// A refusal in front of the payload of an artifact that `change` made wrong.
fn parts(rules: &str, name: &str, about: &str, change: impl FnOnce(&mut Parts)) -> Vector {
    let mut parts = empty(number(name));
    change(&mut parts);
    bytes_of(rules, name, about, parts.build())
}

/// A refusal in front of the payload of bytes that `change` made wrong.
fn bytes(rules: &str, name: &str, about: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vector {
    let mut bytes = empty(number(name)).build();
    change(&mut bytes);
    bytes_of(rules, name, about, bytes)
}

/// A refusal in front of the payload of an artifact whose sections' bytes `change` made wrong.
fn raw(rules: &str, name: &str, about: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vector {
    let parts = empty(number(name));
    let mut sections = parts.encoded_sections();
    change(&mut sections);
    bytes_of(rules, name, about, [parts.header_of(&sections), parts.payload()].concat())
}

fn bytes_of(rules: &str, name: &str, about: &str, bytes: Vec<u8>) -> Vector {
    Case::new(name, about).with("identity", reader().secret_line()).refused(rules, b"", bytes)
}

pub(super) fn all() -> Vec<Vector> {
    [prelude(), keys(), sections(), argon2id(), stanzas(), about(), signature(), payload()].concat()
}

fn prelude() -> Vec<Vector> {
    vec![
        bytes("F-1", "magic-line-end", "the magic's last byte is CR, as after a text transfer", |b| b[7] = b'\r'),
        bytes("F-1", "magic-empty", "there are no bytes at all", Vec::clear),
        bytes("F-1", "magic-cut", "the file ends inside the magic", |b| b.truncate(7)),
        parts("F-2", "version-0", "format version 0", |p| p.keys.version = 0),
        parts("F-2", "version-2", "format version 2", |p| p.keys.version = 2),
        parts("F-3", "header-len-0", "H is 0", |p| p.header_len = 0),
        parts("F-3", "header-len-odd", "H is not a multiple of 4096", |p| p.header_len = 4095),
        parts("F-3", "header-len-large", "H is over 1 MiB", |p| p.header_len = 1_052_672),
        parts("F-3", "header-len-max", "H is 2^32 - 4096", |p| p.header_len = 0)
            .patched(12, &0xFFFF_F000_u32.to_be_bytes()),
        bytes("F-3", "header-cut", "the file ends one byte before the header does", |b| b.truncate(4095)),
        bytes("F-3", "header-cut-prelude", "the file ends inside the fixed fields", |b| b.truncate(50)),
        bytes("F-3", "header-longer-than-file", "H is longer than the file", |b| {
            b[12..16].copy_from_slice(&65_536_u32.to_be_bytes());
        }),
        parts("F-4", "chunk-size-0", "C is 0", |p| p.keys.chunk_size = 4096).patched(16, &[0; 4]),
        parts("F-4", "chunk-size-small", "C is 2048", |p| p.keys.chunk_size = 2048),
        parts("F-4", "chunk-size-large", "C is 2 MiB", |p| p.keys.chunk_size = 1 << 21),
        parts("F-4", "chunk-size-odd", "C is no power of two", |p| p.keys.chunk_size = 12_288),
        parts("F-5", "sections-too-long", "the sections leave no room for the MAC", |p| {
            p.sections_len = Some(4096 - 119);
        }),
        parts("F-5", "sections-len-max", "S is 2^32 - 1", |p| p.sections_len = Some(u32::MAX)),
        bytes("F-6", "header-padding-last", "the header's last byte is not zero", |b| b[4095] = 1),
        bytes("F-6", "header-padding-first", "the byte after the MAC is not zero", |b| {
            let mac_end = 120 + u32::from_be_bytes(b[20..24].try_into().unwrap()) as usize;
            b[mac_end] = 0x80;
        }),
    ]
}

impl Vector {
    /// The same vector with other bytes at `at`.
    fn patched(mut self, at: usize, with: &[u8]) -> Self {
        self.artifact[at..at + with.len()].copy_from_slice(with);
        self
    }
}

fn keys() -> Vec<Vector> {
    let other = |p: &Parts| Keys { dek: [0xD5; 32], ..p.keys.clone() };
    vec![
        parts("F-7", "commitment-other-dek", "the key commitment is another DEK's", |p| {
            p.commitment = Some(other(p).commitment());
        }),
        parts("F-7", "commitment-other-chunk-size", "the key commitment is that of another chunk size", |p| {
            p.commitment = Some(Keys { chunk_size: 8192, ..p.keys.clone() }.commitment());
        }),
        parts("F-7", "salamander", "two stanzas wrap two DEKs; commitment and MAC are the other one's", |p| {
            p.sections.insert(0, other(p).xwing(&KeyFile::new(2), 9));
            p.commitment = Some(other(p).commitment());
            p.mac = Some(other(p).mac(&p.authenticated()));
        }),
        bytes("F-8", "mac-flipped", "a bit of the header MAC is flipped", |b| {
            let mac = 88 + u32::from_be_bytes(b[20..24].try_into().unwrap()) as usize;
            b[mac + 31] ^= 1;
        }),
        parts("F-8", "mac-other-key", "the MAC was made with another DEK", |p| {
            p.mac = Some(other(p).mac(&p.authenticated()));
        }),
        parts("F-8", "mac-stanza-added", "a stanza was added without a new MAC", |p| {
            p.mac = Some(p.keys.mac(&p.authenticated()));
            p.sections.insert(0, p.keys.xwing(&KeyFile::new(2), 9));
        }),
        bytes("F-8", "mac-header-len", "the header was moved to a longer one without a new MAC", |b| {
            b.splice(4096..4096, [0; 4096]);
            b[12..16].copy_from_slice(&8192_u32.to_be_bytes());
        }),
    ]
}

fn sections() -> Vec<Vector> {
    let about_first = |p: &mut Parts| p.sections.reverse();
    vec![
        raw("F-9", "section-past-end", "the last section runs past S", |s| s.truncate(1180 + 100)),
        raw("F-9", "section-head-cut", "three bytes follow the last section", |s| s.extend([0x01, 0x55, 0x00])),
        parts("F-10", "about-before-stanza", "the about block comes before the stanza", about_first),
        parts("F-10", "about-twice", "there are two about blocks", |p| p.sections.push(p.sections[1].clone())),
        parts("F-10", "sections-descend", "the signature comes before the about block", |p| {
            let signature = p.signature(&publisher(3));
            p.sections.insert(1, signature);
        }),
        parts("F-10", "section-kind-0", "a section of kind 0", |p| p.sections.insert(0, (0, vec![1]))),
        parts("F-10", "stanza-last", "a stanza comes after the about block", |p| p.sections.push((0x0077, vec![]))),
        parts("F-11", "no-stanza", "there is no stanza", |p| p.sections.retain(|s| s.0 == ABOUT)),
        parts("F-11", "no-section", "there is no section", |p| p.sections.clear()),
        parts("F-11", "513-sections", "513 sections", |p| {
            let fill = vec![(0x0077, vec![]); 513 - p.sections.len()];
            p.sections.splice(0..0, fill);
        }),
        parts("F-12", "xwing-short", "an x-wing stanza is a byte short", |p| p.sections[0].1.truncate(1175)),
        parts("F-12", "xwing-long", "an x-wing stanza is a byte long", |p| p.sections[0].1.push(0)),
        parts("F-12", "argon2id-short", "an argon2id stanza is a byte short", |p| {
            p.sections.insert(0, (ARGON2ID, stanza([65_536, 3, 4])[..107].to_vec()));
        }),
        parts("F-12", "about-length", "the about block's length is not in the table", |p| p.sections[1].1.push(0)),
        parts("F-12", "about-too-long", "the about block has 17 steps", |p| {
            p.header_len = 8192;
            p.sections[1] = p.keys.about(&[&[0, 0][..], &[0; 17 * 256 - 2]].concat(), [7; 32]);
        }),
        parts("F-12", "about-empty", "the about block has no plaintext", |p| {
            p.sections[1] = p.keys.about(b"", [7; 32]);
        }),
        parts("F-12", "signature-short", "the signature is a byte short", |p| p.add((SIGNATURE, vec![1; 167]))),
        parts("F-12", "known-critical", "a known type carries the critical bit", |p| p.sections[0].0 |= 0x8000),
        parts("F-13", "critical-section", "an unknown section with the critical bit", |p| p.add((0x8155, vec![]))),
        parts("F-13", "critical-stanza", "an unknown stanza with the critical bit", |p| {
            p.sections.insert(0, (0x8077, vec![]));
        }),
    ]
}

/// An argon2id stanza's body that costs this much, and opens for nobody.
pub fn stanza(cost: [u32; 3]) -> Vec<u8> {
    [&cost.map(u32::to_be_bytes).concat()[..], &[0x33; 96]].concat()
}

fn argon2id() -> Vec<Vector> {
    let cost = |name: &str, about: &str, cost: [u32; 3]| {
        parts("F-14", name, about, |p| p.sections.insert(0, (ARGON2ID, stanza(cost))))
    };
    let matches = || {
        let mut parts = Parts::new(number("kek-commitment-wrapped"), &file(0), 4096, &[]);
        parts.sections.insert(0, parts.keys.passphrase(b"correct horse", COST, [1; 16]));
        parts
    };
    let (mut wrapped, other) = (matches(), matches());
    wrapped.sections[0].1[70] ^= 1;
    vec![
        cost("argon2id-memory-low", "64 MiB less 1 KiB", [65_535, 4, 4]),
        cost("argon2id-memory-high", "2 GiB and 1 KiB", [2_097_153, 1, 4]),
        cost("argon2id-memory-max", "4 TiB", [u32::MAX, 16, 1]),
        cost("argon2id-passes-0", "no pass", [2_097_152, 0, 4]),
        cost("argon2id-passes-high", "17 passes", [65_536, 17, 4]),
        cost("argon2id-lanes-0", "no lane", [65_536, 3, 0]),
        cost("argon2id-lanes-high", "17 lanes", [65_536, 3, 17]),
        cost("argon2id-cheap", "64 MiB and two passes are below the floor", [65_536, 2, 4]),
        parts("F-15", "argon2id-nine", "nine argon2id stanzas", |p| {
            p.sections.splice(0..0, vec![(ARGON2ID, stanza(COST)); 9]);
        }),
        parts("F-15", "argon2id-sum", "five argon2id stanzas of 2 GiB", |p| {
            p.sections.splice(0..0, vec![(ARGON2ID, stanza([2_097_152, 1, 1])); 5]);
        }),
        Case::new("kek-commitment-wrapped", "the KEK commitment is the passphrase's, the wrapped DEK is damaged")
            .with("passphrase", "correct horse")
            .refused("F-16", b"", wrapped.build()),
        Case::new("passphrase-wrong", "another passphrase").with("passphrase", "correct horsf").refused(
            "F-18",
            b"",
            other.build(),
        ),
    ]
}

fn stanzas() -> Vec<Vector> {
    let stranger = Case::new("identity-stranger", "the key file is not a recipient")
        .with("identity", KeyFile::new(5).secret_line());
    let line = reader().secret_line();
    let mistyped = format!("{}{}{}", &line[..30], if &line[30..31] == "A" { "B" } else { "A" }, &line[31..]);
    vec![
        parts("F-17 F-18", "tag-wrong", "the stanza's tag is not the reader's: it is not tried", |p| {
            p.sections[0].1[0] ^= 1;
        }),
        parts("F-18", "ciphertext-wrong", "a bit of the encapsulation is flipped", |p| p.sections[0].1[500] ^= 1),
        parts("F-18", "wrapped-dek-wrong", "a bit of the wrapped DEK is flipped", |p| p.sections[0].1[1130] ^= 1),
        parts("F-18", "stanza-of-another", "the stanza is that of another artifact for the same reader", |p| {
            p.sections[0] = empty(1).keys.xwing(&reader(), 1);
        }),
        parts("F-18", "stanza-other-type", "the stanza was wrapped as another type", |p| p.sections[0].0 = 0x0005),
        stranger.refused("F-18", b"", empty(number("identity-stranger")).build()),
        Case::new("identity-none", "there is no identity").refused("F-18", b"", empty(number("identity-none")).build()),
        Case::new("identity-line-checksum", "the key file's checksum is wrong").with("identity", mistyped).refused(
            "F-39",
            b"",
            empty(number("identity-line-checksum")).build(),
        ),
    ]
}

fn about() -> Vec<Vector> {
    let of = |name: &str, about: &str, change: &dyn Fn(&Parts) -> Vec<u8>| {
        parts("F-19", name, about, |p| p.sections[1] = p.keys.about(&change(p), [7; 32]))
    };
    vec![
        parts("F-19", "about-flipped", "a bit of the about block is flipped, under a right MAC", |p| {
            p.sections[1].1[40] ^= 1;
        }),
        parts("F-19", "about-other-salt", "the about salt was changed", |p| p.sections[1].1[0] ^= 1),
        of("about-padding", "the about block's padding is not zero", &|p| {
            let mut padded = p.content.about_padded();
            padded[255] = 1;
            padded
        }),
        of("about-padding-long", "the about block's padding is not the least", &|p| {
            [p.content.about_padded(), vec![0; 256]].concat()
        }),
        of("about-map-too-long", "the about map's length is larger than the block", &|p| {
            let mut padded = p.content.about_padded();
            padded[..2].copy_from_slice(&255_u16.to_be_bytes());
            padded
        }),
        parts("F-31", "about-trailing", "the about map is followed by another item", |p| {
            let padded = about_padded(&[p.content.about().encode(), vec![0]].concat());
            p.sections[1] = p.keys.about(&padded, [7; 32]);
        }),
    ]
}

fn signature() -> Vec<Vector> {
    let signer = publisher(3);
    let of = |rules: &str, name: &str, about: &str, released: &[u8], change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::new(number(name), &file(700), 4096, &[&reader()]);
        change(&mut parts);
        let case = Case::new(name, about).with("identity", reader().secret_line()).signer(&signer_der(&signer));
        case.refused(rules, released, parts.build())
    };
    let damaged = |p: &mut Parts, at: usize, n: usize| {
        let (kind, mut body) = p.signature(&signer);
        body[at..at + n].fill(0);
        p.add((kind, body));
    };
    let fields =
        |p: &Parts| (p.keys.identity("model", 1), p.payload().len() as u64, p.keys.payload_digest(&p.payload()));
    let data = file(700).bytes();
    vec![
        of("F-20", "unsigned", "there is no signature, and one is demanded", b"", &|_| ()),
        of("F-20", "signer-other", "signed by another key", b"", &|p| p.add(p.signature(&publisher(4)))),
        of("F-20", "signature-s-zero", "s is 0", b"", &|p| damaged(p, 136, 32)),
        of("F-20", "signature-flipped", "a byte of r is 0", b"", &|p| damaged(p, 110, 1)),
        of("F-20", "signature-key-id", "another key's signature under this key's id", b"", &|p| {
            let ((kind, mut body), mine) = (p.signature(&publisher(4)), p.signature(&signer).1);
            body[..32].copy_from_slice(&mine[..32]);
            p.add((kind, body));
        }),
        of(
            "F-20",
            "signature-other-artifact",
            "the signature of another artifact with the same payload length",
            b"",
            &|p| {
                let (identity, len, digest) = fields(p);
                p.add(Keys::new(77, 4096).signature(&signer, identity, len, digest));
            },
        ),
        of("F-20", "signature-other-chunk-size", "signed for another chunk size", b"", &|p| {
            let (identity, len, digest) = fields(p);
            p.add(Keys { chunk_size: 8192, ..p.keys.clone() }.signature(&signer, identity, len, digest));
        }),
        of("F-21", "signature-other-payload", "the payload was sealed again after it was signed", &data[..0], &|p| {
            p.add(p.signature(&signer));
            p.plain.entries.fill(0);
            p.content.entries[0].1.fill(0);
            p.plain = p.content.plain();
        })
        .releases(&[0; 700]),
        of("F-21", "signature-length", "the signed length is not the payload's", &data, &|p| {
            let (identity, len, digest) = fields(p);
            p.add(p.keys.signature(&signer, identity, len + 1, digest));
        }),
        of("F-22", "signature-other-name", "signed under another name", &data, &|p| {
            let (_, len, digest) = fields(p);
            p.add(p.keys.signature(&signer, p.keys.identity("modem", 1), len, digest));
        }),
        of("F-22", "signature-other-version", "signed under another version", &data, &|p| {
            let (_, len, digest) = fields(p);
            p.add(p.keys.signature(&signer, p.keys.identity("model", 2), len, digest));
        }),
    ]
}

impl Vector {
    fn releases(mut self, bytes: &[u8]) -> Self {
        let released = self.fields.iter_mut().find(|(k, _)| k == "released").unwrap();
        released.1 = format!("{} {}", bytes.len(), super::sha256(bytes));
        self
    }
}

/// Defects of the ciphertext of a file of a chunk and a bit, in a payload of four.
fn payload() -> Vec<Vector> {
    const STEP: usize = 4112;
    let content = file(4_200);
    let of = |rules: &str, name: &str, about: &str, chunks: usize, change: &dyn Fn(&mut Vec<u8>, &Keys)| {
        let parts = Parts::new(number(name), &content, 4096, &[&reader()]);
        let mut payload = parts.payload();
        change(&mut payload, &parts.keys);
        let data = content.bytes();
        let released = &data[..(chunks.saturating_sub(1) * 4096).min(data.len())];
        let case = Case::new(name, about).with("identity", reader().secret_line());
        case.refused(rules, released, [parts.header(), payload].concat())
    };
    let chunk = |payload: &[u8], i: usize| payload[i * STEP..payload.len().min((i + 1) * STEP)].to_vec();
    vec![
        of("F-25", "chunk-0", "a bit of chunk 0 is flipped", 0, &|b, _| b[100] ^= 1),
        of("F-25", "chunk-2", "a bit of chunk 2 is flipped", 2, &|b, _| b[2 * STEP] ^= 0x80),
        of("F-25", "chunk-tag", "a bit of chunk 2's tag is flipped", 2, &|b, _| b[3 * STEP - 1] ^= 1),
        of("F-25", "chunk-last", "a bit of the last chunk is flipped", 3, &|b, _| b[3 * STEP + 3] ^= 1),
        of("F-25", "chunks-swapped", "chunks 1 and 2 are swapped", 1, &|b, _| {
            let (one, two) = (chunk(b, 1), chunk(b, 2));
            b.splice(STEP..3 * STEP, [two, one].concat());
        }),
        of("F-25", "chunk-twice", "chunk 1 comes twice", 2, &|b, _| drop(b.splice(2 * STEP..2 * STEP, chunk(b, 1)))),
        of("F-25", "chunk-dropped", "chunk 2 is missing", 2, &|b, _| drop(b.drain(2 * STEP..3 * STEP))),
        of("F-25", "chunk-of-another", "chunk 2 is that of another artifact", 2, &|b, _| {
            let theirs = Parts::new(3, &content, 4096, &[]).payload();
            b.splice(2 * STEP..3 * STEP, chunk(&theirs, 2));
        }),
        of("F-25", "chunk-index-reset", "chunk 2 was sealed as chunk 0", 2, &|b, keys| {
            drop(b.splice(2 * STEP..3 * STEP, keys.chunk(0, &[7; 4096])));
        }),
        of("F-25", "chunk-next-segment", "chunk 2 was sealed in the next segment", 2, &|b, keys| {
            drop(b.splice(2 * STEP..3 * STEP, keys.chunk((1 << 20) + 2, &[7; 4096])));
        }),
        of("F-25", "cut-one-byte", "the last byte is missing", 3, &|b, _| b.truncate(b.len() - 1)),
        of("F-25", "one-byte-more", "a byte follows", 3, &|b, _| b.push(0)),
        of("F-25", "cut-17-past-edge", "17 bytes are left of chunk 2", 2, &|b, _| b.truncate(2 * STEP + 17)),
        of("F-23 F-26", "cut-at-edge", "the payload ends with chunk 1", 2, &|b, _| b.truncate(2 * STEP)),
        of("F-23 F-26", "cut-15-past-edge", "15 bytes are left of chunk 2", 2, &|b, _| b.truncate(2 * STEP + 15)),
        of("F-25 F-27", "cut-16-past-edge", "16 bytes are left of chunk 2", 2, &|b, _| b.truncate(2 * STEP + 16)),
        of("F-23 F-26", "payload-empty", "there is no payload", 0, &|b, _| b.clear()),
        of(
            "F-25 F-26",
            "short-chunk-inside",
            "a short chunk, resealed as the last, is followed by the rest",
            2,
            &|b, keys| {
                let rest = b.split_off(3 * STEP);
                b.truncate(2 * STEP);
                b.extend([keys.chunk(2, &[7; 100]), rest].concat());
            },
        ),
        of(
            "F-26 F-23 F-27",
            "ends-in-table",
            "the payload ends inside its table, in a chunk resealed as the last",
            0,
            &|b, keys| {
                *b = keys.chunk(0, &[0, 0, 0x20, 0, 0xA2]);
            },
        ),
        of(
            "F-27",
            "ends-in-entry",
            "the payload ends inside its entry, in a chunk resealed as the last",
            2,
            &|b, keys| {
                b.truncate(2 * STEP);
                b.extend(keys.chunk(2, &[7; 100]));
            },
        )
        .releases(&[&content.bytes()[..4096], &[7; 100]].concat()),
    ]
}
