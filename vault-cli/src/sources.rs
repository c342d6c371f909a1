//! What goes into an artifact or under a model signature: one file, a folder, or standard input. Links are refused or
//! followed as asked, special files refused; each file is opened once, and that it did not change is checked afterwards.

use crate::error::{CliError, io};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use vault_core::io::Input;
use vault_core::seal::SourceEntry;

/// An opened model.
pub struct Model {
    /// The name it gives itself: that of the file or folder.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// A folder, or one file.
    pub folder: bool,
    /// Sum of the sizes, if known, in bytes.
    pub size: Option<u64>,
    /// Paths in the folder that were not gone into.
    pub left_out: Vec<String>,
    files: Vec<OpenFile>,
}

/// How a folder is read.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    /// What is done with symbolic links.
    pub links: Links,
    /// Which paths are not gone into.
    pub leave_out: &'a dyn Fn(&str) -> bool,
}

/// What is done with symbolic links in a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// They are refused.
    Refused,
    /// They are what they point to.
    Followed,
    /// They are the files that they point to; to folders, refused.
    ToFiles,
}

struct OpenFile {
    path: String,
    shown: PathBuf,
    file: File,
    /// `None` for a pipe.
    before: Option<Metadata>,
}

impl Model {
    /// Opens `path`; `-` is standard input.
    pub fn open(path: &Path, follow: bool) -> Result<Self, CliError> {
        let links = if follow { Links::Followed } else { Links::Refused };
        Self::walk(path, Walk { links, leave_out: &|_| false })
    }

    /// Opens `path`, a folder in this way.
    pub fn walk(path: &Path, walk: Walk<'_>) -> Result<Self, CliError> {
        if path == Path::new("-") {
            let file = crate::output::stdin_file()?;
            let files = vec![OpenFile { path: "stdin".into(), shown: path.to_owned(), file, before: None }];
            let path = path.to_owned();
            return Ok(Self { name: "stdin".into(), path, folder: false, size: None, left_out: Vec::new(), files });
        }
        let metadata = fs::metadata(path).map_err(io(path.display()))?; // a named link is followed
        let name = path.canonicalize().ok().and_then(|p| p.file_name().map(ToOwned::to_owned));
        let name = path.file_name().map(ToOwned::to_owned).or(name).unwrap_or_default();
        let name = name.into_string().map_err(|_| not_utf8(path))?;
        if metadata.is_dir() {
            return Self::folder(name, path, walk);
        }
        let file = File::open(path).map_err(io(path.display()))?;
        Self::single(name, path, file)
    }

    fn single(name: String, path: &Path, file: File) -> Result<Self, CliError> {
        let metadata = file.metadata().map_err(io(path.display()))?;
        let kind = metadata.file_type();
        let before = kind.is_file().then_some(metadata);
        if before.is_none() && (kind.is_block_device() || kind.is_dir()) {
            return Err(CliError::failed(format!("{}: neither a file nor a folder nor a pipe", path.display())));
        }
        let size = before.as_ref().map(Metadata::len);
        let files = vec![OpenFile { path: name.clone(), shown: path.to_owned(), file, before }];
        Ok(Self { name, path: path.to_owned(), folder: false, size, left_out: Vec::new(), files })
    }

    fn folder(name: String, root: &Path, walk: Walk<'_>) -> Result<Self, CliError> {
        let (mut files, mut left_out) = (Vec::new(), Vec::new());
        let mut folders = vec![(String::new(), root.to_owned())];
        while let Some((prefix, folder)) = folders.pop() {
            for item in fs::read_dir(&folder).map_err(io(folder.display()))? {
                let shown = item.map_err(io(folder.display()))?.path();
                let name = shown.file_name().unwrap_or_default().to_str().ok_or_else(|| not_utf8(&shown))?;
                let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
                if (walk.leave_out)(&path) {
                    left_out.push(path);
                    continue;
                }
                let kind = item_type(&shown, walk.links)?;
                if kind.is_dir() {
                    check_depth(&path, &shown)?;
                    folders.push((path, shown));
                } else if kind.is_file() {
                    files.push(open_member(path, shown, walk.links != Links::Refused)?);
                } else {
                    return Err(CliError::failed(format!("{}: a special file", shown.display()))
                        .hint("a model is regular files; remove it from the folder"));
                }
            }
        }
        if files.is_empty() {
            return Err(CliError::failed(format!("{}: no files in it", root.display())));
        }
        let size = files.iter().filter_map(|f| f.before.as_ref()).map(Metadata::len).sum();
        left_out.sort();
        Ok(Self { name, path: root.to_owned(), folder: true, size: Some(size), left_out, files })
    }

    /// The entries to seal.
    pub fn entries(&mut self) -> Vec<SourceEntry<'_>> {
        self.files
            .iter_mut()
            .map(|f| {
                let input = match &f.before {
                    Some(metadata) => Input::At { file: &f.file, offset: 0, len: metadata.len() },
                    None => Input::Stream(&mut f.file),
                };
                SourceEntry { path: f.path.clone(), input }
            })
            .collect()
    }

    /// Gives the one entry another path, for standard input.
    pub fn rename(&mut self, name: &str) {
        if let (false, [file]) = (self.folder, self.files.as_mut_slice()) {
            name.clone_into(&mut file.path);
        }
    }

    /// Paths and files, for scanning.
    pub fn files(&self) -> impl Iterator<Item = (&str, &File)> {
        self.files.iter().map(|f| (f.path.as_str(), &f.file))
    }

    /// Fails if a file is not what it was when it was opened, for it to be `sealed`, say.
    pub fn check_unchanged(&self, sealed: &str) -> Result<(), CliError> {
        for f in &self.files {
            let Some(before) = &f.before else { continue };
            let now = f.file.metadata().map_err(io(f.shown.display()))?;
            let stamp = |m: &Metadata| (m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            if stamp(before) != stamp(&now) {
                return Err(CliError::failed(format!("{}: changed while it was being {sealed}", f.shown.display()))
                    .hint("nothing was written; try again when nobody writes to it"));
            }
        }
        Ok(())
    }
}

fn item_type(path: &Path, links: Links) -> Result<fs::FileType, CliError> {
    let kind = fs::symlink_metadata(path).map_err(io(path.display()))?.file_type();
    if !kind.is_symlink() {
        return Ok(kind);
    }
    if links == Links::Refused {
        return Err(CliError::failed(format!("{}: a symbolic link", path.display()))
            .hint("links can point out of the folder; use --follow-symlinks to take what they point to"));
    }
    let kind = fs::metadata(path).map_err(io(path.display()))?.file_type();
    if links == Links::ToFiles && kind.is_dir() {
        return Err(CliError::failed(format!("{}: a symbolic link to a folder", path.display()))
            .hint("tools of Model Signing leave out what is in it; replace it with the folder, or use --ignore"));
    }
    Ok(kind)
}

/// Folders that link to each other end here.
fn check_depth(path: &str, shown: &Path) -> Result<(), CliError> {
    if path.len() > vault_core::manifest::MAX_PATH {
        return Err(CliError::failed(format!("{}: the path is too long, or links go in a circle", shown.display())));
    }
    Ok(())
}

fn open_member(path: String, shown: PathBuf, follow: bool) -> Result<OpenFile, CliError> {
    let no_follow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | no_follow;
    let file = openat(CWD, &shown, flags, Mode::empty()).map(File::from);
    let file = file.map_err(|e| io(shown.display())(e.into()))?;
    let before = file.metadata().map_err(io(shown.display()))?;
    if !before.is_file() {
        return Err(CliError::failed(format!("{}: changed into a special file", shown.display())));
    }
    Ok(OpenFile { path, shown, file, before: Some(before) })
}

fn not_utf8(path: &Path) -> CliError {
    CliError::failed(format!("{}: the name is not UTF-8", path.display())).hint("rename it and seal again")
}
