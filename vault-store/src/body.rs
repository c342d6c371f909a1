//! The body of a part: ciphertext in the pieces in which it was sealed, never joined, with its CRC-64/NVME; and the
//! buffers that pieces are sealed into, used again once they are sent, since new memory costs a page fault every 4 KiB.
//! What is too large to be kept is made piece by piece when it is sent, anew for each try.

use crate::error::Result;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Takes pieces in order; after an error it gets no more.
pub type Give<'a> = dyn FnMut(Bytes) -> Result<()> + 'a;

/// Makes the front of a body.
pub type Make<'a> = dyn Fn(&mut Give<'_>) -> Result<()> + Sync + 'a;

/// What is sent as one part; cheap to clone.
#[derive(Clone, Default)]
pub struct Body<'a> {
    /// What comes before the pieces.
    front: Option<&'a Make<'a>>,
    pieces: Vec<Bytes>,
    len: u64,
    crc: u64,
}

impl Body<'static> {
    /// The next piece. Its CRC is computed now, in the cache of whoever made it; joining CRCs of pieces costs 50 us each.
    /// What is in front of `keep_from` is not kept.
    fn push(&mut self, piece: &Bytes, keep_from: u64, crc: &mut crc_fast::Digest) {
        crc.update(piece);
        let front = usize::try_from(keep_from.saturating_sub(self.len)).unwrap_or(usize::MAX);
        self.len += piece.len() as u64;
        if front < piece.len() {
            self.pieces.push(piece.slice(front..));
        }
    }
}

impl Body<'_> {
    /// The same, with the front that was not kept; `make` is called for each try, and on another thread.
    pub fn with_front<'a>(&self, make: &'a Make<'a>) -> Body<'a> {
        Body { front: Some(make), pieces: self.pieces.clone(), len: self.len, crc: self.crc }
    }

    /// Gives its bytes, in order.
    pub fn each(&self, give: &mut Give<'_>) -> Result<()> {
        self.front.map_or(Ok(()), |make| make(give))?;
        self.pieces.iter().try_for_each(|piece| give(piece.clone()))
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
    pub fn joined(&self) -> Result<Bytes> {
        if let (None, [one]) = (&self.front, self.pieces.as_slice()) {
            return Ok(one.clone());
        }
        let mut whole = Vec::new();
        self.each(&mut |piece| {
            whole.extend_from_slice(&piece);
            Ok(())
        })?;
        Ok(whole.into())
    }

    /// For a request, which may be tried again; `None` if not all of it is there.
    pub(crate) fn to_sdk(&self) -> Option<SdkBody> {
        if self.front.is_some() {
            return None;
        }
        let (pieces, left) = (self.pieces.clone(), self.len);
        Some(SdkBody::retryable(move || SdkBody::from_body_1_x(Stream { pieces: pieces.clone().into_iter(), left })))
    }
}

impl From<Bytes> for Body<'static> {
    fn from(piece: Bytes) -> Self {
        let mut gathering = Gathering::default();
        gathering.add(0, piece);
        gathering.done()
    }
}

/// A body whose pieces come in any order.
pub struct Gathering {
    body: Body<'static>,
    crc: crc_fast::Digest,
    /// What comes before this is not kept.
    keep_from: u64,
    /// Pieces that came before those in front of them, by where they are in the body.
    waiting: BTreeMap<u64, Bytes>,
    gathered: u64,
}

impl Default for Gathering {
    fn default() -> Self {
        let crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        Self { body: Body::default(), crc, keep_from: 0, waiting: BTreeMap::new(), gathered: 0 }
    }
}

impl Gathering {
    /// Of which so many bytes need not be kept.
    pub fn with_front(len: u64) -> Self {
        Self { keep_from: len, ..Self::default() }
    }

    /// How many bytes are not kept.
    pub fn front(&self) -> u64 {
        self.keep_from
    }

    /// A piece, which starts at byte `at` of the body.
    pub fn add(&mut self, at: u64, piece: Bytes) {
        self.gathered += piece.len() as u64;
        if at != self.body.len {
            self.waiting.insert(at, piece);
            return;
        }
        let mut next = Some(piece);
        while let Some(piece) = next {
            self.body.push(&piece, self.keep_from, &mut self.crc);
            next = self.waiting.remove(&self.body.len);
        }
    }

    /// Bytes that are here, in order or not.
    pub fn gathered(&self) -> u64 {
        self.gathered
    }

    /// The body: all pieces must have come.
    pub fn done(mut self) -> Body<'static> {
        debug_assert!(self.waiting.is_empty());
        self.body.crc = self.crc.finalize();
        self.body
    }
}

/// The two ends of a body that is made while it is sent. When the maker's end is dropped, or the request has ended and
/// [`Tap::close`] was called, nothing more comes.
pub(crate) fn made(len: u64) -> (Sender<Bytes>, Tap, SdkBody) {
    let (give, take) = channel(1);
    let tap = Tap(Arc::new(Mutex::new(take)));
    let body = SdkBody::from_body_1_x(Poured { tap: tap.clone(), left: len });
    (give, tap, body)
}

/// Where what is made comes out.
#[derive(Clone)]
pub(crate) struct Tap(Arc<Mutex<Receiver<Bytes>>>);

impl Tap {
    /// Whoever makes more is told that nobody takes it; when he drops his end, a connection that waits is woken.
    pub(crate) fn close(&self) {
        self.lock().close();
    }

    fn lock(&self) -> MutexGuard<'_, Receiver<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Poured {
    tap: Tap,
    left: u64,
}

impl HttpBody for Poured {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let polled = self.tap.lock().poll_recv(context);
        let Poll::Ready(piece) = polled else { return Poll::Pending };
        self.left -= piece.as_ref().map_or(0, |p| p.len() as u64).min(self.left);
        Poll::Ready(piece.map(|p| Ok(Frame::data(p))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
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
        assert_eq!(body.joined().unwrap(), b"sealed model".as_slice());
        let sdk = body.to_sdk().unwrap();
        assert_eq!(sdk.content_length(), Some(12));
        drop((body, sdk));
        assert_eq!(pool.0.lock().unwrap().len(), 3);
        assert!(!pool.take().is_empty());
    }
}
