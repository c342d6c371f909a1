//! An artifact as a file, as standard input, or in a vault (`s3://bucket/prefix/NAME:VERSION`, `folder/NAME:VERSION`): its
//! header, and its payload.

use super::rewrite::pending;
use crate::aws::AwsArgs;
use crate::error::{CliError, io};
use crate::output::{Output, stdin_file};
use crate::process::threads;
use crate::vaults::{artifact_in_vault, open as open_vault, reference};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use vault_core::header::Header;
use vault_core::io::{Input, ReadAt};
use vault_store::Store;
use vault_store::download::{Cut, Download};
use vault_store::layout::Name;
use vault_store::parts::Parts;
use vault_store::uri::Uri;
use vault_store::vault::{Published, Selector, Vault};

/// A sealed model to be read.
pub struct Artifact {
    place: Place,
    /// Its header; unverified.
    pub header: Header,
    path: PathBuf,
}

enum Place {
    File(File, u64),
    Pipe(File),
    Vault(Box<InVault>),
}

struct InVault {
    store: Arc<dyn Store>,
    name: Name,
    published: Published,
    key: String,
    size: OnceLock<u64>,
}

/// What an artifact in a vault is read through, part by part.
pub enum PartsOf<'a> {
    /// A file, and where the payload starts in it.
    File(&'a File, u64, u64),
    /// An object.
    Object(Parts<'a>),
}

impl PartsOf<'_> {
    /// For a reader of parts: the bytes, where the payload starts in them, and how long it is.
    pub fn at(&self) -> (&dyn ReadAt, u64, u64) {
        match self {
            Self::File(file, offset, len) => (*file, *offset, *len),
            Self::Object(parts) => (parts, 0, parts.size()),
        }
    }
}

impl Artifact {
    /// Opens `path` (`-` is standard input) and reads the header. A change of recipients that was
    /// interrupted is seen as complete.
    pub fn open(path: &Path, aws: &AwsArgs, out: &Output) -> Result<Self, CliError> {
        if let Some((uri, text)) = artifact_in_vault(path, out)? {
            let (name, selector) = reference(text)?;
            return Self::open_in(&uri, name, &selector, path, aws, out);
        }
        let piped = path == Path::new("-");
        let mut file = if piped { stdin_file()? } else { File::open(path).map_err(io(path.display()))? };
        let metadata = file.metadata().map_err(io(path.display()))?;
        if metadata.is_dir() {
            return Err(CliError::usage(format!("{}: a folder, not a sealed model", path.display()))
                .hint("plain files are checked with `mvault verify FOLDER --signature FILE`"));
        }
        let header = match pending(path, &file).filter(|_| !piped) {
            Some(header) => header,
            None => Header::read(&mut file).map_err(|e| CliError::from(e).about(path.display()))?,
        };
        // Standard input may be a file that someone has read a part of: it is read on, not from its start.
        let whole = metadata.is_file() && !piped;
        let place = if whole { Place::File(file, metadata.len()) } else { Place::Pipe(file) };
        Ok(Self { place, header, path: path.to_owned() })
    }

    /// The version of `name` in a vault, which the user calls `path`.
    pub fn open_in(
        vault: &Uri,
        name: Name,
        selector: &Selector,
        path: &Path,
        aws: &AwsArgs,
        out: &Output,
    ) -> Result<Self, CliError> {
        Self::of_version(open_vault(vault, aws, out)?.into(), name, selector, path)
    }

    /// Another version of the same model in the same vault; `None` if this is in none.
    pub fn another_version(&self, version: u64) -> Result<Option<Self>, CliError> {
        let Place::Vault(v) = &self.place else { return Ok(None) };
        let path = PathBuf::from(format!("{}:{version}", v.name.as_str()));
        Self::of_version(v.store.clone(), v.name.clone(), &Selector::Version(version), &path).map(Some)
    }

    fn of_version(store: Arc<dyn Store>, name: Name, selector: &Selector, path: &Path) -> Result<Self, CliError> {
        let published = Vault::new(&*store).find(&name, selector)?;
        let (header, key) = (published.header.clone(), name.payload(&published.header.prelude().salt));
        let place = Place::Vault(Box::new(InVault { store, name, published, key, size: OnceLock::new() }));
        Ok(Self { place, header, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file and its length, for changing its header; `None` if it is none.
    pub fn file(&self) -> Option<(&File, u64)> {
        match &self.place {
            Place::File(file, len) => Some((file, *len)),
            _ => None,
        }
    }

    /// Where it is in a vault, if it is.
    pub fn in_vault(&self) -> Option<(Vault<'_>, &Name, &Published)> {
        match &self.place {
            Place::Vault(v) => Some((Vault::new(&*v.store), &v.name, &v.published)),
            _ => None,
        }
    }

    /// Whether it can be read more than once.
    pub fn is_pipe(&self) -> bool {
        matches!(self.place, Place::Pipe(_))
    }

    /// Where the payload starts in a file.
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.header.prelude().header_len)
    }

    /// The payload's length; `None` for a pipe.
    pub fn payload_len(&self) -> Result<Option<u64>, CliError> {
        Ok(match &self.place {
            Place::File(_, len) => Some(len.saturating_sub(self.payload_offset())),
            Place::Pipe(_) => None,
            Place::Vault(v) => Some(v.size()?),
        })
    }

    /// Runs `f` on the payload, which it reads front to back.
    pub fn payload<T>(&mut self, f: impl FnOnce(Input<'_>) -> T) -> Result<T, CliError> {
        let offset = self.payload_offset();
        Ok(match &mut self.place {
            Place::File(file, len) => f(Input::At { file, offset, len: len.saturating_sub(offset) }),
            Place::Pipe(file) => f(Input::Stream(file)),
            Place::Vault(v) => {
                let len = v.size()?;
                let cut = Cut::of(self.header.prelude().chunk_size);
                Download::new(&*v.store, &v.key, len, cut, threads(None), None)
                    .run(|file| f(Input::At { file, offset: 0, len }))
            }
        })
    }

    /// The payload, of which parts will be read; a pipe has none.
    pub fn parts(&self) -> Result<PartsOf<'_>, CliError> {
        let offset = self.payload_offset();
        match &self.place {
            Place::File(file, len) => Ok(PartsOf::File(file, offset, len.saturating_sub(offset))),
            Place::Vault(v) => {
                let parts = Parts::open(&*v.store, v.key.clone(), self.header.prelude().chunk_size)?;
                let _ = v.size.set(parts.size());
                Ok(PartsOf::Object(parts))
            }
            Place::Pipe(_) => {
                Err(CliError::usage("a part can only be read from a file")
                    .hint("save it first, or use `mvault open -`"))
            }
        }
    }

    /// Name and version that were asked of a vault must be those that are sealed `[F-42]`.
    pub fn check_identity(&self, name: &str, version: u64) -> Result<(), CliError> {
        let Some((_, asked, published)) = self.in_vault() else { return Ok(()) };
        if asked.as_str() == name && published.version == version {
            return Ok(());
        }
        let asked = asked.as_str();
        Err(CliError::not_authentic(format!(
            "{asked}:{}: the vault gave {} version {version} for it [F-42]",
            published.version,
            crate::output::printable(name)
        ))
        .hint("someone swapped artifacts in the vault, or pushed one under another name"))
    }
}

impl InVault {
    fn size(&self) -> Result<u64, CliError> {
        if let Some(size) = self.size.get() {
            return Ok(*size);
        }
        let size = self.store.head(&self.key)?.size;
        Ok(*self.size.get_or_init(|| size))
    }
}
