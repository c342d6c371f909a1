//! As much of HTTP/1.1 as the proxy needs: where a head ends, how its body is framed, what was asked for.
//!
//! Heads are kept as the bytes that came, and are never written anew.

use super::Request;
use std::io::{self, BufRead, Read};

/// A head longer than this is not HTTP.
const HEAD_MAX: u64 = 256 << 10;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// With the connection.
    ToEnd,
}

/// The first line and the headers of a message.
pub struct Head {
    /// As they came, with the empty line.
    pub raw: Vec<u8>,
    pub first: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The next head, or `None` where the connection ends before one begins.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        let mut from = from.take(HEAD_MAX);
        while !raw.ends_with(b"\r\n\r\n") {
            if from.read_until(b'\n', &mut raw)? == 0 {
                return if raw.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Ok(Some(Self { raw, first, headers }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn says(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|v| v.eq_ignore_ascii_case(value))
    }

    pub fn request(&self) -> io::Result<Request> {
        let mut words = self.first.split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
            return Err(io::Error::other(format!("not HTTP/1.1: {}", self.first)));
        };
        Ok(Request { method: method.to_owned(), target: target.to_owned(), headers: self.headers.clone() })
    }

    pub fn status(&self) -> io::Result<u16> {
        let status = self.first.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.ok_or_else(|| io::Error::other(format!("no status: {}", self.first)))
    }

    pub fn request_framing(&self) -> Framing {
        self.declared().unwrap_or(Framing::Length(0))
    }

    pub fn response_framing(&self, method: &str, status: u16) -> Framing {
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Framing::Length(0);
        }
        self.declared().unwrap_or(Framing::ToEnd)
    }

    fn declared(&self) -> Option<Framing> {
        if self.says("transfer-encoding", "chunked") {
            return Some(Framing::Chunked);
        }
        self.header("content-length").and_then(|length| length.parse().ok()).map(Framing::Length)
    }
}

/// The name of what is asked for, in the words of S3's and KMS's API.
pub fn operation(request: &Request) -> &str {
    if let Some(target) = request.header("x-amz-target") {
        return target.rsplit('.').next().unwrap_or(target);
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let of_bucket = !path.trim_matches('/').contains('/');
    match (request.method.as_str(), of_bucket) {
        ("GET", true) if path == "/" => "ListBuckets",
        ("GET", true) if asks("uploads") => "ListMultipartUploads",
        ("GET", true) if asks("list-type") => "ListObjectsV2",
        ("GET", true) if asks("versions") => "ListObjectVersions",
        ("PUT", true) if query.is_empty() => "CreateBucket",
        ("HEAD", true) => "HeadBucket",
        ("POST", true) if asks("delete") => "DeleteObjects",
        ("POST", false) if asks("uploads") => "CreateMultipartUpload",
        ("POST", false) if asks("uploadId") => "CompleteMultipartUpload",
        ("PUT", false) if asks("partNumber") => "UploadPart",
        ("GET", false) if asks("uploadId") => "ListParts",
        ("DELETE", false) if asks("uploadId") => "AbortMultipartUpload",
        ("PUT", false) if request.header("x-amz-copy-source").is_some() => "CopyObject",
        ("PUT", false) if !["retention", "legal-hold", "tagging", "acl"].iter().any(|name| asks(name)) => "PutObject",
        ("GET", false) => "GetObject",
        ("HEAD", false) => "HeadObject",
        ("DELETE", false) => "DeleteObject",
        _ => &request.method,
    }
}
