//! What an enclave reads of those whom it does not trust: tensors of clients, the statement of another enclave, KMS's and the parent's
//! words, and its own configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_enclave::config::Config;
use vault_enclave::fetch::answer;
use vault_enclave::model::Statement;
use vault_enclave::serve::{Port, read_tensors};

fn ports() -> [Port; 2] {
    let port =
        |name: &str, datatype, shape: &[Option<usize>]| Port { name: name.into(), datatype, shape: shape.into() };
    [port("x", "FP32", &[None, Some(3)]), port("n", "INT64", &[])]
}

/// What one end says; what the other answers is thrown away.
struct Said<'a>(&'a [u8]);

impl std::io::Read for Said<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl std::io::Write for Said<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((what, data)) = data.split_first() else { return };
    match what % 4 {
        0 => {
            let Ok(json) = serde_json::from_slice(data) else { return };
            if let Ok(tensors) = read_tensors(&json, &ports()) {
                for (tensor, port) in tensors.iter().zip(ports()) {
                    assert_eq!(tensor.data.datatype(), port.datatype);
                    assert_eq!(tensor.data.len(), tensor.shape.iter().product::<usize>());
                    assert!(tensor.direction().iter().all(|x| x.is_finite()) && data.len() >= tensor.data.len());
                }
            }
        }
        1 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            if let Some(statement) = Statement::parse(text) {
                assert_eq!(statement.text(), text);
            }
        }
        2 => drop(Config::parse(data)),
        _ => {
            let payload = vec![7; 100_000];
            let _ = answer(&mut Said(data), &[1; 4096], &payload, payload.len() as u64); // an error is an answer, too
        }
    }
});
