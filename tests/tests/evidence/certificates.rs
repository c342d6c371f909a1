//! Defects of the path from the root to the leaf: V-14 to V-21.

use super::super::{Case, Lab};
use mvault_tests::evidence::chain::{name, new_key, set_validity};
use mvault_tests::evidence::der::{parts, split, tlv};
use mvault_tests::evidence::{Chain, Evidence, INSTANCE, LEAF, Link, NOW_S, REGIONAL, ROOT, TestRoot, ZONAL};
use rcgen::{
    BasicConstraints, CustomExtension, DistinguishedName, DnType, DnValue, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints,
};
use vault_attest::nitro::{Mode, Roots};

const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
const UNKNOWN: [u64; 4] = [1, 2, 3, 4];

pub fn cases(lab: &Lab) -> Vec<Case> {
    let families = [roots, order, authorities, path_lengths, usages, extensions, validities, signatures];
    families.iter().flat_map(|family| family(lab)).collect()
}

fn with(lab: &Lab, place: usize, change: impl FnOnce(&mut Link)) -> Vec<u8> {
    lab.good.sign(&lab.links().with(place, change).build())
}

/// A good chain whose certificates were put in another order, or others among them.
fn rearranged(lab: &Lab, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut chain = lab.links().build();
    change(&mut chain.certificates);
    lab.good.sign(&chain)
}

fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

fn roots(lab: &Lab) -> Vec<Case> {
    let case = |name, document| lab.case(name, 14, document);
    let other = TestRoot::new();
    let look_alike = other.chain(NOW_S);
    let issued_again = lab.links().with(ROOT, |_| ()).build(); // same key, name and times
    let only_aws = Case { roots: Roots::aws(), ..case("test_root_without_its_flag", lab.good.sign(&lab.chain)) };
    vec![
        only_aws,
        case("look_alike_root", lab.good.sign(&look_alike)),
        case("root_issued_again", lab.good.sign(&issued_again)),
        case("root_signature_changed", rearranged(lab, |path| *path[ROOT].last_mut().unwrap() ^= 1)),
        case("root_missing", rearranged(lab, |path| drop(path.remove(ROOT)))),
        case("bundle_reversed", rearranged(lab, |path| path[..LEAF].reverse())),
        case("root_second", rearranged(lab, |path| path.swap(ROOT, REGIONAL))),
        case("leaf_is_the_bundle", rearranged(lab, |path| *path = vec![path[LEAF].clone(), path[LEAF].clone()])),
        case("look_alike_before_the_root", rearranged(lab, |path| path.insert(0, other.der().to_vec()))),
    ]
}

fn order(lab: &Lab) -> Vec<Case> {
    let case = |name, document| lab.case(name, 15, document);
    let issuer = |issuer| with(lab, ZONAL, |link| link.issuer_name = Some(issuer));
    let common = "0123456789abcdef.test-1.test.nitro-enclaves";
    let retyped = |value: DnValue| {
        let mut name = name("");
        name.push(DnType::CommonName, value);
        name
    };
    let mut turned = DistinguishedName::new();
    turned.push(DnType::CommonName, common);
    turned.push(DnType::OrganizationName, "mvault tests");
    turned.push(DnType::CountryName, "US");
    let nameless = lab
        .links()
        .with(REGIONAL, |link| link.params.distinguished_name = DistinguishedName::new())
        .with(ZONAL, |link| link.issuer_name = Some(DistinguishedName::new()));
    vec![
        case("authorities_swapped", rearranged(lab, |path| path.swap(REGIONAL, ZONAL))),
        case("lower_authorities_swapped", rearranged(lab, |path| path.swap(ZONAL, INSTANCE))),
        case("regional_missing", rearranged(lab, |path| drop(path.remove(REGIONAL)))),
        case("instance_missing", rearranged(lab, |path| drop(path.remove(INSTANCE)))),
        case("root_alone", rearranged(lab, |path| drop(path.drain(REGIONAL..LEAF)))),
        case("instance_twice", rearranged(lab, |path| path.insert(INSTANCE, path[INSTANCE].clone()))),
        case("leaf_is_the_root", rearranged(lab, |path| path[LEAF] = path[ROOT].clone())),
        case("issuer_of_another_name", issuer(name("another.test.nitro-enclaves"))),
        case("issuer_in_capitals", issuer(name(&common.to_uppercase()))),
        case("issuer_of_another_string_type", issuer(retyped(DnValue::BmpString(common.try_into().unwrap())))),
        case("issuer_printable_for_utf8", issuer(retyped(DnValue::PrintableString(common.try_into().unwrap())))),
        case("issuer_with_a_blank_behind", issuer(name(&format!("{common} ")))),
        case("issuer_in_another_order", issuer(turned)),
        case("authority_without_a_name", lab.good.sign(&nameless.build())),
    ]
}

fn authorities(lab: &Lab) -> Vec<Case> {
    let constraints = |critical, content: &'static [u8]| {
        move |link: &mut Link| {
            link.params.is_ca = IsCa::NoCa;
            link.params.custom_extensions.push(extension(&BASIC_CONSTRAINTS, critical, content));
        }
    };
    let case = |name, place, change: &dyn Fn(&mut Link)| lab.case(name, 16, with(lab, place, change));
    let absent = |link: &mut Link| link.params.is_ca = IsCa::NoCa;
    let end_entity = |link: &mut Link| link.params.is_ca = IsCa::ExplicitNoCa;
    let root = lab.links().with(ROOT, end_entity).build();
    vec![
        case("regional_without_basic_constraints", REGIONAL, &absent),
        case("instance_without_basic_constraints", INSTANCE, &absent),
        case("zonal_is_no_authority", ZONAL, &end_entity),
        case("instance_is_no_authority", INSTANCE, &end_entity),
        case("basic_constraints_not_critical", INSTANCE, &constraints(false, &[0x30, 3, 1, 1, 0xFF])),
        case("ca_flag_is_one", INSTANCE, &constraints(true, &[0x30, 3, 1, 1, 0x01])),
        case("ca_flag_false_written_out", INSTANCE, &constraints(true, &[0x30, 3, 1, 1, 0x00])),
        case("basic_constraints_malformed", INSTANCE, &constraints(true, &[0x30, 4, 1, 1, 0xFF])),
        case("basic_constraints_with_more_behind", INSTANCE, &constraints(true, &[0x30, 3, 1, 1, 0xFF, 5, 0])),
        case("path_length_negative", ZONAL, &constraints(true, &[0x30, 6, 1, 1, 0xFF, 2, 1, 0xFF])),
        case("leaf_is_an_authority", LEAF, &|link| link.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        case("leaf_is_an_authority_quietly", LEAF, &constraints(false, &[0x30, 3, 1, 1, 0xFF])),
        case("leaf_with_malformed_constraints", LEAF, &constraints(true, &[0x04, 0])),
        Case { roots: root.roots(), ..lab.case("root_is_no_authority", 16, lab.good.sign(&root)) },
    ]
}

fn path_lengths(lab: &Lab) -> Vec<Case> {
    let limit = |place, n| with(lab, place, |link| link.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(n)));
    let limited_root =
        lab.links().with(ROOT, |link| link.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(2))).build();
    let mut longer = lab.links();
    let mut params = longer.0[INSTANCE].params.clone();
    params.distinguished_name = name("one more.test.nitro-enclaves");
    longer.0.insert(LEAF, Link::new(params, new_key()));
    vec![
        lab.case("regional_allows_one_below", 17, limit(REGIONAL, 1)),
        lab.case("regional_allows_none_below", 17, limit(REGIONAL, 0)),
        lab.case("zonal_allows_none_below", 17, limit(ZONAL, 0)),
        lab.case("one_authority_more_below_the_instance", 17, lab.good.sign(&longer.build())),
        Case { roots: limited_root.roots(), ..lab.case("root_allows_two_below", 17, lab.good.sign(&limited_root)) },
    ]
}

fn usages(lab: &Lab) -> Vec<Case> {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign};
    let case = |name, place, usages: &[KeyUsagePurpose]| {
        lab.case(name, 18, with(lab, place, |link| link.params.key_usages = usages.to_vec()))
    };
    let malformed = |link: &mut Link| {
        link.params.key_usages.clear();
        link.params.custom_extensions.push(extension(&KEY_USAGE, true, &[4, 1, 0x80]));
    };
    vec![
        case("regional_without_key_usage", REGIONAL, &[]),
        case("instance_without_key_usage", INSTANCE, &[]),
        case("regional_does_not_sign_certificates", REGIONAL, &[DigitalSignature, CrlSign]),
        case("instance_does_not_sign_certificates", INSTANCE, &[DigitalSignature]),
        case("leaf_without_key_usage", LEAF, &[]),
        case("leaf_does_not_sign", LEAF, &[KeyAgreement]),
        case("leaf_signs_certificates", LEAF, &[DigitalSignature, KeyCertSign]),
        case("leaf_signs_only_certificates", LEAF, &[KeyCertSign]),
        lab.case("key_usage_malformed", 18, with(lab, LEAF, malformed)),
    ]
}

fn extensions(lab: &Lab) -> Vec<Case> {
    let case = |name, place, extensions: Vec<CustomExtension>| {
        lab.case(name, 19, with(lab, place, |link| link.params.custom_extensions = extensions))
    };
    let unknown = |critical| extension(&UNKNOWN, critical, &[5, 0]);
    let named = NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("test".into())],
        excluded_subtrees: vec![],
    };
    vec![
        case("unknown_critical_extension_in_the_leaf", LEAF, vec![unknown(true)]),
        case("unknown_critical_extension_in_the_regional", REGIONAL, vec![unknown(true)]),
        case("unknown_critical_extension_in_the_instance", INSTANCE, vec![unknown(true)]),
        case("critical_extended_key_usage", LEAF, vec![extension(&[2, 5, 29, 37], true, &[0x30, 0])]),
        case("critical_policies", ZONAL, vec![extension(&[2, 5, 29, 32], true, &[0x30, 0])]),
        lab.case("name_constraints", 19, with(lab, REGIONAL, |link| link.params.name_constraints = Some(named))),
        case("unknown_extension_twice", LEAF, vec![unknown(false), unknown(false)]),
        case("key_usage_twice", LEAF, vec![extension(&KEY_USAGE, true, &[3, 2, 2, 4])]),
        case("basic_constraints_twice", LEAF, vec![extension(&BASIC_CONSTRAINTS, true, &[0x30, 3, 1, 1, 0xFF])]),
        case("authority_constraints_twice", INSTANCE, vec![extension(&BASIC_CONSTRAINTS, true, &[0x30, 0])]),
    ]
}

fn validities(lab: &Lab) -> Vec<Case> {
    let now = i64::try_from(NOW_S).unwrap();
    let window = |name, place, from: i64, to: i64| {
        let chain = lab.links().with(place, |link| set_validity(&mut link.params, [now + from, now + to])).build();
        Case { roots: chain.roots(), ..lab.case(name, 20, lab.good.sign(&chain)) }
    };
    let good = || lab.good.sign(&lab.chain);
    let live = |name, now_s| Case { mode: Mode::Live { now_s }, ..lab.case(name, 20, good()) };
    let at = |time_s: u64| Evidence { time_ms: time_s * 1000, ..lab.good.clone() }.sign(&lab.chain);
    let archived = |name, time_s| Case { mode: Mode::Archived, ..lab.case(name, 20, at(time_s)) };
    vec![
        window("root_expired", ROOT, -9000, -1),
        window("root_not_yet_valid", ROOT, 1, 9000),
        window("regional_expired", REGIONAL, -9000, -1),
        window("regional_not_yet_valid", REGIONAL, 1, 9000),
        window("zonal_expired", ZONAL, -9000, -1),
        window("zonal_not_yet_valid", ZONAL, 1, 9000),
        window("instance_expired", INSTANCE, -9000, -1),
        window("instance_not_yet_valid", INSTANCE, 1, 9000),
        window("leaf_expired", LEAF, -9000, -1),
        window("leaf_not_yet_valid", LEAF, 1, 9000),
        window("leaf_ends_before_it_begins", LEAF, 10, -10),
        live("replayed_a_second_after_the_leaf", NOW_S + 3 * 3600 + 1),
        live("replayed_a_year_later", NOW_S + 365 * 86_400),
        live("verifier_clock_behind_the_leaf", NOW_S - 4),
        archived("archived_document_older_than_its_leaf", NOW_S - 4),
        archived("archived_document_younger_than_its_leaf", NOW_S + 3 * 3600 + 1),
    ]
}

fn signatures(lab: &Lab) -> Vec<Case> {
    let case = |name, place, change: &dyn Fn(&mut Link)| lab.case(name, 21, with(lab, place, change));
    let other_key = |link: &mut Link| link.signer = Some(new_key());
    let own_key = |link: &mut Link| link.signer = Some(KeyPair::from_pem(&link.key.serialize_pem()).unwrap());
    let last_byte = |link: &mut Link| link.edit = Some(Box::new(|der| *der.last_mut().unwrap() ^= 1));
    let put = |signature: Vec<u8>| {
        move |link: &mut Link| {
            let signature = tlv(3, &[&[0], &signature[..]].concat());
            link.edit = Some(Box::new(move |der| {
                let [signed, algorithm, _] = parts(der);
                *der = tlv(0x30, &[signed, algorithm, signature.clone()].concat());
            }));
        }
    };
    let serial = |link: &mut Link| {
        link.edit = Some(Box::new(|der| {
            let at = der.windows(16).position(|w| w == [5; 16]).unwrap();
            der[at] = 6;
        }));
    };
    let look_alike: Chain = TestRoot::new().chain(NOW_S);
    vec![
        case("regional_signed_by_another_key", REGIONAL, &other_key),
        case("zonal_signed_by_another_key", ZONAL, &other_key),
        case("instance_signed_by_another_key", INSTANCE, &other_key),
        case("leaf_signed_by_another_key", LEAF, &other_key),
        case("regional_signed_by_itself", REGIONAL, &own_key),
        case("leaf_signed_by_itself", LEAF, &own_key),
        case("leaf_signature_last_bit", LEAF, &last_byte),
        case("instance_signature_last_bit", INSTANCE, &last_byte),
        case("leaf_serial_changed_after_signing", LEAF, &serial),
        case("leaf_signature_empty", LEAF, &put(Vec::new())),
        case("leaf_signature_not_in_der", LEAF, &put(vec![1; 96])),
        case("leaf_signature_of_zeros", LEAF, &put(vec![0x30, 6, 2, 1, 0, 2, 1, 0])),
        case("leaf_signature_with_more_behind", LEAF, &|link| {
            link.edit = Some(Box::new(|der| {
                let [signed, algorithm, signature] = parts(der);
                let longer = [split(&signature).1, &[0]].concat();
                *der = tlv(0x30, &[signed, algorithm, tlv(3, &longer)].concat());
            }));
        }),
        lab.case("look_alike_behind_the_true_root", 21, {
            let mut chain = look_alike;
            chain.certificates[ROOT] = lab.root.der().to_vec();
            lab.good.sign(&chain)
        }),
    ]
}
