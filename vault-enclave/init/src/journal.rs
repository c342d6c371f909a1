//! Lines for the operator: on the console, and through the parent. Never content, never a key.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vsock::VsockStream;

/// Where lines go.
#[derive(Clone)]
pub struct Journal {
    began: Instant,
    parent: Arc<Mutex<Option<VsockStream>>>,
}

impl Journal {
    /// On the console alone, until there is a parent.
    pub fn new() -> Self {
        Self { began: Instant::now(), parent: Arc::default() }
    }

    /// From now on through the parent too.
    pub fn connect(&self, stream: VsockStream) {
        let _ = stream.set_write_timeout(Some(Duration::from_secs(5))); // then lines are on the console alone
        *self.lock() = Some(stream);
    }

    /// Says a line.
    pub fn say(&self, line: &str) {
        let plain: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = format!("mvault-init {:8.3} {plain}\n", self.began.elapsed().as_secs_f64());
        let _ = std::io::stderr().lock().write_all(line.as_bytes()); // nowhere to complain
        let mut parent = self.lock();
        if parent.as_mut().is_some_and(|stream| stream.write_all(line.as_bytes()).is_err()) {
            *parent = None;
        }
    }

    /// Says the last line, and waits until the parent has it: what is sent just before power-off may be lost. The empty line behind it
    /// tells the parent that there is no more.
    pub fn last(&self, line: &str) {
        self.say(line);
        if let Some(mut stream) = self.lock().take() {
            let _ = stream.write_all(b"\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = stream.read(&mut [0]); // the parent closes when it has read all
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<VsockStream>> {
        self.parent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
