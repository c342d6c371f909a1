//! Model signatures, both ways with the Python package `model-signing`; and what `sign`, `verify --signature` and
//! `seal --model-signature` do with good and bad files, keys, certificates and names.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // tests: a panic is the report

mod common;

use common::{Done, Workshop, noise};
use mvault_tests::publisher::{Forged, Issued, authority, new_key, set_validity, signer, statement};
use sha2::{Digest, Sha256};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The Python that has `model-signing`: none is a failure in CI, and skips elsewhere.
fn python() -> Option<PathBuf> {
    let set = std::env::var_os("MVAULT_TEST_PYTHON").map(PathBuf::from).filter(|p| p.exists());
    if set.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "no Python: set MVAULT_TEST_PYTHON");
        println!("skipped: MVAULT_TEST_PYTHON is not set");
    }
    set
}

struct Peer<'a>(&'a Workshop, PathBuf);

impl Peer<'_> {
    /// The command line of `model-signing`.
    fn tool(&self, args: &str) -> Done {
        let mut command = self.0.command(self.1.to_str().unwrap());
        command.env("PYTHONDONTWRITEBYTECODE", "1").args(["-m", "model_signing"]).args(args.split_whitespace());
        command.output().unwrap().into()
    }

    /// Its library.
    fn run(&self, program: &str) -> Done {
        self.0.command(self.1.to_str().unwrap()).args(["-c", program]).output().unwrap().into()
    }

    #[track_caller]
    fn takes(&self, args: &str) {
        let done = self.tool(args).ok();
        assert!(done.text().contains("succeeded"), "{args}: {}{}", done.text(), done.stderr);
    }

    #[track_caller]
    fn refuses(&self, args: &str, words: &str) {
        let done = self.tool(args);
        let said = format!("{}{}", done.text(), done.stderr);
        assert!(done.code != 0 && said.contains(words), "{args}: {}: {said}", done.code);
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A folder whose order, names and contents a signer can get wrong.
fn tricky() -> Workshop {
    let shop = Workshop::new();
    shop.write("m/a/b", b"1");
    shop.write("m/a.txt", b"2");
    shop.write("m/a/c/d.bin", &noise(700_000));
    shop.write("m/\u{e9}\u{1F600} \"<&'.txt", b"3");
    shop.write("m/empty", b"");
    shop.write("m/.hidden", b"4");
    shop.write("m/.github2/x", b"5");
    shop.write("m/.git/config", b"6");
    shop.write("m/.gitattributes", b"7");
    shop.write("m/sub/.gitignore", b"8");
    shop.mvault("keygen --signing -o s.pem").ok();
    shop.mvault("keygen --signing -o t.pem").ok();
    shop
}

/// Certificates in files: root.pem, other-root.pem, middle.pem, leaf.pem, chain.pem, and the key leaf.key.
fn with_certificates(shop: &Workshop) -> [Issued; 3] {
    let root = Issued::root(authority("root", now_s()));
    let middle = root.issue(authority("team", now_s()));
    let leaf = middle.issue(signer("publisher", now_s()));
    shop.write("root.pem", root.pem().as_bytes());
    shop.write("other-root.pem", Issued::root(authority("other root", now_s())).pem().as_bytes());
    shop.write("middle.pem", middle.pem().as_bytes());
    shop.write("leaf.pem", leaf.pem().as_bytes());
    shop.write("chain.pem", format!("{}{}", leaf.pem(), middle.pem()).as_bytes());
    shop.write("leaf.key", leaf.key_pem().as_bytes());
    shop.write("leaf.pub", leaf.public_pem().as_bytes());
    [root, middle, leaf]
}

#[test]
fn model_signing_verifies_what_mvault_signs_by_key() {
    let shop = tricky();
    let Some(python) = python() else { return };
    let peer = Peer(&shop, python);
    shop.mvault("keygen").ok();
    shop.mvault("seal bert").ok();
    for (path, signature) in [
        ("m", "m.sig"),
        ("m", "m/model.sig"),
        ("m/", "slash.sig"),
        ("model.pkl", "pkl.sig"),
        ("bert.mvault", "sealed.sig"),
    ] {
        shop.mvault(&format!("sign {path} --key s.pem -o {signature}")).ok();
        peer.takes(&format!("verify key {path} --public_key s.pem.pub --signature {signature}"));
        peer.refuses(&format!("verify key {path} --public_key t.pem.pub --signature {signature}"), "mismatch");
        let _ = std::fs::remove_file(shop.path("m/model.sig"));
    }
    shop.write("m/a.txt", b"9");
    peer.refuses("verify key m --public_key s.pem.pub --signature m.sig", "a.txt");
}

#[test]
fn model_signing_verifies_what_mvault_signs_by_certificate() {
    let shop = tricky();
    let Some(python) = python() else { return };
    let peer = Peer(&shop, python);
    with_certificates(&shop);
    for (path, signature) in [("m", "m.sig"), ("model.pkl", "pkl.sig")] {
        shop.mvault(&format!("sign {path} --key leaf.key --cert chain.pem -o {signature}")).ok();
        peer.takes(&format!("verify certificate {path} --certificate_chain root.pem --signature {signature}"));
        let other = format!("verify certificate {path} --certificate_chain other-root.pem --signature {signature}");
        peer.refuses(&other, "issuer certificate");
    }
}

#[test]
fn mvault_verifies_what_model_signing_signs_by_key() {
    let shop = tricky();
    let Some(python) = python() else { return };
    let peer = Peer(&shop, python);
    for (path, signature) in [("m", "m.sig"), ("m", "m/model.sig"), ("model.pkl", "pkl.sig"), ("bert", "bert.sig")] {
        peer.takes(&format!("sign key {path} --private_key s.pem --signature {signature}"));
        let verify = format!("verify {path} --signature {signature} --signer");
        shop.mvault(&format!("{verify} s.pem.pub")).ok();
        shop.mvault(&format!("{verify} t.pem.pub")).fails(3, "[M-6]");
        let _ = std::fs::remove_file(shop.path("m/model.sig"));
    }
    peer.takes("sign key m --private_key s.pem --signature all.sig --no-ignore-git-paths");
    assert_eq!(shop.mvault("verify m --signature all.sig --signer s.pem.pub --json").ok().json()["files"], 10);
    shop.write("m/.gitattributes", b"changed");
    shop.mvault("verify m --signature m.sig --signer s.pem.pub").ok();
    shop.mvault("verify m --signature all.sig --signer s.pem.pub").fails(3, ".gitattributes was changed");
}

#[test]
fn mvault_verifies_what_model_signing_signs_by_certificate() {
    let shop = tricky();
    let Some(python) = python() else { return };
    let peer = Peer(&shop, python);
    with_certificates(&shop);
    let how = "--private_key leaf.key --signing_certificate leaf.pem --certificate_chain middle.pem";
    peer.takes(&format!("sign certificate m {how} --certificate_chain root.pem --signature m.sig"));
    let verified = shop.mvault("verify m --signature m.sig --ca root.pem --json").ok().json();
    assert_eq!(verified["subject"], "CN=publisher");
    shop.mvault("verify m --signature m.sig --ca other-root.pem --ca root.pem").ok();
    shop.mvault("verify m --signature m.sig --ca other-root.pem").fails(3, "no path from the signer's certificate");
    shop.mvault("verify m --signature m.sig --signer leaf.pub").ok();
}

#[test]
fn blake3_is_understood_both_ways() {
    let shop = tricky();
    let Some(python) = python() else { return };
    let peer = Peer(&shop, python);
    shop.mvault("sign m --key s.pem -o m.sig --hash blake3").ok();
    let verify = "from model_signing import verifying as v; \
                  v.Config().use_elliptic_key_verifier(public_key='s.pem.pub').verify('m', 'm.sig')";
    peer.run(verify).ok();
    shop.mvault("verify m --signature m.sig --signer s.pem.pub").ok();
    let sign = |hash: &str, to: &str| {
        format!(
            "from model_signing import hashing as h, signing as s; \
             s.Config().use_elliptic_key_signer(private_key='s.pem').set_hashing_config(h.Config().{hash}).sign('m', '{to}')"
        )
    };
    peer.run(&sign("use_file_serialization(hashing_algorithm='blake3')", "b.sig")).ok();
    let verified = shop.mvault("verify m --signature b.sig --signer s.pem.pub --json").ok().json();
    assert_eq!(verified["hash"], "blake3");
    peer.run(&sign("use_file_serialization(hashing_algorithm='blake2')", "c.sig")).ok();
    shop.mvault("verify m --signature c.sig --signer s.pem.pub")
        .fails(3, "\"blake2b\"; expected sha256 or blake3 [M-11]");
    peer.run(&sign("use_shard_serialization()", "d.sig")).ok();
    shop.mvault("verify m --signature d.sig --signer s.pem.pub").fails(3, "\"shards\"");
    shop.write("m/a.txt", b"9");
    shop.mvault("verify m --signature b.sig --signer s.pem.pub").fails(3, "a.txt was changed");
    peer.run(verify).fails(1, "a.txt");
}

#[test]
fn seal_time_signature_is_of_the_plain_files() {
    let shop = tricky();
    shop.mvault("keygen").ok();
    with_certificates(&shop);
    let sealed = shop.mvault("seal m --sign leaf.key --cert chain.pem --model-signature m.sig --json").ok().json();
    assert_eq!(sealed["model_signature"], "m.sig");
    assert!(sealed["entries"][0]["sha256"].is_string());
    shop.mvault("open m.mvault -o opened --signer leaf.pub").ok();
    shop.mvault("seal model.pkl --sign s.pem --model-signature pkl.sig").ok();
    shop.mvault("open model.pkl.mvault -o out").ok();
    for folder in ["m", "opened"] {
        let verified = shop.mvault(&format!("verify {folder} --signature m.sig --ca root.pem --json")).ok().json();
        assert_eq!(verified["files"], 8);
    }
    shop.mvault("verify out/model.pkl --signature pkl.sig --signer s.pem.pub").ok();
    shop.sh("cat model.pkl | mvault seal - --name p.pkl -o p.mvault --sign s.pem --model-signature p.sig").ok();
    shop.mvault("verify model.pkl --signature p.sig --signer s.pem.pub").ok();
    shop.mvault("verify out --signature pkl.sig --signer s.pem.pub").fails(3, "a folder, signed was one file");
    shop.mvault("verify model.pkl --signature m.sig --ca root.pem").fails(3, "one file, signed was a folder");
    shop.mvault("push m vault m --sign s.pem --model-signature pushed.sig").ok();
    shop.mvault("verify m --signature pushed.sig --signer s.pem.pub").ok();
    shop.mvault("push m.mvault vault m --sign s.pem --model-signature no.sig").fails(2, "sealed already");
    let Some(python) = python() else { return };
    let peer = Peer(&shop, python);
    for folder in ["m", "opened"] {
        peer.takes(&format!("verify certificate {folder} --certificate_chain root.pem --signature m.sig"));
    }
    peer.takes("verify key out/model.pkl --public_key s.pem.pub --signature pkl.sig");
    peer.takes("verify key m --public_key s.pem.pub --signature pushed.sig");
}

#[test]
fn seal_that_fails_leaves_no_signature_and_one_in_the_way_stops_it() {
    let shop = Workshop::new();
    shop.mvault("keygen").ok();
    shop.mvault("keygen --signing -o s.pem").ok();
    shop.mvault("seal bert --model-signature b.sig").fails(2, "--sign <KEY.PEM>");
    shop.mvault("seal evil.pkl --sign s.pem --model-signature e.sig").fails(1, "dangerous");
    shop.write("taken.sig", b"mine");
    shop.mvault("seal bert --sign s.pem --model-signature taken.sig").fails(1, "taken.sig: already exists");
    shop.mvault("seal bert --sign s.pem --model-signature nowhere/b.sig").fails(1, "nowhere/b.sig");
    shop.mvault("seal bert --sign s.pem --cert s.pem.pub --model-signature b.sig").fails(2, "no certificate");
    assert!(!shop.exists("bert.mvault") && !shop.exists("b.sig") && !shop.exists("e.sig"), "{:?}", shop.names());
    assert_eq!(shop.read("taken.sig"), b"mine");
    shop.mvault("seal bert --sign s.pem --model-signature taken.sig --force").ok();
    shop.mvault("verify bert --signature taken.sig --signer s.pem.pub").ok();
    assert!(shop.names().iter().all(|n| !n.starts_with('.')), "{:?}", shop.names());
}

#[test]
fn changed_added_removed_and_renamed_files_are_named() {
    for (line, words) in [
        ("printf x >> m/a.txt", "a.txt was changed"),
        ("printf x > m/empty", "empty was changed"),
        ("touch m/new", "new is additional"),
        ("mkdir m/n && touch m/n/ew", "n/ew is additional"),
        ("rm m/a/c/d.bin", "a/c/d.bin is missing"),
        ("mv m/a/c/d.bin m/a/c/e.bin", "a/c/d.bin is now a/c/e.bin"),
        ("mv m/a.txt m/t; mv m/a/b m/a.txt; mv m/t m/a/b", "a.txt was changed; a/b was changed"),
        ("rm m/a.txt; mkdir m/a.txt; touch m/a.txt/x", "a.txt is missing; "),
        ("printf x > m/.github2/x", ".github2/x was changed"),
        ("printf x > m/sub/.gitignore", "sub/.gitignore was changed"),
    ] {
        let shop = tricky();
        shop.mvault("sign m --key s.pem -o m.sig").ok();
        shop.mvault("verify m --signature m.sig --signer s.pem.pub").ok();
        shop.sh(line).ok();
        let done = shop.mvault("verify m --signature m.sig --signer s.pem.pub").fails(3, words);
        assert!(done.stderr.contains("[M-14]\nmvault: hint: "), "{line}: {}", done.stderr);
        let json = shop.mvault("verify m --signature m.sig --signer s.pem.pub --json").json();
        assert_eq!((&json["ok"], &json["rule"], &json["exit"]), (&false.into(), &"M-14".into(), &3.into()), "{line}");
        assert!(!json["differences"].as_array().unwrap().is_empty());
    }
}

#[test]
fn what_is_not_covered_is_said() {
    let shop = tricky();
    shop.mvault("sign m --key s.pem -o m/m.sig --ignore a/ --ignore ./sub").ok();
    let verify = "verify m --signature m/m.sig --signer s.pem.pub";
    shop.sh("printf x > m/a/b; printf x > m/.git/hook; touch m/sub/new").ok();
    let text = shop.mvault(verify).ok().text();
    assert!(text.contains("not covered: .git, .gitattributes, a, m.sig, sub\n"), "{text}");
    shop.write("m/a.b", b"");
    shop.mvault(verify).fails(3, "a.b is additional");
    shop.mvault(&format!("{verify} --ignore a.b")).ok();
    shop.mvault(&format!("{verify} --ignore a.b --ignore a.txt")).fails(3, "a.txt is missing");
    shop.mvault(&format!("{verify} --ignore ..")).fails(2, "not a path inside the folder");
    shop.mvault("sign m --key s.pem -o x.sig --ignore .").fails(2, "not a path inside the folder");
    assert!(!shop.exists("x.sig"));
}

#[test]
fn signers_of_the_project_file_are_demanded() {
    let shop = tricky();
    shop.mvault("sign m --key s.pem -o m.sig").ok();
    shop.mvault("verify m --signature m.sig").fails(2, "no publisher's key or root");
    shop.write("mvault.toml", b"signers = [\"t.pem.pub\"]\n");
    shop.mvault("verify m --signature m.sig").fails(3, "[M-6]");
    shop.write("mvault.toml", b"signers = [\"t.pem.pub\", \"s.pem.pub\"]\n");
    shop.mvault("verify m --signature m.sig").ok();
}

#[test]
fn certificate_that_ended_is_refused_unless_the_time_is_said() {
    let shop = tricky();
    let [root, _, _] = with_certificates(&shop);
    let mut params = signer("publisher", now_s());
    set_validity(&mut params, now_s() - 90_000, now_s() - 3600);
    let old = root.issue(params);
    shop.write("old.pem", old.pem().as_bytes());
    shop.write("old.key", old.key_pem().as_bytes());
    shop.mvault("sign model.pkl --key old.key --cert old.pem -o m.sig").fails(2, "not at the time judged");
    let digest: [u8; 32] = Sha256::digest(shop.read("model.pkl")).into();
    shop.write("m.sig", Forged::by_chain(&statement(&[(".", digest)]), &[&old]).text().as_bytes());
    let verify = "verify model.pkl --signature m.sig --ca root.pem";
    shop.mvault(verify).fails(3, "[M-7]").fails(3, "--at TIME");
    let then = shop.sh(&format!("date -u -d @{} +%Y-%m-%dT%H:%M:%SZ", now_s() - 7200)).ok().text();
    shop.mvault(&format!("{verify} --at {then}")).ok();
    shop.mvault(&format!("{verify} --at yesterday")).fails(2, "RFC 3339");
    shop.mvault("verify model.pkl --signature m.sig --signer s.pem.pub").fails(3, "[M-6]");
    shop.mvault("verify model.pkl --signature m.sig --ca s.pem.pub").fails(2, "no certificate");
    shop.mvault("verify model.pkl --signature m.sig --ca root.pem --signer s.pem.pub").fails(2, "cannot be used with");
}

#[test]
fn swapped_and_hostile_signatures_are_refused() {
    let shop = tricky();
    shop.mvault("sign m --key s.pem -o m.sig").ok();
    shop.mvault("sign bert --key s.pem -o bert.sig").ok();
    shop.mvault("verify m --signature bert.sig --signer s.pem.pub").fails(3, "config.json is missing");
    shop.mvault("verify m --signature m.pem --signer s.pem.pub").fails(1, "m.pem: no such file");
    shop.mvault("verify m --signature model.pkl --signer s.pem.pub").fails(3, "[M-1]");
    shop.mvault("verify m --signature m --signer s.pem.pub").fails(1, "directory");
    shop.sh("head -c 17M /dev/zero | tr '\\0' '[' > big.sig").ok();
    shop.mvault("verify m --signature big.sig --signer s.pem.pub").fails(3, "over 16 MiB");
    shop.mvault("verify m --signature /dev/zero --signer s.pem.pub").fails(3, "over 16 MiB");
    let key = new_key();
    shop.write("k.pub", key.public_key_pem().replace("\r\n", "\n").as_bytes());
    let out = statement(&[("../s.pem", Sha256::digest(shop.read("s.pem")).into())]);
    shop.write("out.sig", Forged::by_key(&out, &key).text().as_bytes());
    shop.mvault("verify m --signature out.sig --signer k.pub").fails(3, "[M-12]");
    let good = Forged::by_key(&statement(&[("a", [0; 32])]), &key);
    let hint = Forged { material: r#"{"publicKey":{"hint":"\u001b[31mred"}}"#.into(), ..good.clone() }.text();
    let field = good.text().replacen('{', r#"{"\u001b[31mred":1,"#, 1);
    for bundle in [hint, field] {
        shop.write("red.sig", bundle.as_bytes());
        let said = shop.mvault("verify m --signature red.sig --signer k.pub").fails(3, "[31mred").stderr;
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    let turned = Forged::by_key(&statement(&[("a\u{202E}b", [0; 32])]), &key).text();
    shop.write("turned.sig", turned.as_bytes());
    let said = shop.mvault("verify m --signature turned.sig --signer k.pub").fails(3, "is missing").stderr;
    assert!(!said.contains('\u{202E}'), "{said}");
}

#[test]
fn signatures_are_whole_and_never_overwritten() {
    let shop = tricky();
    shop.write("x.sig", b"mine");
    shop.mvault("sign m --key s.pem -o x.sig").fails(1, "already exists");
    assert_eq!(shop.read("x.sig"), b"mine");
    shop.mvault("sign m --key s.pem -o x.sig --force").ok();
    shop.mvault("verify m --signature x.sig --signer s.pem.pub").ok();
    shop.mvault("sign m --key s.pem.pub -o y.sig").fails(2, "not a usable signing key");
    shop.mvault("sign - --key s.pem -o y.sig").fails(2, "standard input");
    shop.mvault("sign nothing --key s.pem -o y.sig").fails(1, "nothing: no such file");
    let model = shop.read("model.pkl");
    shop.mvault("sign model.pkl --key s.pem -o ./model.pkl --force").fails(2, "is what is to be signed");
    shop.mvault("keygen").ok();
    for output in ["model.pkl", "model.pkl.mvault"] {
        shop.mvault(&format!("seal model.pkl --sign s.pem --model-signature ./{output} --force")).fails(2, output);
    }
    assert!(shop.read("model.pkl") == model && !shop.exists("model.pkl.mvault"));
    with_certificates(&shop);
    shop.mvault("sign m --key s.pem --cert chain.pem -o y.sig").fails(2, "is not for this key");
    shop.mvault("sign m --key leaf.key --cert middle.pem -o y.sig").fails(2, "is not for this key");
    symlink("/etc/hostname", shop.path("m/link")).unwrap();
    shop.mvault("sign m --key s.pem -o y.sig").fails(1, "m/link: a symbolic link");
    shop.mvault("verify m --signature x.sig --signer s.pem.pub").fails(1, "m/link: a symbolic link");
    assert!(!shop.exists("y.sig") && shop.names().iter().all(|n| !n.starts_with('.')), "{:?}", shop.names());
}

/// Downloads of a hub's cache are links to files; what linked folders hold is another matter.
#[test]
fn links_are_followed_to_files_only() {
    let shop = Workshop::new();
    shop.mvault("keygen --signing -o s.pem").ok();
    std::fs::create_dir(shop.path("snapshot")).unwrap();
    symlink("../model.pkl", shop.path("snapshot/model.pkl")).unwrap();
    shop.mvault("sign snapshot --key s.pem -o s.sig --follow-symlinks").ok();
    shop.mvault("verify snapshot --signature s.sig --signer s.pem.pub").fails(1, "--follow-symlinks");
    shop.mvault("verify snapshot --signature s.sig --signer s.pem.pub --follow-symlinks").ok();
    if let Some(python) = python() {
        let peer = Peer(&shop, python);
        peer.takes("verify key snapshot --public_key s.pem.pub --signature s.sig --allow_symlinks");
    }
    symlink("../bert", shop.path("snapshot/bert")).unwrap();
    shop.mvault("sign snapshot --key s.pem -o t.sig --follow-symlinks").fails(1, "a symbolic link to a folder");
    shop.mvault("verify snapshot --signature s.sig --signer s.pem.pub --follow-symlinks")
        .fails(1, "a symbolic link to a folder");
}

#[test]
fn changed_while_it_is_signed_is_an_error() {
    let shop = Workshop::new();
    shop.mvault("keygen --signing -o s.pem").ok();
    shop.sh("truncate -s 2G big.bin").ok();
    let mut child = shop
        .command("mvault")
        .args("sign big.bin --key s.pem -o b.sig".split(' '))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    while !shop.sh(&format!("readlink /proc/{pid}/fd/*")).text().contains("/big.bin") {
        assert!(child.try_wait().unwrap().is_none(), "signed 2 GiB before it could be held");
    }
    shop.sh(&format!("kill -STOP {pid} && {{ truncate -s 1M big.bin; }} && kill -CONT {pid}")).ok();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("changed while it was being signed"), "{said}");
    assert!(!shop.exists("b.sig"));
}
