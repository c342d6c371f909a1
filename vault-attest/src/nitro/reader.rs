//! CBOR heads in their shortest form only, on minicbor's decoder: no tree, no recursion, no allocation.

use crate::step::{Refusal, Step};
use minicbor::Decoder;
use minicbor::data::Type;

/// Reads one item after another and refuses what is not what was asked for: as one step what is no CBOR of the form
/// wanted, as another what is of the wrong type.
pub(crate) struct Reader<'a> {
    decoder: Decoder<'a>,
    form: Step,
    kinds: Step,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], form: Step) -> Self {
        Self { decoder: Decoder::new(bytes), form, kinds: form }
    }

    /// The step that items of a wrong type break from here on.
    pub fn set_kinds(&mut self, step: Step) {
        self.kinds = step;
    }

    pub fn position(&self) -> usize {
        self.decoder.position()
    }

    /// Takes exactly these bytes.
    pub fn literal(&mut self, bytes: &[u8], what: &str, step: Step) -> Result<(), Refusal> {
        let at = self.position();
        let rest = self.decoder.input().get(at..).unwrap_or_default();
        if !rest.starts_with(bytes) {
            if bytes.starts_with(rest) {
                return Err(Refusal::new(self.form, what, super::hex(bytes), "the end of the bytes"));
            }
            let found = rest.get(..bytes.len().min(rest.len())).unwrap_or_default();
            return Err(Refusal::new(step, what, super::hex(bytes), super::hex(found)));
        }
        self.decoder.set_position(at + bytes.len());
        Ok(())
    }

    pub fn bytes(&mut self, what: &str) -> Result<&'a [u8], Refusal> {
        self.expect(what, "a byte string", |t| t == Type::Bytes)?;
        let at = self.position();
        let bytes = self.decoder.bytes().map_err(|_| self.broken(what))?;
        self.shortest(what, at, bytes.len() as u64, bytes.len())?;
        Ok(bytes)
    }

    pub fn text(&mut self, what: &str) -> Result<&'a str, Refusal> {
        self.expect(what, "text", |t| t == Type::String)?;
        let at = self.position();
        let text = self.decoder.str().map_err(|_| self.broken(what))?;
        self.shortest(what, at, text.len() as u64, text.len())?;
        Ok(text)
    }

    pub fn unsigned(&mut self, what: &str) -> Result<u64, Refusal> {
        self.expect(what, "an unsigned integer", |t| matches!(t, Type::U8 | Type::U16 | Type::U32 | Type::U64))?;
        let at = self.position();
        let n = self.decoder.u64().map_err(|_| self.broken(what))?;
        self.shortest(what, at, n, 0)?;
        Ok(n)
    }

    /// Bytes, or nothing for null.
    pub fn bytes_or_null(&mut self, what: &str) -> Result<&'a [u8], Refusal> {
        if self.kind() == Some(Type::Null) {
            self.decoder.null().map_err(|_| self.broken(what))?;
            return Ok(&[]);
        }
        self.bytes(what)
    }

    /// The head of an array: its length, or `None` if it is indefinite.
    pub fn array(&mut self, what: &str) -> Result<Option<u64>, Refusal> {
        self.expect(what, "an array", |t| matches!(t, Type::Array | Type::ArrayIndef))?;
        let at = self.position();
        let len = self.decoder.array().map_err(|_| self.broken(what))?;
        len.map_or(Ok(()), |n| self.shortest(what, at, n, 0))?;
        Ok(len)
    }

    /// The head of a map: its pairs, or `None` if it is indefinite.
    pub fn map(&mut self, what: &str) -> Result<Option<u64>, Refusal> {
        self.expect(what, "a map", |t| matches!(t, Type::Map | Type::MapIndef))?;
        let at = self.position();
        let len = self.decoder.map().map_err(|_| self.broken(what))?;
        len.map_or(Ok(()), |n| self.shortest(what, at, n, 0))?;
        Ok(len)
    }

    /// Whether an array or map of `len` has another item after `read` of them; takes the break of an indefinite one.
    pub fn more(&mut self, len: Option<u64>, read: u64, what: &str) -> Result<bool, Refusal> {
        match len {
            Some(len) => Ok(read < len),
            None if self.kind() == Some(Type::Break) => self.literal(&[0xFF], what, self.form).map(|()| false),
            None => Ok(true),
        }
    }

    /// Nothing may follow.
    pub fn end(&self, what: &str) -> Result<(), Refusal> {
        let left = self.left();
        if left == 0 { Ok(()) } else { Err(Refusal::new(self.form, what, "its end", format!("{left} more bytes"))) }
    }

    fn left(&self) -> usize {
        self.decoder.input().len().saturating_sub(self.position())
    }

    fn kind(&self) -> Option<Type> {
        self.decoder.datatype().ok()
    }

    fn expect(&self, what: &str, expected: &str, is: impl Fn(Type) -> bool) -> Result<(), Refusal> {
        match self.kind() {
            Some(kind) if is(kind) => Ok(()),
            Some(kind @ (Type::BytesIndef | Type::StringIndef)) => Err(Refusal::new(self.form, what, expected, kind)),
            Some(Type::Unknown(_)) => Err(self.broken(what)),
            Some(kind) => Err(Refusal::new(self.kinds, what, expected, kind)),
            None if self.left() == 0 => Err(Refusal::new(self.form, what, expected, "the end of the bytes")),
            None => Err(self.broken(what)),
        }
    }

    /// Refuses a head that could have been shorter; `body` bytes follow the head of `n` that starts at `at`.
    fn shortest(&self, what: &str, at: usize, n: u64, body: usize) -> Result<(), Refusal> {
        let least = match n {
            0..=23 => 1,
            24..=0xFF => 2,
            0x100..=0xFFFF => 3,
            0x1_0000..=0xFFFF_FFFF => 5,
            _ => 9,
        };
        let head = self.position() - at - body;
        if head == least {
            return Ok(());
        }
        Err(Refusal::new(self.form, what, format!("a head of {least} bytes"), format!("{head} bytes")))
    }

    fn broken(&self, what: &str) -> Refusal {
        Refusal::new(self.form, what, "well-formed CBOR", "a cut or malformed item")
    }
}
