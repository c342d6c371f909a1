//! Request bodies: kept or dropped, plain or in the `aws-chunked` encoding with its trailers.

use std::io::{self, BufRead, Read, Write};

use crate::request::{Request, bad, line};

/// A body that was read.
pub struct Body {
    /// Bytes of it, without the encoding.
    pub len: u64,
    /// The bytes, if they were kept.
    pub bytes: Option<Vec<u8>>,
    /// Trailers of the encoding: a checksum comes here when it was not known before.
    pub trailers: Vec<(String, String)>,
}

/// Reads a request's body. What is longer than `keep_up_to` is dropped as it comes.
pub fn read(
    request: &Request,
    mut stream: &mut (impl BufRead + ?Sized),
    answer: &mut impl Write,
    keep_up_to: u64,
) -> io::Result<Body> {
    if request.header("transfer-encoding").is_some() {
        return Err(bad("transfer-encoding is not understood here"));
    }
    let number = |name: &str| request.header(name).map(|text| text.parse::<u64>().map_err(|_| bad(name))).transpose();
    let sent = number("content-length")?.unwrap_or(0);
    if request.header("expect").is_some() {
        answer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let encoded = request.header("x-amz-content-sha256").is_some_and(|hash| hash.starts_with("STREAMING-"));
    let len = number("x-amz-decoded-content-length")?.filter(|_| encoded).unwrap_or(sent);
    let mut bytes = (len <= keep_up_to).then(Vec::new);
    let mut stream = (&mut stream).take(sent);
    let trailers = if encoded {
        decode(&mut stream, bytes.as_mut())?
    } else {
        pass(&mut stream, len, bytes.as_mut())?;
        Vec::new()
    };
    Ok(Body { len, bytes, trailers })
}

/// `aws-chunked`: a hexadecimal length (and perhaps a signature), the data, and at the end the trailers.
fn decode(stream: &mut impl BufRead, mut to: Option<&mut Vec<u8>>) -> io::Result<Vec<(String, String)>> {
    loop {
        let head = line(stream)?.ok_or_else(|| bad("chunk"))?;
        let digits = head.split(';').next().unwrap_or_default();
        let len = u64::from_str_radix(digits, 16).map_err(|_| bad("chunk length"))?;
        if len == 0 {
            break;
        }
        pass(stream, len, to.as_deref_mut())?;
        line(stream)?;
    }
    let mut trailers = Vec::new();
    while let Some(line) = line(stream)? {
        if let Some((name, value)) = line.split_once(':') {
            trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Ok(trailers)
}

/// Takes `len` bytes from the stream.
fn pass(stream: &mut impl BufRead, len: u64, mut to: Option<&mut Vec<u8>>) -> io::Result<()> {
    let mut left = len;
    while left > 0 {
        let got = stream.fill_buf()?;
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(got.len());
        let Some(data) = got.get(..take).filter(|data| !data.is_empty()) else {
            return Err(bad("the body breaks off"));
        };
        if let Some(to) = to.as_deref_mut() {
            to.extend_from_slice(data);
        }
        stream.consume(take);
        left -= take as u64;
    }
    Ok(())
}
