//! `mvault`: the command line. One verb a file; this one maps errors to exit codes.

mod aws;
mod commands;
mod config;
mod credentials;
mod error;
mod files;
mod keys;
mod kms;
mod output;
mod process;
mod provenance;
mod signatures;
mod sources;
mod vaults;

use clap::{CommandFactory, Parser};
use error::CliError;
use std::process::ExitCode;

/// Seal, open and range-read encrypted machine-learning models.
#[derive(Parser)]
#[command(name = "mvault", version, about, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(propagate_version = true, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    output: output::OutputArgs,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
Seal a model once; only the recipients you choose can open it, and nothing that was changed, \
cut or moved is ever released.";

const EXAMPLES: &str = "\
Examples:
  mvault keygen                       make your key, once
  mvault seal model.pkl               scan and seal: model.pkl.mvault
  mvault open model.pkl.mvault        verify and open it again
  mvault inspect model.pkl.mvault     what is in it, for whom
  mvault cat m.mvault model.safetensors --tensor wte > wte.bin
  mvault push model.pkl s3://bucket/team bert   seal and publish
  mvault pull s3://bucket/team bert             fetch, verify and open

Exit codes: 0 ok, 1 failed, 2 usage, 3 not authentic, 4 attestation denied, 5 store.";

#[derive(clap::Subcommand)]
enum Command {
    Seal(commands::seal::Args),
    Open(commands::open::Args),
    Cat(commands::cat::Args),
    Inspect(commands::inspect::Args),
    Verify(commands::verify::Args),
    Sign(commands::sign::Args),
    Scan(commands::scan::Args),
    Diff(commands::diff::Args),
    Push(commands::push::Args),
    Publish(commands::publish::Args),
    Pull(commands::pull::Args),
    Ls(commands::ls::Args),
    Tag(commands::tag::Args),
    Rm(commands::rm::Args),
    Gc(commands::gc::Args),
    #[command(subcommand)]
    Recipients(commands::recipients::Command),
    #[command(subcommand)]
    Attest(commands::attest::Command),
    #[command(subcommand)]
    Provenance(commands::provenance::Command),
    Keygen(commands::keygen::Args),
    #[command(subcommand)]
    Policy(commands::policy::Command),
    #[command(subcommand)]
    Broker(commands::broker::Command),
    #[command(subcommand)]
    Enclave(commands::enclave::Command),
    Iam(commands::iam::Args),
    Bench(commands::bench::Args),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::completions::ManArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = output::Output::new(&cli.output);
    let result = process::harden().and_then(|()| run_guarded(cli.command, &mut out));
    process::note_unlocked_memory(&out);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out.failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_guarded(command: Command, out: &mut output::Output) -> Result<(), CliError> {
    // These two have their own ways to stop.
    let own_ways = matches!(
        command,
        Command::Broker(commands::broker::Command::Serve(_)) | Command::Enclave(commands::enclave::Command::Run(_))
    );
    if !own_ways {
        process::clean_up_on_interrupt()?;
    }
    run(command, out)
}

fn run(command: Command, out: &mut output::Output) -> Result<(), CliError> {
    match command {
        Command::Seal(args) => commands::seal::run(&args, out),
        Command::Open(args) => commands::open::run(&args, out),
        Command::Cat(args) => commands::cat::run(&args, out),
        Command::Inspect(args) => commands::inspect::run(&args, out),
        Command::Verify(args) => commands::verify::run(&args, out),
        Command::Sign(args) => commands::sign::run(&args, out),
        Command::Scan(args) => commands::scan::run(&args, out),
        Command::Diff(args) => commands::diff::run(&args, out),
        Command::Push(args) => commands::push::run(&args, out),
        Command::Publish(args) => commands::publish::run(&args, out),
        Command::Pull(args) => commands::pull::run(&args, out),
        Command::Ls(args) => commands::ls::run(&args, out),
        Command::Tag(args) => commands::tag::run(&args, out),
        Command::Rm(args) => commands::rm::run(&args, out),
        Command::Gc(args) => commands::gc::run(&args, out),
        Command::Recipients(command) => commands::recipients::run(&command, out),
        Command::Attest(command) => commands::attest::run(&command, out),
        Command::Provenance(command) => commands::provenance::run(&command, out),
        Command::Keygen(args) => commands::keygen::run(&args, out),
        Command::Policy(command) => commands::policy::run(&command, out),
        Command::Broker(command) => commands::broker::run(&command, out),
        Command::Enclave(command) => commands::enclave::run(&command, out),
        Command::Iam(args) => commands::iam::run(&args, out),
        Command::Bench(args) => commands::bench::run(&args, out),
        Command::Completions(args) => commands::completions::completions(&args, Cli::command(), out),
        Command::Man(args) => commands::completions::man(&args, Cli::command(), out),
    }
}
