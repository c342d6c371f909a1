//! Writes tests/vectors anew: `cargo run --release -p mvault-tests --example make_vectors`. A changed vector is a
//! changed format; the test `vectors_are_what_the_generator_makes` compares.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a tool of the tests: a panic is the report

use mvault_tests::vector::{folder, made};
use std::fs;

fn main() {
    let folder = folder();
    fs::create_dir_all(&folder).unwrap();
    for old in fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
        if old.extension().is_some_and(|e| e == "vec") {
            fs::remove_file(old).unwrap();
        }
    }
    let (vectors, mut total) = (made(), 0);
    for vector in &vectors {
        let bytes = vector.encode();
        total += bytes.len();
        fs::write(folder.join(format!("{}.vec", vector.name())), bytes).unwrap();
    }
    println!("{} vectors, {} KiB", vectors.len(), total / 1024);
}
