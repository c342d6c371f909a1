//! Trying again: growing pauses with full jitter, as AWS advises, until patience is used up. A transfer that has begun
//! waits out a server's restart; a first contact fails soon, so that a wrong endpoint is named at once.

use crate::error::StoreError;
use std::time::{Duration, Instant};

/// How long to go on trying.
pub struct Patience {
    until: Instant,
    pause: Duration,
}

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(4);

impl Patience {
    /// For the first request to a server.
    pub fn first() -> Self {
        Self::of(Duration::from_secs(5))
    }

    /// For a transfer under way: longer than a server takes to start again.
    pub fn transfer() -> Self {
        Self::of(Duration::from_mins(1))
    }

    /// For this long.
    pub fn of(time: Duration) -> Self {
        Self { until: Instant::now() + time, pause: Duration::from_millis(100) }
    }

    /// Whether to try again after `error`; waits if so.
    pub fn again(&mut self, error: &StoreError) -> bool {
        self.pause(error).map(std::thread::sleep).is_some()
    }

    /// The same on a thread that has other things to do.
    pub async fn again_later(&mut self, error: &StoreError) -> bool {
        let Some(pause) = self.pause(error) else { return false };
        tokio::time::sleep(pause).await;
        true
    }

    fn pause(&mut self, error: &StoreError) -> Option<Duration> {
        if !error.is_transient() || Instant::now() + self.pause > self.until {
            return None;
        }
        let pause = self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.pause = (self.pause * 2).min(LONGEST);
        Some(pause)
    }
}
