//! Documents that AWS signed, and three bad ones: ../shared/vectors/nitro.

use coset::cbor::value::Value;
use coset::{CborSerializable, CoseSign1};
use mvault_tests::evidence::{LEAF, Links, NOW_S, REGIONAL, ROOT, TestRoot, der, encode};
use mvault_tests::{evidence::Evidence, shared_vectors};
use serde_json::Value as Json;
use std::path::Path;
use vault_attest::nitro::{Mode, Roots, unverified_outline, verify};
use vault_attest::{Step, VerifiedEvidence};

struct Vector {
    file: String,
    document: Vec<u8>,
    json: Json,
}

fn vectors() -> Vec<Vector> {
    let Some(folder) = shared_vectors("nitro") else {
        println!("skipped: vectors not present");
        return Vec::new();
    };
    let manifest: Vec<Json> = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.len(), 12);
    let read = |json: Json| {
        let file = json["file"].as_str().unwrap().to_owned();
        Vector { document: std::fs::read(folder.join(&file)).unwrap(), file, json }
    };
    manifest.into_iter().map(read).collect()
}

impl Vector {
    /// The step that refuses it; `None` if it is good.
    fn step(&self) -> Option<u8> {
        let verdict = self.json["expected"].as_str().unwrap();
        match () {
            () if verdict.starts_with("INVALID: COSE signature") => Some(22),
            () if verdict.starts_with("INVALID: cabundle") => Some(4), // its unprotected header is null besides
            () if verdict.contains("DEBUG") => Some(23),
            () => {
                assert!(verdict.starts_with("VALID"), "{verdict}");
                None
            }
        }
    }

    fn time_s(&self) -> u64 {
        self.json["timestamp_ms"].as_u64().unwrap() / 1000
    }

    /// When its leaf ends, in seconds since 1970.
    fn end_s(&self) -> u64 {
        vault_attest::time::parse_rfc3339(self.json["leaf_not_after"].as_str().unwrap()).unwrap()
    }
}

#[test]
fn all_vectors_get_their_verdict() {
    for vector in vectors() {
        let live = |now_s| Mode::Live { now_s };
        for mode in [Mode::Archived, live(vector.time_s()), live(vector.end_s().min(vector.time_s() + 3600))] {
            match (verify(&vector.document, &Roots::aws(), mode), vector.step()) {
                (Ok(verified), None) => same(&verified, &vector),
                (Err(refusal), Some(step)) => assert_eq!(refusal.step, Step::V(step), "{}: {refusal}", vector.file),
                (Ok(_), Some(step)) => panic!("{}: accepted, not refused by V-{step}", vector.file),
                (Err(refusal), None) => panic!("{}: {refusal}", vector.file),
            }
        }
    }
}

/// What was verified is what the manifest (made with other tools) and coset say.
fn same(verified: &VerifiedEvidence, vector: &Vector) {
    let json = &vector.json;
    assert_eq!(verified.module_id(), json["module_id"].as_str().unwrap());
    assert_eq!(verified.time_ms(), json["timestamp_ms"].as_u64().unwrap());
    assert_eq!(verified.pcrs().count() as u64, json["n_pcrs"].as_u64().unwrap());
    for (index, pcr) in verified.pcrs() {
        assert_eq!(Some(hex(pcr).as_str()), json["pcrs"][index.to_string()].as_str(), "{}: PCR{index}", vector.file);
    }
    assert_eq!(verified.nonce().len() as u64, json["nonce_len"].as_u64().unwrap_or(0));
    assert_eq!(verified.public_key().len() as u64, json["public_key_len"].as_u64().unwrap_or(0));
    let time = |s: u64| vault_attest::time::rfc3339(s).replace('Z', "+00:00");
    let (from, to) = verified.validity_s();
    assert_eq!(Json::from(vec![time(from), time(to)]), json["chain_window"], "{}", vector.file);
    let payload = CoseSign1::from_slice(&vector.document).unwrap().payload.unwrap();
    let Value::Map(fields) = Value::from_slice(&payload).unwrap() else { panic!("{}: no map", vector.file) };
    for (name, found) in [("nonce", verified.nonce()), ("user_data", verified.user_data())] {
        let (_, value) = fields.iter().find(|(key, _)| *key == Value::from(name)).unwrap();
        assert_eq!(value.as_bytes().map_or(&[][..], Vec::as_slice), found, "{}: {name}", vector.file);
    }
}

fn hex(bytes: &[u8]) -> String {
    vault_core::header::hex(bytes)
}

#[test]
fn genuine_documents_end_with_their_leaf() {
    for vector in vectors().iter().filter(|v| v.step().is_none_or(|step| step == 23)) {
        for now_s in [vector.end_s() + 1, vector.time_s() + 10 * 365 * 86_400] {
            let refusal = verify(&vector.document, &Roots::aws(), Mode::Live { now_s }).unwrap_err();
            assert_eq!(refusal.step, Step::V(20), "{}", vector.file);
        }
    }
}

#[test]
fn the_pinned_root_is_the_one_in_the_vectors() {
    let Some(folder) = shared_vectors("nitro") else { return println!("skipped: vectors not present") };
    let root = std::fs::read(folder.join("AWS_NitroEnclaves_Root-G1.der")).unwrap();
    let pinned = Roots::aws();
    assert_eq!(pinned.fingerprints(), Roots::aws().dangerous_with(&root).fingerprints()[1..].to_vec());
    assert_eq!(hex(&pinned.fingerprints()[0]), "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b");
}

#[test]
fn no_byte_of_a_genuine_document_can_be_changed() {
    let vectors = vectors();
    // With a definite payload map, and with an indefinite one.
    for vector in vectors
        .iter()
        .filter(|v| v.step().is_none())
        .filter(|v| ["69d51f98", "5e983e0b"].iter().any(|id| v.file.contains(id)))
    {
        verify(&vector.document, &Roots::aws(), Mode::Archived).unwrap();
        let mut changed = vector.document.clone();
        for at in 0..changed.len() {
            changed[at] ^= 1 << (at % 8);
            assert!(verify(&changed, &Roots::aws(), Mode::Archived).is_err(), "{}: byte {at}", vector.file);
            changed[at] = vector.document[at];
        }
    }
}

#[test]
fn no_part_of_a_genuine_document_is_enough() {
    for vector in vectors().iter().filter(|v| v.step().is_none()).take(1) {
        for len in 0..vector.document.len() {
            let refusal = verify(&vector.document[..len], &Roots::aws(), Mode::Archived).unwrap_err();
            assert!(refusal.step <= Step::V(2), "{len} bytes: {refusal}");
        }
    }
}

/// Whoever has the root's certificate, but not its key, gets no further than the signatures.
#[test]
fn a_forged_chain_under_the_genuine_root_is_refused() {
    let Some(folder) = shared_vectors("nitro") else { return println!("skipped: vectors not present") };
    let aws = std::fs::read(folder.join("AWS_NitroEnclaves_Root-G1.der")).unwrap();
    let [signed, ..] = der::parts(&aws);
    let name = der::items(der::split(&signed).1)[5].clone();
    let test = TestRoot::new();
    let issued_by_aws = move |content: &mut Vec<u8>| {
        let mut items = der::items(content);
        items[3].clone_from(&name);
        *content = items.concat();
    };
    let links = Links::new(&test, NOW_S).with(REGIONAL, |link| link.edit_signed = Some(Box::new(issued_by_aws)));
    let mut chain = links.build();
    assert_eq!(chain.certificates.len(), LEAF + 1);
    chain.certificates[ROOT] = aws;
    let document = Evidence::at(NOW_S).sign(&chain);
    let refusal = verify(&document, &Roots::aws(), Mode::Live { now_s: NOW_S }).unwrap_err();
    assert_eq!((refusal.step, refusal.what.as_str()), (Step::V(21), "signature of cabundle[1]"));
}

/// The public COSE examples, which are other algorithms or broken, and all of RFC 8949's appendix A.
#[test]
fn other_cose_and_cbor_is_refused() {
    let Some(folder) = shared_vectors("nitro/cose_cbor_generic") else {
        return println!("skipped: vectors not present");
    };
    let mut seen = 0;
    for part in ["ecdsa", "sign1-tests"] {
        for file in std::fs::read_dir(folder.join(part)).unwrap().map(|file| file.unwrap().path()) {
            let example: Json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let bytes = unhex(example["output"]["cbor"].as_str().unwrap());
            let untagged = bytes.strip_prefix(&[0xD2]).unwrap_or(&bytes);
            for document in [&bytes[..], untagged] {
                refused_by(document, 4, &file);
                seen += 1;
            }
        }
    }
    let chain = TestRoot::new().chain(NOW_S);
    let appendix: Vec<Json> =
        serde_json::from_slice(&std::fs::read(folder.join("cbor_appendix_a.json")).unwrap()).unwrap();
    for example in &appendix {
        let bytes = unhex(example["hex"].as_str().unwrap());
        refused_by(&bytes, 2, Path::new("appendix A"));
        refused_by(&chain.sign_payload(bytes.clone()), 7, Path::new("appendix A as payload"));
        let mut payload = encode(Evidence::at(NOW_S).fields(&chain));
        payload.truncate(payload.len() - 1); // the null of the nonce
        refused_by(&chain.sign_payload([payload, bytes].concat()), 14, Path::new("appendix A as nonce"));
        seen += 3;
    }
    println!("{seen} COSE and CBOR examples refused");
    assert!(seen > 200);
}

fn refused_by(document: &[u8], last: u8, name: &Path) {
    let refusal = verify(document, &Roots::aws(), Mode::Archived).unwrap_err();
    assert!(refusal.step <= Step::V(last), "{}: {refusal}", name.display());
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn outlines_show_what_is_refused() {
    for vector in vectors() {
        let outline = unverified_outline(&vector.document);
        assert_eq!(outline.module_id.as_deref(), vector.json["module_id"].as_str());
        assert_eq!(outline.time_ms, vector.json["timestamp_ms"].as_u64());
        assert_eq!(outline.pcrs.len() as u64, vector.json["n_pcrs"].as_u64().unwrap());
        let tagged = [&[0xD2], &vector.document[..]].concat();
        assert_eq!(unverified_outline(&tagged).module_id, outline.module_id);
        assert!(!outline.certificates.is_empty(), "{}", vector.file);
        assert!(outline.certificates.iter().all(|c| c.content.is_some()), "{}", vector.file);
    }
    for broken in [&[][..], &[0xD2], &[0x84], &[0x9F; 16_000], &[0x81; 16_000]] {
        let outline = unverified_outline(broken);
        assert!(outline.module_id.is_none() && outline.certificates.is_empty());
    }
}
