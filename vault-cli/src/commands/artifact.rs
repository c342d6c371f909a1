//! An artifact as a file or standard input: its header, and a payload that follows it.

use super::rewrite::pending;
use crate::error::{CliError, io};
use crate::output::stdin_file;
use std::fs::File;
use std::path::{Path, PathBuf};
use vault_core::header::Header;
use vault_core::io::Input;

/// A sealed model to be read.
pub struct Artifact {
    file: File,
    /// Length in bytes; `None` for a pipe.
    len: Option<u64>,
    /// Its header; unverified.
    pub header: Header,
    path: PathBuf,
}

impl Artifact {
    /// Opens `path` (`-` is standard input) and reads the header. A change of recipients that was
    /// interrupted is seen as complete.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let piped = path == Path::new("-");
        let mut file = if piped { stdin_file()? } else { File::open(path).map_err(io(path.display()))? };
        let metadata = file.metadata().map_err(io(path.display()))?;
        if metadata.is_dir() {
            return Err(CliError::usage(format!("{}: a folder, not a sealed model", path.display())));
        }
        // Standard input may be a file that someone has read a part of: it is read on, not from its start.
        let len = (metadata.is_file() && !piped).then_some(metadata.len());
        let header = match pending(path, &file).filter(|_| !piped) {
            Some(header) => header,
            None => Header::read(&mut file).map_err(|e| CliError::from(e).about(path.display()))?,
        };
        Ok(Self { file, len, header, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, for changing its header.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of header and payload, if known.
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// Where the payload starts.
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.header.prelude().header_len)
    }

    /// The payload's length, if known.
    pub fn payload_len(&self) -> Option<u64> {
        Some(self.len?.saturating_sub(self.payload_offset()))
    }

    /// The payload.
    pub fn payload(&mut self) -> Input<'_> {
        let offset = self.payload_offset();
        match self.payload_len() {
            Some(len) => Input::At { file: &self.file, offset, len },
            None => Input::Stream(&mut self.file),
        }
    }

    /// The payload at offsets; a pipe has none.
    pub fn at(&self) -> Result<(&File, u64, u64), CliError> {
        let len = self.payload_len().ok_or_else(|| {
            CliError::usage("a part can only be read from a file").hint("save it first, or use `mvault open -`")
        })?;
        Ok((&self.file, self.payload_offset(), len))
    }
}
