//! Two safetensors files side by side, as `mvault diff` reads them: four bytes say where the first ends. A model does not differ from itself.
#![no_main]

use vault_core::compare::score::{Step, scores};
use vault_core::compare::{Bytes, CompareOptions, Comparison, Entry, Status, compare};

struct Memory<'a>(&'a [u8]);

impl Bytes for Memory<'_> {
    fn read(
        &self,
        range: std::ops::Range<u64>,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> vault_core::Result<()> {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let failed = |source| vault_core::Error::Io { context: "read".into(), source };
        self.0[range].chunks(7).try_for_each(take).map_err(failed)
    }
}

/// The digest is an argument, since the manifest's is a claim.
fn entry<'a>(bytes: &'a [u8], digest: u8) -> [Entry<'a>; 1] {
    let (path, format) = ("m.safetensors".to_owned(), "safetensors".to_owned());
    [Entry { path, size: bytes.len() as u64, blake3: [digest; 32], format, bytes: Box::new(Memory(bytes)) }]
}

fn compared(a: &[u8], b: &[u8], digest: u8) -> Option<Comparison> {
    let options = CompareOptions { digests_only: false, progress: &|_| {} };
    compare(&entry(a, 0), &entry(b, digest), options).ok()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((len, rest)) = data.split_first_chunk::<4>() else { return };
    let (a, b) = rest.split_at(rest.len().min(u32::from_le_bytes(*len) as usize));
    if let Some(comparison) = compared(a, b, 1) {
        let earlier = [Step::of(&comparison)];
        for score in scores(&comparison, &[]).into_iter().chain(scores(&comparison, &earlier)) {
            assert!(score.value.is_none_or(|value| (0.0..=100.0).contains(&value)));
        }
    }
    for one in [a, b] {
        let same = compared(one, one, 0);
        assert!(same.is_none_or(|same| same.tensors.iter().all(|tensor| tensor.status == Status::Same)));
    }
});
