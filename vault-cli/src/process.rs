//! The process itself: no core dumps, no attaching debuggers of the same user, temporary files removed on
//! Ctrl-C and termination.

use crate::error::CliError;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What an interrupt does in place of ending the process.
type Hook = Box<dyn Fn() + Send>;

static HOOK: Mutex<Option<Hook>> = Mutex::new(None);
static CLEANUP: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Does what protects keys in this process.
pub fn harden() -> Result<(), CliError> {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)
        .map_err(|e| CliError::failed(format!("core dumps cannot be switched off: {e}")))?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| CliError::failed(format!("the process cannot be protected from debuggers: {e}")))?;
    raise_open_files();
    ctrlc::set_handler(|| {
        if let Some(hook) = HOOK.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return hook();
        }
        let paths = CLEANUP.lock().unwrap_or_else(PoisonError::into_inner);
        for path in paths.iter() {
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
        std::process::exit(130);
    })
    .map_err(|e| CliError::failed(format!("the interrupt handler cannot be set: {e}")))
}

/// A folder's files are open together while it is sealed or opened: as many as the system allows.
fn raise_open_files() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // If it stays low, a folder of more files fails with the system's words for it.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}

/// Ctrl-C and termination call this from now on, for a service that finishes what is under way.
pub fn on_interrupt(hook: Hook) {
    *HOOK.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
}

/// Removes `path` if the process is interrupted.
pub fn remove_on_interrupt(path: PathBuf) {
    CLEANUP.lock().unwrap_or_else(PoisonError::into_inner).push(path);
}

/// `path` has its final name, or is gone.
pub fn keep_on_interrupt(path: &std::path::Path) {
    CLEANUP.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| p != path);
}

/// One worker a core.
pub fn threads(asked: Option<usize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    asked.unwrap_or(cores).clamp(1, 256)
}

/// Says so if the system refused to keep keys out of swap.
pub fn note_unlocked_memory(out: &crate::output::Output) {
    if !vault_core::secret::memory_locked() {
        out.note("keys could not be locked in memory and may reach swap; raise `ulimit -l`");
    }
}
