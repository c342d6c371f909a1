//! A second writer of artifacts, made from FORMAT.md and not from vault-core, with every field open to change.
//! It knows the keys, so what it makes wrong is wrong under right keys and MACs: the lies of a sealer.
//! [`Parts`] is an artifact before it is sealed; [`Keys`] are the derivations of FORMAT.md section 3.

pub mod cbor;
pub mod content;
pub mod eif;
pub mod kms;

use crate::rng;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use base64ct::{Base64UrlUnpadded, Encoding};
use content::{Content, Plain};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rand_core::Rng;
use sha2::{Digest, Sha256, Sha512};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};
use x_wing::kem::{Decapsulator, Encapsulate, KeyExport};

/// Type and body of a header section.
pub type Section = (u16, Vec<u8>);

pub const ARGON2ID: u16 = 0x0001;
pub const XWING: u16 = 0x0002;
pub const AWS_KMS: u16 = 0x0003;
pub const BROKER: u16 = 0x0004;
pub const ABOUT: u16 = 0x0100;
pub const SIGNATURE: u16 = 0x0101;
/// The cost of a sealer's passphrase stanza: m, t, p.
pub const COST: [u32; 3] = [65_536, 3, 4];

/// A key file.
pub struct KeyFile {
    pub seed: [u8; 32],
    key: x_wing::EncapsulationKey,
    pub public: Vec<u8>,
}

impl KeyFile {
    pub fn new(number: u64) -> Self {
        let mut seed = [0; 32];
        rng(number ^ 0x0073_6565_6400).fill_bytes(&mut seed);
        let key = x_wing::DecapsulationKey::from(seed).encapsulation_key().clone();
        let public = key.to_bytes().to_vec();
        Self { seed, key, public }
    }

    /// FORMAT.md section 9.
    pub fn secret_line(&self) -> String {
        line("MVAULT-SECRET-XW1-", "secret", &self.seed)
    }

    /// The line of a key file under a passphrase: FORMAT.md section 9.
    pub fn protected_line(&self, passphrase: &[u8]) -> String {
        let keys = Keys { dek: self.seed, salt: [0; 32], version: 1, chunk_size: 4096 };
        line("MVAULT-PROTECTED-XW1-", "protected", &keys.passphrase_body(0, passphrase, COST, [9; 16]))
    }
}

fn line(prefix: &str, what: &str, bytes: &[u8]) -> String {
    let sum = Sha256::digest([format!("mvault/v1/{what}\0").as_bytes(), bytes].concat());
    format!("{prefix}{}", Base64UrlUnpadded::encode_string(&[bytes, &sum[..8]].concat()))
}

/// A publisher's key.
pub fn publisher(number: u8) -> SigningKey {
    SigningKey::from_slice(&[number; 32]).unwrap()
}

/// DER SubjectPublicKeyInfo of a publisher.
pub fn signer_der(key: &SigningKey) -> Vec<u8> {
    key.verifying_key().to_public_key_der().unwrap().as_bytes().to_vec()
}

fn gcm(key: &[u8], nonce: [u8; 12], aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let cipher = Aes256Gcm::new_from_slice(key).unwrap();
    cipher.encrypt(&nonce.into(), Payload { msg, aad }).unwrap()
}

fn hkdf(salt: &[u8], ikm: &[u8], info: &[u8], n: usize) -> Vec<u8> {
    let mut out = vec![0; n];
    Hkdf::<Sha512>::new(Some(salt), ikm).expand(info, &mut out).unwrap();
    out
}

/// Argon2id, each computed once in a process: it is most of the time a corpus takes.
fn argon2id(passphrase: &[u8], salt: [u8; 16], [m, t, p]: [u32; 3]) -> [u8; 32] {
    type Known = Mutex<HashMap<(Vec<u8>, [u8; 16], [u32; 3]), [u8; 32]>>;
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Known::default).lock().unwrap();
    *known.entry((passphrase.to_vec(), salt, [m, t, p])).or_insert_with(|| {
        let params = argon2::Params::new(m, t, p, Some(32)).unwrap();
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut out = [0; 32];
        argon2.hash_password_into(passphrase, &salt, &mut out).unwrap();
        out
    })
}

/// What every derivation starts from.
#[derive(Clone)]
pub struct Keys {
    pub dek: [u8; 32],
    pub salt: [u8; 32],
    pub version: u32,
    pub chunk_size: u32,
}

impl Keys {
    pub fn new(number: u64, chunk_size: u32) -> Self {
        let (mut dek, mut salt, mut rng) = ([0; 32], [0; 32], rng(number ^ 0x6B65_7973));
        rng.fill_bytes(&mut dek);
        rng.fill_bytes(&mut salt);
        Self { dek, salt, version: 1, chunk_size }
    }

    fn derive(&self, label: &str, context: &[u8], n: usize) -> Vec<u8> {
        hkdf(&self.salt, &self.dek, &[format!("mvault/v1/{label}\0").as_bytes(), context].concat(), n)
    }

    fn suite(&self) -> Vec<u8> {
        [self.version, self.chunk_size].map(u32::to_be_bytes).concat()
    }

    pub fn commitment(&self) -> [u8; 32] {
        self.derive("commitment", &self.suite(), 32).try_into().unwrap()
    }

    pub fn mac(&self, header: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha512>::new_from_slice(&self.derive("header", b"", 64)).unwrap();
        mac.update(header);
        mac.finalize().into_bytes()[..32].try_into().unwrap()
    }

    /// Chunk `i` of a payload.
    pub fn chunk(&self, i: u64, plain: &[u8]) -> Vec<u8> {
        let context = [&self.chunk_size.to_be_bytes()[..], &(i >> 20).to_be_bytes()].concat();
        let segment = self.derive("payload", &context, 44);
        let mut nonce: [u8; 12] = segment[32..].try_into().unwrap();
        nonce[4..].iter_mut().zip(i.to_be_bytes()).for_each(|(n, b)| *n ^= b);
        gcm(&segment[..32], nonce, b"", plain)
    }

    /// A whole payload, the short last chunk included.
    pub fn payload(&self, plain: &[u8]) -> Vec<u8> {
        let size = self.chunk_size as usize;
        let chunks = (0..=plain.len() / size).map(|i| &plain[i * size..plain.len().min((i + 1) * size)]);
        (0..).zip(chunks).flat_map(|(i, chunk)| self.chunk(i, chunk)).collect()
    }

    fn wrap(&self, kek: &[u8], kind: u16, before: &[u8]) -> Vec<u8> {
        let aad = [&kind.to_be_bytes(), &self.salt[..], before].concat();
        [before, &gcm(kek, [0; 12], &aad, &self.dek)].concat()
    }

    pub fn xwing(&self, to: &KeyFile, number: u64) -> Section {
        let (ct, shared) = to.key.encapsulate_with_rng(&mut rng(number ^ 0x7877));
        let tag = Sha256::digest([b"mvault/v1/x-wing tag\0", &self.salt[..], &to.public].concat());
        let kek = hkdf(&self.salt, &shared, &[b"mvault/v1/x-wing\0", &ct[..], &to.public].concat(), 32);
        (XWING, self.wrap(&kek, XWING, &[&tag[..8], &ct].concat()))
    }

    /// Whatever the ARN and the blob are.
    pub fn aws_kms(&self, arn: &[u8], blob: &[u8], data_key: [u8; 32]) -> Section {
        let kek = hkdf(&self.salt, &data_key, &[b"mvault/v1/aws-kms\0", arn].concat(), 32);
        let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
        (AWS_KMS, self.wrap(&kek, AWS_KMS, &[&len(arn), arn, &len(blob), blob].concat()))
    }

    /// Whatever the policy's name is.
    pub fn broker(&self, to: &KeyFile, policy: &[u8], digest: [u8; 32], number: u64) -> Section {
        self.broker_labelled("broker", to, policy, digest, number)
    }

    /// With another label where the KEK is derived.
    pub fn broker_labelled(&self, label: &str, to: &KeyFile, policy: &[u8], digest: [u8; 32], number: u64) -> Section {
        let (ct, shared) = to.key.encapsulate_with_rng(&mut rng(number ^ 0x626B));
        let key_id = Sha256::digest([b"mvault/v1/broker key\0", &to.public[..]].concat());
        let tag = Sha256::digest([b"mvault/v1/broker tag\0", &self.salt[..], &key_id].concat());
        let kek = hkdf(&self.salt, &shared, &[format!("mvault/v1/{label}\0").as_bytes(), &ct, &to.public].concat(), 32);
        let n = u8::try_from(policy.len()).unwrap();
        (BROKER, self.wrap(&kek, BROKER, &[&tag[..8], &ct, &[n], policy, &digest].concat()))
    }

    pub fn passphrase(&self, passphrase: &[u8], cost: [u32; 3], salt: [u8; 16]) -> Section {
        (ARGON2ID, self.passphrase_body(ARGON2ID, passphrase, cost, salt))
    }

    fn passphrase_body(&self, kind: u16, passphrase: &[u8], cost: [u32; 3], salt: [u8; 16]) -> Vec<u8> {
        let both = hkdf(&self.salt, &argon2id(passphrase, salt, cost), b"mvault/v1/argon2id\0", 64);
        let before = [&cost.map(u32::to_be_bytes).concat()[..], &salt, &both[32..]].concat();
        self.wrap(&both[..32], kind, &before)
    }

    /// An about block of these padded bytes.
    pub fn about(&self, padded: &[u8], about_salt: [u8; 32]) -> Section {
        let aad = [&ABOUT.to_be_bytes()[..], &self.salt, &about_salt].concat();
        let sealed = gcm(&self.derive("about", &about_salt, 32), [0; 12], &aad, padded);
        (ABOUT, [&about_salt[..], &sealed].concat())
    }

    /// A signature over these fields, whatever the payload is.
    pub fn signature(&self, key: &SigningKey, identity: [u8; 32], len: u64, digest: [u8; 32]) -> Section {
        let key_id = Sha256::digest(signer_der(key));
        let body = [&key_id[..], &identity, &len.to_be_bytes(), &digest].concat();
        let front = [&b"mvault/v1/signature\0"[..], &self.suite(), &self.salt, &self.commitment()].concat();
        let signature: Signature = key.sign(&[front, body.clone()].concat());
        (SIGNATURE, [&body[..], &signature.to_bytes()].concat())
    }

    pub fn identity(&self, name: &str, version: u64) -> [u8; 32] {
        let label = b"mvault/v1/identity\0";
        Sha256::digest([&label[..], &self.salt, &version.to_be_bytes(), name.as_bytes()].concat()).into()
    }

    /// `payload digest` of FORMAT.md section 4.6.
    pub fn payload_digest(&self, payload: &[u8]) -> [u8; 32] {
        let mut root = Sha256::new_with_prefix(b"mvault/v1/payload\0");
        for chunk in payload.chunks(self.chunk_size as usize + 16) {
            root.update(blake3::hash(chunk).as_bytes());
        }
        root.chain_update((payload.len() as u64).to_be_bytes()).finalize().into()
    }
}

/// An artifact in parts. `None` stands for what FORMAT.md demands.
#[derive(Clone)]
pub struct Parts {
    pub keys: Keys,
    pub content: Content,
    pub magic: [u8; 8],
    pub header_len: u32,
    pub sections: Vec<Section>,
    pub sections_len: Option<u32>,
    pub commitment: Option<[u8; 32]>,
    pub mac: Option<[u8; 32]>,
    pub plain: Plain,
}

impl Parts {
    /// An artifact of `content` for these key files, with an about block.
    pub fn new(number: u64, content: &Content, chunk_size: u32, to: &[&KeyFile]) -> Self {
        let keys = Keys::new(number, chunk_size);
        let mut sections: Vec<_> = (number..).zip(to).map(|(n, to)| keys.xwing(to, n)).collect();
        sections.push(keys.about(&content.about_padded(), [number.to_le_bytes()[0] ^ 0x5A; 32]));
        Self {
            keys,
            content: content.clone(),
            magic: *b"\x89mvault\n",
            header_len: 4096,
            sections,
            sections_len: None,
            commitment: None,
            mac: None,
            plain: content.plain(),
        }
    }

    pub fn payload(&self) -> Vec<u8> {
        self.keys.payload(&self.plain.bytes())
    }

    /// The signature a publisher would make of the parts as they are now.
    pub fn signature(&self, key: &SigningKey) -> Section {
        let payload = self.payload();
        let identity = self.keys.identity(&self.content.name, self.content.version);
        self.keys.signature(key, identity, payload.len() as u64, self.keys.payload_digest(&payload))
    }

    /// Puts a section in its place.
    pub fn add(&mut self, section: Section) {
        let order = |kind: u16| if kind & 0x7FFF < 0x100 { 0 } else { kind & 0x7FFF };
        let at = self.sections.partition_point(|(kind, _)| order(*kind) <= order(section.0));
        self.sections.insert(at, section);
    }

    /// The sections' bytes.
    pub fn encoded_sections(&self) -> Vec<u8> {
        let mut sections = Vec::new();
        for (kind, body) in &self.sections {
            sections.extend(kind.to_be_bytes());
            sections.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            sections.extend(body);
        }
        sections
    }

    pub fn header(&self) -> Vec<u8> {
        self.header_of(&self.encoded_sections())
    }

    /// What the MAC is made over.
    pub fn authenticated(&self) -> Vec<u8> {
        let mut header = self.header();
        header.truncate(88 + self.encoded_sections().len());
        header
    }

    /// A header whose sections are these bytes.
    pub fn header_of(&self, sections: &[u8]) -> Vec<u8> {
        let sections_len = self.sections_len.unwrap_or(u32::try_from(sections.len()).unwrap());
        let words = [self.keys.version, self.header_len, self.keys.chunk_size, sections_len];
        let commitment = self.commitment.unwrap_or_else(|| self.keys.commitment());
        let words = words.map(u32::to_be_bytes).concat();
        let mut header = [&self.magic[..], &words, &self.keys.salt, &commitment, sections].concat();
        let mac = self.mac.unwrap_or_else(|| self.keys.mac(&header));
        header.extend(mac);
        header.resize(header.len().max(self.header_len as usize), 0);
        header
    }

    pub fn build(&self) -> Vec<u8> {
        [self.header(), self.payload()].concat()
    }
}
