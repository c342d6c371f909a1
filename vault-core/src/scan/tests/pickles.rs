//! Pickle defects: every way to name, hide and call something.

use super::{EVIL, GOOD, expect, expect_words, report, text};
use crate::scan::{Format, MAX_FINDINGS, Verdict};

fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn proto0_global_in_txt() {
    let evil = b"cposix\nsystem\n(S'id'\ntR.";
    for name in ["README.md", "notes.txt", "config.json", "weights"] {
        let report = expect_words(name, evil, Verdict::Dangerous, "global posix.system");
        assert_eq!((report.format, report.findings[0].offset), (Format::Pickle, 0));
    }
    // An unknown module is refused as well once something is called.
    expect_words("a.txt", b"cmodule\nthing\n(tR.", Verdict::Dangerous, "module.thing: not on the allow-list");
    expect_words("a.txt", b"(S'id'\nimodule\nthing\n.", Verdict::Dangerous, "INST global module.thing");
    expect_words("a.txt", b"(cmodule\nthing\nS'id'\no.", Verdict::Dangerous, "global module.thing");
}

#[test]
fn odd_starts_that_a_loader_accepts_hide_nothing() {
    let starts: [&[u8]; 10] = [
        b"I1\0 no number\n0",
        b"I\n0",
        b"I-\n0",
        b"I \x0b1\n0",
        b"]Nb0",
        b"]}b0",
        b"F1\0x\n0",
        b"Pany\n0",
        b"(1",
        b"L0x1fL\n0",
    ];
    for start in starts {
        expect("weights", &cat(&[start, b"cposix\nsystem\n(S'id'\ntR."]), Verdict::Dangerous);
        expect("a.txt", &cat(&[start, b"cmodule\nthing\n](S'id'\neR."]), Verdict::Dangerous);
    }
}

#[test]
fn stack_global_via_memo() {
    // 'posix' and 'system' are memoised, dropped, and fetched again as the names.
    let fetch = |ops: &[u8]| {
        cat(&[b"\x80\x04", &text("posix"), b"\x94", &text("system"), b"\x9400", ops, b"\x93", &text("id"), b"\x85R."])
    };
    for ops in [b"h\x00h\x01".as_slice(), b"g0\ng1\n", b"j\0\0\0\0j\x01\0\0\0"] {
        expect_words("a.pkl", &fetch(ops), Verdict::Dangerous, "global posix.system");
    }
    let put = cat(&[b"\x80\x04", &text("posix"), b"q\x07", &text("system"), b"r\x09\0\0\0h\x07j\x09\0\0\0\x93)R."]);
    expect_words("a.pkl", &put, Verdict::Dangerous, "global posix.system");
}

#[test]
fn names_that_are_computed_or_dotted_are_dangerous() {
    let words = "not a plain string";
    expect_words("a.pkl", &cat(&[b"\x80\x04", &text("os"), b"](K\x01e\x93."]), Verdict::Dangerous, words);
    expect_words("a.pkl", b"\x80\x04Vo\\u0073\nVsystem\n\x93)R.", Verdict::Dangerous, words);
    let dotted = cat(&[b"\x80\x04", &text("collections"), &text("OrderedDict.fromkeys"), b"\x93."]);
    expect_words("a.pkl", &dotted, Verdict::Dangerous, "OrderedDict.fromkeys");
    let long = cat(&[b"\x80\x02c", &[b'a'; 300], b"\nb\n."]);
    expect_words("a.pkl", &long, Verdict::Dangerous, "overlong name");
}

#[test]
fn calls_of_computed_values_are_dangerous() {
    let od = b"ccollections\nOrderedDict\n";
    expect_words("a.pkl", &cat(&[b"\x80\x02", od, b")R)R."]), Verdict::Dangerous, "computed value");
    expect_words("a.pkl", &cat(&[b"\x80\x02", od, b"}b."]), Verdict::Dangerous, "BUILD on the global");
    expect_words("a.pkl", &cat(&[b"\x80\x02", od, b"K\x01K\x02s."]), Verdict::Dangerous, "items set on the global");
    expect_words("a.pkl", b"\x80\x02ctorch\nFloatStorage\n)R.", Verdict::Dangerous, "allowed as data");
    expect_words("a.pkl", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)\x81.", Verdict::Dangerous, "NEWOBJ");
    let encode = |how: &str| cat(&[b"\x80\x02c_codecs\nencode\n", &text("x"), &text(how), b"\x86R."]);
    expect("a.pkl", &encode("latin1"), Verdict::Safe);
    expect("a.pkl", &encode("zlib_codec"), Verdict::Dangerous);
}

#[test]
fn extension_codes_are_dangerous() {
    for code in [b"\x82\x01".as_slice(), b"\x83\x01\0", b"\x84\x01\0\0\0"] {
        expect_words("a.pkl", &cat(&[b"\x80\x02", code, b")R."]), Verdict::Dangerous, "EXT");
        expect_words("weights", &cat(&[code, b")R."]), Verdict::Dangerous, "EXT");
    }
}

#[test]
fn allowed_things_are_safe() {
    expect("a.pkl", GOOD, Verdict::Safe);
    expect("weights", GOOD, Verdict::Safe);
    expect("a.pkl", b"\x80\x02ccollections\nOrderedDict\n)R.", Verdict::Safe);
    expect("a.pkl", &cat(&[GOOD, GOOD, GOOD]), Verdict::Safe);
    expect("a.pkl", b"N.", Verdict::Safe);
}

#[test]
fn concatenated_second_pickle_dangerous() {
    let both = cat(&[GOOD, EVIL]);
    let report = expect_words("a.pkl", &both, Verdict::Dangerous, "global posix.system");
    assert_eq!(report.findings[0].offset, GOOD.len() as u64 + 2);
    expect("weights", &both, Verdict::Dangerous);
    // Without PROTO, both of them.
    expect("notes.txt", b"N.cposix\nsystem\n(S'id'\ntR.", Verdict::Dangerous);
}

#[test]
fn trailing_bytes_are_not_scanned() {
    expect_words("a.pkl", &cat(&[GOOD, b"\0\0\0"]), Verdict::NotScanned, "no further pickle");
    expect("a.pkl", &cat(&[GOOD, b"\x80"]), Verdict::NotScanned);
    expect("weights", &cat(&[GOOD, b"junk"]), Verdict::NotScanned);
}

#[test]
fn danger_before_the_stream_breaks_is_named() {
    let broken = cat(&[&EVIL[..EVIL.len() - 1], b"\xffnonsense"]);
    for name in ["a.pkl", "weights", "notes.txt"] {
        expect("a.pkl", &broken, Verdict::Dangerous);
        expect(name, &broken, Verdict::Dangerous);
    }
    expect("weights", &EVIL[..EVIL.len() - 1], Verdict::Dangerous);
}

#[test]
fn a_name_that_promises_a_pickle_must_keep_it() {
    for name in ["a.pkl", "b.pt", "c.joblib", "d.npy", "e.npz", "f.ckpt", "pytorch_model.bin", "x/y.PICKLE"] {
        expect(name, b"\x89PNG\r\n\x1a\n", Verdict::NotScanned);
        expect(name, b"", Verdict::NotScanned);
        expect(name, b"{\"a\": 1}", Verdict::NotScanned);
    }
    expect("a.png", b"\x89PNG\r\n\x1a\n", Verdict::NotAPickle);
}

#[test]
fn strings_and_lengths_past_the_end_cost_nothing() {
    for op in [
        b"X\xff\xff\xff\xff".as_slice(),
        b"T\xff\xff\xff\x7f",
        b"B\xff\xff\xff\xff",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    ] {
        expect_words("a.pkl", &cat(&[b"\x80\x04", op, b"abc"]), Verdict::NotScanned, "ends in the middle");
    }
    expect("a.pkl", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", Verdict::NotScanned);
    let deep = cat(&[b"\x80\x02", &vec![b'('; 70_000], b"."]);
    expect_words("a.pkl", &deep, Verdict::NotScanned, "more values on the stack");
    let wide = cat(&[&vec![b'N'; 140_000], EVIL]);
    expect("weights", &wide, Verdict::NotScanned);
}

#[test]
fn a_flood_of_findings_is_counted_and_hides_no_danger() {
    let mut flood = b"\x80\x02".to_vec();
    for i in 0..40 {
        flood.extend_from_slice(format!("cmod{i}\nname\n0").as_bytes());
    }
    flood.extend_from_slice(b"N.");
    let flood = report("a.pkl", &flood);
    assert_eq!((flood.findings.len(), flood.more, flood.verdict), (MAX_FINDINGS, 24, Verdict::Dangerous));
    let nasty = report("a.pkl", b"\x80\x02cos\x1b[2J\xe2\x80\xae\nx\n.");
    assert!(nasty.findings[0].what.starts_with("global os\u{fffd}[2J\u{fffd}.x"), "{nasty:?}");
}

#[test]
fn a_large_vocabulary_with_late_classes_is_safe() {
    let mut dict = b"\x80\x04}\x94".to_vec();
    for i in 0..600_000_u32 {
        if i % 1000 == 0 {
            dict.push(b'(');
        }
        dict.extend(text(&format!("word{i}")));
        dict.extend_from_slice(b"\x94K\x01");
        if i % 1000 == 999 {
            dict.push(b'u');
        }
    }
    dict.extend(text("sklearn.svm._classes"));
    dict.push(0x94);
    dict.extend(text("LinearSVC"));
    dict.extend_from_slice(b"\x94\x93\x94)\x81\x86.");
    let safe = crate::scan::scan("a.pkl", &mut crate::scan::Plain(dict.as_slice())).unwrap();
    assert_eq!(safe.verdict, Verdict::Safe, "{safe:?}");
    // Names out of the memo's far end are unknown, and refused.
    let end = dict.len() - 5;
    dict.truncate(end);
    dict.extend_from_slice(b"j\x20\x20\x09\0j\x21\x20\x09\0\x93)R.");
    let refused = crate::scan::scan("a.pkl", &mut crate::scan::Plain(dict.as_slice())).unwrap();
    assert_eq!(refused.verdict, Verdict::Dangerous, "{refused:?}");
}

/// A joblib stream: one wrapper around `data`, then `after`. Without `padding`, an old stream.
fn joblib(dtype: &str, len: u8, padding: Option<u8>, data: &[u8], after: &[u8]) -> Vec<u8> {
    let mut out = b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81q\x00}(".to_vec();
    let mut key = |name: &str, value: &[u8]| {
        out.extend(text(name));
        out.extend_from_slice(value);
    };
    key("subclass", b"cnumpy\nndarray\n");
    key("shape", &[b'K', len, 0x85]);
    key("order", &text("C"));
    let state = b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb";
    key("dtype", &cat(&[b"cnumpy\ndtype\n", &text(dtype), b"\x89\x88\x87R", state]));
    key("allow_mmap", b"\x88");
    if padding.is_some() {
        key("numpy_array_alignment_bytes", b"K\x10");
    }
    out.extend_from_slice(b"ub");
    if let Some(padding) = padding {
        out.push(padding);
        out.extend(vec![0xff; usize::from(padding)]);
    }
    cat(&[&out, data, after])
}

#[test]
fn joblib_raw_array_then_danger() {
    let data = [7; 16];
    let good = expect("m.joblib", &joblib("f8", 2, Some(3), &data, b"."), Verdict::Safe);
    assert_eq!(good.format, Format::Joblib);
    let evil = joblib("f8", 2, Some(3), &data, b"0cposix\nsystem\n)R.");
    expect_words("m.joblib", &evil, Verdict::Dangerous, "global posix.system");
    // The pickle goes on where the array ends, not where the attacker wishes.
    expect("m.joblib", &joblib("f8", 3, Some(3), &data, b"."), Verdict::NotScanned);
    expect("m.joblib", &joblib("f8", 1, Some(3), &data, b"."), Verdict::NotScanned);
    expect("m.joblib", &joblib("f8", 2, Some(200), &data, b"."), Verdict::NotScanned);
    expect("m.joblib", &joblib("V0", 2, Some(0), &data, b"."), Verdict::NotScanned);
}

#[test]
fn joblib_array_that_plain_pickle_would_run() {
    // No padding: plain pickle takes the array's bytes as opcodes.
    expect("m.joblib", &joblib("f8", 2, None, &[0; 16], b"."), Verdict::Safe);
    let evil = b"0cposix\nsystem\n)R.";
    let data = cat(&[evil, &[0; 32]]);
    let stream = joblib("u1", u8::try_from(data.len()).unwrap(), None, &data, b".");
    expect_words("m.joblib", &stream, Verdict::Dangerous, "opcodes for plain pickle");
}

#[test]
fn joblib_object_arrays_are_pickles_themselves() {
    expect("m.joblib", &joblib("O", 2, Some(0), GOOD, b".")[..], Verdict::NotScanned);
    let objects = |inner: &[u8]| joblib("O", 2, None, inner, b".");
    expect("m.joblib", &objects(GOOD), Verdict::Safe);
    expect_words("m.joblib", &objects(EVIL), Verdict::Dangerous, "global posix.system");
    expect_words("m.joblib", &objects(b"\x80\x04]\x94."), Verdict::NotScanned, "MEMOIZE");
}

#[test]
fn joblib_wrapper_tricks_are_not_scanned() {
    let whole = joblib("f8", 2, Some(0), &[7; 16], b".");
    let find = |needle: &[u8]| whole.windows(needle.len()).position(|w| w == needle).unwrap();
    let mut twice = whole.clone();
    let at = find(b"ub\0");
    // SETITEMS, then one more SETITEM with another shape.
    twice.splice(at..=at, cat(&[b"u", &text("shape"), b"K\x09\x85s"]));
    expect_words("m.joblib", &twice, Verdict::NotScanned, "unusual state");
    let mut called = whole.clone();
    let at = find(b")\x81q\0");
    called[at + 1] = b'R';
    expect_words("m.joblib", &called, Verdict::NotScanned, "made by REDUCE");
    let framed = cat(&[b"\x80\x04\x95\xff\0\0\0\0\0\0\0", &whole[2..]]);
    expect_words("m.joblib", &framed, Verdict::NotScanned, "middle of a frame");
}

fn torch_legacy(count: u8, data: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let object = cat(&[
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((",
        b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x005X\x03\0\0\0cpuK\x02NtQ",
        b"K\0K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR.",
    ]);
    let keys = b"\x80\x02](X\x01\0\0\x005e.";
    cat(&[magic, b"\x80\x02M\xe9\x03.", b"\x80\x02}.", &object, keys, &u64::from(count).to_le_bytes(), data])
}

#[test]
fn torch_legacy_storages_must_fit() {
    assert_eq!(expect("a.pt", &torch_legacy(2, &[0; 8]), Verdict::Safe).format, Format::TorchLegacy);
    expect_words("a.pt", &torch_legacy(3, &[0; 12]), Verdict::NotScanned, "another size");
    expect("a.pt", &torch_legacy(2, &[0; 7]), Verdict::NotScanned);
    expect_words("a.pt", &torch_legacy(2, &[0; 9]), Verdict::NotScanned, "bytes after the last storage");
    expect("a.pt", &torch_legacy(2, &[0; 8])[..40], Verdict::NotScanned);
    expect("weights", &cat(&[&torch_legacy(2, &[0; 8]), EVIL]), Verdict::NotScanned);
}

#[test]
fn torchscript_names_outside_of_an_archive_are_dangerous() {
    expect_words("a.pkl", b"\x80\x02c__torch__.m\nNet\n)\x81.", Verdict::Dangerous, "outside of a TorchScript archive");
}

#[test]
fn out_of_band_buffers_are_not_scanned() {
    expect_words("a.pkl", b"\x80\x05\x97.", Verdict::NotScanned, "NEXT_BUFFER");
}
