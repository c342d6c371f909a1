//! Vaults and what is in them, as the command line names them: `[VAULT] NAME[:VERSION|@TAG]`, with the default vault of
//! `--vault` or mvault.toml. `s3://bucket/prefix/NAME:3` and `folder/NAME:3` name an artifact in one word, wherever a file is read.

use crate::aws::AwsArgs;
use crate::config::Project;
use crate::error::CliError;
use crate::output::Output;
use std::path::Path;
use vault_store::Store;
use vault_store::layout::{Name, TagName, version};
use vault_store::uri::Uri;
use vault_store::vault::Selector;

/// The default vault.
#[derive(clap::Args)]
pub struct VaultArgs {
    /// The vault, where none is named: s3://BUCKET/PREFIX or a folder [default: that of mvault.toml]
    #[arg(long, value_name = "VAULT")]
    vault: Option<String>,
}

impl VaultArgs {
    /// Whether one was given here.
    pub fn is_given(&self) -> bool {
        self.vault.is_some()
    }

    /// The default vault.
    pub fn default(&self, project: &Project) -> Result<Option<Uri>, CliError> {
        if let Some(text) = &self.vault {
            return Ok(Some(parse(text)?));
        }
        let Some(text) = &project.vault else { return Ok(None) };
        let uri = parse(text).map_err(|e| e.about(project.path().display()))?;
        Ok(Some(match uri {
            Uri::Folder(path) => Uri::Folder(project.resolve(&path)),
            s3 @ Uri::S3 { .. } => s3,
        }))
    }

    /// `VAULT NAME`, or `NAME` in the default vault.
    pub fn with_name<'w>(&self, words: &'w [String], project: &Project) -> Result<(Uri, &'w str), CliError> {
        match words {
            [vault, name] if !self.is_given() => Ok((parse(vault)?, name)),
            [_, _] => Err(CliError::usage("the vault was named twice: --vault, and as an argument")),
            [name] => match self.default(project)? {
                Some(uri) => Ok((uri, name)),
                None => Err(CliError::usage(format!("{name}: in which vault?"))
                    .hint("name it before the model, s3://BUCKET/PREFIX or a folder; or set `vault` in mvault.toml")),
            },
            _ => Err(CliError::usage("expected VAULT and NAME")),
        }
    }

    /// `VAULT [NAME]`, or `[NAME]` in the default vault.
    pub fn with_maybe_name<'w>(
        &self,
        words: &'w [String],
        project: &Project,
    ) -> Result<(Uri, Option<&'w str>), CliError> {
        match (words, self.default(project)?) {
            ([], Some(uri)) => Ok((uri, None)),
            ([], None) => Err(CliError::usage("which vault?")
                .hint("name it, s3://BUCKET/PREFIX or a folder; or set `vault` in mvault.toml")),
            ([name], Some(uri)) if !name.contains('/') => Ok((uri, Some(name))),
            ([vault], _) if !self.is_given() => Ok((parse(vault)?, None)),
            _ => self.with_name(words, project).map(|(uri, name)| (uri, Some(name))),
        }
    }
}

fn parse(text: &str) -> Result<Uri, CliError> {
    Uri::parse(text).map_err(|e| CliError::usage(format!("{}: {}", e.place, e.message)))
}

/// Opens a vault's store; AWS is asked only if it is there.
pub fn open(uri: &Uri, aws: &AwsArgs, out: &Output) -> Result<Box<dyn Store>, CliError> {
    uri.open(|| aws.connect(out))
}

/// `NAME`, `NAME:VERSION` or `NAME@TAG`.
pub fn reference(text: &str) -> Result<(Name, Selector), CliError> {
    let name = |name: &str| Name::new(name).map_err(|e| CliError::usage(format!("name {name:?}: {}", e.message)));
    if let Some((before, after)) = text.rsplit_once(':') {
        let version = version(after)
            .ok_or_else(|| CliError::usage(format!("{text}: {after:?} is no version")).hint("expected NAME:NUMBER"))?;
        return Ok((name(before)?, Selector::Version(version)));
    }
    if let Some((before, after)) = text.rsplit_once('@') {
        let tag = tag(after)?;
        return Ok((name(before)?, Selector::Tag(tag)));
    }
    Ok((name(text)?, Selector::Latest))
}

/// A tag's name.
pub fn tag(text: &str) -> Result<TagName, CliError> {
    TagName::new(text).map_err(|e| CliError::usage(format!("tag {text:?}: {}", e.message)))
}

/// `s3://BUCKET/PREFIX/NAME:3`, `file:///VAULT/NAME:3` or `VAULT/NAME:3` where a file is expected; `None` for a file.
///
/// What exists as a file is that file. What does not, and ends in `:VERSION` or `@TAG`, is in the vault before it; so is the
/// folder of a model there, which is its latest version.
pub fn artifact_in_vault<'p>(path: &'p Path, out: &Output) -> Result<Option<(Uri, &'p str)>, CliError> {
    let Some(text) = path.to_str() else { return Ok(None) };
    let word = text.trim_end_matches('/');
    if ["s3://", "file://"].iter().any(|scheme| text.starts_with(scheme)) {
        return match word.rsplit_once('/') {
            Some((vault, name)) if !vault.ends_with(":/") => Ok(Some((parse(vault)?, name))),
            _ => Err(CliError::usage(format!("{text}: names no model"))
                .hint("expected s3://BUCKET/PREFIX/NAME:VERSION, or file:///VAULT/NAME:VERSION")),
        };
    }
    let (vault, word) = word.rsplit_once('/').unwrap_or((".", word));
    let vault = if vault.is_empty() { "/" } else { vault };
    let Ok((name, selector)) = reference(word) else { return Ok(None) };
    let is_model = is_model(&Path::new(vault).join(name.as_str()));
    let found = || Ok(Some((Uri::Folder(vault.into()), word)));
    match path.metadata() {
        Ok(there) if there.is_dir() && is_model && selector == Selector::Latest => found(),
        Ok(_) if is_model && selector != Selector::Latest => {
            let whole = std::path::absolute(vault).unwrap_or_else(|_| vault.into());
            out.warning(&format!("{text}: a file of that name; the vault's is file://{}/{word}", whole.display()));
            Ok(None)
        }
        Err(_) if is_model && selector != Selector::Latest => found(),
        Err(_) if selector != Selector::Latest && Path::new(vault).is_dir() => {
            Err(CliError::failed(format!("{text}: no such file, and no model {} in the vault {vault}", name.as_str()))
                .hint("a vault's models: `mvault ls VAULT`"))
        }
        _ => Ok(None),
    }
}

/// Whether this folder is a model's in a vault: FORMAT.md 11.
pub fn is_model(folder: &Path) -> bool {
    folder.join("payloads").is_dir()
}
