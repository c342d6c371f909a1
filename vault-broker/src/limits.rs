//! What one peer, and all together, may take: connections and requests a second, by source. Nothing of it is logged as a
//! decision, or anyone could fill the log.

use crate::config::Limits;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

/// Who asks: an IPv4 address, or the /64 that one IPv6 host can use freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// Of a peer's address.
    pub fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into())),
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
            IpAddr::V4(v4) => v4.fmt(f),
        }
    }
}

/// Counts and rates.
pub struct Gate {
    most: usize,
    most_per_source: usize,
    open: Mutex<Open>,
    all: DefaultDirectRateLimiter,
    each: DefaultKeyedRateLimiter<Source>,
}

#[derive(Default)]
struct Open {
    all: usize,
    each: HashMap<Source, usize>,
}

/// A connection that is counted as long as this lives.
pub struct Admitted {
    gate: Arc<Gate>,
    source: Source,
}

impl Gate {
    /// With these limits, none of which is zero.
    pub fn new(limits: &Limits) -> Self {
        let rate = |n: u32| Quota::per_second(NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        Self {
            most: limits.connections,
            most_per_source: limits.connections_per_source,
            open: Mutex::default(),
            all: RateLimiter::direct(rate(limits.requests_per_second)),
            each: RateLimiter::keyed(rate(limits.requests_per_second_per_source)),
        }
    }

    /// Lets a connection in, or says which limit it met.
    pub fn admit(self: &Arc<Self>, source: Source) -> Result<Admitted, &'static str> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.most {
            return Err("connections");
        }
        let of_source = open.each.get(&source).copied().unwrap_or(0);
        if of_source >= self.most_per_source {
            return Err("connections_per_source");
        }
        open.all += 1;
        open.each.insert(source, of_source + 1);
        Ok(Admitted { gate: Arc::clone(self), source })
    }

    /// Lets a request in, or says which limit it met.
    pub fn request(&self, source: Source) -> Result<(), &'static str> {
        if self.each.check_key(&source).is_err() {
            return Err("requests_per_second_per_source");
        }
        self.all.check().map_err(|_| "requests_per_second")
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// Forgets sources that have not asked for a while: memory stays flat.
    pub fn forget(&self) {
        self.each.retain_recent();
        self.each.shrink_to_fit();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        match open.each.get_mut(&self.source) {
            Some(n) if *n > 1 => *n -= 1,
            _ => {
                open.each.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn sources_are_addresses_or_networks() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn connections_are_counted_and_given_back() {
        let limits = Limits { connections: 3, connections_per_source: 2, ..Limits::default() };
        let gate = Arc::new(Gate::new(&limits));
        let (a, b) = (source("192.0.2.1"), source("192.0.2.2"));
        let first = gate.admit(a).ok().unwrap();
        let _second = gate.admit(a).ok().unwrap();
        assert_eq!(gate.admit(a).err(), Some("connections_per_source"));
        let third = gate.admit(b).ok().unwrap();
        assert_eq!(gate.admit(b).err(), Some("connections"));
        drop(first);
        assert!(gate.admit(b).is_ok());
        drop(third);
        assert_eq!(gate.open(), 1);
    }

    #[test]
    fn one_source_does_not_take_the_rate_of_another() {
        let limits = Limits { requests_per_second_per_source: 1, ..Limits::default() };
        let gate = Gate::new(&limits);
        assert!(gate.request(source("192.0.2.1")).is_ok());
        assert_eq!(gate.request(source("192.0.2.1")), Err("requests_per_second_per_source"));
        assert!(gate.request(source("192.0.2.2")).is_ok());
    }
}
