//! Inferences a second of a running enclave, over one attested connection: `enclave_load HOST:PORT POLICY ROOT.PEM N`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a report is all this program makes

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use vault_attest::nitro::Roots;
use vault_attest::policy::Policy;
use vault_enclave::Tcp;
use vault_enclave::attested::{Attested, Wanted};

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [address, policy, root, count] = args.as_slice() else { panic!("enclave_load HOST:PORT POLICY ROOT.PEM N") };
    let policy = Policy::parse(&std::fs::read(policy).unwrap()).unwrap();
    let root = CertificateDer::from_pem_slice(&std::fs::read(root).unwrap()).unwrap();
    let roots = Roots::aws().dangerous_with(&root);
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).unwrap();
    let wanted = Wanted { policy: &policy, roots: &roots, name: None, minimum_version: 0 };
    let began = Instant::now();
    let attested = Attested::connect(Arc::new(Tcp(address.clone())), &wanted, nonce, now_ms).unwrap();
    println!("inside: TLS and attestation of a new connection {} ms", began.elapsed().as_millis());
    let ask = || {
        let body = br#"{"input":"This is an example sentence"}"#;
        let (status, answer) = attested.request("/v1/embeddings", Some(body), None).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    };
    ask(); // warm
    let (began, count): (_, u32) = (Instant::now(), count.parse().unwrap());
    (0..count).for_each(|_| ask());
    println!("inside: {:.2} inferences/s", f64::from(count) / began.elapsed().as_secs_f64());
}
