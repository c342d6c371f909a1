//! Vectors that open: one for each thing that an artifact may be.

use super::{Case, Vector, reader};
use crate::forge::cbor::Cbor;
use crate::forge::content::Content;
use crate::forge::{COST, KeyFile, Parts, publisher, signer_der};
use crate::noise;

/// A number of its own for each vector, whatever others there are.
pub(super) fn number(name: &str) -> u64 {
    u64::from_str_radix(&super::sha256(name.as_bytes())[..14], 16).unwrap()
}

/// A file of `len` bytes.
pub(super) fn file(len: usize) -> Content {
    Content::file("model.bin", noise(len as u64, len))
}

pub(super) fn folder() -> Content {
    let entries = [("a/x", 5000), ("a/y", 0), ("b", 4096), ("c/d/e.json", 1)];
    Content::folder(entries.map(|(path, len)| (path.into(), noise(len as u64, len))).to_vec())
}

/// Opens for the key file that most vectors are for.
fn plain(name: &str, about: &str, content: &Content, chunk: u32, change: impl FnOnce(&mut Parts)) -> Vector {
    let mut parts = Parts::new(number(name), content, chunk, &[&reader()]);
    change(&mut parts);
    Case::new(name, about).with("identity", reader().secret_line()).opens(content, parts.build())
}

pub(super) fn all() -> Vec<Vector> {
    [contents(), chunking(), headers(), recipients()].concat()
}

fn contents() -> Vec<Vector> {
    let unicode =
        Content { name: "Größe 模型".into(), version: u64::MAX, ..Content::file("überraschung.bin", vec![7]) };
    let extensions = vec![("z".into(), vec![0; 24]), ("org.example.card".into(), b"card".to_vec())];
    let labels = [("stage", "production"), ("team", "vision"), ("a", ""), ("ab", "two")];
    let long = format!("{}/{}", "d".repeat(255), "f".repeat(255));
    let limits = Content { name: "n".repeat(255), ..Content::folder(vec![(long, vec![1, 2, 3])]) };
    let near = [("A/b", 1), ("B", 2), ("a.b", 3), ("a0", 4)].map(|(p, n)| (p.into(), vec![n; 3]));
    vec![
        plain("one-file", "one file of a chunk and a bit", &file(5000), 4096, |_| ()),
        plain("folder", "a folder with an empty file and a file of 4 KiB", &folder(), 4096, |_| ()),
        plain("empty-file", "a file of no bytes", &file(0), 4096, |_| ()),
        plain("sha256", "the manifest has each entry's SHA-256", &Content { sha256: true, ..file(10) }, 4096, |_| ()),
        plain("unicode", "name and path are not ASCII, the version is 2^64 - 1", &unicode, 4096, |_| ()),
        plain(
            "extensions",
            "extensions, sorted by length, then bytes",
            &Content { extensions, ..file(10) },
            4096,
            |_| (),
        ),
        plain(
            "sealed-at",
            "the manifest has a time",
            &Content { sealed_at: Some(1_790_000_000), ..file(10) },
            4096,
            |_| (),
        ),
        plain(
            "labels",
            "the about block has labels",
            &Content { labels: labels.map(|(k, v)| (k.into(), v.into())).to_vec(), ..file(10) },
            4096,
            |_| (),
        ),
        plain("limits", "name and path components are as long as may be", &limits, 4096, |_| ()),
        plain(
            "near-paths",
            "paths that come close to each other, and do not collide",
            &Content::folder(near.to_vec()),
            4096,
            |_| (),
        ),
        plain("findings", "scan verdicts with findings", &file(10), 4096, |parts| {
            let mut manifest = parts.content.manifest();
            let finding = |member: Cbor, at| Cbor::Array(vec![member, Cbor::text("os.system"), Cbor::Uint(at)]);
            let both = vec![finding(Cbor::Null, 2), finding(Cbor::text("archive/data.pkl"), 1 << 40)];
            let scan = vec![Cbor::text("pickle"), Cbor::Uint(1), Cbor::Array(both), Cbor::Uint(70_000)];
            *manifest.at(&[3, 0, 5]) = Cbor::Array(scan);
            parts.plain.manifest = manifest.encode();
        }),
        plain(
            "piped",
            "the size is null in the table: it came from a pipe",
            &Content { piped: true, ..file(5000) },
            4096,
            |_| (),
        ),
        plain("piped-empty", "the size is null, and nothing came", &Content { piped: true, ..file(0) }, 4096, |_| ()),
        plain(
            "piped-long",
            "the size is null, and a stream gives bytes out before the end",
            &Content { piped: true, ..file(71_000) },
            4096,
            |_| (),
        ),
        plain(
            "piped-aligned",
            "the size is null, and a multiple of 4 KiB",
            &Content { piped: true, sha256: true, ..file(8192) },
            4096,
            |_| (),
        ),
    ]
}

fn chunking() -> Vec<Vector> {
    let mut exact = Content { extensions: vec![("pad".into(), vec![0; 256])], ..file(4096) };
    let over = exact.plain().bytes().len() % 4096;
    exact.extensions[0].1.resize(256 + 4096 - over, 0);
    vec![
        plain(
            "empty-last-chunk",
            "the plaintext is a multiple of C: the last chunk is a tag alone",
            &exact,
            4096,
            |_| (),
        ),
        plain("one-chunk", "the whole payload is one short chunk", &file(5000), 65_536, |_| ()),
        plain("larger-chunks", "chunks of 16 KiB, entries inside them", &folder_of(6), 16_384, |_| ()),
        plain("many-chunks", "six chunks", &file(16_000), 4096, |_| ()),
    ]
}

fn folder_of(count: usize) -> Content {
    Content::folder((0..count).map(|i| (format!("{i}"), noise(i as u64, i * 700))).collect())
}

fn headers() -> Vec<Vector> {
    let small = file(10);
    vec![
        plain("default-header", "a header of 16 KiB", &small, 4096, |p| p.header_len = 16_384),
        plain("full-header", "the sections fill the header to its last byte", &small, 4096, |p| {
            p.add((0x0155, vec![7; 4096 - 120 - 4 - p.encoded_sections().len()]));
        }),
        plain("no-about", "there is no about block", &small, 4096, |p| p.sections.retain(|s| s.0 < 0x100)),
        plain("unknown-stanza", "an unknown stanza before the reader's own is skipped", &small, 4096, |p| {
            p.sections.insert(0, (0x0077, b"who knows".to_vec()));
        }),
        plain("reserved-stanzas", "reserved stanzas are skipped", &small, 4096, |p| {
            p.sections.insert(0, (0x0005, vec![]));
            p.sections.insert(1, (0x00FF, vec![4; 300]));
        }),
        plain("unknown-section", "an unknown section without the critical bit is skipped", &small, 4096, |p| {
            p.add((0x0155, vec![1, 2, 3]));
        }),
        plain("signed-not-demanded", "a signature nobody asks for is not looked at", &small, 4096, |p| {
            let (kind, mut body) = p.signature(&publisher(3));
            body[150] ^= 1;
            p.add((kind, body));
        }),
    ]
}

fn recipients() -> Vec<Vector> {
    let (small, first, second) = (file(10), reader(), KeyFile::new(2));
    let two = Parts::new(number("two-recipients"), &small, 4096, &[&first, &second]);
    let mut passed = Parts::new(number("passed-over"), &small, 4096, &[&first, &first]);
    passed.sections[0].1[1150] ^= 1;
    let mut passphrase = Parts::new(number("passphrase"), &small, 4096, &[]);
    passphrase.sections.insert(0, passphrase.keys.passphrase(b"correct horse", COST, [1; 16]));
    let mut both = Parts::new(number("passphrase-and-key"), &small, 4096, &[&first]);
    both.sections.insert(0, both.keys.passphrase("pässword".as_bytes(), [65_536, 4, 1], [2; 16]));
    let mut signed = Parts::new(number("signed"), &file(300), 4096, &[&first]);
    signed.add(signed.signature(&publisher(3)));
    let protected = Parts::new(number("protected-key"), &small, 4096, &[&first]);
    let signers = [publisher(4), publisher(3)].map(|key| signer_der(&key));
    vec![
        Case::new("two-recipients", "the second of two key files")
            .with("identity", second.secret_line())
            .opens(&small, two.build()),
        Case::new("passed-over", "the first of two stanzas for one key file is damaged, the second opens [F-17]")
            .with("identity", first.secret_line())
            .opens(&small, passed.build()),
        Case::new("passphrase", "a passphrase alone")
            .with("passphrase", "correct horse")
            .opens(&small, passphrase.build()),
        Case::new("passphrase-and-key", "a passphrase that is not ASCII, of another cost, beside a key file")
            .with("passphrase", "pässword")
            .opens(&small, both.build()),
        Case::new("key-beside-passphrase", "the key file of the same artifact")
            .with("identity", first.secret_line())
            .opens(&small, both.build()),
        Case::new("protected-key", "a key file under a passphrase")
            .with("identity", first.protected_line(b"correct horse"))
            .with("passphrase", "correct horse")
            .opens(&small, protected.build()),
        Case::new("signed", "one of two signers that are demanded")
            .with("identity", first.secret_line())
            .signer(&signers[0])
            .signer(&signers[1])
            .opens(&file(300), signed.build()),
    ]
}
