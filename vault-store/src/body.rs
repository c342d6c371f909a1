//! The body of a part: ciphertext in the pieces in which it was sealed, never joined, with its CRC-64/NVME; and the
//! buffers that pieces are sealed into, used again once they are sent, since new memory costs a page fault every 4 KiB.

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// What is sent as one part; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Body {
    pieces: Vec<Bytes>,
    len: u64,
    crc: u64,
}

impl Body {
    /// The next piece. Its CRC is computed now, in the cache of whoever made it; joining CRCs of pieces costs 50 us each.
    fn push(&mut self, piece: Bytes, crc: &mut crc_fast::Digest) {
        crc.update(&piece);
        self.len += piece.len() as u64;
        self.pieces.push(piece);
    }

    /// Its bytes, in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// How many bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// CRC-64/NVME of all of it.
    pub fn crc(&self) -> u64 {
        self.crc
    }

    /// In one piece: a copy, if it is in several.
    pub fn joined(&self) -> Bytes {
        match self.pieces.as_slice() {
            [one] => one.clone(),
            several => several.concat().into(),
        }
    }

    /// For a request, which may be tried again.
    pub(crate) fn to_sdk(&self) -> SdkBody {
        let body = self.clone();
        SdkBody::retryable(move || {
            let (pieces, left) = (body.pieces.clone().into_iter(), body.len);
            SdkBody::from_body_1_x(Stream { pieces, left })
        })
    }
}

impl From<Bytes> for Body {
    fn from(piece: Bytes) -> Self {
        let mut gathering = Gathering::default();
        gathering.add(0, piece);
        gathering.done()
    }
}

/// A body whose pieces come in any order.
pub struct Gathering {
    body: Body,
    crc: crc_fast::Digest,
    /// Pieces that came before those in front of them, by where they are in the body.
    waiting: BTreeMap<u64, Bytes>,
    gathered: u64,
}

impl Default for Gathering {
    fn default() -> Self {
        let crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        Self { body: Body::default(), crc, waiting: BTreeMap::new(), gathered: 0 }
    }
}

impl Gathering {
    /// A piece, which starts at byte `at` of the body.
    pub fn add(&mut self, at: u64, piece: Bytes) {
        self.gathered += piece.len() as u64;
        if at != self.body.len {
            self.waiting.insert(at, piece);
            return;
        }
        self.body.push(piece, &mut self.crc);
        while let Some(piece) = self.waiting.remove(&self.body.len) {
            self.body.push(piece, &mut self.crc);
        }
    }

    /// Bytes that are here, in order or not.
    pub fn gathered(&self) -> u64 {
        self.gathered
    }

    /// The body: all pieces must have come.
    pub fn done(mut self) -> Body {
        debug_assert!(self.waiting.is_empty());
        self.body.crc = self.crc.finalize();
        self.body
    }
}

struct Stream {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.next();
        self.left -= piece.as_ref().map_or(0, |p| p.len() as u64);
        Poll::Ready(piece.map(|p| Ok(Frame::data(p))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Buffers that are used in turn.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// A buffer that was used before, with what is in it, or a new one.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// The buffer's bytes to be sent; when the last of them is let go, it comes back here.
    pub(crate) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, pool: self.clone() })
    }
}

struct Lent {
    buffer: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::crc64;

    #[test]
    fn pieces_are_one_body_and_their_buffers_come_back() {
        let pool = Pool::default();
        let mut body = Gathering::default();
        for (at, piece) in [(4, b"ed".as_slice()), (6, b" model"), (0, b"seal")] {
            body.add(at, pool.lend(piece.to_vec()));
        }
        assert_eq!(body.gathered(), 12);
        let body = body.done();
        assert_eq!((body.len(), body.crc()), (12, crc64(b"sealed model")));
        assert_eq!(body.joined(), b"sealed model".as_slice());
        let sdk = body.to_sdk();
        assert_eq!(sdk.content_length(), Some(12));
        drop((body, sdk));
        assert_eq!(pool.0.lock().unwrap().len(), 3);
        assert!(!pool.take().is_empty());
    }
}
