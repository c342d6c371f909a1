//! Where measurements come from: an image, what its build printed, or an attestation document that is verified first.

use super::read_bounded;
use crate::error::CliError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use vault_attest::nitro::{MAX_DOCUMENT, Mode, Roots, verify};
use vault_attest::policy::{PCRS, parse_pcr};
use vault_attest::time::rfc3339_ms;
use vault_attest::{Pcr, Step};

/// Largest output of a build that is read.
const MAX_JSON: usize = 1024 * 1024;

/// PCRs, and a sentence that says where they are from.
pub struct Measured {
    pub pcrs: BTreeMap<u8, Pcr>,
    pub comment: String,
}

/// Reads a file of any kind. PCR0 to 2 are taken, PCR8 if the image is signed, and those in `more`.
pub fn read(path: &Path, more: &[u8]) -> Result<Measured, CliError> {
    let bytes = read_bounded(path, MAX_JSON)?;
    if bytes.starts_with(b".eif") {
        return from_image(path, more);
    }
    let json = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{');
    if json { from_build(path, &bytes, more) } else { from_document(path, &bytes, more) }
}

#[derive(Deserialize)]
struct Build {
    #[serde(rename = "Measurements")]
    measurements: BTreeMap<String, String>,
}

/// What the build said.
fn from_build(path: &Path, bytes: &[u8], more: &[u8]) -> Result<Measured, CliError> {
    let pcrs = parse_build(&path.display().to_string(), bytes)?;
    choose(path, &pcrs, more, format!("measurements of the build in {}", file_name(path)))
}

/// An image that has not run yet.
fn from_image(path: &Path, more: &[u8]) -> Result<Measured, CliError> {
    let (image, _) = crate::commands::enclave::measure::read(path)?;
    choose(path, image.pcrs(), more, format!("measured from {}", file_name(path)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What `nitro-cli build-enclave`, `nitro-cli describe-eif`, `eif_build` or `mvault-eif` print; `name` says where it is from.
pub fn parse_build(name: &str, bytes: &[u8]) -> Result<BTreeMap<u8, Pcr>, CliError> {
    let hint = "give what `nitro-cli build-enclave` or `nitro-cli describe-eif` prints, or an attestation document";
    let build: Build = serde_json::from_slice(bytes)
        .map_err(|e| CliError::failed(format!("{name}: no measurements of a build: {e}")).hint(hint))?;
    let algorithm = build.measurements.get("HashAlgorithm").map_or("", String::as_str);
    if !algorithm.to_ascii_lowercase().starts_with("sha384") {
        let message = format!("{name}: HashAlgorithm: expected Sha384, found {algorithm:?}");
        return Err(CliError::failed(message).hint(hint));
    }
    let mut pcrs = BTreeMap::new();
    for index in PCRS {
        if let Some(text) = build.measurements.get(&format!("PCR{index}")) {
            let pcr = parse_pcr(text).ok_or_else(|| {
                let message = format!("{name}: PCR{index}: expected 96 hex digits, found {text:?}");
                CliError::failed(message).hint(hint)
            })?;
            pcrs.insert(index, pcr);
        }
    }
    Ok(pcrs)
}

/// A document of a running enclave, judged as of its own time.
fn from_document(path: &Path, bytes: &[u8], more: &[u8]) -> Result<Measured, CliError> {
    let bytes = bytes.get(..bytes.len().min(MAX_DOCUMENT + 1)).unwrap_or_default();
    let evidence = verify(bytes, &Roots::aws(), Mode::Archived).map_err(|refusal| {
        let message = format!("{}: {refusal}", path.display());
        if refusal.step == Step::V(23) {
            return CliError::denied(message).hint("run the enclave without --debug-mode, and take its document again");
        }
        CliError::not_authentic(message).hint("`mvault attest explain` shows what is in it")
    })?;
    let pcrs = PCRS.iter().filter_map(|&i| Some((i, *evidence.pcr(usize::from(i))?))).collect();
    let comment = format!("from a document of {} made {}", evidence.module_id(), rfc3339_ms(evidence.time_ms()));
    choose(path, &pcrs, more, comment)
}

fn choose(path: &Path, all: &BTreeMap<u8, Pcr>, more: &[u8], comment: String) -> Result<Measured, CliError> {
    let mut pcrs = BTreeMap::new();
    for index in PCRS {
        let required = index <= 2 || more.contains(&index);
        match all.get(&index) {
            Some(pcr) if required && *pcr == [0; 48] => {
                let message = format!("{}: PCR{index} is all zeros [P-1]", path.display());
                let hint = if index <= 2 {
                    "a debug enclave: build and run it without --debug-mode"
                } else {
                    "nothing was measured there: leave this PCR out"
                };
                return Err(CliError::denied(message).hint(hint));
            }
            Some(pcr) if required || (index == 8 && *pcr != [0; 48]) => {
                pcrs.insert(index, *pcr);
            }
            None if required => {
                let message = format!("{}: there is no PCR{index}", path.display());
                return Err(
                    CliError::failed(message).hint("PCR3 and PCR4 are in documents only, PCR8 of signed images")
                );
            }
            _ => {}
        }
    }
    Ok(Measured { pcrs, comment })
}
