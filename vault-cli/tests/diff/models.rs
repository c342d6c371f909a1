//! Models to compare: layers of a few roles, fine-tuned by noise; and the real one, with one layer tampered with.

#![allow(dead_code)] // each test file uses its part

use std::path::Path;

/// Numbers that look random, the same for a seed.
pub struct Noise(pub u64);

impl Noise {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u16::try_from(self.0 >> 48).unwrap()) / 65_536.0
    }

    /// About normal: mean 0, deviation 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

/// Name, type, shape, bytes.
pub type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// A safetensors file.
pub fn safetensors(tensors: &[Tensor], note: &str) -> Vec<u8> {
    let (mut at, mut header) = (0, serde_json::Map::new());
    header.insert("__metadata__".into(), serde_json::json!({ "note": note }));
    for (name, dtype, shape, bytes) in tensors {
        let end = at + bytes.len();
        header.insert(name.clone(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let text = serde_json::to_vec(&header).unwrap();
    let data: Vec<u8> = tensors.iter().flat_map(|t| t.3.iter().copied()).collect();
    [&(text.len() as u64).to_le_bytes()[..], &text, &data].concat()
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A model of 25 tensors.
#[derive(Clone)]
pub struct Model(pub Vec<(String, Vec<f32>)>);

impl Model {
    pub fn new(seed: u64) -> Self {
        let mut noise = Noise(seed);
        let mut values = |n: usize| (0..n).map(|_| noise.normal() * 0.05).collect::<Vec<_>>();
        let mut tensors = vec![("embeddings.weight".to_owned(), values(6000))];
        for layer in 0..6 {
            for (role, n) in [("query.weight", 4096), ("value.weight", 4096), ("query.bias", 64), ("out.weight", 8192)]
            {
                tensors.push((format!("encoder.layer.{layer}.{role}"), values(n)));
            }
        }
        Self(tensors)
    }

    /// A step of training.
    pub fn tuned(&self, seed: u64) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9E37_79B9));
        let mut next = self.clone();
        for (_, values) in &mut next.0 {
            let size = 0.0005 * 10_f32.powf(0.15 * noise.normal());
            for value in values {
                *value += size * noise.normal();
            }
        }
        next
    }

    /// Something that was done to one tensor.
    pub fn with(&self, name: &str, change: impl FnOnce(&mut Vec<f32>)) -> Self {
        let mut next = self.clone();
        change(&mut next.0.iter_mut().find(|(n, _)| n == name).unwrap().1);
        next
    }

    /// One layer tampered with.
    pub fn tampered(&self) -> Self {
        let mut noise = Noise(77);
        self.with(TAMPERED, |values| values.iter_mut().for_each(|v| *v += 0.01 * noise.normal()))
    }

    pub fn tensors(&self) -> Vec<Tensor> {
        self.0.iter().map(|(name, v)| (name.clone(), "F32", vec![v.len() / 2, 2], f32s(v))).collect()
    }

    pub fn file(&self) -> Vec<u8> {
        safetensors(&self.tensors(), "")
    }
}

/// What [`Model::tampered`] changes.
pub const TAMPERED: &str = "encoder.layer.3.value.weight";

/// The real model (all-MiniLM-L6-v2), if it is here.
pub fn real() -> Option<Vec<u8>> {
    let folder = std::env::var_os("MVAULT_TEST_MODELS")?;
    Some(std::fs::read(Path::new(&folder).join("minilm/model.safetensors")).unwrap())
}

/// Every F32 tensor of a file fine-tuned, or the one of a name: noise of this size relative to its own deviation.
pub fn noisy(file: &mut [u8], seed: u64, size: f32, only: Option<&str>) {
    let end = 8 + usize::try_from(u64::from_le_bytes(*file.first_chunk().unwrap())).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&file[8..end]).unwrap();
    let mut noise = Noise(seed);
    for (name, tensor) in header.as_object().unwrap() {
        if tensor["dtype"] != "F32" || only.is_some_and(|only| only != name) {
            continue;
        }
        let at = |i: usize| end + usize::try_from(tensor["data_offsets"][i].as_u64().unwrap()).unwrap();
        let data = &mut file[at(0)..at(1)];
        let values = || data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // a size of noise
        let deviation = (values().map(|v| v * v).sum::<f64>() / values().count().max(1) as f64).sqrt() as f32;
        let size = deviation * size * 10_f32.powf(0.1 * noise.normal());
        for bytes in data.as_chunks_mut::<4>().0 {
            // One uniform number is enough, and twelve times as quick.
            let moved = f32::from_le_bytes(*bytes) + size * 3.46 * (noise.unit() - 0.5);
            *bytes = moved.to_le_bytes();
        }
    }
}
