//! As much DER as it takes to change a certificate and sign it again.

use base64ct::{Base64, Encoding};
use rcgen::{KeyPair, SigningKey};

/// A tag and its content.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    match len {
        0..=0x7F => out.push(u8::try_from(len).unwrap()),
        0x80..=0xFF => out.extend([0x81, u8::try_from(len).unwrap()]),
        _ => out.extend([0x82, u8::try_from(len >> 8).unwrap(), u8::try_from(len & 0xFF).unwrap()]),
    }
    out.extend(content);
    out
}

/// Head and content of the first item, and what follows it.
pub fn split(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (len, head) = match der[1] {
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        short => (usize::from(short), 2),
    };
    (der[0], &der[head..head + len], &der[head + len..])
}

/// The three parts of a certificate, whole: what is signed, the algorithm, the signature.
pub fn parts(certificate: &[u8]) -> [Vec<u8>; 3] {
    let (_, mut rest, _) = split(certificate);
    [0; 3].map(|_| {
        let (_, _, after) = split(rest);
        let part = rest[..rest.len() - after.len()].to_vec();
        rest = after;
        part
    })
}

/// The items in the content of the signed part, whole.
pub fn items(content: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut out) = (content, Vec::new());
    while !rest.is_empty() {
        let (_, _, after) = split(rest);
        out.push(rest[..rest.len() - after.len()].to_vec());
        rest = after;
    }
    out
}

/// Changes the content of the signed part and signs it.
pub fn sign_again(certificate: &[u8], edit: &dyn Fn(&mut Vec<u8>), signer: &KeyPair) -> Vec<u8> {
    let [signed, algorithm, _] = parts(certificate);
    let mut content = split(&signed).1.to_vec();
    edit(&mut content);
    let signed = tlv(0x30, &content);
    let signature = [vec![0], signer.sign(&signed).unwrap()].concat();
    tlv(0x30, &[signed, algorithm, tlv(0x03, &signature)].concat())
}

/// Puts other bytes in the place of the first `old` (which must be there), without a look at lengths.
pub fn replace(bytes: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("the bytes to replace");
    bytes.splice(at..at + old.len(), new.iter().copied());
}

pub fn to_pem(der: &[u8]) -> String {
    let text = Base64::encode_string(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

pub fn of_pem(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    Base64::decode_vec(&lines.collect::<String>()).unwrap()
}
