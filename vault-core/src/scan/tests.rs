//! One defect each, assembled by hand; real files are in the workspace's `tests/tests/scan.rs`.
//!
//! Every input goes through twice, in large reads and one byte at a time, and both reports must
//! be the same.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // tests: a panic is the report

mod containers;
mod pickles;
mod structures;

use super::{MAX_FINDING_BYTES, MAX_FINDINGS, Plain, Report, Verdict, scan};
use std::io::{self, Read};

/// Hands out one byte a read.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let one = buf.len().min(1);
        self.0.read(&mut buf[..one])
    }
}

/// Scans twice and returns the one report.
pub(super) fn report(name: &str, bytes: &[u8]) -> Report {
    let fast = scan(name, &mut Plain(bytes)).unwrap();
    let slow = scan(name, &mut Plain(Drip(bytes))).unwrap();
    assert_eq!(fast, slow, "{name}: reads of one byte change the report");
    assert_eq!(fast.bytes, bytes.len() as u64, "{name}: not read to the end");
    assert!(fast.findings.len() <= MAX_FINDINGS);
    for finding in &fast.findings {
        assert!(finding.what.len() <= MAX_FINDING_BYTES && !finding.what.chars().any(char::is_control));
    }
    fast
}

/// The verdict, and the report in the message.
#[track_caller]
pub(super) fn expect(name: &str, bytes: &[u8], verdict: Verdict) -> Report {
    let report = report(name, bytes);
    assert_eq!(report.verdict, verdict, "{name}: {report:?}");
    report
}

/// The verdict and words that some finding must hold.
#[track_caller]
pub(super) fn expect_words(name: &str, bytes: &[u8], verdict: Verdict, words: &str) -> Report {
    let report = expect(name, bytes, verdict);
    assert!(report.findings.iter().any(|f| f.what.contains(words)), "no '{words}' in {report:?}");
    report
}

/// A pickle of protocol 2 that calls `posix.system`.
pub(super) const EVIL: &[u8] = b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.";
/// A harmless pickle: a list of two numbers.
pub(super) const GOOD: &[u8] = b"\x80\x02](K\x01K\x02e.";

/// Bytes that repeat nowhere soon, the same on every run.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// A pickle string opcode of protocol 4.
pub(super) fn text(text: &str) -> Vec<u8> {
    [&[0x8c, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

#[test]
fn names_are_stable_and_parse_back() {
    for name in ["safe", "dangerous", "not-scanned", "not-a-pickle", "malformed"] {
        assert_eq!(name.parse::<Verdict>().unwrap().as_str(), name);
    }
    for name in ["torch-zip", "torch-legacy", "joblib", "hdf5", "other"] {
        assert_eq!(name.parse::<super::Format>().unwrap().to_string(), name);
    }
    assert!("fine".parse::<Verdict>().is_err());
}

#[test]
fn a_failing_read_is_the_only_error() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk"))
        }
    }
    assert!(scan("a.pkl", &mut Plain(GOOD.chain(Fails))).is_err());
}

#[test]
fn random_bytes_are_decided_early_and_skipped() {
    struct Endless {
        head: Vec<u8>,
        read: u64,
        left: u64,
    }
    impl Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = buf.len().min(self.head.len());
            buf[..n].copy_from_slice(&self.head[..n]);
            self.read += n as u64;
            self.left -= n as u64;
            Ok(n)
        }
    }
    impl super::ScanRead for Endless {
        fn skip(&mut self, n: u64) -> io::Result<u64> {
            let n = n.min(self.left);
            self.left -= n;
            Ok(n)
        }
    }
    for seed in 0..64 {
        let mut head = noise(1 << 16);
        head[0] = seed * 4;
        let mut input = Endless { head, read: 0, left: 2 << 30 };
        let report = scan("weights", &mut input).unwrap();
        assert_eq!(report.verdict, Verdict::NotAPickle, "first byte {}: {report:?}", seed * 4);
        assert_eq!(report.bytes, 2 << 30);
        assert!(input.read <= 4 << 16, "read {} bytes of it", input.read);
    }
}

#[test]
fn ordinary_texts_are_no_pickles() {
    let texts = [
        "cat\ndog\nfish\n",
        "cat\ndog\n.\nhorse\n",
        "copyright 2020\nby us\n",
        "(c) 2020 us\n",
        "N.B. read this\n",
        "The model\n",
        "Vision\nmodel\n",
        "I am\n",
        "{\"a\": 1}",
        "[PAD]\n[UNK]\n",
        "x^2 + y^2\n",
        "x^\n",
        "]",
        "",
        "# README\n",
        "import os\nos.system('id')\n",
        "garbage\n",
        "person\nbicycle\ncar\n",
        "0\n1\n2\n",
        "license: mit\nname: x\n",
    ];
    for text in texts {
        for name in ["labels.txt", "README.md", "weights", "vocab.json"] {
            expect(name, text.as_bytes(), Verdict::NotAPickle);
        }
    }
}
