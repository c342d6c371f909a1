//! `mvault enclave`: images that hold no model and no secret, what they measure, and what runs in them.

mod build;
mod call;
mod config;
mod contents;
pub mod measure;
mod ramdisk;
mod run;
mod tool;

use crate::error::CliError;
use crate::output::Output;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use vault_attest::eif::Image;
use vault_core::header::hex;

/// Build, measure and run enclave images, and call what runs in them
#[derive(clap::Subcommand)]
pub enum Command {
    Config(config::Args),
    Build(build::Args),
    Measure(measure::Args),
    Run(Box<run::Args>),
    Call(call::Args),
}

pub fn run(command: &Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::Config(args) => config::run(args, out),
        Command::Build(args) => build::run(args, out),
        Command::Measure(args) => measure::run(args, out),
        Command::Run(args) => run::run(args, out),
        Command::Call(args) => call::run(args, out),
    }
}

/// The image's measurements, a line each.
fn lines(image: &Image) -> String {
    image.pcrs().iter().fold(String::new(), |mut text, (index, pcr)| {
        let _ = writeln!(text, "  PCR{index}  {}", hex(pcr));
        text
    })
}

/// The same as `nitro-cli build-enclave` has them, so that `mvault policy new --from` reads them.
fn measurements(image: &Image) -> Value {
    let pcrs = image.pcrs().iter().map(|(index, pcr)| (format!("PCR{index}"), json!(hex(pcr))));
    Value::Object(
        std::iter::once(("HashAlgorithm".to_owned(), json!("Sha384 { ... }"))).chain(pcrs).collect::<Map<_, _>>(),
    )
}
