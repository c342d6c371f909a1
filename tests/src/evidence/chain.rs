//! Certificates as AWS's: a root, then a regional, a zonal and an instance authority, then a leaf of three hours.

use super::der;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SerialNumber, date_time_ymd,
};
use std::time::Duration;
use vault_attest::nitro::Roots;

/// Places in [`Links`] and in [`Chain::certificates`].
pub const ROOT: usize = 0;
pub const REGIONAL: usize = 1;
pub const ZONAL: usize = 2;
pub const INSTANCE: usize = 3;
pub const LEAF: usize = 4;

const DAY: i64 = 86_400;

/// A root whose key is at hand.
pub struct TestRoot {
    key: KeyPair,
    der: Vec<u8>,
}

impl Default for TestRoot {
    fn default() -> Self {
        Self::new()
    }
}

impl TestRoot {
    /// A new one, valid from 2019 to 2049 as AWS's is.
    pub fn new() -> Self {
        let key = new_key();
        let der = root_params().self_signed(&key).unwrap().der().to_vec();
        Self { key, der }
    }

    /// One that another process made: [`TestRoot::pem`] and [`TestRoot::key_pem`].
    pub fn from_pem(certificate: &str, key: &str) -> Self {
        Self { key: KeyPair::from_pem(key).unwrap(), der: der::of_pem(certificate) }
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn pem(&self) -> String {
        der::to_pem(&self.der)
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// AWS's root and this one.
    pub fn roots(&self) -> Roots {
        Roots::aws().dangerous_with(&self.der)
    }

    /// A good chain, whose leaf is valid from 3 s before this time to 3 h after it.
    pub fn chain(&self, now_s: u64) -> Chain {
        Links::new(self, now_s).build()
    }
}

/// What one certificate will be.
pub struct Link {
    pub params: CertificateParams,
    pub key: KeyPair,
    /// The issuer's name, if not the subject of the one before.
    pub issuer_name: Option<DistinguishedName>,
    /// What signs it, if not the key of the one before.
    pub signer: Option<KeyPair>,
    /// Changes the bytes that are signed, before they are.
    pub edit_signed: Option<Box<dyn Fn(&mut Vec<u8>)>>,
    /// Changes the signed certificate.
    pub edit: Option<Box<dyn Fn(&mut Vec<u8>)>>,
}

/// A chain before it is signed, from the root to the leaf.
pub struct Links(pub Vec<Link>);

impl Links {
    pub fn new(root: &TestRoot, now_s: u64) -> Self {
        let now = i64::try_from(now_s).unwrap();
        let mut links = vec![Link::new(root_params(), KeyPair::from_pem(&root.key_pem()).unwrap())];
        let stored = root.der.clone();
        links[ROOT].edit = Some(Box::new(move |der| der.clone_from(&stored)));
        let authorities = [
            ("0123456789abcdef.test-1", Some(2), [-3 * DAY, 17 * DAY]),
            ("fedcba9876543210.zonal.test-1", Some(1), [-DAY, 5 * DAY]),
            ("i-0123456789abcdef0.test-1", Some(0), [-3600, 23 * 3600]),
        ];
        links.extend(authorities.into_iter().enumerate().map(|(i, (name, path, window))| {
            Link::new(authority(name, path, window.map(|t| now + t), u8::try_from(i + 2).unwrap()), new_key())
        }));
        links.push(Link::new(leaf([now - 3, now + 3 * 3600]), new_key()));
        Self(links)
    }

    /// Changes one certificate's parameters. A changed root is another root: pin [`Chain::roots`].
    #[must_use]
    pub fn with(mut self, place: usize, change: impl FnOnce(&mut Link)) -> Self {
        if place == ROOT {
            self.0[ROOT].edit = None;
        }
        change(&mut self.0[place]);
        self
    }

    /// Signs them all.
    pub fn build(mut self) -> Chain {
        let mut certificates = Vec::new();
        for (i, link) in self.0.iter().enumerate() {
            let before = i.checked_sub(1).map_or(link, |before| &self.0[before]);
            certificates.push(link.sign(before));
        }
        Chain { certificates, leaf_key: self.0.pop().unwrap().key.serialized_der().to_vec() }
    }
}

impl Link {
    pub fn new(params: CertificateParams, key: KeyPair) -> Self {
        Self { params, key, issuer_name: None, signer: None, edit_signed: None, edit: None }
    }

    fn sign(&self, before: &Self) -> Vec<u8> {
        let signer = self.signer.as_ref().unwrap_or(&before.key);
        let mut issuer_params = before.params.clone();
        if let Some(name) = &self.issuer_name {
            issuer_params.distinguished_name = name.clone();
        }
        let issuer = Issuer::from_params(&issuer_params, signer);
        let mut der = self.params.signed_by(&self.key, &issuer).unwrap().der().to_vec();
        if let Some(edit) = &self.edit_signed {
            der = der::sign_again(&der, edit, signer);
        }
        if let Some(edit) = &self.edit {
            edit(&mut der);
        }
        der
    }
}

/// Signed certificates and the key of the leaf.
pub struct Chain {
    /// From the root to the leaf.
    pub certificates: Vec<Vec<u8>>,
    leaf_key: Vec<u8>,
}

impl Chain {
    /// All but the leaf.
    pub fn bundle(&self) -> &[Vec<u8>] {
        self.certificates.split_last().unwrap().1
    }

    pub fn leaf(&self) -> &[u8] {
        self.certificates.last().unwrap()
    }

    /// AWS's root and the first certificate of this chain.
    pub fn roots(&self) -> Roots {
        Roots::aws().dangerous_with(&self.certificates[ROOT])
    }

    /// r and s, 48 bytes each, by the leaf's key.
    pub fn es384(&self, message: &[u8]) -> Vec<u8> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.leaf_key).unwrap();
        key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    /// The same signature form as certificates have it.
    pub fn es384_der(&self, message: &[u8]) -> Vec<u8> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&self.leaf_key.as_slice().into(), &PKCS_ECDSA_P384_SHA384);
        rcgen::SigningKey::sign(&key.unwrap(), message).unwrap()
    }
}

pub fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()
}

/// notBefore and notAfter in seconds since 1970.
pub fn set_validity(params: &mut CertificateParams, [from, to]: [i64; 2]) {
    let time = |s: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(s).unwrap());
    (params.not_before, params.not_after) = (time(from), time(to));
}

pub fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "US");
    name.push(DnType::OrganizationName, "mvault tests");
    name.push(DnType::CommonName, common);
    name
}

fn params(common: &str, window: [i64; 2], serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("{common}.test.nitro-enclaves"));
    params.serial_number = Some(SerialNumber::from(vec![serial; 16]));
    set_validity(&mut params, window);
    params
}

fn root_params() -> CertificateParams {
    authority("root", None, [1_572_269_285, 2_519_044_085], 1)
}

fn authority(common: &str, path_len: Option<u8>, window: [i64; 2], serial: u8) -> CertificateParams {
    let mut params = params(common, window, serial);
    params.is_ca = IsCa::Ca(path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(window: [i64; 2]) -> CertificateParams {
    let mut params = params("i-0123456789abcdef0-enc0123456789abcdef.test-1", window, 5);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment];
    params
}
