//! The hostile corpus: thousands of artifacts that somebody damaged, cut, mixed, or sealed with a lie in them. Each is
//! read as a stream, as a file and in ranges. All are refused with the rule that is broken, nothing that is not the
//! original's comes out, no message tells a secret, and memory stays bounded.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::missing_panics_doc, missing_docs)] // tests: a panic is the report

mod hostile {
    pub mod content;
    pub mod header;
    pub mod payload;
}

use mvault_tests::arriving::open_coming;
use mvault_tests::artifact::{open_file, open_streaming, read_ranges};
use mvault_tests::forge::content::Content;
use mvault_tests::forge::{KeyFile, Parts};
use peak_alloc::PeakAlloc;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use vault_core::header::hex;
use vault_core::recipient::Identity;
use vault_core::recipient::argon2id::Passphrase;
use vault_core::recipient::xwing::XWingIdentity;
use vault_core::secret::Secret;
use vault_core::signature::PublisherPublicKey;
use vault_core::{Error, Result};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What a reader may have on the heap beyond the artifact and its output; Argon2's memory is apart.
const MOST_HEAP: usize = 64 << 20;

/// Someone an artifact is for, and what it would give them.
pub struct Victim {
    pub parts: Parts,
    /// The artifact as it should be.
    pub bytes: Vec<u8>,
    pub data: Vec<u8>,
    pub identities: Vec<Box<dyn Identity>>,
    pub signers: Vec<PublisherPublicKey>,
    /// What no message may contain.
    pub secrets: Vec<String>,
}

impl Victim {
    pub fn new(parts: Parts, key: &KeyFile) -> Self {
        let identity = XWingIdentity::from_seed(Secret::take(&mut key.seed.to_vec())).unwrap();
        let line = key.secret_line();
        let secrets = vec![hex(&key.seed), hex(&parts.keys.dek), line["MVAULT-SECRET-XW1-".len()..].into()];
        let (bytes, data) = (parts.build(), parts.content.bytes());
        Self { parts, bytes, data, identities: vec![Box::new(identity)], signers: Vec::new(), secrets }
    }

    pub fn of(number: u64, content: &Content) -> Self {
        let key = KeyFile::new(1);
        Self::new(Parts::new(number, content, 4096, &[&key]), &key)
    }

    /// A victim that has a passphrase alone.
    #[must_use]
    pub fn with_passphrase(mut self, passphrase: &str) -> Self {
        self.secrets.push(passphrase.into());
        let secret = Secret::take(&mut passphrase.as_bytes().to_vec());
        self.identities = vec![Box::new(Passphrase::new(secret))];
        self
    }

    /// The artifact that `change` made wrong, under right keys.
    pub fn forged(&self, change: impl FnOnce(&mut Parts)) -> Vec<u8> {
        let mut parts = self.parts.clone();
        change(&mut parts);
        parts.build()
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.parts.header_len as usize..]
    }
}

/// What a range reader may make of an artifact.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// It refuses, or gives the original's bytes, all of them.
    Original,
    /// It gives out whatever was sealed: what is wrong shows only in a whole entry, or to who demands a signer.
    Sealed,
}

#[derive(Default)]
pub struct Corpus {
    families: Vec<(String, usize)>,
    wrong: Vec<String>,
    rules: BTreeMap<u8, usize>,
    most_heap: usize,
    /// Readings that a range reader completed with the original's bytes.
    same: usize,
}

impl Corpus {
    pub fn family(&mut self, name: &str) {
        self.families.push((name.into(), 0));
    }

    /// The artifact must be refused under one of `rules` (any, if there are none).
    pub fn refuse(&mut self, victim: &Victim, rules: &[u8], bytes: &[u8]) {
        self.refuse_but(Ranges::Original, MOST_HEAP, victim, rules, bytes);
    }

    pub fn refuse_but(&mut self, may: Ranges, heap: usize, victim: &Victim, rules: &[u8], bytes: &[u8]) {
        let family = self.families.last_mut().unwrap();
        family.1 += 1;
        let name = format!("{} {}", family.0, family.1);
        let identities: Vec<_> = victim.identities.iter().map(AsRef::as_ref).collect();

        let streamed = self.measured(heap, &name, || {
            let outcome = open_streaming(bytes, &identities, &victim.signers);
            (outcome.result.map(|_| ()), outcome.released)
        });
        if let Some((result, released)) = streamed {
            self.check(&format!("{name}, stream"), victim, rules, result.err());
            if may == Ranges::Original && !victim.data.starts_with(&released) {
                self.complain(format!("{name}: {} bytes released that are not the original's", released.len()));
            }
        }
        let file = self.measured(heap, &name, || open_file(bytes, &identities, &victim.signers).0.map(|_| ()));
        if let Some(result) = file {
            self.check(&format!("{name}, file"), victim, rules, result.err());
        }
        let any_order = |bytes| open_coming(bytes, &identities, &victim.signers, |_| {}).0.map(|_| ());
        if let Some(result) = self.measured(heap, &name, || any_order(bytes)) {
            self.check(&format!("{name}, any order"), victim, rules, result.err());
        }
        match self.measured(heap, &name, || read_ranges(bytes, &identities, 3001)) {
            Some(Ok(files)) => {
                let data: Vec<u8> = files.into_iter().flat_map(|(_, data)| data).collect();
                if may == Ranges::Original && data != victim.data {
                    self.complain(format!("{name}: ranges give bytes that are not the original's"));
                }
                self.same += 1;
            }
            Some(Err(error)) => self.check(&format!("{name}, ranges"), victim, rules, Some(error)),
            None => {}
        }
    }

    /// A refusal that no reader of artifacts makes.
    pub fn refused(&mut self, victim: &Victim, rules: &[u8], result: Result<()>) {
        let family = self.families.last_mut().unwrap();
        family.1 += 1;
        let name = format!("{} {}", family.0, family.1);
        self.check(&name, victim, rules, result.err());
    }

    fn measured<T>(&mut self, most: usize, name: &str, read: impl FnOnce() -> T) -> Option<T> {
        HEAP.reset_peak_usage();
        let before = HEAP.current_usage();
        let result = catch_unwind(AssertUnwindSafe(read));
        let heap = HEAP.peak_usage().saturating_sub(before);
        self.most_heap = self.most_heap.max(heap);
        if heap > most {
            self.complain(format!("{name}: {} KiB of heap", heap >> 10));
        }
        if result.is_err() {
            self.complain(format!("{name}: a reader panicked"));
        }
        result.ok()
    }

    fn check(&mut self, name: &str, victim: &Victim, rules: &[u8], error: Option<Error>) {
        let Some(error) = error else { return self.complain(format!("{name}: opened")) };
        let said = format!("{error} {error:?}");
        if let Some(secret) = victim.secrets.iter().find(|s| said.contains(s.as_str())) {
            self.complain(format!("{name}: the message tells a secret of {} bytes", secret.len()));
        }
        match error.rule() {
            Some(rule) if rules.is_empty() || rules.contains(&rule.0) => *self.rules.entry(rule.0).or_default() += 1,
            _ => self.complain(format!("{name}: {error}, not {rules:?}")),
        }
        let len = error.to_string().len();
        if !(10..16_384).contains(&len) {
            self.complain(format!("{name}: a message of {len} bytes"));
        }
    }

    fn complain(&mut self, what: String) {
        self.wrong.push(what);
    }
}

/// Counts are part of the result: the test runner shows only what does not go through `print!`.
macro_rules! say {
    ($($what:tt)*) => { std::io::stderr().write_all(format!("{}\n", format_args!($($what)*)).as_bytes()).unwrap() };
}

#[test]
fn hostile_corpus() {
    let mut corpus = Corpus::default();
    header::all(&mut corpus);
    payload::all(&mut corpus);
    content::all(&mut corpus);
    let total: usize = corpus.families.iter().map(|(_, n)| n).sum();
    for (family, count) in &corpus.families {
        say!("hostile corpus: {family:<44} {count:>5}");
    }
    let rules: Vec<_> = corpus.rules.iter().map(|(r, n)| format!("F-{r} {n}")).collect();
    say!("hostile corpus: refused by {}", rules.join(", "));
    say!(
        "hostile corpus: at most {} KiB of heap; {} range readings ended in verified bytes",
        corpus.most_heap >> 10,
        corpus.same
    );
    let shown: Vec<_> = corpus.wrong.iter().take(40).cloned().collect();
    assert!(corpus.wrong.is_empty(), "{} things wrong:\n{}", corpus.wrong.len(), shown.join("\n"));
    assert!(total >= 2000);
    say!("hostile corpus: {total} artifacts, {total} refused, 0 released");
}

use hostile::{content, header, payload};
