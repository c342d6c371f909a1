//! NumPy's npy files: a header that is a Python literal, then raw data or a pickle.
//!
//! The header is parsed strictly as the three keys NumPy writes. Raw data must have exactly
//! the stated size; an array of objects is a pickle and scanned as one.

use super::log::{Ctx, Grade};
use super::pickle;
use super::source::{Halt, Source, bad, limit};
use std::io;

pub(super) use element::{Element, element};

mod element {
    pub(in crate::scan) use crate::scan::pickle::Descr as Element;

    /// Reads an element type like `<f8`, `|O`, `U10`: an optional byte order, a kind and a size.
    pub(in crate::scan) fn element(text: &str) -> Element {
        let code = text.strip_prefix(['<', '>', '=', '|']).unwrap_or(text);
        let mut chars = code.chars();
        let kind = chars.next();
        let digits = match (kind, chars.as_str().split_once('[')) {
            (Some('M' | 'm'), Some((size, unit))) if unit.ends_with(']') => size,
            _ => chars.as_str(),
        };
        let plain = !digits.is_empty() && digits.len() <= 10 && digits.bytes().all(|b| b.is_ascii_digit());
        let size = if plain { digits.parse::<u64>().ok() } else { None };
        match (kind, size) {
            (Some('O'), None) if digits.is_empty() => Element::Objects,
            (Some('O'), Some(8 | 4)) => Element::Objects,
            (Some('b'), Some(1)) => Element::Raw(1),
            (Some('i' | 'u'), Some(n @ (1 | 2 | 4 | 8)))
            | (Some('f'), Some(n @ (2 | 4 | 8 | 12 | 16)))
            | (Some('c'), Some(n @ (8 | 16 | 24 | 32)))
            | (Some('M' | 'm'), Some(n @ 8))
            | (Some('S' | 'a' | 'V'), Some(n)) => Element::Raw(n),
            (Some('U'), Some(n)) => Element::Raw(n.saturating_mul(4)),
            _ => Element::Odd,
        }
    }
}

/// Longest header: NumPy itself refuses more than 10,000 bytes from files it does not trust.
const MAX_HEADER: usize = 10_000;
/// Nested structured types.
const MAX_NESTING: u32 = 8;

/// Scans an npy stream from its magic on.
pub(super) fn scan(ctx: &mut Ctx, src: &mut Source<'_>) -> io::Result<()> {
    let result = header(src).and_then(|header| body(ctx, src, &header));
    match result {
        Ok(()) => Ok(()),
        Err(Halt::Io(e)) => Err(e),
        Err(Halt::End) => {
            ctx.add(Grade::NotScanned, "npy: ends before its data does", src.offset());
            Ok(())
        }
        Err(Halt::Bad(what) | Halt::Limit(what)) => {
            ctx.add(Grade::NotScanned, &format!("npy: {what}"), src.offset());
            Ok(())
        }
    }
}

struct Header {
    element: Element,
    count: u64,
}

fn header(src: &mut Source<'_>) -> Result<Header, Halt> {
    let [_, _, _, _, _, _, major, minor] = src.array::<8>()?;
    let len = match (major, minor) {
        (1, 0) => usize::from(src.u16()?),
        (2 | 3, 0) => usize::try_from(src.u32()?).unwrap_or(usize::MAX),
        _ => return bad(format!("version {major}.{minor}")),
    };
    if len > MAX_HEADER {
        return limit("header longer than NumPy accepts");
    }
    let raw = src.take(len)?;
    let Ok(text) = std::str::from_utf8(&raw) else { return bad("header is not text") };
    let mut parser = Literal { rest: text };
    parser.header().ok_or_else(|| Halt::Bad("header is not the dict NumPy writes".into()))
}

fn body(ctx: &mut Ctx, src: &mut Source<'_>, header: &Header) -> Result<(), Halt> {
    let size = match header.element {
        Element::Objects => {
            pickle::scan(ctx, src, true)?;
            return Ok(());
        }
        Element::Odd => return limit("an element type the scanner does not know"),
        Element::Raw(size) => size,
    };
    let Some(bytes) = header.count.checked_mul(size) else { return bad("impossible size") };
    src.skip_exact(bytes)?;
    if src.at_end()? { Ok(()) } else { bad("bytes after the data") }
}

/// The one Python literal that a header is.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    fn eat(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start_matches(' ').strip_prefix(token)?;
        Some(())
    }

    fn quoted(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start_matches(' ');
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (text, rest) = self.rest.get(1..)?.split_once(quote)?;
        self.rest = rest;
        (!text.contains('\\')).then_some(text)
    }

    fn header(&mut self) -> Option<Header> {
        let (mut element, mut order, mut count) = (None, None, None);
        self.eat("{")?;
        while self.eat("}").is_none() {
            let key = self.quoted()?;
            self.eat(":")?;
            let doubled = match key {
                "descr" => element.replace(self.descr(0)?).is_some(),
                "fortran_order" => order.replace(self.eat("True").or_else(|| self.eat("False"))?).is_some(),
                "shape" => count.replace(self.shape()?).is_some(),
                _ => return None,
            };
            if doubled {
                return None;
            }
            if self.eat(",").is_none() {
                self.eat("}")?;
                break;
            }
        }
        order?;
        self.rest.trim().is_empty().then_some(Header { element: element?, count: count? })
    }

    /// A tuple of sizes, multiplied.
    fn shape(&mut self) -> Option<u64> {
        let mut count: u64 = 1;
        self.eat("(")?;
        while self.eat(")").is_none() {
            self.rest = self.rest.trim_start_matches(' ');
            let end = self.rest.find(|c: char| !c.is_ascii_digit())?;
            let (digits, rest) = self.rest.split_at_checked(end)?;
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            count = count.checked_mul(digits.parse().ok()?)?;
            if self.eat(",").is_none() {
                self.eat(")")?;
                break;
            }
        }
        Some(count)
    }

    /// A type: a code, or a list of `(name, type)` and `(name, type, shape)`.
    fn descr(&mut self, depth: u32) -> Option<Element> {
        if self.eat("[").is_none() {
            return Some(element(self.quoted()?));
        }
        if depth >= MAX_NESTING {
            return None;
        }
        let (mut total, mut objects, mut odd) = (0_u64, false, false);
        while self.eat("]").is_none() {
            self.eat("(")?;
            if self.eat("(").is_some() {
                // (title, name)
                self.quoted()?;
                self.eat(",")?;
                self.quoted()?;
                self.eat(")")?;
            } else {
                self.quoted()?;
            }
            self.eat(",")?;
            let field = self.descr(depth + 1)?;
            let times = if self.eat(",").is_some() { self.shape()? } else { 1 };
            self.eat(")")?;
            match field {
                Element::Raw(size) => total = total.checked_add(size.checked_mul(times)?)?,
                Element::Objects => objects = true,
                Element::Odd => odd = true,
            }
            if self.eat(",").is_none() {
                self.eat("]")?;
                break;
            }
        }
        Some(match (odd, objects) {
            (true, _) => Element::Odd,
            (_, true) => Element::Objects,
            _ => Element::Raw(total),
        })
    }
}
