//! The enclave, emulated: a real image boots in QEMU's nitro-enclave machine, attests by its NSM, gets its key from a real
//! `mvault broker serve`, streams a real model through a parent that lies, and answers. Each test is named after the defect it
//! would find.
//!
//! Needs the emulator, the guest and mvault-eif (`MVAULT_TEST_EMULATOR`, `_GUEST`, `_EIF`, `_MODELS`: scripts/test.sh sets them); skipped
//! without, unless CI=true.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report
#![allow(clippy::print_stdout)] // what was seen

mod common;
#[path = "enclave/kms.rs"]
mod kms;
#[path = "enclave/onnx.rs"]
mod onnx;
#[path = "enclave/parent.rs"]
mod parent;
#[path = "enclave/refusals.rs"]
mod refusals;
#[path = "enclave/stage.rs"]
mod stage;
#[path = "enclave/story.rs"]
mod story;
