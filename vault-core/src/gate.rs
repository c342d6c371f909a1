//! Order among workers. Each batch has a ticket; workers do the heavy part in any order and take
//! turns, by ticket, where order matters. The first failure by ticket stops all: nothing of a later
//! batch passes a gate after it.

use crate::error::{Error, Result};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Places where order matters; each has its own sequence.
#[derive(Clone, Copy)]
pub(crate) enum Lane {
    /// Plaintext, for digests, scanning and release.
    Plain = 0,
    /// Ciphertext, for ordered output.
    Sealed = 1,
}

#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: [u64; 2],
    stopped: bool,
    failure: Option<Error>,
}

impl Gate {
    /// Waits until every ticket before this one has passed `lane`, runs `f`, lets the next one in. `None`
    /// once an earlier ticket has failed, or if `f` fails.
    pub(crate) fn in_turn<T>(&self, lane: Lane, ticket: u64, f: impl FnOnce() -> Result<T>) -> Option<T> {
        let mut state = self.lock();
        while !state.stopped && state.next.get(lane as usize) != Some(&ticket) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return None;
        }
        drop(state); // turns exclude each other; only the counter needs the lock
        let result = f();
        let mut state = self.lock();
        let passed = match result {
            Ok(value) => {
                if let Some(next) = state.next.get_mut(lane as usize) {
                    *next += 1;
                }
                Some(value)
            }
            Err(failure) => {
                state.stopped = true;
                state.failure.get_or_insert(failure);
                None
            }
        };
        self.changed.notify_all();
        passed
    }

    /// What needs no turn: a failure stops all.
    pub(crate) fn pass<T>(&self, result: Result<T>) -> Option<T> {
        result
            .map_err(|failure| {
                let mut state = self.lock();
                state.stopped = true;
                state.failure.get_or_insert(failure);
                self.changed.notify_all();
            })
            .ok()
    }

    /// True once something failed.
    pub(crate) fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Runs `worker` on `threads` threads to the end; the first failure by ticket is the result.
    pub(crate) fn run(&self, threads: usize, worker: &(dyn Fn() + Sync)) -> Result<()> {
        std::thread::scope(|scope| {
            for _ in 1..threads.max(1) {
                scope.spawn(|| self.guarded(worker));
            }
            self.guarded(worker);
        });
        self.lock().failure.take().map_or(Ok(()), Err)
    }

    /// A worker that panics must not leave the others waiting for its turn.
    fn guarded(&self, worker: &(dyn Fn() + Sync)) {
        struct StopOnPanic<'a>(&'a Gate);
        impl Drop for StopOnPanic<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.lock().stopped = true;
                    self.0.changed.notify_all();
                }
            }
        }
        let _guard = StopOnPanic(self);
        worker();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn first_failure_by_ticket_wins_and_later_turns_do_not_run() {
        let (gate, tickets, passed) = (Gate::default(), AtomicU64::new(0), Mutex::new(Vec::new()));
        let result = gate.run(8, &|| {
            while !gate.stopped() {
                let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                let turn = gate.in_turn(Lane::Plain, ticket, || {
                    if ticket >= 40 {
                        return Err(crate::error::refused(25, ticket.to_string()));
                    }
                    passed.lock().unwrap().push(ticket);
                    Ok(())
                });
                if turn.is_none() {
                    return;
                }
            }
        });
        assert_eq!(result.unwrap_err().to_string(), "40 [F-25]");
        assert_eq!(*passed.lock().unwrap(), (0..40).collect::<Vec<_>>());
    }
}
