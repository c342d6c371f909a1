//! ONNX: a walk over the protobuf wire of a ModelProto, one pass, an explicit stack.
//!
//! Checks that lengths nest, that there is a graph, that a tensor's raw bytes are what its
//! dimensions and type say, and that external data stays inside the model's folder. Weights
//! are skipped, nothing is kept but the open messages.

use super::log::{Ctx, Grade};
use super::source::{Halt, Source, bad, limit};
use std::io;

/// Messages inside messages: a graph inside an attribute inside a node is three.
const MAX_NESTING: usize = 64;
/// Longest key and path of external data, in bytes.
const MAX_PATH: u64 = 4096;
/// Versions of the format that a head may state to be taken for ONNX without the name.
const IR_VERSIONS: std::ops::RangeInclusive<u8> = 3..=32;
/// Longest producer name in such a head.
const MAX_PRODUCER: usize = 64;

/// Messages that are looked into; all others are skipped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Function,
    Training,
    External,
}

/// The message in a field, if it is one to look into.
fn child(kind: Kind, field: u64) -> Option<Kind> {
    Some(match (kind, field) {
        (Kind::Model, 7) | (Kind::Attribute, 6 | 11) | (Kind::Training, 1 | 2) => Kind::Graph,
        (Kind::Model, 20) => Kind::Training,
        (Kind::Model, 25) => Kind::Function,
        (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
        (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
        (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Kind::Sparse,
        (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
        (Kind::Tensor, 13) => Kind::External,
        _ => return None,
    })
}

/// One open message.
struct Frame {
    kind: Kind,
    end: Option<u64>,
    /// Of a tensor: product of its dimensions, type, raw bytes.
    elements: Option<u64>,
    data_type: u64,
    raw: Option<u64>,
    /// Of an external-data entry.
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Frame {
    fn new(kind: Kind, end: Option<u64>) -> Self {
        Self { kind, end, elements: Some(1), data_type: 0, raw: None, key: Vec::new(), value: Vec::new() }
    }
}

/// Whether a head is a ModelProto: its version, then the producer's name or the graph.
pub(super) fn looks_like(head: &[u8]) -> bool {
    match head {
        [8, version, 0x12, len, rest @ ..] if IR_VERSIONS.contains(version) => {
            let len = usize::from(*len);
            let text = rest.get(..len).filter(|_| (1..=MAX_PRODUCER).contains(&len));
            text.is_some_and(|text| text.iter().all(|b| (0x20..0x7f).contains(b)))
        }
        [8, version, 0x3a, rest @ ..] => IR_VERSIONS.contains(version) && rest.len() > 16,
        _ => false,
    }
}

/// Scans an ONNX stream.
pub(super) fn scan(ctx: &mut Ctx, src: &mut Source<'_>) -> io::Result<()> {
    let what = match walk(src) {
        Ok(()) => return Ok(()),
        Err(Halt::Io(e)) => return Err(e),
        Err(Halt::End) => "a field ends past the end of the file".to_owned(),
        Err(Halt::Bad(what) | Halt::Limit(what)) => what,
    };
    ctx.add(Grade::Malformed, &format!("malformed: ONNX: {what}"), src.offset());
    Ok(())
}

fn walk(src: &mut Source<'_>) -> Result<(), Halt> {
    let mut stack = vec![Frame::new(Kind::Model, None)];
    let mut graphs = 0_u64;
    while let Some(top) = stack.last_mut() {
        let over = match top.end {
            Some(end) if src.offset() > end => return bad("a field runs past its message"),
            Some(end) => src.offset() == end,
            None => src.at_end()?,
        };
        if over {
            finished(top)?;
            stack.pop();
            continue;
        }
        if let Some(frame) = field(src, top)? {
            graphs += u64::from(frame.kind == Kind::Graph && stack.len() == 1);
            if stack.len() >= MAX_NESTING {
                return limit("messages nested too deep");
            }
            stack.push(frame);
        }
    }
    if graphs == 0 { bad("no graph") } else { Ok(()) }
}

/// Reads one field; returns the message it opens.
fn field(src: &mut Source<'_>, top: &mut Frame) -> Result<Option<Frame>, Halt> {
    let tag = varint(src)?;
    let (number, wire) = (tag >> 3, tag & 7);
    if number == 0 || number > 0x1fff_ffff {
        return bad(format!("field number {number}"));
    }
    match wire {
        0 => {
            let value = varint(src)?;
            if top.kind == Kind::Tensor {
                match number {
                    1 => top.elements = top.elements.and_then(|n| n.checked_mul(value)),
                    2 => top.data_type = value,
                    _ => {}
                }
            }
        }
        1 => drop(src.array::<8>()?),
        5 => drop(src.array::<4>()?),
        2 => return message(src, top, number),
        _ => return bad(format!("wire type {wire}")),
    }
    Ok(None)
}

fn message(src: &mut Source<'_>, top: &mut Frame, number: u64) -> Result<Option<Frame>, Halt> {
    let len = varint(src)?;
    let Some(end) = src.offset().checked_add(len).filter(|end| i64::try_from(*end).is_ok()) else {
        return bad("a length past the address space");
    };
    if top.end.is_some_and(|outer| end > outer) {
        return bad("a field runs past its message");
    }
    if let Some(kind) = child(top.kind, number) {
        return Ok(Some(Frame::new(kind, Some(end))));
    }
    match (top.kind, number) {
        (Kind::Tensor, 1) => {
            while src.offset() < end {
                let dim = varint(src)?;
                top.elements = top.elements.and_then(|n| n.checked_mul(dim));
            }
        }
        (Kind::Tensor, 9) => {
            if top.raw.replace(len).is_some() {
                return bad("a tensor with raw bytes twice");
            }
            src.skip_exact(len)?;
        }
        (Kind::External, 1 | 2) => {
            if len > MAX_PATH {
                return bad("an overlong path of external data");
            }
            let text = src.take(usize::try_from(len).unwrap_or(0))?;
            if number == 1 { top.key = text } else { top.value = text }
        }
        _ => src.skip_exact(len)?,
    }
    Ok(None)
}

/// Checks a message once all its fields are known.
fn finished(frame: &Frame) -> Result<(), Halt> {
    if frame.kind == Kind::External && frame.key == b"location" {
        let path = std::str::from_utf8(&frame.value).unwrap_or("/");
        if !inside(path) {
            return bad(format!("external data outside of the model's folder: '{path}'"));
        }
    }
    if let (Kind::Tensor, Some(raw)) = (frame.kind, frame.raw) {
        let Some(bits) = bits(frame.data_type) else {
            return bad(format!("raw bytes of a tensor of type {}", frame.data_type));
        };
        let needed = frame.elements.and_then(|n| n.checked_mul(bits)).map(|n| n.div_ceil(8));
        if needed != Some(raw) {
            return bad(format!("a tensor with {raw} raw bytes, not what its dimensions and type say"));
        }
    }
    Ok(())
}

/// A relative path that stays where it is.
fn inside(path: &str) -> bool {
    let strange = path.is_empty() || path.contains(['\\', ':', '\0']) || path.starts_with('/');
    !strange && path.split('/').all(|part| part != "..")
}

/// Bits of one element of each type.
fn bits(data_type: u64) -> Option<u64> {
    Some(match data_type {
        2 | 3 | 9 | 17..=20 | 24 => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        21..=23 => 4,
        25 | 26 => 2,
        _ => return None,
    })
}

fn varint(src: &mut Source<'_>) -> Result<u64, Halt> {
    let mut value = 0_u64;
    for shift in 0..10_u32 {
        let byte = src.byte()?;
        value |= u64::from(byte & 0x7f).wrapping_shl(shift * 7);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bad("an overlong number")
}
