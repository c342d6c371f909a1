//! Zip, gzip and npy defects, on archives assembled by hand.

use super::{EVIL, GOOD, expect, expect_words, noise};
use crate::scan::{Format, Verdict};
use flate2::{Compression, write::DeflateEncoder, write::GzEncoder, write::ZlibEncoder};
use std::io::Write;

/// One member as it is written; change a field to make a defect.
#[derive(Clone)]
struct Member {
    name: Vec<u8>,
    listed: Vec<u8>,
    flags: u16,
    method: u16,
    data: Vec<u8>,
    crc: u32,
    size: u32,
    descriptor: bool,
}

fn stored(name: &str, data: &[u8]) -> Member {
    Member {
        name: name.into(),
        listed: name.into(),
        flags: 0,
        method: 0,
        data: data.to_vec(),
        crc: crc32fast::hash(data),
        size: u32::try_from(data.len()).unwrap(),
        descriptor: false,
    }
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn deflated(name: &str, data: &[u8]) -> Member {
    Member { method: 8, data: deflate(data), ..stored(name, data) }
}

fn streamed(member: Member) -> Member {
    Member { flags: 8, descriptor: true, ..member }
}

/// Local headers, then the directory; returns the bytes and where the directory begins.
fn zip_parts(members: &[Member]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for m in members {
        let offset = u32::try_from(out.len()).unwrap();
        let packed = u32::try_from(m.data.len()).unwrap();
        let real = [m.crc.to_le_bytes(), packed.to_le_bytes(), m.size.to_le_bytes()].concat();
        let shown = if m.descriptor { vec![0; 12] } else { real.clone() };
        let head = [&m.flags.to_le_bytes()[..], &m.method.to_le_bytes(), &[0; 4]].concat();
        let len = |name: &[u8]| u16::try_from(name.len()).unwrap().to_le_bytes();
        out.extend([b"PK\x03\x04\x14\0", &head[..], &shown, &len(&m.name), &[0, 0], &m.name, &m.data].concat());
        if m.descriptor {
            out.extend([b"PK\x07\x08", &real[..]].concat());
        }
        let tail = [&len(&m.listed)[..], &[0; 12], &offset.to_le_bytes(), &m.listed].concat();
        directory.extend([b"PK\x01\x02\x14\0\x14\0", &head[..], &real, &tail].concat());
    }
    (out, directory)
}

fn end(count: usize, size: usize, start: usize) -> Vec<u8> {
    let count = u16::try_from(count).unwrap().to_le_bytes();
    let (size, start) = (u32::try_from(size).unwrap().to_le_bytes(), u32::try_from(start).unwrap().to_le_bytes());
    [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &start, &[0, 0]].concat()
}

fn zip(members: &[Member]) -> Vec<u8> {
    let (out, directory) = zip_parts(members);
    let end = end(members.len(), directory.len(), out.len());
    [out, directory, end].concat()
}

#[test]
fn zip_members_are_scanned_in_every_writing() {
    let wrap: [fn(&str, &[u8]) -> Member; 4] =
        [stored, deflated, |n, d| streamed(stored(n, d)), |n, d| streamed(deflated(n, d))];
    for make in wrap {
        let good = expect("a.pt", &zip(&[make("a/data.pkl", GOOD), make("a/data/0", &noise(100))]), Verdict::Safe);
        assert_eq!(good.format, Format::TorchZip);
        for name in ["a/data.pkl", "a/data/0", "readme.txt"] {
            let evil = zip(&[make("a/version", b"3\n"), make(name, EVIL)]);
            let report = expect_words("a.pt", &evil, Verdict::Dangerous, "global posix.system");
            assert_eq!(report.findings[0].member.as_deref(), Some(name));
        }
    }
    expect("empty.zip", &zip(&[]), Verdict::NotAPickle);
    expect("docs.zip", &zip(&[stored("a.txt", b"hello"), deflated("b.txt", b"hello")]), Verdict::NotAPickle);
}

#[test]
fn zip_central_directory_disagrees() {
    let words = "the directory disagrees";
    let renamed = Member { listed: b"data.pkl".into(), ..stored("datap.kl", GOOD) };
    expect_words("a.zip", &zip(&[renamed]), Verdict::NotScanned, words);
    let evil = Member { listed: b"data.pkl".into(), ..stored("datap.kl", EVIL) };
    expect("a.zip", &zip(&[evil]), Verdict::Dangerous);
    let (out, mut directory) = zip_parts(&[stored("a", GOOD), stored("b", GOOD)]);
    let whole = |directory: &[u8], count| [&out[..], directory, &end(count, directory.len(), out.len())].concat();
    expect_words("a.zip", &whole(&directory[..47], 1), Verdict::NotScanned, "does not list");
    let twice = [&directory[..47], &directory[..47]].concat();
    expect_words("a.zip", &whole(&twice, 2), Verdict::NotScanned, "lists a member twice");
    directory[16] ^= 1;
    expect_words("a.zip", &whole(&directory, 2), Verdict::NotScanned, words);
    directory[16] ^= 1;
    directory[42] ^= 1;
    expect_words("a.zip", &whole(&directory, 2), Verdict::NotScanned, "where no member begins");
}

#[test]
fn zip_bytes_that_nothing_explains() {
    let good = zip(&[stored("a.pkl", GOOD)]);
    expect("a.zip", &good, Verdict::Safe);
    expect("a.zip", &[&good[..], b"tail"].concat(), Verdict::NotScanned);
    expect("a.zip", &[b"#!/bin/sh\n", &good[..]].concat(), Verdict::NotScanned);
    let (out, directory) = zip_parts(&[stored("a.pkl", GOOD)]);
    let gap = [&out[..], b"gap!", &directory, &end(1, directory.len(), out.len() + 4)].concat();
    expect_words("a.zip", &gap, Verdict::NotScanned, "nothing explains");
    let moved = [&out[..], &directory, &end(1, directory.len(), out.len() + 1)].concat();
    expect_words("a.zip", &moved, Verdict::NotScanned, "end record disagrees");
    for len in 1..good.len() {
        expect("a.zip", &good[..len], Verdict::NotScanned);
    }
    let double = zip(&[stored("a.pkl", GOOD), stored("a.pkl", GOOD)]);
    expect_words("a.zip", &double, Verdict::NotScanned, "two members of one name");
}

#[test]
fn zip_locator_hidden_in_the_directory() {
    let name =
        [b"x".repeat(60).as_slice(), b"PK\x06\x07\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"]
            .concat();
    let hidden = Member { name: name.clone(), listed: name, ..stored("", GOOD) };
    expect_words("a.zip", &zip(&[hidden]), Verdict::NotScanned, "locator hidden");
}

#[test]
fn stored_descriptor_hides_member() {
    // The member's bytes hold a descriptor that fits and a whole further member: a reader of
    // local headers sees two members, one that believes the directory sees one.
    let (inner, _) = zip_parts(&[streamed(stored("data.pkl", GOOD)), stored("hidden.pkl", EVIL)]);
    let head = 30 + "data.pkl".len();
    let body = &inner[head..];
    let outer = streamed(stored("data.pkl", body));
    expect("a.zip", &zip(std::slice::from_ref(&outer)), Verdict::Dangerous);
    let (inner, _) = zip_parts(&[streamed(stored("data.pkl", GOOD)), stored("hidden.bin", &noise(64))]);
    let outer = streamed(stored("data.pkl", &inner[head..]));
    expect("a.zip", &zip(&[outer]), Verdict::NotScanned);
}

#[test]
fn stored_descriptor_look_alikes_are_data() {
    let mut data = noise(1000);
    for at in [3, 100, 500] {
        data[at..at + 4].copy_from_slice(b"PK\x07\x08");
    }
    let torch =
        [streamed(stored("a/data.pkl", GOOD)), streamed(stored("a/data/0", &data)), streamed(stored("a/e", b""))];
    expect("a.pt", &zip(&torch), Verdict::Safe);
}

#[test]
fn zip_member_checks() {
    let encrypted = Member { flags: 1, ..stored("a.pkl", &noise(20)) };
    expect_words("a.zip", &zip(&[encrypted, stored("b.pkl", EVIL)]), Verdict::Dangerous, "encrypted zip member");
    let bzip = Member { method: 12, ..stored("a.pkl", GOOD) };
    expect_words("a.zip", &zip(&[bzip]), Verdict::NotScanned, "compression method 12");
    for make in [stored, deflated] {
        let wrong = Member { crc: 1, ..make("a.pkl", GOOD) };
        expect_words("a.zip", &zip(&[wrong, stored("b.pkl", EVIL)]), Verdict::Dangerous, "checksum is wrong");
    }
    let short = Member { size: 3, ..deflated("a.pkl", GOOD) };
    expect("a.zip", &zip(&[short]), Verdict::NotScanned);
    let broken = Member { data: vec![0xff; 30], ..deflated("a.pkl", GOOD) };
    expect_words("a.zip", &zip(&[broken, stored("b.pkl", EVIL)]), Verdict::Dangerous, "compressed data is broken");
}

#[test]
fn zip_bomb() {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    for _ in 0..(128 << 4) {
        encoder.write_all(&vec![0; 1 << 16]).unwrap();
    }
    let data = encoder.finish().unwrap();
    let bomb = Member { method: 8, data, crc: 0, size: 128 << 20, ..stored("data/0", b"") };
    expect_words("a.zip", &zip(&[bomb]), Verdict::NotScanned, "zip bomb");
}

#[test]
fn zip_in_zip_is_opened_four_deep() {
    let mut nested = zip(&[stored("evil.pkl", EVIL)]);
    for depth in 1..4 {
        let report = expect("a.zip", &nested, Verdict::Dangerous);
        let member = report.findings[0].member.clone().unwrap();
        assert_eq!(member.matches('!').count(), depth - 1, "{member}");
        nested = zip(&[deflated("inner.zip", &nested)]);
    }
    for _ in 0..3 {
        nested = zip(&[stored("inner.zip", &nested)]);
    }
    expect_words("a.zip", &nested, Verdict::NotScanned, "nested too deep");
}

#[test]
fn torchscript_classes_only_in_their_archive() {
    let class = b"\x80\x02c__torch__.m\nNet\n)\x81}b.";
    let script = |names: &[&str]| {
        let rest = names.iter().map(|n| stored(n, if n.ends_with("pkl") { GOOD } else { b"code" }));
        zip(&[vec![stored("net/data.pkl", class)], rest.collect()].concat())
    };
    let whole = expect("m.jit", &script(&["net/code/m.py", "net/constants.pkl"]), Verdict::Safe);
    assert_eq!(whole.format, Format::TorchZip);
    expect("m.jit", &script(&["net/code/m.py"]), Verdict::Dangerous);
    expect("m.jit", &script(&["net/constants.pkl"]), Verdict::Dangerous);
    expect("m.jit", &script(&["other/code/m.py", "other/constants.pkl"]), Verdict::Dangerous);
    let elsewhere = [stored("net/x.pkl", class), stored("net/code/m.py", b""), stored("net/constants.pkl", GOOD)];
    expect("m.jit", &zip(&elsewhere), Verdict::Dangerous);
}

#[test]
fn compressed_joblib_is_opened() {
    let gzip = |data: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = |data: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    for packed in [gzip(GOOD), zlib(GOOD)] {
        assert_eq!(expect("m.joblib", &packed, Verdict::Safe).format, Format::Joblib);
        expect("m.joblib", &[&packed[..], b"tail"].concat(), Verdict::NotScanned);
        expect("m.joblib", &packed[..packed.len() - 2], Verdict::NotScanned);
        let mut broken = packed.clone();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        expect("m.joblib", &broken, Verdict::NotScanned);
    }
    let cut = zlib(&[EVIL, &noise(4000)].concat());
    for packed in [cut[..2000].to_vec(), gzip(EVIL), zlib(EVIL), [gzip(GOOD), gzip(EVIL)].concat()] {
        for name in ["m.joblib", "weights", "a.txt"] {
            expect_words(name, &packed, Verdict::Dangerous, "global posix.system");
        }
    }
    expect("vocab.txt.gz", &gzip(b"some words"), Verdict::NotAPickle);
    for head in [b"BZh91AY&SY".as_slice(), b"\xfd7zXZ\0", b"\x04\x22\x4d\x18"] {
        expect_words("m.joblib", head, Verdict::NotScanned, "not opened");
    }
}

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let len = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\0", &len[..], header.as_bytes(), data].concat()
}

#[test]
fn npy_object_danger() {
    expect("a.npy", &npy("'|O'", "(2,)", GOOD), Verdict::Safe);
    expect_words("a.npy", &npy("'|O'", "(2,)", EVIL), Verdict::Dangerous, "global posix.system");
    expect("weights", &npy("'|O'", "(2,)", EVIL), Verdict::Dangerous);
    expect("a.npy", &npy("[('a', '<f8'), ('b', '|O')]", "(2,)", EVIL), Verdict::Dangerous);
    let npz = zip(&[stored("a.npy", &npy("'<f8'", "(1,)", &[0; 8])), deflated("b.npy", &npy("'|O'", "()", EVIL))]);
    let report = expect("a.npz", &npz, Verdict::Dangerous);
    assert_eq!((report.format, report.findings[0].member.as_deref()), (Format::Npz, Some("b.npy")));
}

#[test]
fn npy_data_must_fit() {
    expect("a.npy", &npy("'<f8'", "(2, 2)", &[0; 32]), Verdict::NotAPickle);
    expect("a.npy", &npy("[('a', '<f8', (2,)), ('b', '|u1')]", "(2,)", &[0; 34]), Verdict::NotAPickle);
    expect("a.npy", &npy("'<M8[ns]'", "(2,)", &[0; 16]), Verdict::NotAPickle);
    for (descr, shape, len) in [
        ("'<f8'", "(2, 2)", 31),
        ("'<f8'", "(2, 2)", 33),
        ("'<f8'", "(4611686018427387904, 9)", 8),
        ("'<q9'", "(1,)", 8),
        ("__import__('os')", "(1,)", 8),
        ("'<f8'", "(-1,)", 8),
        ("'<f8'", "(1,), 'x': (1,)", 8),
        ("'<f8', 'descr': '|O'", "(1,)", 8),
    ] {
        expect("a.npy", &npy(descr, shape, &vec![0; len]), Verdict::NotScanned);
    }
}

#[test]
fn tar_is_not_scanned_even_with_a_pickle_for_a_name() {
    let mut block = vec![0_u8; 1024];
    block[..GOOD.len()].copy_from_slice(GOOD);
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    expect_words("model.pt", &block, Verdict::NotScanned, "tar archive");
    block[0] = b'a';
    let sum: u32 = block[..148].iter().chain(&[b' '; 8]).chain(&block[156..512]).map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(expect("model.pt", &block, Verdict::NotScanned).format, Format::Archive);
}
