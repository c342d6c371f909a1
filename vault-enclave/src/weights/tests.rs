use super::*;
use getrandom::{SysRng, rand_core::UnwrapErr};
use vault_core::aead::Engine;
use vault_core::header::{AuthenticatedHeader, Header};
use vault_core::io::{Input, Output};
use vault_core::open::{OpenOptions, Release, open};
use vault_core::recipient::xwing::XWingIdentity;
use vault_core::seal::{SealOptions, SourceEntry, seal};

/// Three tensors of odd sizes, and bytes that tell where they are.
fn safetensors() -> Vec<u8> {
    let header = br#"{"a":{"dtype":"F32","shape":[3,33333],"data_offsets":[0,399996]},"h":{"dtype":"F16","shape":[5],"data_offsets":[399996,400006]},"i":{"dtype":"I64","shape":[2],"data_offsets":[400006,400022]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend((0..400_022_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap_or_default()));
    file
}

fn sealed(files: &[(&str, &[u8])]) -> (Vec<u8>, AuthenticatedHeader) {
    let identity = XWingIdentity::generate(&mut UnwrapErr(SysRng));
    let entries = files.iter().map(|(path, bytes)| SourceEntry {
        path: (*path).into(),
        input: Input::At { file: bytes, offset: 0, len: bytes.len() as u64 },
    });
    let mut artifact = Vec::new();
    let recipient = identity.recipient();
    let options = SealOptions { folder: true, dangerous_allow_malformed: true, ..SealOptions::new("m") };
    seal(entries.collect(), &[recipient], &options, &mut UnwrapErr(SysRng), Output::Stream(&mut artifact)).unwrap();
    let header = Header::parse(&artifact).unwrap();
    let payload = artifact.split_off(header.bytes().len());
    (payload, header.unlock(&[&identity]).unwrap())
}

fn load(files: &[(&str, &[u8])]) -> vault_core::error::Result<(Vec<Loaded>, Files)> {
    let (payload, header) = sealed(files);
    let len = payload.len() as u64;
    let reader = RangeReader::new(&payload, 0, len, &header, Engine::fastest())?;
    let weights = Weights::plan(&reader)?;
    let input = Input::At { file: &payload, offset: 0, len };
    open(input, &header, &OpenOptions { threads: 3, ..OpenOptions::default() }, Release::Files(&weights))?;
    Ok(weights.finish())
}

#[test]
fn tensors_and_files_are_what_was_sealed() {
    let model = safetensors();
    let (mut tensors, files) = load(&[("config.json", b"{}"), ("empty", b""), ("model.safetensors", &model)]).unwrap();
    assert_eq!(files, [("config.json".into(), b"{}".to_vec()), ("empty".into(), Vec::new())]);
    let data = &model[model.len() - 400_022..];
    let names: Vec<_> = tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    assert_eq!(names, [("a".into(), vec![3, 33_333]), ("h".into(), vec![5]), ("i".into(), vec![2])]);
    for (tensor, range) in tensors.iter_mut().zip([0..399_996, 399_996..400_006, 400_006..400_022]) {
        assert!(tensor.numbers.bytes() == &data[range], "{}", tensor.name);
    }
}

#[test]
fn heads_that_are_none_are_refused() {
    let mut long = safetensors();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut short = safetensors();
    short.truncate(short.len() - 1);
    for bytes in [&b""[..], b"1234567", b"12345678", &long, &short] {
        assert!(load(&[("model.safetensors", bytes)]).is_err());
    }
    let unknown = String::from_utf8_lossy(&safetensors()[8..200]).replace("F16", "F8_E4M3");
    assert!(unknown.contains("F8_E4M3"));
}

#[test]
fn another_table_than_planned_is_refused() {
    let (payload, header) = sealed(&[("a", b"1"), ("b", b"22")]);
    let reader = RangeReader::new(&payload, 0, payload.len() as u64, &header, Engine::fastest()).unwrap();
    let weights = Weights::plan(&reader).unwrap();
    let row = |name: &str, size| (name.to_owned(), Some(size));
    assert!(weights.begin(&[row("a", 1), row("b", 2)]).is_ok());
    for rows in [vec![], vec![row("a", 1)], vec![row("a", 1), row("b", 3)], vec![row("b", 2), row("a", 1)]] {
        assert!(weights.begin(&rows).is_err());
    }
    assert!(weights.write_at(0, 1, b"x").is_err());
    assert!(weights.write_at(2, 0, b"x").is_err());
}
