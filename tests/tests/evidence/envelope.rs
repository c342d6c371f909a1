//! Defects of the document as a whole, its COSE envelope and its signature: V-1 to V-5, V-22 and V-23.

use super::super::{Case, Lab};
use coset::TaggedCborSerializable;
use mvault_tests::evidence::{Envelope, bytes, encode};

const ES384: [u8; 4] = [0xA1, 0x01, 0x38, 0x22];
/// The order of P-384.
const ORDER: [u8; 48] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xC7, 0x63, 0x4D, 0x81, 0xF4, 0x37, 0x2D, 0xDF, 0x58, 0x1A, 0x0D, 0xB2, 0x48, 0xB0,
    0xA7, 0x7A, 0xEC, 0xEC, 0x19, 0x6A, 0xCC, 0xC5, 0x29, 0x73,
];

pub fn cases(lab: &Lab) -> Vec<Case> {
    [whole(lab), headers(lab), signature_forms(lab), signatures(lab), debug(lab)].into_iter().flatten().collect()
}

fn good(lab: &Lab) -> Envelope {
    Envelope::new(&lab.chain, &encode(lab.good.fields(&lab.chain)))
}

fn with(lab: &Lab, change: impl FnOnce(&mut Envelope)) -> Vec<u8> {
    let mut envelope = good(lab);
    change(&mut envelope);
    envelope.document()
}

fn whole(lab: &Lab) -> Vec<Case> {
    let document = good(lab).document();
    let body = &document[1..];
    let payload = encode(lab.good.fields(&lab.chain));
    let tagged = lab.chain.cose(payload.clone()).to_tagged_vec().unwrap();
    let halves = |text: &[u8]| [&[0x5F][..], &bytes(&text[..9]), &bytes(&text[9..]), &[0xFF]].concat();
    let longer = |more: usize| [&document[..], &vec![0; more]].concat();
    vec![
        lab.case("empty_document", 1, Vec::new()),
        lab.case("document_too_long", 1, longer(16 * 1024 + 1 - document.len())),
        lab.case("trailing_byte", 2, longer(1)),
        lab.case("trailing_bytes_up_to_the_limit", 2, longer(16 * 1024 - document.len())),
        lab.case("second_document_behind", 2, document.repeat(2)),
        lab.case("cut_by_a_byte", 2, document[..document.len() - 1].to_vec()),
        lab.case("tagged_cose_sign1", 2, tagged.clone()),
        lab.case("tagged_twice", 2, [&[0xD2][..], &tagged].concat()),
        lab.case("tagged_cwt", 2, [&[0xD8, 0x3D][..], &tagged].concat()),
        lab.case("array_of_three", 2, [&[0x83][..], body].concat()),
        lab.case("array_of_five", 2, [&[0x85][..], body, &[0xF6]].concat()),
        lab.case("indefinite_array", 2, [&[0x9F][..], body, &[0xFF]].concat()),
        lab.case("array_head_not_shortest", 2, [&[0x98, 0x04][..], body].concat()),
        lab.case("map_for_array", 2, [&[0xA2][..], body].concat()),
        lab.case("wrapped_in_a_byte_string", 2, bytes(&document)),
        lab.case("base64_text", 2, b"hEShATgioFkQ".to_vec()),
        lab.case("protected_header_not_wrapped", 2, with(lab, |e| e.protected = ES384.to_vec())),
        lab.case("protected_header_as_text", 2, with(lab, |e| e.protected[0] |= 0x20)),
        lab.case("payload_detached", 2, with(lab, |e| e.payload = vec![0xF6])),
        lab.case("payload_not_wrapped", 2, with(lab, |e| e.payload.clone_from(&payload))),
        lab.case("payload_in_pieces", 2, with(lab, |e| e.payload = halves(&payload))),
        lab.case("payload_tagged_as_cbor", 2, with(lab, |e| drop(e.payload.splice(0..0, [0xD8, 0x18])))),
        lab.case("payload_length_not_shortest", 2, with(lab, |e| drop(e.payload.splice(0..1, [0x5A, 0, 0])))),
        lab.case("payload_claims_2_to_60", 2, with(lab, |e| e.payload = [0x5B, 0x10, 0, 0, 0, 0, 0, 0, 0].into())),
        lab.case("payload_claims_all_of_64_bits", 2, with(lab, |e| e.payload = [&[0x5B][..], &[0xFF; 8]].concat())),
        lab.case("signature_null", 2, with(lab, |e| e.signature = vec![0xF6])),
        lab.case("signature_as_text", 2, with(lab, |e| e.signature[0] |= 0x20)),
        lab.case("arrays_10000_deep", 2, vec![0x81; 10_000]),
        lab.case("arrays_of_four_10000_deep", 2, vec![0x84; 10_000]),
        lab.case("indefinite_arrays_10000_deep", 2, vec![0x9F; 10_000]),
        lab.case("tags_10000_deep", 2, vec![0xC1; 10_000]),
        lab.case("array_claims_2_to_60", 2, [0x9B, 0x10, 0, 0, 0, 0, 0, 0, 0].into()),
    ]
}

fn headers(lab: &Lab) -> Vec<Case> {
    let signed = |header: &[u8]| good(lab).with_protected(&lab.chain, header).document();
    let unprotected = |header: &[u8]| with(lab, |e| e.unprotected = header.to_vec());
    let moved = |header: &[u8]| {
        let mut envelope = good(lab).with_protected(&lab.chain, header);
        envelope.unprotected = ES384.to_vec();
        envelope.document()
    };
    let mut emulator = good(lab);
    (emulator.protected, emulator.signature) = (bytes(&[0xA1, 0x01, 0x20]), bytes(&[0; 96]));
    vec![
        lab.case("algorithm_es256", 3, signed(&[0xA1, 0x01, 0x26])),
        lab.case("algorithm_es512", 3, signed(&[0xA1, 0x01, 0x38, 0x23])),
        lab.case("algorithm_eddsa", 3, signed(&[0xA1, 0x01, 0x27])),
        lab.case("algorithm_hmac", 3, signed(&[0xA1, 0x01, 0x05])),
        lab.case("algorithm_minus_one", 3, signed(&[0xA1, 0x01, 0x20])),
        lab.case("emulator_form_with_zero_signature", 3, emulator.document()),
        lab.case("algorithm_as_text", 3, signed(&[&[0xA1, 0x01, 0x65][..], b"ES384"].concat())),
        lab.case("algorithm_missing", 3, signed(&[0xA0])),
        lab.case("protected_header_empty", 3, signed(&[])),
        lab.case("algorithm_moved_to_unprotected", 3, moved(&[])),
        lab.case("algorithm_moved_beside_empty_map", 3, moved(&[0xA0])),
        lab.case("algorithm_not_shortest", 3, signed(&[0xA1, 0x01, 0x39, 0x00, 0x22])),
        lab.case("algorithm_key_not_shortest", 3, signed(&[0xA1, 0x18, 0x01, 0x38, 0x22])),
        lab.case("protected_map_indefinite", 3, signed(&[0xBF, 0x01, 0x38, 0x22, 0xFF])),
        lab.case("protected_map_head_not_shortest", 3, signed(&[0xB8, 0x01, 0x01, 0x38, 0x22])),
        lab.case("algorithm_twice", 3, signed(&[0xA2, 0x01, 0x38, 0x22, 0x01, 0x26])),
        lab.case("critical_header", 3, signed(&[0xA2, 0x01, 0x38, 0x22, 0x02, 0x81, 0x18, 0x2A])),
        lab.case("key_id_in_protected", 3, signed(&[0xA2, 0x01, 0x38, 0x22, 0x04, 0x41, 0x31])),
        lab.case("bytes_behind_the_protected_map", 3, signed(&[0xA1, 0x01, 0x38, 0x22, 0x00])),
        lab.case("algorithm_in_both_headers", 4, unprotected(&ES384)),
        lab.case("key_id_in_unprotected", 4, unprotected(&[0xA1, 0x04, 0x41, 0x31])),
        lab.case("certificate_chain_in_unprotected", 4, unprotected(&[0xA1, 0x18, 0x21, 0x41, 0x30])),
        lab.case("unprotected_null", 4, unprotected(&[0xF6])),
        lab.case("unprotected_array", 4, unprotected(&[0x80])),
        lab.case("unprotected_indefinite", 4, unprotected(&[0xBF, 0xFF])),
        lab.case("unprotected_head_not_shortest", 4, unprotected(&[0xB8, 0x00])),
        lab.case("unprotected_claims_2_to_60", 4, unprotected(&[0xBB, 0x10, 0, 0, 0, 0, 0, 0, 0])),
        lab.case("unprotected_5000_deep", 4, unprotected(&[0x81; 5000])),
    ]
}

fn signature_forms(lab: &Lab) -> Vec<Case> {
    let form = |signature: &[u8]| with(lab, |e| e.signature = bytes(signature));
    let fixed = lab.chain.es384(b"any");
    let halves = |r: &[u8], s: &[u8]| form(&[r, s].concat());
    let (r, s) = fixed.split_at(48);
    vec![
        lab.case("signature_in_der", 5, form(&lab.chain.es384_der(b"any"))),
        lab.case("signature_empty", 5, form(&[])),
        lab.case("signature_of_95_bytes", 5, form(&fixed[..95])),
        lab.case("signature_of_97_bytes", 5, form(&[&fixed[..], &[0]].concat())),
        lab.case("signature_with_leading_zeros", 5, halves(&[&[0], r].concat(), &[&[0], s].concat())),
        lab.case("signature_as_p256", 5, form(&fixed[..64])),
        lab.case("signature_as_p521", 5, form(&[1; 132])),
        lab.case("signature_all_zero", 5, form(&[0; 96])),
        lab.case("signature_all_ones", 5, form(&[0xFF; 96])),
        lab.case("r_zero", 5, halves(&[0; 48], s)),
        lab.case("s_zero", 5, halves(r, &[0; 48])),
        lab.case("r_is_the_order", 5, halves(&ORDER, s)),
        lab.case("s_is_the_order", 5, halves(r, &ORDER)),
        lab.case("s_above_the_order", 5, halves(r, &[0xFF; 48])),
    ]
}

fn signatures(lab: &Lab) -> Vec<Case> {
    let payload = || encode(lab.good.fields(&lab.chain));
    let resigned = |message: &[u8]| with(lab, |e| e.signature = bytes(&lab.chain.es384(message)));
    let structure = |context: &str, aad: &[u8]| {
        let head = [&[0x84, 0x60 | u8::try_from(context.len()).unwrap()], context.as_bytes()].concat();
        [&head[..], &bytes(&ES384), &bytes(aad), &bytes(&payload())].concat()
    };
    let other = lab.root.chain(mvault_tests::evidence::NOW_S);
    let swapped = |e: &mut Envelope| e.signature[2..].rotate_left(48);
    let last_bit = |e: &mut Envelope| *e.signature.last_mut().unwrap() ^= 1;
    let nonce_changed = |e: &mut Envelope| *e.payload.last_mut().unwrap() ^= 1;
    let pcr_changed = |e: &mut Envelope| {
        let at = e.payload.windows(48).position(|w| w == [0xA0; 48]).unwrap();
        e.payload[at] ^= 1;
    };
    vec![
        lab.case("signature_last_bit", 22, with(lab, last_bit)),
        lab.case("signature_halves_swapped", 22, with(lab, swapped)),
        lab.case("nonce_changed_after_signing", 22, with(lab, nonce_changed)),
        lab.case("pcr0_changed_after_signing", 22, with(lab, pcr_changed)),
        lab.case(
            "signed_by_another_leaf",
            22,
            with(lab, |e| e.signature = Envelope::new(&other, &payload()).signature),
        ),
        lab.case("signed_payload_alone", 22, resigned(&payload())),
        lab.case("signed_as_cose_sign", 22, resigned(&structure("Signature", &[]))),
        lab.case("signed_with_external_data", 22, resigned(&structure("Signature1", &[1]))),
        lab.case("signature_of_another_document", 22, resigned(b"another")),
    ]
}

fn debug(lab: &Lab) -> Vec<Case> {
    let zeros = |index| lab.good.clone().with_pcr(index, &[0; 48]).sign(&lab.chain);
    vec![
        lab.case("debug_mode", 23, lab.good.clone().debug().sign(&lab.chain)),
        lab.case("pcr0_zero", 23, zeros(0)),
        lab.case("pcr1_zero", 23, zeros(1)),
        lab.case("pcr2_zero", 23, zeros(2)),
    ]
}
