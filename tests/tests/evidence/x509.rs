//! Certificates that are not one strict X.509 v3 certificate of a P-384 key, V-13; and points that are none.

use super::super::{Case, Lab};
use mvault_tests::evidence::der::{items, parts, split, tlv, to_pem};
use mvault_tests::evidence::{INSTANCE, LEAF, Link, REGIONAL};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

const ECDSA_WITH_SHA256: [u8; 10] = [0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
const ECDSA_WITH_SHA384: [u8; 10] = [0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03];
const EC_PUBLIC_KEY: [u8; 9] = [0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
const EC_DH: [u8; 7] = [0x06, 0x05, 0x2B, 0x81, 0x04, 0x01, 0x0C];
const SECP384R1: [u8; 7] = [0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22];
const SECP521R1: [u8; 7] = [0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23];
/// Places in the signed part.
const VERSION: usize = 0;
const SERIAL: usize = 1;
const ALGORITHM: usize = 2;
const VALIDITY: usize = 4;
const KEY: usize = 6;
const EXTENSIONS: usize = 7;

pub fn cases(lab: &Lab) -> Vec<Case> {
    [encodings(lab), bodies(lab), algorithms(lab), keys(lab)].into_iter().flatten().collect()
}

fn with(lab: &Lab, place: usize, change: impl FnOnce(&mut Link)) -> Vec<u8> {
    lab.good.sign(&lab.links().with(place, change).build())
}

/// The leaf, changed after it was signed.
fn edited(lab: &Lab, edit: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Vec<u8> {
    with(lab, LEAF, |link| link.edit = Some(Box::new(move |der| *der = edit(der))))
}

/// One item of the signed part changed, and signed again.
fn item(lab: &Lab, place: usize, which: usize, edit: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Vec<u8> {
    with(lab, place, |link| {
        link.edit_signed = Some(Box::new(move |content| {
            let mut items = items(content);
            items[which] = edit(&items[which]);
            *content = items.concat();
        }));
    })
}

fn encodings(lab: &Lab) -> Vec<Case> {
    let case = |name, document| lab.case(name, 13, document);
    let nested = |depth| (0..depth).fold(Vec::new(), |inner: Vec<u8>, _| tlv(0x30, &inner));
    vec![
        case("leaf_not_a_certificate", edited(lab, |_| tlv(0x30, &[2, 1, 1]))),
        case("leaf_of_one_byte", edited(lab, |_| vec![0x30])),
        case("leaf_in_pem", edited(lab, |der| to_pem(der).into_bytes())),
        case("byte_behind_the_leaf", edited(lab, |der| [der, &[0]].concat())),
        case("item_behind_the_signature", edited(lab, |der| tlv(0x30, &[split(der).1, &[5, 0]].concat()))),
        case("leaf_cut", edited(lab, |der| der[..der.len() - 1].to_vec())),
        case("leaf_indefinite", edited(lab, |der| [&[0x30, 0x80], split(der).1, &[0, 0]].concat())),
        case("leaf_length_not_shortest", edited(lab, |der| [&[0x30, 0x83, 0], &der[2..]].concat())),
        case("leaf_claims_4_gib", edited(lab, |der| [&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF], split(der).1].concat())),
        case("leaf_claims_2_to_60", edited(lab, |_| vec![0x30, 0x88, 0x10, 0, 0, 0, 0, 0, 0, 0])),
        case("leaf_500_sequences_deep", edited(lab, move |_| nested(500))),
        case("leaf_indefinite_1000_deep", edited(lab, |_| [0x30, 0x80].repeat(1000))),
        case("name_250_sequences_deep", item(lab, LEAF, 5, move |_| nested(250))),
        case("byte_behind_a_bundle_member", {
            with(lab, REGIONAL, |link| link.edit = Some(Box::new(|der| der.push(0))))
        }),
    ]
}

fn bodies(lab: &Lab) -> Vec<Case> {
    let case = |name, which, edit: fn(&[u8]) -> Vec<u8>| lab.case(name, 13, item(lab, LEAF, which, edit));
    let version = |n: u8| tlv(0xA0, &[2, 1, n]);
    let explicit_false = |der: &[u8]| {
        let list = split(split(der).1).1.to_vec();
        let more = tlv(0x30, &[&[0x06, 0x03, 0x2A, 0x03, 0x04, 0x01, 0x01, 0x00, 0x04, 0x00][..]].concat());
        tlv(0xA3, &tlv(0x30, &[list, more].concat()))
    };
    let generalized = |_: &[u8]| {
        let time = |text: &[u8]| tlv(0x18, text);
        tlv(0x30, &[time(b"20261031235957Z"), time(b"20261101030000Z")].concat())
    };
    vec![
        case("version_absent", VERSION, |_| Vec::new()),
        lab.case("version_1_written_out", 13, item(lab, LEAF, VERSION, move |_| version(0))),
        lab.case("version_2", 13, item(lab, LEAF, VERSION, move |_| version(1))),
        lab.case("version_4", 13, item(lab, LEAF, VERSION, move |_| version(3))),
        case("serial_negative", SERIAL, |_| vec![2, 1, 0x80]),
        case("serial_empty", SERIAL, |_| vec![2, 0]),
        case("serial_padded", SERIAL, |_| vec![2, 2, 0, 1]),
        case("serial_of_22_bytes", SERIAL, |_| tlv(2, &[1; 22])),
        case("validity_without_seconds", VALIDITY, |_| {
            tlv(0x30, &[tlv(0x17, b"2610312359Z"), tlv(0x17, b"2611010300Z")].concat())
        }),
        case("validity_with_offset", VALIDITY, |_| {
            tlv(0x30, &[tlv(0x17, b"261031235957+0000"), tlv(0x17, b"261101030000+0000")].concat())
        }),
        case("validity_in_general_form_before_2050", VALIDITY, generalized),
        case("criticality_false_written_out", EXTENSIONS, explicit_false),
        case("extensions_not_wrapped", EXTENSIONS, |der| split(der).1.to_vec()),
    ]
}

fn algorithms(lab: &Lab) -> Vec<Case> {
    let sha256 = || tlv(0x30, &ECDSA_WITH_SHA256);
    let with_null = || tlv(0x30, &[&ECDSA_WITH_SHA384[..], &[5, 0]].concat());
    let outside = |algorithm: Vec<u8>| {
        edited(lab, move |der| {
            let [signed, _, signature] = parts(der);
            tlv(0x30, &[signed, algorithm.clone(), signature].concat())
        })
    };
    let other_key = |algorithm| with(lab, INSTANCE, |link| link.key = KeyPair::generate_for(algorithm).unwrap());
    vec![
        lab.case("sha256_inside_only", 13, item(lab, LEAF, ALGORITHM, move |_| sha256())),
        lab.case("sha256_outside_only", 13, outside(sha256())),
        lab.case("null_parameters_inside", 13, item(lab, LEAF, ALGORITHM, move |_| with_null())),
        lab.case("null_parameters_outside", 13, outside(with_null())),
        lab.case("authority_on_p256", 13, other_key(&PKCS_ECDSA_P256_SHA256)),
        lab.case("authority_on_ed25519", 13, other_key(&PKCS_ED25519)),
    ]
}

/// A SubjectPublicKeyInfo.
fn key_info(algorithm: &[u8], parameters: &[u8], point: &[u8]) -> Vec<u8> {
    let bits = [&[0], point].concat();
    tlv(0x30, &[tlv(0x30, &[algorithm, parameters].concat()), tlv(3, &bits)].concat())
}

fn point(info: &[u8]) -> Vec<u8> {
    info[info.len() - 97..].to_vec()
}

fn keys(lab: &Lab) -> Vec<Case> {
    let key = |name, edit: fn(&[u8]) -> Vec<u8>| lab.case(name, 13, item(lab, LEAF, KEY, edit));
    let off_curve = |info: &[u8]| {
        let mut point = point(info);
        point[96] ^= 1;
        key_info(&EC_PUBLIC_KEY, &SECP384R1, &point)
    };
    vec![
        key("point_compressed", |info| {
            let point = point(info);
            key_info(&EC_PUBLIC_KEY, &SECP384R1, &[&[2 | point[96] & 1], &point[1..49]].concat())
        }),
        key("point_hybrid", |info| {
            let point = point(info);
            key_info(&EC_PUBLIC_KEY, &SECP384R1, &[&[6 | point[96] & 1], &point[1..]].concat())
        }),
        key("point_at_infinity", |_| key_info(&EC_PUBLIC_KEY, &SECP384R1, &[0])),
        key("point_of_96_bytes", |info| key_info(&EC_PUBLIC_KEY, &SECP384R1, &point(info)[1..])),
        key("point_of_98_bytes", |info| key_info(&EC_PUBLIC_KEY, &SECP384R1, &[&point(info)[..], &[0]].concat())),
        key("curve_named_p521", |info| key_info(&EC_PUBLIC_KEY, &SECP521R1, &point(info))),
        key("curve_absent", |info| key_info(&EC_PUBLIC_KEY, &[], &point(info))),
        key("curve_null", |info| key_info(&EC_PUBLIC_KEY, &[5, 0], &point(info))),
        key("curve_explicit", |info| key_info(&EC_PUBLIC_KEY, &tlv(0x30, &[2, 1, 1]), &point(info))),
        key("key_for_agreement", |info| key_info(&EC_DH, &SECP384R1, &point(info))),
        key("key_bits_unused", |info| {
            let mut info = info.to_vec();
            let at = info.len() - 98;
            (info[at], info[at + 97]) = (1, info[at + 97] & 0xFE);
            info
        }),
        lab.case("authority_point_not_on_curve", 21, item(lab, INSTANCE, KEY, off_curve)),
        lab.case("leaf_point_not_on_curve", 22, item(lab, LEAF, KEY, off_curve)),
    ]
}
