//! Serving: HTTP/1.1 over attested TLS, docs/ENCLAVE.md section 6. Accepts, limits, routes; nothing that was asked or answered is
//! kept or said.

mod api;
mod infer;
mod metrics;
mod proxy;

pub use api::EmbeddingsRequest;
pub use infer::{Data, Infer, Port, Tensor, read_tensors};

use crate::attested::TlsKey;
use crate::config::Config;
use crate::model::Statement;
use crate::release::Attester;
use crate::watch::Clients;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Metrics;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long a client may take for a handshake or a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may live.
const LIFE: Duration = Duration::from_mins(10);

/// Answers with a model that is in memory. Used from several threads.
pub trait Engine: Send + Sync {
    /// One embedding of unit length for each text, and how many tokens they had.
    fn embed(&self, texts: &[&str]) -> Result<Embedded, EngineError>;
}

/// What an engine makes of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One for each text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: u64,
}

/// Why an engine does not answer; never says what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub String);

/// What answers.
pub enum Backend {
    /// The built-in engine for texts.
    Engine(Arc<dyn Engine>),
    /// The built-in engine for tensors.
    Infer(Arc<dyn Infer>),
    /// The image's own server, on this address of the enclave's loopback: HTTP/1.1.
    Own(SocketAddr),
}

/// Where connections come from: vsock in an enclave.
pub trait Accept: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn accept(&mut self) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

/// What all connections share.
pub struct Service {
    config: Config,
    model: Statement,
    key: TlsKey,
    backend: Backend,
    attester: Mutex<Box<dyn Attester + Send>>,
    clients: Clients,
    metrics: Metrics,
    /// Requests that compute; others wait.
    work: Arc<Semaphore>,
    journal: Box<dyn Fn(&str) + Send + Sync>,
}

impl Service {
    /// For a model that is loaded, measured and passed its golden set.
    pub fn new(
        config: Config,
        model: Statement,
        key: TlsKey,
        backend: Backend,
        attester: Box<dyn Attester + Send>,
        journal: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        let clients = Clients::new(&config.serve, &config.watch);
        let work = std::thread::available_parallelism().map_or(1, usize::from);
        let (work, metrics) = (Arc::new(Semaphore::new(work)), Metrics::new());
        Self { config, model, key, backend, attester: Mutex::new(attester), clients, metrics, work, journal }
    }

    /// Answers for ever.
    pub async fn run(self, mut listener: impl Accept) -> Infallible {
        let tls = TlsAcceptor::from(self.key.config());
        let places = Arc::new(Semaphore::new(self.config.serve.max_connections));
        let service = Arc::new(self);
        loop {
            let Ok(stream) = listener.accept().await else {
                sleep(Duration::from_millis(50)).await; // out of descriptors: some will be given back
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                service.metrics.turned_away();
                continue;
            };
            let (tls, service) = (tls.clone(), Arc::clone(&service));
            tokio::spawn(async move {
                connection(service, tls, stream).await;
                drop(place);
            });
        }
    }
}

async fn connection<S>(service: Arc<Service>, tls: TlsAcceptor, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(Ok(stream)) = timeout(HEAD, tls.accept(stream)).await else { return };
    let answer = service_fn(|request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(api::answer(service, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(32)
        .max_buf_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), answer);
    let _ = timeout(LIFE, connection).await; // a client that breaks off concerns nobody else
}
