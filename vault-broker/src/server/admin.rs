//! Metrics and health, in plain HTTP on a loopback address: for Prometheus and load balancers' agents on this host.

use super::{Shared, api};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// Connections at a time.
const MOST: usize = 16;
/// Seconds that one may take.
const LIFE: Duration = Duration::from_secs(30);

pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(shared, request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(LIFE, connection).await;
            drop(place);
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => api::text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/readyz") => ready(shared).await,
        (&Method::GET, "/metrics") => {
            let reading = Arc::clone(&shared);
            let size = spawn_blocking(move || reading.ledger.size().ok()).await.ok().flatten();
            api::text(StatusCode::OK, shared.metrics.text(shared.gate.open(), size))
        }
        _ => api::text(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n"),
    }
}

/// Whether a request could be granted: the database answers, and there is a policy.
async fn ready(shared: Arc<Shared>) -> Response<Full<Bytes>> {
    if shared.rules().policies().next().is_none() {
        return api::text(StatusCode::SERVICE_UNAVAILABLE, "no policy is loaded\n");
    }
    match spawn_blocking(move || shared.ledger.size()).await {
        Ok(Ok(_)) => api::text(StatusCode::OK, "ready\n"),
        Ok(Err(_)) => api::text(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n"),
        Err(_) => api::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}
