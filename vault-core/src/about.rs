//! The sealed about block of a header: FORMAT.md section 4.5. It tells a recipient what an artifact is
//! without the payload; the manifest decides.

use crate::aead::Engine;
use crate::cbor::{self, TextMap};
use crate::error::{Error, Result, refused, require};
use crate::header::{Section, section};
use crate::keys::Schedule;
use crate::manifest::{self, MAX_TEXT};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

/// The padded plaintext is a multiple of this.
const STEP: usize = 256;
/// Largest padded plaintext.
const MAX_PADDED: usize = 4096;

/// What an artifact says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct About {
    /// The model's name.
    #[n(0)]
    pub name: String,
    /// The model's version.
    #[n(1)]
    pub model_version: u64,
    /// What kind of model it is, such as `safetensors`.
    #[n(2)]
    pub kind: String,
    /// The publisher's labels.
    #[n(3)]
    pub labels: TextMap<String>,
}

impl About {
    pub(crate) fn seal(&self, schedule: &Schedule, salt: &[u8; 32], rng: &mut dyn CryptoRng) -> Result<Section> {
        self.check_limits().map_err(|e| Error::Usage(e.to_string()))?;
        let map = cbor::encode(self);
        let mut plain = u16::try_from(map.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        plain.extend_from_slice(&map);
        plain.resize(plain.len().next_multiple_of(STEP), 0);
        if plain.len() > MAX_PADDED {
            return Err(Error::Usage(format!("name and labels take {} bytes; the limit is 4094", map.len())));
        }
        let mut own_salt = [0; 32];
        rng.fill_bytes(&mut own_salt);
        let key = Engine::AesGcm.key(schedule.about_key(&own_salt).expose());
        let tag = key.seal([0; 12], &aad(salt, &own_salt), &mut plain);
        Ok(Section { kind: section::ABOUT, body: [&own_salt[..], &plain, &tag].concat() })
    }

    /// Opens the section's body `[F-19]`.
    pub(crate) fn open(body: &[u8], schedule: &Schedule, salt: &[u8; 32]) -> Result<Self> {
        let changed = || refused(19, "the about block was changed");
        let (own_salt, sealed) = body.split_first_chunk::<32>().ok_or_else(changed)?;
        let mut plain = vec![0; sealed.len().saturating_sub(16)];
        let key = Engine::AesGcm.key(schedule.about_key(own_salt).expose());
        key.open([0; 12], &aad(salt, own_salt), sealed, &mut plain).map_err(|_| changed())?;
        let (len, rest) = plain.split_first_chunk::<2>().ok_or_else(changed)?;
        let (map, padding) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or_else(changed)?;
        require(padding.len() < STEP && padding.iter().all(|b| *b == 0), 19, || {
            "the about block's padding is not the least, or not zero".into()
        })?;
        let about: Self = cbor::decode(map, "about block")?;
        about.check_limits()?;
        Ok(about)
    }

    /// `[F-34]`
    fn check_limits(&self) -> Result<()> {
        manifest::check_name(&self.name)?;
        manifest::check_text("kind", &self.kind, MAX_TEXT)?;
        require(self.labels.0.len() <= manifest::MAX_LABELS, 34, || "more than 64 labels".into())?;
        self.labels.iter().try_for_each(|(k, v)| {
            manifest::check_text("label", k, MAX_TEXT)?;
            manifest::check_text("label", v, MAX_TEXT)
        })
    }
}

fn aad(salt: &[u8; 32], own_salt: &[u8; 32]) -> Vec<u8> {
    [&section::ABOUT.to_be_bytes(), &salt[..], own_salt].concat()
}
