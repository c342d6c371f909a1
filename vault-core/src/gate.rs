//! Order among workers. Each batch has a ticket; workers do the heavy part in any order. Where order matters they
//! take turns by ticket, or hand in what they have done and go on: whoever hands in what is next settles all that can
//! be. The first failure by ticket stops all: nothing of a later batch passes a gate after it.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A place where order matters, for batches of `T`.
pub(crate) struct Gate<T = ()> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The ticket that passes next.
    next: u64,
    stopped: bool,
    failure: Option<Error>,
    /// Handed in and not settled.
    waiting: BTreeMap<u64, T>,
    /// Somebody is settling.
    busy: bool,
    /// Workers that wait for others to settle.
    blocked: usize,
    /// Settled, to be used again.
    spare: Vec<T>,
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        let (waiting, spare) = (BTreeMap::new(), Vec::new());
        let state = State { next: 0, stopped: false, failure: None, waiting, busy: false, blocked: 0, spare };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Gate<T> {
    /// Hands in a batch. `settle` runs for one batch after the other, by ticket, on whichever thread hands in what is
    /// next: a worker waits for another one only if more than `ahead` batches wait. False once an earlier ticket has
    /// failed, or this one.
    pub(crate) fn hand_in(&self, ticket: u64, batch: T, ahead: usize, settle: impl Fn(&mut T) -> Result<()>) -> bool {
        let mut state = self.lock();
        if ticket < state.next + u64::from(state.busy) || state.waiting.insert(ticket, batch).is_some() {
            // Our own tickets do not: it is something that was read.
            let twice = std::io::Error::other("a part of it came twice");
            self.stop(&mut state, Error::io("read the artifact")(twice));
        }
        while !state.stopped {
            let next = state.next;
            if !state.busy
                && let Some(mut batch) = state.waiting.remove(&next)
            {
                state.busy = true;
                drop(state); // others may hand in meanwhile
                let settled = settle(&mut batch);
                state = self.lock();
                state.busy = false;
                match settled {
                    Ok(()) => state.next += 1,
                    Err(failure) => self.stop(&mut state, failure),
                }
                state.spare.push(batch);
                if state.blocked > 0 {
                    self.changed.notify_all();
                }
            } else if state.waiting.len() <= ahead {
                return true;
            } else {
                state.blocked += 1;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.blocked -= 1;
            }
        }
        false
    }

    /// One that was settled, to be used again.
    pub(crate) fn spare(&self) -> Option<T> {
        self.lock().spare.pop()
    }

    /// How many were settled.
    pub(crate) fn settled(&self) -> u64 {
        self.lock().next
    }

    /// Waits until every ticket before this one has passed, runs `f`, lets the next one in. `None` once an earlier
    /// ticket has failed, or if `f` fails.
    pub(crate) fn in_turn<R>(&self, ticket: u64, f: impl FnOnce() -> Result<R>) -> Option<R> {
        let mut state = self.lock();
        while !state.stopped && state.next != ticket {
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
                state.next += 1;
                Some(value)
            }
            Err(failure) => {
                self.stop(&mut state, failure);
                None
            }
        };
        self.changed.notify_all();
        passed
    }

    /// What needs no turn: a failure stops all.
    pub(crate) fn pass<R>(&self, result: Result<R>) -> Option<R> {
        result.map_err(|failure| self.stop(&mut self.lock(), failure)).ok()
    }

    fn stop(&self, state: &mut State<T>, failure: Error) {
        state.stopped = true;
        state.failure.get_or_insert(failure);
        self.changed.notify_all();
    }

    /// True once something failed.
    pub(crate) fn stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Runs `worker` on `threads` threads to the end; the first failure by ticket is the result.
    pub(crate) fn run(&self, threads: usize, worker: &(dyn Fn() + Sync)) -> Result<()>
    where
        T: Send,
    {
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
        struct StopOnPanic<'a, T>(&'a Gate<T>);
        impl<T> Drop for StopOnPanic<'_, T> {
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

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    /// Ticket after ticket; those from 40 on fail.
    fn settle(passed: &Mutex<Vec<u64>>, ticket: u64) -> Result<()> {
        if ticket >= 40 {
            return Err(crate::error::refused(25, ticket.to_string()));
        }
        passed.lock().unwrap().push(ticket);
        Ok(())
    }

    #[test]
    fn first_failure_by_ticket_wins_and_later_turns_do_not_run() {
        let (gate, tickets, passed) = (Gate::<()>::default(), AtomicU64::new(0), Mutex::new(Vec::new()));
        let result = gate.run(8, &|| {
            while !gate.stopped() {
                let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                if gate.in_turn(ticket, || settle(&passed, ticket)).is_none() {
                    return;
                }
            }
        });
        assert_eq!(result.unwrap_err().to_string(), "40 [F-25]");
        assert_eq!(*passed.lock().unwrap(), (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_handed_in_is_settled_in_order_and_nothing_after_a_failure() {
        for ahead in [0, 1, 5, 100] {
            let (gate, tickets, passed) = (Gate::default(), AtomicU64::new(0), Mutex::new(Vec::new()));
            let result = gate.run(8, &|| {
                loop {
                    let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                    let pause = if ticket.is_multiple_of(3) { 300 } else { 0 };
                    std::thread::sleep(std::time::Duration::from_micros(pause));
                    if !gate.hand_in(ticket, ticket, ahead, |ticket| settle(&passed, *ticket)) {
                        return;
                    }
                }
            });
            assert_eq!(result.unwrap_err().to_string(), "40 [F-25]", "{ahead}");
            assert_eq!(*passed.lock().unwrap(), (0..40).collect::<Vec<_>>(), "{ahead}");
        }
    }

    /// The last to hand in settles what others left; nobody is more than `ahead` batches in front.
    #[test]
    fn nothing_is_left_and_nobody_runs_away() {
        for ahead in [0, 2] {
            let (gate, tickets, settled) = (Gate::<u64>::default(), AtomicU64::new(0), AtomicUsize::new(0));
            let most = AtomicU64::new(0);
            gate.run(4, &|| {
                loop {
                    let ticket = tickets.fetch_add(1, Ordering::Relaxed);
                    if ticket >= 200 {
                        return;
                    }
                    if ticket == 50 {
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        most.fetch_max(tickets.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                    gate.hand_in(ticket, ticket, ahead, |_| {
                        settled.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    });
                }
            })
            .unwrap();
            assert_eq!(settled.load(Ordering::Relaxed), 200);
            // Three workers hold one batch each, of which one more than may wait.
            let most = most.load(Ordering::Relaxed);
            assert!(most <= 51 + 3 + ahead as u64, "{most}");
        }
    }

    #[test]
    fn what_comes_twice_is_settled_twice() {
        for (first, again) in [(0, 0), (2, 2)] {
            let (gate, settled) = (Gate::<u64>::default(), AtomicUsize::new(0));
            let settle = |_: &mut u64| {
                settled.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            let result = gate.run(1, &|| {
                assert!(gate.hand_in(first, first, 100, settle));
                assert!(!gate.hand_in(again, again, 100, settle));
                assert!(!gate.hand_in(1, 1, 100, settle));
            });
            assert_eq!(result.unwrap_err().to_string(), "read the artifact: a part of it came twice");
            assert_eq!(gate.settled(), settled.into_inner() as u64);
        }
    }
}
