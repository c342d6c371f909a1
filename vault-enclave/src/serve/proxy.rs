//! Requests to the image's own server, on the enclave's loopback: one connection each. What goes on is method, path, content type, accept
//! and body; what comes back is status, content type and body.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Why there is no answer.
pub(super) enum Failure {
    /// More bytes than are allowed.
    TooLarge,
    /// No server, or none that speaks HTTP.
    Silent,
}

/// Asks it; the caller has the time.
pub(super) async fn ask(
    address: SocketAddr,
    head: Parts,
    body: Bytes,
    most: usize,
) -> Result<Response<Full<Bytes>>, Failure> {
    let silent = |_| Failure::Silent;
    let stream = TcpStream::connect(address).await.map_err(|_| Failure::Silent)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(silent)?;
    let carried = tokio::spawn(connection);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(head.method).uri(path).header(HOST, "localhost");
    for name in [CONTENT_TYPE, ACCEPT] {
        if let Some(value) = head.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Full::new(body)).map_err(|_| Failure::Silent)?;
    let answer = sender.send_request(request).await.map_err(silent)?;
    let (head, body) = answer.into_parts();
    let read = Limited::new(body, most).collect().await;
    carried.abort();
    let read = read.map_err(|e| if e.is::<LengthLimitError>() { Failure::TooLarge } else { Failure::Silent })?;
    let mut answer = Response::new(Full::new(read.to_bytes()));
    *answer.status_mut() = head.status;
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}
