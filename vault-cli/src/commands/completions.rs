//! `mvault completions` and `mvault man`: made from the same definitions as the help.

use crate::error::{CliError, io};
use crate::files::{Access, write_new};
use crate::output::Output;
use std::path::{Path, PathBuf};

/// Print shell completions
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault completions bash > ~/.local/share/bash-completion/completions/mvault
  mvault completions zsh > ~/.zfunc/_mvault
  mvault completions fish > ~/.config/fish/completions/mvault.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Print the man page, or write all man pages to a folder
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mvault man | man -l -\n  mvault man -o ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Write mvault.1, mvault-seal.1, … to this folder
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub fn completions(args: &CompletionsArgs, mut command: clap::Command, out: &mut Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "mvault", &mut script);
    out.bytes(&script)
}

pub fn man(args: &ManArgs, mut command: clap::Command, out: &mut Output) -> Result<(), CliError> {
    command.build();
    let Some(folder) = &args.output else { return out.bytes(&page(&command)?) };
    std::fs::create_dir_all(folder).map_err(io(folder.display()))?;
    let written = pages(&command, folder)?;
    let json = serde_json::json!({ "ok": true, "pages": written });
    out.result(&json, &format!("{written} man pages in {}\n", folder.display()))
}

fn pages(command: &clap::Command, folder: &Path) -> Result<usize, CliError> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    write_new(&folder.join(format!("{name}.1")), &page(command)?, Access::Public, true)?;
    let visible = command.get_subcommands().filter(|c| !c.is_hide_set());
    visible.map(|c| pages(c, folder)).sum::<Result<usize, _>>().map(|n| n + 1)
}

fn page(command: &clap::Command) -> Result<Vec<u8>, CliError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(io("man page"))?;
    Ok(page)
}
