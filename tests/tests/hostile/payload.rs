//! Payloads: flipped, cut, extended, and chunks put where they do not belong.

use crate::{Corpus, Victim};
use mvault_tests::forge::content::Content;
use mvault_tests::forge::{KeyFile, Parts};
use mvault_tests::noise;
use vault_core::aead::Engine;
use vault_core::header::Header;
use vault_core::io::{Input, ReadAt};
use vault_core::open::{OpenOptions, RangeReader, Release, open};

const STEP: usize = 4112;
/// What damage to a payload can be told by: chunks, and lengths.
const RULES: [u8; 4] = [23, 25, 26, 27];

fn folder(seed: u64) -> Content {
    let entries = [("a", 4096), ("b", 9000), ("c", 0), ("d/e", 5)];
    Content::folder(entries.map(|(path, len)| (path.into(), noise(seed + len as u64, len))).to_vec())
}

pub fn all(corpus: &mut Corpus) {
    let victim = Victim::of(1000, &folder(1));
    let piped = Victim::of(1001, &Content { piped: true, ..Content::file("model.bin", noise(3, 90_000)) });
    flips(corpus, &victim);
    cuts(corpus, "payload: cut at and around chunk edges", &victim, 1);
    cuts(corpus, "payload of null size: cut at and around edges", &piped, 3);
    chunks(corpus, &victim);
    splices(corpus, &victim);
    long(corpus);
    too_long(corpus, &victim);
}

fn with(victim: &Victim, payload: &[u8]) -> Vec<u8> {
    [&victim.bytes[..4096], payload].concat()
}

fn flips(corpus: &mut Corpus, victim: &Victim) {
    corpus.family("payload: bits flipped");
    let mut bytes = victim.bytes.clone();
    for at in 4096..bytes.len() {
        let in_chunk = (at - 4096) % STEP;
        if in_chunk >= 4096 || at % 11 == 0 || bytes.len() - at <= 32 {
            bytes[at] ^= 1 << (at % 8);
            corpus.refuse(victim, &[25], &bytes);
            bytes[at] ^= 1 << (at % 8);
        }
    }
}

fn cuts(corpus: &mut Corpus, name: &str, victim: &Victim, step: usize) {
    corpus.family(name);
    let payload = victim.payload();
    for edge in (0..=payload.len() / STEP).step_by(step).map(|i| i * STEP).chain([payload.len()]) {
        for delta in [-4096_i64, -33, -32, -18, -17, -16, -15, -2, -1, 0, 1, 2, 15, 16, 17, 18, 31, 32, 33, 2048] {
            let len = usize::try_from(i64::try_from(edge).unwrap() + delta).unwrap_or(usize::MAX);
            if len < payload.len() {
                corpus.refuse(victim, &RULES, &with(victim, &payload[..len]));
            }
        }
    }
    let last = payload.len() / STEP * STEP;
    for len in [1, 2, 15, 16, 17, 4080, 4096, 4111, 4112, 4128, 8224, 65_536] {
        for more in [vec![0; len], noise(9, len), payload[last..].iter().copied().cycle().take(len).collect()] {
            corpus.refuse(victim, &RULES, &with(victim, &[payload, &more].concat()));
        }
    }
    for front in [1, 15, 16, 4096, 4112] {
        corpus.refuse(victim, &[25], &with(victim, &[&noise(1, front), payload].concat()));
        corpus.refuse(victim, &RULES, &with(victim, &payload[front..]));
    }
}

fn chunks(corpus: &mut Corpus, victim: &Victim) {
    let chunks: Vec<_> = victim.payload().chunks(STEP).collect();
    let n = chunks.len();
    corpus.family("chunks: swapped");
    for i in 0..n {
        for j in 0..i {
            let mut moved = chunks.clone();
            moved.swap(i, j);
            corpus.refuse(victim, &RULES, &with(victim, &moved.concat()));
        }
    }
    corpus.family("chunks: twice, dropped, in place of another");
    for i in 0..n {
        let mut fewer = chunks.clone();
        fewer.remove(i);
        corpus.refuse(victim, &RULES, &with(victim, &fewer.concat()));
        for j in 0..n {
            let (mut more, mut other) = (chunks.clone(), chunks.clone());
            more.insert(j, chunks[i]);
            other[j] = chunks[i];
            corpus.refuse(victim, &RULES, &with(victim, &more.concat()));
            if i != j {
                corpus.refuse(victim, &RULES, &with(victim, &other.concat()));
            }
        }
    }
    corpus.family("chunks: sealed under another index");
    let plain = victim.parts.plain.bytes();
    for (i, plain) in plain.chunks(4096).enumerate() {
        let index = i as u64;
        for other in [index ^ 1, index + 1, index + 255, index + (1 << 20), index + (1 << 32), u64::MAX] {
            let sealed = victim.parts.keys.chunk(other, plain);
            let mut moved = chunks.clone();
            moved[i] = &sealed;
            corpus.refuse(victim, &[25], &with(victim, &moved.concat()));
        }
    }
    corpus.family("chunks: of other lengths, resealed");
    for i in 0..n - 1 {
        for len in [0, 1, 15, 16, 4095, 4097] {
            let sealed = victim.parts.keys.chunk(i as u64, &noise(7, len));
            let mut moved = chunks.clone();
            moved[i] = &sealed;
            corpus.refuse(victim, &RULES, &with(victim, &moved.concat()));
        }
    }
}

/// Two artifacts for the same recipients, of contents that differ in nothing but their bytes.
fn splices(corpus: &mut Corpus, victim: &Victim) {
    corpus.family("spliced: chunks of another artifact");
    let mine: Vec<_> = victim.payload().chunks(STEP).collect();
    for number in 0..6 {
        let other = Victim::of(1100 + number, &folder(number % 2));
        let theirs: Vec<_> = other.payload().chunks(STEP).collect();
        for i in 0..mine.len() {
            for other in &theirs {
                let mut mixed = mine.clone();
                mixed[i] = other;
                corpus.refuse(victim, &RULES, &with(victim, &mixed.concat()));
            }
            corpus.refuse(victim, &[25], &with(victim, &[&mine[..i], &theirs[i..]].concat().concat()));
        }
    }
}

/// Several batches of 512 KiB on three threads: the first failing chunk stops all.
fn long(corpus: &mut Corpus) {
    corpus.family("payload of many batches: one chunk flipped");
    let key = KeyFile::new(1);
    let data = noise(8, 3_000_000);
    for (number, chunk_size, piped) in [(1200, 4096, false), (1201, 65_536, true), (1202, 1 << 20, false)] {
        let content = Content { piped, ..Content::file("model.bin", data.clone()) };
        let victim = Victim::new(Parts::new(number, &content, chunk_size, &[&key]), &key);
        let mut bytes = victim.bytes.clone();
        for at in (4096..bytes.len()).step_by(bytes.len() / 9) {
            bytes[at] ^= 1;
            corpus.refuse(&victim, &[25], &bytes);
            bytes[at] ^= 1;
        }
        let sealed = chunk_size as usize + 16;
        for cut in [1, 2].map(|i| 4096 + i * sealed) {
            corpus.refuse(&victim, &RULES, &bytes[..cut]);
        }
    }
}

/// A store that claims any length, and has zeros past the end of an artifact.
struct Endless<'a>(&'a [u8]);

impl ReadAt for Endless<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        for (to, at) in buf.iter_mut().zip(offset..) {
            *to = usize::try_from(at).ok().and_then(|at| self.0.get(at).copied()).unwrap_or_default();
        }
        Ok(())
    }
}

fn too_long(corpus: &mut Corpus, victim: &Victim) {
    corpus.family("payload: of more than 2^32 chunks");
    let header = Header::parse(&victim.bytes).unwrap().unlock(&[victim.identities[0].as_ref()]).unwrap();
    let file = Endless(&victim.bytes);
    let step = STEP as u64;
    for (len, rules) in [
        ((1 << 32) * step + 16, [24]),
        ((1 << 32) * step + 4111, [24]),
        ((1 << 40) * step + 17, [24]),
        ((1 << 32) * step + 15, [23]),
        (u64::MAX - u64::MAX % step + 15, [23]),
        (u64::MAX - 4096 - (u64::MAX - 4096) % step - step + 100, [24]),
        // At the limit: the trailer is not where the length says.
        ((1 << 32) * step - step + 4000, [25]),
    ] {
        let options = OpenOptions::default();
        let input = Input::At { file: &file, offset: 4096, len };
        corpus.refused(victim, &rules, open(input, &header, &options, Release::Nothing).map(|_| ()));
        let ranges = RangeReader::new(&file, 4096, len, &header, Engine::Ring);
        corpus.refused(victim, &rules, ranges.map(|_| ()));
    }
}
