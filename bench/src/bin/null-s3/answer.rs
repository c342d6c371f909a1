//! Answers: a status, headers, and a body of text or of an object's bytes.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use crate::objects::{Fields, Object};

/// What is sent back.
pub struct Answer {
    status: u16,
    fields: Fields,
    content: Content,
    /// Whether the body is only announced (HEAD).
    pub bodiless: bool,
}

enum Content {
    Text(String),
    Bytes { object: Arc<Object>, from: u64, len: u64 },
}

impl Answer {
    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self::text(status, String::new())
    }

    /// A success with an XML document.
    pub fn xml(body: &str) -> Self {
        Self::text(200, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}"))
    }

    /// An S3 error.
    pub fn error(status: u16, code: &str) -> Self {
        Self::text(status, format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
    }

    /// `len` bytes of an object.
    pub fn bytes(status: u16, object: Arc<Object>, from: u64, len: u64) -> Self {
        Self { status, fields: Vec::new(), content: Content::Bytes { object, from, len }, bodiless: false }
    }

    fn text(status: u16, text: String) -> Self {
        Self { status, fields: Vec::new(), content: Content::Text(text), bodiless: false }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// Adds headers.
    pub fn with_all(mut self, fields: impl IntoIterator<Item = (String, String)>) -> Self {
        self.fields.extend(fields);
        self
    }

    /// Sends it.
    pub fn send(self, to: &mut impl Write) -> io::Result<()> {
        let len = match &self.content {
            Content::Text(text) => text.len() as u64,
            Content::Bytes { len, .. } => *len,
        };
        let mut head = format!("HTTP/1.1 {} -\r\ncontent-length: {len}\r\n", self.status);
        for (name, value) in &self.fields {
            let _ = write!(head, "{name}: {value}\r\n"); // a String takes everything
        }
        head += "\r\n";
        if let Content::Text(text) = &self.content
            && !self.bodiless
        {
            head += text;
        }
        to.write_all(head.as_bytes())?;
        match &self.content {
            Content::Bytes { object, from, len } if !self.bodiless => send_bytes(object, *from, *len, to),
            _ => Ok(()),
        }
    }
}

/// Writes a range of an object straight from the pieces it is kept in.
fn send_bytes(object: &Object, from: u64, len: u64, to: &mut impl Write) -> io::Result<()> {
    let (mut skip, mut left) = (from, len);
    for piece in object.bytes.iter().flatten() {
        let size = piece.len() as u64;
        if skip >= size {
            skip -= size;
            continue;
        }
        let take = left.min(size - skip);
        let range = usize::try_from(skip).unwrap_or(0)..usize::try_from(skip + take).unwrap_or(0);
        to.write_all(piece.get(range).unwrap_or_default())?;
        (skip, left) = (0, left - take);
        if left == 0 {
            break;
        }
    }
    Ok(())
}
