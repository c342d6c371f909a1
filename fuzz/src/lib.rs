//! What the scanner's targets share.

use std::io::{self, Read};
use vault_core::scan::{Plain, scan};

struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let one = buf.len().min(1);
        self.0.read(&mut buf[..one])
    }
}

/// The scan must not panic, must read to the end, and must report the same whether the bytes come in large
/// reads or one at a time.
pub fn scan_both_ways(names: &[&str], data: &[u8]) {
    for name in names {
        let fast = scan(name, &mut Plain(data)).expect("memory does not fail");
        let slow = scan(name, &mut Plain(Drip(data))).expect("memory does not fail");
        assert_eq!(fast, slow);
        assert_eq!(fast.bytes, data.len() as u64);
    }
}
