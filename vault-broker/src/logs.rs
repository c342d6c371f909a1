//! Structured logs: one JSON object a line on stderr. What is logged is chosen where it happens; there is no
//! verbosity that shows more.

use tracing::Level;

/// Sends what the broker logs to stderr, for the rest of the process.
pub fn start() {
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false);
    // A second subscriber is refused, which only a second call could bring about.
    let _ = lines.with_max_level(Level::INFO).with_writer(std::io::stderr).try_init();
}
