//! A policy file of any bytes: parsing does not panic; what is a policy names no zeros, is equal to itself, and gives a
//! key policy that the linter finds clean.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_attest::key_policy::{Access, Arn, Document, lint};
use vault_attest::policy::Policy;

fuzz_target!(|data: &[u8]| {
    let Ok(policy) = Policy::parse(data) else { return };
    assert!(!policy.releases().is_empty());
    assert!(policy.releases().iter().all(|r| (0..3).all(|i| r.pcrs.contains_key(&i))));
    assert!(policy.releases().iter().flat_map(|r| r.pcrs.values()).all(|pcr| *pcr != [0; 48]));
    assert_eq!(policy.differences(&policy), []);
    let role = |name: &str| Arn::parse(&format!("arn:aws:iam::111122223333:role/{name}")).expect("a role");
    let access = Access {
        administrators: vec![role("admin")],
        root_of: None,
        enclaves: vec![role("serve")],
        sealers: vec![],
        enclaves_seal: false,
        artifacts: vec![],
    };
    if let Ok(text) = access.key_policy(&policy) {
        let document = Document::parse(text.as_bytes()).expect("a key policy");
        assert_eq!(lint(&document, None), []);
    }
});
