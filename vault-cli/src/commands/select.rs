//! One entry, range or tensor out of an artifact that arrives through a pipe: everything is read and verified,
//! only what was asked for is printed, as it is verified.

use super::cat::Part;
use std::io::{Error, Write};
use std::ops::Range;
use vault_core::open::OrderedSink;
use vault_core::scan::safetensors::{MAX_HEADER, parse_header};

/// Prints a part of one entry.
pub struct Select<W> {
    entry: Option<String>,
    part: Part,
    out: W,
    index: usize,
    range: Option<Range<u64>>,
    /// The front of a safetensors file, until its header is complete.
    head: Vec<u8>,
}

impl<W: Write + Send> Select<W> {
    /// `entry` may be left out if there is only one.
    pub fn new(entry: Option<String>, part: Part, out: W) -> Self {
        Self { entry, part, out, index: 0, range: None, head: Vec::new() }
    }

    /// The range of the tensor, once `head` holds the whole header.
    fn find_tensor(&mut self, name: &str, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if offset == self.head.len() as u64 {
            self.head.extend_from_slice(data);
        }
        let Some(len) = self.head.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else { return Ok(()) };
        if len > MAX_HEADER {
            return Err(Error::other("not a safetensors file"));
        }
        let Some(json) = usize::try_from(len).ok().and_then(|len| self.head.get(8..8 + len)) else { return Ok(()) };
        let tensors = parse_header(json, None).map_err(Error::other)?;
        let tensor = tensors.into_iter().find(|t| t.name == name);
        let tensor =
            tensor.ok_or_else(|| Error::other("no such tensor; `mvault cat --tensors` lists those of a file"))?;
        self.range = Some(tensor.begin..tensor.end);
        Ok(())
    }
}

impl<W: Write + Send> OrderedSink for Select<W> {
    fn begin(&mut self, entries: &[(String, Option<u64>)]) -> std::io::Result<()> {
        let index = match (&self.entry, entries) {
            (Some(path), _) => entries.iter().position(|(p, _)| p == path),
            (None, [_]) => Some(0),
            (None, _) => return Err(Error::other(format!("{} files in it; name one", entries.len()))),
        };
        self.index = index.ok_or_else(|| Error::other("no such file in it"))?;
        let size = entries.get(self.index).and_then(|(_, size)| *size);
        self.range = match &self.part {
            Part::Tensor(_) => None,
            Part::Whole => Some(0..u64::MAX),
            Part::Range(text) => {
                Some(super::cat::parse_range(text, size).map_err(|e| Error::other(e.message().to_owned()))?)
            }
        };
        Ok(())
    }

    fn write(&mut self, index: usize, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if index != self.index {
            return Ok(());
        }
        if let (Part::Tensor(name), None) = (&self.part, &self.range) {
            let name = name.clone();
            self.find_tensor(&name, offset, data)?;
        }
        let Some(range) = &self.range else { return Ok(()) };
        let from = usize::try_from(range.start.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
        let to = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(usize::MAX).min(data.len());
        self.out.write_all(data.get(from..to).unwrap_or_default())
    }

    fn end(&mut self) -> std::io::Result<()> {
        if self.range.is_none() {
            return Err(Error::other("not a safetensors file"));
        }
        self.out.flush()
    }
}
