//! Names of objects in a vault: FORMAT.md section 11. Nothing else makes or takes apart a key.

use crate::error::{Cause, Result, StoreError};
use vault_core::header::{Header, hex};
use vault_core::manifest::check_path;

/// Longest tag object in bytes `[F-43]`.
pub const MAX_TAG_OBJECT: usize = 128;
/// Longest job object in bytes `[F-49]`.
pub const MAX_JOB_OBJECT: usize = 256;
/// Largest header object in bytes.
pub const MAX_HEADER_OBJECT: usize = vault_core::header::MAX_HEADER_LEN as usize;

const TAG_MAGIC: &str = "mvault-tag-v1";
const JOB_MAGIC: &str = "mvault-job-v1";

/// A model's name that may stand in a vault `[F-41]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Checks it.
    pub fn new(name: &str) -> Result<Self> {
        let plain = check_path(name).is_ok() && !name.contains('/') && !name.starts_with('.');
        if plain {
            return Ok(Self(name.into()));
        }
        let why = "a name is one path component of at most 255 bytes that does not begin with a dot [F-41]";
        Err(StoreError::new("name", format!("{name:?}"), Cause::Malformed, why))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder of the model's objects.
    pub fn folder(&self) -> String {
        format!("{}/", self.0)
    }

    /// The header of a version.
    pub fn header(&self, version: u64) -> String {
        format!("{}/{version}", self.0)
    }

    /// The folder of the payloads.
    pub fn payloads(&self) -> String {
        format!("{}/payloads/", self.0)
    }

    /// The payload of an artifact.
    pub fn payload(&self, salt: &[u8; 32]) -> String {
        format!("{}/payloads/{}", self.0, hex(salt))
    }

    /// The folder of the tags.
    pub fn tags(&self) -> String {
        format!("{}/tags/", self.0)
    }

    /// A tag.
    pub fn tag(&self, tag: &TagName) -> String {
        format!("{}/tags/{}", self.0, tag.0)
    }

    /// What a publisher's job published.
    pub fn job(&self, mark: &[u8; 32]) -> String {
        format!("{}/jobs/{}", self.0, hex(mark))
    }
}

/// A version as an object's name; `None` for what is none `[F-41]`.
pub fn version(name: &str) -> Option<u64> {
    let version: u64 = name.parse().ok()?;
    (version.to_string() == name).then_some(version)
}

/// A payload's object name as an artifact id; `None` for what is none `[F-41]`.
pub fn payload_id(name: &str) -> Option<[u8; 32]> {
    let mut id = [0; 32];
    let digit = |b: &u8| char::from(*b).to_digit(16).filter(|_| !b.is_ascii_uppercase());
    if name.len() != 64 {
        return None;
    }
    for (to, pair) in id.iter_mut().zip(name.as_bytes().chunks(2)) {
        let [high, low] = pair else { return None };
        *to = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    }
    Some(id)
}

/// A tag's name `[F-41]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagName(String);

impl TagName {
    /// Checks it.
    pub fn new(tag: &str) -> Result<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && tag.len() <= 128 && tag.bytes().all(good) {
            return Ok(Self(tag.into()));
        }
        let why = "a tag is 1 to 128 letters, digits, dots, hyphens and underscores, a letter or digit first [F-41]";
        Err(StoreError::new("tag", format!("{tag:?}"), Cause::Malformed, why))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a tag points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The version.
    pub version: u64,
    /// The artifact that this version was when the tag was set.
    pub id: [u8; 32],
}

impl Target {
    /// The artifact of a header.
    pub fn of(version: u64, header: &Header) -> Self {
        Self { version, id: header.prelude().salt }
    }

    /// The bytes of the object of a job that published this `[F-49]`.
    pub fn encode_job(&self, proof: &[u8; 32]) -> String {
        format!("{JOB_MAGIC} {} {} {}\n", self.version, hex(&self.id), hex(proof))
    }

    /// From the bytes of a job's object: what it published, and the proof. `None` if they have not the one form `[F-49]`.
    pub fn parse_job(bytes: &[u8]) -> Option<(Self, [u8; 32])> {
        let text = std::str::from_utf8(bytes).ok()?;
        let words: Vec<_> = text.strip_suffix('\n')?.split(' ').collect();
        let [JOB_MAGIC, number, id, proof] = words.as_slice() else { return None };
        Some((Self { version: version(number)?, id: payload_id(id)? }, payload_id(proof)?))
    }

    /// The object's bytes `[F-43]`.
    pub fn encode(&self) -> String {
        format!("{TAG_MAGIC} {} {}\n", self.version, hex(&self.id))
    }

    /// From an object's bytes; `None` if they have not the one form `[F-43]`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (magic, number, id) = (words.next()?, words.next()?, words.next()?);
        let target = Self { version: version(number)?, id: payload_id(id)? };
        (magic == TAG_MAGIC && words.next().is_none()).then_some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_stand_in_a_vault() {
        for good in ["m", "all-MiniLM-L6-v2", "model.pkl", "größe", "payloads", "1"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "/a", "a\\b", "a\nb", &"x".repeat(256)] {
            assert!(Name::new(bad).is_err(), "{bad:?} [F-41]");
        }
        for bad in ["01", "+1", "-1", "1.0", "", "18446744073709551616", "tags", " 1"] {
            assert_eq!(version(bad), None, "{bad:?} [F-41]");
        }
        assert_eq!(version("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "-x", ".x", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(TagName::new(bad).is_err(), "{bad:?}");
        }
        assert!(payload_id(&"ab".repeat(32)).is_some());
        assert!(payload_id(&"AB".repeat(32)).is_none() && payload_id(&"ab".repeat(31)).is_none());
    }

    #[test]
    fn tags_have_one_form() {
        let target = Target { version: 7, id: [0xab; 32] };
        let text = target.encode();
        assert_eq!(Target::parse(text.as_bytes()), Some(target));
        assert!(text.len() <= MAX_TAG_OBJECT);
        for bad in [
            text.trim_end().to_owned(),
            text.replace(" 7 ", " 07 "),
            text.replace(" 7 ", "  7 "),
            text.replace("-v1", "-v2"),
            text.replace("ab", "AB"),
            format!("{text}\n"),
            text.replace('\n', " x\n"),
        ] {
            assert_eq!(Target::parse(bad.as_bytes()), None, "{bad:?} [F-43]");
        }
    }
}
