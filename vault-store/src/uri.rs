//! Where a vault is, as a user says it: `s3://bucket/prefix`, or a local folder. One habit for every verb.

use crate::aws::Aws;
use crate::error::{Cause, Result, StoreError};
use crate::folder::Folder;
use crate::s3::S3;
use crate::store::Store;
use std::path::PathBuf;

/// A vault's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// A folder.
    Folder(PathBuf),
    /// Below a prefix of a bucket.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix without slashes at its ends.
        prefix: String,
    },
}

impl Uri {
    /// Parses it.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| StoreError::new("vault", text, Cause::Malformed, why);
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let letters = bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:/".contains(&b));
            if bucket.is_empty() || !letters {
                return Err(bad("expected s3://BUCKET/PREFIX"));
            }
            let prefix = prefix.trim_matches('/');
            if prefix.split('/').any(|c| c == "." || c == "..") || prefix.contains("//") {
                return Err(bad("the prefix has an empty or dotted component"));
            }
            return Ok(Self::S3 { bucket: bucket.into(), prefix: prefix.into() });
        }
        match text.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Folder(path.into())),
            Some((scheme, _)) => {
                Err(bad(&format!("{scheme}:// is not supported; expected s3://BUCKET/PREFIX or a folder")))
            }
            None if text.starts_with("s3:") => Err(bad("a slash is missing; expected s3://BUCKET/PREFIX")),
            None if text.is_empty() => Err(bad("empty; expected s3://BUCKET/PREFIX or a folder")),
            None => Ok(Self::Folder(text.into())),
        }
    }

    /// Opens the store; connects to AWS only if it is there.
    pub fn open<E>(&self, connect: impl FnOnce() -> Result<Aws, E>) -> Result<Box<dyn Store>, E> {
        Ok(match self {
            Self::Folder(path) => Box::new(Folder::new(path)),
            Self::S3 { bucket, prefix } => Box::new(S3::new(connect()?, bucket, prefix)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_folders_or_buckets() {
        let s3 = |b: &str, p: &str| Uri::S3 { bucket: b.into(), prefix: p.into() };
        assert_eq!(Uri::parse("s3://b/team/x/").unwrap(), s3("b", "team/x"));
        assert_eq!(Uri::parse("s3://b").unwrap(), s3("b", ""));
        assert_eq!(Uri::parse("vault").unwrap(), Uri::Folder("vault".into()));
        assert_eq!(Uri::parse("file:///srv/vault").unwrap(), Uri::Folder("/srv/vault".into()));
        for bad in [
            "",
            "s3:/b/x",
            "s3:b",
            "s3://",
            "s3:///x",
            "s3://b/a/../c",
            "s3://b/a//c",
            "gs://b/x",
            "https://h/x",
            "s3://b c/x",
        ] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
    }
}
