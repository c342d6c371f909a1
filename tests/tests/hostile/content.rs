//! Lies under right keys: names that lead elsewhere, lengths that claim much, CBOR that grows. And every vector that is
//! refused, those that are not stored too.

use crate::{Corpus, MOST_HEAP, Ranges, Victim};
use mvault_tests::forge::cbor::{Cbor, head, long_head};
use mvault_tests::forge::content::{Content, Plain, table_block, trailer};
use mvault_tests::forge::{KeyFile, Parts};
use mvault_tests::noise;
use mvault_tests::vector;

pub fn all(corpus: &mut Corpus) {
    vectors(corpus);
    names(corpus);
    collisions(corpus);
    flips(corpus);
    sizes(corpus);
    bombs(corpus);
}

/// Those for the key file that most vectors are for; tests/vectors.rs reads the others.
fn vectors(corpus: &mut Corpus) {
    corpus.family("vectors: stored and not stored");
    let line = vector::reader().secret_line();
    let mut victim = Victim::of(1, &Content::file("m", vec![]));
    for vector in vector::all().iter().filter(|v| !v.opens()) {
        if vector.all("identity").eq([line.as_str()]) && vector.all("passphrase").next().is_none() {
            let signers = vector.signers();
            victim.signers =
                signers.iter().map(|der| vault_core::signature::PublisherPublicKey::from_der(der).unwrap()).collect();
            corpus.refuse_but(Ranges::Sealed, MOST_HEAP, &victim, &vector.rules(), &vector.artifact);
        }
    }
}

fn names(corpus: &mut Corpus) {
    corpus.family("paths: that lead elsewhere or are no paths");
    let long = "x".repeat(256);
    let deep = vec!["d"; 600].join("/");
    let paths = [
        "",
        ".",
        "..",
        "/",
        "//",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a/.",
        "a/./b",
        "../a",
        "a/..",
        "a/../b",
        "a/../../b",
        "../../etc/passwd",
        "/etc/passwd",
        "//host/share",
        "\\\\host\\share",
        "C:\\x",
        "a\\b",
        "..\\a",
        "\0",
        "a\0b",
        "\n",
        "a\nb",
        "a\r",
        "\t",
        "\x1B[31m",
        "\x7F",
        "a/\x01",
        "a/\x1F/b",
        &long,
        &deep,
        " /../a",
        "a/ /../..",
    ];
    for path in paths {
        for folder in [false, true] {
            let content = Content { folder, ..Content::file(path, noise(1, 10)) };
            let victim = Victim::of(2000, &Content::file("m", vec![]));
            let mut parts = Parts::new(2000, &content, 4096, &[&KeyFile::new(1)]);
            corpus.refuse(&victim, &[32, 34], &parts.build());
            // In the manifest alone.
            let fair = Content { folder, ..Content::file("m", noise(1, 10)) };
            parts.plain = Plain { table: fair.plain().table, ..parts.plain };
            let victim = Victim::of(2000, &fair);
            corpus.refuse(&victim, &[32, 34, 35, 29], &parts.build());
        }
    }
    for model in ["", ".", "..", "a/b", "/", "a\\b", "\0", "\x1B", &long] {
        let mut parts =
            Parts::new(2001, &Content { name: model.into(), ..Content::file("m", vec![]) }, 4096, &[&KeyFile::new(1)]);
        corpus.refuse(&Victim::of(2001, &Content::file("m", vec![])), &[34], &parts.build());
        parts.sections.truncate(1);
        corpus.refuse(&Victim::of(2001, &Content::file("m", vec![])), &[34], &parts.build());
    }
}

fn collisions(corpus: &mut Corpus) {
    corpus.family("paths: that collide or are out of order");
    let sets: [&[&str]; 20] = [
        &["A", "a"],
        &["README", "ReadMe"],
        &["a", "a"],
        &["b", "a"],
        &["a/B", "a/b"],
        &["A/x", "a/x"],
        &["a", "a/b"],
        &["A", "a/b"],
        &["A/b", "a"],
        &["a/b", "a/b/c"],
        &["a/B", "a/b/c"],
        &["É", "é"],
        &["ΑΣ", "ας"],
        &["Ⅷ", "ⅷ"],
        &["İ", "i\u{307}"],
        &["K", "k"],
        &["a", "b", "A"],
        &["a", "c", "b"],
        &["x/y/z", "x/Y/z"],
        &["\u{10400}", "\u{10428}"],
    ];
    for paths in sets {
        let mut sorted = paths.to_vec();
        sorted.sort_unstable();
        for paths in [paths, &sorted] {
            let collide = |p: &&[&str]| sorted_ok(p);
            if collide(&paths) {
                continue;
            }
            let entries = paths.iter().map(|p| ((*p).into(), vec![1; 3])).collect();
            let victim = Victim::of(2100, &Content::file("m", vec![]));
            corpus.refuse(
                &victim,
                &[33],
                &Parts::new(2100, &Content::folder(entries), 4096, &[&KeyFile::new(1)]).build(),
            );
        }
    }
}

/// Whether these paths may stand beside each other.
fn sorted_ok(paths: &[&str]) -> bool {
    let lower: Vec<_> = paths.iter().map(|p| p.to_lowercase()).collect();
    let inside = |a: &String, b: &String| b.starts_with(&format!("{a}/")) || a == b;
    let clash = (0..lower.len()).any(|i| (0..lower.len()).any(|j| i != j && inside(&lower[i], &lower[j])));
    paths.is_sorted_by(|a, b| a < b) && !clash
}

/// Bits of what is encoded, resealed: nothing else agrees with them.
fn flips(corpus: &mut Corpus) {
    let victim = Victim::of(2200, &Content { sha256: true, ..Content::file("m.bin", noise(4, 5000)) });
    corpus.family("table: each bit flipped, resealed");
    let used = 4 + victim.parts.content.table().encode().len() + 2;
    for bit in 0..used * 8 {
        let bytes = victim.forged(|p| p.plain.table[bit / 8] ^= 1 << (bit % 8));
        // A table that lies about sizes moves what counts as an entry.
        corpus.refuse_but(Ranges::Sealed, MOST_HEAP, &victim, &[], &bytes);
    }
    corpus.family("trailer: each bit flipped, resealed");
    for bit in 0..128 {
        let bytes = victim.forged(|p| {
            let mut trailer = trailer(p.plain.manifest.len() as u64);
            trailer[bit / 8] ^= 1 << (bit % 8);
            p.plain.trailer = Some(trailer);
        });
        corpus.refuse(&victim, &[27, 29, 31], &bytes);
    }
    corpus.family("manifest: bits of size, offset, digests flipped");
    let manifest = victim.parts.plain.manifest.clone();
    let encoded = victim.parts.content.manifest().at(&[3, 0]).encode();
    let start = manifest.windows(encoded.len()).position(|w| w == encoded).unwrap();
    let scan = 4 + "other".len() + 2;
    for bit in 0..(encoded.len() - scan) * 8 {
        let bytes = victim.forged(|p| p.plain.manifest[start + bit / 8] ^= 1 << (bit % 8));
        corpus.refuse(&victim, &[31, 32, 33, 34, 35, 37], &bytes);
    }
    corpus.family("padding: bits set, resealed");
    for at in (5000..8192).step_by(97).chain([5000, 8191]) {
        corpus.refuse(&victim, &[28], &victim.forged(|p| p.plain.entries[at] = 1 << (at % 8)));
    }
    for at in (used..4096).step_by(97).chain([4095]) {
        corpus.refuse(&victim, &[28], &victim.forged(|p| p.plain.table[at] = 1 << (at % 8)));
    }
}

/// Sizes and offsets at and past every limit, in table, manifest or both.
fn sizes(corpus: &mut Corpus) {
    corpus.family("sizes: lies in table and manifest");
    let powers = [0, 12, 16, 20, 31, 32, 44, 48, 52, 60, 62, 63].map(|bit| 1_u64 << bit);
    let sizes: Vec<_> =
        powers.iter().flat_map(|p| [p - 1, *p, p + 1]).chain((0..6).map(|i| u64::MAX - i * 4095)).collect();
    for piped in [false, true] {
        let victim = Victim::of(2300, &Content { piped, ..Content::file("m", noise(6, 300)) });
        for size in sizes.iter().filter(|s| **s != 300) {
            for (in_table, field) in [(true, 0), (false, 1), (true, 1), (false, 2)] {
                if piped && in_table {
                    continue;
                }
                let bytes = victim.forged(|p| {
                    let (mut table, mut manifest) = (p.content.table(), p.content.manifest());
                    if in_table {
                        *table.at(&[0, 0, 1]) = Cbor::Uint(*size);
                    }
                    if field > 0 && (field, *size) != (2, 4096) {
                        *manifest.at(&[3, 0, field]) = Cbor::Uint(*size);
                    }
                    p.plain.table = table_block(&table.encode());
                    p.plain.manifest = manifest.encode();
                });
                if bytes != victim.bytes {
                    corpus.refuse_but(Ranges::Sealed, MOST_HEAP, &victim, &[24, 27, 28, 29, 31, 35, 37], &bytes);
                }
            }
        }
    }
}

/// Table or manifest of many bytes that decode to more, or claim to.
fn bombs(corpus: &mut Corpus) {
    let victim = Victim::of(2400, &Content::file("m", vec![]));
    let key = KeyFile::new(1);
    let table = |bytes: Vec<u8>| {
        let mut parts = Parts::new(2400, &victim.parts.content, 1 << 20, &[&key]);
        parts.plain.table = table_block(&bytes);
        parts.build()
    };
    let manifest = |bytes: Vec<u8>| {
        let mut parts = Parts::new(2401, &victim.parts.content, 1 << 20, &[&key]);
        parts.plain.manifest = bytes;
        parts.build()
    };
    let of = |n: u64, item: &[u8]| [head(4, n), item.repeat(usize::try_from(n).unwrap())].concat();
    let in_table = |rows: Vec<u8>| Cbor::record(vec![Some(Cbor::Raw(rows)), Some(Cbor::Bool(false))]).encode();
    let in_manifest = |path: &[usize], item: Vec<u8>| {
        let mut manifest = victim.parts.content.manifest();
        *manifest.at(path) = Cbor::Raw(item);
        manifest.encode()
    };
    let row = Cbor::Array(vec![Cbor::text(""), Cbor::Uint(0)]).encode();
    let finding = Cbor::Array(vec![Cbor::Null, Cbor::text(""), Cbor::Uint(0)]).encode();
    let entry = victim.parts.content.manifest().at(&[3, 0]).encode();
    let letter = |n: u32| b'0' + u8::try_from(n & 0x3F).unwrap();
    let keys: Vec<u8> = (0..1_300_000)
        .flat_map(|i| [0x64, letter(i >> 18), letter(i >> 12), letter(i >> 6), letter(i), 0x40])
        .collect();

    corpus.family("CBOR bombs: many small items");
    corpus.refuse(&victim, &[27, 30, 31, 34], &table(in_table(of(16_385, &row))));
    corpus.refuse(&victim, &[27, 30, 31, 34], &table(in_table(of(1_040_000, &row))));
    corpus.refuse(&victim, &[27, 30, 31, 34], &manifest(in_manifest(&[3], of(16_385, &entry))));
    corpus.refuse(&victim, &[27, 30, 31, 34], &manifest(in_manifest(&[3], of(8_300_000 / entry.len() as u64, &entry))));
    corpus.refuse(&victim, &[27, 30, 31, 34], &manifest(in_manifest(&[3, 0, 5, 2], of(2_050_000, &finding))));
    let extensions = [head(5, 1_300_000), keys].concat();
    corpus.refuse(&victim, &[27, 31, 34], &manifest(in_manifest(&[5], extensions)));

    corpus.family("CBOR bombs: nested, under an unlisted key");
    for opener in [0x81, 0x9F, 0xC1, 0xDF, 0xBF] {
        for depth in [100, 10_000, 1_000_000, 4_100_000] {
            let deep = Cbor::Raw([vec![opener; depth], vec![0x80]].concat());
            let mut bomb = victim.parts.content.table();
            bomb.pairs().push((Cbor::Uint(9), deep.clone()));
            corpus.refuse(&victim, &[31], &table(bomb.encode()));
            let mut bomb = victim.parts.content.manifest();
            bomb.pairs().push((Cbor::Uint(9), deep));
            corpus.refuse(&victim, &[31], &manifest(bomb.encode()));
        }
    }

    corpus.family("CBOR bombs: lengths that claim much");
    for n in [1 << 16, 1 << 24, 1 << 31, 1 << 32, 1 << 40, 1 << 62, u64::MAX] {
        for major in 2..6 {
            corpus.refuse(&victim, &[31], &table(long_head(major, n)));
            corpus.refuse(&victim, &[31], &table(in_table(long_head(major, n))));
            corpus.refuse(&victim, &[31], &manifest(long_head(major, n)));
            for path in [&[0][..], &[3], &[3, 0], &[3, 0, 0], &[3, 0, 3], &[3, 0, 5, 2], &[5]] {
                corpus.refuse(&victim, &[31], &manifest(in_manifest(path, head(major, n))));
            }
        }
    }

    corpus.family("table and manifest: as long as may be, and longer");
    for len in [4 << 20, (4 << 20) + 1, (4 << 20) - 4, 9 << 20] {
        corpus.refuse(&victim, &[27, 31], &table(vec![0; len]));
        corpus.refuse(&victim, &[27, 31], &table(in_table([head(2, len as u64 - 20), vec![7; len - 20]].concat())));
    }
    for len in [8 << 20, (8 << 20) + 1, 17 << 20] {
        corpus.refuse(&victim, &[27, 31], &manifest(vec![0; len]));
        corpus.refuse(
            &victim,
            &[27, 31, 34],
            &manifest(in_manifest(&[0], [head(3, len as u64 - 200), vec![b'n'; len - 200]].concat())),
        );
    }
}
