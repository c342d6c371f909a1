//! Vectors of CBOR that is not the one encoding: FORMAT.md section 7, [F-31].

use super::Vector;
use super::positive::file;
use super::wrong::{content, manifest, table};
use crate::forge::cbor::{Cbor, long_head};

pub(super) fn all() -> Vec<Vector> {
    let raw = |bytes: &[u8]| Cbor::Raw(bytes.to_vec());
    vec![
        table("F-31", "cbor-long-int", "a size in more bytes than needed", |t| {
            *t.at(&[0, 0, 1]) = Cbor::Raw(vec![0x18, 0]);
        }),
        table("F-31", "cbor-long-length", "a text length in more bytes than needed", |t| {
            *t.at(&[0, 0, 0]) = Cbor::Raw([&long_head(3, 9)[..], b"model.bin"].concat());
        }),
        table("F-31", "cbor-indefinite-array", "an array of indefinite length", |t| {
            let row = t.at(&[0, 0]).encode();
            *t.at(&[0]) = Cbor::Raw([&[0x9F][..], &row, &[0xFF]].concat());
        }),
        table("F-31", "cbor-indefinite-text", "a text in pieces", |t| {
            *t.at(&[0, 0, 0]) = Cbor::Raw([&[0x7F, 0x65][..], b"model", &[0x64], b".bin", &[0xFF]].concat());
        }),
        table("F-31", "cbor-trailing", "a byte follows the table", |t| *t = Cbor::Raw([t.encode(), vec![0]].concat())),
        table("F-31", "cbor-cut", "the table's last byte is missing", |t| {
            let mut bytes = t.encode();
            bytes.pop();
            *t = Cbor::Raw(bytes);
        }),
        table("F-31", "cbor-null-left-out", "a null size is left out of its row", |t| {
            *t.at(&[0, 0]) = Cbor::Array(vec![Cbor::text("model.bin")]);
        }),
        table("F-31", "cbor-row-long", "a row of three", |t| t.at(&[0, 0]).items().push(Cbor::Null)),
        table("F-31", "cbor-sha256-missing", "the table does not say whether there are SHA-256", |t| {
            drop(t.pairs().pop());
        }),
        table("F-31", "cbor-sha256-int", "the table says it with 0 for false", |t| *t.at(&[1]) = Cbor::Uint(0)),
        table("F-31", "cbor-huge-array", "an array that claims 2^60 rows", |t| {
            *t.at(&[0]) = Cbor::Raw(long_head(4, 1 << 60));
        }),
        table("F-31", "cbor-utf8", "a path that is not UTF-8", |t| {
            *t.at(&[0, 0, 0]) = Cbor::Raw(vec![0x62, 0xC3, 0x28]);
        }),
        manifest("F-31", "cbor-keys-twice", "a key occurs twice", |m| {
            let version = m.pairs()[1].clone();
            m.pairs().insert(1, version);
        }),
        manifest("F-31", "cbor-keys-unsorted", "keys do not ascend", |m| m.pairs().swap(0, 1)),
        manifest("F-31", "cbor-key-unknown", "a key that is not listed", |m| {
            m.pairs().push((Cbor::Uint(7), Cbor::Uint(0)));
        }),
        manifest("F-31", "cbor-key-missing", "there is no tool", |m| drop(m.pairs().remove(4))),
        manifest("F-31", "cbor-null-for-absent", "an absent time is null", |m| {
            m.pairs().insert(5, (Cbor::Uint(5), Cbor::Null));
        }),
        manifest("F-31", "cbor-tag", "a tagged text", |m| *m.at(&[4]) = raw(&[0xC1, 0x61, b'm'])),
        manifest("F-31", "cbor-float", "the version is 1.0", |m| *m.at(&[1]) = raw(&[0xF9, 0x3C, 0x00])),
        manifest("F-31", "cbor-negative", "the version is -1", |m| *m.at(&[1]) = raw(&[0x20])),
        manifest("F-31", "cbor-bignum", "the version is a bignum", |m| *m.at(&[1]) = raw(&[0xC2, 0x41, 0x01])),
        manifest("F-31", "cbor-undefined", "the SHA-256 is undefined", |m| *m.at(&[3, 0, 4]) = raw(&[0xF7])),
        manifest("F-31", "cbor-deep", "fifteen hundred arrays in each other", |m| {
            m.pairs().push((Cbor::Uint(7), Cbor::Raw([vec![0x81; 1500], vec![0x80]].concat())));
        }),
        manifest("F-31", "cbor-extensions-unsorted", "extensions in another order", |m| {
            let pair = |key: &str| (Cbor::text(key), Cbor::Bytes(vec![]));
            *m.at(&[5]) = Cbor::Map(vec![pair("aa"), pair("b")]);
        }),
        manifest("F-31", "cbor-extension-twice", "an extension occurs twice", |m| {
            *m.at(&[5]) = Cbor::Map(vec![(Cbor::text("a"), Cbor::Bytes(vec![])); 2]);
        }),
        manifest("F-31 F-34", "blake3-long", "a BLAKE3 of 33 bytes", |m| *m.at(&[3, 0, 3]) = Cbor::Bytes(vec![1; 33])),
        manifest("F-31", "blake3-short", "a BLAKE3 of 31 bytes", |m| *m.at(&[3, 0, 3]) = Cbor::Bytes(vec![1; 31])),
        content("F-31", "manifest-empty", "a manifest of no bytes", &file(0), 0, |p| p.plain.manifest.clear()),
    ]
}
