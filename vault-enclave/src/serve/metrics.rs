//! What Prometheus sees: counts and times. Nothing of what was asked, and no client's name.

use crate::watch::Limit;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// An enclave's metrics.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    limited: Family<Limited, Counter>,
    texts: Counter,
    tokens: Counter,
    seconds: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Limited {
    limit: &'static str,
}

impl Metrics {
    /// All zero.
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("mvault_enclave");
        let (requests, limited) = (Family::default(), Family::default());
        let (texts, tokens) = (Counter::default(), Counter::default());
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        registry.register("requests", "Answered requests, by route and status", requests.clone());
        registry.register("limited", "Requests and connections turned away, by limit", limited.clone());
        registry.register("texts", "Texts embedded", texts.clone());
        registry.register("tokens", "Tokens embedded", tokens.clone());
        registry.register("request_seconds", "Time of a request", seconds.clone());
        Self { registry, requests, limited, texts, tokens, seconds }
    }

    pub(super) fn request(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Request { route, status }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn limited(&self, limit: Limit) {
        let limit = match limit {
            Limit::Requests => "requests",
            Limit::Tokens => "tokens",
            Limit::Extraction => "extraction",
        };
        self.limited.get_or_create(&Limited { limit }).inc();
    }

    pub(super) fn turned_away(&self) {
        self.limited.get_or_create(&Limited { limit: "connections" }).inc();
    }

    pub(super) fn embedded(&self, texts: usize, tokens: u64) {
        self.texts.inc_by(texts as u64);
        self.tokens.inc_by(tokens);
    }

    /// In Prometheus' text form.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let _ = encode(&mut text, &self.registry); // a String takes everything
        text
    }
}
