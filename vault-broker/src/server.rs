//! HTTP/1.1 over TLS 1.3: accepts, limits, routes. What a request means is in `api`; nothing here decides.
//!
//! A peer that is slow, silent or too many is cut off by time and count; memory is bounded by connections times the
//! largest request.

mod admin;
mod api;

use crate::config::{Config, ConfigError, Limits};
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::limits::{Admitted, Gate, Source};
use crate::metrics::Metrics;
use crate::rules::Rules;
use crate::tls::{self, Served};
use futures_util::future::{Either, select};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use vault_attest::time::rfc3339;

/// From how long before its end the certificate is warned of.
const ENDS_SOON: Duration = Duration::from_hours(30 * 24);
/// How often.
const WARN_EVERY: Duration = Duration::from_hours(24);

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Configuration or a policy.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// An address cannot be listened on.
    #[error("{address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no threads.
    #[error("the broker's threads cannot be started: {0}")]
    Runtime(std::io::Error),
}

/// What all connections share.
struct Shared {
    judge: Judge,
    ledger: Arc<dyn Ledger>,
    gate: Arc<Gate>,
    metrics: Metrics,
    limits: Limits,
    decisions: Semaphore,
    rules: RwLock<Arc<Rules>>,
    tls: RwLock<Served>,
    folder: PathBuf,
}

/// A broker that listens and does not answer yet.
pub struct Server {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
    listener: TcpListener,
    admin: TcpListener,
    signals: Signals,
}

/// From when the broker listens, none of these ends the process by itself.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Server {
    /// Reads rules and certificate, and listens.
    pub fn bind(config: &Config, folder: PathBuf, judge: Judge, ledger: Arc<dyn Ledger>) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .max_blocking_threads(config.limits.decisions + 16)
            .enable_all()
            .build()
            .map_err(ServeError::Runtime)?;
        let listen = |address: SocketAddr| {
            runtime.block_on(TcpListener::bind(address)).map_err(|source| ServeError::Listen { address, source })
        };
        let (listener, admin) = (listen(config.listen)?, listen(config.admin)?);
        let shared = Shared {
            judge,
            ledger,
            gate: Arc::new(Gate::new(&config.limits)),
            metrics: Metrics::new(),
            limits: config.limits.clone(),
            decisions: Semaphore::new(config.limits.decisions),
            rules: RwLock::new(Arc::new(Rules::read(config)?)),
            tls: RwLock::new(tls::server(&config.tls)?),
            folder,
        };
        let entered = runtime.enter();
        let listen = |kind| signal(kind).map_err(ServeError::Runtime);
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let signals = Signals { interrupt, terminate, hangup: listen(SignalKind::hangup())? };
        drop(entered);
        Ok(Self { runtime, shared: Arc::new(shared), listener, admin, signals })
    }

    /// Where it listens: for enclaves, for operators.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.listener.local_addr()?, self.admin.local_addr()?))
    }

    /// The names of the policies it has.
    pub fn policies(&self) -> Vec<String> {
        self.shared.rules().policies().map(|policy| policy.name().to_owned()).collect()
    }

    /// Answers until SIGINT or SIGTERM; then what is under way is finished, for as long as the configuration allows.
    /// SIGHUP reads policies, revocations and certificate anew.
    pub fn run(self) {
        let Self { runtime, shared, listener, admin, signals } = self;
        let Signals { mut interrupt, mut terminate, hangup } = signals;
        let wait = Duration::from_secs(shared.limits.stop_timeout_s);
        runtime.block_on(async {
            let (stop, stopped) = watch::channel(false);
            let (done, mut all_done) = mpsc::channel::<Infallible>(1);
            let tasks = [
                tokio::spawn(accept(Arc::clone(&shared), listener, stopped, done)),
                tokio::spawn(admin::accept(Arc::clone(&shared), admin)),
                tokio::spawn(reload_on_hangup(Arc::clone(&shared), hangup)),
                tokio::spawn(forget_sources(Arc::clone(&shared))),
                tokio::spawn(watch_certificate(Arc::clone(&shared))),
            ];
            select(pin!(interrupt.recv()), pin!(terminate.recv())).await;
            let _ = stop.send(true); // nobody listens when there is no connection
            tracing::info!(connections = shared.gate.open(), "stopping");
            let finished = timeout(wait, all_done.recv()).await.is_ok(); // closes when the last connection is gone
            tracing::info!(finished, "stopped");
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

impl Shared {
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.served().config)
    }

    fn served(&self) -> Served {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells metrics and, near the end, the log when the certificate ends.
    fn tell_certificate(&self) {
        let expires_s = self.served().expires_s;
        self.metrics.certificate(expires_s);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_secs(expires_s).saturating_sub(now);
        if left < ENDS_SOON {
            let (expires, days) = (rfc3339(expires_s), left.as_secs() / 86_400);
            let message = if left.is_zero() {
                "the certificate has ended, no enclave takes it: `mvault broker certificate`, then SIGHUP"
            } else {
                "the certificate ends soon: `mvault broker certificate`, then SIGHUP"
            };
            tracing::warn!(expires, days, "{message}");
        }
    }

    /// Takes new rules and certificate if both are good; keeps the old ones if not.
    fn reload(&self) {
        let read = || {
            let config = Config::read(&self.folder)?;
            Ok::<_, ServeError>((Rules::read(&config)?, tls::server(&config.tls)?))
        };
        match read() {
            Ok((rules, tls)) => {
                let policies: Vec<_> = rules.policies().map(vault_attest::policy::Policy::name).collect();
                tracing::info!(?policies, "policies, revocations and certificate read anew");
                *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
                *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
                self.tell_certificate();
            }
            Err(error) => tracing::error!(%error, "not read anew; the old policies and certificate stay in force"),
        }
    }
}

async fn reload_on_hangup(shared: Arc<Shared>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        shared.reload();
    }
}

async fn watch_certificate(shared: Arc<Shared>) {
    loop {
        shared.tell_certificate();
        sleep(WARN_EVERY).await;
    }
}

async fn forget_sources(shared: Arc<Shared>) {
    loop {
        sleep(Duration::from_secs(10)).await;
        shared.gate.forget();
    }
}

/// Lets connections in, one task each. `done` is dropped with the last of them.
async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
    done: mpsc::Sender<Infallible>,
) {
    loop {
        let accepted = match select(pin!(listener.accept()), pin!(stop.wait_for(|stop| *stop))).await {
            Either::Left((accepted, _)) => accepted,
            Either::Right(_) => return,
        };
        let Ok((stream, peer)) = accepted else {
            sleep(Duration::from_millis(50)).await; // out of descriptors: some will be given back
            continue;
        };
        let source = Source::of(peer.ip());
        match shared.gate.admit(source) {
            Ok(admitted) => {
                let (shared, stop, done) = (Arc::clone(&shared), stop.clone(), done.clone());
                tokio::spawn(async move {
                    connection(shared, stream, source, admitted, stop).await;
                    drop(done);
                });
            }
            Err(limit) => shared.metrics.limited(limit), // dropped: a reset costs us least
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    source: Source,
    admitted: Admitted,
    mut stop: watch::Receiver<bool>,
) {
    let _admitted = admitted;
    let _ = stream.set_nodelay(true);
    let head = Duration::from_secs(shared.limits.head_timeout_s);
    let Ok(Ok(stream)) = timeout(head, shared.acceptor().accept(stream)).await else {
        shared.metrics.handshake_error();
        return;
    };
    let life = Duration::from_secs(shared.limits.connection_life_s);
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(api::answer(shared, source, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_headers(32)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let (lived, stopped) = (pin!(sleep(life)), pin!(stop.wait_for(|stop| *stop)));
    let ended = matches!(select(connection.as_mut(), select(lived, stopped)).await, Either::Left(_));
    if !ended {
        // No further request on this connection; the one under way is answered.
        connection.as_mut().graceful_shutdown();
        let last = Duration::from_secs(shared.limits.body_timeout_s + shared.limits.decision_timeout_s);
        let _ = timeout(last, connection).await;
    }
}
