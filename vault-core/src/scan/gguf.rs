//! GGUF, versions 2 and 3: header, key-values, tensor infos, data; walked once, nothing kept.
//!
//! ggml demands that tensors lie one after another, each at the aligned end of the one before,
//! so holes and overlaps show without a table. The data must end where the last tensor does,
//! or where its padding does.

use super::log::{Ctx, Grade};
use super::source::{Halt, Source, bad, limit};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;

/// Tensors and key-values of one file; the largest known have some thousands.
const MAX_TENSORS: u64 = 1 << 17;
const MAX_KEYS: u64 = 1 << 16;
/// Longest key and tensor name, in bytes (the format's 65535; ggml's own 64).
const MAX_KEY: u64 = 65_535;
const MAX_TENSOR_NAME: u64 = 256;
/// Longest text value, in bytes: chat templates and tokenizer tables stay far below.
const MAX_TEXT: u64 = 64 << 20;
/// Dimensions of a tensor in ggml.
const MAX_DIMS: u32 = 4;
/// Alignment when no key says otherwise, and the largest one accepted.
const ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 16;

/// Scans a GGUF stream from its magic on.
pub(super) fn scan(ctx: &mut Ctx, src: &mut Source<'_>) -> io::Result<()> {
    let what = match walk(src) {
        Ok(()) => return Ok(()),
        Err(Halt::Io(e)) => return Err(e),
        Err(Halt::End) => "the file ends too early".to_owned(),
        Err(Halt::Bad(what) | Halt::Limit(what)) => what,
    };
    ctx.add(Grade::Malformed, &format!("malformed: GGUF: {what}"), src.offset());
    Ok(())
}

fn walk(src: &mut Source<'_>) -> Result<(), Halt> {
    src.array::<4>()?;
    let version = src.u32()?;
    if !matches!(version, 2 | 3) {
        return bad(format!("version {version}"));
    }
    let (tensors, keys) = (src.u64()?, src.u64()?);
    if tensors > MAX_TENSORS || keys > MAX_KEYS {
        return limit(format!("{tensors} tensors and {keys} keys"));
    }
    let hasher = RandomState::new();
    let alignment = key_values(src, keys, &hasher)?;
    let (mut end, mut aligned) = (0_u64, 0_u64);
    let mut seen = HashSet::new();
    for _ in 0..tensors {
        let name = text(src, MAX_TENSOR_NAME)?;
        if !seen.insert(hasher.hash_one(&name)) {
            return bad(format!("tensor '{name}' stands twice"));
        }
        let bytes = tensor_bytes(src, &name)?;
        let offset = src.u64()?;
        if offset != aligned {
            let how = if offset < aligned { "overlaps the one before" } else { "leaves a hole before it" };
            return bad(format!("tensor '{name}' at {offset} {how}, expected {aligned}"));
        }
        end = offset.checked_add(bytes).ok_or(Halt::End)?;
        aligned = end.checked_next_multiple_of(alignment).ok_or(Halt::End)?;
    }
    if tensors == 0 {
        return if src.at_end()? { Ok(()) } else { bad("data without tensors") };
    }
    let padding = src.offset().next_multiple_of(alignment) - src.offset();
    src.skip_exact(padding)?;
    src.skip_exact(end)?;
    if !src.at_end()? {
        src.skip_exact(aligned - end)?;
    }
    if src.at_end()? { Ok(()) } else { bad("bytes after the last tensor") }
}

/// Walks the key-values; returns the alignment.
fn key_values(src: &mut Source<'_>, count: u64, hasher: &RandomState) -> Result<u64, Halt> {
    let mut alignment = ALIGNMENT;
    let mut seen = HashSet::new();
    for _ in 0..count {
        let key = text(src, MAX_KEY)?;
        if !seen.insert(hasher.hash_one(&key)) {
            return bad(format!("key '{key}' stands twice"));
        }
        let kind = src.u32()?;
        if key == "general.alignment" {
            if kind != 4 {
                return bad("general.alignment is no u32");
            }
            alignment = u64::from(src.u32()?);
            if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
                return bad(format!("alignment {alignment}"));
            }
        } else if kind == 9 {
            array(src, &key)?;
        } else {
            value(src, kind, &key)?;
        }
    }
    Ok(alignment)
}

/// Size of a scalar value type.
fn scalar(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

fn value(src: &mut Source<'_>, kind: u32, key: &str) -> Result<(), Halt> {
    if kind == 8 {
        let len = src.u64()?;
        if len > MAX_TEXT {
            return bad(format!("key '{key}' has a text of {len} bytes"));
        }
        return src.skip_exact(len);
    }
    match scalar(kind) {
        Some(size) => src.skip_exact(size),
        None => bad(format!("key '{key}' has unknown type {kind}")),
    }
}

fn array(src: &mut Source<'_>, key: &str) -> Result<(), Halt> {
    let (kind, count) = (src.u32()?, src.u64()?);
    match scalar(kind) {
        Some(size) => src.skip_exact(count.checked_mul(size).ok_or(Halt::End)?),
        // Each text takes at least its eight bytes of length, so the file bounds the loop.
        None if kind == 8 => (0..count).try_for_each(|_| value(src, 8, key)),
        None => bad(format!("key '{key}' is an array of type {kind}")),
    }
}

fn text(src: &mut Source<'_>, max: u64) -> Result<String, Halt> {
    let len = src.u64()?;
    if len > max {
        return bad(format!("a name of {len} bytes"));
    }
    let raw = src.take(usize::try_from(len).unwrap_or(0))?;
    String::from_utf8(raw).map_err(|_| Halt::Bad("a name that is not UTF-8".to_owned()))
}

/// Dimensions and type of a tensor, as its size in bytes.
fn tensor_bytes(src: &mut Source<'_>, name: &str) -> Result<u64, Halt> {
    let dims = src.u32()?;
    if dims > MAX_DIMS {
        return bad(format!("tensor '{name}' has {dims} dimensions"));
    }
    let (mut elements, mut row) = (1_u64, 1_u64);
    for dim in 0..dims {
        let n = src.u64()?;
        if dim == 0 {
            row = n;
        }
        elements = elements
            .checked_mul(n)
            .filter(|n| i64::try_from(*n).is_ok())
            .ok_or_else(|| Halt::Bad(format!("tensor '{name}' is larger than any file")))?;
    }
    let kind = src.u32()?;
    let Some((block, bytes)) = block(kind) else {
        return bad(format!("tensor '{name}' has unknown type {kind}"));
    };
    if row % block != 0 {
        return bad(format!("tensor '{name}' has rows of {row}, not whole blocks of {block}"));
    }
    (elements / block).checked_mul(bytes).ok_or(Halt::End)
}

/// Elements and bytes of a block of each ggml type.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        24 => (1, 1),
        27 | 28 => (1, 8),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 36),
        39 => (32, 17),
        40 => (64, 36),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 | 35 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        29 => (256, 56),
        34 => (256, 54),
        _ => return None,
    })
}
