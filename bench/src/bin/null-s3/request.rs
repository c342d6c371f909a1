//! Request heads of HTTP/1.1, as far as S3 clients write them.

use std::io::{self, BufRead, Read};

/// Longest head that is read.
const MAX_HEAD: u64 = 64 << 10;

/// A request without its body.
pub struct Request {
    pub method: String,
    /// First component of the path.
    pub bucket: String,
    /// The rest of the path, decoded; empty for the bucket itself.
    pub key: String,
    query: Vec<(String, String)>,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Request {
    /// The next request of a connection; `None` when the client has closed it.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = from.take(MAX_HEAD);
        let Some(first) = line(&mut head)? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(bad("request line")) };
        let mut headers = Vec::new();
        loop {
            let line = line(&mut head)?.ok_or_else(|| bad("head"))?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("header"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        let query = query.collect();
        Ok(Some(Self { method: method.to_owned(), bucket: decode(bucket), key: decode(key), query, headers }))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Headers whose names begin so.
    pub fn headers<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
        self.headers.iter().filter(move |(name, _)| name.starts_with(prefix)).cloned()
    }

    /// A query parameter's value; empty if it has none.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The range that is asked for in an object of `len` bytes: first byte and length.
    pub fn range(&self, len: u64) -> Option<(u64, u64)> {
        let (from, to) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        if from.is_empty() {
            let last = to.parse::<u64>().ok()?.min(len);
            return Some((len - last, last));
        }
        let from: u64 = from.parse().ok()?;
        let end = to.parse::<u64>().map_or(len, |to| to.saturating_add(1).min(len));
        Some((from, end.saturating_sub(from)))
    }
}

/// A line without its end; `None` at the end of the stream.
pub fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8(line).map_err(|_| bad("text"))?;
    text.strip_suffix('\n').map(|text| Some(text.trim_end_matches('\r').to_owned())).ok_or_else(|| bad("line"))
}

/// What is not HTTP as it is understood here.
pub fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => {
                let value = digit(bytes.next()).zip(digit(bytes.next())).map(|(high, low)| high * 16 + low);
                plain.push(value.and_then(|value| u8::try_from(value).ok()).unwrap_or(b'%'));
            }
            b'+' => plain.push(b' '),
            _ => plain.push(byte),
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}
