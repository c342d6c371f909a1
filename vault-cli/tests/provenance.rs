//! What a model was made of: recorded when it is sealed, held against what is there later, exported for other tools.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

mod common;

use common::Workshop;

const COMMIT: &str = "0123456789012345678901234567890123456789";

fn workshop() -> Workshop {
    let shop = Workshop::new();
    shop.mvault("keygen").ok();
    shop.sh("mkdir -p model data/train/a && echo '{}' > model/config.json && echo 1 > data/train/a/1.csv && echo 2 > data/train/2.csv")
        .ok();
    shop
}

fn sealed() -> Workshop {
    let shop = workshop();
    let from = format!("--source git+https://example.com/r@{COMMIT} --builder https://ci.example/job/7");
    shop.mvault(&format!("seal model --sha256 --dataset data/train {from} -o m.mvault")).ok();
    shop
}

#[test]
fn changed_missing_and_new_files_of_a_dataset_are_named() {
    let shop = sealed();
    shop.mvault("provenance check m.mvault --dataset data/train").ok();
    shop.sh("cp -r data/train copy").ok();
    shop.mvault("provenance check m.mvault --dataset train=copy").ok();
    shop.sh("echo poison >> data/train/a/1.csv && mv data/train/2.csv data/train/3.csv").ok();
    let done = shop.mvault("provenance check m.mvault --dataset data/train --json");
    let changes: Vec<_> = done.json()["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {}", c["path"].as_str().unwrap(), c["what"].as_str().unwrap()))
        .collect();
    assert_eq!(changes, ["2.csv missing", "3.csv new", "a/1.csv changed"]);
    done.fails(3, "3 files are not what the model was made of");
    shop.mvault("provenance check m.mvault --dataset other=data/train").fails(1, "no dataset \"other\" was recorded");
    shop.mvault("provenance check m.mvault --dataset train=nowhere").fails(1, "nowhere: no such file");
}

#[test]
fn source_builder_and_digests_are_exported() {
    let shop = sealed();
    let shown = shop.mvault("provenance show m.mvault --json").ok().json();
    assert_eq!(
        (shown["builder"].as_str(), shown["datasets"][0]["name"].as_str()),
        (Some("https://ci.example/job/7"), Some("train"))
    );
    let slsa = shop.mvault("provenance export m.mvault --format slsa").ok().json();
    let digest = shop.sh("sha256sum model/config.json").ok().text();
    assert_eq!(slsa["subject"][0]["digest"]["sha256"].as_str(), digest.split(' ').next());
    let dependencies = slsa["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    assert_eq!((dependencies.len(), dependencies[0]["digest"]["gitCommit"].as_str()), (3, Some(COMMIT)));
    shop.mvault("provenance export m.mvault --format cyclonedx -o bom.json").ok();
    let bom: serde_json::Value = serde_json::from_slice(&shop.read("bom.json")).unwrap();
    assert_eq!(bom["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"][0]["ref"], "dataset:train");
    let uuid = bom["serialNumber"].as_str().unwrap();
    assert!(uuid.len() == 45 && uuid.as_bytes()[23] == b'8', "{uuid}");
    shop.mvault("provenance export m.mvault --format slsa -o bom.json").fails(1, "bom.json");
}

#[test]
fn what_was_pushed_says_what_it_was_made_of() {
    let shop = workshop();
    shop.mvault("push model vault minilm --dataset data=data/train").ok();
    shop.mvault("pull vault minilm --sealed").ok();
    shop.mvault("provenance check minilm.mvault --dataset data=data/train").ok();
}

#[test]
fn a_dataset_of_one_file_is_that_file() {
    let shop = workshop();
    shop.mvault("seal model --dataset one=data/train/2.csv -o m.mvault").ok();
    shop.mvault("provenance check m.mvault --dataset one=data/train/2.csv").ok();
    shop.mvault("provenance check m.mvault --dataset one=data/train/a/1.csv").fails(3, "2 files are not");
}

#[test]
fn datasets_that_cannot_be_recorded_are_refused_before_anything_is_written() {
    let shop = workshop();
    shop.sh("ln -s /etc/passwd data/train/link && mkdir empty").ok();
    for (line, code, words) in [
        ("--dataset data/train", 1, "a symbolic link"),
        ("--dataset empty", 1, "no files in it"),
        ("--dataset model --dataset model", 2, "two of one name"),
        ("--dataset a/b=model", 2, "its name is not"),
        ("--source=", 2, "1 to 1024 bytes"),
    ] {
        shop.mvault(&format!("seal model {line} -o x.mvault")).fails(code, words);
        assert!(!shop.path("x.mvault").exists(), "{line}");
    }
    shop.mvault("seal model -o plain.mvault").ok();
    assert!(shop.mvault("provenance show plain.mvault").ok().text().contains("none recorded"));
}
