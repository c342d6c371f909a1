//! What the fuzz targets of the format start from: `cargo run --release -p mvault-tests --example fuzz_seeds DIR` fills
//! DIR/header, DIR/stanza, DIR/manifest, DIR/payload and DIR/release from the vectors, DIR/compare, DIR/kms_recipient, DIR/policy,
//! DIR/key_policy, DIR/eif, DIR/bundle, DIR/enclave, and DIR/evidence from the forge and from genuine documents.

#![allow(clippy::unwrap_used)] // a tool of the tests: a panic is the report

use mvault_tests::evidence::{NOW_S, TestRoot};
use mvault_tests::forge::Parts;
use mvault_tests::forge::content::Content;
use mvault_tests::forge::eif::{Eif, METADATA, RAMDISK};
use mvault_tests::forge::kms::Answer;
use mvault_tests::fuzz::evidence::EvidenceBase;
use mvault_tests::publisher::{Forged, Issued, authority, signer, statement};
use mvault_tests::rng;
use mvault_tests::shared_vectors;
use mvault_tests::vector::{all, sha256};
use std::fs;
use std::path::PathBuf;
use vault_attest::kms::RecipientKey;
use vault_attest::policy::Signer;
use vault_attest::release::{Challenge, ENC_LEN, EnclaveKey, Grant, RefusalMessage, Request, encode};
use vault_core::signature::PublisherKey;
use vault_enclave::model::Statement;

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "fuzz/corpus".into()));
    let write = |target: &str, how: Option<u8>, seed: &[u8]| {
        let bytes: Vec<u8> = how.into_iter().chain(seed.iter().copied()).collect();
        let folder = dir.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(&sha256(&bytes)[..16]), bytes).unwrap();
    };
    compared(write);
    for vector in all() {
        let bytes = &vector.artifact;
        let header = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
        write("header", None, header);
        let Some(len) = header.get(20..24) else { continue };
        let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
        if let Some(unpadded) = header.get(..120_usize.saturating_add(len)) {
            write("release", Some(4), unpadded);
        }
        if let Some(sections) = header.get(88..88_usize.saturating_add(len)) {
            write("stanza", Some(0), sections);
            write("stanza", Some(3), &sections[sections.len().saturating_sub(200)..]);
            if sections.starts_with(&[0, 4]) {
                write("stanza", Some(6), &sections[4..]);
            }
            if sections.starts_with(&[0, 3]) {
                write("stanza", Some(5), &sections[4..]);
            }
        }
    }
    let content =
        Content { sealed_at: Some(1), extensions: vec![("k".into(), vec![1])], ..Content::file("m", vec![1; 10]) };
    for content in [&content, &Content { piped: true, ..content.clone() }, &Content { sha256: true, ..content.clone() }]
    {
        let (table, manifest) = (content.table().encode(), content.manifest().encode());
        write("manifest", Some(0), &table);
        write("manifest", Some(1), &manifest);
        write("manifest", Some(2), &[&[u8::try_from(table.len()).unwrap()], &table[..], &manifest].concat());
        write("manifest", Some(3), &content.plain().bytes());
        write("stanza", Some(3), &content.about().encode());
    }
    let signed = statement(&[("a/b", [1; 32]), ("a.txt", [2; 32])]);
    write("bundle", Some(1), signed.as_bytes());
    write("bundle", Some(1), statement(&[(".", [1; 32])]).as_bytes());
    let root = Issued::root(authority("root", NOW_S));
    let leaf = root.issue(signer("publisher", NOW_S));
    write("bundle", Some(0), Forged::by_key(&signed, &leaf.key).text().as_bytes());
    write("bundle", Some(0), Forged::by_chain(&signed, &[&leaf, &root]).text().as_bytes());
    write("bundle", Some(2), &leaf.der);
    let tensors = r#"[{"name":"x","datatype":"FP32","shape":[1,3],"data":[[1,2,3]]},{"name":"n","datatype":"INT64","shape":[],"data":[7]}]"#;
    write("enclave", Some(0), tensors.as_bytes());
    let statement = Statement { name: "m".into(), version: 1, artifact: [1; 32], payload: [2; 32], signer: [3; 32] };
    write("enclave", Some(1), statement.text().as_bytes());
    write("enclave", Some(2), include_bytes!("../../vault-cli/tests/enclave.toml"));
    write("enclave", Some(3), &[[1, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0], [2; 16]].concat());
    for op in 0..6 {
        write("payload", Some(1), &[op, 0, 65, 20, 1]);
        write("payload", Some(1), &[op, 1, 1, 200, 17, op, 0, 2, 3, 4]);
    }
    let key = RecipientKey::generate().unwrap();
    for answer in [Answer::aws(key.public_key_der(), &[1; 32]), Answer::localstack(key.public_key_der(), &[1; 32])] {
        write("kms_recipient", None, &answer.encode());
    }
    for seed in EvidenceBase::default().seeds() {
        write("evidence", None, &seed);
    }
    for file in shared_vectors("nitro").iter().flat_map(|folder| fs::read_dir(folder).unwrap()) {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "bin") {
            write("evidence", Some(0), &fs::read(path).unwrap());
        }
    }
    write("payload", Some(1), &[]);
    write("payload", Some(0), &[0; 4128]);
    let plain = Eif::default();
    let old = Eif { version: 3, sections: plain.sections.iter().filter(|s| s.0 != METADATA).cloned().collect() };
    for eif in [plain.clone(), plain.signed(&TestRoot::new().chain(NOW_S)), old.with(RAMDISK, b"third")] {
        write("eif", None, &eif.bytes());
    }
    for (how, message) in messages() {
        write("release", Some(how), &message);
    }
    let pcrs = |byte: u8| [0, 1, 2].map(|i| format!("pcr{i} = \"{}\"\n", format!("{byte:02x}").repeat(48))).concat();
    let head = "version = 1\nname = \"p\"\nplatform = \"aws-nitro\"\nmax_age_s = 300\n";
    let publisher = Signer::new(PublisherKey::generate(&mut rng(1)).public()).text();
    let scope = format!("minimum_model_version = 3\n\n[scope]\nmodels = [\"m\"]\nsigners = [\"{publisher}\"]\n");
    let times = "not_before = \"2026-11-01T00:00:00Z\"\nnot_after = \"2027-05-01T00:00:00Z\"\n";
    let policy =
        format!("{head}{scope}\n[[release]]\nname = \"1\"\n{}{times}[[release]]\nname = \"2\"\n{}", pcrs(1), pcrs(2));
    write("policy", None, policy.as_bytes());
    let key_policy = "{\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":{\"AWS\":\"111122223333\"},\"Action\":\"kms:*\",\
                      \"Resource\":\"*\",\"Condition\":{\"StringEquals\":{\"kms:RecipientAttestation:PCR0\":\"00\"}}}]}";
    write("key_policy", None, key_policy.as_bytes());
}

/// One of each message of KEY_RELEASE.md section 4.
fn messages() -> [(u8, Vec<u8>); 5] {
    let refusal = |wait_s| RefusalMessage {
        id: [1; 16].into(),
        step: "R-12".into(),
        retry: "later".into(),
        hint: "wait".into(),
        wait_s,
    };
    let header = Parts::new(1, &Content::file("m", vec![]), 4096, &[]).authenticated();
    let request = Request {
        nonce: [1; 32].into(),
        evidence: vec![0x84; 40].into(),
        public_key: EnclaveKey::generate(&mut rng(1)).public().into(),
        header: [header, vec![0; 32]].concat().into(),
        stanza: 0,
    };
    let grant = Grant {
        id: [1; 16].into(),
        enc: vec![2; ENC_LEN].into(),
        wrapped: [3; 48].into(),
        entry: b"{}".to_vec().into(),
        proof: "c2sp.org/tlog-proof@v1\nindex 0\n\n".into(),
    };
    [
        (0, encode(&Challenge { nonce: [1; 32].into(), life_s: 120, keys: vec![[2; 32].into()] })),
        (1, encode(&request)),
        (2, encode(&grant)),
        (3, encode(&refusal(None))),
        (3, encode(&refusal(Some(30)))),
    ]
}

/// Two versions of a file with a tensor of each kind of number.
fn compared(write: impl Fn(&str, Option<u8>, &[u8])) {
    for (dtype, width) in
        [("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("I64", 8), ("BOOL", 1), ("C64", 8)]
    {
        let file = |fill: u8| {
            let tensor =
                |from| serde_json::json!({ "dtype": dtype, "shape": [2], "data_offsets": [from, from + 2 * width] });
            let header = serde_json::json!({ "l.0.w": tensor(0), "l.1.w": tensor(2 * width) }).to_string();
            let data: Vec<u8> = (0..4 * width).map(|i| u8::try_from(i).unwrap().wrapping_mul(fill)).collect();
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
        };
        let (a, b) = (file(7), file(11));
        write("compare", None, &[&u32::try_from(a.len()).unwrap().to_le_bytes()[..], &a, &b].concat());
    }
}
