//! What a stream is, by its first bytes; its name can only make the answer stricter.
//!
//! Routes one stream, the file itself or a member of a container, to its parser, and tries
//! formats with a fixed head as a pickle too: whoever loads the file decides what it is. The
//! tail of a file that is no model is not searched for an appended zip archive: it is skipped.

use super::log::{Ctx, Grade};
use super::pickle::{self, Probe};
use super::source::{Source, WINDOW};
use super::{Format, gguf, inflate, npy, onnx, safetensors, zip};
use std::io;

/// Names of files that hold pickles: not parsing as one is a finding.
const PICKLE_NAMES: &[&str] = &[
    ".pkl",
    ".pickle",
    ".pk",
    ".pck",
    ".pcl",
    ".joblib",
    ".jbl",
    ".sav",
    ".dill",
    ".cloudpickle",
    ".pt",
    ".pth",
    ".ckpt",
    ".jit",
    ".ptl",
    ".torchscript",
    ".npy",
    ".npz",
    "debug_pkl",
];
/// Names that promise a zip archive.
const ZIP_NAMES: &[&str] = &[".zip", ".npz", ".keras", ".mar", ".whl"];
/// First words of the names that PyTorch tools give to pickled `.bin` files.
const TORCH_BINS: &[&str] =
    &["pytorch_model", "adapter_model", "training_args", "optimizer", "scheduler", "diffusion_pytorch_model"];

/// What the name promises.
#[expect(clippy::struct_excessive_bools, reason = "five independent promises")]
struct Name {
    pickle: bool,
    zip: bool,
    safetensors: bool,
    gguf: bool,
    onnx: bool,
}

impl Name {
    fn of(path: &str) -> Self {
        let base = path.rsplit(['/', '\\', '!']).next().unwrap_or(path).to_ascii_lowercase();
        let ends = |list: &[&str]| list.iter().any(|end| base.ends_with(end));
        let torch_bin = ends(&[".bin"]) && TORCH_BINS.iter().any(|start| base.starts_with(start));
        Self {
            pickle: ends(PICKLE_NAMES) || torch_bin,
            zip: ends(ZIP_NAMES),
            safetensors: ends(&[".safetensors"]),
            gguf: ends(&[".gguf"]),
            onnx: ends(&[".onnx"]),
        }
    }
}

/// Scans one stream to its end.
pub(super) fn scan_stream(ctx: &mut Ctx, path: &str, src: &mut Source<'_>) -> io::Result<Format> {
    let name = Name::of(path);
    let head = src.peek(WINDOW)?.to_vec();
    if let Some(what) = unread(&head) {
        ctx.add(Grade::NotScanned, what.1, 0);
        if what.0 != Format::Other {
            polyglot(ctx, &head)?;
            return finish(src, what.0);
        }
    }
    if let Some(format) = structured(ctx, &name, &head, src)? {
        return finish(src, format);
    }
    if let Some(format) = inflate::scan_compressed(ctx, path, name.pickle, &head, src)? {
        return finish(src, format);
    }
    if let Some(format) = pickle::scan(ctx, src, name.pickle)? {
        return finish(src, format);
    }
    // Unreachable for pickle names: those are findings of the pickle scan already.
    let (grade, what) = match &name {
        Name { zip: true, .. } => (Grade::NotScanned, "named like a zip archive, but is none"),
        Name { safetensors: true, .. } => (Grade::Malformed, "malformed: named safetensors, but is none"),
        Name { gguf: true, .. } => (Grade::Malformed, "malformed: named GGUF, but is none"),
        _ => return finish(src, Format::Other),
    };
    ctx.add(grade, what, 0);
    finish(src, Format::Other)
}

fn finish(src: &mut Source<'_>, format: Format) -> io::Result<Format> {
    src.drain()?;
    Ok(format)
}

/// Formats with a head of their own.
fn structured(ctx: &mut Ctx, name: &Name, head: &[u8], src: &mut Source<'_>) -> io::Result<Option<Format>> {
    let format = if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Format::Zip
    } else if head.starts_with(b"\x93NUMPY") {
        Format::Npy
    } else if head.starts_with(b"GGUF") {
        Format::Gguf
    } else if safetensors::looks_like(head) {
        Format::Safetensors
    } else if name.onnx || onnx::looks_like(head) {
        Format::Onnx
    } else {
        return Ok(None);
    };
    polyglot(ctx, head)?;
    match format {
        Format::Zip => return zip::scan(ctx, src).map(Some),
        Format::Npy => npy::scan(ctx, src)?,
        Format::Gguf => gguf::scan(ctx, src)?,
        Format::Safetensors => safetensors::scan(ctx, src)?,
        _ => onnx::scan(ctx, src)?,
    }
    Ok(Some(format))
}

/// Tries a file of another format as a pickle.
fn polyglot(ctx: &mut Ctx, head: &[u8]) -> io::Result<()> {
    match pickle::probe(head, head.len() < WINDOW)? {
        Probe::No => {}
        Probe::Yes => ctx.add(Grade::Danger, "reads as a pickle too, which names or calls something not allowed", 0),
        // A zip's first line may be as long as the window; no loader gets past its PERSID.
        Probe::Maybe if head.starts_with(b"PK") => {}
        Probe::Maybe => ctx.add(Grade::NotScanned, "may be a pickle too", 0),
    }
    Ok(())
}

/// Containers and compressions that are recognised but not opened. `Other` means: look on.
fn unread(head: &[u8]) -> Option<(Format, &'static str)> {
    const HEADS: &[(&[u8], Format, &str)] = &[
        (b"7z\xbc\xaf\x27\x1c", Format::Archive, "7z archive: not opened"),
        (b"Rar!\x1a\x07", Format::Archive, "rar archive: not opened"),
        (b"BZh91AY&SY", Format::Compressed, "bzip2 compression: not opened"),
        (b"\xfd7zXZ\0", Format::Compressed, "xz compression: not opened"),
        (b"\x5d\0\0\x80\0", Format::Compressed, "lzma compression: not opened"),
        (b"\x5d\0\0\x10\0", Format::Compressed, "lzma compression: not opened"),
        (b"\x04\x22\x4d\x18", Format::Compressed, "lz4 compression: not opened"),
        (b"\x28\xb5\x2f\xfd", Format::Compressed, "zstd compression: not opened"),
        (b"\x89HDF\r\n\x1a\n", Format::Hdf5, "HDF5: not opened (a Keras model in it can carry code)"),
    ];
    if head.starts_with(b"BZh") && head.get(4..10) == Some(b"1AY&SY") {
        return Some((Format::Compressed, "bzip2 compression: not opened"));
    }
    if let Some(found) = HEADS.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return Some((found.1, found.2));
    }
    if tar(head) {
        // torch.load tries tar first, whatever else the file looks like.
        let pickled = head.first() == Some(&0x80);
        return Some((if pickled { Format::Other } else { Format::Archive }, "tar archive: not opened"));
    }
    None
}

/// A tar header is one whose checksum fits: that is all Python's tarfile asks for.
fn tar(head: &[u8]) -> bool {
    let (Some(block), Some(field)) = (head.get(..512), head.get(148..156)) else { return false };
    let text = field.iter().take_while(|b| **b != 0);
    let digits: Vec<u8> = text.copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let stated = std::str::from_utf8(&digits).ok().and_then(|t| u32::from_str_radix(t, 8).ok());
    let sum = |signed: bool| -> i64 {
        let one = |b: u8| if signed { i64::from(b.cast_signed()) } else { i64::from(b) };
        let all: i64 = block.iter().map(|b| one(*b)).sum();
        let own: i64 = field.iter().map(|b| one(*b)).sum();
        all - own + 8 * 32
    };
    stated.is_some_and(|stated| i64::from(stated) == sum(false) || i64::from(stated) == sum(true))
}
