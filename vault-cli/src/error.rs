//! What the command line says when it cannot go on: the cause, the next step, the exit code.

use crate::output::printable;
use vault_core::Error as CoreError;
use vault_core::model_signature::Error as SignatureError;
use vault_store::error::in_io;
use vault_store::{Cause, StoreError};

/// An error with its next step.
#[derive(Debug)]
pub struct CliError {
    message: String,
    hint: Option<String>,
    rule: Option<String>,
    exit: u8,
    reported: bool,
    store: Option<Box<StoreError>>,
    refused_file: Option<String>,
}

/// Failed.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// Not authentic, or not to be shown authentic.
const NOT_AUTHENTIC: u8 = 3;
/// Genuine, but not allowed: debug mode, or a policy.
const DENIED: u8 = 4;
/// A store or AWS KMS failed.
const STORE: u8 = 5;

impl CliError {
    /// Something failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            rule: None,
            exit: FAILED,
            reported: false,
            store: None,
            refused_file: None,
        }
    }

    /// Something failed, and the result on stdout already says so.
    pub fn reported(message: impl Into<String>) -> Self {
        Self { reported: true, ..Self::failed(message) }
    }

    /// It is not what it should be.
    pub fn not_authentic(message: impl Into<String>) -> Self {
        Self { exit: NOT_AUTHENTIC, ..Self::failed(message) }
    }

    /// Evidence is genuine, and denied.
    pub fn denied(message: impl Into<String>) -> Self {
        Self { exit: DENIED, ..Self::failed(message) }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::failed(message) }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Names the rule or step that failed.
    #[must_use]
    pub fn by_rule(self, rule: impl std::fmt::Display) -> Self {
        Self { rule: Some(rule.to_string()), ..self }
    }

    /// The result on stdout already says so.
    #[must_use]
    pub fn already_reported(self) -> Self {
        Self { reported: true, ..self }
    }

    /// Names the file an error is about.
    #[must_use]
    pub fn about(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The next step.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The rule of FORMAT.md or the step of KEY_RELEASE.md that failed.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    /// What a store said, if one failed.
    pub fn store(&self) -> Option<&StoreError> {
        self.store.as_deref()
    }

    /// The file of a model that a scan refused.
    pub fn refused_file(&self) -> Option<&str> {
        self.refused_file.as_deref()
    }

    /// Whether JSON on stdout already says so.
    pub fn is_reported(&self) -> bool {
        self.reported
    }

    /// The same where the output is a pipe, from which nothing can be taken back.
    #[must_use]
    pub fn piped(mut self) -> Self {
        if let Some(rest) = self.hint.as_deref().and_then(|hint| hint.strip_prefix("nothing was written")) {
            self.hint = Some(format!("what is in the pipe is no artifact{rest}"));
        }
        self
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        self.exit
    }
}

impl From<CoreError> for CliError {
    fn from(error: CoreError) -> Self {
        if let CoreError::Io { source, .. } = &error
            && let Some(store) = in_io(source)
        {
            return store.clone().into();
        }
        let rule = error.rule();
        let (exit, hint) = match &error {
            CoreError::Refused { rule, .. } if rule.0 == 39 => (USAGE, refusal_hint(39)), // a key, not an artifact
            CoreError::Refused { rule, .. } => (NOT_AUTHENTIC, refusal_hint(rule.0)),
            CoreError::Unsafe { verdict, .. } => (FAILED, Some(unsafe_hint(*verdict))),
            CoreError::Usage(_) => (USAGE, None),
            CoreError::SourceChanged { .. } => {
                (FAILED, Some("nothing was written; try again when nobody writes to it"))
            }
            CoreError::Io { source, .. } => (FAILED, io_hint(source)),
            _ => (FAILED, None),
        };
        let message = match &error {
            CoreError::Io { context, source } => format!("{context}: {}", plain(source)),
            _ => error.to_string(),
        };
        let (hint, rule) = (hint.map(Into::into), rule.map(|r| r.to_string()));
        let refused_file = if let CoreError::Unsafe { path, .. } = &error { Some(path.clone()) } else { None };
        Self { hint, rule, exit, refused_file, ..Self::failed(message) }
    }
}

impl From<SignatureError> for CliError {
    fn from(error: SignatureError) -> Self {
        let message = printable(&error.to_string()); // it quotes what a stranger wrote
        let Some(rule) = error.rule() else { return Self::usage(message) };
        Self::not_authentic(message).by_rule(rule).hint(model_signature_hint(rule.0))
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let hint = error.hint();
        let exit = if error.cause == Cause::SourceChanged { FAILED } else { STORE };
        Self { hint, exit, store: Some(Box::new(error.clone())), ..Self::failed(error.to_string()) }
    }
}

/// The next step after a refusal.
fn refusal_hint(rule: u8) -> Option<&'static str> {
    Some(match rule {
        1 => "is it a sealed model? `mvault seal` makes them with the ending .mvault",
        2 => "a newer mvault may read it",
        3..=6 | 9..=15 | 19 | 27..=35 => "the artifact is damaged or hostile; get it again from where it was published",
        16 => "check the passphrase; if it is right, the artifact was changed",
        17 | 18 => "give the key with -i FILE, or -p for a passphrase; `mvault recipients list` shows who can open it",
        7 | 8 | 36 | 37 => "the artifact was changed after sealing; get it again from where it was published",
        20..=22 => "the publisher you demand did not sign this; check --signer, then ask the publisher",
        23..=26 => "the artifact was cut, extended or changed; get it again and compare its size",
        39 => "copy the whole line again; keys are one line, without breaks",
        _ => return None,
    })
}

/// The next step after a model signature was refused.
fn model_signature_hint(rule: u8) -> &'static str {
    match rule {
        6 => "the publisher you demand did not sign this; check --signer, then ask the publisher",
        7 => "check --ca; if the certificate has ended since, say with --at TIME when the signature was made",
        8 => "the signature was changed, or is another key's; get it again from the publisher",
        _ => {
            "the signature file is damaged or of another kind; ask the publisher for one of Model Signing v1, by key or certificate"
        }
    }
}

fn unsafe_hint(verdict: vault_core::scan::Verdict) -> &'static str {
    if verdict == vault_core::scan::Verdict::Malformed {
        "nothing was written; repair the file, or seal it as it is with --dangerous-allow-malformed"
    } else {
        "nothing was written; save the weights as safetensors, or, if you trust whoever made the file, \
         use --dangerous-allow-unsafe-pickle"
    }
}

fn io_hint(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind as Kind;
    Some(match error.kind() {
        Kind::NotFound => "check the path",
        Kind::PermissionDenied => "check the permissions of the file and its folder",
        Kind::StorageFull | Kind::QuotaExceeded => "the disk is full; nothing was left behind",
        Kind::AlreadyExists => "remove it, choose another name with -o, or use --force",
        _ => return None,
    })
}

/// Names the path in a system error.
pub fn io(path: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> CliError {
    move |error| {
        if let Some(store) = in_io(&error) {
            return store.clone().into();
        }
        let hint = io_hint(&error).map(Into::into);
        CliError { hint, ..CliError::failed(format!("{path}: {}", plain(&error))) }
    }
}

/// The system's words without its error number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}
