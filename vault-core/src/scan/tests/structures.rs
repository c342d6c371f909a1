//! safetensors, GGUF and ONNX defects, and files that are a pickle as well.

use super::{expect, expect_words, noise};
use crate::scan::safetensors::{SafetensorsError, parse_header};
use crate::scan::{Format, Verdict};

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

#[test]
fn safetensors_good() {
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},{},{}}}  "#,
        entry("b", "F32", "[2,2]", 8, 24),
        entry("a", "I64", "[]", 0, 8)
    );
    for name in ["m.safetensors", "weights"] {
        assert_eq!(expect(name, &safetensors(&header, 24), Verdict::NotAPickle).format, Format::Safetensors);
    }
    let tensors = parse_header(header.as_bytes(), Some(24)).unwrap();
    let base = header.len() as u64 + 8;
    assert_eq!((tensors[0].name.as_str(), tensors[0].begin, tensors[0].end), ("a", base, base + 8));
    assert_eq!((tensors[1].name.as_str(), tensors[1].shape.as_slice()), ("b", [2, 2].as_slice()));
    let wrong = parse_header(header.as_bytes(), Some(25));
    assert_eq!(wrong, Err(SafetensorsError::Length { needed: 24, given: 25 }));
    expect("m.safetensors", &safetensors("{}", 0), Verdict::NotAPickle);
}

#[test]
fn safetensors_overlap() {
    let header = format!("{{{},{}}}", entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[2]", 4, 12));
    expect_words("m.safetensors", &safetensors(&header, 12), Verdict::Malformed, "tensor 'b' overlaps 'a'");
    let hole = format!("{{{},{}}}", entry("a", "F32", "[2]", 0, 8), entry("b", "F32", "[2]", 12, 20));
    expect_words("m.safetensors", &safetensors(&hole, 20), Verdict::Malformed, "belong to no tensor");
}

#[test]
fn safetensors_defects() {
    let one = |dtype, shape, begin, end| format!("{{{}}}", entry("a", dtype, shape, begin, end));
    let twice = format!("{{{},{}}}", entry("a", "F32", "[2]", 0, 8), entry("a", "F32", "[2]", 8, 16));
    for (header, data, words) in [
        (one("F32", "[2]", 0, 8), 7, "need 8 bytes"),
        (one("F32", "[2]", 0, 8), 9, "belong to no tensor"),
        (one("F32", "[3]", 0, 8), 8, "not what its shape"),
        (one("F32", "[4294967296,4294967296]", 0, 0), 0, "not what its shape"),
        (one("F32", "[2]", 8, 0), 8, "not what its shape"),
        (one("Q9", "[2]", 0, 8), 8, "unknown type 'Q9'"),
        (one("F32", "[-2]", 0, 8), 8, "header"),
        (twice, 16, "stands twice"),
        (r#"{"__metadata__":{"a":1}}"#.to_owned(), 0, "header"),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#.to_owned(), 0, "stands twice"),
        ("{} x".to_owned(), 0, "header"),
        (format!("{{\"a\":{}", "[".repeat(5000)), 0, "header"),
        (r#"{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#.to_owned(), 8, "stands twice"),
    ] {
        expect_words("m.safetensors", &safetensors(&header, data), Verdict::Malformed, words);
    }
    expect("m.safetensors", b"hello", Verdict::Malformed);
    expect("m.safetensors", b"", Verdict::Malformed);
    expect("m.safetensors", &[&(50_u64 << 20).to_le_bytes()[..], b"{}"].concat(), Verdict::NotScanned);
    expect("m.safetensors", &[&(90_u64).to_le_bytes()[..], b"{}"].concat(), Verdict::Malformed);
}

#[test]
fn gguf_that_is_a_pickle_too() {
    // GGUF's magic is BINFLOAT: the ninth byte on is code for plain pickle.
    let gguf = [b"GGUF\x03\0\0\0\0".as_slice(), b"cposix\nsystem\n)R.", &noise(64)].concat();
    expect_words("m.gguf", &gguf, Verdict::Dangerous, "reads as a pickle too");
}

struct Gguf(Vec<u8>);

impl Gguf {
    fn new(tensors: u64, keys: u64) -> Self {
        Self([b"GGUF\x03\0\0\0", &tensors.to_le_bytes()[..], &keys.to_le_bytes()].concat())
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.bytes());
        self
    }

    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn tensor(self, name: &str, elements: u64, kind: u32, offset: u64) -> Self {
        self.text(name).u32(1).u64(elements).u32(kind).u64(offset)
    }

    fn data(mut self, len: usize) -> Vec<u8> {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + len, 0);
        self.0
    }
}

#[test]
fn gguf_good() {
    let keys = |tensors| {
        Gguf::new(tensors, 3)
            .text("general.name")
            .u32(8)
            .text("x")
            .text("tokens")
            .u32(9)
            .u32(8)
            .u64(2)
            .text("a")
            .text("bc")
            .text("n")
            .u32(9)
            .u32(4)
            .u64(2)
            .u32(1)
            .u32(2)
    };
    let two = |len| keys(2).tensor("a", 3, 0, 0).tensor("b", 64, 8, 32).data(len);
    for len in [32 + 68, 32 + 96] {
        assert_eq!(expect("m.gguf", &two(len), Verdict::NotAPickle).format, Format::Gguf);
    }
    expect("weights", &two(128), Verdict::NotAPickle);
    for len in [32 + 67, 32 + 97] {
        expect("m.gguf", &two(len), Verdict::Malformed);
    }
    let whole = two(100);
    for len in 4..whole.len() {
        expect("m.gguf", &whole[..len], Verdict::Malformed);
    }
}

#[test]
fn gguf_string_length_bomb() {
    let bomb = Gguf::new(0, 1).text("k").u32(8).u64(u64::MAX / 2);
    expect_words("m.gguf", &bomb.0, Verdict::Malformed, "text of");
    expect_words("m.gguf", &Gguf::new(0, 1).u64(u64::MAX).0, Verdict::Malformed, "a name of");
    let array = Gguf::new(0, 1).text("k").u32(9).u32(8).u64(u64::MAX);
    expect_words("m.gguf", &array.0, Verdict::Malformed, "ends too early");
    expect("m.gguf", &Gguf::new(0, 1).text("k").u32(9).u32(10).u64(u64::MAX).0, Verdict::Malformed);
    expect_words("m.gguf", &Gguf::new(u64::MAX, 0).0, Verdict::Malformed, "tensors and");
    expect_words("m.gguf", &Gguf::new(0, 1).text("k").u32(9).u32(9).u64(1).0, Verdict::Malformed, "array of type 9");
}

#[test]
fn gguf_defects() {
    let one = |elements, kind, offset| Gguf::new(1, 0).tensor("a", elements, kind, offset).data(256);
    expect_words("m.gguf", &one(64, 0, 32), Verdict::Malformed, "leaves a hole");
    expect_words("m.gguf", &one(33, 8, 0), Verdict::Malformed, "whole blocks");
    expect_words("m.gguf", &one(64, 77, 0), Verdict::Malformed, "unknown type 77");
    expect_words("m.gguf", &one(u64::MAX, 0, 0), Verdict::Malformed, "larger than any file");
    let overlap = Gguf::new(2, 0).tensor("a", 64, 0, 0).tensor("b", 64, 0, 32).data(512);
    expect_words("m.gguf", &overlap, Verdict::Malformed, "overlaps");
    let twice = Gguf::new(2, 0).tensor("a", 8, 0, 0).tensor("a", 8, 0, 32).data(64);
    expect_words("m.gguf", &twice, Verdict::Malformed, "stands twice");
    let dims = Gguf::new(1, 0).text("a").u32(5).data(64);
    expect_words("m.gguf", &dims, Verdict::Malformed, "5 dimensions");
    let alignment = Gguf::new(0, 1).text("general.alignment").u32(4).u32(33);
    expect_words("m.gguf", &alignment.0, Verdict::Malformed, "alignment 33");
}

/// A protobuf field with bytes.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut len = body.len();
    let mut out = vec![number << 3 | 2];
    while len > 0x7f {
        out.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap());
    [&out, body].concat()
}

fn onnx(tensor: &[u8]) -> Vec<u8> {
    let graph = field(7, &[field(2, b"graph"), field(5, tensor)].concat());
    [b"\x08\x08", &field(2, b"pytorch")[..], &graph].concat()
}

#[test]
fn onnx_good() {
    let tensor = [b"\x08\x02\x08\x03\x10\x01", &field(8, b"w")[..], &field(9, &[0; 24])].concat();
    for name in ["m.onnx", "weights"] {
        assert_eq!(expect(name, &onnx(&tensor), Verdict::NotAPickle).format, Format::Onnx);
    }
    let packed = [&field(1, &[2, 3])[..], b"\x10\x01", &field(9, &[0; 24])].concat();
    expect("m.onnx", &onnx(&packed), Verdict::NotAPickle);
    let whole = onnx(&tensor);
    for len in 0..whole.len() {
        expect("m.onnx", &whole[..len], Verdict::Malformed);
    }
}

#[test]
fn onnx_defects() {
    let size = [b"\x08\x02\x08\x03\x10\x01", &field(9, &[0; 23])[..]].concat();
    expect_words("m.onnx", &onnx(&size), Verdict::Malformed, "23 raw bytes");
    let huge = [b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x08\x10\x10\x01", &field(9, &[0; 8])[..]].concat();
    expect("m.onnx", &onnx(&huge), Verdict::Malformed);
    let kind = [b"\x08\x01\x10\x63", &field(9, &[0; 4])[..]].concat();
    expect_words("m.onnx", &onnx(&kind), Verdict::Malformed, "type 99");
    expect_words("m.onnx", &[b"\x08\x08", &field(2, b"x")[..]].concat(), Verdict::Malformed, "no graph");
    expect("m.onnx", b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Verdict::Malformed);
    let mut deep = Vec::new();
    for _ in 0..40 {
        deep = field(1, &field(5, &field(6, &deep)));
    }
    expect_words("m.onnx", &field(7, &deep), Verdict::Malformed, "nested too deep");
    let outside = [&field(7, &field(5, &[field(8, b"w"), vec![0x4a, 0x7f]].concat()))[..], b"x"].concat();
    expect_words("m.onnx", &outside, Verdict::Malformed, "past its message");
}

#[test]
fn onnx_external_data_stays_inside() {
    let at = |path: &str| {
        let entry = [field(1, b"location"), field(2, path.as_bytes())].concat();
        onnx(&[b"\x08\x02\x10\x01".to_vec(), field(13, &entry), vec![0x70, 1]].concat())
    };
    for path in ["weights.bin", "a/b.bin", "..a"] {
        expect("m.onnx", &at(path), Verdict::NotAPickle);
    }
    for path in ["../x", "/etc/passwd", "a/../../x", "C:\\x", "a\\..\\x", "", "a/.."] {
        expect_words("m.onnx", &at(path), Verdict::Malformed, "outside of the model's folder");
    }
}
