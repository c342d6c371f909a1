//! All that is printed. Results go to stdout, everything else to stderr; progress only to a terminal; with
//! `--json` one JSON object on stdout, errors included.

#![allow(clippy::print_stdout, clippy::print_stderr)] // this is the one place that prints
#![allow(clippy::unused_self)] // printing is a right one has by holding an `Output`

use crate::error::CliError;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write, stderr, stdout};

/// Flags every verb has.
#[derive(clap::Args)]
pub struct OutputArgs {
    /// Print one JSON object on stdout, for scripts
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    /// No notes and no progress
    #[arg(short, long, global = true, display_order = 901)]
    quiet: bool,
}

/// Where output goes.
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// By the flags.
    pub fn new(args: &OutputArgs) -> Self {
        Self { json: args.json, quiet: args.quiet }
    }

    /// A verb's result: JSON for scripts, or text for people.
    pub fn result(&mut self, json: &serde_json::Value, text: &str) -> Result<(), CliError> {
        let json_text = format!("{json:#}\n");
        let text = if self.json { &json_text } else { text };
        self.bytes(text.as_bytes())
    }

    /// One of many lines of a verb that goes on: a JSON object a line for scripts, or text for people.
    pub fn event(&mut self, json: &serde_json::Value, text: &str) -> Result<(), CliError> {
        let line = if self.json { format!("{json}\n") } else { format!("{text}\n") };
        self.bytes(line.as_bytes())
    }

    /// Bytes on stdout. A reader that went away is not an error worth words.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(crate::error::io("standard output")(e)),
            _ => Ok(()),
        }
    }

    /// Something worth knowing.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            eprintln!("mvault: {text}");
        }
    }

    /// Asks on the terminal; without one the answer is an error that says what to do.
    pub fn confirm(&self, question: &str) -> Result<bool, CliError> {
        if !std::io::stdin().is_terminal() {
            return Err(CliError::usage("there is no terminal to ask on").hint("say --yes if you mean it"));
        }
        eprint!("mvault: {question} [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(crate::error::io("the terminal"))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Something to worry about; not silenced.
    pub fn warning(&self, text: &str) {
        eprintln!("mvault: warning: {text}");
    }

    /// A line for the CI that runs this; not silenced.
    pub fn annotation(&self, line: &str) {
        eprintln!("{line}");
    }

    /// Why it failed, and the next step.
    pub fn failure(&mut self, error: &CliError) {
        if self.json && !error.is_reported() {
            let mut json = serde_json::json!({
                "ok": false,
                "error": error.message(),
                "hint": error.next_step(),
                "rule": error.rule(),
                "exit": error.exit_code(),
            });
            if let (Some(json), Some(store)) = (json.as_object_mut(), error.store()) {
                json.insert("operation".into(), store.operation.into());
                json.extend(store.status.map(|s| ("status".into(), s.into())));
                json.extend(store.code.clone().map(|c| ("code".into(), c.into())));
                json.extend(store.request_id.clone().map(|id| ("request_id".into(), id.into())));
            }
            let _ = self.bytes(format!("{json:#}\n").as_bytes());
        }
        eprintln!("mvault: error: {}", error.message());
        if let Some(hint) = error.next_step() {
            eprintln!("mvault: hint: {hint}");
        }
    }

    /// A bar on a terminal, nothing elsewhere.
    pub fn progress(&self, what: &str, total: Option<u64>) -> ProgressBar {
        let visible = !self.quiet && !self.json && stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = if total.is_some() {
            "{msg:<8} {bytes:>10} of {total_bytes}  {bar:20}  {binary_bytes_per_sec}, {eta} left"
        } else {
            "{msg:<8} {bytes:>10}  {spinner}  {binary_bytes_per_sec}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar
    }
}

/// A size for people, in binary units.
pub fn size(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

/// Rows with columns as wide as they need to be; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Text from an artifact or a certificate, fit for a terminal: nothing that moves the cursor or turns the writing.
pub fn printable(text: &str) -> String {
    let turns = |c| matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{FFFD}' } else { c }).collect()
}

/// Standard output as a file: unbuffered, usable from any thread.
pub fn stdout_file() -> Result<std::fs::File, CliError> {
    let fd = std::os::fd::AsFd::as_fd(&stdout()).try_clone_to_owned();
    fd.map(std::fs::File::from).map_err(crate::error::io("standard output"))
}

/// Standard input as a file: unbuffered, usable from any thread.
pub fn stdin_file() -> Result<std::fs::File, CliError> {
    let fd = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned();
    let file = fd.map(std::fs::File::from).map_err(crate::error::io("standard input"))?;
    // A pipe of 64 KiB makes a process switch of every chunk. Where it cannot grow, it is only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(&file, 1024 * 1024);
    Ok(file)
}
