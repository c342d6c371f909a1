//! One tensor, one entry, one range of a sealed object: what is asked for, and how little.

use crate::bench::Bench;
use serde_json::Value;
use std::path::Path;

/// A safetensors file in the vault as `parts:1`, and its tensors with their places in the file.
struct Model {
    bytes: Vec<u8>,
    tensors: Vec<(String, usize, usize)>,
}

impl Model {
    fn push(bench: &Bench<'_>) -> Self {
        let real = std::env::var_os("MVAULT_TEST_MODELS").map(|at| Path::new(&at).join("minilm/model.safetensors"));
        let bytes = real.map_or_else(generated, |path| std::fs::read(path).unwrap());
        bench.shop.write("m/model.safetensors", &bytes);
        bench.shop.write("m/config.json", b"{\"hidden_size\": 384}\n");
        bench.run("push m VAULT parts").ok();
        let end = 8 + usize::try_from(u64::from_le_bytes(*bytes.first_chunk().unwrap())).unwrap();
        let header: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
        let mut tensors: Vec<_> = header
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| *name != "__metadata__")
            .map(|(name, tensor)| {
                let at = |i: usize| end + usize::try_from(tensor["data_offsets"][i].as_u64().unwrap()).unwrap();
                (name.clone(), at(0), at(1))
            })
            .collect();
        tensors.sort_by_key(|t| t.1);
        Self { bytes, tensors }
    }

    /// The largest, the smallest, one in the middle, the last.
    fn chosen(&self) -> Vec<&(String, usize, usize)> {
        let size = |t: &&(String, usize, usize)| t.2 - t.1;
        let largest = self.tensors.iter().max_by_key(size).unwrap();
        let smallest = self.tensors.iter().filter(|t| size(t) > 0).min_by_key(size).unwrap();
        vec![largest, smallest, &self.tensors[self.tensors.len() / 2], self.tensors.last().unwrap()]
    }
}

/// 100 tensors of 4 B to 2 MB, 20 MB in all.
fn generated() -> Vec<u8> {
    let (mut at, mut header) = (0, serde_json::Map::new());
    for n in 0..100_usize {
        let len = if n == 40 { 500_000 } else { 1 + n * n * 9 };
        header.insert(
            format!("layer.{n}.weight"),
            serde_json::json!({ "dtype": "F32", "shape": [len], "data_offsets": [at, at + 4 * len] }),
        );
        at += 4 * len;
    }
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text, &mvault_tests::noise(9, at)].concat()
}

/// Runs it, and shows that only GETs went out: at most four, for little more than what was printed.
#[track_caller]
fn thrifty(bench: &Bench<'_>, args: &str) -> Vec<u8> {
    bench.proxy.clear_log();
    let printed = bench.run(args).ok().stdout;
    let counts = bench.proxy.counts();
    assert_eq!(counts.of("GetObject"), counts.total(), "{args}: {counts:?}");
    assert!(counts.total() <= 4, "{args}: {:#?}", bench.proxy);
    let most = printed.len() as u64 * 105 / 100 + (128 << 10);
    assert!(counts.down <= most, "{args}: {} bytes came, for {}", counts.down, printed.len());
    printed
}

#[test]
fn tensor_costs_more_than_itself() {
    let Some(bench) = Bench::new("parts") else { return };
    let model = Model::push(&bench);
    assert!(model.tensors.len() >= 100);
    for (name, begin, end) in model.chosen() {
        let printed = thrifty(&bench, &format!("cat VAULT/parts:1 model.safetensors --tensor {name}"));
        assert!(printed == model.bytes[*begin..*end], "{name}");
    }
    // An entry, and ranges of one: at the front, across chunks, at the end.
    assert_eq!(thrifty(&bench, "cat VAULT/parts:1 config.json"), b"{\"hidden_size\": 384}\n");
    let last = model.bytes.len() - 1;
    for (from, to) in [(0, 99), (16_000, 50_000), (5_000_000, 9_000_000), (last - 10, last)] {
        let printed = thrifty(&bench, &format!("cat VAULT/parts:1 model.safetensors --range {from}-{to}"));
        assert!(printed == model.bytes[from..=to], "{from}-{to}");
    }
    // By tag or as the latest: one request more, to find the version.
    bench.run("tag VAULT parts:1 prod").ok();
    for (what, more) in [("parts@prod", "GetObject"), ("parts", "ListObjectsV2")] {
        bench.proxy.clear_log();
        bench.run(&format!("cat VAULT/{what} config.json")).ok();
        let counts = bench.proxy.counts();
        assert!(counts.of(more) >= 1 && counts.total() <= 5, "{what}: {counts:?}");
    }
}
