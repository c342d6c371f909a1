//! The built-in engine for BERT-type encoders, by candle: each tensor is moved into the engine, never copied.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde::Deserialize;
use std::collections::HashMap;
use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};
use vault_enclave::serve::{Embedded, Engine, EngineError};
use vault_enclave::weights::{Loaded, Numbers};

/// Texts computed at once: bounds the memory of attention.
const BATCH: usize = 8;

/// A model that answers.
pub struct Bert {
    model: BertModel,
    tokenizer: Tokenizer,
    pooling: Pooling,
    max_positions: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Pooling {
    Mean,
    Cls,
}

/// `1_Pooling/config.json` of sentence-transformers.
#[derive(Deserialize)]
struct PoolingFile {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
}

impl Bert {
    /// From tensors and the files of a sentence-transformers folder: config.json, tokenizer.json and, if it is there,
    /// 1_Pooling/config.json (without it: mean).
    pub fn new(tensors: Vec<Loaded>, files: &[(String, Vec<u8>)], max_tokens: usize) -> Result<Self, String> {
        let file = |path: &str| files.iter().find(|(name, _)| name == path).map(|(_, bytes)| bytes.as_slice());
        let needed = |path: &str| file(path).ok_or_else(|| format!("the model has no {path}"));
        let config: Config = serde_json::from_slice(needed("config.json")?).map_err(|e| format!("config.json: {e}"))?;
        let pooling = file("1_Pooling/config.json").map_or(Ok(Pooling::Mean), pooling)?;
        let mut tokenizer =
            Tokenizer::from_bytes(needed("tokenizer.json")?).map_err(|e| format!("tokenizer.json: {e}"))?;
        let max_length = max_tokens.min(config.max_position_embeddings);
        let cut = TruncationParams { max_length, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(cut)).map_err(|e| format!("tokenizer.json: {e}"))?;
        let pad_id = u32::try_from(config.pad_token_id).map_err(|_| "config.json: pad_token_id")?;
        let longest = PaddingStrategy::BatchLongest;
        tokenizer.with_padding(Some(PaddingParams { strategy: longest, pad_id, ..PaddingParams::default() }));
        let tensors = tensors.into_iter().filter_map(|t| tensor(t).transpose());
        let tensors = tensors.collect::<Result<HashMap<_, _>, String>>()?;
        let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = BertModel::load(weights, &config).map_err(|e| format!("the tensors: {e}"))?;
        Ok(Self { model, tokenizer, pooling, max_positions: max_length })
    }

    fn batch(&self, texts: &[&str]) -> Result<Embedded, String> {
        let encoded = self.tokenizer.encode_batch(texts.to_vec(), true).map_err(|_| "the tokenizer failed")?;
        let rows = encoded.len();
        let columns = encoded.first().map_or(0, tokenizers::Encoding::len);
        if columns == 0 || columns > self.max_positions {
            return Err("a text without tokens".into());
        }
        let ids: Vec<u32> = encoded.iter().flat_map(|e| e.get_ids().iter().copied()).collect();
        let mask: Vec<u32> = encoded.iter().flat_map(|e| e.get_attention_mask().iter().copied()).collect();
        let tokens = mask.iter().map(|m| u64::from(*m)).sum();
        let vectors = self.forward(ids, mask, (rows, columns)).map_err(|_| "the engine failed")?;
        Ok(Embedded { vectors, tokens })
    }

    fn forward(&self, ids: Vec<u32>, mask: Vec<u32>, shape: (usize, usize)) -> candle_core::Result<Vec<Vec<f32>>> {
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let pooled = match self.pooling {
            Pooling::Cls => hidden.narrow(1, 0, 1)?.squeeze(1)?,
            Pooling::Mean => {
                let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
                hidden.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?
            }
        };
        let unit = pooled.broadcast_div(&pooled.sqr()?.sum_keepdim(1)?.sqrt()?)?;
        unit.to_vec2()
    }
}

impl Engine for Bert {
    fn embed(&self, texts: &[&str]) -> Result<Embedded, EngineError> {
        let mut all = Embedded { vectors: Vec::with_capacity(texts.len()), tokens: 0 };
        for texts in texts.chunks(BATCH) {
            let Embedded { vectors, tokens } = self.batch(texts).map_err(EngineError)?;
            all.vectors.extend(vectors);
            all.tokens += tokens;
        }
        if all.vectors.iter().flatten().any(|x| !x.is_finite()) {
            return Err(EngineError("the engine's numbers are not finite".into())); // no JSON for them
        }
        Ok(all)
    }
}

fn pooling(file: &[u8]) -> Result<Pooling, String> {
    let file: PoolingFile = serde_json::from_slice(file).map_err(|e| format!("1_Pooling/config.json: {e}"))?;
    match (file.pooling_mode_mean_tokens, file.pooling_mode_cls_token) {
        (true, false) => Ok(Pooling::Mean),
        (false, true) => Ok(Pooling::Cls),
        _ => Err("1_Pooling/config.json: neither mean nor cls alone".into()),
    }
}

/// candle's tensor over the same memory; none for a type that BERT's weights do not have (`I64` position ids).
fn tensor(loaded: Loaded) -> Result<Option<(String, Tensor)>, String> {
    let Loaded { name, dtype, shape, numbers } = loaded;
    let device = &Device::Cpu;
    let made = match numbers {
        Numbers::F32(numbers) => Tensor::from_vec(numbers, shape, device),
        Numbers::F64(numbers) => Tensor::from_vec(numbers, shape, device),
        Numbers::Half(bits) if dtype == "F16" => {
            Tensor::from_vec(bytemuck::allocation::cast_vec::<u16, half::f16>(bits), shape, device)
        }
        Numbers::Half(bits) => Tensor::from_vec(bytemuck::allocation::cast_vec::<u16, half::bf16>(bits), shape, device),
        _ => return Ok(None),
    };
    made.map(|tensor| Some((name.clone(), tensor))).map_err(|e| format!("{name}: {e}"))
}
