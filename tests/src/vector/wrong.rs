//! Vectors whose every key, tag and MAC is right, and whose content is not: the lies of a sealer. FORMAT.md
//! sections 6 and 7.

use super::positive::{file, folder, number};
use super::{Case, Vector, reader};
use crate::forge::cbor::Cbor;
use crate::forge::content::{Content, table_block, trailer};
use crate::forge::{Parts, publisher, signer_der};

/// A refusal of `content` as `change` made it wrong; `released` bytes of the entries come out of a stream.
pub(super) fn content(
    rules: &str,
    name: &str,
    about: &str,
    content: &Content,
    released: usize,
    change: impl FnOnce(&mut Parts),
) -> Vector {
    let mut parts = Parts::new(number(name), content, 4096, &[&reader()]);
    change(&mut parts);
    let case = Case::new(name, about).with("identity", reader().secret_line());
    case.refused(rules, &content.bytes()[..released], parts.build())
}

/// A wrong table: nothing comes out.
pub(super) fn table(rules: &str, name: &str, about: &str, change: impl FnOnce(&mut Cbor)) -> Vector {
    content(rules, name, about, &file(0), 0, |p| {
        let mut table = p.content.table();
        change(&mut table);
        p.plain.table = table_block(&table.encode());
    })
}

/// A wrong manifest of an empty file.
pub(super) fn manifest(rules: &str, name: &str, about: &str, change: impl FnOnce(&mut Cbor)) -> Vector {
    content(rules, name, about, &file(0), 0, |p| {
        let mut manifest = p.content.manifest();
        change(&mut manifest);
        p.plain.manifest = manifest.encode();
    })
}

/// Paths that are wrong in table and manifest alike.
fn paths(rules: &str, name: &str, about: &str, paths: &[&str]) -> Vector {
    let entries = paths.iter().map(|p| ((*p).into(), vec![])).collect();
    content(rules, name, about, &Content::folder(entries), 0, |_| ())
}

pub(super) fn all() -> Vec<Vector> {
    [lengths(), layout(), path_rules(), limits(), agreement(), digests()].concat()
}

fn lengths() -> Vec<Vector> {
    let big = vec![("x".into(), vec![0; 65_536])];
    let piped = Content { piped: true, extensions: big, ..file(300) };
    vec![
        content("F-27", "table-too-long", "t is 4 MiB and a byte", &file(0), 0, |p| {
            p.plain.table[..4].copy_from_slice(&(4 * 1024 * 1024 + 1_u32).to_be_bytes());
        }),
        content("F-27", "table-len-max", "t is 2^32 - 1", &file(0), 0, |p| p.plain.table[..4].fill(0xFF)),
        content("F-26 F-27", "table-past-end", "t is 1 MiB in a payload that is shorter", &file(0), 0, |p| {
            p.plain.table[..4].copy_from_slice(&0x0010_0000_u32.to_be_bytes());
        }),
        content("F-27", "manifest-too-long", "m is 8 MiB and a byte", &file(0), 0, |p| {
            p.plain.trailer = Some(trailer(8 * 1024 * 1024 + 1));
        }),
        content("F-27", "manifest-len-max", "m is 2^64 - 1", &file(0), 0, |p| {
            p.plain.trailer = Some(trailer(u64::MAX));
        }),
        content("F-27", "manifest-past-front", "m is one more than P - 16", &file(300), 300, |p| {
            p.plain.trailer = Some(trailer(8192 + p.plain.manifest.len() as u64 + 1));
        }),
        content("F-27", "trailer-magic", "the trailer's first bytes are another's", &file(0), 0, |p| {
            p.plain.trailer = Some([&b"mvault-n"[..], &(p.plain.manifest.len() as u64).to_be_bytes()].concat());
        }),
        content("F-27", "trailer-missing", "the payload ends with the manifest", &file(300), 300, |p| {
            p.plain.trailer = Some(vec![]);
        }),
        content(
            "F-27",
            "piped-manifest-too-long",
            "the size is null, and the manifest over 64 KiB",
            &piped,
            94,
            |_| (),
        ),
    ]
}

fn layout() -> Vec<Vector> {
    let two = Content::folder(vec![("a".into(), vec![1; 10]), ("b".into(), vec![2; 10])]);
    let piped = Content { piped: true, ..file(300) };
    let size = |size: u64| move |t: &mut Cbor| *t.at(&[0, 0, 1]) = Cbor::Uint(size);
    let piped_size = |size: u64| {
        move |p: &mut Parts| {
            let mut manifest = p.content.manifest();
            *manifest.at(&[3, 0, 1]) = Cbor::Uint(size);
            p.plain.manifest = manifest.encode();
        }
    };
    vec![
        table("F-24", "size-max", "the table has a size of 2^64 - 1", size(u64::MAX)),
        content("F-24", "size-sum", "the sizes in the table add up to over 2^64", &two, 0, |p| {
            let mut table = p.content.table();
            *table.at(&[0, 0, 1]) = Cbor::Uint(1 << 63);
            *table.at(&[0, 1, 1]) = Cbor::Uint(1 << 63);
            p.plain.table = table_block(&table.encode());
        }),
        content("F-28", "table-padding", "the table's padding is not zero", &file(0), 0, |p| p.plain.table[4095] = 1),
        content("F-28", "entry-padding", "an entry's padding is not zero", &file(300), 300, |p| {
            p.plain.entries[300] = 1;
        }),
        content(
            "F-28",
            "entry-padding-last",
            "the padding's last byte is not zero, and another entry follows",
            &two,
            10,
            |p| {
                p.plain.entries[4095] = 1;
            },
        ),
        content("F-28", "piped-padding", "the padding of an entry of null size is not zero", &piped, 0, |p| {
            p.plain.entries[4095] = 1;
        }),
        content("F-29", "manifest-late", "4 KiB of zeros before the manifest", &file(0), 0, |p| {
            p.plain.entries.resize(4096, 0);
        }),
        content("F-27 F-28 F-29", "manifest-early", "the entry's padding is missing", &file(300), 300, |p| {
            p.plain.entries.truncate(300);
        }),
        content("F-29", "null-of-two", "two entries, the second of null size", &two, 0, |p| {
            let mut table = p.content.table();
            *table.at(&[0, 1, 1]) = Cbor::Null;
            p.plain.table = table_block(&table.encode());
        }),
        content(
            "F-28 F-29",
            "piped-size-small",
            "the size in the manifest leaves out a byte",
            &piped,
            0,
            piped_size(299),
        ),
        content(
            "F-27 F-29",
            "piped-size-large",
            "the size in the manifest is 4 KiB too large",
            &piped,
            0,
            piped_size(4396),
        ),
        content("F-27 F-29", "piped-size-max", "the size in the manifest is 2^64 - 1", &piped, 0, piped_size(u64::MAX)),
        content(
            "F-27 F-29",
            "piped-size-near-max",
            "the size in the manifest is 2^64 - 8192",
            &piped,
            0,
            piped_size(u64::MAX - 8191),
        ),
        table("F-30", "no-entry-table", "the table has no entry", |t| t.at(&[0]).items().clear()),
        content("F-30", "no-entry", "table and manifest have no entry", &Content::folder(vec![]), 0, |_| ()),
    ]
}

fn path_rules() -> Vec<Vector> {
    let long = "c".repeat(256);
    let layout_0 = |name: &str, about: &str, entries: &[(&str, usize)], released| {
        let entries = entries.iter().map(|(p, n)| ((*p).into(), vec![1; *n])).collect();
        let content_0 = Content { folder: false, ..Content::folder(entries) };
        content("F-32", name, about, &content_0, released, |_| ())
    };
    vec![
        paths("F-32", "path-parent", "a path leads out of its folder", &["../evil"]),
        paths("F-32", "path-parent-inside", "a path leads out of its folder in the middle", &["a/../../evil"]),
        paths("F-32", "path-absolute", "an absolute path", &["/etc/passwd"]),
        paths("F-32", "path-dot", "a component is a dot", &["a/./b"]),
        paths("F-32", "path-empty-component", "an empty component", &["a//b"]),
        paths("F-32", "path-trailing-slash", "a path ends with a slash", &["a/"]),
        paths("F-32 F-34", "path-empty", "a path of no bytes", &[""]),
        paths("F-32", "path-backslash", "a backslash", &["..\\evil"]),
        paths("F-32", "path-nul", "a zero byte", &["model\0.bin"]),
        paths("F-32", "path-newline", "an end of line", &["model\n.bin"]),
        paths("F-32", "path-delete", "a byte 0x7F", &["model\x7F"]),
        paths("F-32", "path-component-long", "a component of 256 bytes", &[&long]),
        paths("F-33", "paths-descend", "paths in descending order", &["b", "a"]),
        paths("F-33", "paths-equal", "a path twice", &["a", "a"]),
        paths("F-33", "paths-case", "paths that differ in case alone", &["README", "readme"]),
        paths(
            "F-33",
            "paths-case-unicode",
            "paths that differ in case alone, not in ASCII",
            &["\u{c9}t\u{e9}", "\u{e9}t\u{e9}"],
        ),
        paths("F-33", "path-inside-file", "a path inside another entry", &["a", "a/b"]),
        paths("F-33", "path-inside-file-case", "a path inside another entry but for case", &["A/b", "a"]),
        layout_0("layout-0-folder", "layout 0 and a path of two components", &[("a/b", 10)], 10),
        layout_0("layout-0-two", "layout 0 and two entries", &[("a", 10), ("b", 10)], 20),
        manifest("F-31 F-32", "layout-2", "layout 2", |m| *m.at(&[2]) = Cbor::Uint(2)),
    ]
}

fn limits() -> Vec<Vector> {
    let text = |n: usize| Cbor::text("x".repeat(n));
    let name = |name: &str, about: &str, model: &str| {
        let named = Content { name: model.into(), ..file(0) };
        content("F-34", name, about, &named, 0, |p| p.sections.truncate(1))
    };
    let label = |name: &str, about: &str, labels: Vec<(String, String)>| {
        content("F-34", name, about, &Content { labels, ..file(0) }, 0, |_| ())
    };
    let finding = |member: Cbor, what: Cbor| Cbor::Array(vec![Cbor::Array(vec![member, what, Cbor::Uint(0)])]);
    let deep = ["p".repeat(255), "p".repeat(255), "p".repeat(255), "p".repeat(255), "pp".into()].join("/");
    vec![
        name("name-long", "a name of 256 bytes", &"n".repeat(256)),
        name("name-empty", "a name of no bytes", ""),
        name("name-slash", "a slash in the name", "a/b"),
        name("name-parent", "the name is two dots", ".."),
        name("name-control", "an escape character in the name", "\x1B[2J"),
        paths("F-34", "path-long", "a path of 1025 bytes", &[&deep[..1025]]),
        manifest("F-34", "tool-long", "a tool of 256 bytes", |m| *m.at(&[4]) = text(256)),
        manifest("F-34", "format-long", "a format of 256 bytes", |m| *m.at(&[3, 0, 5, 0]) = text(256)),
        manifest("F-31 F-34", "verdict-5", "a verdict that is not in the list", |m| {
            *m.at(&[3, 0, 5, 1]) = Cbor::Uint(5);
        }),
        manifest("F-34", "findings-17", "17 findings", |m| {
            let one = Cbor::Array(vec![Cbor::Null, text(1), Cbor::Uint(0)]);
            *m.at(&[3, 0, 5, 2]) = Cbor::Array(vec![one; 17]);
        }),
        manifest("F-34", "finding-long", "a finding of 256 bytes", |m| {
            *m.at(&[3, 0, 5, 2]) = finding(Cbor::Null, text(256));
        }),
        manifest("F-34", "member-long", "a member of 1025 bytes", |m| {
            *m.at(&[3, 0, 5, 2]) = finding(text(1025), text(1));
        }),
        manifest("F-34", "extensions-65", "65 extensions", |m| {
            *m.at(&[5]) = Cbor::text_map((10..75).map(|i| (i.to_string(), Cbor::Bytes(vec![]))));
        }),
        manifest("F-34", "extension-key-long", "an extension key of 256 bytes", |m| {
            *m.at(&[5]) = Cbor::text_map([("k".repeat(256), Cbor::Bytes(vec![]))]);
        }),
        manifest("F-34", "extension-long", "an extension of 65537 bytes", |m| {
            *m.at(&[5]) = Cbor::text_map([("k".into(), Cbor::Bytes(vec![0; 65_537]))]);
        }),
        label("labels-65", "65 labels", (10..75).map(|i| (i.to_string(), String::new())).collect()),
        label("label-long", "a label of 256 bytes", vec![("k".into(), "v".repeat(256))]),
        content("F-34", "kind-long", "a kind of 256 bytes", &Content { kind: "k".repeat(256), ..file(0) }, 0, |_| ()),
    ]
}

fn agreement() -> Vec<Vector> {
    let other = |name: &str, version: u64| Content { name: name.into(), version, ..file(300) };
    let two = Content::folder(vec![("a".into(), vec![1; 10]), ("b".into(), vec![2; 10])]);
    vec![
        manifest("F-35", "entry-path", "an entry has another path in the manifest", |m| {
            *m.at(&[3, 0, 0]) = Cbor::text("modem.bin");
        }),
        manifest("F-35", "entry-size", "an entry has another size in the manifest", |m| {
            *m.at(&[3, 0, 1]) = Cbor::Uint(1);
        }),
        manifest("F-35", "entry-offset", "an entry has another offset in the manifest", |m| {
            *m.at(&[3, 0, 2]) = Cbor::Uint(0);
        }),
        manifest("F-35", "entry-offset-max", "an entry's offset in the manifest is 2^64 - 1", |m| {
            *m.at(&[3, 0, 2]) = Cbor::Uint(u64::MAX);
        }),
        manifest("F-35", "sha256-unannounced", "a SHA-256 that the table does not announce", |m| {
            *m.at(&[3, 0, 4]) = Cbor::Bytes(vec![1; 32]);
        }),
        content(
            "F-35",
            "sha256-missing",
            "no SHA-256, though the table announces it",
            &Content { sha256: true, ..file(300) },
            300,
            |p| {
                let mut manifest = p.content.manifest();
                *manifest.at(&[3, 0, 4]) = Cbor::Null;
                p.plain.manifest = manifest.encode();
            },
        ),
        content("F-35", "entry-hidden", "the manifest leaves out an entry of the table", &two, 20, |p| {
            let mut manifest = p.content.manifest();
            manifest.at(&[3]).items().pop();
            p.plain.manifest = manifest.encode();
        }),
        content("F-35", "entry-invented", "the manifest has an entry more than the table", &two, 20, |p| {
            let mut manifest = p.content.manifest();
            let mut more = manifest.at(&[3, 1]).clone();
            *more.at(&[0]) = Cbor::text("c");
            manifest.at(&[3]).items().push(more);
            p.plain.manifest = manifest.encode();
        }),
        content("F-36", "about-name", "the about block has another name", &file(300), 300, |p| {
            p.sections[1] = p.keys.about(&other("modem", 1).about_padded(), [7; 32]);
        }),
        content("F-36", "about-version", "the about block has another version", &file(300), 300, |p| {
            p.sections[1] = p.keys.about(&other("model", 2).about_padded(), [7; 32]);
        }),
    ]
}

fn digests() -> Vec<Vector> {
    let sha256 = Content { sha256: true, ..file(300) };
    let piped = Content { piped: true, ..file(300) };
    let blake3 = |p: &mut Parts| {
        let mut manifest = p.content.manifest();
        *manifest.at(&[3, 0, 3]) = Cbor::Bytes(vec![1; 32]);
        p.plain.manifest = manifest.encode();
    };
    let mut signed = Parts::new(number("blake3-signed"), &file(300), 4096, &[&reader()]);
    blake3(&mut signed);
    signed.add(signed.signature(&publisher(3)));
    vec![
        content("F-37", "blake3-wrong", "an entry's BLAKE3 is wrong", &file(300), 300, blake3),
        content(
            "F-37",
            "blake3-wrong-many-chunks",
            "the BLAKE3 of the second of two files is wrong",
            &folder(),
            folder().bytes().len(),
            |p| {
                let mut manifest = p.content.manifest();
                *manifest.at(&[3, 2, 3]) = Cbor::Bytes(vec![1; 32]);
                p.plain.manifest = manifest.encode();
            },
        ),
        content("F-37", "sha256-wrong", "an entry's SHA-256 is wrong", &sha256, 300, |p| {
            let mut manifest = p.content.manifest();
            *manifest.at(&[3, 0, 4]) = Cbor::Bytes(vec![1; 32]);
            p.plain.manifest = manifest.encode();
        }),
        content(
            "F-37",
            "piped-blake3-wrong",
            "the BLAKE3 of an entry of null size is wrong: what was held back stays back",
            &piped,
            0,
            blake3,
        ),
        Case::new("blake3-signed", "an entry's BLAKE3 is wrong, and the publisher signed it so")
            .with("identity", reader().secret_line())
            .signer(&signer_der(&publisher(3)))
            .refused("F-37", &file(300).bytes(), signed.build()),
    ]
}
