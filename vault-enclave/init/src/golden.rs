//! The golden set, sealed with the model: questions with right answers, docs/ENCLAVE.md E-8.

use serde::Deserialize;
use serde_json::Value;
use vault_enclave::serve::{Engine, Infer, read_tensors};

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

/// Of a graph: tensors as the protocol has them.
#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    inputs: Value,
    outputs: Value,
}

/// Runs the set of a graph; gives how many cases it has and the largest difference.
pub fn run_cases(engine: &dyn Infer, file: &[u8]) -> Result<(usize, f64), String> {
    let Cases { cases } = serde_json::from_slice(file).map_err(|e| format!("the golden set: {e}"))?;
    if cases.is_empty() {
        return Err("the golden set: no cases".into());
    }
    let mut worst = 0.0_f64;
    for (number, Case { inputs, outputs }) in cases.iter().enumerate() {
        let about = |e: String| format!("golden case {number}: {e}");
        let inputs = read_tensors(inputs, engine.inputs()).map_err(about)?;
        let expected = read_tensors(outputs, engine.outputs()).map_err(about)?;
        let found = engine.infer(inputs).map_err(|e| about(e.0))?;
        for (found, expected) in found.iter().zip(&expected) {
            if found.shape != expected.shape {
                return Err(about("an output of another shape".into()));
            }
            let pairs = found.data.numbers().into_iter().zip(expected.data.numbers());
            let distance = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, nan_or_max);
            if distance.is_nan() || distance > f64::from(TOLERANCE) {
                return Err(about(format!("differs by {distance:e}; at most {TOLERANCE:e}")));
            }
            worst = worst.max(distance);
        }
    }
    Ok((cases.len(), worst))
}

/// `f64::max` would pass over what is not a number.
fn nan_or_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
