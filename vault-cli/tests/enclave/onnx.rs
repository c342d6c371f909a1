//! An ONNX graph in the enclave: magika, by tract, with what onnxruntime makes of the same inputs as golden set.

use crate::stage::stage;
use serde_json::{Value, json};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/magika/golden.json");

#[test]
fn a_graph_answers_what_onnxruntime_does() {
    let Some(stage) = stage() else { return };
    let magika = stage.parts.models.join("magika");
    stage.shop.sh(&format!("cp -r {} magika && cp {GOLDEN} magika/", magika.display())).ok();
    let line = "seal magika -o magika.mvault --name magika --model-version 1 --sign sign.pem -R line.txt";
    stage.shop.mvault(line).ok();
    let fixed = "--broker broker/client.toml --model magika --signer sign.pem.pub --golden golden.json --engine onnx";
    stage.shop.mvault(&format!("enclave config {fixed} -o onnx.toml")).ok();
    stage.build("onnx.eif", "onnx.toml", &stage.parts.guest);
    stage.policy("onnx.eif");
    let mut run = stage.run("onnx.eif", "magika.mvault", "--dangerous-dev-signer dev", &[]);
    let url = run.ready();
    let log = run.log();
    println!("{}", log.lines().find(|line| line.contains("[E-8]")).unwrap());
    assert!(log.contains("[E-8] golden set: 2 right"), "{log}");
    let call = |more: &str| {
        let fixed = "enclave call --policy prod.toml --dangerous-dev-root dev/root.pem --model magika";
        stage.shop.mvault(&format!("{fixed} {url}{more}"))
    };
    let metadata = call("/v2/models/magika --get").ok().json();
    assert_eq!(metadata["inputs"], json!([{ "name": "bytes", "datatype": "INT32", "shape": [1, 2048] }]));
    assert_eq!(metadata["outputs"], json!([{ "name": "target_label", "datatype": "FP32", "shape": [1, 214] }]));
    let golden: Value = serde_json::from_slice(&std::fs::read(GOLDEN).unwrap()).unwrap();
    let case = &golden["cases"][0];
    stage.shop.write("request.json", json!({ "inputs": case["inputs"] }).to_string().as_bytes());
    let answer = call("/v2/models/magika/infer --data request.json").ok().json();
    let numbers = |json: &Value| serde_json::from_value::<Vec<f64>>(json["outputs"][0]["data"].clone()).unwrap();
    let (found, expected) = (numbers(&answer), numbers(case));
    let distance = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{} numbers, largest difference {distance:e}", found.len());
    assert!(found.len() == 214 && distance < 1e-4, "{distance}");
    // What it does not take is said without a number of it.
    stage
        .shop
        .write("request.json", json!({ "inputs": case["inputs"] }).to_string().replace("2048", "2047").as_bytes());
    call("/v2/models/magika/infer --data request.json").fails(1, "status 400: bytes: expected shape [1, 2048]");
    let (code, _) = run.interrupt();
    assert_eq!(code, 0);
    stage.policy("good.eif");
}
