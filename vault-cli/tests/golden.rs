//! The README's tour and the golden files of each verb, run line by line: commands, what they print (stdout and
//! stderr; `…` stands for anything) and exit codes. `MVAULT_BLESS=1` writes the golden files anew, to be read
//! before they are committed.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // tests: a panic is the report

mod common;

use common::Workshop;
use common::console::{Step, steps};
use mvault_tests::evidence::{Evidence, NOW_S, TestRoot};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const CONSOLE: &str = "```console";

fn run(shop: &Workshop, step: &Step) -> (Vec<String>, i32) {
    let done = shop.sh(&format!("{{ {} ; }} 2>&1", step.command));
    (done.text().lines().map(|l| l.trim_end().to_owned()).collect(), done.code)
}

fn check(shop: &Workshop, file: &Path, text: &str) {
    for step in steps(text, CONSOLE) {
        let (output, code) = run(shop, &step);
        let same = step.is_met_by(&output);
        let Step { line, command, expected, code: wanted } = step;
        let file = file.display();
        assert!(same, "{file}:{line}: {command}\nexpected {expected:#?}\nfound {output:#?}");
        assert_eq!(code, wanted, "{file}:{line}: {command}");
    }
}

/// What differs from run to run, left out.
fn blur(line: &str) -> String {
    if let Some((name, _)) =
        line.split_once(": ").filter(|(name, _)| name.starts_with("dev") && line.ends_with(" bytes"))
    {
        return format!("{name}: … bytes"); // signatures in DER differ in length
    }
    let mut out = String::new();
    for word in line.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
        let body = word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        let random = body.len() >= 16 && body.bytes().all(|b| b.is_ascii_hexdigit());
        let time = line.contains("\"sealed_at\"") && body.len() == 10 && body.bytes().all(|b| b.is_ascii_digit());
        if body.starts_with("mvault-xw1-") && body.len() > 100 {
            out.push_str("mvault-xw1-…");
        } else if random || time {
            out.push('…');
        } else {
            out.push_str(body);
        }
        out.push_str(&word[body.len()..]);
    }
    out
}

fn bless(shop: &Workshop, file: &Path, text: &str) {
    let heading = text.lines().next().unwrap();
    let mut out = format!("{heading}\n\n```console\n");
    for step in steps(text, CONSOLE) {
        let (output, code) = run(shop, &step);
        writeln!(out, "$ {}", step.command).unwrap();
        for line in output {
            writeln!(out, "{}", blur(&line)).unwrap();
        }
        if code != 0 {
            writeln!(out, "# exit {code}").unwrap();
        }
    }
    std::fs::write(file, out + "```\n").unwrap();
}

#[test]
fn readme_tour_does_what_it_says() {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(steps(&text, CONSOLE).len() > 25);
    check(&Workshop::new(), &file, &text);
}

#[test]
fn every_verb_says_what_its_golden_file_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 9, "{files:?}");
    for file in files {
        check_or_bless(&Workshop::new(), &file);
    }
}

fn check_or_bless(shop: &Workshop, file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    if std::env::var_os("MVAULT_BLESS").is_some() {
        bless(shop, file, &text);
    } else {
        check(shop, file, &text);
    }
}

/// Genuine documents from ../shared/vectors, and some under a test root.
#[test]
fn attest_says_what_its_golden_file_says() {
    let Some(vectors) = mvault_tests::shared_vectors("nitro") else { return println!("skipped: vectors not present") };
    let shop = Workshop::new();
    for (name, vector) in [
        ("aws.bin", "2025-12-25_Dstack-TEE_dstack_5e983e0b.bin"),
        ("aws-full.bin", "2024-09-07_blocky_nitrite_72ffd835.bin"),
        ("aws-debug.bin", "2025-08-18_distributed-lab_aws-nitro-enclav_2668d61d_debug.bin"),
        ("self-signed.bin", "blocky_nitrite_e388022c.bin"),
        ("changed.bin", "veracruz-project_go-nitro-enclav_7df2cdc0.bin"),
    ] {
        shop.write(name, &std::fs::read(vectors.join(vector)).unwrap());
    }
    let root = TestRoot::new();
    let chain = root.chain(NOW_S);
    let evidence = Evidence::at(NOW_S).with_nonce(&[7; 32]).with_user_data(&[8; 32]);
    shop.write("root.pem", root.pem().as_bytes());
    shop.write("dev.bin", &evidence.sign(&chain));
    shop.write("dev-debug.bin", &evidence.clone().debug().sign(&chain));
    shop.write("dev-other.bin", &evidence.clone().with_pcr(2, &[0xEE; 48]).sign(&chain));
    let hex = |index| vault_core::header::hex(&Evidence::pcr(index));
    let policy = format!(
        "version = 1\nname = \"prod\"\nplatform = \"aws-nitro\"\nmax_age_s = 300\nminimum_model_version = 3\n\n\
         [[release]]\nname = \"1.4.0\"\npcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n",
        hex(0),
        hex(1),
        hex(2)
    );
    shop.write("prod.toml", policy.as_bytes());
    check_or_bless(&shop, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden-evidence/attest.md")));
}
