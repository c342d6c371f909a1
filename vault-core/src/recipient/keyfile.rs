//! Text encodings of keys: FORMAT.md section 9. Each line has a checksum, so that a cut or mistyped key is
//! named as such and never used.

use super::argon2id::{self, Passphrase};
use super::broker::BrokerRecipient;
use super::xwing::{PUBLIC_LEN, SEED_LEN, XWingIdentity, XWingRecipient};
use crate::error::{Error, Result, refused};
use crate::secret::Secret;
use base64ct::{Base64UrlUnpadded, Encoding};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// Prefix of a recipient's line.
pub const RECIPIENT_PREFIX: &str = "mvault-xw1-";
/// Prefix of a secret key's line.
pub const SECRET_PREFIX: &str = "MVAULT-SECRET-XW1-";
/// Prefix of a passphrase-protected secret key's line.
pub const PROTECTED_PREFIX: &str = "MVAULT-PROTECTED-XW1-";
/// Prefix of a key broker's line.
pub const BROKER_PREFIX: &str = "mvault-bk1-";
const CHECKSUM_LEN: usize = 8;

/// One key line of an identity file.
#[expect(clippy::large_enum_variant)] // a handful in a process
pub enum KeyLine {
    /// Ready for use.
    Secret(XWingIdentity),
    /// Needs a passphrase: [`unprotect`].
    Protected(Vec<u8>),
}

/// The recipient's line.
pub fn encode_recipient(recipient: &XWingRecipient) -> String {
    encode(RECIPIENT_PREFIX, "recipient", recipient.as_bytes()).to_string()
}

/// Parses a recipient's line `[F-39]`.
pub fn decode_recipient(line: &str) -> Result<XWingRecipient> {
    if line.starts_with(SECRET_PREFIX) || line.starts_with(PROTECTED_PREFIX) {
        return Err(Error::Usage("that is a secret key, not a recipient's line".into()));
    }
    XWingRecipient::from_bytes(decode(RECIPIENT_PREFIX, "recipient", PUBLIC_LEN, line)?.expose())
}

/// A key broker's line, to which `/POLICY` or `/POLICY@sha256:HEX` is added to seal for it.
pub fn encode_broker(key: &XWingRecipient) -> String {
    encode(BROKER_PREFIX, "broker", key.as_bytes()).to_string()
}

/// Parses `LINE/POLICY` or `LINE/POLICY@sha256:HEX` `[F-39]` `[F-47]`.
pub fn decode_broker(line: &str) -> Result<BrokerRecipient> {
    let no_policy = || Error::Usage("a key broker's line needs the policy to seal for: mvault-bk1-…/POLICY".into());
    let (key, policy) = line.split_once('/').ok_or_else(no_policy)?;
    let key = decode_broker_key(key)?;
    let Some((policy, digest)) = policy.split_once('@') else { return BrokerRecipient::new(key, policy, None) };
    let digest = digest.strip_prefix("sha256:").and_then(unhex);
    let digest =
        digest.ok_or_else(|| Error::Usage("after @: sha256: and 64 hex digits of the policy's digest".into()))?;
    BrokerRecipient::new(key, policy, Some(digest))
}

/// Parses a key broker's line without a policy `[F-39]`.
pub fn decode_broker_key(line: &str) -> Result<XWingRecipient> {
    XWingRecipient::from_bytes(decode(BROKER_PREFIX, "broker", PUBLIC_LEN, line)?.expose())
}

/// The secret key's line.
pub fn encode_secret(identity: &XWingIdentity) -> Zeroizing<String> {
    encode(SECRET_PREFIX, "secret", identity.seed().expose())
}

/// The secret key's line under a passphrase.
pub fn encode_protected(identity: &XWingIdentity, passphrase: &Passphrase, rng: &mut dyn CryptoRng) -> Result<String> {
    let body = passphrase.wrap_secret(0, &[0; 32], identity.seed().expose(), rng)?;
    Ok(encode(PROTECTED_PREFIX, "protected", &body).to_string())
}

/// Opens a protected key; refused if the passphrase is not its own.
pub fn unprotect(body: &[u8], passphrase: &Passphrase) -> Result<XWingIdentity> {
    let seed = passphrase.unwrap_secret(0, &[0; 32], body)?;
    seed.and_then(XWingIdentity::from_seed).ok_or_else(|| refused(16, "wrong passphrase for the key file"))
}

/// All key lines of an identity file, which must be UTF-8.
pub fn parse_identities(text: &[u8]) -> Result<Vec<KeyLine>> {
    lines(text)?
        .map(|line| {
            if line.starts_with(PROTECTED_PREFIX) {
                let body = decode(PROTECTED_PREFIX, "protected", argon2id::BODY_LEN, line)?;
                return Ok(KeyLine::Protected(body.expose().to_vec()));
            }
            if line.starts_with(RECIPIENT_PREFIX) {
                return Err(Error::Usage("a recipient's line is public; an identity file needs the secret key".into()));
            }
            let seed = decode(SECRET_PREFIX, "secret", SEED_LEN, line)?;
            XWingIdentity::from_seed(seed).map(KeyLine::Secret).ok_or_else(|| damaged("secret"))
        })
        .collect()
}

/// The lines of a key file or a recipients file that say something.
pub fn lines(text: &[u8]) -> Result<impl Iterator<Item = &str>> {
    let text = std::str::from_utf8(text).map_err(|_| Error::Usage("not a key file: not text".into()))?;
    Ok(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    bytes.filter(|_| rest.is_empty())?.try_into().ok()
}

fn damaged(what: &str) -> Error {
    refused(39, format!("the {what} key's line is damaged: wrong length or checksum"))
}

fn checksum(what: &str, bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::new().chain_update(format!("mvault/v1/{what}\0")).chain_update(bytes).finalize();
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&digest[..CHECKSUM_LEN]);
    sum
}

fn encode(prefix: &str, what: &str, bytes: &[u8]) -> Zeroizing<String> {
    let whole = Zeroizing::new([bytes, &checksum(what, bytes)].concat());
    let base64 = Zeroizing::new(Base64UrlUnpadded::encode_string(&whole));
    Zeroizing::new(format!("{prefix}{}", *base64))
}

fn decode(prefix: &str, what: &str, len: usize, line: &str) -> Result<Secret> {
    let base64 = line.strip_prefix(prefix).ok_or_else(|| {
        let start: String = line.chars().take(8).filter(char::is_ascii_graphic).collect();
        let shown = if line.starts_with("MVAULT-") { "MVAULT-…".into() } else { format!("{start}…") };
        Error::Usage(format!("not a {what} key line: expected {prefix}…, found {shown}"))
    })?;
    let mut whole = vec![0; len + CHECKSUM_LEN];
    // Base64UrlUnpadded is strict: other characters, padding and non-zero unused bits are errors.
    let decoded = Base64UrlUnpadded::decode(base64, &mut whole).map(<[u8]>::len);
    let fits = decoded.is_ok_and(|n| n == len + CHECKSUM_LEN);
    let (bytes, sum) = whole.split_at_mut(len);
    let ok = fits && *sum == checksum(what, bytes);
    let secret = Secret::take(bytes);
    whole.zeroize();
    if ok { Ok(secret) } else { Err(damaged(what)) }
}
