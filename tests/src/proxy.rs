//! A proxy of HTTP/1.1 that a client takes for its server: it counts what passes and does harm where a test says so.
//!
//! Bytes pass unchanged, the Host header too, so a request signed for the proxy verifies at the server behind it. A
//! [`Rule`] says which requests suffer which [`Fault`]; each request has a connection upstream of its own, so nothing
//! that happens to one reaches another. [`Proxy::block`] is a pulled network cable. No TLS, no HTTP/2.

mod body;
mod http;
mod relay;

pub use body::Body;

use crate::server::process::free_ports;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset when the request's head has come; the server never hears of it.
    Reset,
    /// Nothing happens for a while, then all as usual.
    Delay(Duration),
    /// The answer is an error of S3 (or KMS) with this status and code; the server never hears of the request. S3 does
    /// answer CompleteMultipartUpload with 200 and an error.
    Answer(u16, &'static str),
    /// Both connections are reset after so many bytes of the request's body.
    CutRequest(u64),
    /// The connection ends after so many bytes of the answer's body, like a server's that dies.
    CutResponse(u64),
    /// After so many bytes of the answer's body no more come, and the connection stays.
    StallResponse(u64),
    /// The lowest bit of this byte of the request's body is flipped.
    FlipRequest(u64),
    /// The lowest bit of this byte of the answer's body is flipped.
    FlipResponse(u64),
    /// The server does what it was asked, and its answer is lost.
    DropAnswer,
}

impl Fault {
    pub const SLOW_DOWN: Self = Self::Answer(503, "SlowDown");
    pub const INTERNAL_ERROR: Self = Self::Answer(500, "InternalError");
}

/// A request as a [`Rule`] sees it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query as sent, percent-encoded.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The operation's name in S3's (or KMS's) API, such as `UploadPart`; the method for what is none of the common.
    pub fn operation(&self) -> &str {
        http::operation(self)
    }
}

type Matcher = Box<dyn Fn(&Request) -> bool + Send>;

/// Which requests suffer a fault: all that match, unless [`Rule::nth`] or [`Rule::times`] say fewer.
pub struct Rule {
    matches: Matcher,
    fault: Fault,
    first: u64,
    times: u64,
    seen: u64,
    hits: Arc<AtomicU64>,
}

impl Rule {
    /// Requests of this operation or method (`""` for any) whose path and query contain `part`.
    pub fn new(operation: &'static str, part: &str, fault: Fault) -> Self {
        let part = part.to_owned();
        Self::when(fault, move |request| {
            (operation.is_empty() || request.method == operation || request.operation() == operation)
                && request.target.contains(&part)
        })
    }

    pub fn when(fault: Fault, matches: impl Fn(&Request) -> bool + Send + 'static) -> Self {
        Self { matches: Box::new(matches), fault, first: 1, times: u64::MAX, seen: 0, hits: Arc::default() }
    }

    /// Only from the `first` matching request on (the first is 1), and once unless [`Rule::times`] says more.
    #[must_use]
    pub fn nth(mut self, first: u64) -> Self {
        self.first = first;
        self.times = self.times.min(1);
        self
    }

    /// So many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn strikes(&mut self, request: &Request) -> Option<Fault> {
        if !(self.matches)(request) {
            return None;
        }
        self.seen += 1;
        let strikes = self.seen >= self.first && self.seen - self.first < self.times;
        strikes.then(|| {
            self.hits.fetch_add(1, Ordering::SeqCst);
            self.fault
        })
    }
}

/// How often a rule has struck: a test of a fault that never happened tests nothing.
#[derive(Clone)]
pub struct Hits(Arc<AtomicU64>);

impl Hits {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// One request and its answer, as far as they came.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub method: String,
    pub operation: String,
    /// Path and query as sent.
    pub target: String,
    /// The Range header.
    pub range: Option<String>,
    /// What the server answered, or a fault in its place; also when the client did not hear it.
    pub status: Option<u16>,
    /// Bytes of the request's body that the client sent.
    pub request_bytes: u64,
    /// Digests of it.
    pub body: Body,
    /// Bytes of the answer's body that went to the client.
    pub response_bytes: u64,
    pub faults: Vec<Fault>,
    /// The answer, all of it, was handed to the client.
    pub complete: bool,
}

/// Sums over [`Proxy::log`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By method and operation.
    pub requests: BTreeMap<(String, String), u64>,
    /// Bytes of bodies.
    pub up: u64,
    pub down: u64,
}

impl Counts {
    /// Requests of an operation, or of a method.
    pub fn of(&self, name: &str) -> u64 {
        self.requests.iter().filter(|((method, what), _)| method == name || what == name).map(|(_, n)| n).sum()
    }

    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

/// A running proxy; gone, with its connections, when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    pub fn start(upstream: SocketAddr) -> Self {
        let [port] = free_ports();
        let shared = Arc::new(Shared::new(upstream));
        let proxy = Self { address: (Ipv4Addr::LOCALHOST, port).into(), shared, listener: Mutex::default() };
        proxy.unblock();
        proxy
    }

    /// What a client uses in place of the server's endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a rule. Several can strike one request.
    pub fn add(&self, rule: Rule) -> Hits {
        let hits = Hits(rule.hits.clone());
        lock(&self.shared.rules).push(rule);
        hits
    }

    /// Forgets all rules and the throttle; what is being done goes on.
    pub fn clear_rules(&self) {
        lock(&self.shared.rules).clear();
        self.throttle(None);
    }

    /// Lets so many bytes of bodies a second pass in each direction, over all connections.
    pub fn throttle(&self, rate: Option<u64>) {
        self.shared.rate.store(rate.unwrap_or(0), Ordering::SeqCst);
    }

    /// Refuses connections, and cuts those that are open.
    pub fn block(&self) {
        self.shared.blocked.store(true, Ordering::SeqCst);
        if let Some(listener) = lock(&self.listener).take() {
            let _ = TcpStream::connect(self.address); // wakes it
            listener.join().expect("the listening thread");
        }
        lock(&self.shared.open).values().for_each(|stream| {
            relay::reset_on_close(stream);
            let _ = stream.shutdown(Shutdown::Both); // it may be gone already
        });
    }

    /// Ends [`Proxy::block`].
    pub fn unblock(&self) {
        let mut thread = lock(&self.listener);
        if thread.is_some() {
            return;
        }
        self.shared.blocked.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(self.address).expect("the proxy's port");
        let shared = self.shared.clone();
        *thread = Some(thread::spawn(move || listen(&listener, &shared)));
    }

    /// Every request so far, in the order they came.
    pub fn log(&self) -> Vec<Exchange> {
        lock(&self.shared.log).iter().map(|exchange| lock(exchange).clone()).collect()
    }

    /// Starts an empty log.
    pub fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }

    pub fn counts(&self) -> Counts {
        self.log().into_iter().fold(Counts::default(), |mut counts, exchange| {
            *counts.requests.entry((exchange.method, exchange.operation)).or_default() += 1;
            counts.up += exchange.request_bytes;
            counts.down += exchange.response_bytes;
            counts
        })
    }

    /// Connections that are open now, of clients.
    pub fn connections(&self) -> usize {
        lock(&self.shared.open).len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.block();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.log()).finish()
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in (0..).zip(listener.incoming()) {
        let Ok(stream) = stream else { continue };
        let mut open = lock(&shared.open);
        if shared.blocked.load(Ordering::SeqCst) {
            return relay::reset_on_close(&stream);
        }
        let Ok(copy) = stream.try_clone() else { continue };
        let id = (Instant::now(), number);
        open.insert(id, copy);
        let shared = shared.clone();
        thread::spawn(move || relay::serve(stream, id, &shared));
    }
}

/// A connection's name: numbers alone begin anew with each listener.
type Id = (Instant, u64);

/// What the connections' threads share.
struct Shared {
    upstream: SocketAddr,
    blocked: AtomicBool,
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Arc<Mutex<Exchange>>>>,
    open: Mutex<BTreeMap<Id, TcpStream>>,
    /// Bytes a second, 0 for as fast as can be.
    rate: AtomicU64,
    /// When the throttled direction is free again: up, down.
    free_at: [Mutex<Instant>; 2],
}

impl Shared {
    fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            blocked: AtomicBool::new(false),
            rules: Mutex::default(),
            log: Mutex::default(),
            open: Mutex::default(),
            rate: AtomicU64::new(0),
            free_at: [Mutex::new(Instant::now()), Mutex::new(Instant::now())],
        }
    }

    /// Enters a request in the log, with the faults that it is to suffer.
    fn enter(&self, request: &Request) -> Arc<Mutex<Exchange>> {
        let faults = lock(&self.rules).iter_mut().filter_map(|rule| rule.strikes(request)).collect();
        let exchange = Arc::new(Mutex::new(Exchange {
            method: request.method.clone(),
            operation: request.operation().to_owned(),
            target: request.target.clone(),
            range: request.header("range").map(str::to_owned),
            status: None,
            request_bytes: 0,
            body: Body::default(),
            response_bytes: 0,
            faults,
            complete: false,
        }));
        lock(&self.log).push(exchange.clone());
        exchange
    }

    /// How many bytes to pass at a time, `most` at most: a throttled body trickles and does not come in lumps.
    fn grain(&self, most: usize) -> usize {
        match self.rate.load(Ordering::SeqCst) {
            0 => most,
            rate => usize::try_from(rate / 20).map_or(most, |grain| grain.clamp(1, most)),
        }
    }

    /// Waits until `bytes` more may pass in a direction.
    fn pace(&self, direction: usize, bytes: usize) {
        let rate = self.rate.load(Ordering::SeqCst);
        if rate == 0 {
            return;
        }
        let micros = bytes as u64 * 1_000_000 / rate;
        let until = {
            let mut free_at = lock(&self.free_at[direction]);
            *free_at = (*free_at).max(Instant::now()) + Duration::from_micros(micros);
            *free_at
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
