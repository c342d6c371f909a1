//! The key broker through the command line: a real `mvault broker serve` on loopback with a real database, asked by clients
//! that lie, dawdle and crowd, killed and started again. Each test is named after the defect it would find.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report
#![allow(clippy::print_stdout)] // what was seen, and what the enclave process says

#[path = "broker/cases.rs"]
mod cases;
#[path = "broker/certificate.rs"]
mod certificate;
mod common;
#[path = "broker/crash.rs"]
mod crash;
#[path = "broker/end_to_end.rs"]
mod end_to_end;
#[path = "broker/limits.rs"]
mod limits;
#[path = "broker/near_misses.rs"]
mod near_misses;
#[path = "broker/replicas.rs"]
mod replicas;
#[path = "broker/revoke.rs"]
mod revoke;
#[path = "broker/rig.rs"]
mod rig;
#[path = "broker/running.rs"]
mod running;
