//! Limits and the watch for model extraction, per client: docs/ENCLAVE.md section 6. Keeps counts, keyed hashes and one sum of
//! embeddings a client; never an input.

#![allow(clippy::cast_precision_loss)] // counts become scores; nobody needs the 53rd bit

use crate::config::{Serve, Watch};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
/// Most hashes that are kept of one client.
const MOST: u64 = 1_000_000;

/// What is known of the clients.
pub struct Clients {
    serve: Serve,
    watch: Watch,
    /// Its keys are this process's: hashes mean nothing outside.
    hasher: RandomState,
    seen: Mutex<HashMap<String, Client>>,
}

struct Client {
    minute: Instant,
    requests: u32,
    day: Instant,
    tokens: u64,
    distinct: HashSet<u64>,
    /// Inputs since `distinct` was full: all count as new.
    more: u64,
    /// Of unit-length embeddings.
    sum: Vec<f64>,
    embeddings: u64,
    warned: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Requests of this minute.
    Requests,
    /// Tokens of this day.
    Tokens,
    /// The watch stopped this client.
    Extraction,
}

/// What to do about a client after its request was answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sign {
    /// Nothing.
    Quiet,
    /// Say it once: the score.
    Warn(f64),
    /// Answer slower.
    Slow,
}

impl Clients {
    /// Nobody asked yet.
    pub fn new(serve: &Serve, watch: &Watch) -> Self {
        let (serve, watch) = (serve.clone(), watch.clone());
        Self { serve, watch, hasher: RandomState::new(), seen: Mutex::default() }
    }

    /// A request of this client at this time: may it go on? Seconds to wait if not.
    pub fn admit(&self, name: &str, now: Instant) -> Result<(), (Limit, u64)> {
        self.with(name, now, |client| {
            let wait = |since: Instant, window: Duration| (since + window).saturating_duration_since(now).as_secs() + 1;
            if client.requests >= self.serve.requests_per_minute {
                return Err((Limit::Requests, wait(client.minute, MINUTE)));
            }
            if client.tokens >= self.serve.tokens_per_day {
                return Err((Limit::Tokens, wait(client.day, DAY)));
            }
            if client.score() >= self.watch.stop as f64 {
                return Err((Limit::Extraction, wait(client.day, DAY)));
            }
            client.requests += 1;
            Ok(())
        })
    }

    /// What was answered: inputs with their embeddings (unit length), and how many tokens it took.
    pub fn answered(
        &self,
        name: &str,
        now: Instant,
        inputs: &[impl Hash],
        embeddings: &[Vec<f32>],
        tokens: u64,
    ) -> Sign {
        let most = usize::try_from(self.watch.stop.min(MOST)).unwrap_or(usize::MAX);
        self.with(name, now, |client| {
            client.tokens = client.tokens.saturating_add(tokens);
            for (input, embedding) in inputs.iter().zip(embeddings) {
                if client.distinct.len() < most {
                    client.distinct.insert(self.hasher.hash_one(input));
                } else {
                    client.more += 1;
                }
                client.sum.resize(embedding.len(), 0.0);
                client.sum.iter_mut().zip(embedding).for_each(|(sum, x)| *sum += f64::from(*x));
                client.embeddings += 1;
            }
            let score = client.score();
            if score >= self.watch.slow as f64 {
                Sign::Slow
            } else if score >= self.watch.warn as f64 && !std::mem::replace(&mut client.warned, true) {
                Sign::Warn(score)
            } else {
                Sign::Quiet
            }
        })
    }

    fn with<T>(&self, name: &str, now: Instant, work: impl FnOnce(&mut Client) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let client = seen.entry(name.to_owned()).or_insert_with(|| Client::new(now));
        if now.saturating_duration_since(client.day) >= DAY {
            *client = Client::new(now);
        } else if now.saturating_duration_since(client.minute) >= MINUTE {
            (client.minute, client.requests) = (now, 0);
        }
        work(client)
    }
}

impl Client {
    fn new(now: Instant) -> Self {
        let (distinct, sum) = (HashSet::new(), Vec::new());
        Self { minute: now, requests: 0, day: now, tokens: 0, distinct, more: 0, sum, embeddings: 0, warned: false }
    }

    /// Distinct inputs times their spread.
    fn score(&self) -> f64 {
        if self.embeddings == 0 {
            return 0.0;
        }
        let mean = self.sum.iter().map(|x| x * x).sum::<f64>().sqrt() / self.embeddings as f64;
        (self.distinct.len() as f64 + self.more as f64) * (1.0 - mean.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests;
