//! Each test is named after the defect it would find. Models are made here: layers of a few roles, fine-tuned by noise
//! whose size differs by step, role and tensor, as training's does.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // tests: a panic is the report

mod drift;
mod numbers;

use super::*;
use std::cell::RefCell;
use std::ops::Range;

/// Bytes in memory; counts how often they are read, and gives pieces of odd lengths.
struct Memory {
    bytes: Vec<u8>,
    reads: RefCell<Vec<Range<u64>>>,
}

impl Bytes for &Memory {
    fn read(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> crate::Result<()> {
        self.reads.borrow_mut().push(range.clone());
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        self.bytes[range].chunks(1013).try_for_each(take).map_err(Error::io("read"))
    }
}

/// A file with tensors of type, shape and bytes.
fn safetensors(tensors: &[(String, &str, Vec<u64>, Vec<u8>)], metadata: &str) -> Memory {
    let (mut at, mut header) = (0, serde_json::Map::new());
    header.insert("__metadata__".into(), serde_json::json!({ "note": metadata }));
    for (name, dtype, shape, bytes) in tensors {
        let end = at + bytes.len();
        header.insert(name.clone(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let text = serde_json::to_vec(&header).unwrap();
    let data = tensors.iter().flat_map(|(.., bytes)| bytes.iter().copied());
    let bytes = (text.len() as u64).to_le_bytes().into_iter().chain(text.iter().copied()).chain(data).collect();
    Memory { bytes, reads: RefCell::default() }
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn one(name: &str, dtype: &'static str, shape: &[u64], bytes: Vec<u8>) -> (String, &'static str, Vec<u64>, Vec<u8>) {
    (name.into(), dtype, shape.to_vec(), bytes)
}

fn entry<'a>(path: &str, format: &str, memory: &'a Memory) -> Entry<'a> {
    Entry {
        path: path.into(),
        size: memory.bytes.len() as u64,
        blake3: blake3::hash(&memory.bytes).into(),
        format: format.into(),
        bytes: Box::new(memory),
    }
}

const ALL: CompareOptions<'static> = CompareOptions { digests_only: false, progress: &|_| {} };

fn compared(a: &Memory, b: &Memory) -> Comparison {
    compare(&[entry("m.safetensors", "safetensors", a)], &[entry("m.safetensors", "safetensors", b)], ALL).unwrap()
}

fn statuses(comparison: &Comparison) -> Vec<(&str, Status)> {
    comparison.tensors.iter().map(|t| (t.name.as_str(), t.status)).collect()
}

#[test]
fn other_type_or_shape_is_passed_over() {
    let a = safetensors(&[one("t", "F32", &[4], f32s(&[1.0; 4])), one("s", "F32", &[2, 2], f32s(&[1.0; 4]))], "");
    let b = safetensors(&[one("t", "I32", &[4], f32s(&[1.0; 4])), one("s", "F32", &[4], f32s(&[1.0; 4]))], "");
    let done = compared(&a, &b);
    assert_eq!(statuses(&done), [("t", Status::Type), ("s", Status::Shape)]);
    assert!(done.tensors.iter().all(|t| t.change.is_none() && t.statistics.iter().all(Option::is_some)));
    assert!(score::scores(&done, &[]).iter().all(|s| s.value.is_none()));
}

#[test]
fn added_or_removed_tensor_is_missed() {
    let a = safetensors(&[one("old", "F32", &[1], f32s(&[1.0])), one("w", "F32", &[1], f32s(&[1.0]))], "");
    let b = safetensors(&[one("w", "F32", &[1], f32s(&[2.0])), one("new", "F32", &[0], vec![])], "");
    let done = compared(&a, &b);
    assert_eq!(statuses(&done), [("w", Status::Changed), ("new", Status::Added), ("old", Status::Removed)]);
}

#[test]
fn header_alone_changed_looks_like_tensors_changed() {
    let tensors = [one("w", "F32", &[2], f32s(&[1.0, 2.0]))];
    let done = compared(&safetensors(&tensors, "a"), &safetensors(&tensors, "b"));
    assert_eq!((done.entries[0].status, done.tensors[0].status), (Status::Changed, Status::Same));
}

#[test]
fn values_are_read_though_only_digests_are_asked_for() {
    let tensors = [one("w", "F32", &[2], f32s(&[1.0, 2.0]))];
    let (a, b) = (safetensors(&tensors, "a"), safetensors(&tensors, "b"));
    let options = CompareOptions { digests_only: true, ..ALL };
    let done = compare(&[entry("m", "safetensors", &a)], &[entry("n", "safetensors", &b)], options).unwrap();
    assert_eq!((done.tensors.len(), done.entries[0].by_tensors, done.entries[0].status), (0, false, Status::Changed));
    assert!(a.reads.borrow().is_empty() && b.reads.borrow().is_empty());
}

#[test]
fn sealer_who_copies_a_digest_hides_a_change() {
    let memory = |x: f32| safetensors(&[one("w", "F32", &[1], f32s(&[x]))], "");
    let (a, b) = (memory(1.0), memory(2.0));
    let first = [entry("m", "safetensors", &a), entry("n", "other", &a)];
    let mut second = [entry("m", "safetensors", &b), entry("n", "other", &b)];
    second[0].blake3 = first[0].blake3;
    let refused = compare(&first, &second, ALL).unwrap_err();
    assert!(matches!(refused, CompareError::FalseDigest { path } if path == "m"));
}

#[test]
fn tensor_that_moved_to_another_shard_is_lost() {
    let w = || one("w", "F32", &[2], f32s(&[1.0, 2.0]));
    let v = || one("v", "F32", &[1], f32s(&[3.0]));
    let whole = safetensors(&[w(), v()], "");
    let shards = [safetensors(&[v()], "1"), safetensors(&[w()], "2")];
    let (a, b) = (
        [entry("model.safetensors", "safetensors", &whole)],
        [entry("1.safetensors", "safetensors", &shards[0]), entry("2.safetensors", "safetensors", &shards[1])],
    );
    let done = compare(&a, &b, ALL).unwrap();
    assert_eq!(statuses(&done), [("v", Status::Same), ("w", Status::Same)]);
    // Names that stand twice are told apart by their files.
    let twice = [entry("1.safetensors", "safetensors", &shards[1]), entry("2.safetensors", "safetensors", &shards[1])];
    let other = safetensors(&[one("w", "F32", &[2], f32s(&[1.0, 9.0]))], "2");
    let next = [entry("1.safetensors", "safetensors", &shards[1]), entry("2.safetensors", "safetensors", &other)];
    let done = compare(&twice, &next, ALL).unwrap();
    assert_eq!(statuses(&done), [("w", Status::Same), ("w", Status::Changed)]);
    assert_eq!(done.tensors[1].entries[0].as_deref(), Some("2.safetensors"));
}

/// Overlapping, past the end, cut, too long: the scanner's rules hold here too, and say whose file it is.
#[test]
fn hostile_header_is_read() {
    let good = safetensors(&[one("w", "F32", &[1], f32s(&[1.0]))], "");
    let header = |text: &str, data: usize| {
        let bytes = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &vec![0; data]].concat();
        Memory { bytes, reads: RefCell::default() }
    };
    let tensor = |name: &str, from: u64, to: u64| {
        format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{from},{to}]}}", to - from)
    };
    for (bad, words) in [
        (header(&format!("{{{},{}}}", tensor("a", 0, 4), tensor("b", 2, 6)), 6), "overlaps"),
        (header(&format!("{{{}}}", tensor("a", 0, 400)), 4), "the file has 4"),
        (header(&format!("{{{}}}", tensor("a", 4, 8)), 8), "belong to no tensor"),
        (Memory { bytes: u64::MAX.to_le_bytes().to_vec(), reads: RefCell::default() }, "longer than"),
        (header(&" ".repeat((6 << 20) + 1), 8), "longer than"),
        (Memory { bytes: 100_u64.to_le_bytes().to_vec(), reads: RefCell::default() }, "the file has 8"),
        (Memory { bytes: vec![1, 2], reads: RefCell::default() }, "the file has 2"),
    ] {
        let (a, b) = ([entry("m", "safetensors", &good)], [entry("m", "safetensors", &bad)]);
        let error = compare(&a, &b, ALL).unwrap_err();
        assert!(matches!(error, CompareError::Header { side: Side::B, .. }), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(matches!(compare(&b, &a, ALL).unwrap_err(), CompareError::Header { side: Side::A, .. }));
    }
}

/// Tensors in another order in B, small ones among large ones: what is compared is what belongs together.
#[test]
fn windows_mix_up_tensors() {
    let sizes = [1, 70_000, 3, 5_000_000, 9, 1_500_000, 2];
    let value = |t: usize, i: usize| f32::from(u16::try_from((t * 7919 + i * 31) % 60_000).unwrap());
    let tensor = |t: usize, n: usize| {
        let values: Vec<f32> = (0..n).map(|i| value(t, i)).collect();
        one(&format!("t{t}"), "F32", &[n as u64], f32s(&values))
    };
    let tensors: Vec<_> = sizes.iter().enumerate().map(|(t, n)| tensor(t, *n)).collect();
    let reversed: Vec<_> = tensors.iter().rev().cloned().collect();
    let (a, b) = (safetensors(&tensors, ""), safetensors(&reversed, ""));
    let done = compared(&a, &b);
    assert!(done.tensors.iter().all(|t| t.status == Status::Same), "{:?}", statuses(&done));
    let longest = |m: &Memory| m.reads.borrow().iter().map(|r| r.end - r.start).max().unwrap();
    assert!(longest(&a) <= 4 << 20 && longest(&b) <= 4 << 20);
    assert!(a.reads.borrow().len() < 20, "{:?}", a.reads.borrow());
}
