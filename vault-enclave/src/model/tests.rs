use super::*;

fn statement() -> Statement {
    let (artifact, payload, signer) = ([0x0A; 32], [0xB0; 32], [0xCC; 32]);
    Statement { name: "mini lm=1".into(), version: 7, artifact, payload, signer }
}

#[test]
fn a_statement_has_one_form() {
    let text = statement().text();
    assert_eq!(Statement::parse(&text), Some(statement()));
    let cases: [(&str, &str); 7] = [
        ("version=7", "version=07"),
        ("version=7", "version=+7"),
        ("0a0a", "0A0A"),
        ("v1\n", "v2\n"),
        ("\nsigner", "\n\nsigner"),
        ("cccc\n", "cccc\nmore=1\n"),
        ("name=", "nane="),
    ];
    for (from, to) in cases {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert_eq!(Statement::parse(&changed), None, "{changed}");
    }
    assert_eq!(Statement::parse(text.trim_end()), None);
}

/// A name cannot pass for another statement's lines: control characters are refused in the configuration.
#[test]
fn pcr16_is_the_extension_of_zeros_by_the_texts_digest() {
    let text = b"mvault/enclave/model/v1\nname=mini lm=1\nversion=7\nartifact=";
    assert!(statement().text().as_bytes().starts_with(text));
    let extended = Sha384::digest([&[0; 48][..], &Sha384::digest(statement().text())[..]].concat());
    assert_eq!(statement().pcr16()[..], extended[..]);
}

#[test]
fn bindings_differ_by_nonce_and_key() {
    assert_ne!(tls_binding(&[1; 32], b"k"), tls_binding(&[2; 32], b"k"));
    assert_ne!(tls_binding(&[1; 32], b"k"), tls_binding(&[1; 32], b"l"));
}
