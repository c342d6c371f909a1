//! Recipients of versions in a vault that is a folder: named, changed and raced for as in S3.

use crate::common::{Done, Workshop};
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Two versions of `bert` in `vault`, the second tagged `prod`, and the keys of two others.
fn shop() -> Workshop {
    let shop = Workshop::new();
    shop.sh("mvault keygen && for who in alice bob; do mvault keygen -o $who.txt > $who.pub; done").ok();
    shop.mvault("push bert vault bert").ok();
    shop.mvault("push bert vault bert --tag prod").ok();
    shop
}

fn count(shop: &Workshop, what: &str) -> usize {
    let list = shop.mvault(&format!("recipients list {what} --json")).ok().json();
    list["recipients"].as_array().unwrap().len()
}

#[test]
fn a_version_in_a_folder_is_not_changed_or_another_is() {
    let shop = shop();
    let said = shop.mvault("recipients add vault/bert:1 -R alice.pub").ok().text();
    assert_eq!(said, "vault/bert:1: 1 recipient added, 2 now\n");
    shop.mvault("verify vault/bert:1 -i alice.txt").ok();
    shop.mvault("verify vault/bert:2 -i alice.txt").fails(3, "[F-18]");
    shop.mvault("recipients add vault/bert@prod -R bob.pub").ok();
    let folder = shop.path("vault");
    let address = format!("file://{}/bert", folder.display());
    for (what, wanted) in [
        ("vault/bert:1", 2),
        ("./vault//bert:2", 2),
        ("vault/bert@prod", 2),
        ("vault/bert", 2),
        ("vault/bert/", 2),
        (&format!("{address}:1"), 2),
        (&address, 2),
    ] {
        assert_eq!(count(&shop, what), wanted, "{what}");
    }
    shop.sh("cd vault && mvault recipients remove bert:1 -R ../alice.pub").ok();
    assert_eq!((count(&shop, "vault/bert:1"), count(&shop, "vault/bert:2")), (1, 2));
    shop.mvault("verify vault/bert:1 -i alice.txt").fails(3, "[F-18]");
    shop.mvault("pull vault bert:2 -i bob.txt -o back").ok();
    for verb in ["inspect", "verify"] {
        shop.mvault(&format!("{verb} vault/bert:2")).ok();
    }
    for (what, code, words) in [
        ("vault/bert:9", 5, "vault/bert/9"),
        ("vault/bert@none", 5, "none"),
        ("vault/other:1", 1, "no such file, and no model other in the vault vault"),
        ("vault/other", 1, "no such file or directory"),
        ("nowhere/bert:1", 1, "no such file or directory"),
        ("vault", 2, "a folder, not a sealed model"),
        ("bert", 2, "a folder, not a sealed model"),
        ("file:///", 2, "names no model"),
    ] {
        shop.mvault(&format!("recipients list {what}")).fails(code, words);
    }
}

#[test]
fn a_file_with_the_name_of_a_version_is_changed_unseen() {
    let shop = shop();
    shop.mvault("seal bert -o m:1").ok();
    let quiet = shop.mvault("recipients add m:1 -R alice.pub").ok();
    assert_eq!(quiet.stderr, "", "a plain file, whatever its name");
    shop.sh("cp m:1 vault/bert:1").ok();
    let header = shop.read("vault/bert/1");
    let done = shop.mvault("recipients remove vault/bert:1 -R alice.pub").ok();
    let address = format!("file://{}/bert:1", shop.path("vault").display());
    assert!(done.stderr.contains(&format!("a file of that name; the vault's is {address}")), "{}", done.stderr);
    assert_eq!(shop.read("vault/bert/1"), header);
    shop.mvault(&format!("recipients add {address} -R bob.pub")).ok();
    assert_eq!((count(&shop, "vault/bert:1"), count(&shop, &address)), (1, 2));
    // The object of a header is changed by the vault's rules only.
    let header = shop.read("vault/bert/1");
    shop.mvault("recipients add vault/bert/1 -R alice.pub").fails(2, "a version's header in a vault");
    assert!(shop.read("vault/bert/1") == header && !shop.exists("vault/bert/1.rekey"));
    assert_eq!(count(&shop, "vault/bert/1"), 2);
}

fn start(shop: &Workshop, args: &str) -> Child {
    let mut command = shop.command(env!("CARGO_BIN_EXE_mvault"));
    command.args(args.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn wait(child: Child) -> Done {
    child.wait_with_output().unwrap().into()
}

/// Waits until so many have read the header and have a new one ready.
fn until_ready(shop: &Workshop, changes: usize) {
    let began = Instant::now();
    let ready = || {
        let names = std::fs::read_dir(shop.path("vault/bert")).unwrap().map(|f| f.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".new-")).count()
    };
    while ready() < changes {
        assert!(began.elapsed() < Duration::from_mins(1), "{} of {changes} are ready", ready());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn of_two_changes_at_once_one_is_lost() {
    let shop = shop();
    let lock = File::options().create(true).append(true).open(shop.path("vault/.mvault-lock")).unwrap();
    lock.lock().unwrap();
    let changes = ["alice", "bob"].map(|who| (who, start(&shop, &format!("recipients add vault/bert:1 -R {who}.pub"))));
    until_ready(&shop, 2);
    lock.unlock().unwrap();
    let done = changes.map(|(who, change)| (who, wait(change)));
    let (lost, won): (Vec<_>, Vec<_>) = done.into_iter().partition(|(_, done)| done.code != 0);
    let [(who, lost)] = <[_; 1]>::try_from(lost).ok().unwrap();
    lost.fails(5, "someone else changed its recipients just now: run it again");
    assert_eq!(count(&shop, "vault/bert:1"), 2);
    shop.mvault(&format!("verify vault/bert:1 -i {}.txt", won[0].0)).ok();
    shop.mvault(&format!("recipients add vault/bert:1 -R {who}.pub")).ok();
    for who in ["alice", "bob"] {
        shop.mvault(&format!("verify vault/bert:1 -i {who}.txt")).ok();
    }
    shop.mvault("verify vault/bert:1").ok();
}

#[test]
fn a_change_brings_a_removed_version_back() {
    let shop = shop();
    let lock = File::options().create(true).append(true).open(shop.path("vault/.mvault-lock")).unwrap();
    lock.lock().unwrap();
    let change = start(&shop, "recipients add vault/bert:1 -R alice.pub");
    until_ready(&shop, 1);
    let removal = start(&shop, "rm vault bert:1 --yes");
    std::thread::sleep(Duration::from_millis(500));
    assert!(shop.exists("vault/bert/1"), "removed while another may be about to replace it");
    lock.unlock().unwrap();
    wait(removal).ok();
    let change = wait(change);
    assert!(change.code == 0 || change.stderr.contains("changed its recipients just now"), "{}", change.stderr);
    assert!(!shop.exists("vault/bert/1"), "a header without its payload");
}
