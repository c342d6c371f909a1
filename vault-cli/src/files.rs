//! Output that is whole or absent. A file has no name until it is complete (or a temporary one, where the
//! system needs that); a folder is built beside its place and renamed. What is in them is synced first.

use crate::error::{CliError, io};
use crate::process::{keep_on_interrupt, remove_on_interrupt};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat_with};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use vault_core::open::EntrySink;

/// Who may read a new file.
#[derive(Clone, Copy)]
pub enum Access {
    /// Ciphertext and public keys: by the umask.
    Public,
    /// Plaintext and secret keys: the owner.
    Owner,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Public => 0o666,
            Self::Owner => 0o600,
        }
    }
}

/// A file that gets its name when it is complete.
pub struct NewFile {
    file: File,
    /// Its temporary name, where the file system has no unnamed files.
    temporary: Option<PathBuf>,
    path: PathBuf,
    force: bool,
}

impl NewFile {
    /// A file that will be at `path`. Fails at once if that exists, unless `force`.
    pub fn create(path: &Path, access: Access, force: bool) -> Result<Self, CliError> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let mode = Mode::from_raw_mode(access.mode());
        match openat(CWD, folder_of(path), OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
            Ok(fd) => Ok(Self { file: File::from(fd), temporary: None, path: path.to_owned(), force }),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
                Self::named(path, access, force)
            }
            Err(e) => Err(io(path.display())(e.into())),
        }
    }

    /// For file systems without unnamed files: under a temporary name.
    fn named(path: &Path, access: Access, force: bool) -> Result<Self, CliError> {
        let temporary = temporary_name(path);
        remove_on_interrupt(temporary.clone());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(access.mode());
        let file = options.open(&temporary).map_err(io(path.display()))?;
        Ok(Self { file, temporary: Some(temporary), path: path.to_owned(), force })
    }

    /// The file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The same under a name that was not known before.
    fn finish_as(mut self, path: &Path, force: bool) -> Result<(), CliError> {
        path.clone_into(&mut self.path);
        self.force = force;
        self.finish()
    }

    /// Syncs and gives the file its name.
    pub fn finish(mut self) -> Result<(), CliError> {
        let failed = || io(self.path.display().to_string());
        self.file.sync_all().map_err(failed())?;
        if self.temporary.is_none() {
            let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let link = |to: &Path| linkat(CWD, &unnamed, CWD, to, AtFlags::SYMLINK_FOLLOW);
            match link(&self.path) {
                Ok(()) => return sync_folder(&self.path),
                Err(rustix::io::Errno::EXIST) if self.force => {
                    let temporary = temporary_name(&self.path);
                    link(&temporary).map_err(|e| failed()(e.into()))?;
                    self.temporary = Some(temporary);
                }
                Err(e) => return Err(failed()(e.into())),
            }
        }
        let temporary = self.temporary.take().unwrap_or_default();
        let renamed = rename(&temporary, &self.path, self.force);
        if renamed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        keep_on_interrupt(&temporary);
        renamed.map_err(failed())?;
        sync_folder(&self.path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
            keep_on_interrupt(temporary);
        }
    }
}

/// Writes a whole small file.
pub fn write_new(path: &Path, bytes: &[u8], access: Access, force: bool) -> Result<(), CliError> {
    let new = NewFile::create(path, access, force)?;
    new.file.write_all_at(bytes, 0).map_err(io(path.display()))?;
    new.finish()
}

/// Gives a text file another text; who may read it stays.
pub fn replace_text(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = || io(path.display().to_string());
    let new = NewFile::create(path, Access::Owner, true)?;
    new.file.set_permissions(path.metadata().map_err(failed())?.permissions()).map_err(failed())?;
    new.file.write_all_at(text.as_bytes(), 0).map_err(failed())?;
    new.finish()
}

/// What an artifact is opened into: a file that has no name yet, so that a killed process leaves no plaintext, or
/// a folder beside its place.
pub struct NewEntries {
    file: PathBuf,
    folder: PathBuf,
    /// Nothing of the entry's name may be in this folder.
    free_in: Option<PathBuf>,
    inner: OnceLock<Inner>,
}

enum Inner {
    File(NewFile),
    Folder(NewFolder),
}

impl NewEntries {
    /// A single file will be in the folder that `file` is in; a folder will be `folder`.
    pub fn new(file: &Path, folder: &Path) -> Self {
        Self { file: file.to_owned(), folder: folder.to_owned(), free_in: None, inner: OnceLock::new() }
    }

    /// A single file's name must be free in `folder`: refused before the work, not after it.
    #[must_use]
    pub fn free_in(self, folder: &Path) -> Self {
        Self { free_in: Some(folder.to_owned()), ..self }
    }

    /// Syncs and places the one file of an artifact that is a file: it has no name yet.
    pub fn finish_file(self, target: &Path, force: bool) -> Result<(), CliError> {
        match self.inner.into_inner() {
            Some(Inner::File(file)) => file.finish_as(target, force),
            _ => Err(CliError::failed(format!("{}: not a single file", target.display()))), // refused before: [F-32]
        }
    }

    /// Syncs and places the folder; `first` is its file if there is only one.
    pub fn finish_folder(self, first: &str, target: &Path) -> Result<(), CliError> {
        match self.inner.into_inner() {
            Some(Inner::File(file)) => {
                DirBuilder::new().recursive(true).mode(0o700).create(target).map_err(io(target.display()))?;
                file.finish_as(&target.join(first), false)
            }
            Some(Inner::Folder(folder)) => folder.finish_folder(target),
            None => Ok(()),
        }
    }
}

impl EntrySink for NewEntries {
    fn begin(&self, entries: &[(String, Option<u64>)]) -> std::io::Result<()> {
        let plain = |e: CliError| std::io::Error::other(e.message().to_owned());
        let single = match entries {
            [(path, _)] if !path.contains('/') => Some(path),
            _ => None,
        };
        let inner = if let Some(path) = single {
            if self.free_in.as_ref().is_some_and(|folder| folder.join(path).symlink_metadata().is_ok()) {
                let message = format!("{path} already exists");
                return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, message));
            }
            Inner::File(NewFile::create(&self.file, Access::Owner, true).map_err(plain)?)
        } else {
            let folder = NewFolder::create(&self.folder).map_err(plain)?;
            folder.begin(entries)?;
            Inner::Folder(folder)
        };
        self.inner.set(inner).map_err(|_| std::io::Error::other("begun twice"))
    }

    fn write_at(&self, index: usize, offset: u64, data: &[u8]) -> std::io::Result<()> {
        match self.inner.get() {
            Some(Inner::File(file)) => file.file.write_all_at(data, offset),
            Some(Inner::Folder(folder)) => folder.write_at(index, offset, data),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// A folder of opened entries, built beside its place.
struct NewFolder {
    temporary: PathBuf,
    files: OnceLock<Vec<File>>,
}

impl NewFolder {
    /// A folder that will be renamed to `target`.
    fn create(target: &Path) -> Result<Self, CliError> {
        let temporary = temporary_name(target);
        remove_on_interrupt(temporary.clone());
        DirBuilder::new().mode(0o700).create(&temporary).map_err(io(target.display()))?;
        Ok(Self { temporary, files: OnceLock::new() })
    }

    /// Syncs everything and renames the folder.
    fn finish_folder(self, target: &Path) -> Result<(), CliError> {
        self.sync()?;
        fs::rename(&self.temporary, target).map_err(io(target.display()))?;
        sync_folder(target)
    }

    fn sync(&self) -> Result<(), CliError> {
        let files = self.files.get().map(Vec::as_slice).unwrap_or_default();
        files.iter().try_for_each(File::sync_all).map_err(io("write the output"))?;
        sync_folder(&self.temporary.join("."))
    }
}

impl EntrySink for NewFolder {
    fn begin(&self, entries: &[(String, Option<u64>)]) -> std::io::Result<()> {
        let mut files = Vec::with_capacity(entries.len());
        for (path, _) in entries {
            let path = self.temporary.join(path); // checked: relative, without `..` [F-32]
            if let Some(parent) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            files.push(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?);
        }
        self.files.set(files).map_err(|_| std::io::Error::other("begun twice"))
    }

    fn write_at(&self, index: usize, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let file = self.files.get().and_then(|f| f.get(index)).ok_or(std::io::ErrorKind::NotFound)?;
        file.write_all_at(data, offset)
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.temporary);
        keep_on_interrupt(&self.temporary);
    }
}

/// Syncs a finished file and gives it its name; without `force` never another's.
pub fn place(file: &Path, path: &Path, force: bool) -> Result<(), CliError> {
    File::open(file).and_then(|f| f.sync_all()).map_err(io(file.display()))?;
    rename(file, path, force).map_err(io(path.display()))?;
    sync_folder(path)
}

/// The error for a name that is taken.
pub fn exists(path: &Path) -> CliError {
    CliError::failed(format!("{}: already exists", path.display()))
        .hint("remove it, choose another name with -o, or use --force")
}

/// The folder a path is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Renames; without `force` never over something that exists, even if it appeared just now.
fn rename(from: &Path, to: &Path, force: bool) -> std::io::Result<()> {
    if force {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot do it in one step: the check and the rename are two.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.symlink_metadata().is_err() => {
            fs::rename(from, to)
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Err(std::io::ErrorKind::AlreadyExists.into()),
        done => Ok(done?),
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = name.chars().take(64).collect();
    let random = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
    folder_of(path).join(format!(".{name}.mvault-{random:016x}"))
}

fn sync_folder(path: &Path) -> Result<(), CliError> {
    let folder = folder_of(path);
    let synced = File::open(folder).and_then(|f| f.sync_all());
    synced.map_err(io(folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let items = fs::read_dir(folder).unwrap().map(|i| i.unwrap().path());
        items.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(p).unwrap())).collect()
    }

    /// File systems without O_TMPFILE, such as NFS, take this way; the one under the tests does not.
    #[test]
    fn named_temporary_file_is_whole_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.mvault");
        for (text, force, placed) in [("first", false, true), ("second", false, false), ("third", true, true)] {
            let before = contents(folder.path());
            let new = NewFile::named(&path, Access::Owner, force).unwrap();
            new.file.write_all_at(text.as_bytes(), 0).unwrap();
            assert_eq!(new.finish().is_ok(), placed, "{text}");
            let now = if placed { vec![("m.mvault".into(), text.into())] } else { before };
            assert_eq!(contents(folder.path()), now, "{text}");
        }
        drop(NewFile::named(&folder.path().join("dropped"), Access::Owner, false).unwrap());
        assert_eq!(contents(folder.path()).len(), 1);
    }

    #[test]
    fn name_that_appears_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.mvault");
        let new = NewFile::create(&path, Access::Public, false).unwrap();
        fs::write(&path, "someone else's").unwrap();
        assert!(new.finish().is_err());
        assert_eq!(contents(folder.path()), [("m.mvault".into(), b"someone else's".to_vec())]);
    }
}
