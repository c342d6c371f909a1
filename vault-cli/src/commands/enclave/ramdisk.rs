//! Ramdisks as the kernel unpacks them: cpio (newc) in gzip. Names in order, times zero, owner root, two modes: the
//! bytes depend on names and contents alone. Files and folders only.

use super::contents;
use crate::error::{CliError, io};
use cpio::newc::{self, ModeFileType};
use flate2::{Compression, GzBuilder};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Most that a ramdisk holds, in bytes: all of it is in the enclave's memory, twice while it boots.
const MAX_RAMDISK: u64 = 2 * 1024 * 1024 * 1024;
/// Longest name; the kernel leaves out what is over 4096.
const MAX_NAME: usize = 1024;

/// What will be in a ramdisk, by its path without a leading slash.
#[derive(Default)]
pub struct Ramdisk {
    nodes: BTreeMap<String, Node>,
}

enum Node {
    Folder,
    Bytes(Vec<u8>, Access),
    File(PathBuf, Access),
}

#[derive(Clone, Copy)]
enum Access {
    Data,
    Program,
}

impl Ramdisk {
    pub fn folder(&mut self, path: &str) {
        self.nodes.insert(path.into(), Node::Folder);
    }

    pub fn data(&mut self, path: &str, bytes: Vec<u8>) {
        self.nodes.insert(path.into(), Node::Bytes(bytes, Access::Data));
    }

    pub fn program(&mut self, path: &str, bytes: Vec<u8>) {
        self.nodes.insert(path.into(), Node::Bytes(bytes, Access::Program));
    }

    /// Everything in a folder, as `path`. What the files hold is looked at when they are written.
    pub fn tree(&mut self, path: &str, folder: &Path) -> Result<(), CliError> {
        let mut folders = vec![(path.to_owned(), folder.to_owned())];
        while let Some((path, folder)) = folders.pop() {
            for item in fs::read_dir(&folder).map_err(io(folder.display()))? {
                let shown = item.map_err(io(folder.display()))?.path();
                let path = format!("{path}/{}", name(&shown)?);
                if path.len() > MAX_NAME {
                    return Err(CliError::failed(format!("{}: over {MAX_NAME} bytes of path", shown.display())));
                }
                let metadata = shown.symlink_metadata().map_err(io(shown.display()))?;
                if metadata.is_dir() {
                    folders.push((path.clone(), shown));
                    self.folder(&path);
                } else if metadata.is_file() {
                    let access =
                        if metadata.permissions().mode() & 0o111 == 0 { Access::Data } else { Access::Program };
                    self.nodes.insert(path, Node::File(shown, access));
                } else {
                    let what = if metadata.is_symlink() { "a symbolic link" } else { "a special file" };
                    return Err(CliError::failed(format!("{}: {what}", shown.display()))
                        .hint("an image holds files and folders: put the file itself there, or leave it out"));
                }
            }
            self.folder(&path);
        }
        Ok(())
    }

    /// The program of this path, if it is one.
    pub fn program_at(&self, path: &str) -> Option<&Path> {
        match self.nodes.get(path) {
            Some(Node::File(file, Access::Program)) => Some(file),
            _ => None,
        }
    }

    /// Whether there is something of this path.
    pub fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// Writes it to a new file.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        let failed = || io(path.display());
        let file = File::create_new(path).map_err(failed())?;
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(BufWriter::new(file), Compression::best());
        let (mut out, mut total) = (gzip, 0_u64);
        for (number, (name, node)) in (1..).zip(&self.nodes) {
            let entry = newc::Builder::new(name).ino(number);
            let (read, bytes, mode) = match node {
                Node::Folder => (None, &[][..], (0o755, ModeFileType::Directory)),
                Node::Bytes(bytes, access) => (None, &bytes[..], (access.mode(), ModeFileType::Regular)),
                Node::File(file, access) => (Some(read_member(file)?), &[][..], (access.mode(), ModeFileType::Regular)),
            };
            let bytes = read.as_deref().unwrap_or(bytes);
            if let Node::File(file, _) = node {
                contents::check(&file.display().to_string(), name, bytes)?;
            }
            total += bytes.len() as u64;
            let len = u32::try_from(bytes.len()).ok().filter(|_| total <= MAX_RAMDISK);
            let len =
                len.ok_or_else(|| CliError::failed(format!("a ramdisk of over {MAX_RAMDISK} bytes, at /{name}")))?;
            let mut entry = entry.mode(mode.0).set_mode_file_type(mode.1).write(&mut out, len);
            entry.write_all(bytes).and_then(|()| entry.finish().map(drop)).map_err(failed())?;
        }
        newc::trailer(&mut out).map_err(failed())?;
        let mut file = out.finish().map_err(failed())?;
        file.flush().map_err(failed())
    }
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Data => 0o644,
            Self::Program => 0o755,
        }
    }
}

fn name(path: &Path) -> Result<&str, CliError> {
    let name = path.file_name().unwrap_or_default().to_str();
    name.filter(|name| !name.chars().any(char::is_control)).ok_or_else(|| {
        let shown = crate::output::printable(&path.display().to_string());
        CliError::failed(format!("{shown}: the name is not plain text")).hint("rename it")
    })
}

/// A regular file that was named on the command line.
pub fn read_named(path: &Path) -> Result<Vec<u8>, CliError> {
    read(path, OFlags::empty())
}

/// A regular file of a folder, not through a link that appeared meanwhile.
pub fn read_member(path: &Path) -> Result<Vec<u8>, CliError> {
    read(path, OFlags::NOFOLLOW)
}

fn read(path: &Path, more: OFlags) -> Result<Vec<u8>, CliError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | more;
    let file = openat(CWD, path, flags, Mode::empty()).map(File::from);
    let file = file.map_err(|e| io(path.display())(e.into()))?;
    if !file.metadata().map_err(io(path.display()))?.is_file() {
        return Err(CliError::failed(format!("{}: not a file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_RAMDISK + 1).read_to_end(&mut bytes).map_err(io(path.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Name, mode and content of each entry.
    fn entries(file: &Path) -> Vec<(String, u32, Vec<u8>)> {
        let mut bytes = flate2::read::GzDecoder::new(File::open(file).unwrap());
        let mut all = Vec::new();
        loop {
            let mut reader = newc::Reader::new(&mut bytes).unwrap();
            if reader.entry().is_trailer() {
                return all;
            }
            let entry = reader.entry();
            assert_eq!((entry.mtime(), entry.uid(), entry.gid(), entry.nlink()), (0, 0, 0, 1));
            let (name, mode, mut content) = (entry.name().to_owned(), entry.mode(), Vec::new());
            reader.read_to_end(&mut content).unwrap();
            reader.finish().unwrap();
            all.push((name, mode, content));
        }
    }

    #[test]
    fn entries_are_sorted_and_normalised() {
        let folder = tempfile::tempdir().unwrap();
        let app = folder.path().join("app");
        fs::create_dir_all(app.join("b/empty")).unwrap();
        fs::write(app.join("b/x"), "data").unwrap();
        fs::write(app.join("a"), "program").unwrap();
        fs::set_permissions(app.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(app.join("b/x"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut ramdisk = Ramdisk::default();
        ramdisk.tree("app", &app).unwrap();
        ramdisk.data("app-x", b"beside".to_vec());
        let path = folder.path().join("r.gz");
        ramdisk.write(&path).unwrap();
        let expected = [
            ("app", 0o040_755, ""),
            ("app-x", 0o100_644, "beside"),
            ("app/a", 0o100_755, "program"),
            ("app/b", 0o040_755, ""),
            ("app/b/empty", 0o040_755, ""),
            ("app/b/x", 0o100_644, "data"),
        ];
        assert_eq!(entries(&path), expected.map(|(n, m, c)| (n.to_owned(), m, c.as_bytes().to_vec())));
        assert_eq!(fs::read(&path).unwrap()[..10], [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 255]);
        assert_eq!(ramdisk.program_at("app/a"), Some(app.join("a").as_path()));
        assert_eq!(ramdisk.program_at("app/b/x"), None);
    }

    #[test]
    fn links_and_special_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let error = Ramdisk::default().tree("app", folder.path()).unwrap_err();
        assert!(error.message().ends_with("link: a symbolic link"), "{}", error.message());
        fs::remove_file(folder.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let error = Ramdisk::default().tree("app", folder.path()).unwrap_err();
        assert!(error.message().ends_with("socket: a special file"), "{}", error.message());
    }
}
