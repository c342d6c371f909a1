//! Evidence of Nitro enclaves: genuine documents, good ones under a test root, and one defect at a time, each refused
//! by exactly one step of KEY_RELEASE.md section 2.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::missing_panics_doc, missing_docs)] // tests: a panic is the report

mod evidence {
    pub mod certificates;
    pub mod envelope;
    pub mod genuine;
    pub mod payload;
    pub mod x509;
}

use mvault_tests::evidence::{Chain, Evidence, Links, NOW_S, TestRoot};
use std::collections::BTreeSet;
use vault_attest::Step;
use vault_attest::nitro::{Mode, Roots, verify};

/// What the cases have in common: a root, a good chain under it, and good evidence.
pub struct Lab {
    pub root: TestRoot,
    pub chain: Chain,
    pub good: Evidence,
}

impl Lab {
    fn new() -> Self {
        let root = TestRoot::new();
        let good = Evidence::at(NOW_S).with_nonce(&[7; 32]).with_user_data(&[8; 32]).with_public_key(&[9; 65]);
        Self { chain: root.chain(NOW_S), root, good }
    }

    pub fn links(&self) -> Links {
        Links::new(&self.root, NOW_S)
    }

    pub fn case(&self, name: &'static str, step: u8, document: Vec<u8>) -> Case {
        Case { name, step, document, roots: self.root.roots(), mode: Mode::Live { now_s: NOW_S } }
    }
}

/// One defect, and the step that has to refuse it.
pub struct Case {
    pub name: &'static str,
    pub step: u8,
    pub document: Vec<u8>,
    pub roots: Roots,
    pub mode: Mode,
}

#[test]
fn good_evidence_is_verified() {
    let lab = Lab::new();
    let document = lab.good.sign(&lab.chain);
    for mode in [Mode::Archived, Mode::Live { now_s: NOW_S + 3600 }] {
        let verified = verify(&document, &lab.root.roots(), mode).unwrap();
        assert_eq!(verified.pcr(0), Some(&Evidence::pcr(0)));
        assert_eq!(verified.pcrs().count(), 16);
        assert_eq!(verified.time_ms(), NOW_S * 1000 + 7);
        assert_eq!(verified.nonce(), [7; 32]);
        assert_eq!(verified.user_data(), [8; 32]);
        assert_eq!(verified.public_key(), [9; 65]);
        assert_eq!(verified.validity_s(), (NOW_S - 3, NOW_S + 3 * 3600));
    }
}

#[test]
fn good_evidence_has_room_at_every_bound() {
    let lab = Lab::new();
    let full = Evidence { module_id: "m".repeat(255), ..lab.good.clone() };
    let full = full.with_nonce(&[1; 1024]).with_user_data(&[2; 1024]).with_public_key(&[3; 1024]);
    let full = (16..32).fold(full, |evidence, index| evidence.with_pcr(index, &[0; 48]));
    verify(&full.sign(&lab.chain), &lab.root.roots(), Mode::Archived).unwrap();
    let least = Evidence { nonce: None, user_data: Some(Vec::new()), public_key: None, ..lab.good.clone() };
    let least = Evidence { pcrs: least.pcrs.into_iter().take(3).collect(), ..least };
    verify(&least.sign(&lab.chain), &lab.root.roots(), Mode::Archived).unwrap();
    for now_s in [NOW_S - 3, NOW_S + 3 * 3600] {
        verify(&least.sign(&lab.chain), &lab.root.roots(), Mode::Live { now_s }).unwrap(); // both ends are inside
    }
}

#[test]
fn each_defect_is_refused_by_its_step() {
    let lab = Lab::new();
    let families =
        [evidence::envelope::cases, evidence::payload::cases, evidence::certificates::cases, evidence::x509::cases];
    let cases: Vec<_> = families.iter().flat_map(|cases| cases(&lab)).collect();
    let mut wrong = Vec::new();
    for case in &cases {
        match verify(&case.document, &case.roots, case.mode) {
            Ok(_) => wrong.push(format!("{}: accepted, not refused by V-{}", case.name, case.step)),
            Err(refusal) if refusal.step != Step::V(case.step) => {
                wrong.push(format!("{}: not V-{}: {refusal}", case.name, case.step));
            }
            Err(refusal) => {
                assert!(!refusal.what.is_empty() && refusal.expected != refusal.actual, "{}: {refusal}", case.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "names are told apart");
    let steps: BTreeSet<_> = cases.iter().map(|case| case.step).collect();
    assert_eq!(steps, (1..=23).collect(), "every step has a defect");
    println!("{} defects, each refused by its step", cases.len());
    assert!(cases.len() >= 60);
}
