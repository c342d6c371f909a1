use super::*;

#[test]
fn what_is_no_document_is_refused_in_order() {
    let step = |bytes: &[u8]| verify(bytes, &Roots::aws(), Mode::Archived).map(|_| ()).unwrap_err().step;
    assert_eq!(step(&[]), Step::V(1));
    assert_eq!(step(&vec![0x84; MAX_DOCUMENT + 1]), Step::V(1));
    assert_eq!(step(&vec![0x84; MAX_DOCUMENT]), Step::V(2));
    assert_eq!(step(&[0xD2, 0x84, 0x44]), Step::V(2));
}
