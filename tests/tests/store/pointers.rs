//! Tags and jobs as a hostile store could write them: what is taken has exactly one form. (No fuzz target: the store's
//! crate brings the whole AWS SDK, which takes ten minutes to build with a fuzzer's checks.)

use proptest::prelude::*;
use vault_store::layout::{MAX_JOB_OBJECT, MAX_TAG_OBJECT, Target};

fn target() -> impl Strategy<Value = Target> {
    (any::<u64>(), any::<[u8; 32]>()).prop_map(|(version, id)| Target { version, id })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn pointer_with_two_forms(target in target(), proof: [u8; 32], at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let (tag, job) = (target.encode(), target.encode_job(&proof));
        prop_assert!(tag.len() <= MAX_TAG_OBJECT && job.len() <= MAX_JOB_OBJECT);
        prop_assert_eq!(Target::parse(tag.as_bytes()), Some(target.clone()));
        prop_assert_eq!(Target::parse_job(job.as_bytes()), Some((target, proof)));
        prop_assert!(Target::parse(job.as_bytes()).is_none() && Target::parse_job(tag.as_bytes()).is_none());
        for text in [tag, job] {
            let mut changed = text.clone().into_bytes();
            let at = at.index(changed.len());
            changed[at] = byte;
            canonical(&changed)?;
            changed.insert(at, byte);
            canonical(&changed)?;
            canonical(&text.as_bytes()[..cut.index(text.len())])?;
        }
    }

    #[test]
    fn any_bytes_taken_for_a_pointer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        canonical(&bytes)?;
    }
}

/// What is read is what would be written.
fn canonical(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Some(target) = Target::parse(bytes) {
        prop_assert_eq!(target.encode().into_bytes(), bytes);
    }
    if let Some((target, proof)) = Target::parse_job(bytes) {
        prop_assert_eq!(target.encode_job(&proof).into_bytes(), bytes);
    }
    Ok(())
}
