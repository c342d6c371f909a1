//! Headers: flipped, cut, mixed, and made again with right MACs by someone who is a recipient.

use crate::{Corpus, Ranges, Victim};
use mvault_tests::forge::content::Content;
use mvault_tests::forge::{ABOUT, ARGON2ID, COST, KeyFile, Keys, Parts, SIGNATURE, XWING, publisher, signer_der};
use mvault_tests::noise;
use mvault_tests::vector::negative::stanza;
use vault_core::signature::PublisherPublicKey;

/// A header of 4 KiB with a section of every kind, and a signer that is demanded.
fn every_section() -> Victim {
    let key = KeyFile::new(1);
    let mut parts = Parts::new(100, &content(), 4096, &[&key]);
    parts.add(parts.keys.passphrase(b"battery staple", COST, [5; 16]));
    parts.add((0x0077, noise(1, 40)));
    parts.add((0x0155, noise(2, 50)));
    parts.add(parts.signature(&publisher(3)));
    let mut victim = Victim::new(parts, &key);
    victim.signers = vec![PublisherPublicKey::from_der(&signer_der(&publisher(3))).unwrap()];
    victim.secrets.push("battery staple".into());
    victim
}

fn content() -> Content {
    Content::file("model.bin", noise(5, 5000))
}

pub fn all(corpus: &mut Corpus) {
    let victim = every_section();
    flips(corpus, &victim);
    fields(corpus, &victim);
    sections(corpus, &victim);
    under_right_macs(corpus, &victim);
    mixed(corpus);
    argon2id(corpus);
}

fn flips(corpus: &mut Corpus, victim: &Victim) {
    let mut bytes = victim.bytes.clone();
    corpus.family("header: a bit of each byte flipped");
    for at in 0..4096 {
        bytes[at] ^= 1 << (at % 8);
        corpus.refuse(victim, &[], &bytes);
        bytes[at] ^= 1 << (at % 8);
    }
    corpus.family("header: each bit of the fixed fields flipped");
    for bit in 0..88 * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        corpus.refuse(victim, &[], &bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    corpus.family("header: cut");
    for len in (0..4096).step_by(61).chain([7, 8, 9, 11, 12, 87, 88, 89, 4095]) {
        corpus.refuse(victim, &[1, 3], &bytes[..len]);
    }
}

fn fields(corpus: &mut Corpus, victim: &Victim) {
    corpus.family("header: version, H, C, S at and past limits");
    let sections = u32::try_from(victim.parts.encoded_sections().len()).unwrap();
    let around = [0, 1, 4096, 1 << 20, 1 << 21, 1 << 31, u32::MAX, sections, 4096 - 120, 4096 - 88, 65_536, 12_288];
    for at in [8, 12, 16, 20] {
        for n in around.iter().flat_map(|n| [n.wrapping_sub(1), *n, n.wrapping_add(1)]) {
            let mut bytes = victim.bytes.clone();
            bytes[at..at + 4].copy_from_slice(&n.to_be_bytes());
            if bytes != victim.bytes {
                corpus.refuse(victim, &[], &bytes);
            }
        }
    }
    corpus.family("header: H moved with the payload");
    for len in [8192, 12_288, 16_384, 1_u32 << 20] {
        let mut bytes = victim.bytes.clone();
        bytes.splice(4096..4096, vec![0; len as usize - 4096]);
        bytes[12..16].copy_from_slice(&len.to_be_bytes());
        corpus.refuse(victim, &[8], &bytes);
    }
    corpus.family("header: chunk size moved");
    for shift in 13..=20 {
        let mut bytes = victim.bytes.clone();
        bytes[16..20].copy_from_slice(&(1_u32 << shift).to_be_bytes());
        corpus.refuse(victim, &[7], &bytes);
        // By a recipient, who makes the MAC anew: the payload's keys are those of its own chunk size.
        let moved = Keys { chunk_size: 1 << shift, ..victim.parts.keys.clone() };
        let header =
            Parts { keys: moved, sections: victim.parts.sections[..3].to_vec(), ..victim.parts.clone() }.header();
        let unsigned = Victim { signers: Vec::new(), ..every_section() };
        corpus.refuse(&unsigned, &[25, 26, 23], &[&header, victim.payload()].concat());
    }
}

/// Each section's type and length changed, sections dropped, doubled and swapped; the MAC is the old one.
fn sections(corpus: &mut Corpus, victim: &Victim) {
    let old = |change: &dyn Fn(&mut Parts)| {
        let mac = victim.parts.keys.mac(&victim.parts.authenticated());
        victim.forged(|p| {
            change(p);
            p.mac = Some(mac);
        })
    };
    let count = victim.parts.sections.len();
    corpus.family("header: section types changed");
    for i in 0..count {
        let kind = victim.parts.sections[i].0;
        let others = [0, 1, 2, 3, 4, 5, 0xFF, 0x100, 0x101, 0x102, 0x7FFF, 0x8000, 0x8002, 0x8155, 0xFFFF];
        for other in others.into_iter().filter(|o| *o != kind) {
            corpus.refuse(victim, &[8, 10, 11, 12, 13, 14, 15, 18], &old(&|p| p.sections[i].0 = other));
        }
    }
    corpus.family("header: sections dropped, doubled, swapped");
    for i in 0..count {
        corpus.refuse(victim, &[8, 10, 11, 18], &old(&|p| drop(p.sections.remove(i))));
        if victim.parts.sections[i].1.len() < 300 {
            corpus.refuse(victim, &[8, 10], &old(&|p| p.sections.insert(i, p.sections[i].clone())));
        }
        for j in 0..i {
            corpus.refuse(victim, &[8, 10, 11], &old(&|p| p.sections.swap(i, j)));
        }
    }
    corpus.family("header: section lengths changed");
    let starts = victim.parts.sections.iter().scan(88, |at, (_, body)| {
        *at += body.len() + 4;
        Some(*at - body.len() - 4)
    });
    for at in starts {
        let len = u16::from_be_bytes([victim.bytes[at + 2], victim.bytes[at + 3]]);
        for other in [0, 1, len.wrapping_sub(1), len + 1, len + 4, 4095, u16::MAX] {
            let mut bytes = victim.bytes.clone();
            bytes[at + 2..at + 4].copy_from_slice(&other.to_be_bytes());
            corpus.refuse(victim, &[8, 9, 10, 11, 12, 13], &bytes);
        }
    }
}

/// Somebody who has the DEK makes the MAC anew.
fn under_right_macs(corpus: &mut Corpus, victim: &Victim) {
    let place = |kind| victim.parts.sections.iter().position(|s| s.0 == kind).unwrap();
    let flip = |kind: u16, at: usize| victim.forged(|p| p.sections[place(kind)].1[at] ^= 1 << (at % 8));
    corpus.family("stanza: a bit of each byte flipped, right MAC");
    for at in 0..1176 {
        corpus.refuse(victim, &[18], &flip(XWING, at));
    }
    corpus.family("about: a bit of each byte flipped, right MAC");
    for at in 0..victim.parts.sections[place(ABOUT)].1.len() {
        corpus.refuse(victim, &[19], &flip(ABOUT, at));
    }
    corpus.family("signature: a bit of each byte flipped, right MAC");
    for at in 0..168 {
        corpus.refuse(victim, &[20], &flip(SIGNATURE, at));
    }
    corpus.family("signature: another's, another payload's, none");
    let mut with = |section: Option<(u16, Vec<u8>)>, rules: &[u8]| {
        let bytes = victim.forged(|p| {
            p.sections.remove(place(SIGNATURE));
            if let Some(section) = section {
                p.add(section);
            }
        });
        corpus.refuse(victim, rules, &bytes);
    };
    let (keys, payload) = (&victim.parts.keys, victim.payload());
    let (identity, digest, len) = (keys.identity("model", 1), keys.payload_digest(payload), payload.len() as u64);
    with(None, &[20]);
    for other in 4..10 {
        with(Some(victim.parts.signature(&publisher(other))), &[20]);
    }
    for len in [0, 1, len - 1, len + 1, len + 16, u64::MAX] {
        with(Some(keys.signature(&publisher(3), identity, len, digest)), &[21]);
    }
    for bit in 0..256 {
        let mut digest = digest;
        digest[bit / 8] ^= 1 << (bit % 8);
        with(Some(keys.signature(&publisher(3), identity, len, digest)), &[21]);
    }
    for (name, version) in [("model", 0), ("model", 2), ("model", u64::MAX), ("modem", 1), ("", 1), ("model\0", 1)] {
        with(Some(keys.signature(&publisher(3), keys.identity(name, version), len, digest)), &[22]);
    }
    for other in 200..210 {
        let theirs = Parts::new(other, &content(), 4096, &[]);
        with(Some(theirs.signature(&publisher(3))), &[20]);
        let version = Keys { version: u32::try_from(other).unwrap(), ..keys.clone() };
        with(Some(version.signature(&publisher(3), identity, len, digest)), &[20]);
    }
}

/// Two artifacts of the same recipients, and two keys for one header.
fn mixed(corpus: &mut Corpus) {
    let plain = |number| Victim::of(number, &content());
    let artifacts: Vec<_> = (300..306).map(plain).collect();
    corpus.family("mixed: header of one, payload of another");
    for (i, one) in artifacts.iter().enumerate() {
        for other in artifacts.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, o)| o) {
            corpus.refuse(one, &[25], &[one.parts.header(), other.payload().to_vec()].concat());
        }
    }
    corpus.family("mixed: stanza, about or MAC of another");
    for other in &artifacts[1..] {
        let one = &artifacts[0];
        for section in 0..2 {
            corpus.refuse(one, &[18, 19], &one.forged(|p| p.sections[section] = other.parts.sections[section].clone()));
        }
        corpus.refuse(one, &[8], &one.forged(|p| p.mac = Some(other.parts.keys.mac(&other.parts.authenticated()))));
        corpus.refuse(one, &[7], &one.forged(|p| p.commitment = Some(other.parts.keys.commitment())));
        corpus.refuse(one, &[18], &one.forged(|p| p.keys.salt = other.parts.keys.salt));
    }
    corpus.family("salamander: one header, two DEKs");
    let theirs = KeyFile::new(2);
    for number in 0..16 {
        let one = plain(400 + number);
        let other = Keys { dek: [0xC0 + number.to_le_bytes()[0]; 32], ..one.parts.keys.clone() };
        // The stanza of our victim opens to a DEK that is not the header's: alone, first and last.
        for order in 0..3 {
            let mut parts = Parts { keys: other.clone(), ..one.parts.clone() };
            parts.sections[1] = other.about(&parts.content.about_padded(), [1; 32]);
            match order {
                0 => {}
                1 => parts.sections.insert(1, other.xwing(&theirs, number)),
                _ => parts.sections.insert(0, other.xwing(&theirs, number)),
            }
            corpus.refuse(&one, &[7], &parts.build());
            // With the commitment of our victim's DEK, MAC and payload are the other's.
            parts.mac = Some(
                other.mac(&Parts { commitment: Some(one.parts.keys.commitment()), ..parts.clone() }.authenticated()),
            );
            parts.commitment = Some(one.parts.keys.commitment());
            corpus.refuse(&one, &[8], &parts.build());
        }
        // Everything in the header is our victim's, and the payload is the other's.
        corpus.refuse(&one, &[25], &[one.parts.header(), other.payload(&one.parts.plain.bytes())].concat());
    }
    corpus.family("recipients: not one of them");
    for number in 0..20 {
        let stranger = KeyFile::new(50 + number);
        let bytes = Parts::new(500 + number, &content(), 4096, &[&stranger, &theirs]).build();
        corpus.refuse(&artifacts[0], &[18], &bytes);
        // Somebody else's stanza under our victim's tag.
        let tagged = artifacts[1].forged(|p| {
            let (tag, other) = (p.sections[0].1[..8].to_vec(), p.keys.xwing(&stranger, number));
            p.sections[0] = other;
            p.sections[0].1[..8].copy_from_slice(&tag);
        });
        corpus.refuse(&artifacts[1], &[18], &tagged);
    }
}

/// Refused before Argon2 takes memory: its least is 64 MiB, and a reader may have one here.
fn argon2id(corpus: &mut Corpus) {
    corpus.family("argon2id: costs out of bounds");
    let victim = Victim::of(600, &content()).with_passphrase("battery staple");
    let mut bomb = |rules: &[u8], costs: &[[u32; 3]]| {
        let bytes = victim.forged(|p| {
            p.header_len = 8192;
            costs.iter().rev().for_each(|cost| p.sections.insert(0, (ARGON2ID, stanza(*cost))));
        });
        corpus.refuse_but(Ranges::Original, 1 << 20, &victim, rules, &bytes);
    };
    for m in [0, 1, 8, 1024, 65_535, 2_097_153, 4_194_304, 1 << 31, u32::MAX] {
        for t in [1, 3, 16] {
            bomb(&[14], &[[m, t, 4]]);
        }
    }
    for t in [0, 17, 255, 1 << 20, u32::MAX] {
        bomb(&[14], &[[65_536, t, 4]]);
        bomb(&[14], &[[2_097_152, t, 1]]);
        bomb(&[14], &[COST, [65_536, t, 4]]);
    }
    for p in [0, 17, 255, 1 << 24, u32::MAX] {
        bomb(&[14], &[[65_536, 3, p]]);
    }
    for (m, t) in [(65_536, 1), (65_536, 2), (98_303, 2), (196_607, 1)] {
        bomb(&[14], &[[m, t, 4]]);
    }
    for n in [9, 10, 20, 30] {
        bomb(&[15], &vec![COST; n]);
    }
    for (n, cost) in [(5, [2_097_152, 1, 1]), (1, [2_097_152, 16, 1]), (3, [1_048_576, 3, 4]), (2, [2_097_152, 3, 16])]
    {
        bomb(&[15], &vec![cost; n]);
    }
}
