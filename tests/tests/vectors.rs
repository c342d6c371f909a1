//! The vectors of tests/vectors, read in every way there is: as a stream, as a file, in ranges, and by the reader
//! in Python that was written from FORMAT.md alone. And that they are what they were.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // tests: a panic is the report

use mvault_tests::arriving::open_coming;
use mvault_tests::artifact::{BrokerSeed, DataKey, open_file, open_streaming, read_ranges};
use mvault_tests::vector::{Vector, folder, made, sha256, stored};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use vault_core::recipient::argon2id::Passphrase;
use vault_core::recipient::broker::BrokerKey;
use vault_core::recipient::keyfile::{KeyLine, parse_identities, unprotect};
use vault_core::recipient::{Identity, xwing::XWingIdentity};
use vault_core::secret::Secret;
use vault_core::signature::PublisherPublicKey;
use vault_core::{Error, Result};

/// Rules that a whole entry or a signature breaks, and a range of bytes does not: FORMAT.md [F-21], [F-28], [F-37].
const NOT_OF_RANGES: [u8; 5] = [20, 21, 22, 28, 37];

/// Who reads a vector.
struct Reader {
    keys: Vec<XWingIdentity>,
    passphrases: Vec<Passphrase>,
    data_keys: Vec<DataKey>,
    brokers: Vec<BrokerSeed>,
    signers: Vec<PublisherPublicKey>,
}

impl Reader {
    fn of(vector: &Vector) -> Result<Self> {
        let passphrase = |text: &str| Passphrase::new(Secret::take(&mut text.as_bytes().to_vec()));
        let passphrases: Vec<_> = vector.all("passphrase").map(passphrase).collect();
        let mut keys = Vec::new();
        for line in vector.all("identity") {
            for key in parse_identities(line.as_bytes())? {
                keys.push(match key {
                    KeyLine::Secret(key) => key,
                    KeyLine::Protected(body) => unprotect(&body, &passphrases[0])?,
                });
            }
        }
        let signers = vector.signers().iter().map(|der| PublisherPublicKey::from_der(der).unwrap()).collect();
        let data_keys = vector.data_keys().into_iter().map(|mut key| DataKey(Secret::take(&mut key))).collect();
        let broker = |mut seed: Vec<u8>| BrokerSeed(BrokerKey::from_seed(Secret::take(&mut seed)).unwrap());
        let brokers = vector.broker_seeds().into_iter().map(broker).collect();
        Ok(Self { keys, passphrases, data_keys, brokers, signers })
    }

    fn identities(&self) -> Vec<&dyn Identity> {
        let keys = self.keys.iter().map(|k| k as &dyn Identity);
        let passphrases = self.passphrases.iter().map(|p| p as &dyn Identity);
        let data_keys = self.data_keys.iter().map(|d| d as &dyn Identity);
        keys.chain(passphrases).chain(data_keys).chain(self.brokers.iter().map(|b| b as &dyn Identity)).collect()
    }
}

fn summary<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<String> {
    files.into_iter().map(|(path, data)| format!("{} {} {path}", sha256(data), data.len())).collect()
}

/// What is wrong with how the vector was read.
fn complaints(vector: &Vector) -> Vec<String> {
    let reader = match Reader::of(vector) {
        Ok(reader) => reader,
        Err(error) => return refusal(vector, "key file", Some(&error)).into_iter().collect(),
    };
    let (identities, entries) = (reader.identities(), vector.all("entry").map(String::from).collect::<Vec<_>>());
    let mut wrong = Vec::new();

    let streamed = open_streaming(&vector.artifact, &identities, &reader.signers);
    let released = format!("{} {}", streamed.released.len(), sha256(&streamed.released));
    if released != vector.one("released") {
        wrong.push(format!("stream: released {released}, not {}", vector.one("released")));
    }
    let (file, files) = open_file(&vector.artifact, &identities, &reader.signers);
    let (coming, came) = open_coming(&vector.artifact, &identities, &reader.signers, |_| {});
    let came = summary(came.iter().map(|(p, d)| (p.as_str(), d.as_slice())));
    let files = summary(files.iter().map(|(p, d)| (p.as_str(), d.as_slice())));
    let ranges = read_ranges(&vector.artifact, &identities, 1000);
    if !vector.opens() {
        wrong.extend(refusal(vector, "stream", streamed.result.as_ref().err()));
        wrong.extend(refusal(vector, "file", file.as_ref().err()));
        wrong.extend(refusal(vector, "any order", coming.as_ref().err()));
        if ranges.is_err() || !vector.rules().iter().any(|r| NOT_OF_RANGES.contains(r)) {
            wrong.extend(refusal(vector, "ranges", ranges.as_ref().err()));
        }
        return wrong;
    }
    for (how, result) in [("stream", &streamed.result), ("file", &file), ("any order", &coming)] {
        match result {
            Err(error) => wrong.push(format!("{how}: {error}")),
            Ok(verified) => {
                let m = &verified.manifest;
                let model = format!("{} {}", m.model_version, m.name);
                if model != vector.one("model") {
                    wrong.push(format!("{how}: model {model}"));
                }
            }
        }
    }
    match &ranges {
        Err(error) => wrong.push(format!("ranges: {error}")),
        Ok(ranges) if summary(ranges.iter().map(|(p, d)| (p.as_str(), d.as_slice()))) != entries => {
            wrong.push("ranges: other entries".into());
        }
        Ok(_) => {}
    }
    for (how, files) in [("file", files), ("any order", came)] {
        if files != entries {
            wrong.push(format!("{how}: entries {files:?}"));
        }
    }
    wrong
}

fn refusal(vector: &Vector, how: &str, error: Option<&Error>) -> Option<String> {
    let Some(error) = error else { return Some(format!("{how}: it was opened")) };
    let named = error.rule().is_some_and(|r| vector.rules().contains(&r.0));
    (!named).then(|| format!("{how}: {error}, not {}", vector.all("rule").collect::<String>()))
}

#[test]
fn vectors_are_read_as_they_say() {
    let vectors = stored();
    // A panic in the core is a complaint like others: all of them in one run.
    let read =
        |v: &Vector| std::panic::catch_unwind(|| complaints(v)).unwrap_or_else(|_| vec!["a reader panicked".into()]);
    let wrong: Vec<_> = vectors.iter().map(|v| (v, read(v))).filter(|(_, wrong)| !wrong.is_empty()).collect();
    let open = vectors.iter().filter(|v| v.opens()).count();
    println!("{} vectors that open, {} that do not", open, vectors.len() - open);
    let lines: Vec<_> = wrong.iter().map(|(v, why)| format!("{}: {}", v.name(), why.join("; "))).collect();
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), vectors.len(), lines.join("\n"));
    assert!(open >= 15 && vectors.len() - open >= 70);
}

/// A vector that changed is a format that changed: raise the version, or put the code back.
#[test]
fn vectors_are_what_the_generator_makes() {
    let (stored, made) = (stored(), made());
    let names = |vectors: &[Vector]| vectors.iter().map(|v| v.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&stored), names(&made), "run the example make_vectors");
    let differ: Vec<_> = stored.iter().zip(&made).filter(|(s, m)| s != m).map(|(s, _)| s.name()).collect();
    assert!(differ.is_empty(), "not what the generator makes: {differ:?}");
}

#[test]
fn every_rule_has_a_vector() {
    let format = std::fs::read_to_string(folder().join("../../docs/FORMAT.md")).unwrap();
    let defined = format.lines().filter_map(|l| l.strip_prefix("- [F-")?.split_once(']')?.0.parse().ok());
    let defined: BTreeSet<u8> = defined.collect();
    assert!(defined.len() >= 39, "rules were not found in FORMAT.md");
    let covered: BTreeSet<u8> = stored().iter().flat_map(Vector::rules).collect();
    // F-38 is about files on the way out: the command line's tests have it. F-41 to F-46 are about vaults and pushes:
    // tests/store.rs and vault-cli/tests/vault.rs have them. F-48 refuses no artifact: provenance.rs of vault-core has it.
    let elsewhere = |rule: u8| [38, 48, 49].contains(&rule) || (41..=46).contains(&rule);
    let missing: Vec<_> = defined.difference(&covered).filter(|r| !elsewhere(**r)).collect();
    assert!(missing.is_empty(), "no vector for {missing:?}");
    let unknown: Vec<_> = covered.difference(&defined).collect();
    assert!(unknown.is_empty(), "vectors name rules that are not in FORMAT.md: {unknown:?}");
}

#[test]
fn folder_is_small() {
    let sizes = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() < 13 << 17, "tests/vectors is over 1.6 MiB");
}

/// A Python that has the reader's one dependency: scripts/test.sh sets it.
fn python() -> Option<std::path::PathBuf> {
    let set = std::env::var_os("MVAULT_TEST_PYTHON").or_else(|| std::env::var_os("MVAULT_PYTHON"));
    let python = set.map_or_else(|| "/tmp/pv/bin/python".into(), std::path::PathBuf::from);
    if python.exists() {
        return Some(python);
    }
    assert!(std::env::var_os("CI").is_none_or(|v| v != "true"), "no Python for the reader: set MVAULT_TEST_PYTHON");
    None
}

#[test]
fn python_reader_agrees() {
    let Some(python) = python() else { return };
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("reader/reader.py");
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "vec"));
    files.sort();
    let run = Command::new(python).arg(reader).arg("vectors").args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let failed: Vec<_> = said.lines().filter(|l| !l.starts_with("ok ")).collect();
    assert!(run.status.success(), "{}\n{}", failed.join("\n"), String::from_utf8_lossy(&run.stderr));
    println!("{}", failed.join("\n"));
}
