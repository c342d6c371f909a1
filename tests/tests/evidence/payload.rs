//! Defects of the payload: its CBOR and its fields, V-6 to V-12. Each document is signed as it is.

use super::super::{Case, Lab};
use coset::cbor::value::Value;
use mvault_tests::evidence::{Evidence, NOW_S, bytes, der, encode};

type Fields = Vec<(Value, Value)>;

pub fn cases(lab: &Lab) -> Vec<Case> {
    [form(lab), missing(lab), fields(lab), values(lab), times(lab), pcrs(lab), sizes(lab)]
        .into_iter()
        .flatten()
        .collect()
}

fn raw(lab: &Lab, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = encode(lab.good.fields(&lab.chain));
    change(&mut payload);
    lab.chain.sign_payload(payload)
}

fn with(lab: &Lab, change: impl FnOnce(&mut Fields)) -> Vec<u8> {
    let mut fields = lab.good.fields(&lab.chain);
    change(&mut fields);
    lab.chain.sign_payload(encode(fields))
}

fn set(lab: &Lab, name: &str, value: Value) -> Vec<u8> {
    with(lab, |fields| *place(fields, name) = value)
}

fn place<'a>(fields: &'a mut Fields, name: &str) -> &'a mut Value {
    &mut fields.iter_mut().find(|(key, _)| *key == Value::from(name)).unwrap().1
}

/// The text of a field's name with its head, then these bytes.
fn item(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x60 | u8::try_from(name.len()).unwrap()], name.as_bytes(), value].concat()
}

fn form(lab: &Lab) -> Vec<Case> {
    let swap = |old: Vec<u8>, new: Vec<u8>| raw(lab, |payload| der::replace(payload, &old, &new));
    let time = (NOW_S * 1000 + 7).to_be_bytes();
    let nonce = bytes(&[7; 32]);
    let long_time = [&[0xC2, 0x49, 0][..], &time].concat();
    let huge = [0x10, 0, 0, 0, 0, 0, 0, 0];
    let claim = |head: u8| [&[head][..], &huge].concat();
    let pieces = [&[0x5F][..], &bytes(&[7; 16]), &bytes(&[7; 16]), &[0xFF]].concat();
    let text_pieces = [&[0x7F][..], &item("SHA384", &[]), &[0xFF]].concat();
    vec![
        lab.case("payload_empty", 6, lab.chain.sign_payload(Vec::new())),
        lab.case("payload_an_array", 6, lab.chain.sign_payload(vec![0x80])),
        lab.case("payload_null", 6, lab.chain.sign_payload(vec![0xF6])),
        lab.case("payload_cut", 6, raw(lab, |payload| payload.truncate(payload.len() - 1))),
        lab.case("byte_behind_the_payload_map", 6, raw(lab, |payload| payload.push(0))),
        lab.case("second_map_behind_the_payload", 6, raw(lab, |payload| payload.extend(payload.clone()))),
        lab.case("payload_head_not_shortest", 6, raw(lab, |payload| drop(payload.splice(0..1, [0xB8, 9])))),
        lab.case("payload_claims_eight_of_nine", 6, raw(lab, |payload| payload[0] = 0xA8)),
        lab.case("payload_claims_ten_of_nine", 6, raw(lab, |payload| payload[0] = 0xAA)),
        lab.case("payload_claims_2_to_60_pairs", 6, raw(lab, |payload| drop(payload.splice(0..1, claim(0xBB))))),
        lab.case("indefinite_payload_without_break", 6, raw(lab, |payload| payload[0] = 0xBF)),
        lab.case("definite_payload_with_break", 6, raw(lab, |payload| payload.push(0xFF))),
        lab.case("payload_5000_arrays_deep", 6, lab.chain.sign_payload(vec![0x81; 5000])),
        lab.case("payload_tagged", 6, raw(lab, |payload| payload.insert(0, 0xC6))),
        lab.case("timestamp_not_shortest", 6, {
            let small = Evidence { time_ms: 7, ..lab.good.clone() };
            let mut payload = encode(small.fields(&lab.chain));
            der::replace(&mut payload, &item("timestamp", &[7]), &item("timestamp", &[0x18, 7]));
            lab.chain.sign_payload(payload)
        }),
        lab.case(
            "pcr_index_not_shortest",
            6,
            swap([&[0][..], &bytes(&[0xA0; 48])].concat(), [&[0x18, 0][..], &bytes(&[0xA0; 48])].concat()),
        ),
        lab.case("pcrs_head_not_shortest", 6, swap(item("pcrs", &[0xB0]), item("pcrs", &[0xB8, 16]))),
        lab.case("nonce_length_not_shortest", 6, swap(nonce.clone(), [&[0x59, 0][..], &nonce[1..]].concat())),
        lab.case("digest_length_not_shortest", 6, swap(item("SHA384", &[]), [&[0x78, 6][..], b"SHA384"].concat())),
        lab.case("field_name_not_shortest", 6, swap(item("nonce", &[]), [&[0x78, 5][..], b"nonce"].concat())),
        lab.case("cabundle_head_not_shortest", 6, swap(item("cabundle", &[0x84]), item("cabundle", &[0x98, 4]))),
        lab.case("nonce_in_pieces", 6, swap(nonce.clone(), pieces)),
        lab.case("digest_in_pieces", 6, swap(item("SHA384", &[]), text_pieces)),
        lab.case("digest_not_utf8", 6, swap(b"SHA384".to_vec(), b"SHA38\xFF".to_vec())),
        lab.case("nonce_claims_2_to_60", 6, swap(nonce.clone(), claim(0x5B))),
        lab.case("digest_claims_2_to_60", 6, swap(item("SHA384", &[]), claim(0x7B))),
        lab.case("reserved_head", 6, swap(nonce.clone(), vec![0x5C])),
        lab.case("pcrs_claim_2_to_60", 7, swap(item("pcrs", &[0xB0]), item("pcrs", &claim(0xBB)))),
        lab.case("cabundle_claims_2_to_60", 7, swap(item("cabundle", &[0x84]), item("cabundle", &claim(0x9B)))),
        lab.case("nonce_5000_arrays_deep", 7, swap(nonce.clone(), vec![0x81; 5000])),
        lab.case("nonce_5000_maps_deep", 7, swap(nonce.clone(), [0xA1, 0x00].repeat(2500))),
        lab.case("cabundle_5000_arrays_deep", 7, swap(item("cabundle", &[0x84]), item("cabundle", &[0x81; 5000]))),
        lab.case("nonce_5000_tags_deep", 7, swap(nonce.clone(), vec![0xC1; 5000])),
        lab.case("nonce_tagged", 7, swap(nonce.clone(), [&[0xC2][..], &nonce].concat())),
        lab.case("timestamp_a_bignum", 7, swap([&[0x1B][..], &time].concat(), long_time)),
        lab.case("nonce_undefined", 7, swap(nonce, vec![0xF7])),
    ]
}

fn missing(lab: &Lab) -> Vec<Case> {
    let without = |name: &str| with(lab, |fields| fields.retain(|(key, _)| *key != Value::from(name)));
    vec![
        lab.case("module_id_missing", 7, without("module_id")),
        lab.case("digest_missing", 7, without("digest")),
        lab.case("timestamp_missing", 7, without("timestamp")),
        lab.case("pcrs_missing", 7, without("pcrs")),
        lab.case("certificate_missing", 7, without("certificate")),
        lab.case("cabundle_missing", 7, without("cabundle")),
        lab.case("public_key_missing", 7, without("public_key")),
        lab.case("user_data_missing", 7, without("user_data")),
        lab.case("nonce_missing", 7, without("nonce")),
        lab.case("all_fields_missing", 7, lab.chain.sign_payload(vec![0xA0])),
    ]
}

fn fields(lab: &Lab) -> Vec<Case> {
    let add = |name: Value, value: Value| with(lab, |fields| fields.push((name, value)));
    let again = |name: &str| {
        with(lab, |fields| {
            let value = place(fields, name).clone();
            fields.push((Value::from(name), value));
        })
    };
    let rename = |old: &str, new: Value| {
        with(lab, |fields| fields.iter_mut().filter(|f| f.0 == Value::from(old)).for_each(|f| f.0 = new.clone()))
    };
    vec![
        lab.case("unknown_field", 7, add(Value::from("extra"), Value::Null)),
        lab.case("field_with_integer_name", 7, add(Value::from(1), Value::Null)),
        lab.case("nonce_named_in_bytes", 7, rename("nonce", Value::Bytes(b"nonce".to_vec()))),
        lab.case("nonce_in_capitals", 7, rename("nonce", Value::from("Nonce"))),
        lab.case("nonce_with_a_blank", 7, rename("nonce", Value::from("nonce "))),
        lab.case("module_id_twice", 7, again("module_id")),
        lab.case("digest_twice", 7, again("digest")),
        lab.case("timestamp_twice", 7, again("timestamp")),
        lab.case("pcrs_twice", 7, again("pcrs")),
        lab.case("certificate_twice", 7, again("certificate")),
        lab.case("cabundle_twice", 7, again("cabundle")),
        lab.case("user_data_twice", 7, again("user_data")),
        lab.case("nonce_twice_with_another_value", 7, add(Value::from("nonce"), Value::Bytes(vec![1]))),
        lab.case("nonce_twice_with_null", 7, add(Value::from("nonce"), Value::Null)),
    ]
}

fn values(lab: &Lab) -> Vec<Case> {
    let case = |name, field: &str, value| lab.case(name, 7, set(lab, field, value));
    let text = || Value::from("text");
    let some_bytes = || Value::Bytes(vec![1]);
    let pcr = |index: Value, value: Value| Value::Map(vec![(index, value)]);
    vec![
        case("module_id_in_bytes", "module_id", some_bytes()),
        case("module_id_null", "module_id", Value::Null),
        case("module_id_empty", "module_id", Value::from("")),
        case("module_id_too_long", "module_id", Value::from("m".repeat(256))),
        case("module_id_with_escape", "module_id", Value::from("i-0\u{1b}[2J")),
        case("module_id_not_ascii", "module_id", Value::from("i-0\u{202e}")),
        case("digest_in_bytes", "digest", Value::Bytes(b"SHA384".to_vec())),
        case("timestamp_in_text", "timestamp", Value::from("1793491200007")),
        case("timestamp_negative", "timestamp", Value::from(-1)),
        case("timestamp_a_float", "timestamp", Value::Float(1_793_491_200_007.0)),
        case("timestamp_null", "timestamp", Value::Null),
        case("pcrs_an_array", "pcrs", Value::Array(vec![Value::Bytes(vec![1; 48])])),
        case("pcrs_null", "pcrs", Value::Null),
        case("pcr_in_text", "pcrs", pcr(Value::from(0), Value::from("a".repeat(48)))),
        case("pcr_null", "pcrs", pcr(Value::from(0), Value::Null)),
        case("pcr_index_in_text", "pcrs", pcr(Value::from("0"), Value::Bytes(vec![1; 48]))),
        case("pcr_index_negative", "pcrs", pcr(Value::from(-1), Value::Bytes(vec![1; 48]))),
        case("certificate_in_text", "certificate", text()),
        case("certificate_null", "certificate", Value::Null),
        case("cabundle_null", "cabundle", Value::Null),
        case("cabundle_in_bytes", "cabundle", some_bytes()),
        case("cabundle_member_in_text", "cabundle", Value::Array(vec![text()])),
        case("cabundle_member_null", "cabundle", Value::Array(vec![Value::Null])),
        case("public_key_in_text", "public_key", text()),
        case("user_data_in_text", "user_data", text()),
        case("user_data_an_array", "user_data", Value::Array(vec![Value::from(1)])),
        case("nonce_in_text", "nonce", text()),
        case("nonce_false", "nonce", Value::Bool(false)),
        case("nonce_an_integer", "nonce", Value::from(7)),
    ]
}

fn times(lab: &Lab) -> Vec<Case> {
    let at = |time_ms: u64| Evidence { time_ms, ..lab.good.clone() }.sign(&lab.chain);
    let digest = |text: &str| Evidence { digest: text.into(), ..lab.good.clone() }.sign(&lab.chain);
    vec![
        lab.case("digest_sha256", 8, digest("SHA256")),
        lab.case("digest_sha512", 8, digest("SHA512")),
        lab.case("digest_in_small_letters", 8, digest("sha384")),
        lab.case("digest_empty", 8, digest("")),
        lab.case("digest_longer", 8, digest("SHA384 ")),
        lab.case("timestamp_zero", 9, at(0)),
        lab.case("timestamp_in_seconds", 9, at(NOW_S)),
        lab.case("timestamp_before_the_root", 9, at(1_572_269_284_999)),
        lab.case("timestamp_in_2100", 9, at(4_102_444_800_000)),
        lab.case("timestamp_in_2101", 9, at(4_133_980_800_000)),
        lab.case("timestamp_all_ones", 9, at(u64::MAX)),
        lab.case("timestamp_301_s_ahead", 9, at((NOW_S + 301) * 1000)),
    ]
}

fn pcrs(lab: &Lab) -> Vec<Case> {
    let case = |name, index, value: &[u8]| lab.case(name, 10, lab.good.clone().with_pcr(index, value).sign(&lab.chain));
    let without = |name, index| {
        let mut evidence = lab.good.clone();
        evidence.pcrs.remove(&index);
        lab.case(name, 10, evidence.sign(&lab.chain))
    };
    let twice = |second: [u8; 48]| {
        with(lab, |fields| {
            if let Value::Map(pcrs) = place(fields, "pcrs") {
                pcrs.push((Value::from(0), Value::Bytes(second.to_vec())));
            }
        })
    };
    vec![
        case("pcr_of_32_bytes", 0, &[1; 32]),
        case("pcr_of_64_bytes", 0, &[1; 64]),
        case("pcr_of_47_bytes", 2, &[1; 47]),
        case("pcr_empty", 1, &[]),
        case("pcr_15_of_32_bytes", 15, &[0; 32]),
        case("pcr_index_32", 32, &[1; 48]),
        case("pcr_index_256", 256, &[1; 48]),
        case("pcr_index_2_to_32", 1 << 32, &[1; 48]),
        case("pcr_index_all_ones", u64::MAX, &[1; 48]),
        without("pcr0_missing", 0),
        without("pcr1_missing", 1),
        without("pcr2_missing", 2),
        lab.case("no_pcrs", 10, set(lab, "pcrs", Value::Map(Vec::new()))),
        lab.case("pcr0_twice_the_same", 10, twice([0xA0; 48])),
        lab.case("pcr0_twice_with_another_value", 10, twice([0xBB; 48])),
    ]
}

fn sizes(lab: &Lab) -> Vec<Case> {
    let case = |name, step, field: &str, value| lab.case(name, step, set(lab, field, value));
    let bundle = |members: Vec<Vec<u8>>| Value::Array(members.into_iter().map(Value::Bytes).collect());
    let root = lab.root.der().to_vec();
    let good = lab.chain.bundle();
    let last = |member: Vec<u8>| bundle([&good[..3], &[member]].concat());
    vec![
        case("leaf_empty", 11, "certificate", Value::Bytes(Vec::new())),
        case("leaf_of_2049_bytes", 11, "certificate", Value::Bytes(vec![0x30; 2049])),
        case("bundle_empty", 11, "cabundle", bundle(Vec::new())),
        case("bundle_of_nine", 11, "cabundle", bundle([vec![root; 5], good.to_vec()].concat())),
        case("bundle_of_4000_empty_members", 11, "cabundle", bundle(vec![Vec::new(); 4000])),
        case("bundle_member_empty", 11, "cabundle", last(Vec::new())),
        case("bundle_member_of_2049_bytes", 11, "cabundle", last(vec![0x30; 2049])),
        case("public_key_of_1025_bytes", 12, "public_key", Value::Bytes(vec![0; 1025])),
        case("user_data_of_1025_bytes", 12, "user_data", Value::Bytes(vec![0; 1025])),
        case("nonce_of_1025_bytes", 12, "nonce", Value::Bytes(vec![0; 1025])),
    ]
}
