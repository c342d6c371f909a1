//! The golden set, sealed with the model: questions with right answers, docs/ENCLAVE.md E-8.

use serde::Deserialize;
use vault_enclave::serve::Engine;

/// Largest difference of one number.
const TOLERANCE: f32 = 1e-4;

/// An entry such as golden.json: one embedding for each sentence.
#[derive(Deserialize)]
struct Golden {
    sentences: Vec<String>,
    embeddings: Vec<Vec<f32>>,
}

/// Runs the set; gives how many sentences it has and the largest difference.
pub fn run(engine: &dyn Engine, file: &[u8]) -> Result<(usize, f32), String> {
    let golden: Golden = serde_json::from_slice(file).map_err(|e| format!("the golden set: {e}"))?;
    let Golden { sentences, embeddings } = golden;
    if sentences.is_empty() || sentences.len() != embeddings.len() {
        return Err(format!("the golden set: {} sentences, {} embeddings", sentences.len(), embeddings.len()));
    }
    let mut worst = 0.0_f32;
    for (number, (sentence, expected)) in sentences.iter().zip(&embeddings).enumerate() {
        let found = engine.embed(&[sentence]).map_err(|e| format!("golden sentence {number}: {e}"))?;
        let found = found.vectors.first().filter(|found| found.len() == expected.len());
        let found = found.ok_or_else(|| format!("golden sentence {number}: not {} numbers", expected.len()))?;
        let distance = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if distance.is_nan() || distance > TOLERANCE {
            return Err(format!("golden sentence {number}: differs by {distance:e}; at most {TOLERANCE:e}"));
        }
        worst = worst.max(distance);
    }
    Ok((sentences.len(), worst))
}
