//! What the command line does with good and bad input: files, pipes, names in the way, links, kills, crashes.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

mod common;

use common::{Workshop, noise, safetensors};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;
use std::time::Duration;

fn with_key() -> Workshop {
    let shop = Workshop::new();
    shop.mvault("keygen").ok();
    shop
}

#[test]
fn seal_before_keygen_says_what_to_do() {
    let shop = Workshop::new();
    shop.mvault("seal model.pkl").fails(2, "hint: run `mvault keygen` once");
    assert!(!shop.exists("model.pkl.mvault"));
}

#[test]
fn key_files_are_private_and_never_overwritten() {
    let shop = with_key();
    let path = shop.path("home/.config/mvault/identity.txt");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    shop.mvault("keygen").fails(1, "a key is never overwritten");
    let line = shop.mvault("keygen -o k.txt").ok().text();
    assert_eq!(shop.mvault("keygen --public k.txt").ok().text(), line);
    shop.mvault("keygen --signing -o s.pem").ok();
    assert_eq!(shop.path("s.pem").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    shop.mvault("keygen --signing -o s.pem").fails(1, "already exists");
}

#[test]
fn opened_files_belong_to_the_owner() {
    let shop = with_key();
    shop.mvault("seal bert").ok();
    shop.mvault("open bert.mvault -o out").ok();
    assert_eq!(shop.path("out").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(shop.path("out/config.json").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(shop.read("out/model.safetensors"), safetensors());
}

#[test]
fn names_in_the_way_are_kept() {
    let shop = with_key();
    shop.mvault("seal model.pkl").ok();
    let before = shop.read("model.pkl.mvault");
    shop.mvault("seal model.pkl").fails(1, "already exists");
    assert_eq!(shop.read("model.pkl.mvault"), before);
    shop.mvault("open model.pkl.mvault").fails(1, "model.pkl: already exists");
    shop.mvault("seal model.pkl --force").ok();
    assert_ne!(shop.read("model.pkl.mvault"), before);
    shop.mvault("open model.pkl.mvault --force").ok();
    shop.mvault("seal bert").ok();
    shop.mvault("open bert.mvault").fails(1, "bert: already exists");
    shop.mvault("open bert.mvault --force").fails(1, "never mixed");
    shop.write("full/x", b"x");
    shop.mvault("open bert.mvault -o full").fails(1, "already exists");
    std::fs::create_dir(shop.path("empty")).unwrap();
    shop.mvault("open bert.mvault -o empty").ok();
    assert!(shop.exists("empty/config.json"));
    assert!(shop.names().iter().all(|n| !n.starts_with('.')), "{:?}", shop.names());
}

#[test]
fn wrong_key_and_flipped_byte_leave_nothing() {
    let shop = with_key();
    shop.write("m.bin", &noise(500_000));
    shop.mvault("seal m.bin").ok();
    shop.mvault("keygen -o other.txt").ok();
    shop.mvault("open m.bin.mvault -i other.txt -o out1").fails(3, "[F-18]");
    for at in [30, 200, 17_000, 300_000, 500_000] {
        let mut bytes = shop.read("m.bin.mvault");
        bytes[at] ^= 1;
        shop.write("bad.mvault", &bytes);
        let done = shop.mvault("open bad.mvault -o out2");
        assert_eq!(done.code, 3, "{at}: {}", done.stderr);
        assert!(done.stderr.contains("mvault: hint: "), "{}", done.stderr);
        assert!(!shop.exists("out2/m.bin"), "{at}");
        assert_eq!(shop.mvault("verify bad.mvault").code, 3);
    }
    assert!(!shop.exists("out1") && !shop.exists("out2"), "folders made for nothing are removed");
    assert!(shop.names().iter().all(|n| !n.starts_with('.')), "{:?}", shop.names());
}

#[test]
fn stream_releases_the_verified_prefix_and_exits_3() {
    let shop = with_key();
    let data = noise(3_000_000);
    shop.write("m.bin", &data);
    shop.mvault("seal m.bin").ok();
    assert_eq!(shop.mvault("open m.bin.mvault --stream").ok().stdout, data);
    let mut bytes = shop.read("m.bin.mvault");
    bytes[16_384 + 20 * 65_552 + 5] ^= 1;
    shop.write("bad.mvault", &bytes);
    for line in ["mvault open bad.mvault --stream", "cat bad.mvault | mvault open - --stream"] {
        let done = shop.sh(line).fails(3, "the rest is not");
        assert_eq!(done.stdout, data[..20 * 65_536 - 4096], "exactly the chunks in front of the bad one");
    }
    shop.sh("head -c 1000000 m.bin.mvault | mvault open - --stream").fails(3, "[F-2");
}

#[test]
fn pipes_of_unknown_length() {
    let shop = with_key();
    for size in [0, 1, 61_440, 65_536, 700_001] {
        let data = noise(size);
        shop.write("m", &data);
        shop.sh("cat m | mvault seal - --name m.bin > p.mvault").ok();
        assert_eq!(shop.sh("cat p.mvault | mvault open - --stream").ok().stdout, data);
        let _ = std::fs::remove_dir_all(shop.path("o"));
        shop.sh("cat p.mvault | mvault open - -o o").ok();
        assert_eq!(shop.read("o/m.bin"), data);
        shop.mvault("verify p.mvault").ok();
        assert_eq!(shop.mvault("cat p.mvault").ok().stdout, data);
    }
    shop.sh("mvault seal <(cat m) -o fifo.mvault --name m").ok();
    shop.mvault("seal model.pkl -o - --sign s.pem").fails(1, "s.pem");
    shop.mvault("keygen --signing -o s.pem").ok();
    shop.mvault("seal model.pkl -o - --sign s.pem").fails(2, "needs a file");
}

#[test]
fn dangerous_pickles_are_refused_in_folders_and_pipes() {
    let shop = with_key();
    shop.mvault("seal evil.pkl").fails(1, "posix.system");
    shop.sh("cat evil.pkl | mvault seal - --name weights.bin -o p.mvault").fails(1, "posix.system");
    shop.write("bert/deep/x.txt", &shop.read("evil.pkl"));
    shop.mvault("seal bert").fails(1, "deep/x.txt: dangerous");
    assert!(!shop.exists("bert.mvault") && !shop.exists("p.mvault"));
    let done = shop.mvault("seal bert --dangerous-allow-unsafe-pickle").ok();
    assert!(done.stderr.contains("warning: deep/x.txt: sealed although dangerous"), "{}", done.stderr);
    let entries = shop.mvault("inspect bert.mvault --json").ok().json()["entries"].clone();
    assert_eq!(entries[1]["scan"], "dangerous");
    shop.write("bad.safetensors", &safetensors()[..100]);
    shop.mvault("seal bad.safetensors").fails(1, "--dangerous-allow-malformed");
    shop.mvault("seal bad.safetensors --dangerous-allow-malformed").ok();
}

#[test]
fn links_and_special_files_on_the_way_in() {
    let shop = with_key();
    shop.write("outside.bin", b"secret elsewhere");
    symlink(shop.path("outside.bin"), shop.path("bert/link.bin")).unwrap();
    shop.mvault("seal bert").fails(1, "a symbolic link");
    shop.mvault("seal bert --follow-symlinks").ok();
    assert_eq!(shop.mvault("cat bert.mvault link.bin").ok().stdout, b"secret elsewhere");
    std::fs::remove_file(shop.path("bert/link.bin")).unwrap();
    shop.sh("mkfifo bert/fifo").ok();
    shop.mvault("seal bert -o f.mvault").fails(1, "a special file");
    std::fs::remove_file(shop.path("bert/fifo")).unwrap();
    symlink("..", shop.path("bert/loop")).unwrap();
    shop.mvault("seal bert -o l.mvault --follow-symlinks").fails(1, "");
    std::fs::remove_file(shop.path("bert/loop")).unwrap();
    shop.write("bert/CONFIG.json", b"{}");
    shop.mvault("seal bert -o c.mvault").fails(2, "upper and lower case");
    shop.write("back\\slash/x", b"x");
    shop.mvault("seal back\\slash").fails(2, "plain name");
    shop.mvault("seal /dev/zero -o z.mvault --name .. ").fails(2, "plain name");
    shop.mvault("seal nowhere").fails(1, "nowhere: no such file");
}

#[test]
fn links_in_the_way_of_the_output_are_not_followed() {
    let shop = with_key();
    shop.mvault("seal model.pkl").ok();
    shop.mvault("seal bert").ok();
    shop.write("victim", b"keep me");
    std::fs::create_dir(shop.path("out")).unwrap();
    symlink(shop.path("victim"), shop.path("out/model.pkl")).unwrap();
    shop.mvault("open model.pkl.mvault -o out").fails(1, "already exists");
    shop.mvault("open model.pkl.mvault -o out --force").ok();
    assert_eq!(shop.read("victim"), b"keep me");
    assert!(shop.path("out/model.pkl").symlink_metadata().unwrap().is_file());
    std::fs::create_dir(shop.path("elsewhere")).unwrap();
    symlink(shop.path("elsewhere"), shop.path("linked")).unwrap();
    shop.mvault("open bert.mvault -o linked").fails(1, "");
    assert_eq!(std::fs::read_dir(shop.path("elsewhere")).unwrap().count(), 0);
    symlink(shop.path("victim"), shop.path("s.mvault")).unwrap();
    shop.mvault("seal model.pkl -o s.mvault").fails(1, "already exists");
    shop.mvault("seal model.pkl -o s.mvault --force").ok();
    assert_eq!(shop.read("victim"), b"keep me");
}

#[test]
fn recipients_come_and_go_without_touching_the_payload() {
    let shop = with_key();
    shop.write("m.bin", &noise(300_000));
    shop.mvault("seal m.bin").ok();
    let payload = shop.read("m.bin.mvault")[16_384..].to_vec();
    for i in 0..15 {
        shop.sh(&format!("mvault keygen -o k{i}.txt > k{i}.pub")).ok();
        shop.mvault(&format!("recipients add m.bin.mvault -R k{i}.pub")).ok();
        let bytes = shop.read("m.bin.mvault");
        let header_len = if i < 12 { 16_384 } else { 32_768 };
        assert_eq!(&bytes[header_len..], payload, "{i}");
        shop.mvault(&format!("verify m.bin.mvault -i k{i}.txt")).ok();
    }
    let list = shop.mvault("recipients list m.bin.mvault -R k3.pub --json").ok().json();
    assert_eq!(list["recipients"].as_array().unwrap().len(), 16);
    assert_eq!(list["recipients"][0]["who"], "you");
    assert_eq!(list["recipients"][4]["who"], "given (1)");
    shop.mvault("recipients remove m.bin.mvault -R k3.pub").ok();
    shop.mvault("verify m.bin.mvault -i k3.txt").fails(3, "[F-18]");
    shop.mvault("recipients remove m.bin.mvault -R k3.pub").fails(1, "is not one");
    shop.mvault("recipients remove m.bin.mvault -n 99").fails(2, "there is no recipient 99");
    shop.mvault("recipients add m.bin.mvault -R k4.pub").fails(1, "is one already");
    shop.mvault("recipients add m.bin.mvault -R k3.pub -i k3.txt").fails(3, "[F-18]");
    shop.write("pw", b"correct horse\n");
    shop.sh("mvault recipients add m.bin.mvault --new-passphrase-fd 3 3<pw").ok();
    shop.sh("mvault verify m.bin.mvault --passphrase-fd 3 3<pw").ok();
    assert!(!shop.exists("m.bin.mvault.rekey"));
}

/// Every state a crash can leave: log written and header old, half new, or new.
#[test]
fn interrupted_rekey_is_completed() {
    let shop = with_key();
    shop.write("m.bin", &noise(100_000));
    shop.mvault("seal m.bin").ok();
    let old = shop.read("m.bin.mvault");
    shop.sh("mvault keygen -o b.txt > b.pub").ok();
    shop.mvault("recipients add m.bin.mvault -R b.pub").ok();
    let new = shop.read("m.bin.mvault");
    for torn in [0, 24, 100, 512, 4096, 16_384] {
        let mut bytes = old.clone();
        bytes[..torn].copy_from_slice(&new[..torn]);
        shop.write("m.bin.mvault", &bytes);
        shop.write("m.bin.mvault.rekey", &new[..16_384]);
        shop.mvault("verify m.bin.mvault -i b.txt").ok();
        shop.mvault("recipients list m.bin.mvault").ok();
        shop.sh("mvault keygen -o c.txt > c.pub; mvault recipients add m.bin.mvault -R c.pub; rm c.txt").ok();
        assert!(!shop.exists("m.bin.mvault.rekey"));
        shop.mvault("verify m.bin.mvault -i b.txt").ok();
    }
}

#[test]
fn interrupted_rekey_log_of_another_artifact_is_ignored() {
    let shop = with_key();
    shop.mvault("seal model.pkl -o a.mvault").ok();
    shop.mvault("seal model.pkl -o b.mvault").ok();
    shop.write("a.mvault.rekey", &shop.read("b.mvault")[..16_384]);
    shop.mvault("verify a.mvault").ok();
    shop.write("a.mvault.rekey", b"\x89mvault\nnonsense");
    shop.mvault("verify a.mvault").ok();
}

#[test]
fn killed_while_writing_leaves_nothing_with_the_name() {
    let shop = with_key();
    shop.write("big.bin", &noise(1_000_000));
    let mut sealer = shop.command("bash");
    // A source that never ends: the seal is surely under way when it is killed.
    sealer.args(["-c", "exec mvault seal - --name big -o big.mvault < <(cat big.bin; sleep 60)"]);
    let mut child = sealer.stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!shop.exists("big.mvault"));
    assert!(shop.names().iter().all(|n| !n.contains(".mvault")), "{:?}", shop.names());
    shop.mvault("seal big.bin -o ok.mvault").ok();
    // A file has no name until it is verified: kill -9 leaves nothing. A folder has a temporary one: Ctrl-C removes it.
    shop.mvault("keygen -o k.txt").ok();
    shop.write("many/a", &noise(500_000));
    shop.write("many/b", &noise(500_000));
    shop.mvault("seal many -o many.mvault").ok();
    for (artifact, signal, code) in [("ok", "KILL", None), ("ok", "INT", Some(130)), ("many", "INT", Some(130))] {
        let mut opener = shop.command("bash");
        let line = format!("exec mvault open - -o out/{artifact} < <(head -c 900000 {artifact}.mvault; sleep 60)");
        std::fs::create_dir_all(shop.path("out")).unwrap();
        let mut child = opener.args(["-c", &line]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        shop.sh(&format!("kill -{signal} {}", child.id())).ok();
        assert_eq!(child.wait().unwrap().code(), code);
        let left = shop.sh("find out -type f; find out -name '.*'").text();
        assert_eq!(left, "", "{artifact} {signal}");
    }
}

#[test]
fn changed_while_sealing_is_an_error() {
    for change in
        ["truncate -s 1M big.bin", "truncate -s +1 big.bin", "printf x | dd of=big.bin conv=notrunc status=none"]
    {
        let shop = with_key();
        shop.sh("truncate -s 400M big.bin").ok();
        let mut sealer = shop.command("mvault");
        let mut child = sealer.args(["seal", "big.bin", "--threads", "1"]).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        // As soon as the source is open, sealing is held, the source changed, sealing let go.
        while !shop.sh(&format!("readlink /proc/{pid}/fd/*")).text().contains("/big.bin") {
            assert!(child.try_wait().unwrap().is_none(), "sealed 400 MiB before it could be held");
        }
        shop.sh(&format!("kill -STOP {pid} && {{ {change}; }} && kill -CONT {pid}")).ok();
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{change}: {said}");
        assert!(said.contains("changed while it was being sealed"), "{change}: {said}");
        assert!(!shop.exists("big.bin.mvault"), "{change}");
    }
}

#[test]
fn signatures_say_where_it_comes_from() {
    let shop = with_key();
    shop.mvault("keygen --signing -o a.pem").ok();
    shop.mvault("keygen --signing -o b.pem").ok();
    shop.mvault("seal model.pkl --sign a.pem -o m.mvault").ok();
    shop.mvault("verify m.mvault --signer a.pem.pub").ok();
    shop.mvault("verify m.mvault --signer b.pem.pub").fails(3, "[F-20]");
    shop.mvault("verify m.mvault --signer b.pem.pub --no-key").fails(3, "[F-20]");
    shop.mvault("verify m.mvault --no-key").fails(2, "--signer");
    shop.sh("mvault keygen -o k.txt > k.pub && mvault recipients add m.mvault -R k.pub").ok();
    shop.mvault("open m.mvault -i k.txt --signer a.pem.pub -o out").ok();
    shop.mvault("cat m.mvault --signer a.pem.pub --range 0-1").ok();
    shop.mvault("cat m.mvault --signer b.pem.pub --range 0-1").fails(3, "[F-20]");
    let mut bytes = shop.read("m.mvault");
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    shop.write("bad.mvault", &bytes);
    shop.mvault("verify bad.mvault --signer a.pem.pub --no-key").fails(3, "[F-21]");
    shop.sh("openssl ecparam -name prime256v1 -genkey -noout -out sec1.pem && openssl ec -in sec1.pem -pubout -out sec1.pub").ok();
    shop.mvault("seal model.pkl --sign sec1.pem -o s.mvault").ok();
    shop.mvault("verify s.mvault --signer sec1.pub").ok();
    shop.mvault("seal model.pkl --sign model.pkl -o t.mvault").fails(2, "not a usable signing key");
}

#[test]
fn project_file_adds_recipients_and_demands_signers() {
    let shop = with_key();
    shop.sh("mvault keygen -o team.txt > team.pub && mvault keygen --signing -o s.pem").ok();
    shop.write("proj/mvault.toml", b"recipients-file = \"../team.pub\"\nsigners = [\"../s.pem.pub\"]\nsha256 = true\n");
    shop.write("proj/sub/m.bin", &noise(10_000));
    let done = shop.sh("cd proj/sub && mvault seal m.bin --sign ../../s.pem").ok();
    assert!(done.stderr.contains("sealing for 1 recipient of "), "{}", done.stderr);
    let json = shop.sh("cd proj/sub && mvault verify m.bin.mvault -i ../../team.txt --json").ok().json();
    let sum = shop.sh("sha256sum proj/sub/m.bin").ok().text();
    assert_eq!(json["entries"][0]["sha256"].as_str(), sum.split(' ').next());
    shop.sh("cd proj/sub && mvault seal m.bin -o unsigned.mvault").ok();
    shop.sh("cd proj/sub && mvault open unsigned.mvault -i ../../team.txt -o o").fails(3, "not signed");
    shop.write("proj/mvault.toml", b"no-checks = true\n");
    shop.sh("cd proj/sub && mvault seal m.bin -o x.mvault").fails(1, "known keys:");
}

#[test]
fn passphrases_and_protected_keys() {
    let shop = Workshop::new();
    shop.write("pw", b"correct horse battery\n");
    shop.write("bad", b"incorrect horse\n");
    shop.sh("mvault seal model.pkl --passphrase-fd 3 3<pw").ok();
    shop.sh("mvault open model.pkl.mvault -o o --passphrase-fd 3 3<pw").ok();
    shop.sh("mvault verify model.pkl.mvault --passphrase-fd 3 3<bad").fails(3, "[F-18]");
    shop.sh("mvault verify model.pkl.mvault --passphrase-fd 3 3</dev/null").fails(1, "empty");
    shop.sh("mvault keygen -o k.txt --passphrase-fd 3 3<pw > k.pub").ok();
    assert!(String::from_utf8(shop.read("k.txt")).unwrap().contains("MVAULT-PROTECTED-XW1-"));
    shop.mvault("seal model.pkl -o k.mvault -R k.pub").ok();
    shop.sh("mvault verify k.mvault -i k.txt --passphrase-fd 3 3<pw").ok();
    shop.sh("mvault verify k.mvault -i k.txt --passphrase-fd 3 3<bad").fails(3, "wrong passphrase");
    shop.sh("setsid mvault verify model.pkl.mvault -p").fails(1, "no terminal");
}

#[test]
fn secrets_stay_out_of_messages() {
    let shop = with_key();
    let key = String::from_utf8(shop.read("home/.config/mvault/identity.txt")).unwrap();
    let secret = key.lines().find(|l| l.starts_with("MVAULT-SECRET")).unwrap().to_owned();
    shop.write("damaged.txt", secret.replace('A', "B").as_bytes());
    shop.mvault("seal model.pkl").ok();
    let attempts = [
        format!("seal model.pkl -o x -r {secret}"),
        "verify model.pkl.mvault -i damaged.txt".into(),
        "verify model.pkl.mvault -i model.pkl".into(),
        "seal model.pkl -o x -R home/.config/mvault/identity.txt".into(),
        "keygen --public damaged.txt --json".into(),
    ];
    for attempt in attempts {
        let done = shop.mvault(&attempt);
        assert_ne!(done.code, 0, "{attempt}");
        let said = format!("{}{}", done.text(), done.stderr);
        let body = secret.trim_start_matches("MVAULT-SECRET-XW1-");
        assert!(!said.contains(&body[..8]) && !said.contains(&body[20..30]), "{attempt}: {said}");
    }
}

/// Who owns a process's memory file: its user, or root if it is not dumpable. Root itself cannot tell, so it
/// runs the process as somebody else.
fn owner_of_memory(shop: &Workshop, line: &str) -> (u32, String) {
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let prefix = if is_root(shop) { nobody } else { "" };
    let mut child = shop.command("bash");
    let mut child =
        child.args(["-c", &format!("exec {prefix} {line} < <(sleep 5)")]).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let proc = format!("/proc/{}", child.id());
    let limits = std::fs::read_to_string(format!("{proc}/limits")).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("{proc}/mem")).unwrap());
    assert!(child.try_wait().unwrap().is_none(), "{line} did not run");
    child.kill().unwrap();
    child.wait().unwrap();
    (owner, limits)
}

fn is_root(shop: &Workshop) -> bool {
    shop.sh("id -u").text().trim() == "0"
}

#[test]
fn core_dumps_are_off_and_memory_is_not_dumpable() {
    let shop = with_key();
    // Where somebody else can run it: a folder that is not only ours.
    shop.sh("mkdir -m 755 bin && cp \"$(command -v mvault)\" bin/ && chmod 755 . bin/mvault").ok();
    shop.sh("mvault keygen -o all.txt > all.pub && chmod 777 .").ok();
    let (owner, limits) = owner_of_memory(&shop, "bin/mvault seal - --name x -R all.pub -o x.mvault");
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert_eq!(owner, 0, "a process that is not dumpable has its /proc files owned by root");
    assert_ne!(owner_of_memory(&shop, "cat").0, 0, "an ordinary process has not");
}

#[test]
fn wrong_input_names_the_cause() {
    let shop = with_key();
    shop.mvault("seal model.pkl").ok();
    shop.mvault("open model.pkl").fails(3, "not an mvault artifact");
    shop.mvault("open bert").fails(2, "a folder, not a sealed model");
    shop.mvault("open nowhere.mvault").fails(1, "nowhere.mvault: no such file");
    shop.mvault("cat model.pkl.mvault nope").fails(1, "no file \"nope\"");
    shop.mvault("cat model.pkl.mvault --tensor x").fails(1, "not a safetensors file");
    shop.mvault("cat model.pkl.mvault --range 5").fails(2, "expected A-B");
    shop.mvault("seal model.pkl -o /nowhere/x.mvault").fails(1, "/nowhere/x.mvault: no such file");
    shop.mvault("seal model.pkl -o x -r mvault-xw1-AAAA").fails(2, "[F-39]");
    shop.mvault("seal model.pkl -o x -r age1xyz").fails(2, "not a recipient key line");
    shop.mvault("seal model.pkl -o x --chunk-size 5000").fails(2, "power of two");
    shop.mvault("seal").fails(2, "Usage");
    let error = shop.mvault("verify model.pkl --json").fails(3, "").json();
    assert_eq!((&error["ok"], &error["rule"], &error["exit"]), (&false.into(), &"F-1".into(), &3.into()));
}

#[test]
fn help_man_and_completions_cover_every_verb() {
    let shop = Workshop::new();
    let help = shop.mvault("--help").ok().text();
    for verb in
        ["seal", "open", "cat", "inspect", "verify", "scan", "recipients", "keygen", "bench", "completions", "man"]
    {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
        let text = shop.mvault(&format!("{verb} --help")).ok().text();
        assert!(verb == "recipients" || text.contains("Example"), "{verb} has no example");
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{verb}");
    }
    assert!(shop.mvault("completions bash").ok().text().contains("_mvault"));
    shop.mvault("man -o man1").ok();
    assert!(shop.exists("man1/mvault-recipients-add.1") && shop.exists("man1/mvault.1"));
    let json = shop.mvault("bench --millis 5 --buffer 1 --json").ok().json();
    assert_eq!(json["engines"].as_array().unwrap().len(), 3);
}

#[test]
fn folder_of_more_files_than_the_usual_limit() {
    let shop = with_key();
    for i in 0..1500 {
        shop.write(&format!("many/{}/{i}.txt", i % 7), i.to_string().as_bytes());
    }
    shop.sh("ulimit -S -n 256 && mvault seal many && mvault open many.mvault -o out").ok();
    shop.sh("diff -r many out").ok();
}

#[test]
fn standard_input_is_read_on_from_where_it_is() {
    let shop = with_key();
    shop.write("lines", b"first line\nsecond line\n");
    shop.sh("{ read -r x; mvault seal - --name rest -o r.mvault; } < lines").ok();
    assert_eq!(shop.mvault("cat r.mvault").ok().stdout, b"second line\n");
    shop.sh("cat lines r.mvault > both && { read -r x; read -r y; mvault open - --stream; } < both").ok();
}

#[test]
fn parts_of_an_artifact_from_a_pipe() {
    let shop = with_key();
    let data = noise(900_000);
    shop.write("bert/big.bin", &data);
    shop.mvault("seal bert").ok();
    let piped = |args: &str| shop.sh(&format!("cat bert.mvault | mvault cat - {args}"));
    assert_eq!(piped("config.json").ok().stdout, b"{\"hidden_size\": 4}\n");
    assert_eq!(piped("big.bin").ok().stdout, data);
    assert_eq!(piped("big.bin --range 70000-299999").ok().stdout, data[70_000..300_000]);
    assert_eq!(piped("big.bin --range -5").ok().stdout, data[899_995..]);
    assert_eq!(piped("model.safetensors --tensor wte").ok().stdout, safetensors()[72..]);
    piped("model.safetensors --tensor none").fails(1, "no such tensor");
    piped("big.bin --tensor wte").fails(1, "not a safetensors file");
    piped("none").fails(1, "no such file");
    piped("").fails(1, "name one");
    piped("big.bin --range 5-900000").fails(1, "has 900000 bytes");
    shop.sh("cat bert/big.bin | mvault seal - --name b -o p.mvault").ok();
    assert_eq!(shop.sh("cat p.mvault | mvault cat - --range 100-").ok().stdout, data[100..]);
    assert_eq!(shop.sh("cat p.mvault | mvault cat - --range 800000-899999").ok().stdout, data[800_000..]);
    let mut bytes = shop.read("bert.mvault");
    let last = bytes.len() - 30;
    bytes[last] ^= 1;
    shop.write("bad.mvault", &bytes);
    shop.sh("cat bad.mvault | mvault cat - config.json").fails(3, "[F-25]");
}

#[test]
fn recorded_sha256_is_what_sha256sum_checks() {
    let shop = with_key();
    shop.mvault("seal bert --sha256").ok();
    shop.sh("mvault inspect bert.mvault --sha256sums | (cd bert && sha256sum -c)").ok();
    shop.mvault("seal model.pkl").ok();
    shop.mvault("inspect model.pkl.mvault --sha256sums").fails(1, "seal with --sha256");
    shop.sh("HOME=/nowhere mvault inspect bert.mvault --sha256sums").fails(1, "give a key");
}

#[test]
fn project_file_of_another_user_is_refused() {
    let shop = with_key();
    shop.write("above/mvault.toml", b"sha256 = true\n");
    shop.write("above/here/m.bin", &noise(1000));
    if std::os::unix::fs::chown(shop.path("above/mvault.toml"), Some(12_345), None).is_err() {
        return; // only root can give a file away
    }
    shop.sh("cd above/here && mvault seal m.bin").fails(1, "belongs to another user");
    assert!(!shop.exists("above/here/m.bin.mvault"));
}

#[test]
fn folder_of_one_file_stays_a_folder() {
    let shop = with_key();
    shop.write("one/only.bin", &noise(5000));
    shop.write("deep/a/b/only.bin", &noise(6000));
    for folder in ["one", "deep"] {
        shop.mvault(&format!("seal {folder}")).ok();
        shop.mvault(&format!("open {folder}.mvault -o out/{folder}/")).ok();
        shop.sh(&format!("diff -r {folder} out/{folder}")).ok();
        shop.sh(&format!(
            "mkdir -p again && cd again && mvault open ../{folder}.mvault && diff -r ../{folder} {folder}"
        ))
        .ok();
        shop.mvault(&format!("open {folder}.mvault -o out/{folder}")).fails(1, "already exists");
    }
}
