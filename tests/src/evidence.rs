//! Nitro evidence under a test root, made from KEY_RELEASE.md section 2 with other libraries than the verifier's
//! (`rcgen`, `coset`), and with every part open to change; what is changed is signed again.
//!
//! Good evidence: `Evidence::at(now_s).with_nonce(&nonce).sign(&root.chain(now_s))`, judged with `root.roots()`.
//! A chain is good for three hours and signs any number of documents. Defects: [`Links`] for certificates,
//! [`Evidence::fields`] and [`Chain::sign_payload`] for the payload, [`Envelope`] for the rest.

pub mod chain;
pub mod der;

pub use chain::{Chain, INSTANCE, LEAF, Link, Links, REGIONAL, ROOT, TestRoot, ZONAL};

use coset::cbor::value::Value;
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, iana};
use std::collections::BTreeMap;

/// 2026-11-01T00:00:00Z: a time to make evidence at.
pub const NOW_S: u64 = 1_793_491_200;

/// What an enclave asks to be signed, and what the hardware adds.
#[derive(Clone)]
pub struct Evidence {
    pub module_id: String,
    pub digest: String,
    pub time_ms: u64,
    pub pcrs: BTreeMap<u64, Vec<u8>>,
    pub public_key: Option<Vec<u8>>,
    pub user_data: Option<Vec<u8>>,
    pub nonce: Option<Vec<u8>>,
}

impl Evidence {
    /// PCRs 0 to 15 as the hardware has them: 0 to 4 are [`Evidence::pcr`], the others zeros.
    pub fn at(time_s: u64) -> Self {
        let zero = |index| if index < 5 { Self::pcr(index) } else { [0; 48] };
        Self {
            module_id: "i-0123456789abcdef0-enc0123456789abcdef".into(),
            digest: "SHA384".into(),
            time_ms: time_s * 1000 + 7,
            pcrs: (0..16).map(|index| (u64::from(index), zero(index).to_vec())).collect(),
            public_key: None,
            user_data: None,
            nonce: None,
        }
    }

    /// PCR 0 to 4 of good evidence: `a0a0…` to `a4a4…`.
    pub fn pcr(index: u8) -> [u8; 48] {
        [0xA0 | index; 48]
    }

    #[must_use]
    pub fn with_pcr(mut self, index: u64, value: &[u8]) -> Self {
        self.pcrs.insert(index, value.to_vec());
        self
    }

    #[must_use]
    pub fn with_nonce(self, nonce: &[u8]) -> Self {
        Self { nonce: Some(nonce.to_vec()), ..self }
    }

    #[must_use]
    pub fn with_user_data(self, data: &[u8]) -> Self {
        Self { user_data: Some(data.to_vec()), ..self }
    }

    #[must_use]
    pub fn with_public_key(self, key: &[u8]) -> Self {
        Self { public_key: Some(key.to_vec()), ..self }
    }

    /// As an enclave in debug mode has it.
    #[must_use]
    pub fn debug(self) -> Self {
        (0..3).fold(self, |evidence, index| evidence.with_pcr(index, &[0; 48]))
    }

    /// The payload's pairs in the hardware's order.
    pub fn fields(&self, chain: &Chain) -> Vec<(Value, Value)> {
        let or_null = |data: &Option<Vec<u8>>| data.clone().map_or(Value::Null, Value::Bytes);
        let pcrs = self.pcrs.iter().map(|(&index, pcr)| (Value::from(index), Value::Bytes(pcr.clone())));
        let bundle = chain.bundle().iter().map(|der| Value::Bytes(der.clone()));
        let fields = [
            ("module_id", Value::from(self.module_id.as_str())),
            ("digest", Value::from(self.digest.as_str())),
            ("timestamp", Value::from(self.time_ms)),
            ("pcrs", Value::Map(pcrs.collect())),
            ("certificate", Value::Bytes(chain.leaf().to_vec())),
            ("cabundle", Value::Array(bundle.collect())),
            ("public_key", or_null(&self.public_key)),
            ("user_data", or_null(&self.user_data)),
            ("nonce", or_null(&self.nonce)),
        ];
        fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect()
    }

    /// The document.
    pub fn sign(&self, chain: &Chain) -> Vec<u8> {
        chain.sign_payload(encode(self.fields(chain)))
    }
}

/// CBOR of a map, definite, in the order given.
pub fn encode(fields: Vec<(Value, Value)>) -> Vec<u8> {
    Value::Map(fields).to_vec().unwrap()
}

impl Chain {
    /// The document around any payload bytes; signature and envelope are good.
    pub fn sign_payload(&self, payload: Vec<u8>) -> Vec<u8> {
        self.cose(payload).to_vec().unwrap()
    }

    /// The same as `coset` has it.
    pub fn cose(&self, payload: Vec<u8>) -> CoseSign1 {
        let protected = HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build();
        let unsigned = CoseSign1Builder::new().protected(protected).payload(payload);
        unsigned.create_signature(&[], |message| self.es384(message)).build()
    }
}

/// The four parts of a document as encoded CBOR items: to put others in their places.
#[derive(Clone)]
pub struct Envelope {
    pub protected: Vec<u8>,
    pub unprotected: Vec<u8>,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
}

impl Envelope {
    /// A good one around a payload.
    pub fn new(chain: &Chain, payload: Vec<u8>) -> Self {
        let good = chain.cose(payload.clone());
        Self {
            protected: bytes(&[0xA1, 0x01, 0x38, 0x22]),
            unprotected: vec![0xA0],
            payload: bytes(&payload),
            signature: bytes(&good.signature),
        }
    }

    /// Another protected header, signed over as RFC 9052 4.4 says.
    #[must_use]
    pub fn with_protected(mut self, chain: &Chain, header: &[u8]) -> Self {
        self.protected = bytes(header);
        let head = [0x84, 0x6A].iter().chain(b"Signature1").copied();
        let structure: Vec<u8> = head.chain(self.protected.clone()).chain([0x40]).chain(self.payload.clone()).collect();
        self.signature = bytes(&chain.es384(&structure));
        self
    }

    /// The document.
    pub fn document(&self) -> Vec<u8> {
        [&[0x84][..], &self.protected, &self.unprotected, &self.payload, &self.signature].concat()
    }
}

/// A CBOR byte string.
pub fn bytes(content: &[u8]) -> Vec<u8> {
    Value::Bytes(content.to_vec()).to_vec().unwrap()
}
