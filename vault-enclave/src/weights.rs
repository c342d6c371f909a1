//! Where the model's plaintext lies: each tensor in the memory that the engine computes with, each other entry as bytes.
//! Chunks arrive in any order, from several threads, verified; nothing is used before all of them and the signature are.

use bytemuck::cast_slice_mut;
use std::io;
use std::sync::{Mutex, PoisonError};
use vault_core::error::{Error, Result};
use vault_core::manifest::Entry;
use vault_core::open::{EntrySink, RangeReader};
use vault_core::scan::safetensors::{MAX_HEADER, Tensor, parse_header};

/// Largest entry that is not safetensors, in bytes.
const MAX_OTHER: u64 = 256 * 1024 * 1024;

/// The numbers of a tensor, in memory of their own type.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Numbers {
    /// `F32`
    F32(Vec<f32>),
    /// `F64`
    F64(Vec<f64>),
    /// `F16` and `BF16`, as their bits
    Half(Vec<u16>),
    /// `I64`
    I64(Vec<i64>),
    /// `I32`
    I32(Vec<i32>),
    /// `U8`, `BOOL`
    U8(Vec<u8>),
}

impl Numbers {
    fn zeroed(dtype: &str, bytes: usize) -> Option<Self> {
        Some(match dtype {
            "F32" => Self::F32(vec![0.0; bytes / 4]),
            "F64" => Self::F64(vec![0.0; bytes / 8]),
            "F16" | "BF16" => Self::Half(vec![0; bytes / 2]),
            "I64" => Self::I64(vec![0; bytes / 8]),
            "I32" => Self::I32(vec![0; bytes / 4]),
            "U8" | "BOOL" => Self::U8(vec![0; bytes]),
            _ => return None,
        })
    }

    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::F32(n) => cast_slice_mut(n),
            Self::F64(n) => cast_slice_mut(n),
            Self::Half(n) => cast_slice_mut(n),
            Self::I64(n) => cast_slice_mut(n),
            Self::I32(n) => cast_slice_mut(n),
            Self::U8(n) => n,
        }
    }
}

/// A tensor that was loaded.
#[derive(Debug, PartialEq)]
pub struct Loaded {
    /// Its key.
    pub name: String,
    /// Element type as written, `F32`.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub numbers: Numbers,
}

/// Entries that are no safetensors: path and bytes.
pub type Files = Vec<(String, Vec<u8>)>;

/// A model on its way into memory.
pub struct Weights(Vec<Place>);

struct Place {
    path: String,
    size: u64,
    kind: Kind,
}

enum Kind {
    Bytes(Mutex<Vec<u8>>),
    /// In the order of their bytes.
    Tensors(Vec<(Tensor, Mutex<Numbers>)>),
}

impl Weights {
    /// Reads the heads of safetensors entries and makes room for everything, once. Sizes are the manifest's.
    pub fn plan(reader: &RangeReader<'_>) -> Result<Self> {
        let places = reader.manifest().entries.iter().map(|entry| {
            let safetensors = entry.path.to_ascii_lowercase().ends_with(".safetensors");
            let kind = if safetensors { tensors(reader, entry)? } else { other(entry)? };
            Ok(Place { path: entry.path.clone(), size: entry.size, kind })
        });
        Ok(Self(places.collect::<Result<_>>()?))
    }

    /// Tensors and other entries by path, after everything was verified.
    pub fn finish(self) -> (Vec<Loaded>, Files) {
        let (mut loaded, mut files) = (Vec::new(), Vec::new());
        for place in self.0 {
            match place.kind {
                Kind::Bytes(bytes) => {
                    files.push((place.path, bytes.into_inner().unwrap_or_else(PoisonError::into_inner)));
                }
                Kind::Tensors(tensors) => loaded.extend(tensors.into_iter().map(|(tensor, numbers)| Loaded {
                    name: tensor.name,
                    dtype: tensor.dtype,
                    shape: tensor.shape.iter().map(|d| usize::try_from(*d).unwrap_or(usize::MAX)).collect(),
                    numbers: numbers.into_inner().unwrap_or_else(PoisonError::into_inner),
                })),
            }
        }
        (loaded, files)
    }
}

impl EntrySink for Weights {
    fn begin(&self, entries: &[(String, Option<u64>)]) -> io::Result<()> {
        let same = |(place, (path, size)): (&Place, &(String, Option<u64>))| {
            place.path == *path && size.is_none_or(|size| size == place.size)
        };
        let planned = self.0.len() == entries.len() && self.0.iter().zip(entries).all(same);
        if planned { Ok(()) } else { Err(io::Error::other("another table than the one that was planned for")) }
    }

    fn write_at(&self, index: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        let outside = || io::Error::other("bytes outside of their entry");
        match &self.0.get(index).ok_or_else(outside)?.kind {
            Kind::Bytes(bytes) => {
                let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let from = usize::try_from(offset).map_err(io::Error::other)?;
                let into = from.checked_add(data.len()).and_then(|to| bytes.get_mut(from..to));
                into.ok_or_else(outside)?.copy_from_slice(data);
            }
            Kind::Tensors(tensors) => scatter(tensors, offset, data),
        }
        Ok(())
    }
}

/// Copies the bytes at `offset` of the file to the tensors that they are of; the head's are of none.
fn scatter(tensors: &[(Tensor, Mutex<Numbers>)], offset: u64, data: &[u8]) {
    let end = offset.saturating_add(data.len() as u64);
    let first = tensors.partition_point(|(tensor, _)| tensor.end <= offset);
    for (tensor, numbers) in tensors.iter().skip(first).take_while(|(tensor, _)| tensor.begin < end) {
        let (from, to) = (tensor.begin.max(offset), tensor.end.min(end));
        let within = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
        let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let into = numbers.bytes().get_mut(within(from, tensor.begin)..within(to, tensor.begin));
        let part = data.get(within(from, offset)..within(to, offset));
        if let (Some(into), Some(part)) = (into, part) {
            into.copy_from_slice(part); // same lengths: both are `to - from`, and the tensor's room is its size
        }
    }
}

fn other(entry: &Entry) -> Result<Kind> {
    if entry.size > MAX_OTHER {
        return Err(refuse(entry, format!("{} bytes; at most {MAX_OTHER} that are not safetensors", entry.size)));
    }
    Ok(Kind::Bytes(Mutex::new(vec![0; to_usize(entry.size)])))
}

fn tensors(reader: &RangeReader<'_>, entry: &Entry) -> Result<Kind> {
    let read = |from: u64, to: u64| {
        let mut bytes = Vec::with_capacity(to_usize(to - from));
        reader.read(entry, from..to, &mut |data| {
            bytes.extend_from_slice(data);
            Ok(())
        })?;
        Ok::<_, Error>(bytes)
    };
    let length = read(0, 8.min(entry.size))?;
    let length = length.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let room = MAX_HEADER.min(entry.size.saturating_sub(8));
    let length = length.filter(|length| *length <= room).ok_or_else(|| refuse(entry, "no safetensors header"))?;
    let head = read(8, 8 + length)?;
    let tensors = parse_header(&head, Some(entry.size - 8 - length)).map_err(|e| refuse(entry, e.to_string()))?;
    let room = |tensor: Tensor| {
        let bytes = to_usize(tensor.end - tensor.begin);
        let numbers = Numbers::zeroed(&tensor.dtype, bytes);
        let numbers = numbers.ok_or_else(|| refuse(entry, format!("tensors of type {}", tensor.dtype)))?;
        Ok((tensor, Mutex::new(numbers)))
    };
    Ok(Kind::Tensors(tensors.into_iter().map(room).collect::<Result<_>>()?))
}

fn refuse(entry: &Entry, message: impl std::fmt::Display) -> Error {
    Error::Usage(format!("{}: {message}", entry.path))
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
