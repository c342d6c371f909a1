//! The scan over real files: the public pickle vectors and the real models.
//!
//! Labels come from the vectors' own `labels.json`; nothing here loads a pickle. Every file is
//! scanned twice, in large reads and one byte at a time, and both must report the same. Without
//! the vectors or the models the tests say so and pass, except in CI.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use vault_core::scan::{Format, Plain, Report, Verdict, scan};

/// Hands out one byte a read.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let one = buf.len().min(1);
        self.0.read(&mut buf[..one])
    }
}

/// Scans twice and returns the one report.
fn report(name: &str, bytes: &[u8]) -> Report {
    let fast = scan(name, &mut Plain(bytes)).expect("memory does not fail");
    let slow = scan(name, &mut Plain(Drip(bytes))).expect("memory does not fail");
    assert_eq!(fast, slow, "{name}: reads of one byte change the report");
    assert_eq!(fast.bytes, bytes.len() as u64, "{name}: not read to the end");
    fast
}

/// The folder, or `None` where it may be missing.
fn folder(path: PathBuf, what: &str) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} not present at {}", path.display());
    say(&format!("skipped: {what} not present"));
    None
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen to be skipped")]
fn say(text: &str) {
    eprintln!("{text}");
}

fn vectors() -> Option<PathBuf> {
    folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/pickle"), "vectors")
}

fn models() -> Option<PathBuf> {
    let path = std::env::var_os("MVAULT_MODELS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/mvault/models"),
        PathBuf::from,
    );
    folder(path, "models")
}

/// All files of a folder, sorted, with their path below it.
fn files(root: &Path) -> Vec<(String, PathBuf)> {
    let mut todo = vec![root.to_path_buf()];
    let mut found = Vec::new();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                found.push((name, path));
            }
        }
    }
    found.sort();
    found
}

/// `(file, label)` of labels.json, which is one field a line.
fn labels(json: &str) -> Vec<(String, String)> {
    let field = |line: &str, key: &str| {
        let text = line.trim().strip_prefix(&format!("\"{key}\": \""))?;
        Some(text.trim_end_matches(',').trim_end_matches('"').to_owned())
    };
    let mut out: Vec<(String, String)> = Vec::new();
    for line in json.lines() {
        if let Some(file) = field(line, "file") {
            out.push((file, String::new()));
        } else if let (Some(label), Some(last)) = (field(line, "label"), out.last_mut()) {
            last.1 = label;
        }
    }
    out
}

#[test]
fn every_vector_gets_the_verdict_of_its_label() {
    let Some(root) = vectors() else { return };
    let labels = labels(&fs::read_to_string(root.join("labels.json")).expect("labels"));
    assert!(labels.len() >= 40, "only {} labels", labels.len());
    for (file, label) in labels {
        let bytes = fs::read(root.join(&file)).expect("vector");
        let report = report(&file, &bytes);
        say(&format!("{file:36} {label:14} {:12} {:12} {:?}", report.verdict, report.format, report.findings.first()));
        let right = match label.as_str() {
            "dangerous" if file == "malicious1.7z" => report.verdict == Verdict::NotScanned,
            "dangerous" => report.verdict == Verdict::Dangerous,
            // Plain arrays hold no pickle: saying "safe" would claim a scan of one.
            "safe" if file.starts_with("int_array") => report.verdict == Verdict::NotAPickle,
            "safe" => report.verdict == Verdict::Safe,
            "not-scannable" => report.verdict == Verdict::NotScanned,
            "not-a-model" => matches!(report.verdict, Verdict::NotScanned | Verdict::NotAPickle),
            other => panic!("{file}: unknown label {other}"),
        };
        assert!(right, "{file}: labelled {label}, got {report:?}");
        let accepted = matches!(report.verdict, Verdict::Safe | Verdict::NotAPickle);
        assert_eq!(report.findings.is_empty(), accepted, "{file}: {report:?}");
    }
}

#[test]
fn every_dangerous_vector_stays_dangerous_under_any_name_and_in_a_text() {
    let Some(root) = vectors() else { return };
    for (file, label) in labels(&fs::read_to_string(root.join("labels.json")).expect("labels")) {
        if label != "dangerous" || file == "malicious1.7z" {
            continue;
        }
        let bytes = fs::read(root.join(&file)).expect("vector");
        for name in ["weights", "README.md", "config.json", "model.safetensors.bak", "tokenizer.txt"] {
            let report = report(name, &bytes);
            assert_eq!(report.verdict, Verdict::Dangerous, "{file} as {name}: {report:?}");
        }
    }
}

#[test]
fn a_truncated_vector_is_never_safe() {
    let Some(root) = vectors() else { return };
    for (file, label) in labels(&fs::read_to_string(root.join("labels.json")).expect("labels")) {
        let bytes = fs::read(root.join(&file)).expect("vector");
        if label != "safe" || bytes.len() > 4096 {
            continue;
        }
        // A name that promises a pickle, as the vectors' `.bin` does not.
        let name = file.replace(".bin", ".pt");
        for len in 0..bytes.len() {
            let short = scan(&name, &mut Plain(&bytes[..len])).expect("memory does not fail");
            assert_eq!(short.verdict, Verdict::NotScanned, "{file} cut at {len}: {short:?}");
        }
    }
}

#[test]
fn no_real_model_raises_a_false_alarm() {
    let Some(root) = models() else { return };
    let mut scanned = 0;
    for (name, path) in files(&root) {
        let bytes = fs::read(&path).expect("model");
        let big = bytes.len() > 32 << 20;
        let report = if big { scan(&name, &mut Plain(bytes.as_slice())).expect("scan") } else { report(&name, &bytes) };
        say(&format!("{name:60} {:12} {}", report.verdict, report.format));
        let expected = match name.rsplit('.').next().unwrap_or_default() {
            "jit" => Some((Verdict::Safe, Format::TorchZip)),
            "pt" => Some((Verdict::Safe, Format::TorchLegacy)),
            "joblib" => Some((Verdict::Safe, Format::Joblib)),
            "onnx" => Some((Verdict::NotAPickle, Format::Onnx)),
            "safetensors" => Some((Verdict::NotAPickle, Format::Safetensors)),
            "gguf" => Some((Verdict::NotAPickle, Format::Gguf)),
            "json" | "txt" | "md" | "py" => Some((Verdict::NotAPickle, Format::Other)),
            _ => None,
        };
        if let Some(expected) = expected {
            assert_eq!((report.verdict, report.format), expected, "{name}: {report:?}");
            scanned += 1;
        }
    }
    assert!(scanned > 0, "no model in {}", root.display());
}

#[test]
fn a_real_model_with_one_byte_of_structure_changed_is_refused() {
    let Some(root) = models() else { return };
    for (name, path) in files(&root) {
        let mut bytes = fs::read(&path).expect("model");
        if bytes.len() > 32 << 20 {
            continue;
        }
        let expected = match name.rsplit('.').next().unwrap_or_default() {
            "jit" | "pt" | "joblib" => Verdict::NotScanned,
            "safetensors" | "gguf" => Verdict::Malformed,
            _ => continue,
        };
        bytes.push(0);
        assert_eq!(report(&name, &bytes).verdict, expected, "{name} with a byte more");
        bytes.truncate(bytes.len() - 5);
        assert_eq!(report(&name, &bytes).verdict, expected, "{name} with four bytes fewer");
    }
}

#[test]
fn changed_bytes_never_panic_and_read_the_same_in_any_steps() {
    let Some(root) = vectors() else { return };
    for (file, path) in files(&root) {
        let bytes = fs::read(path).expect("vector");
        for at in 0..bytes.len().min(1024) {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = bytes.get(..1024).unwrap_or(&bytes).to_vec();
                changed[at] ^= change;
                report(&file, &changed);
            }
        }
    }
}
