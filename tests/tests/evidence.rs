//! Evidence of Nitro enclaves: genuine documents, good ones under a test root, and one defect at a time.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::missing_panics_doc, missing_docs)] // tests: a panic is the report

use mvault_tests::evidence::{Evidence, NOW_S, TestRoot};
use vault_attest::nitro::{Mode, verify};

#[test]
fn good_evidence_is_verified() {
    let root = TestRoot::new();
    let evidence = Evidence::at(NOW_S).with_nonce(b"n").with_user_data(b"u").with_public_key(b"k");
    let document = evidence.sign(&root.chain(NOW_S));
    for mode in [Mode::Archived, Mode::Live { now_s: NOW_S + 3600 }] {
        let verified = verify(&document, &root.roots(), mode).unwrap();
        assert_eq!(verified.pcr(0), Some(&Evidence::pcr(0)));
        assert_eq!((verified.nonce(), verified.user_data(), verified.public_key()), (&b"n"[..], &b"u"[..], &b"k"[..]));
    }
}
