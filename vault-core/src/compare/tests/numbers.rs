//! Statistics of values.

use super::super::values::{Change, Pair, Statistics};
use proptest::prelude::*;

fn pair(dtype: &str, a: &[u8], b: &[u8], cut: usize) -> (Statistics, Statistics, Change) {
    let mut pair = Pair::new(dtype);
    a.chunks(cut).zip(b.chunks(cut)).for_each(|(a, b)| pair.push(a, b));
    pair.finish()
}

fn close(x: Option<f64>, y: f64) -> bool {
    x.is_some_and(|x| (x - y).abs() <= 1e-11 * y.abs().max(1e-300))
}

/// In the plain way: two passes.
fn naive(values: &[f64]) -> (f64, f64, f64, f64) {
    let n = f64::from(u32::try_from(values.len()).unwrap());
    let mean = values.iter().sum::<f64>() / n;
    let moment = |p: i32| values.iter().map(|v| (v - mean).powi(p)).sum::<f64>() / n;
    let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    (mean, moment(2).sqrt(), norm, moment(4) / moment(2).powi(2))
}

#[test]
fn blocks_are_joined_wrongly() {
    let values: Vec<f64> = (0..5000_u32).map(|i| f64::from(i).sin() * 3.0 + f64::from(i / 1024) * 10.0).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let (found, _, _) = pair("F64", &bytes, &bytes, 999);
    let (mean, std, norm, kurtosis) = naive(&values);
    assert!(close(found.mean, mean) && close(found.std, std) && close(found.norm, norm), "{found:?}");
    assert!(close(found.kurtosis, kurtosis), "{found:?} {kurtosis}");
    assert_eq!((found.count, found.nan, found.inf), (5000, 0, 0));
}

#[test]
fn nan_poisons_statistics() {
    let a = [1.0_f32, 2.0, f32::NAN, 4.0, f32::INFINITY];
    let b = [1.0_f32, f32::NAN, f32::NAN, f32::NEG_INFINITY, 7.0];
    let (a, b) = (super::f32s(&a), super::f32s(&b));
    let (of_a, of_b, change) = pair("F32", &a, &b, 3);
    assert_eq!((of_a.count, of_a.nan, of_a.inf, of_a.min, of_a.max), (5, 1, 1, Some(1.0), Some(4.0)));
    assert!(close(of_a.mean, 7.0 / 3.0) && close(of_b.mean, 4.0), "{of_a:?} {of_b:?}");
    assert_eq!((change.changed, change.new_nan, change.new_inf), (3, 1, 1));
    assert_eq!((change.norm, change.largest), (Some(0.0), Some(0.0)));
    let nothing = super::f32s(&[f32::NAN; 3]);
    let (of_nan, ..) = pair("F32", &nothing, &nothing, 12);
    assert_eq!(of_nan, Statistics { count: 3, nan: 3, ..Statistics::default() });
    let empty = pair("F32", &[], &[], 1);
    assert_eq!((empty.0, empty.2.share()), (Statistics::default(), 0.0));
}

#[test]
fn numbers_at_the_edge_of_f64_overflow_into_nan() {
    let huge = [f64::MAX, f64::MAX, -f64::MAX, f64::MIN_POSITIVE];
    let bytes: Vec<u8> = huge.iter().flat_map(|v| v.to_le_bytes()).collect();
    let swapped: Vec<u8> = huge.iter().rev().flat_map(|v| v.to_le_bytes()).collect();
    let (a, _, change) = pair("F64", &bytes, &swapped, 5);
    assert_eq!((a.min, a.max, a.norm, a.kurtosis), (Some(-f64::MAX), Some(f64::MAX), None, None));
    assert!(a.mean.is_some_and(f64::is_finite) && change.norm.is_none() && change.changed == 4);
}

/// Bit patterns and their values, from the definitions of the formats.
#[test]
fn small_floats_are_decoded_wrongly() {
    for (dtype, bits, value) in [
        ("F16", 0x3C00_u16, 1.0),
        ("F16", 0xC000, -2.0),
        ("F16", 0x7BFF, 65_504.0),
        ("F16", 0x0001, 2.0_f64.powi(-24)),
        ("F16", 0x03FF, 1023.0 * 2.0_f64.powi(-24)),
        ("F16", 0x3555, 0.333_251_953_125),
        ("BF16", 0x3F80, 1.0),
        ("BF16", 0xC049, -3.140_625),
        ("F8_E4M3", 0x38, 1.0),
        ("F8_E4M3", 0x7E, 448.0),
        ("F8_E4M3", 0x01, 2.0_f64.powi(-9)),
        ("F8_E4M3", 0x78, 256.0),
        ("F8_E5M2", 0x3C, 1.0),
        ("F8_E5M2", 0x7B, 57_344.0),
        ("F8_E5M2", 0x01, 2.0_f64.powi(-16)),
        ("I8", 0x80, -128.0),
        ("I16", 0x8000, -32_768.0),
        ("U16", 0x8000, 32_768.0),
        ("BOOL", 0x01, 1.0),
    ] {
        let bytes = bits.to_le_bytes();
        let width = if matches!(dtype, "F8_E4M3" | "F8_E5M2" | "I8" | "BOOL") { 1 } else { 2 };
        let (found, ..) = pair(dtype, &bytes[..width], &bytes[..width], 1);
        assert_eq!(found.mean, Some(value), "{dtype} {bits:#x}");
    }
    for (dtype, bits, nan, inf) in [
        ("F16", 0x7C00_u16, 0, 1),
        ("F16", 0xFE00, 1, 0),
        ("BF16", 0xFF80, 0, 1),
        ("F8_E4M3", 0x7F, 1, 0),
        ("F8_E4M3", 0xFF, 1, 0),
        ("F8_E5M2", 0x7C, 0, 1),
        ("F8_E5M2", 0x7D, 1, 0),
    ] {
        let width = if dtype.starts_with("F8") { 1 } else { 2 };
        let (found, ..) = pair(dtype, &bits.to_le_bytes()[..width], &bits.to_le_bytes()[..width], 9);
        assert_eq!((found.nan, found.inf), (nan, inf), "{dtype} {bits:#x}");
    }
}

#[test]
fn types_without_numbers_are_passed_over() {
    let (a, b) = ([1_u8, 2, 3, 4, 5, 6, 7, 8], [1_u8, 2, 3, 4, 5, 6, 7, 9]);
    for (dtype, count) in [("F4", 8), ("C64", 1), ("F8_E8M0", 8)] {
        let (found, _, change) = pair(dtype, &a, &b, 3);
        assert_eq!((change.changed, change.count, change.norm, found.mean), (1, count, None, None), "{dtype}");
    }
}

proptest! {
    /// How the bytes arrive changes no bit; a tensor does not differ from itself.
    #[test]
    fn cuts_change_statistics(
        values in prop::collection::vec(any::<f32>(), 0..3000),
        others in prop::collection::vec(any::<f32>(), 3000),
        cut in 1_usize..5000,
    ) {
        let (a, b) = (super::f32s(&values), super::f32s(&others[..values.len()]));
        for dtype in ["F32", "I32", "F16", "I8", "F8_E4M3"] {
            let whole = format!("{:?}", pair(dtype, &a, &b, a.len().max(1)));
            prop_assert_eq!(&whole, &format!("{:?}", pair(dtype, &a, &b, cut)));
            let (first, second, change) = pair(dtype, &a, &a, cut);
            prop_assert_eq!(format!("{first:?}"), format!("{second:?}"));
            prop_assert_eq!((change.changed, change.norm, change.largest), (0, Some(0.0), Some(0.0)));
        }
    }
}
