//! What is sealed comes back, in every way of sealing and reading, at every size near an edge.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

use mvault_tests::arriving::open_coming;
use mvault_tests::artifact::{identity, open_file, open_streaming, options, read_ranges, seal_files, seal_stream};
use mvault_tests::noise;
use proptest::prelude::*;
use vault_core::aead::Engine;
use vault_core::recipient::Identity;
use vault_core::seal::SealOptions;

/// Sizes at and around what chunks, alignment and batches make special.
const SIZES: [usize; 22] = [
    0, 1, 15, 16, 4079, 4080, 4095, 4096, 4097, 8191, 8192, 8193, 61_440, 65_535, 65_536, 65_537, 126_976, 520_192,
    524_288, 524_289, 1_048_576, 1_700_001,
];

fn check(files: &[(&str, &[u8])], sealed: &[u8], key: &dyn Identity) {
    let whole: Vec<u8> = files.iter().flat_map(|(_, d)| d.iter().copied()).collect();
    let streamed = open_streaming(sealed, &[key], &[]);
    let verified = streamed.result.unwrap();
    assert_eq!(streamed.released, whole);
    let (result, opened) = open_file(sealed, &[key], &[]);
    result.unwrap();
    let (result, came) = open_coming(sealed, &[key], &[], |_| {});
    result.unwrap();
    assert_eq!(came, opened);
    let ranges = read_ranges(sealed, &[key], 5003).unwrap();
    for (i, (path, data)) in files.iter().enumerate() {
        assert_eq!((opened[i].0.as_str(), opened[i].1.as_slice()), (*path, *data));
        assert_eq!((ranges[i].0.as_str(), ranges[i].1.as_slice()), (*path, *data));
        assert_eq!(
            *verified.manifest.entries[i].blake3,
            *blake3::hash(data).as_bytes(),
            "{path}: {} bytes",
            data.len()
        );
    }
}

#[test]
fn sizes_at_every_edge() {
    let key = identity(1);
    for chunk_size in [4096, 65_536, 1_048_576] {
        for size in SIZES {
            let data = noise(size as u64, size);
            let options = SealOptions { chunk_size, sha256: size % 2 == 0, ..options("m") };
            let files: [(&str, &[u8]); 1] = [("m.bin", &data)];
            let (sealed, _) = seal_files(&files, &[key.recipient()], &options, 3).unwrap();
            check(&files, &sealed, &key);
            let (sealed, _) = seal_stream("m.bin", &data, &[key.recipient()], &options, 4).unwrap();
            check(&files, &sealed, &key);
        }
    }
}

#[test]
fn engines_open_what_others_sealed() {
    let (key, data) = (identity(1), noise(5, 300_000));
    let sealed = Engine::ALL.map(|engine| {
        let options = SealOptions { engine, ..options("m") };
        seal_files(&[("m.bin", &data)], &[key.recipient()], &options, 3).unwrap().0
    });
    assert_eq!(sealed[0], sealed[1]);
    assert_eq!(sealed[0], sealed[2]);
}

#[test]
fn folder_with_empty_files_between() {
    let (key, a, b) = (identity(1), noise(1, 70_000), noise(2, 4096));
    let files: [(&str, &[u8]); 6] = [("0", b""), ("a/x", &a), ("a/y", b""), ("b", &b), ("c", b""), ("d", b"")];
    let options = SealOptions { folder: true, sha256: true, ..options("m") };
    let (sealed, _) = seal_files(&files, &[key.recipient()], &options, 3).unwrap();
    check(&files, &sealed, &key);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_folder_comes_back(
        sizes in prop::collection::vec(0_usize..90_000, 1..9),
        chunk_bits in 12_u32..18,
        threads in 1_usize..5,
        sha256: bool,
    ) {
        let key = identity(2);
        let data: Vec<_> = sizes.iter().enumerate().map(|(i, s)| (format!("f{i:02}"), noise(i as u64, *s))).collect();
        let files: Vec<_> = data.iter().map(|(p, d)| (p.as_str(), d.as_slice())).collect();
        let options = SealOptions { chunk_size: 1 << chunk_bits, threads, sha256, folder: true, ..options("m") };
        let (sealed, _) = seal_files(&files, &[key.recipient()], &options, 9).unwrap();
        check(&files, &sealed, &key);
    }

    #[test]
    fn any_range_is_the_originals(size in 1_usize..200_000, a in 0..=1_000_usize, b in 0..=1_000_usize) {
        let (key, data) = (identity(2), noise(77, size));
        let (sealed, _) = seal_stream("m", &data, &[key.recipient()], &options("m"), 9).unwrap();
        let header = mvault_tests::artifact::unlock(&sealed, &key).unwrap();
        let (from, to) = (size * a.min(b) / 1000, size * a.max(b) / 1000);
        let bytes = sealed.as_slice();
        let reader = vault_core::open::RangeReader::new(&bytes, 4096, sealed.len() as u64 - 4096, &header, Engine::Ring).unwrap();
        let mut out = Vec::new();
        let entry = &reader.manifest().entries[0];
        reader.read(entry, from as u64..to as u64, &mut |b| { out.extend_from_slice(b); Ok(()) }).unwrap();
        prop_assert_eq!(&out, &data[from..to]);
        prop_assert!(reader.read(entry, from as u64..size as u64 + 1, &mut |_| Ok(())).is_err());
    }
}

/// Gives `good` bytes of an artifact, then an I/O error; as a stream and at offsets.
struct Breaks<'a> {
    bytes: &'a [u8],
    good: usize,
    at: usize,
}

impl std::io::Read for Breaks<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = self.good - self.at;
        if left == 0 {
            return Err(std::io::Error::other("the cable"));
        }
        let n = buf.len().min(left);
        buf[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl vault_core::io::ReadAt for Breaks<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        // The end can be read: it is asked for first, where an entry's size is not in the table.
        if at < self.good || at + 80_000 > self.bytes.len() {
            return vault_core::io::ReadAt::read_exact_at(&self.bytes, buf, offset);
        }
        Err(std::io::Error::other("the cable"))
    }
}

#[test]
fn read_error_releases_no_stale_batch() {
    use vault_core::io::Input;
    use vault_core::open::{OpenOptions, Release, open};
    let (key, data) = (identity(1), noise(8, 2_000_000));
    let options = options("m");
    let sized = seal_files(&[("m", &data)], &[key.recipient()], &options, 3).unwrap().0;
    let unsized_entry = seal_stream("m", &data, &[key.recipient()], &options, 3).unwrap().0;
    for sealed in [&sized, &unsized_entry] {
        let header = mvault_tests::artifact::unlock(sealed, &key).unwrap();
        for good in [300_000, 600_001, 1_100_000, sealed.len() - 700_000] {
            for (threads, at_offsets) in [(1, false), (3, false), (1, true), (3, true)] {
                let open_options = OpenOptions { threads, ..OpenOptions::default() };
                let (mut released, mut input) = (Vec::new(), Breaks { bytes: sealed, good, at: 4096 });
                let release = Release::Stream(&mut released);
                let result = if at_offsets {
                    let input = Input::At { file: &input, offset: 4096, len: sealed.len() as u64 - 4096 };
                    open(input, &header, &open_options, release)
                } else {
                    open(Input::Stream(&mut input), &header, &open_options, release)
                };
                assert!(matches!(result, Err(vault_core::Error::Io { .. })), "{good} {threads} {at_offsets}");
                assert!(data.starts_with(&released), "{good} {threads} {at_offsets}: {} bytes", released.len());
            }
        }
    }
}
