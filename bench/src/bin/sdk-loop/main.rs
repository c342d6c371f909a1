//! A plain aws-sdk-s3 loop: the raw client that `mvault push` and `mvault pull` are measured against.
//!
//! `put` reads parts of the file and uploads several at once; `get` asks for ranges, several at once, and writes each
//! at its offset. Nothing is encrypted, resumed or checked here: it is what a careful programmer writes in an hour. The
//! defaults (8 of 16 MiB, payloads unsigned, no checksum) are the fastest of what was tried, except that smaller parts
//! cost less CPU: the bench measures 4 of 8 MiB too. Signing payloads doubles the client's CPU time.
//! `make` and `clear` are how the bench gets a bucket and empties it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own with nothing else to say it with")]

mod bucket;
mod options;
mod transfer;

use options::{Options, USAGE, Verb};

fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("sdk-loop: error: {problem}\n{USAGE}");
            std::process::exit(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match options.verb {
                Verb::Put => transfer::put(options).await,
                Verb::Get => transfer::get(options).await,
                Verb::Make => bucket::make(&options).await,
                Verb::Clear => bucket::clear(&options).await,
            }
        })
    });
    if let Err(problem) = done {
        eprintln!("sdk-loop: error: {problem}");
        std::process::exit(1);
    }
}
