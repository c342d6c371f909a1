//! Pushes that are cut off and go on: FORMAT.md section 12. Every body that was ever sent is written down, so that two
//! different ones for one place of one payload would be seen.

use crate::recording::Recording;
use crate::transfers::{Case, LARGE_PART, pulled};
use mvault_tests::noise;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use vault_core::io::ReadAt;
use vault_store::layout::Name;
use vault_store::push::Note;
use vault_store::vault::{Selector, Vault};
use vault_store::{Cause, Store};

/// Four parts and a rest.
const LEN: usize = (70 << 20) + 123;

fn records(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Pushes `data` until the network is cut after `parts` parts.
fn interrupted(store: &Recording<'_>, folder: &Path, data: &[u8], parts: i64) {
    store.cut_after(parts);
    let case = Case { records: Some(folder), ..Case::new(store, "m") };
    case.push(&[("weights.bin", data)]).map(|_| ()).unwrap_err();
    store.mend();
    assert_eq!(records(folder), 1, "no record was left");
    assert!(Vault::new(store).versions(&Name::new("m").unwrap()).unwrap_or_default().is_empty());
}

pub fn interrupted_push_goes_on(store: &dyn Store) {
    let (folder, data, store) = (tempfile::tempdir().unwrap(), noise(1, LEN), &Recording::new(store));
    interrupted(store, folder.path(), &data, 2);
    assert_eq!(store.sent(), 2);
    let case = Case { records: Some(folder.path()), ..Case::new(store, "m") };
    let (pushed, notes) = case.push(&[("weights.bin", &data)]).unwrap();
    assert!(matches!(notes[..], [Note::GoesOn(2)]), "{notes:?}");
    assert_eq!((pushed.sent.reused, pushed.sent.sent), (2, 3));
    assert_eq!(store.sent(), 3, "finished parts were sent again");
    assert!(pulled(store, "m", &Selector::Latest) == data);
    assert_eq!(records(folder.path()), 0, "the record is still there");
    assert!(store.uploads("m/payloads/").unwrap().is_empty());
    store.assert_one_body_a_place();
}

/// The source changes between the kill and the next push, in what was sent or not, or in length: under the old DEK
/// nothing more is sent, and what is published has another one.
pub fn changed_source_begins_anew(store: &dyn Store) {
    let data = noise(2, 40 << 20);
    let change = |at: usize| {
        let mut other = data.clone();
        other[at] ^= 1;
        other
    };
    let longer = [&data[..], &[1]].concat();
    // The last part was on its way when the network was cut: nobody knows whether it arrived.
    for other in [change(5), change(20 << 20), change((40 << 20) - 10), data[..data.len() - 1].to_vec(), longer] {
        let (folder, store) = (tempfile::tempdir().unwrap(), &Recording::new(store));
        interrupted(store, folder.path(), &data, 2);
        let before = store.uploads("m/payloads/").unwrap();
        let case = Case { records: Some(folder.path()), ..Case::new(store, "m") };
        let (pushed, notes) = case.push(&[("weights.bin", &other)]).unwrap();
        assert!(notes.contains(&Note::BeginsAnew), "{notes:?}");
        let key = Name::new("m").unwrap().payload(&pushed.header.prelude().salt);
        assert!(before[0].key != key, "the old DEK was used for another source [F-45]");
        assert!(pulled(store, "m", &Selector::Latest) == other);
        assert!(store.uploads("m/payloads/").unwrap().is_empty(), "the old upload was not aborted");
        store.assert_one_body_a_place();
        assert_eq!(records(folder.path()), 0);
        let published = Vault::new(store).find(&Name::new("m").unwrap(), &Selector::Latest).unwrap();
        Vault::new(store).remove(&Name::new("m").unwrap(), &published).unwrap();
    }
}

/// Killed after the payload was completed and before the header was written: nothing is sent again, and a source that
/// changed is still seen.
pub fn completed_payload_is_not_sent_again(store: &dyn Store) {
    let data = noise(3, 40 << 20);
    for changed in [false, true] {
        let (folder, mut store) = (tempfile::tempdir().unwrap(), Recording::new(store));
        store.after_complete = true;
        let store = &store;
        interrupted(store, folder.path(), &data, 100);
        store.sent();
        let mut other = data.clone();
        other[33 << 20] ^= u8::from(changed);
        let case = Case { records: Some(folder.path()), ..Case::new(store, "m") };
        let (_, notes) = case.push(&[("weights.bin", &other)]).unwrap();
        assert_eq!(notes.contains(&Note::BeginsAnew), changed, "{notes:?}");
        assert_eq!(store.sent(), if changed { 3 } else { 0 });
        assert!(pulled(store, "m", &Selector::Latest) == other);
        store.assert_one_body_a_place();
        let published = Vault::new(store).find(&Name::new("m").unwrap(), &Selector::Latest).unwrap();
        Vault::new(store).remove(&Name::new("m").unwrap(), &published).unwrap();
    }
}

/// The store has a part that the record knows nothing of (a record from a backup, say): not to be trusted.
pub fn foreign_part_begins_anew(store: &dyn Store) {
    let (folder, data, store) = (tempfile::tempdir().unwrap(), noise(4, LEN), &Recording::new(store));
    interrupted(store, folder.path(), &data, 2);
    let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().filter(|l| !l.contains("\"sent\":16777200")).collect();
    let earlier = lines.join("\n") + "\n";
    assert!(earlier.len() < text.len());
    std::fs::write(&path, earlier).unwrap();
    let upload = store.uploads("m/payloads/").unwrap().remove(0);
    let has = store.parts(&upload).unwrap().iter().any(|p| p.number == 2);
    let case = Case { records: Some(folder.path()), ..Case::new(store, "m") };
    let (pushed, notes) = case.push(&[("weights.bin", &data)]).unwrap();
    assert_eq!(notes.contains(&Note::BeginsAnew), has, "{notes:?}");
    assert!(!has || upload.key != Name::new("m").unwrap().payload(&pushed.header.prelude().salt));
    assert!(pulled(store, "m", &Selector::Latest) == data);
}

/// A last line that was cut by a power failure is ignored; a record that is none, of another vault, or held by another
/// process is left alone.
pub fn damaged_record_is_passed_over(store: &dyn Store) {
    let (folder, data, store) = (tempfile::tempdir().unwrap(), noise(5, LEN), &Recording::new(store));
    interrupted(store, folder.path(), &data, 2);
    let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"sent\":9999");
    std::fs::write(&path, &text).unwrap();
    std::fs::write(folder.path().join("0.push"), b"not a record\n").unwrap();
    std::fs::write(folder.path().join("1.push"), [0xFF; 100]).unwrap();
    let case = Case { records: Some(folder.path()), ..Case::new(store, "m") };
    let (_, notes) = case.push(&[("weights.bin", &data)]).unwrap();
    assert!(matches!(notes[..], [Note::GoesOn(2)]), "{notes:?}");
    assert!(pulled(store, "m", &Selector::Latest) == data);
    assert_eq!(records(folder.path()), 2);
    store.assert_one_body_a_place();
}

/// Parts that are sealed again when they are sent.
pub fn large_parts_go_on(store: &dyn Store) {
    let (folder, data, store) = (tempfile::tempdir().unwrap(), noise(6, (110 << 20) + 1), &Recording::new(store));
    let case = || Case { records: Some(folder.path()), part_size: Some(LARGE_PART), ..Case::new(store, "m") };
    store.cut_after(1);
    case().push(&[("weights.bin", &data)]).map(|_| ()).unwrap_err();
    store.mend();
    store.sent();
    let (pushed, notes) = case().push(&[("weights.bin", &data)]).unwrap();
    assert!(matches!(notes[..], [Note::GoesOn(1)]), "{notes:?}");
    assert_eq!((pushed.sent.reused, store.sent()), (1, 2), "finished parts were sent again");
    assert!(pulled(store, "m", &Selector::Latest) == data);
    assert_eq!(records(folder.path()), 0, "the record is still there");
    store.assert_one_body_a_place();
}

/// A file that is written to after it was read once: from then on, a byte is another one, or it ends there.
struct Rewritten<'a> {
    data: &'a [u8],
    at: u64,
    shorter: bool,
    was_read: AtomicBool,
}

impl ReadAt for Rewritten<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.data.read_exact_at(buf, offset)?;
        let Some(byte) = self.at.checked_sub(offset).and_then(|at| buf.get_mut(usize::try_from(at).ok()?)) else {
            return Ok(());
        };
        if self.was_read.swap(true, Ordering::SeqCst) {
            *byte ^= 1;
            return if self.shorter { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
        Ok(())
    }
}

/// What is sealed again differs from what the record has: it is not sent, and nothing is published or left.
pub fn source_changed_between_sealing_and_sending(store: &dyn Store) {
    let data = noise(7, (105 << 20) + 1);
    for (at, shorter) in [(5, false), (60 << 20, false), (60 << 20, true), ((98 << 20) + 3, false)] {
        let folder = tempfile::tempdir().unwrap();
        let case = Case { records: Some(folder.path()), part_size: Some(LARGE_PART), ..Case::new(store, "m") };
        let file = Rewritten { data: &data, at, shorter, was_read: AtomicBool::new(false) };
        let failed = case.push_from(&[("weights.bin", &file, data.len() as u64)]).map(|_| ()).unwrap_err();
        assert_eq!(failed.cause(), Cause::SourceChanged, "{at}: {failed:?}");
        assert!(Vault::new(store).versions(&Name::new("m").unwrap()).unwrap_or_default().is_empty());
        assert!(store.uploads("m/payloads/").unwrap().is_empty(), "the upload was not aborted");
        assert_eq!(records(folder.path()), 0, "the record is still there");
    }
}
