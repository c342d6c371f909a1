//! `mvault enclave`: build a measured image, boot it, and ask it.

mod call;
mod config;
mod run;

use crate::error::CliError;
use crate::output::Output;

/// Build, measure and run enclave images, and call what runs in them
#[derive(clap::Subcommand)]
pub enum Command {
    Config(config::Args),
    Run(run::Args),
    Call(call::Args),
}

pub fn run(command: &Command, out: &mut Output) -> Result<(), CliError> {
    match command {
        Command::Config(args) => config::run(args, out),
        Command::Run(args) => run::run(args, out),
        Command::Call(args) => call::run(args, out),
    }
}
