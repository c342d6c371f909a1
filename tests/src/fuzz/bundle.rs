//! Model signatures of any bytes: a bundle, a statement behind a good signature, a certificate in a chain.

use crate::evidence::NOW_S;
use crate::publisher::{Forged, Issued, authority, new_key, signer, statement};
use rcgen::KeyPair;
use vault_core::manifest::check_path;
use vault_core::model_signature::{Bundle, MAX_RESOURCES, ONE_FILE, Roots, Trust, Verified};
use vault_core::signature::PublisherPublicKey;

/// Whom the fuzzer's bundles are judged by.
pub struct BundleBase {
    key: KeyPair,
    keys: [PublisherPublicKey; 1],
    leaf: Issued,
    roots: Roots,
}

impl Default for BundleBase {
    fn default() -> Self {
        let key = new_key();
        let keys = [PublisherPublicKey::from_pem(&key.public_key_pem().replace("\r\n", "\n")).unwrap()];
        let root = Issued::root(authority("root", NOW_S));
        let leaf = root.issue(signer("publisher", NOW_S));
        let roots = Roots::from_pem(root.pem().as_bytes()).unwrap();
        Self { key, keys, leaf, roots }
    }
}

impl BundleBase {
    /// The first byte says what the others are.
    pub fn check(&self, data: &[u8]) {
        let Some((how, bytes)) = data.split_first() else { return };
        match how % 4 {
            0 => self.check_bundle(bytes),
            1 => self.check_statement(bytes),
            2 => self.check_chain(&[bytes]),
            _ => self.check_chain(&[&self.leaf.der, bytes]),
        }
    }

    /// Nobody signed it.
    fn check_bundle(&self, bytes: &[u8]) {
        let Ok(bundle) = Bundle::parse(bytes) else { return };
        assert!(bundle.verify(&Trust::Keys(&self.keys)).is_err());
        assert!(bundle.verify(&self.by_roots()).is_err());
        let _ = bundle.unverified_content();
    }

    /// Whatever is signed, paths stay inside the folder and files have one digest.
    fn check_statement(&self, bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let bundle = Bundle::parse(Forged::by_key(text, &self.key).text().as_bytes());
        let Ok(bundle) = bundle else { panic!("a good bundle") };
        let Ok(verified) = bundle.verify(&Trust::Keys(&self.keys)) else { return };
        Self::check_content(&verified);
    }

    fn check_content(verified: &Verified) {
        let content = verified.content();
        let files = content.files();
        assert!((1..=MAX_RESOURCES).contains(&files.len()));
        assert!(content.is_one_file() || files.iter().all(|(path, _)| path != ONE_FILE && check_path(path).is_ok()));
        assert!(content.ignored().iter().all(|path| check_path(path).is_ok()));
        assert_eq!(content.differences(files), []);
    }

    /// The leaf's key signed; certificates are the fuzzer's.
    fn check_chain(&self, chain: &[&[u8]]) {
        let forged = Forged::by_certificates(&statement(&[(".", [1; 32])]), &self.leaf.key, chain);
        let Ok(bundle) = Bundle::parse(forged.text().as_bytes()) else { return };
        let verified = bundle.verify(&self.by_roots());
        let ours = chain.first() == Some(&self.leaf.der.as_slice());
        assert!(verified.is_err() || ours, "a certificate that the root did not sign");
        let _ = bundle.verify(&Trust::Keys(&self.keys));
    }

    fn by_roots(&self) -> Trust<'_> {
        Trust::Roots { roots: &self.roots, time_s: NOW_S }
    }
}
