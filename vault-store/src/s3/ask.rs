//! Ranges of objects: asked for again from where they broke off, and several side by side on one thread.

use crate::aws::classify;
use crate::error::{Cause, Result, StoreError};
use crate::retry::Patience;
use crate::store::{Came, Receiver};
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use bytes::Bytes;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::runtime::Runtime;

/// Takes bytes in order.
pub(super) trait Taking {
    async fn take(&mut self, data: Bytes) -> std::io::Result<()>;
}

/// Takes them at once.
pub(super) struct Now<F>(pub F);

impl<F: FnMut(&[u8]) -> std::io::Result<()>> Taking for Now<F> {
    async fn take(&mut self, data: Bytes) -> std::io::Result<()> {
        (self.0)(&data)
    }
}

/// A range of an object that is wanted.
#[derive(Clone)]
pub(super) struct Ask {
    request: GetObjectFluentBuilder,
    place: String,
    range: Range<u64>,
}

impl Ask {
    pub(super) fn new(client: &Client, bucket: &str, key: String, range: Range<u64>) -> Self {
        let place = format!("s3://{bucket}/{key}");
        Self { request: client.get_object().bucket(bucket).key(key), place, range }
    }

    /// GETs until all of the range is there, or patience ends. The object's size.
    pub(super) async fn all(self, to: &mut impl Taking) -> Result<u64> {
        let (mut done, mut patience) = (0, Patience::transfer());
        loop {
            let before = done;
            match self.clone().get(&mut done, to).await {
                Ok(total) => return Ok(total),
                Err(e) => {
                    if done > before {
                        patience = Patience::transfer(); // it moves
                    }
                    if !patience.again_later(&e).await {
                        return Err(e);
                    }
                }
            }
        }
    }

    /// One GET of what is missing after `done` bytes; gives `to` what comes and counts it. The object's size.
    pub(super) async fn get(self, done: &mut u64, to: &mut impl Taking) -> Result<u64> {
        let operation = "GetObject";
        let Self { request, place, range } = self;
        let from = range.start + *done;
        let header = format!("bytes={from}-{}", range.end.saturating_sub(1).max(from));
        let broken = |e: &dyn std::fmt::Display| {
            StoreError::new(operation, &place, Cause::Connection, format!("the answer broke off: {e}"))
        };
        let answer = match request.range(header).send().await {
            Ok(answer) => answer,
            Err(e) => return Err(classify(operation, &place, &e)),
        };
        let total = answer.content_range().and_then(|r| r.rsplit('/').next()?.parse().ok());
        let total = total.or_else(|| u64::try_from(answer.content_length()?).ok()).unwrap_or_default();
        if answer.content_range().is_none() && from > 0 {
            return Err(StoreError::new(operation, &place, Cause::NotS3, "ranges are not supported"));
        }
        let want = range.end.min(total).saturating_sub(range.start);
        let mut body = answer.body;
        while let Some(frame) = body.try_next().await.map_err(|e| broken(&e))? {
            let left = usize::try_from(want.saturating_sub(*done)).unwrap_or(usize::MAX);
            let data = frame.slice(..frame.len().min(left));
            let len = data.len() as u64;
            to.take(data).await.map_err(StoreError::io("write", "the output"))?;
            *done += len;
        }
        if *done < want {
            return Err(broken(&format!("{} of {want} bytes", *done)));
        }
        Ok(total)
    }
}

/// A range on its way; in the end, the object's size.
type Fetching = Pin<Box<dyn Future<Output = Result<u64>>>>;

/// A way to a bucket for one thread. Ranges move on only while that thread waits for them, and no further than to the
/// next piece of one: what is taken is still in the processor's cache.
pub(super) struct Alone {
    client: Client,
    bucket: String,
    prefix: String,
    asked: VecDeque<(u64, Fetching)>,
    piece: Rc<Cell<Option<Bytes>>>,
    runtime: Runtime,
}

impl Alone {
    pub(super) fn new(client: Client, bucket: String, prefix: String, runtime: Runtime) -> Self {
        Self { client, bucket, prefix, asked: VecDeque::new(), piece: Rc::default(), runtime }
    }
}

impl Receiver for Alone {
    fn begin(&mut self, number: u64, key: &str, range: Range<u64>) {
        let ask = Ask::new(&self.client, &self.bucket, format!("{}{key}", self.prefix), range);
        let mut to = One(self.piece.clone());
        self.asked.push_back((number, Box::pin(async move { ask.all(&mut to).await })));
    }

    fn next(&mut self) -> Came {
        let Self { bucket, asked, piece, runtime, .. } = self;
        if asked.is_empty() {
            let place = format!("s3://{bucket}");
            return Came::End(0, Err(StoreError::new("GetObject", place, Cause::Other, "nothing is asked for")));
        }
        runtime.block_on(std::future::poll_fn(|context| {
            for at in 0..asked.len() {
                let Some((number, range)) = asked.get_mut(at) else { break };
                let (number, moved) = (*number, range.as_mut().poll(context));
                if let Some(data) = piece.take() {
                    asked.rotate_left(at + 1); // the others' turn
                    return Poll::Ready(Came::Bytes(number, data));
                }
                if let Poll::Ready(end) = moved {
                    asked.remove(at);
                    return Poll::Ready(Came::End(number, end.map(drop)));
                }
            }
            Poll::Pending
        }))
    }
}

/// Takes one piece, and waits until it is asked for the next.
struct One(Rc<Cell<Option<Bytes>>>);

impl Taking for One {
    async fn take(&mut self, data: Bytes) -> std::io::Result<()> {
        self.0.set(Some(data));
        let mut given = false;
        std::future::poll_fn(|_| if std::mem::replace(&mut given, true) { Poll::Ready(()) } else { Poll::Pending })
            .await;
        Ok(())
    }
}
