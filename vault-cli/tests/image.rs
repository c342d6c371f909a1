//! `mvault enclave build` and `measure`: what changes which measurement, what is refused, and that nothing is left behind.
//! Those that write images need mvault-eif (`MVAULT_TEST_EIF`, which scripts/test.sh sets); skipped without, unless CI=true.
//! Kernels here are any bytes: nothing boots.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // tests: a panic is the report

mod common;

use common::{Done, Workshop, noise};
use mvault_tests::evidence::TestRoot;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Where mvault-eif is.
fn tool() -> Option<PathBuf> {
    let tool = std::env::var_os("MVAULT_TEST_EIF").map(PathBuf::from).filter(|tool| tool.is_file());
    if tool.is_none() {
        let ci = std::env::var_os("CI").is_some_and(|v| v == "true");
        assert!(!ci, "no mvault-eif: set MVAULT_TEST_EIF, as scripts/test.sh does");
        println!("skipped: no mvault-eif (MVAULT_TEST_EIF is not set)");
    }
    tool
}

/// A static program, as far as anyone looks.
fn program(content: &[u8]) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(64, 0);
    elf[18] = 62;
    elf.extend_from_slice(content);
    elf
}

/// As `mvault enclave config` wrote it once; nothing in it is secret.
const CONFIG: &str = include_str!("enclave.toml");

/// Kernel, init, configuration and an application.
fn shop() -> Workshop {
    let shop = Workshop::new();
    shop.write("bzImage", &noise(20_000));
    shop.write("init", &program(b"init"));
    shop.write("enclave.toml", CONFIG.as_bytes());
    shop.write("app/server", &program(b"server"));
    shop.write("app/static/page.html", b"<p>hello</p>\n");
    let mode = std::fs::Permissions::from_mode(0o750);
    std::fs::set_permissions(shop.path("app/server"), mode).unwrap();
    shop
}

/// `more` is split at commas, so that values may have blanks.
fn build(shop: &Workshop, tool: &str, more: &str) -> Done {
    let mut command = shop.command(env!("CARGO_BIN_EXE_mvault"));
    command.args(["enclave", "build", "--json", "--kernel", "bzImage", "--init", "init", "--eif-tool", tool]);
    command.args(more.split(',').filter(|word| !word.is_empty())).output().unwrap().into()
}

/// PCR0, 1, 2 and 8 of an image that was built.
fn pcrs(done: Done) -> [Option<String>; 4] {
    let json = done.ok().json();
    [0, 1, 2, 8].map(|i| json["Measurements"][format!("PCR{i}")].as_str().map(Into::into))
}

const ALL: &str = "--config,enclave.toml,--add,app,--cmd,/app/server --port 80,-o,m.eif";

#[test]
fn same_input_gives_same_bytes_in_another_folder_at_another_time() {
    let Some(tool) = tool() else { return };
    let tool = tool.to_str().unwrap();
    let (one, two) = (shop(), shop());
    std::fs::set_permissions(two.path("app/server"), std::fs::Permissions::from_mode(0o555)).unwrap();
    std::fs::set_permissions(two.path("app/static"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let old = std::fs::File::open(two.path("app/static/page.html")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(pcrs(build(&one, tool, ALL)), pcrs(build(&two, tool, ALL)));
    assert!(one.read("m.eif") == two.read("m.eif"));
    let mut names = shop().names();
    names.push("m.eif".into());
    names.sort();
    assert_eq!(one.names(), names);
    assert_eq!(std::fs::metadata(one.path("m.eif")).unwrap().permissions().mode() & 0o133, 0);
}

#[test]
fn each_change_shows_in_its_measurements_and_in_no_other() {
    let Some(tool) = tool() else { return };
    let tool = tool.to_str().unwrap();
    let good = pcrs(build(&shop(), tool, ALL));
    assert_eq!(good.iter().flatten().count(), 3);
    let differ = |change: &dyn Fn(&Workshop), more: &str| {
        let shop = shop();
        change(&shop);
        let found = pcrs(build(&shop, tool, more));
        [0, 1, 2].map(|i| found[i] != good[i])
    };
    let nothing = |_: &Workshop| ();
    let newer = CONFIG.replace("minimum_version = 1", "minimum_version = 2");
    assert_eq!(differ(&nothing, ALL), [false; 3]);
    assert_eq!(differ(&|s| s.write("init", &program(b"inix")), ALL), [true, true, false]);
    assert_eq!(differ(&|s| s.write("bzImage", &noise(20_001)), ALL), [true, true, false]);
    assert_eq!(differ(&nothing, &format!("{ALL},--cmdline,quiet")), [true, true, false]);
    assert_eq!(differ(&|s| s.write("enclave.toml", newer.as_bytes()), ALL), [true, false, true]);
    assert_eq!(differ(&|s| s.write("app/static/page.html", b"<p>hullo</p>\n"), ALL), [true, false, true]);
    assert_eq!(differ(&nothing, &ALL.replace("80", "81")), [true, false, true]);
    assert_eq!(differ(&nothing, &format!("{ALL},--build-time,1700000000")), [false; 3]);
}

#[test]
fn signed_image_has_pcr8_and_the_other_measurements_as_before() {
    let Some(tool) = tool() else { return };
    let tool = tool.to_str().unwrap();
    let (shop, root) = (shop(), TestRoot::new());
    shop.write("k.pem", root.key_pem().as_bytes());
    shop.write("c.pem", root.pem().as_bytes());
    let unsigned = pcrs(build(&shop, tool, ALL));
    let signed = pcrs(build(&shop, tool, &format!("{ALL},--sign-key,k.pem,--sign-cert,c.pem,--force")));
    assert_eq!(unsigned[..3], signed[..3]);
    assert!(signed[3].is_some());
    let json = shop.mvault("enclave measure m.eif --json").ok().json();
    assert_eq!(json["certificate"], vault_core::header::hex(root.der()));

    let other = TestRoot::new();
    shop.write("other.pem", other.key_pem().as_bytes());
    let more = format!("{ALL},--sign-key,other.pem,--sign-cert,c.pem,--force");
    build(&shop, tool, &more).fails(1, "the image was not written: c.pem: not the certificate of other.pem");
    // One byte of the signature, under a right checksum.
    let mut bytes = shop.read("m.eif");
    let last = bytes.len() - 1;
    bytes[last] = if bytes[last] == 1 { 2 } else { 1 };
    shop.write("m.eif", &mvault_tests::forge::eif::check_again(bytes));
    shop.mvault("enclave measure m.eif").fails(3, "the signature section");
}

#[test]
fn policy_of_an_image_demands_what_it_measures() {
    let Some(tool) = tool() else { return };
    let (shop, root) = (shop(), TestRoot::new());
    shop.write("k.pem", root.key_pem().as_bytes());
    shop.write("c.pem", root.pem().as_bytes());
    let pcrs = pcrs(build(&shop, tool.to_str().unwrap(), &format!("{ALL},--sign-key,k.pem,--sign-cert,c.pem")));
    shop.mvault("enclave measure m.eif --policy prod --release 1.4.0").ok();
    let policy = shop.mvault("policy check prod.toml --json").ok().json()["policies"][0].clone();
    let conditions = shop.mvault("enclave measure m.eif --kms --json").ok().json()["kms"].clone();
    for (i, pcr) in [0, 1, 2, 8].iter().zip(&pcrs) {
        assert_eq!(policy["releases"][0]["pcrs"][format!("pcr{i}")], pcr.clone().unwrap());
        let condition = &conditions["StringEqualsIgnoreCase"][format!("kms:RecipientAttestation:PCR{i}")];
        assert_eq!(*condition, pcr.clone().unwrap());
    }
    shop.mvault("policy new --from m.eif --name same").ok();
    assert_eq!(shop.mvault("policy diff prod.toml same.toml --json").json()["differences"][0]["key"], "name");
    shop.mvault("enclave measure m.eif --policy prod").fails(1, "prod.toml: already exists");
}

/// A tool that lies, or fails, leaves no image.
#[test]
fn tool_is_not_believed() {
    let Some(tool) = tool() else { return };
    let shop = shop();
    let before = shop.names();
    let script = |text: &str| {
        shop.write("tool", text.as_bytes());
        std::fs::set_permissions(shop.path("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let done = build(&shop, "./tool", ALL);
        std::fs::remove_file(shop.path("tool")).unwrap();
        assert_eq!(shop.names(), before, "{text}");
        done
    };
    let tool = tool.display();
    let other = format!("sed 's/\"PCR1\": \"[0-9a-f]*/\"PCR1\": \"{}/'", "e".repeat(96));
    script(&format!("#!/bin/sh\n{tool} \"$@\" | {other}\n")).fails(3, "PCR1: mvault-eif printed eee");
    let without = "grep -v PCR2 | sed '/PCR1/s/,$//'";
    script(&format!("#!/bin/sh\n{tool} \"$@\" | {without}\n")).fails(3, "PCR2: mvault-eif printed nothing");
    script("#!/bin/sh\necho 'mvault-eif: error: out of luck' >&2\nexit 1\n").fails(1, "not written: out of luck");
    script("#!/bin/sh\ntrue\n").fails(1, "no measurements of a build");
    build(&shop, "./no-such-tool", ALL).fails(1, "./no-such-tool: no such file");
    assert_eq!(shop.names(), before);
}

/// What is refused is refused before the tool runs.
#[test]
fn what_does_not_belong_in_an_image_is_refused() {
    let refused = |name: &str, bytes: &[u8], words: &str| {
        let shop = shop();
        shop.write(name, bytes);
        let before = shop.names();
        build(&shop, "/bin/true", ALL).fails(1, words);
        assert_eq!(shop.names(), before);
    };
    let key = TestRoot::new().key_pem();
    refused("app/bin/sh", b"", "app/bin/sh: a shell");
    refused("app/usr/sbin/dpkg", b"", "app/usr/sbin/dpkg: a package manager");
    refused("app/tls.txt", key.as_bytes(), "app/tls.txt: a private key");
    refused("enclave.toml", format!("key = '''\n{key}'''\n").as_bytes(), "enclave.toml: a private key");
    refused("app/m.mvault", b"", "app/m.mvault: a sealed model");
    refused("app/weights", &[&b"GGUF\x03\0\0\0"[..], &noise(2 << 20)].concat(), "app/weights: a model");
    refused("enclave.toml", &vec![b'#'; 300_000], "enclave.toml: 300000 bytes; at most 262144");
    refused("enclave.toml", CONFIG.replace("[watch]", "[wacth]").as_bytes(), "enclave.toml: TOML parse error");
    refused(
        "enclave.toml",
        CONFIG.replace("max_texts = 32", "max_texts = 0").as_bytes(),
        "serve.max_texts: 0; expected",
    );
    refused("init", b"#!/bin/sh\nexec sleep 1\n", "init: no x86-64 program");
    let mut dynamic = program(&[0; 64]);
    (dynamic[32], dynamic[54], dynamic[56], dynamic[64]) = (64, 56, 1, 3);
    refused("init", &dynamic, "init: not static");

    let shop = shop();
    std::os::unix::fs::symlink("server", shop.path("app/link")).unwrap();
    build(&shop, "/bin/true", ALL).fails(1, "app/link: a symbolic link");
}

#[test]
fn commands_that_could_not_run_are_refused() {
    let shop = shop();
    let with = |cmd: &str| build(&shop, "/bin/true", &ALL.replace("/app/server --port 80", cmd));
    with("/app/server $PORT").fails(2, "'$' means nothing here");
    with("/app/server 'a b'").fails(2, "'\\'' means nothing here");
    with("server").fails(2, "no program /app/… of --add: \"server\"");
    with("/app/nothing").fails(2, "no program /app/…");
    with("/app/static/page.html").fails(2, "no program /app/…");
    with("/app/../init").fails(2, "no program /app/…");
    with(" ").fails(2, "no program /app/…");
    let mut dynamic = program(&[0; 80]);
    (dynamic[32], dynamic[54], dynamic[56], dynamic[64], dynamic[72], dynamic[96]) = (64, 56, 1, 3, 130, 7);
    dynamic[130..137].copy_from_slice(b"/lib/ld");
    shop.write("app/server", &dynamic);
    with("/app/server").fails(1, "/app/server: it needs the loader /lib/ld, which is not in the image");
}
