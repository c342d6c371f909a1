//! The payload plaintext: FORMAT.md section 6. Table block, entries at multiples of 4 KiB, manifest, trailer.
//!
//! [`Layout`] says which entry a plaintext range belongs to; sealing and opening walk it in the same way.

use crate::cbor;
use crate::error::{Result, refused, require};
use crate::geometry::MAX_CHUNKS;
use crate::header::CHUNK_SIZES;
use crate::manifest::{Manifest, Table};
use std::ops::Range;

/// Entries start at multiples of this.
pub const ALIGN: u64 = 4096;
/// Bytes of the trailer.
pub const TRAILER_LEN: u64 = 16;
/// Largest encoded table `[F-27]`.
pub const MAX_TABLE: u32 = 4 * 1024 * 1024;
/// Largest manifest `[F-27]`.
pub const MAX_MANIFEST: u64 = 8 * 1024 * 1024;
/// Largest manifest of an artifact whose entry size was not known `[F-27]`.
pub const MAX_MANIFEST_UNSIZED: u64 = 65_536;
/// What a streaming reader of an entry of unknown size holds back.
pub const HOLD_BACK: u64 = MAX_MANIFEST_UNSIZED + TRAILER_LEN + ALIGN;
const TRAILER_MAGIC: [u8; 8] = *b"mvault-m";

/// Where everything lies.
#[derive(Debug, Clone)]
pub struct Layout {
    table_block: u64,
    spans: Vec<Span>,
}

#[derive(Debug, Clone)]
struct Span {
    offset: u64,
    size: Option<u64>,
}

/// One piece of a plaintext range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Bytes of the table block.
    Table,
    /// Bytes `at..` of entry `index`.
    Entry { index: usize, at: u64 },
    /// Zeros.
    Padding,
    /// The manifest or trailer, or beyond.
    Tail,
}

impl Layout {
    /// The layout of a checked table.
    pub(crate) fn of(table: &Table) -> Result<Self> {
        let encoded = cbor::encode(table).len() as u64;
        let table_block = (4 + encoded).next_multiple_of(ALIGN);
        let mut spans = Vec::with_capacity(table.entries.len());
        let mut offset = table_block;
        for entry in &table.entries {
            spans.push(Span { offset, size: entry.size.0 });
            // An unknown size is the last (F-29); it starts where it starts.
            if let Some(size) = entry.size.0 {
                offset = end_of(24, offset, size)?;
            }
        }
        Ok(Self { table_block, spans })
    }

    /// Length of the table block.
    pub(crate) fn table_block(&self) -> u64 {
        self.table_block
    }

    /// First byte of entry `index`.
    pub(crate) fn offset(&self, index: usize) -> u64 {
        self.spans.get(index).map_or(0, |s| s.offset)
    }

    /// Size of entry `index`, if known.
    pub(crate) fn size(&self, index: usize) -> Option<u64> {
        self.spans.get(index)?.size
    }

    /// Tells the size of the one entry that had none.
    pub(crate) fn set_size(&mut self, size: u64) -> Result<()> {
        if let Some(span) = self.spans.last_mut() {
            end_of(29, span.offset, size)?;
            span.size = Some(size);
        }
        Ok(())
    }

    /// M: where the manifest starts, if all sizes are known.
    pub(crate) fn manifest_offset(&self) -> Option<u64> {
        let last = self.spans.last()?;
        Some((last.offset + last.size?).next_multiple_of(ALIGN))
    }

    /// The first entry that ends after `at`.
    pub(crate) fn index(&self, at: u64) -> usize {
        self.spans.partition_point(|s| s.size.is_some_and(|n| s.offset + n <= at))
    }

    /// Cuts a plaintext range into parts, in order.
    pub(crate) fn parts(&self, range: Range<u64>) -> Vec<(Part, Range<u64>)> {
        let mut parts = Vec::new();
        let mut at = range.start;
        let mut index = self.index(at);
        while at < range.end {
            let (part, until) = if at < self.table_block {
                (Part::Table, self.table_block)
            } else if let Some(span) = self.spans.get(index) {
                let end = span.size.map_or(u64::MAX, |n| span.offset + n);
                if at < span.offset {
                    (Part::Padding, span.offset)
                } else if at < end {
                    (Part::Entry { index, at: at - span.offset }, end)
                } else {
                    index += 1; // an empty entry
                    continue;
                }
            } else {
                match self.manifest_offset() {
                    Some(m) if at < m => (Part::Padding, m),
                    _ => (Part::Tail, u64::MAX),
                }
            };
            let until = until.min(range.end);
            parts.push((part, at..until));
            at = until;
        }
        parts
    }
}

/// The padded end of an entry; refused under `rule` if no artifact can be so long. Sums with it cannot overflow.
fn end_of(rule: u8, offset: u64, size: u64) -> Result<u64> {
    let end = offset.checked_add(size).and_then(|end| end.checked_next_multiple_of(ALIGN));
    let end = end.filter(|end| *end <= MAX_CHUNKS * u64::from(*CHUNK_SIZES.end()));
    end.ok_or_else(|| refused(rule, format!("an entry of {size} bytes is larger than an artifact can be")))
}

/// The table block of a table.
pub(crate) fn encode_table(table: &Table) -> Result<Vec<u8>> {
    let map = cbor::encode(table);
    let len = u32::try_from(map.len()).unwrap_or(u32::MAX);
    check_table_len(len)?;
    let mut block = len.to_be_bytes().to_vec();
    block.extend_from_slice(&map);
    let padded = (block.len() as u64).next_multiple_of(ALIGN);
    block.resize(usize::try_from(padded).unwrap_or(block.len()), 0);
    Ok(block)
}

/// `[F-27]` for the table.
pub(crate) fn check_table_len(len: u32) -> Result<()> {
    require(len <= MAX_TABLE, 27, || format!("table of {len} bytes; the limit is {MAX_TABLE}"))
}

/// Manifest and trailer.
pub(crate) fn encode_tail(manifest: &Manifest) -> Vec<u8> {
    let mut tail = cbor::encode(manifest);
    let len = tail.len() as u64;
    tail.extend_from_slice(&TRAILER_MAGIC);
    tail.extend_from_slice(&len.to_be_bytes());
    tail
}

/// The manifest's length in a trailer, for a payload of `plain_len` bytes `[F-27]`.
pub(crate) fn parse_trailer(trailer: &[u8], plain_len: u64, unsized_entry: bool) -> Result<u64> {
    let parsed = trailer
        .split_first_chunk::<8>()
        .and_then(|(magic, len)| (*magic == TRAILER_MAGIC).then_some(u64::from_be_bytes(len.try_into().ok()?)));
    let len = parsed.ok_or_else(|| refused(27, "the payload does not end in a manifest trailer"))?;
    let max = if unsized_entry { MAX_MANIFEST_UNSIZED } else { MAX_MANIFEST };
    require(len <= max && len <= plain_len.saturating_sub(TRAILER_LEN), 27, || {
        format!("manifest of {len} bytes in a payload of {plain_len}; the limit is {max}")
    })?;
    Ok(len)
}

/// `[F-28]`
pub(crate) fn check_padding(bytes: &[u8]) -> Result<()> {
    require(bytes.iter().all(|b| *b == 0), 28, || "padding is not zero".into())
}

/// Compares manifest and table `[F-35]`, after the sizes of the layout are known.
pub(crate) fn check_agreement(table: &Table, layout: &Layout, manifest: &Manifest) -> Result<()> {
    let same = table.entries.len() == manifest.entries.len()
        && table.entries.iter().zip(&manifest.entries).enumerate().all(|(i, (t, m))| {
            t.path == m.path
                && table.sha256 == m.sha256.is_some()
                && layout.size(i) == Some(m.size)
                && layout.offset(i) == m.offset
        });
    require(same, 35, || "the manifest's entries are not those of the table".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::Nullable;
    use crate::manifest::TableEntry;

    #[test]
    fn parts_cover_every_byte_once() {
        let sizes = [0_u64, 1, 4096, 0, 5000, 0];
        let entries =
            sizes.iter().enumerate().map(|(i, s)| TableEntry { path: i.to_string(), size: Nullable(Some(*s)) });
        let layout = Layout::of(&Table { entries: entries.collect(), sha256: false }).unwrap();
        let end = layout.manifest_offset().unwrap();
        assert_eq!(end, 4096 + 4096 + 4096 + 8192);
        for start in [0, 1, 4096, 4097, 8191, 8192, 12_288, 12_289, 17_288, 20_480] {
            let mut at = start;
            for (part, range) in layout.parts(start..end + 100) {
                assert_eq!(range.start, at, "{part:?}");
                assert!(range.end > range.start);
                at = range.end;
            }
            assert_eq!(at, end + 100);
        }
        let last = layout.parts(12_288..17_300);
        assert_eq!(last[0], (Part::Entry { index: 4, at: 0 }, 12_288..17_288));
        assert_eq!(last[1].0, Part::Padding);
    }
}
