//! Tensors of two sides, matched and read side by side: each once, in the order of B's bytes.

use super::values::{Change, Pair, Single, Statistics};
use super::window::Window;
use super::{CompareError, Entry, MAX_TENSORS, Result, Side, Status, TensorChange, qualified};
use crate::Error;
use crate::scan::safetensors::{MAX_HEADER, SafetensorsError, Tensor, parse_header};
use std::collections::{HashMap, HashSet};

/// The tensors of a side, and where they are.
pub(super) struct Tensors<'a> {
    side: Side,
    entries: &'a [Entry<'a>],
    /// Entry index and tensor, in the order of the bytes.
    all: Vec<(usize, Tensor)>,
    keys: Vec<String>,
    by_key: HashMap<String, usize>,
}

impl<'a> Tensors<'a> {
    pub(super) fn of(entries: &'a [Entry<'a>], side: Side) -> Result<Self> {
        let mut all = Vec::new();
        for (index, entry) in entries.iter().enumerate().filter(|(_, e)| e.has_tensors()) {
            all.extend(tensors_of(entry, side)?.into_iter().map(|t| (index, t)));
            if all.len() > MAX_TENSORS {
                return Err(CompareError::TooMany { side });
            }
        }
        Ok(Self { side, entries, all, keys: Vec::new(), by_key: HashMap::new() })
    }

    /// Names that several of its tensors have.
    pub(super) fn doubled(&self) -> impl Iterator<Item = String> {
        let mut times: HashMap<&str, u32> = HashMap::new();
        for (_, tensor) in &self.all {
            *times.entry(&tensor.name).or_default() += 1;
        }
        times.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name.to_owned())
    }

    /// Matched by name, or by file and name where the name is `doubled` on either side.
    pub(super) fn with_keys(mut self, doubled: &HashSet<String>) -> Self {
        let key = |(entry, tensor): &(usize, Tensor)| match self.entries.get(*entry) {
            Some(entry) if doubled.contains(&tensor.name) => qualified(&entry.path, &tensor.name),
            _ => tensor.name.clone(),
        };
        self.keys = self.all.iter().map(key).collect();
        self.by_key = self.keys.iter().cloned().enumerate().map(|(i, k)| (k, i)).collect();
        self
    }

    fn get(&self, index: usize) -> Option<(&'a Entry<'a>, &Tensor)> {
        let (entry, tensor) = self.all.get(index)?;
        Some((self.entries.get(*entry)?, tensor))
    }
}

/// The tensors of a safetensors entry, from its header, which is checked.
fn tensors_of(entry: &Entry<'_>, side: Side) -> Result<Vec<Tensor>> {
    let failed = |error: SafetensorsError| CompareError::Header { side, path: entry.path.clone(), error };
    let read = |range: std::ops::Range<u64>| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = entry.bytes.read(range, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        read.map_err(|error| CompareError::Read { side, path: entry.path.clone(), error })?;
        Ok(bytes)
    };
    let head = if entry.size < 8 { Vec::new() } else { read(0..8)? };
    let Some(len) = head.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
        return Err(failed(SafetensorsError::Length { needed: 8, given: entry.size }));
    };
    if len > MAX_HEADER {
        return Err(failed(SafetensorsError::TooLong(len)));
    }
    let end = len + 8;
    if end > entry.size {
        return Err(failed(SafetensorsError::Length { needed: end, given: entry.size }));
    }
    parse_header(&read(8..end)?, Some(entry.size - end)).map_err(failed)
}

/// Goes through both sides' tensors.
pub(super) struct Walk<'t, 'a> {
    a: &'t Tensors<'a>,
    b: &'t Tensors<'a>,
    /// One window a side, on the entry that is read.
    windows: [Option<(usize, Window<'a>)>; 2],
    progress: &'t dyn Fn(u64),
}

impl<'t, 'a> Walk<'t, 'a> {
    /// `progress` is told bytes.
    pub(super) fn new(a: &'t Tensors<'a>, b: &'t Tensors<'a>, progress: &'t dyn Fn(u64)) -> Self {
        Self { a, b, windows: [None, None], progress }
    }

    /// The tensors of B in the order of its bytes, then those that are only in A.
    pub(super) fn run(mut self) -> Result<Vec<TensorChange>> {
        let (a, b) = (self.a, self.b);
        let mut changes = Vec::with_capacity(b.all.len());
        for (index, key) in b.keys.iter().enumerate() {
            changes.extend(self.change(key, a.by_key.get(key).copied(), Some(index))?);
        }
        for (index, key) in a.keys.iter().enumerate().filter(|(_, k)| !b.by_key.contains_key(*k)) {
            changes.extend(self.change(key, Some(index), None)?);
        }
        Ok(changes)
    }

    fn change(&mut self, key: &str, a: Option<usize>, b: Option<usize>) -> Result<Option<TensorChange>> {
        let sides = [a.and_then(|i| self.a.get(i)), b.and_then(|i| self.b.get(i))];
        let Some(name) = sides.iter().flatten().last().map(|(_, t)| t.name.clone()) else { return Ok(None) };
        let mut change = TensorChange {
            name,
            key: key.to_owned(),
            entries: sides.map(|s| s.map(|(e, _)| e.path.clone())),
            status: Status::Added,
            dtypes: sides.map(|s| s.map(|(_, t)| t.dtype.clone())),
            shapes: sides.map(|s| s.map(|(_, t)| t.shape.clone())),
            statistics: [None, None],
            change: None,
        };
        match (a.zip(sides[0]), b.zip(sides[1])) {
            (Some((a, (_, of_a))), Some((b, (_, of_b)))) if of_a.dtype == of_b.dtype && of_a.shape == of_b.shape => {
                let (before, after, values) = self.pair((a, of_a), (b, of_b))?;
                change.status = if values.changed == 0 { Status::Same } else { Status::Changed };
                change.statistics = [Some(before), Some(after)];
                change.change = Some(values);
            }
            (a, b) => {
                change.status = match (&a, &b) {
                    (None, _) => Status::Added,
                    (_, None) => Status::Removed,
                    (Some((_, (_, a))), Some((_, (_, b)))) if a.dtype == b.dtype => Status::Shape,
                    _ => Status::Type,
                };
                let before = a.map(|(i, (_, t))| self.single(Side::A, i, t)).transpose()?;
                let after = b.map(|(i, (_, t))| self.single(Side::B, i, t)).transpose()?;
                change.statistics = [before, after];
            }
        }
        Ok(Some(change))
    }

    /// Reads two tensors of one type and shape side by side.
    fn pair(
        &mut self,
        (a, of_a): (usize, &Tensor),
        (b, of_b): (usize, &Tensor),
    ) -> Result<(Statistics, Statistics, Change)> {
        let mut pair = Pair::new(&of_b.dtype);
        let (tensors_a, tensors_b, progress) = (self.a, self.b, self.progress);
        let [window_a, window_b] = &mut self.windows;
        let (mut done, len) = (0, of_b.end - of_b.begin);
        while done < len {
            let from_a = bytes(window_a, tensors_a, a, of_a.begin + done, of_a.end)?;
            let from_b = bytes(window_b, tensors_b, b, of_b.begin + done, of_b.end)?;
            let n = from_a.len().min(from_b.len());
            pair.push(from_a.get(..n).unwrap_or_default(), from_b.get(..n).unwrap_or_default());
            done += n as u64;
            progress(2 * n as u64);
        }
        Ok(pair.finish())
    }

    fn single(&mut self, side: Side, index: usize, tensor: &Tensor) -> Result<Statistics> {
        let mut single = Single::new(&tensor.dtype);
        let tensors = if side == Side::A { self.a } else { self.b };
        let [a, b] = &mut self.windows;
        let window = if side == Side::A { a } else { b };
        let mut at = tensor.begin;
        while at < tensor.end {
            let piece = bytes(window, tensors, index, at, tensor.end)?;
            single.push(piece);
            at += piece.len() as u64;
            (self.progress)(piece.len() as u64);
        }
        Ok(single.finish())
    }
}

/// Bytes `from` on of the entry that tensor `index` is in, none past `to`.
fn bytes<'w, 'a>(
    window: &'w mut Option<(usize, Window<'a>)>,
    tensors: &Tensors<'a>,
    index: usize,
    from: u64,
    to: u64,
) -> Result<&'w [u8]> {
    let Some(((number, _), (entry, _))) = tensors.all.get(index).zip(tensors.get(index)) else { return Ok(&[]) };
    if window.as_ref().is_none_or(|(of, _)| of != number) {
        *window = Some((*number, Window::new(&*entry.bytes, entry.size)));
    }
    let failed = |error| CompareError::Read { side: tensors.side, path: entry.path.clone(), error };
    let Some((_, window)) = window else { return Ok(&[]) };
    let bytes: crate::Result<&[u8]> = window.at(from, to);
    match bytes {
        Ok([]) => {
            Err(failed(Error::Io { context: "read a tensor".into(), source: std::io::ErrorKind::UnexpectedEof.into() }))
        }
        other => other.map_err(failed),
    }
}
