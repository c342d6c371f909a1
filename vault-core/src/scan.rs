//! Static checks of one model file, in the same forward-only read that seals it.
//!
//! Owns the verdict of a file: pickle machinery against an allow-list, and the structure of
//! safetensors, GGUF and ONNX. It never loads, imports or executes anything, never seeks, and
//! holds at most 16 MiB whatever the input. What a file is, is decided by its bytes; its name
//! can only make the scan stricter. What cannot be read to its end is "not scanned", never
//! "safe". Layout: `detect` routes, `pickle` and `zip` carry the danger, `allow` is the list.
#![warn(clippy::indexing_slicing)]

mod allow;
mod detect;
mod gguf;
mod inflate;
mod log;
mod npy;
mod onnx;
mod pickle;
pub mod safetensors;
mod source;
mod zip;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

/// Findings kept in one report; the rest is only counted in [`Report::more`].
pub const MAX_FINDINGS: usize = 16;
/// Longest [`Finding::what`], in bytes.
pub const MAX_FINDING_BYTES: usize = 200;

/// A reader that can pass over bytes the scan does not need to see.
pub trait ScanRead: Read {
    /// Skips up to `n` bytes and returns how many were skipped: less than `n` only at the end
    /// of the input.
    fn skip(&mut self, n: u64) -> io::Result<u64>;
}

/// Makes any reader a [`ScanRead`]: skipping is reading into a small buffer.
pub struct Plain<R: Read>(
    /// The reader, consumed from where it stands.
    pub R,
);

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R: Read> ScanRead for Plain<R> {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        io::copy(&mut self.0.by_ref().take(n), &mut io::sink())
    }
}

/// What the scan of one file found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What the bytes are.
    pub format: Format,
    /// The judgement of the whole file.
    pub verdict: Verdict,
    /// What led to it, at most [`MAX_FINDINGS`], dangers first kept.
    pub findings: Vec<Finding>,
    /// How many findings more there were.
    pub more: u64,
    /// Bytes of input read or skipped, always the whole input.
    pub bytes: u64,
}

/// The judgement of a file. A sealer accepts [`Verdict::Safe`] and [`Verdict::NotAPickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Holds pickles, all parsed to their end, and they name only allow-listed globals.
    Safe,
    /// Names or calls something that is not on the allow-list. Wins over everything else.
    Dangerous,
    /// Could not be read to its end or understood: encrypted, truncated, unknown compression,
    /// bytes that nothing explains, or past a limit.
    NotScanned,
    /// No pickle machinery in it: tensors, text, or plain arrays in npy and npz.
    NotAPickle,
    /// A safetensors, GGUF or ONNX file whose structure is broken.
    Malformed,
}

/// What the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// One or several pickles, one after another.
    Pickle,
    /// A PyTorch zip archive, TorchScript too.
    TorchZip,
    /// PyTorch before 1.6: five pickles, then raw storages.
    TorchLegacy,
    /// A pickle with raw arrays in its stream, or a compressed pickle.
    Joblib,
    /// A NumPy array file.
    Npy,
    /// A zip archive of NumPy array files.
    Npz,
    /// Any other zip archive.
    Zip,
    /// safetensors.
    Safetensors,
    /// GGUF.
    Gguf,
    /// ONNX.
    Onnx,
    /// gzip, zlib, bzip2, xz, lzma, lz4 or zstd around something that is not a pickle.
    Compressed,
    /// tar, 7z or rar: containers that are not opened.
    Archive,
    /// HDF5: recognised, not opened.
    Hdf5,
    /// Anything else.
    Other,
}

/// One thing the scan names, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The member inside a container, `archive/data.pkl`; nested containers joined with `!`.
    pub member: Option<String>,
    /// What it is: no control characters, at most [`MAX_FINDING_BYTES`] bytes.
    pub what: String,
    /// Byte offset inside the file, or inside the member as it reads uncompressed.
    pub offset: u64,
}

/// Scans one file. `path` is only a name: nothing is opened. The input is always read or
/// skipped to its end.
///
/// # Errors
/// Only when the input's own read fails; everything wrong with the bytes is in the report.
pub fn scan(path: &str, input: &mut dyn ScanRead) -> io::Result<Report> {
    let mut ctx = log::Ctx::new();
    let mut source = source::Source::counted(input, ctx.budget.clone());
    let format = detect::scan_stream(&mut ctx, path, &mut source)?;
    source.drain()?;
    Ok(ctx.into_report(format, source.offset()))
}

/// The text is none of the known names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown name '{0}'")]
pub struct UnknownName(pub String);

macro_rules! names {
    ($kind:ident: $($variant:ident = $text:literal),+ $(,)?) => {
        impl $kind {
            /// The stable name, kebab-case.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $kind {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownName(log::clean(text))),
                }
            }
        }
    };
}

names!(Verdict: Safe = "safe", Dangerous = "dangerous", NotScanned = "not-scanned",
    NotAPickle = "not-a-pickle", Malformed = "malformed");
names!(Format: Pickle = "pickle", TorchZip = "torch-zip", TorchLegacy = "torch-legacy",
    Joblib = "joblib", Npy = "npy", Npz = "npz", Zip = "zip", Safetensors = "safetensors",
    Gguf = "gguf", Onnx = "onnx", Compressed = "compressed", Archive = "archive",
    Hdf5 = "hdf5", Other = "other");
