//! Publishing from a CI job: what must stop it, what must not be published twice. The vault is a folder; in S3 it is
//! `vault/ci.rs`, through the scripts of deploy/ci.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

mod common;

use common::Workshop;

const PUBLISH: &str = "publish bert vault bert --sign sign.pem";

fn workshop() -> Workshop {
    let shop = Workshop::new();
    shop.mvault("keygen").ok();
    shop.mvault("keygen --signing -o sign.pem").ok();
    shop
}

/// A GitHub token that is none, made here so that no scanner finds one in this file.
fn token() -> String {
    format!("{}_{}", "ghp", "0aB1cD2eF3".repeat(4))
}

#[test]
fn credential_published() {
    let shop = workshop();
    let notebook = format!(r#"{{"cells": [{{"outputs": [{{"text": ["ok\n", "token {}\n"]}}]}}]}}"#, token());
    shop.write("bert/train.ipynb", notebook.as_bytes());
    shop.write("bert/.env", b"A=1\n");
    let done = shop.mvault(&format!("{PUBLISH} --json --annotate github"));
    assert!(!shop.exists("vault"), "something was sent");
    assert!(!(done.text() + &done.stderr).contains(&token()), "the credential is shown");
    let found = done.json()["credentials"].clone();
    assert_eq!((found[0]["path"].as_str(), found[0]["line"].as_u64()), (Some(".env"), None));
    assert_eq!((found[1]["path"].as_str(), found[1]["line"].as_u64()), (Some("train.ipynb"), Some(1)));
    assert!(done.stderr.contains("::error file=bert/train.ipynb,line=1,title=credential in a model::a GitHub token"));
    done.fails(1, "bert/.env: a file of environment variables; and 1 more");
    let done = shop.mvault(&format!("{PUBLISH} --dangerous-allow-credentials")).ok();
    assert!(done.stderr.contains("warning: bert/train.ipynb:1: a GitHub token: published all the same"));
}

#[test]
fn dangerous_pickle_published() {
    let shop = workshop();
    shop.sh("cp evil.pkl bert/").ok();
    let done = shop.mvault(&format!("{PUBLISH} --annotate github --json"));
    assert_eq!(done.json()["ok"], false);
    assert!(done.stderr.contains("::error file=bert/evil.pkl,title=mvault publish::evil.pkl: "), "{}", done.stderr);
    done.fails(1, "dangerous");
    assert!(!shop.exists("vault"), "something was left");
}

#[test]
fn job_run_again_publishes_twice() {
    let shop = workshop();
    let job = |tag: &str| format!("{PUBLISH} --job group/project-c0ffee --tag {tag} --json");
    let first = shop.mvault(&job("staging")).ok().json();
    let again = shop.mvault(&job("prod")).ok().json();
    assert_eq!((first["model_version"].as_u64(), again["model_version"].as_u64()), (Some(1), Some(1)));
    assert_eq!((&again["already_published"], &again["id"]), (&true.into(), &first["id"]));
    shop.mvault("pull vault bert@prod -o back").ok();
    // Another job, another key, no job: each publishes.
    shop.mvault(&format!("{PUBLISH} --job group/project-beef")).ok();
    shop.mvault("keygen --signing -o other.pem").ok();
    shop.mvault("publish bert vault bert --sign other.pem --job group/project-c0ffee").ok();
    assert_eq!(shop.mvault(&format!("{PUBLISH} --json")).ok().json()["model_version"], 4);
    // One whose version is gone publishes again.
    for tag in ["prod", "staging"] {
        shop.mvault(&format!("tag vault bert:2 {tag}")).ok();
    }
    shop.mvault("rm vault bert:1 --yes").ok();
    assert_eq!(shop.mvault(&job("prod")).ok().json()["model_version"], 5);
}

/// `[F-49]`
#[test]
fn job_object_believed() {
    let shop = workshop();
    let job = format!("{PUBLISH} --job one --json");
    shop.mvault(&format!("{PUBLISH} --job other")).ok();
    let id = shop.mvault(&job).ok().json()["id"].as_str().unwrap().to_owned();
    // Who writes to the vault says that the job published another version, with the proof of one, of the other, of none.
    let object = shop.sh("grep -l ' 2 ' vault/bert/jobs/*").ok().text();
    let other = shop.sh("grep -l ' 1 ' vault/bert/jobs/*").ok().text();
    let (object, other) = (object.trim(), other.trim());
    shop.sh(&format!("cp {other} {object}")).ok();
    let third = shop.mvault(&job).ok().json();
    assert_eq!((&third["model_version"], &third["already_published"]), (&3.into(), &serde_json::Value::Null));
    assert_ne!(third["id"].as_str(), Some(id.as_str()));
    for text in ["", "mvault-job-v1 1\n", "mvault-job-v1 99 00 00\n", "mvault-tag-v1 1\n"] {
        shop.write(object, text.as_bytes());
        assert_eq!(shop.mvault(&job).ok().json()["already_published"], serde_json::Value::Null, "{text:?}");
    }
}

#[test]
fn wrong_use_is_told() {
    let shop = workshop();
    shop.mvault("publish bert vault bert").fails(2, "what a job publishes is signed");
    shop.mvault("publish - vault bert --sign sign.pem").fails(2, "standard input cannot be searched");
    shop.mvault(&format!("{PUBLISH} --job=")).fails(2, "--job is empty");
    shop.mvault("seal bert --sign sign.pem -o b.mvault").ok();
    shop.mvault("publish b.mvault vault bert --sign sign.pem").fails(2, "it is sealed already");
    assert!(!shop.exists("vault"));
}
