//! Vaults through the command line: SeaweedFS behind a proxy that counts and does harm. Each test is named after the
//! defect it would find. Skipped where there is no server (`MVAULT_TEST_WEED`), unless CI=true.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

#[path = "vault/bench.rs"]
mod bench;
#[path = "vault/ci.rs"]
mod ci;
mod common;
#[path = "vault/drift.rs"]
mod drift;
#[path = "vault/errors.rs"]
mod errors;
#[path = "vault/faults.rs"]
mod faults;
#[path = "vault/folder.rs"]
mod folder;
#[path = "diff/models.rs"]
mod models;
#[path = "vault/parts.rs"]
mod parts;
#[path = "vault/racing.rs"]
mod racing;
#[path = "vault/resume.rs"]
mod resume;
#[path = "vault/roundtrip.rs"]
mod roundtrip;
#[path = "vault/storage.rs"]
mod storage;
#[path = "vault/versions.rs"]
mod versions;
