//! An S3 server that costs next to nothing: what a client moves through it per second is the client's own limit.
//!
//! Bodies over 1 MiB are read and dropped, unless their key begins with `--keep PREFIX`; then they stay in memory and
//! can be read again. Small bodies always stay, and conditions on them hold: headers and tags of a vault work. No
//! signature and no checksum is verified: what was claimed is echoed. It listens on loopback, prints its URL, and ends
//! when its standard input does.
//!
//! Written by hand on threads because a server that verifies SigV4 and checksums (s3s was tried) spends more than the
//! clients do, and because the server half of hyper would rebuild every dependency with other features.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own with nothing else to say it with")]

mod answer;
mod body;
mod objects;
mod request;
mod serve;

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;

const USAGE: &str = "usage: null-s3 [--listen ADDRESS:PORT] [--keep KEY_PREFIX]";

fn main() {
    let (mut listen, mut keep) = ("127.0.0.1:0".to_owned(), None);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        match (name.as_str(), args.next()) {
            ("--listen", Some(value)) => listen = value,
            ("--keep", Some(value)) => keep = Some(value),
            _ => {
                eprintln!("null-s3: error: {name}\n{USAGE}");
                std::process::exit(2);
            }
        }
    }
    if let Err(problem) = run(&listen, keep) {
        eprintln!("null-s3: error: {listen}: {problem}");
        std::process::exit(1);
    }
}

fn run(listen: &str, keep: Option<String>) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("http://{}", listener.local_addr()?);
    let state = Arc::new(objects::State::new(keep));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            // A client that goes away is no event here.
            std::thread::spawn(move || serve::connection(&stream, &state).unwrap_or_default());
        }
    });
    // Whoever started this holds the other end; when it is gone, so is the need for a server.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
