//! One defect each, named by it, in images whose checksum is right. `tests/vectors/eif` was written by AWS's own crate.

use super::*;
use mvault_tests::evidence::{NOW_S, TestRoot, der};
use mvault_tests::forge::eif::{
    CMDLINE, COUNT, Eif, FLAGS, HEADER_LEN, KERNEL, METADATA, OFFSETS, RAMDISK, RESERVED, SIGNATURE, SIZES, UNUSED,
    VERSION, check_again, extended, pcr0_claim, signature,
};
use std::path::Path;

fn read(bytes: &[u8]) -> Result<Image, EifError> {
    measure(&bytes, bytes.len() as u64)
}

#[track_caller]
fn refused(bytes: &[u8], words: &str) {
    let error = read(bytes).unwrap_err().to_string();
    assert!(error.contains(words), "expected {words:?} in {error:?}");
}

/// A good file with some of its bytes changed.
fn changed(at: usize, to: &[u8]) -> Vec<u8> {
    let mut bytes = Eif::default().bytes();
    bytes[at..at + to.len()].copy_from_slice(to);
    check_again(bytes)
}

#[track_caller]
fn measured_as_stated(name: &str) -> Image {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/eif");
    let image = read(&std::fs::read(folder.join(format!("{name}.eif"))).unwrap()).unwrap();
    let stated = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let stated: serde_json::Value = serde_json::from_str(&stated).unwrap();
    let stated = stated["Measurements"].as_object().unwrap();
    for (index, pcr) in image.pcrs() {
        assert_eq!(stated[&format!("PCR{index}")], crate::nitro::hex(pcr), "{name}: PCR{index}");
    }
    assert_eq!(stated.len(), image.pcrs().len() + 1, "{name}: HashAlgorithm and each PCR");
    image
}

#[test]
fn images_of_the_maintained_crate_measure_as_it_says() {
    let plain = measured_as_stated("plain");
    assert_eq!((plain.version(), plain.architecture(), plain.certificate()), (4, Architecture::X86_64, None));
    assert_eq!(plain.cmdline(), b"console=ttyS0 panic=30");
    let kinds: Vec<_> = plain.sections().iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [Kind::Kernel, Kind::Cmdline, Kind::Metadata, Kind::Ramdisk, Kind::Ramdisk]);
    let signed = measured_as_stated("signed");
    assert!(signed.certificate().is_some_and(|der| der.starts_with(&[0x30])));
    let bare = measured_as_stated("one-ramdisk");
    assert_eq!(bare.pcrs().get(&0), bare.pcrs().get(&1));
}

#[test]
fn forged_images_measure_as_the_scheme_says() {
    let three = Eif::default().with(RAMDISK, &vec![7; 200_000]);
    let old = Eif { version: 3, ..Eif::default() };
    let old = Eif { sections: old.sections.into_iter().filter(|s| s.0 != METADATA).collect(), ..old };
    for eif in [Eif::default(), three, old] {
        let image = read(&eif.bytes()).unwrap();
        assert_eq!(image.pcrs().len(), 3);
        (0..3).for_each(|i| assert_eq!(image.pcrs()[&i], eif.pcr(i), "PCR{i}"));
    }
    let arm = changed(FLAGS, &[0, 1]);
    assert_eq!(read(&arm).unwrap().architecture(), Architecture::Arm64);
}

#[test]
fn signed_image_has_the_certificate_in_pcr8() {
    let chain = TestRoot::new().chain(NOW_S);
    let image = read(&Eif::default().signed(&chain).bytes()).unwrap();
    assert_eq!(image.certificate(), Some(chain.leaf()));
    assert_eq!(image.pcrs()[&8], extended(digest(&SHA384, chain.leaf()).as_ref()));
}

#[test]
fn what_is_cut_is_refused() {
    let whole = Eif::default().bytes();
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "{len} bytes");
        // A length that is a lie of the caller's ends in the reader's own error.
        assert!(measure(&whole[..len].to_vec(), whole.len() as u64).is_err(), "{len} bytes");
    }
    refused(&whole[..HEADER_LEN - 1], "it has 547 bytes");
    refused(&whole[..whole.len() - 1], "section 4 of 2 bytes at");
}

#[test]
fn one_changed_byte_is_refused() {
    let whole = Eif::default().bytes();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        assert!(read(&bytes).is_err(), "byte {at}");
    }
    let mut bytes = whole;
    bytes[HEADER_LEN + 12] ^= 1;
    refused(&bytes, "its CRC-32 is");
}

#[test]
fn header_defects_are_refused() {
    refused(&changed(0, b"\x7fELF"), "but with [7f, 45, 4c, 46]");
    refused(&changed(VERSION, &[0, 2]), "version 2 of the image format");
    refused(&changed(VERSION, &[0, 5]), "version 5");
    refused(&changed(FLAGS, &[0, 2]), "flags 0x0002");
    refused(&changed(FLAGS, &[0x80, 1]), "flags 0x8001");
    refused(&changed(RESERVED, &[0, 1]), "the reserved field is 1");
    refused(&changed(UNUSED, &[0, 0, 0, 1]), "the unused field is 1");
    for count in [0, 1, 2, 33, 0xFFFF] {
        refused(&changed(COUNT, &u16::to_be_bytes(count)), &format!("{count} sections"));
    }
    refused(&changed(COUNT, &[0, 4]), "the offset of a section that is not there is");
    refused(&changed(COUNT, &[0, 6]), "section 5 is at 0");
    refused(&changed(OFFSETS + 31 * 8, &[1; 8]), "the offset of a section that is not there");
    refused(&changed(SIZES + 31 * 8, &[1; 8]), "the size of a section that is not there");
}

#[test]
fn section_defects_are_refused() {
    let at = |index: usize| OFFSETS + 8 * index;
    refused(&changed(at(0), &0_u64.to_be_bytes()), "section 0 is at 0; the one before ends at 548");
    refused(&changed(at(1), &u64::MAX.to_be_bytes()), "section 1 is at 18446744073709551615");
    refused(&changed(at(1), &548_u64.to_be_bytes()), "section 1 is at 548");
    for size in [u64::MAX, u64::MAX - 560, 1 << 40, 1000] {
        refused(&changed(SIZES, &size.to_be_bytes()), &format!("section 0 of {size} bytes at 548 ends behind"));
    }
    refused(&changed(SIZES, &5_u64.to_be_bytes()), "section 0 has 5 bytes by the file's header and 6 by its own");
    refused(&changed(HEADER_LEN, &[0, 0]), "section 0 is of type 0");
    refused(&changed(HEADER_LEN, &[0, 6]), "section 0 is of type 6");
    refused(&changed(HEADER_LEN + 2, &[0, 1]), "the flags of a section is 1");
    refused(&check_again([Eif::default().bytes(), vec![0]].concat()), "1 bytes behind the last section");
}

#[test]
fn sections_out_of_order_are_refused() {
    let of = |kinds: &[u16]| {
        let sections = kinds.iter().map(|kind| (*kind, vec![b'x'; 3])).collect();
        Eif { version: 4, sections }.bytes()
    };
    refused(&of(&[CMDLINE, KERNEL, RAMDISK]), "section 0 is a command line: the kernel comes first");
    refused(&of(&[KERNEL, RAMDISK, CMDLINE]), "section 1 is a ramdisk: the command line comes second");
    refused(&of(&[KERNEL, CMDLINE, KERNEL, RAMDISK]), "section 2 is a kernel: there is one already");
    refused(&of(&[KERNEL, CMDLINE, RAMDISK, CMDLINE]), "section 3 is a command line: there is one already");
    refused(&of(&[KERNEL, CMDLINE, METADATA, RAMDISK, METADATA]), "section 4 is a metadata: there is one already");
    refused(&of(&[KERNEL, CMDLINE, SIGNATURE, SIGNATURE, RAMDISK]), "section 3 is a signature: there is one already");
    refused(&of(&[KERNEL, CMDLINE, METADATA]), "there is no ramdisk");
    refused(&Eif { version: 3, ..Eif::default() }.bytes(), "version 3 has none");
}

#[test]
fn sections_that_are_kept_are_bounded() {
    let mut eif = Eif::default();
    eif.sections[1].1 = vec![b' '; 4097];
    refused(&eif.bytes(), "section 1, the command line, has 4097 bytes; 4096 at most");
    refused(&Eif::default().with(SIGNATURE, &vec![0; 65_537]).bytes(), "the signature, has 65537 bytes; 65536 at most");
}

#[test]
fn signature_defects_are_refused() {
    let chain = TestRoot::new().chain(NOW_S);
    let pem = der::to_pem(chain.leaf());
    let good = Eif::default();
    let claim = |index, pcr: &[u8]| chain.sign_payload(pcr0_claim(index, pcr));
    let with = |section: &[u8]| good.clone().with(SIGNATURE, section).bytes();
    let cose = claim(0, &good.pcr(0));
    assert!(read(&with(&signature(&pem, &cose))).is_ok());

    refused(&with(&[]), "the list: expected an array, found the end of the bytes");
    refused(&with(&[0x80]), "the list: expected one signature, found 0");
    refused(&with(&[0x82]), "the list: expected one signature, found 2");
    refused(&with(&[0x9F]), "found an indefinite length");
    refused(&with(&[0x81, 0xA1]), "the signature: expected a map of 2, found 1");
    refused(&with(&[0x98, 0x01]), "expected a head of 1 bytes, found 2 bytes");
    let huge = [&[0x81, 0xA2, 0x73][..], b"signing_certificate", &[0x9B, 0xFF, 0, 0, 0, 0, 0, 0, 0]].concat();
    refused(&with(&huge), "signing_certificate: expected an unsigned integer, found the end of the bytes");
    refused(&with(&[signature(&pem, &cose), vec![0]].concat()), "the section: expected its end, found 1 more bytes");

    refused(&with(&signature(&pem, &claim(0, &good.pcr(1)))), "the signed PCR0: expected");
    refused(&with(&signature(&pem, &claim(0, &[]))), "the signed PCR0: expected");
    refused(&with(&signature(&pem, &claim(1, &good.pcr(0)))), "register_index: expected 0, found 1");
    let other = TestRoot::new().chain(NOW_S);
    refused(
        &with(&signature(&der::to_pem(other.leaf()), &cose)),
        "the signature: expected one by the certificate's key",
    );
    refused(&with(&signature(&pem, &[0xD2, 0x84])), "the document: expected an array");

    refused(&with(&signature("", &cose)), "expected one block of PEM, found 0");
    refused(&with(&signature(&pem.repeat(2), &cose)), "expected one block of PEM, found 2");
    refused(
        &with(&signature(&pem.replace("CERTIFICATE", "PUBLIC KEY"), &cose)),
        "expected CERTIFICATE, found PUBLIC KEY",
    );
    refused(&with(&signature(&pem.replacen("MII", "M!I", 1), &cose)), "signing_certificate: expected PEM");
    refused(&with(&signature("\u{e9}", &cose)), "expected one block of PEM, found 0");
    refused(&with(&signature(&der::to_pem(&[0x30, 0]), &cose)), "expected an X.509 certificate in DER");
}
