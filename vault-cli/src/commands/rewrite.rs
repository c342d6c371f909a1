//! Replacing an artifact's header so that a crash at any moment leaves it openable. The new header is first
//! written whole beside the artifact (FILE.rekey), then in place, then the copy is removed: a redo log. A copy
//! that is found is what was meant; like any header it is authenticated before anything in it counts.

use super::artifact::Artifact;
use crate::error::{CliError, io};
use crate::files::{Access, NewFile, folder_of, write_new};
use crate::vaults::is_model;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vault_core::header::{Header, MAX_HEADER_LEN};
use vault_store::Cause;
use vault_store::layout::version;

/// Where the artifact's salt is: the same before and after a change of recipients.
const SALT: std::ops::Range<usize> = 24..56;

/// The header of a change that was interrupted, if it is one of this artifact.
pub fn pending(path: &Path, file: &File) -> Option<Header> {
    let bytes = fs::File::open(redo_log(path)).ok()?;
    let mut log = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(bytes, u64::from(MAX_HEADER_LEN) + 1), &mut log).ok()?;
    let header = Header::parse(&log).ok().filter(|h| h.bytes().len() == log.len())?;
    let mut front = [0; 56];
    file.read_exact_at(&mut front, 0).ok()?;
    let same_length = front.get(12..16) == header.bytes().get(12..16);
    (same_length && front.get(SALT) == header.bytes().get(SALT)).then_some(header)
}

/// Gives the artifact another header for the same payload.
pub fn replace(artifact: &Artifact, new: &Header) -> Result<(), CliError> {
    if let Some((vault, name, published)) = artifact.in_vault() {
        return vault.replace_header(name, published, new).map_err(|e| match e.cause {
            Cause::Precondition => CliError::from(e).hint("someone else changed its recipients just now: run it again"),
            _ => e.into(),
        });
    }
    let path = artifact.path();
    if artifact.file().is_none() {
        return Err(CliError::usage("recipients can only be changed in a file or a vault"));
    }
    if is_in_vault(path) {
        return Err(CliError::usage(format!("{}: a version's header in a vault", path.display()))
            .hint("name the version, VAULT/NAME:VERSION: of two who change it at once, one is told"));
    }
    if new.bytes().len() as u64 != artifact.payload_offset() {
        return copy(artifact, new);
    }
    let log = redo_log(path);
    let file = fs::OpenOptions::new().write(true).open(path).map_err(io(path.display()))?;
    let _ = fs::remove_file(&log); // of an earlier change, which `artifact` was read through
    write_new(&log, new.bytes(), Access::Public, false)?;
    file.write_all_at(new.bytes(), 0).map_err(io(path.display()))?;
    file.sync_all().map_err(io(path.display()))?;
    fs::remove_file(&log).map_err(io(log.display()))
}

/// A header object of a vault in a folder, as a plain file: it is changed through the vault only.
fn is_in_vault(path: &Path) -> bool {
    let named = path.file_name().and_then(|name| version(name.to_str()?));
    named.is_some() && is_model(folder_of(path))
}

/// The new header needs more room: a new file, with the payload copied as it is.
fn copy(artifact: &Artifact, new: &Header) -> Result<(), CliError> {
    let path = artifact.path();
    let failed = || io(path.display().to_string());
    let Some((mut from, _)) = artifact.file() else { return Ok(()) };
    let target = NewFile::create(path, Access::Public, true)?;
    let mode = from.metadata().map_err(failed())?.permissions();
    target.file().set_permissions(mode).map_err(failed())?;
    target.file().write_all_at(new.bytes(), 0).map_err(failed())?;
    let mut to = target.file();
    from.seek(SeekFrom::Start(artifact.payload_offset())).map_err(failed())?;
    to.seek(SeekFrom::Start(new.bytes().len() as u64)).map_err(failed())?;
    std::io::copy(&mut from, &mut to).map_err(failed())?;
    target.finish()?;
    let _ = fs::remove_file(redo_log(path));
    Ok(())
}

fn redo_log(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".rekey");
    folder_of(path).join(name)
}
