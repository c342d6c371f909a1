//! Flags that say what a model was made of, and reading datasets: every file once, on all cores.

use crate::error::{CliError, io};
use crate::process::threads;
use crate::signatures::digests;
use crate::sources::Model;
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use vault_core::model_signature::{Hash, ONE_FILE};
use vault_core::provenance::{DataFile, Dataset, Provenance};
use vault_core::seal::SealOptions;

/// What `seal` and `push` record of a model's origin.
#[derive(clap::Args)]
#[command(next_help_heading = "Provenance")]
pub struct ProvenanceArgs {
    /// Record the digests of a dataset's files; `mvault provenance check` names what changed. May be repeated
    #[arg(long = "dataset", value_name = "[NAME=]DIR", value_parser = parse_dataset)]
    datasets: Vec<(String, PathBuf)>,
    /// What the model was made from, such as git+https://HOST/REPOSITORY@COMMIT
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Who made it: the URI of a CI job or machine
    #[arg(long, value_name = "URI")]
    builder: Option<String>,
}

impl ProvenanceArgs {
    /// Reads the datasets and writes all of it into the manifest-to-be.
    pub fn record(&self, options: &mut SealOptions<'_>) -> Result<(), CliError> {
        let mut datasets = self.datasets.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        datasets.sort_by(|a, b| a.name.cmp(&b.name));
        if datasets.windows(2).any(|pair| matches!(pair, [a, b] if a.name == b.name)) {
            return Err(CliError::usage("--dataset: two of one name").hint("NAME=DIR gives a dataset another name"));
        }
        let provenance = Provenance { source: self.source.clone(), builder: self.builder.clone(), datasets };
        Ok(provenance.write(&mut options.extensions)?)
    }
}

/// `NAME=DIR`, or `DIR` under its own name.
pub fn parse_dataset(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').unwrap_or(("", text));
    let path = PathBuf::from(path);
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = if text.contains('=') { name } else { own }.to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let good = (1..=64).contains(&name.len()) && name.chars().all(plain);
    if good {
        Ok((name, path))
    } else {
        Err("its name is not 1 to 64 of A-Z a-z 0-9 . _ -: NAME=DIR gives it one".into())
    }
}

/// The digests of a folder's files, or of one file.
pub fn read((name, path): &(String, PathBuf)) -> Result<Dataset, CliError> {
    let model = Model::open(path, false)?;
    let digests: HashMap<_, _> = digests(&model, Hash::Blake3, threads(None), &|_| {})?.into_iter().collect();
    let file = |(path, file): (&str, &File)| {
        let size = file.metadata().map_err(io(path))?.len();
        let digest = digests.get(if model.folder { path } else { ONE_FILE });
        let digest = digest.ok_or_else(|| CliError::failed(format!("{path}: it was not read")))?;
        Ok(DataFile { path: path.to_owned(), size, blake3: (*digest).into() })
    };
    let mut files = model.files().map(file).collect::<Result<Vec<_>, CliError>>()?;
    model.check_unchanged("read")?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Dataset { name: name.clone(), files })
}
