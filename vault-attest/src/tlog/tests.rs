use super::tree::{Frontier, Plan, empty_root, leaf_hash, node_count, node_hash};
use super::*;
use vault_core::secret::Secret;

/// The eight leaves of Certificate Transparency's own tests, and the roots over the first one to eight of them.
const CT_LEAVES: [&[u8]; 8] = [
    b"",
    &[0x00],
    &[0x10],
    &[0x20, 0x21],
    &[0x30, 0x31],
    &[0x40, 0x41, 0x42, 0x43],
    &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
    &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
];
const CT_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// An entry of a public log (Rekor), its proof and the log's key, as they were published.
const REKOR_KEY: &str = "log2025-1.rekor.sigstore.dev+cf119915+AbfK5adZJxsI323FwGD2AJJ9F4i89cfDuLdGJBIYntuO";
const REKOR_PROOF: &str = "c2sp.org/tlog-proof@v1
index 412114
KIoYVJ0TqmaEkFboP7YWTjSh8vFjVECmokcTOAByfIM=
Umf0h0cK2hegTzNnSgsXszyiA4bp5OvEvP+GrWq3C8w=
vNQeSNBfepYZI2Ez3ViKdCft0JH87ZS8IGKwixxUVjc=
JBAugd5awOqmHXIKgz1MOjlR5f37VqmP0bWoRVcHX5M=
xYH2mAxGxfOgvSOLnItT2LsJt+Z2a2egjf8QJFwK7jA=
PbZWM3NitzChx9A22m/kddDtzh2bAKX5Fy7j76l3z2k=
sKX9Sbsahvw5DiC2oP6pbZsDi1NzuNS1nIULXkCC57o=
pfTCxXHnCM253jwYxVJcuUhmoTTtDxznn92QhN0M4Ws=
cJ8uk2ZvZyfg+HRILKOHcyHu2pvI8Fz3R1MyMvyzWtA=

log2025-1.rekor.sigstore.dev
412115
+8vUkEgBK/ansexBUomzocaWoPEmPIzxJC/y+xNMQN4=

\u{2014} log2025-1.rekor.sigstore.dev zxGZFahCZ/+MqTjH4rC5MWcdLDWbpetE5l30RZfQc4BQkRjWSoKipEUPjvHENeZDHIlAsuezJcLzUVvItpNjaSRoMAs=
";
const REKOR_ENTRY: &str = concat!(
    r#"{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","#,
    r#""digest":"5dJ2SakUeOXY4ut1hBHPomz+hTn6tc0KTzcGosA+epE="},"signature":{"content":"#,
    r#""MEYCIQDcJO82nz1rrtu1DxSpruX1ogJum8dl4IiGBMPz3jYcbgIhAKwQ8wNu1On8pYfhAJCK8OqT0OGTh/yAQ+An/e3d/dUR","#,
    r#""verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","publicKey":{"rawBytes":"#,
    r#""MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0q9Q+tdG195CXKfmUx1YatvZ/mN3rhjpOfm1lvskWprH9Pxpe9Xc6LjEJbBcVPhutkfUvBB9RDk+42SNE6/5xg=="}}}}}}"#
);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn signer(seed: u8) -> LogSigner {
    LogSigner::new("example.com/log", &Secret::take(&mut [seed; 32])).unwrap()
}

/// RFC 6962's definition, word for word.
fn reference_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&reference_root(left), &reference_root(right))
        }
    }
}

/// A tree of `size` leaves: leaves and stored nodes.
fn tree(size: u64) -> (Vec<Hash>, Vec<Hash>) {
    let leaves: Vec<_> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    let (mut frontier, mut nodes) = (Frontier::new(0, Vec::new()).unwrap(), Vec::new());
    leaves.iter().for_each(|leaf| nodes.extend(frontier.append(*leaf)));
    (leaves, nodes)
}

fn proof(plan: &Plan, nodes: &[Hash]) -> Vec<Hash> {
    let picked: Vec<_> = plan.positions().iter().map(|at| nodes[usize::try_from(*at).unwrap()]).collect();
    plan.finish(&picked).unwrap()
}

#[test]
fn roots_of_certificate_transparency() {
    let mut frontier = Frontier::new(0, Vec::new()).unwrap();
    assert_eq!(hex(&frontier.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (leaf, root) in CT_LEAVES.iter().zip(CT_ROOTS) {
        frontier.append(leaf_hash(leaf));
        assert_eq!(hex(&frontier.root()), root);
    }
}

#[test]
fn an_entry_of_a_public_log() {
    let verifier = LogVerifier::parse(REKOR_KEY).unwrap();
    assert_eq!(verifier.to_string(), REKOR_KEY);
    let logged = verify_log_proof(REKOR_ENTRY.as_bytes(), REKOR_PROOF, &verifier).unwrap();
    assert_eq!((logged.index, logged.checkpoint.size()), (412_114, 412_115));
    assert_eq!(LogProof::parse(REKOR_PROOF).unwrap().to_string(), REKOR_PROOF);
    let other = REKOR_ENTRY.replace("5dJ2", "5dJ3");
    assert_eq!(verify_log_proof(other.as_bytes(), REKOR_PROOF, &verifier).unwrap_err().step, Step::L(4));
}

#[test]
fn a_key_of_the_go_checksum_database_and_of_its_tests() {
    // Signature type 1, as sum.golang.org has it, and the seed of x/mod's tests: both made by other code.
    for key in [
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert_eq!(LogVerifier::parse(key).unwrap().to_string(), key);
    }
    let mut seed = Base64::decode_vec("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
    let signer = LogSigner::new("PeterNeumann", &Secret::take(&mut seed[1..])).unwrap();
    assert!(signer.verifier().to_string().starts_with("PeterNeumann+c74f20a3+"));
}

#[test]
fn every_size_and_index_to_70() {
    for size in 0..=70 {
        let (leaves, nodes) = tree(size);
        let root = reference_root(&leaves);
        assert_eq!(nodes.len() as u64, node_count(size));
        assert_eq!(proof(&Plan::root(size), &nodes), [root]);
        let picked = Frontier::positions(size).iter().map(|at| nodes[usize::try_from(*at).unwrap()]).collect();
        assert_eq!(Frontier::new(size, picked).unwrap().root(), root);
        for (index, leaf) in (0..).zip(&leaves) {
            let path = proof(&Plan::inclusion(index, size).unwrap(), &nodes);
            assert_eq!(tree::verify_inclusion(leaf, index, &path, size, &root), Ok(()), "{index} of {size}");
            refuses_other_paths(leaf, index, &path, size, &root);
        }
        assert_eq!(Plan::inclusion(size, size), None);
        for old in 0..=size {
            let old_root = reference_root(&leaves[..usize::try_from(old).unwrap()]);
            let path = proof(&Plan::consistency(old, size).unwrap(), &nodes);
            assert_eq!(tree::verify_consistency(old, &old_root, size, &root, &path), Ok(()), "{old} to {size}");
            refuses_other_proofs(old, &old_root, size, &root, &path);
        }
        assert_eq!(Plan::consistency(size + 1, size), None);
    }
}

fn refuses_other_paths(leaf: &Hash, index: u64, path: &[Hash], size: u64, root: &Hash) {
    let refused = |leaf: &Hash, index, path: &[Hash], size, root: &Hash| {
        assert!(tree::verify_inclusion(leaf, index, path, size, root).is_err(), "{index} of {size}");
    };
    refused(&[0; 32], index, path, size, root);
    refused(leaf, index, path, size, &[0; 32]);
    refused(leaf, index + 1, path, size, root);
    refused(leaf, index, &[path, &[[0; 32]]].concat(), size, root);
    if let Some((_, shorter)) = path.split_last() {
        refused(leaf, index, shorter, size, root);
    }
    for n in 0..path.len() {
        let mut other = path.to_vec();
        other[n][7] ^= 1;
        refused(leaf, index, &other, size, root);
    }
    refused(leaf, u64::MAX, path, size, root);
}

fn refuses_other_proofs(old: u64, old_root: &Hash, new: u64, new_root: &Hash, path: &[Hash]) {
    let refused = |old, old_root: &Hash, new, new_root: &Hash, path: &[Hash]| {
        assert!(tree::verify_consistency(old, old_root, new, new_root, path).is_err(), "{old} to {new}");
    };
    refused(old, &[0; 32], new, new_root, path);
    refused(old, old_root, new, new_root, &[path, &[[0; 32]]].concat());
    if old > 0 {
        refused(old, old_root, new, &[0; 32], path);
        refused(new + 1, new_root, new, new_root, path);
    }
    if let Some((_, shorter)) = path.split_last() {
        refused(old, old_root, new, new_root, shorter);
    }
    for n in 0..path.len() {
        let mut other = path.to_vec();
        other[n][31] ^= 0x80;
        refused(old, old_root, new, new_root, &other);
    }
}

#[test]
fn every_bit_of_a_proof_counts() {
    let (_, nodes) = tree(13);
    let (signer, entry) = (signer(1), 6_u64.to_be_bytes());
    let root = proof(&Plan::root(13), &nodes)[0];
    let path = proof(&Plan::inclusion(6, 13).unwrap(), &nodes);
    let text = LogProof { index: 6, path, checkpoint: signer.sign(13, root) }.to_string();
    assert_eq!(verify_log_proof(&entry, &text, signer.verifier()).unwrap().index, 6);
    for bit in 0..text.len() * 8 {
        let mut bytes = text.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(other) = String::from_utf8(bytes) else { continue };
        assert!(verify_log_proof(&entry, &other, signer.verifier()).is_err(), "bit {bit}: {other}");
    }
    for bit in 0..64 {
        let other = (6_u64 ^ 1 << bit).to_be_bytes();
        assert_eq!(verify_log_proof(&other, &text, signer.verifier()).unwrap_err().step, Step::L(4));
    }
}

#[test]
fn checkpoints_of_others() {
    let (signer, other) = (signer(1), signer(2));
    let good = signer.sign(5, [7; 32]);
    let line = |note: &str| note.lines().last().unwrap().to_owned();
    // One more signature, of a key that nobody knows, changes nothing.
    let witnessed = format!("{good}{}\n", line(&other.sign(5, [7; 32])).replace("example.com", "witness.example"));
    assert_eq!(signer.verifier().verify(&witnessed), signer.verifier().verify(&good));
    // A wrong signature under the log's own name and id does, even beside a good one.
    let wrong = format!("{good}{}\n", line(&signer.sign(6, [7; 32])));
    let renamed = LogSigner::new("example.com/other", &Secret::take(&mut [1; 32])).unwrap();
    let foreign = format!("{}{}\n", renamed.sign(5, [7; 32]).split_once("\u{2014}").unwrap().0, line(&good));
    for (what, note) in [
        ("wrong beside good", wrong),
        ("another key", other.sign(5, [7; 32])),
        ("another name", renamed.sign(5, [7; 32])),
        ("another origin under this key's line", foreign),
        ("unsigned", good.split_once("\u{2014}").unwrap().0.into()),
        ("no newline at the end", good.trim_end().into()),
        ("a carriage return", good.replace('\n', "\r\n")),
        ("a leading zero", good.replace("\n5\n", "\n05\n")),
        ("a sign", good.replace("\n5\n", "\n+5\n")),
        ("an extension line", good.replace("\n\n", "\nextra\n\n")),
        ("a tree beyond all bounds", signer.sign(MAX_SIZE + 1, [7; 32])),
        ("signatures without end", good.clone() + &format!("{}\n", line(&good)).repeat(32)),
        ("text without end", good.clone() + &" ".repeat(MAX_TEXT)),
    ] {
        assert_eq!(signer.verifier().verify(&note).map_err(|r| r.step), Err(Step::L(3)), "{what}");
    }
}

#[test]
fn forms_of_keys_proofs_and_names() {
    let key = signer(1).verifier().to_string();
    for bad in
        ["", "a", "a+b", "a+00000000+AQ==", &key.replace("example", "examplf"), &format!("{key}A"), &key.to_uppercase()]
    {
        assert_eq!(LogVerifier::parse(bad).unwrap_err().step, Step::L(3), "{bad}");
    }
    for bad in ["", " ", "a b", "a+b", "a\u{a0}b", "a\n", &"a".repeat(257)] {
        assert!(LogVerifier::new(bad, [1; 32]).is_err(), "{bad:?}");
    }
    let line = Base64::encode_string(&[1; 32]);
    assert_eq!(parse_consistency(""), Ok(Vec::new()));
    assert_eq!(parse_consistency(&consistency_text(&[[1; 32], [2; 32]])), Ok(vec![[1; 32], [2; 32]]));
    for bad in ["\n", &line, &format!("{line}\n\n"), &format!("{line}\r\n"), &format!("{line}\n").repeat(65), "AAAA\n"]
    {
        assert_eq!(parse_consistency(bad).unwrap_err().step, Step::L(5), "{bad:?}");
    }
    for bad in ["", "c2sp.org/tlog-proof@v2\nindex 0\n\nx", &REKOR_PROOF.replace("index ", "extra AA==\nindex ")] {
        assert_eq!(LogProof::parse(bad).unwrap_err().step, Step::L(4), "{bad:?}");
    }
}

#[test]
fn logs_and_sizes_that_do_not_follow() {
    let verified = |seed, size, root| signer(seed).verifier().verify(&signer(seed).sign(size, root)).unwrap();
    let (_, nodes) = tree(9);
    let root = |n| proof(&Plan::root(n), &nodes)[0];
    let (old, new) = (verified(1, 4, root(4)), verified(1, 9, root(9)));
    let path = proof(&Plan::consistency(4, 9).unwrap(), &nodes);
    assert_eq!(verify_consistency(&old, &new, &path), Ok(()));
    assert_eq!(verify_consistency(&new, &old, &path).unwrap_err().actual, "a tree that shrank");
    assert_eq!(verify_consistency(&verified(1, 4, root(5)), &new, &path).unwrap_err().step, Step::L(5));
    assert_eq!(verify_consistency(&verified(1, 9, root(8)), &new, &[]).unwrap_err().step, Step::L(5));
    let renamed = LogSigner::new("example.com/other", &Secret::take(&mut [1; 32])).unwrap();
    let other = renamed.verifier().verify(&renamed.sign(4, root(4))).unwrap();
    assert_eq!(verify_consistency(&other, &new, &path).unwrap_err().what, "origin");
}

#[test]
fn entries_are_read_back() {
    let mut entry = LogEntry::new(&[0xA5; 16], 1_572_269_285_007);
    entry.model_version = Some(3);
    entry.answer = Some("00".repeat(32));
    let granted =
        r#"{"v":1,"id":"a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5","time":"2019-10-28T13:28:05.007Z","outcome":"granted","#;
    assert!(String::from_utf8(entry.to_bytes()).unwrap().starts_with(granted));
    assert_eq!(LogEntry::parse(&entry.to_bytes()), Ok(entry.clone()));
    assert_eq!(entry.id_bytes(), Some([0xA5; 16]));
    entry.refuse(&Refusal::new(Step::R(11), "nonce", "unused", "used"), Some("ask again".into()));
    let line = String::from_utf8(entry.to_bytes()).unwrap();
    assert!(
        line.contains(
            r#""outcome":"refused","step":"R-11","expected":"nonce: unused","actual":"used","fix":"ask again""#
        )
    );
    assert!(!line.contains("answer"));
    for bad in [
        "",
        "{}",
        "[1]",
        &line.replace("\"v\":1", "\"v\":2"),
        &line.replace(':', ": "),
        &line.replace("\"v\"", "\"w\""),
    ] {
        assert_eq!(LogEntry::parse(bad.as_bytes()).unwrap_err().step, Step::L(1), "{bad}");
    }
    for bad in ["", "+", "A5", &"A5".repeat(16), &format!("+{}", "0".repeat(31))] {
        assert_eq!(LogEntry { id: bad.into(), ..entry.clone() }.id_bytes(), None, "{bad}");
    }
}
