//! `mvault-eif`, the program that writes image files with AWS's own crate. It is run, and not believed: what it wrote is
//! read back by `vault_attest::eif`.

use crate::commands::policy::measurements::parse_build;
use crate::error::{CliError, io};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vault_attest::Pcr;

/// Runs it; gives the measurements that it printed.
pub fn run(tool: &Path, arguments: &[(&str, OsString)]) -> Result<BTreeMap<u8, Pcr>, CliError> {
    let mut command = Command::new(tool);
    for (option, value) in arguments {
        // One word: a value that starts with a dash is no option.
        let mut word = OsString::from(format!("{option}="));
        word.push(value);
        command.arg(word);
    }
    let done = command.stdin(Stdio::null()).output().map_err(io(tool.display()))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let said = said.lines().last().unwrap_or("it said nothing").trim_start_matches("mvault-eif: error: ");
        return Err(CliError::failed(format!("the image was not written: {}", crate::output::printable(said))));
    }
    parse_build(&tool.display().to_string(), &done.stdout)
}

/// A program of the project: the one that was named, else beside mvault, else in PATH, else in what `more` gives.
pub fn find(named: Option<&Path>, name: &str, more: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    beside.into_iter().chain(in_path).chain(more).find(|file| file.is_file())
}

/// The newest that `scripts/setup.sh eif` built.
pub fn built() -> Option<PathBuf> {
    let cache = std::env::home_dir()?.join(".cache/mvault");
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let built =
        entries.filter(|e| e.file_name().to_string_lossy().starts_with("eif-")).map(|e| e.path().join("mvault-eif"));
    built.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file))).max().map(|(_, file)| file)
}
