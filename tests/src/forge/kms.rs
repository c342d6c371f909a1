//! KMS's answers to attested machines, made by hand so that any part of them can be another: CMS EnvelopedData in AWS's
//! form and in LocalStack's.

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

pub const DATA: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 1];
pub const ENVELOPED_DATA: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 3];
pub const RSAES_OAEP: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 7];
pub const MGF1: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 8];
pub const P_SPECIFIED: &[u8] = &[0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 9];
pub const SHA_256: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
pub const AES_256_CBC: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];
pub const NULL: &[u8] = &[5, 0];

/// Tag, definite length in its shortest form, value.
pub fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let len = value.len().to_be_bytes();
    let len = &len[len.iter().take_while(|b| **b == 0).count()..];
    let head = match (len, value.len()) {
        (_, 0..128) => vec![u8::try_from(value.len()).unwrap()],
        (len, _) => [&[0x80 | u8::try_from(len.len()).unwrap()], len].concat(),
    };
    [&[tag], &head[..], value].concat()
}

/// Tag, indefinite length, value, end.
pub fn indefinite(tag: u8, value: &[u8]) -> Vec<u8> {
    [&[tag, 0x80], value, &[0, 0]].concat()
}

/// A sequence.
pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// RSAES-OAEP-params with these fields, each an AlgorithmIdentifier or empty for absent.
pub fn oaep(hash: &[u8], mask: &[u8], label: &[u8]) -> Vec<u8> {
    let field = |tag, value: &[u8]| if value.is_empty() { vec![] } else { tlv(tag, value) };
    seq(&[&field(0xA0, hash), &field(0xA1, mask), &field(0xA2, label)])
}

/// The parts of an answer, each encoded as it stands.
#[derive(Clone)]
pub struct Answer {
    /// BER with indefinite lengths; else DER.
    pub indefinite: bool,
    pub content_type: Vec<u8>,
    pub version: u8,
    pub originator: Vec<u8>,
    pub recipients: Vec<Recipient>,
    pub inner_type: Vec<u8>,
    pub content_encryption: Vec<u8>,
    pub content: Vec<u8>,
    pub attributes: Vec<u8>,
}

/// A KeyTransRecipientInfo.
#[derive(Clone)]
pub struct Recipient {
    pub tag: u8,
    pub version: u8,
    pub rid: Vec<u8>,
    pub algorithm: Vec<u8>,
    pub key: Vec<u8>,
}

impl Answer {
    /// As AWS answers: indefinite lengths, version 2, content constructed.
    pub fn aws(public_key: &[u8], plaintext: &[u8]) -> Self {
        let sealed = Sealed::new(public_key, &[7; 32], plaintext);
        let hash = seq(&[SHA_256, NULL]);
        Self {
            indefinite: true,
            content_type: ENVELOPED_DATA.into(),
            version: 2,
            originator: vec![],
            recipients: vec![Recipient {
                tag: 0x30,
                version: 2,
                rid: tlv(0x80, &[9; 32]),
                algorithm: seq(&[RSAES_OAEP, &oaep(&hash, &seq(&[MGF1, &hash]), &[])]),
                key: tlv(4, &sealed.key),
            }],
            inner_type: DATA.into(),
            content_encryption: seq(&[AES_256_CBC, &tlv(4, &sealed.iv)]),
            content: indefinite(0xA0, &tlv(4, &sealed.content)),
            attributes: vec![],
        }
    }

    /// As LocalStack answers: DER, version 0, content primitive.
    pub fn localstack(public_key: &[u8], plaintext: &[u8]) -> Self {
        let sealed = Sealed::new(public_key, &[7; 32], plaintext);
        let mut answer = Self::aws(public_key, plaintext);
        let name = seq(&[&tlv(0x31, &seq(&[&[6, 3, 0x55, 4, 3], &tlv(0x0C, b"recipient")]))]);
        answer.recipients[0] = Recipient {
            version: 0,
            rid: seq(&[&name, &[2, 1, 1]]),
            key: tlv(4, &sealed.key),
            ..answer.recipients[0].clone()
        };
        let content_encryption = seq(&[AES_256_CBC, &tlv(4, &sealed.iv)]);
        Self { indefinite: false, version: 0, content_encryption, content: tlv(0x80, &sealed.content), ..answer }
    }

    pub fn encode(&self) -> Vec<u8> {
        let constructed = |tag, parts: &[&[u8]]| {
            if self.indefinite { indefinite(tag, &parts.concat()) } else { tlv(tag, &parts.concat()) }
        };
        let recipients: Vec<u8> = self.recipients.iter().flat_map(Recipient::encode).collect();
        let content = constructed(0x30, &[&self.inner_type, &self.content_encryption, &self.content]);
        let version = [2, 1, self.version];
        let parts = [&version[..], &self.originator, &tlv(0x31, &recipients), &content, &self.attributes];
        let data = constructed(0x30, &parts);
        constructed(0x30, &[&self.content_type, &constructed(0xA0, &[&data])])
    }
}

impl Recipient {
    fn encode(&self) -> Vec<u8> {
        tlv(self.tag, &[&[2, 1, self.version], &self.rid[..], &self.algorithm, &self.key].concat())
    }
}

/// A plaintext under AES-256-CBC, and its key under RSA-OAEP.
pub struct Sealed {
    pub key: Vec<u8>,
    pub iv: [u8; 16],
    pub content: Vec<u8>,
}

impl Sealed {
    /// With a content key of any length up to 32 bytes, filled up with zeros for the encryption itself.
    pub fn new(public_key: &[u8], content_key: &[u8], plaintext: &[u8]) -> Self {
        let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(public_key).unwrap()).unwrap();
        let mut key = vec![0; public.ciphertext_size()];
        public.encrypt(&OAEP_SHA256_MGF1SHA256, content_key, &mut key, None).unwrap();
        let (iv, mut aes) = ([5; 16], [0; 32]);
        aes[..content_key.len()].copy_from_slice(content_key);
        let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &aes).unwrap()).unwrap();
        let mut content = plaintext.to_vec();
        cipher.less_safe_encrypt(&mut content, EncryptionContext::Iv128((&iv).into())).unwrap();
        Self { key, iv, content }
    }
}
