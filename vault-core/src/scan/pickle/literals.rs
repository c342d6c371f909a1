//! Opcodes that push a number or a text, and the ways Python writes both.
//!
//! Only short texts are kept, and only when they stand there as they read: one with an escape
//! in it is a text whose name nobody knows, which no global may have.

use super::machine::Machine;
use super::values::{MAX_NAME, Val};
use crate::scan::source::{Halt, Source, bad};

/// torch's legacy magic number 0x1950a86a20f9469cfc6c, as LONG1 holds it.
const TORCH_MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

impl Machine {
    pub fn number(&mut self, src: &mut Source<'_>, op: u8) -> Result<(), Halt> {
        let val = match op {
            b'N' => Val::None,
            0x88 => Val::Bool(true),
            0x89 => Val::Bool(false),
            b'I' => match src.line(MAX_NAME)?.0.as_slice() {
                b"00" => Val::Bool(false),
                b"01" => Val::Bool(true),
                text => integer(text)?,
            },
            b'L' => integer(&src.line(MAX_NAME)?.0)?,
            b'J' => Val::Int(i64::from(i32::from_le_bytes(src.array()?))),
            b'K' => Val::Int(i64::from(src.byte()?)),
            b'M' => Val::Int(i64::from(src.u16()?)),
            0x8a | 0x8b => {
                let len = if op == 0x8a { u64::from(src.byte()?) } else { positive(src.u32()?)? };
                long(src, len)?
            }
            b'F' => {
                let (text, _) = src.line(MAX_NAME)?;
                if !c_string(&text).iter().all(|b| b"0123456789+-._eEinfatyINFATY \t\r".contains(b)) {
                    return bad("not a number");
                }
                Val::Plain
            }
            _ => {
                src.array::<8>()?;
                Val::Plain
            }
        };
        self.push(val);
        Ok(())
    }

    pub fn string(&mut self, src: &mut Source<'_>, op: u8) -> Result<(), Halt> {
        let len = match op {
            b'S' | b'V' => return self.text_line(src, op),
            b'U' | 0x8c | b'C' => u64::from(src.byte()?),
            b'T' => positive(src.u32()?)?,
            b'X' | b'B' => u64::from(src.u32()?),
            _ => length(src.u64()?)?,
        };
        let bytes = matches!(op, b'B' | b'C' | 0x8e | 0x96);
        let val = match usize::try_from(len) {
            Ok(n) if n <= MAX_NAME && !bytes => {
                let raw = src.take(n)?;
                std::str::from_utf8(&raw).map_or(Val::Opaque, |text| self.arena.text(text))
            }
            _ => {
                src.skip_exact(len)?;
                if bytes { Val::Plain } else { Val::Opaque }
            }
        };
        self.push(val);
        Ok(())
    }

    /// STRING and UNICODE of protocol 0. With an escape in it the text is not known.
    fn text_line(&mut self, src: &mut Source<'_>, op: u8) -> Result<(), Halt> {
        let (line, whole) = src.line(MAX_NAME)?;
        let text = match (op, line.as_slice()) {
            (b'V', text) => Some(text),
            (_, _) if !whole => None,
            (_, [b'\'', text @ .., b'\''] | [b'"', text @ .., b'"']) => Some(text),
            (_, _) => return bad("the STRING opcode argument must be quoted"),
        };
        let plain = text.filter(|t| whole && !t.contains(&b'\\')).and_then(|t| std::str::from_utf8(t).ok());
        let val = plain.map_or(Val::Opaque, |text| self.arena.text(text));
        self.push(val);
        Ok(())
    }
}

/// A length that a loader accepts.
pub(super) fn length(n: u64) -> Result<u64, Halt> {
    if i64::try_from(n).is_ok() { Ok(n) } else { bad("length past the address space") }
}

/// A signed 32-bit length.
fn positive(n: u32) -> Result<u64, Halt> {
    if i32::try_from(n).is_ok() { Ok(u64::from(n)) } else { bad("negative length") }
}

/// LONG1 and LONG4: little-endian two's complement.
fn long(src: &mut Source<'_>, len: u64) -> Result<Val, Halt> {
    let n = usize::try_from(len).unwrap_or(usize::MAX);
    if n > TORCH_MAGIC.len() {
        src.skip_exact(len)?;
        return Ok(Val::Plain);
    }
    let raw = src.take(n)?;
    if raw == TORCH_MAGIC {
        return Ok(Val::Magic);
    }
    if n > 8 {
        return Ok(Val::Plain);
    }
    let fill = if raw.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    for (to, from) in wide.iter_mut().zip(&raw) {
        *to = *from;
    }
    Ok(Val::Int(i64::from_le_bytes(wide)))
}

/// A number in text. CPython's C code reads it as a C string, up to a zero byte, and takes an
/// empty one for 0; spellings beyond plain decimal (hex, underscores) are plain data here.
pub(super) fn integer(text: &[u8]) -> Result<Val, Halt> {
    let text = c_string(text);
    let text = text.strip_suffix(b"L").unwrap_or(text);
    if let Some(n) = std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok()) {
        return Ok(Val::Int(n));
    }
    let odd = text.iter().all(|b| b.is_ascii_hexdigit() || b"xXoObBlL_+- \t\r\x0b\x0c".contains(b));
    if odd { Ok(Val::Plain) } else { bad("not a number") }
}

/// A text up to its first zero byte.
fn c_string(text: &[u8]) -> &[u8] {
    text.split(|b| *b == 0).next().unwrap_or_default()
}
