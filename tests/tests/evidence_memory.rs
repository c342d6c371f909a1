//! Hostile documents and memory: what a document claims costs nothing, how deep it nests costs no stack.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // tests: a panic is the report

use mvault_tests::evidence::{Evidence, NOW_S, TestRoot, bytes, der, encode};
use peak_alloc::PeakAlloc;
use std::thread;
use vault_attest::nitro::{MAX_DOCUMENT, Mode, Roots, unverified_outline, verify};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What verifying may take beyond the document.
const MOST_HEAP: usize = 512 * 1024;
/// A stack that a frame for each of 16384 levels does not fit in.
const SMALL_STACK: usize = 128 * 1024;

#[test]
fn hostile_documents_take_little_memory() {
    let root = TestRoot::new();
    let chain = root.chain(NOW_S);
    let good = encode(Evidence::at(NOW_S).with_nonce(&[7; 32]).fields(&chain));
    let swap = |old: &[u8], new: &[u8]| {
        let mut payload = good.clone();
        der::replace(&mut payload, old, new);
        chain.sign_payload(payload)
    };
    let full = |item: &[u8]| item.repeat(MAX_DOCUMENT / item.len());
    let inside = |item: &[u8]| chain.sign_payload(item.repeat((MAX_DOCUMENT - 256) / item.len()));
    let huge = [0x10, 0, 0, 0, 0, 0, 0, 0];
    let claim = |head: u8| [&[head][..], &huge].concat();
    let nonce = bytes(&[7; 32]);
    let empty_pcrs = [&[0x64][..], b"pcrs", &[0xB9, 0x10, 0]].concat();
    let many_pcrs = [&[0xA1][..], &empty_pcrs, &[0x00, 0x40].repeat(4096)].concat();
    let many_members = [&[0xA1, 0x68][..], b"cabundle", &[0x99, 0x3C, 0], &[0x40].repeat(0x3C00)].concat();
    let documents = [
        ("arrays", full(&[0x81])),
        ("arrays of four", full(&[0x84])),
        ("indefinite arrays", full(&[0x9F])),
        ("maps", full(&[0xA1, 0x00])),
        ("tags", full(&[0xC1])),
        ("huge arrays", full(&claim(0x9B))),
        ("huge bytes", claim(0x5B)),
        ("huge bytes in an array", [&[0x84][..], &claim(0x5B)].concat()),
        ("payload of arrays", inside(&[0x81])),
        ("payload of maps", inside(&[0xA1, 0x60])),
        ("payload of indefinite maps", inside(&[0xBF, 0x60])),
        ("huge payload map", chain.sign_payload(claim(0xBB))),
        ("huge nonce", swap(&nonce, &claim(0x5B))),
        ("huge text", swap(b"\x66SHA384", &claim(0x7B))),
        ("huge pcrs", swap(b"pcrs\xB0", &[b"pcrs", &claim(0xBB)[..]].concat())),
        ("huge bundle", swap(b"cabundle\x84", &[b"cabundle", &claim(0x9B)[..]].concat())),
        ("nested nonce", swap(&nonce, &[0x81; 10_000])),
        ("tagged nonce", swap(&nonce, &[0xC1; 10_000])),
        ("many pcrs", chain.sign_payload(many_pcrs)),
        ("many bundle members", chain.sign_payload(many_members)),
        ("the good one", chain.sign_payload(good.clone())),
    ];
    let mut most = 0;
    for (name, document) in &documents {
        let (name, document, roots) = (*name, document.clone(), root.roots());
        let judge = move || {
            let before = HEAP.current_usage();
            HEAP.reset_peak_usage();
            let verified = verify(&document, &roots, Mode::Live { now_s: NOW_S });
            drop(unverified_outline(&document));
            assert_eq!(verified.is_ok(), name == "the good one", "{name}: {verified:?}");
            HEAP.peak_usage().saturating_sub(before)
        };
        let taken = thread::Builder::new().stack_size(SMALL_STACK).spawn(judge).unwrap().join().unwrap();
        assert!(taken < MOST_HEAP, "{name}: {taken} bytes");
        most = most.max(taken);
    }
    assert!(verify(&vec![0x81; 100 << 20], &Roots::aws(), Mode::Archived).is_err());
    println!("{} documents, at most {most} bytes of heap", documents.len());
}
