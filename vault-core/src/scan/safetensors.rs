//! The safetensors header: parsed strictly, held against the bytes that follow.
//!
//! `u64 length || JSON header || tensor data`. The tensors must cover the data exactly, in
//! order, without holes or overlaps; a doubled key, an unknown type or a size that does not
//! fit its shape is refused. Also the index behind `mvault cat --tensor`.

use super::log::{Ctx, Grade};
use super::source::{Halt, Source};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::io;

/// Longest header that is parsed, in bytes: some 60,000 tensors. The reference reader takes
/// 100 MB; memory here is bounded.
pub const MAX_HEADER: u64 = 6 << 20;
/// Longest header the reference reader takes: only up to here does a head look like safetensors.
const REFERENCE_MAX_HEADER: u64 = 100_000_000;
/// Dimensions of one tensor; no framework goes past 64.
const MAX_DIMS: usize = 64;

/// One tensor of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its key.
    pub name: String,
    /// Element type as written, `F32`.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// First byte, counted from the start of the file.
    pub begin: u64,
    /// One past the last byte, counted from the start of the file.
    pub end: u64,
}

/// What is wrong with a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// Longer than [`MAX_HEADER`].
    #[error("header of {0} bytes is longer than {MAX_HEADER}")]
    TooLong(u64),
    /// Not the JSON a header is: bad syntax, a doubled key, a field of the wrong kind.
    #[error("header: {0}")]
    Json(String),
    /// A tensor's element type is unknown.
    #[error("tensor '{name}' has unknown type '{dtype}'")]
    UnknownType {
        /// The tensor.
        name: String,
        /// The type.
        dtype: String,
    },
    /// Shape times element size is not the size of its bytes.
    #[error("tensor '{name}' has {bytes} bytes, not what its shape and type say")]
    Size {
        /// The tensor.
        name: String,
        /// What its offsets span.
        bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("tensor '{name}' overlaps '{before}'")]
    Overlap {
        /// The later tensor.
        name: String,
        /// The one before it.
        before: String,
    },
    /// Bytes before a tensor, or after the last, belong to none.
    #[error("{bytes} bytes at data offset {offset} belong to no tensor")]
    Hole {
        /// Where in the data.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// The tensors need another number of bytes than there are.
    #[error("tensors need {needed} bytes of data, the file has {given}")]
    Length {
        /// What the header says.
        needed: u64,
        /// What is there.
        given: u64,
    },
}

/// Parses a header.
///
/// `header_json` is the JSON alone, `data_len` the number of bytes after it where known. The
/// tensors come in the order of their bytes.
pub fn parse_header(header_json: &[u8], data_len: Option<u64>) -> Result<Vec<Tensor>, SafetensorsError> {
    let base = (header_json.len() as u64).saturating_add(8);
    let mut tensors = Vec::new();
    let spans = walk(header_json, &mut |raw| {
        tensors.push(Tensor {
            name: raw.name.to_owned(),
            dtype: raw.dtype.to_owned(),
            shape: raw.shape.to_vec(),
            begin: base.saturating_add(raw.begin),
            end: base.saturating_add(raw.end),
        });
    })?;
    tensors.sort_by_key(|t| (t.begin, t.end));
    let needed = cover(header_json, spans)?;
    if let Some(given) = data_len.filter(|given| *given != needed) {
        return Err(SafetensorsError::Length { needed, given });
    }
    Ok(tensors)
}

/// Whether a file begins like safetensors: a small length, then a JSON object.
pub(super) fn looks_like(head: &[u8]) -> bool {
    let Some((len, rest)) = head.split_first_chunk::<8>() else { return false };
    rest.first() == Some(&b'{') && (2..=REFERENCE_MAX_HEADER).contains(&u64::from_le_bytes(*len))
}

/// Scans a safetensors stream from its length on.
pub(super) fn scan(ctx: &mut Ctx, src: &mut Source<'_>) -> io::Result<()> {
    let result = checked(src);
    let (grade, what) = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(e @ SafetensorsError::TooLong(_))) => (Grade::NotScanned, e.to_string()),
        Ok(Err(e)) => (Grade::Malformed, format!("malformed: {e}")),
        Err(Halt::Io(e)) => return Err(e),
        Err(Halt::End) => (Grade::Malformed, "malformed: ends inside the header".to_owned()),
        Err(Halt::Bad(what) | Halt::Limit(what)) => (Grade::Malformed, format!("malformed: {what}")),
    };
    ctx.add(grade, &what, 8);
    Ok(())
}

fn checked(src: &mut Source<'_>) -> Result<Result<(), SafetensorsError>, Halt> {
    let len = src.u64()?;
    if len > MAX_HEADER {
        return Ok(Err(SafetensorsError::TooLong(len)));
    }
    let header = src.take(usize::try_from(len).unwrap_or(0))?;
    let needed = walk(&header, &mut |_| {}).and_then(|spans| cover(&header, spans));
    drop(header);
    let needed = match needed {
        Ok(needed) => needed,
        Err(e) => return Ok(Err(e)),
    };
    let given = src.skip_some(needed)?;
    if given < needed {
        return Ok(Err(SafetensorsError::Length { needed, given }));
    }
    if !src.at_end()? {
        return Ok(Err(SafetensorsError::Hole {
            offset: needed,
            bytes: src.peek(super::source::WINDOW)?.len() as u64,
        }));
    }
    Ok(Ok(()))
}

/// The name of the `nth` tensor with these offsets, read again: only for an error's words.
fn name_at(header: &[u8], span: (u64, u64), nth: usize) -> String {
    let (mut name, mut left) = (String::new(), nth);
    let _ = walk(header, &mut |raw| {
        if (raw.begin, raw.end) == span {
            if left == 0 {
                name = super::log::clean(raw.name);
            }
            left = left.wrapping_sub(1);
        }
    });
    name
}

/// Bits of one element.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// Tensors must follow one another from offset 0; returns where the last one ends.
fn cover(header: &[u8], mut spans: Vec<(u64, u64)>) -> Result<u64, SafetensorsError> {
    spans.sort_unstable();
    let mut before = (0, 0);
    let wrong = spans.iter().copied().find_map(|span| {
        let last = std::mem::replace(&mut before, span);
        (span.0 != last.1).then_some((last, span))
    });
    drop(spans);
    match wrong {
        Some((last, span)) if span.0 < last.1 => {
            let name = name_at(header, span, usize::from(span == last));
            Err(SafetensorsError::Overlap { name, before: name_at(header, last, 0) })
        }
        Some((last, span)) => Err(SafetensorsError::Hole { offset: last.1, bytes: span.0 - last.1 }),
        None => Ok(before.1),
    }
}

/// One tensor as it stands in the header, already checked for itself.
struct Raw<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: &'a [u64],
    begin: u64,
    end: u64,
}

type Sink<'a> = &'a mut dyn FnMut(&Raw<'_>);

/// Walks a header; returns the tensors' offsets in header order.
fn walk(json: &[u8], sink: Sink<'_>) -> Result<Vec<(u64, u64)>, SafetensorsError> {
    let mut state = State { spans: Vec::new(), error: None };
    if json.first() != Some(&b'{') {
        return Err(SafetensorsError::Json("does not begin with '{'".to_owned()));
    }
    let mut de = serde_json::Deserializer::from_slice(json);
    let result = Header { state: &mut state, sink }.deserialize(&mut de).and_then(|()| de.end());
    if let Some(error) = state.error {
        return Err(error);
    }
    result.map_err(|e| SafetensorsError::Json(e.to_string()))?;
    Ok(state.spans)
}

struct State {
    spans: Vec<(u64, u64)>,
    error: Option<SafetensorsError>,
}

struct Header<'s, 'k> {
    state: &'s mut State,
    sink: Sink<'k>,
}

impl<'de> DeserializeSeed<'de> for Header<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Header<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Keys by a keyed 64-bit hash: a chance collision could only refuse a good file.
        let hasher = std::collections::hash_map::RandomState::new();
        let mut seen: HashSet<u64> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(std::hash::BuildHasher::hash_one(&hasher, &key)) {
                return Err(A::Error::custom(format!("key '{}' stands twice", super::log::clean(&key))));
            }
            if key == "__metadata__" {
                map.next_value_seed(Metadata)?;
                continue;
            }
            let info = map.next_value_seed(InfoSeed)?;
            match info.check(&key) {
                Ok(()) => {}
                Err(error) => {
                    self.state.error = Some(error);
                    return Err(A::Error::custom("refused"));
                }
            }
            self.state.spans.push((info.begin, info.end));
            (self.sink)(&Raw { name: &key, dtype: &info.dtype, shape: &info.shape, begin: info.begin, end: info.end });
        }
        Ok(())
    }
}

struct Info {
    dtype: String,
    shape: Vec<u64>,
    begin: u64,
    end: u64,
}

impl Info {
    fn check(&self, key: &str) -> Result<(), SafetensorsError> {
        let name = super::log::clean(key);
        let Some(bits) = bits(&self.dtype) else {
            return Err(SafetensorsError::UnknownType { name, dtype: super::log::clean(&self.dtype) });
        };
        let all = self.shape.iter().try_fold(bits, |n, dim| n.checked_mul(*dim));
        let bytes = self.end.checked_sub(self.begin);
        match (all, bytes) {
            (Some(all), Some(bytes)) if all % 8 == 0 && all / 8 == bytes => Ok(()),
            _ => Err(SafetensorsError::Size { name, bytes: bytes.unwrap_or(0) }),
        }
    }
}

struct InfoSeed;

impl<'de> DeserializeSeed<'de> for InfoSeed {
    type Value = Info;
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Info, D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InfoSeed {
    type Value = Info;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Info, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let doubled = match key.as_str() {
                "dtype" => dtype.replace(map.next_value::<String>()?).is_some(),
                "shape" => shape.replace(map.next_value::<Vec<u64>>()?).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<(u64, u64)>()?).is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    return Err(A::Error::custom(format!("unknown field '{}'", super::log::clean(&key))));
                }
            };
            if doubled {
                return Err(A::Error::custom("a field stands twice"));
            }
        }
        match (dtype, shape, offsets) {
            (Some(dtype), Some(shape), Some((begin, end))) if shape.len() <= MAX_DIMS => {
                Ok(Info { dtype, shape, begin, end })
            }
            (Some(_), Some(_), Some(_)) => Err(A::Error::custom("too many dimensions")),
            _ => Err(A::Error::custom("a tensor without dtype, shape or data_offsets")),
        }
    }
}

/// `__metadata__`: texts by text.
struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, String>()? {
            if !seen.insert(key) {
                return Err(A::Error::custom("a metadata key stands twice"));
            }
        }
        Ok(())
    }
}
