//! Objects, lists and uploads, as `vault_store::store` promises them.

use bytes::Bytes;
use mvault_tests::noise;
use std::sync::Barrier;
use vault_store::download::{Cut, front};
use vault_store::store::{Condition, Item, Part, Whole, crc64, join_crc64};
use vault_store::{Cause, Store};

const PART: usize = 5 << 20;

fn put(store: &dyn Store, key: &str, bytes: &[u8]) -> String {
    store.write(key, bytes, Condition::Absent, Some("a tester")).unwrap()
}

fn fetched(store: &dyn Store, key: &str, range: std::ops::Range<u64>) -> (Vec<u8>, u64) {
    let mut bytes = Vec::new();
    let size = store.fetch(key, range, &mut |data| {
        bytes.extend_from_slice(data);
        Ok(())
    });
    (bytes, size.unwrap())
}

pub fn what_was_written_is_read(store: &dyn Store) {
    for (key, bytes) in [("m/1", &b"header"[..]), ("größe + x/2", b""), ("m/tags/prod", &noise(1, 100_000))] {
        let etag = put(store, key, bytes);
        let (read, meta) = store.read(key, 1 << 20).unwrap();
        assert_eq!(read, bytes, "{key}");
        assert_eq!((meta.size, &meta.etag), (bytes.len() as u64, &etag), "{key}");
        assert_eq!(store.head(key).unwrap().size, bytes.len() as u64);
        assert!(meta.publisher.is_some() && meta.modified.is_some(), "{meta:?}");
    }
    assert_eq!(store.read("m/tags/prod", 99_999).unwrap_err().cause, Cause::Malformed);
    assert_eq!(store.read("m/3", 10).unwrap_err().cause, Cause::NotFound);
    assert_eq!(store.head("m/3").unwrap_err().cause, Cause::NotFound);
}

pub fn absent_means_absent_for_one_of_many(store: &dyn Store) {
    let start = Barrier::new(16);
    let won: Vec<_> = std::thread::scope(|scope| {
        let race = |i: usize| {
            start.wait();
            store.write("m/1", format!("publisher {i}").as_bytes(), Condition::Absent, None).map_err(|e| e.cause)
        };
        let threads: Vec<_> = (0..16).map(|i| scope.spawn(move || race(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let winner = won.iter().position(Result::is_ok).unwrap();
    assert_eq!(won.iter().filter(|w| w.is_ok()).count(), 1, "{won:?}");
    assert!(won.iter().filter_map(|w| w.as_ref().err()).all(|c| *c == Cause::Precondition), "{won:?}");
    assert_eq!(store.read("m/1", 100).unwrap().0, format!("publisher {winner}").as_bytes());
}

pub fn stale_etag_is_refused(store: &dyn Store) {
    let first = put(store, "m/1", b"first");
    let second = store.write("m/1", b"second", Condition::Is(&first), None).unwrap();
    assert_ne!(first, second);
    let stale = store.write("m/1", b"third", Condition::Is(&first), None).unwrap_err();
    assert_eq!(stale.cause, Cause::Precondition, "{stale}");
    let nothing = store.write("m/9", b"x", Condition::Is(&first), None).unwrap_err();
    assert!(matches!(nothing.cause, Cause::Precondition | Cause::NotFound), "{nothing}");
    assert_eq!(store.read("m/1", 100).unwrap().0, b"second");
}

pub fn ranges_end_with_the_object(store: &dyn Store) {
    let data = noise(2, 300_000);
    put(store, "m/payloads/x", &data);
    for (from, to) in [(0, 10), (1000, 2000), (299_990, 300_000), (299_990, 400_000), (0, 300_000), (0, 1 << 40)] {
        let (bytes, size) = fetched(store, "m/payloads/x", from..to);
        let end = usize::try_from(to.min(300_000)).unwrap();
        assert_eq!(bytes, data[usize::try_from(from).unwrap()..end], "{from}..{to}");
        assert_eq!(size, 300_000);
    }
}

/// Of an object that is empty S3 gives no range at all.
pub fn fronts_end_with_the_object(store: &dyn Store) {
    let (cut, data) = (Cut::of(16_384), noise(3, 300_000));
    let (whole, _) = front_of(store, cut, &data);
    for len in [0, 1, whole - 1, whole, whole + 1] {
        assert_eq!(front_of(store, cut, &data[..len]).1, data[..len.min(whole)], "{len}");
    }
}

/// How long it is, and what it is.
fn front_of(store: &dyn Store, cut: Cut, data: &[u8]) -> (usize, Vec<u8>) {
    let key = format!("m/payloads/{}", data.len());
    put(store, &key, data);
    let (first, size) = front(store, &key, cut).unwrap();
    assert_eq!(size, data.len() as u64);
    (first.len(), first)
}

pub fn lists_name_objects_and_folders(store: &dyn Store) {
    for key in ["m/1", "m/10", "m/payloads/a", "m/tags/prod", "m + ü/1", "n/2"] {
        put(store, key, b"12345");
    }
    let list = |prefix: &str| {
        let (mut objects, mut folders) = (Vec::new(), Vec::new());
        store
            .list(prefix, &mut |item| match item {
                Item::Object { name, size, .. } => {
                    assert_eq!(size, 5);
                    objects.push(name);
                }
                Item::Folder(name) => folders.push(name),
            })
            .unwrap();
        objects.sort();
        folders.sort();
        (objects, folders)
    };
    assert_eq!(list("").1, ["m", "m + ü", "n"]);
    assert_eq!(list("m/").0, ["1", "10"]);
    assert_eq!(list("m/").1, ["payloads", "tags"]);
    assert_eq!(list("m + ü/").0, ["1"]);
    assert_eq!(list("nothing/"), (vec![], vec![]));
}

pub fn parts_in_any_order_make_the_whole(store: &dyn Store) {
    let data = noise(3, 2 * PART + 1234);
    let upload = store.begin("m/payloads/whole").unwrap();
    let mut parts: Vec<Part> = [2, 0, 1]
        .map(|i| {
            let body = Bytes::copy_from_slice(&data[i * PART..data.len().min((i + 1) * PART)]);
            store.send(&upload, u32::try_from(i + 1).unwrap(), (i * PART) as u64, &body.into()).unwrap()
        })
        .into();
    parts.sort_by_key(|p| p.number);
    let listed = store.parts(&upload).unwrap();
    let plain = |p: &Part| (p.number, p.size, p.etag.clone());
    assert_eq!(listed.iter().map(plain).collect::<Vec<_>>(), parts.iter().map(plain).collect::<Vec<_>>());
    let crc = parts.iter().fold(0, |crc, p| join_crc64(crc, p.crc, p.size));
    assert_eq!(crc, crc64(&data));
    assert_eq!(store.head("m/payloads/whole").unwrap_err().cause, Cause::NotFound);
    store.complete(&upload, &parts, Whole { size: data.len() as u64, crc }).unwrap();
    assert_eq!(fetched(store, "m/payloads/whole", 0..1 << 30).0, data);
}

pub fn aborted_upload_is_gone(store: &dyn Store) {
    let upload = store.begin("m/payloads/gone").unwrap();
    store.send(&upload, 1, 0, &Bytes::from(noise(4, PART)).into()).unwrap();
    store.abort(&upload).unwrap();
    assert_eq!(store.parts(&upload).unwrap_err().cause, Cause::NoSuchUpload);
    assert!(store.uploads("m/payloads/").unwrap().is_empty());
    store.abort(&upload).unwrap();
}

pub fn unfinished_uploads_are_listed(store: &dyn Store) {
    let upload = store.begin("m/payloads/half").unwrap();
    store.send(&upload, 1, 0, &Bytes::from(noise(5, PART)).into()).unwrap();
    let listed = store.uploads("m/payloads/").unwrap();
    assert!(matches!(&listed[..], [u] if u.key == upload.key && u.id == upload.id), "{listed:?}");
    assert!(store.uploads("other/payloads/").unwrap().is_empty());
    store.abort(&upload).unwrap();
}

pub fn wrong_whole_is_refused(store: &dyn Store) {
    let upload = store.begin("m/payloads/short").unwrap();
    let part = store.send(&upload, 1, 0, &Bytes::from(noise(6, 1000)).into()).unwrap();
    let whole = Whole { size: 2000, crc: part.crc ^ 1 };
    let refused = store.complete(&upload, &[part], whole).unwrap_err();
    assert_ne!(refused.cause, Cause::NotFound, "{refused}");
    assert_eq!(store.head("m/payloads/short").unwrap_err().cause, Cause::NotFound);
}

pub fn removing_nothing_is_no_error(store: &dyn Store) {
    put(store, "m/1", b"x");
    store.remove("m/1").unwrap();
    store.remove("m/1").unwrap();
    assert_eq!(store.head("m/1").unwrap_err().cause, Cause::NotFound);
}
