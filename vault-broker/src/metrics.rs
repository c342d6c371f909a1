//! What Prometheus sees. Labels are routes, steps and limits: bounded, and nothing of a peer.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;
use vault_attest::Step;

/// The broker's metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    decisions: Family<Decision, Counter>,
    limited: Family<Limited, Counter>,
    errors: Counter,
    handshakes: Counter,
    seconds: Histogram,
    connections: Gauge,
    log_size: Gauge,
    certificate_end: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Decision {
    outcome: String,
    step: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Limited {
    limit: String,
}

impl Metrics {
    /// All zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("mvault_broker");
        let metrics = Self {
            requests: Family::default(),
            decisions: Family::default(),
            limited: Family::default(),
            errors: Counter::default(),
            handshakes: Counter::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            connections: Gauge::default(),
            log_size: Gauge::default(),
            certificate_end: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Answered requests, by route and status", metrics.requests.clone());
        registry.register("decisions", "Logged decisions, by outcome and step", metrics.decisions.clone());
        registry.register("limited", "Connections and requests turned away, by limit", metrics.limited.clone());
        registry.register("state_errors", "Times the database could not decide", metrics.errors.clone());
        registry.register("handshake_errors", "Failed TLS handshakes", metrics.handshakes.clone());
        registry.register("decision_seconds", "Time of a decision with its transaction", metrics.seconds.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("log_entries", "Entries of the release log", metrics.log_size.clone());
        registry.register("certificate_expires_seconds", "When the certificate ends", metrics.certificate_end.clone());
        Self { registry, ..metrics }
    }

    /// A request was answered.
    pub fn request(&self, route: &str, status: u16) {
        self.requests.get_or_create(&Request { route: route.to_owned(), status }).inc();
    }

    /// A decision was logged.
    pub fn decision(&self, refused: Option<Step>, took: Duration) {
        let outcome = if refused.is_some() { "refused" } else { "granted" };
        let step = refused.map(|step| step.to_string()).unwrap_or_default();
        self.decisions.get_or_create(&Decision { outcome: outcome.to_owned(), step }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Someone was turned away.
    pub fn limited(&self, limit: &str) {
        self.limited.get_or_create(&Limited { limit: limit.to_owned() }).inc();
    }

    /// The database could not decide.
    pub fn state_error(&self) {
        self.errors.inc();
    }

    /// A TLS handshake failed.
    pub fn handshake_error(&self) {
        self.handshakes.inc();
    }

    /// A certificate that ends then, in seconds since 1970, is shown from now on.
    pub fn certificate(&self, expires_s: u64) {
        self.certificate_end.set(i64::try_from(expires_s).unwrap_or(i64::MAX));
    }

    /// The text that Prometheus reads.
    pub fn text(&self, connections: usize, log_size: Option<u64>) -> String {
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        if let Some(size) = log_size {
            self.log_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        let _ = encode(&mut text, &self.registry); // a String takes everything
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
