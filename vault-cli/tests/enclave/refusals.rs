//! A parent that lies: whatever it serves, either the right model is loaded or none, and the line says why.

use crate::parent::Parent;
use crate::stage::{Stage, stage};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use vault_core::header::Header;
use vault_enclave::fetch::answer;

/// Header and payload of a sealed model.
fn halves(stage: &Stage, name: &str) -> (Vec<u8>, Vec<u8>) {
    let mut header = stage.shop.read(&format!("{name}.mvault"));
    let parsed = Header::read(&mut &header[..]).unwrap();
    let payload = header.split_off(parsed.bytes().len());
    (header, payload)
}

fn serve(header: Vec<u8>, payload: Vec<u8>) -> impl Fn(UnixStream) + Send + Sync + 'static {
    move |mut stream| {
        let _ = answer(&mut stream, &header, &payload, payload.len() as u64); // the enclave closes
    }
}

/// Boots with this model; the last line must have these words, and nothing may have been loaded.
#[track_caller]
fn refused(stage: &Stage, image: &str, model: impl Fn(UnixStream) + Send + Sync + 'static, words: &[&str]) {
    let mut parent = Parent::boot(stage, image, model);
    let line = parent.until(&["failed:", "[E-10] ready"]);
    println!("{line}");
    assert!(words.iter().all(|word| line.contains(word)), "expected {words:?} in: {line}");
}

#[test]
fn another_signers_model_is_refused_before_a_key_is_asked_for() {
    let Some(stage) = stage() else { return };
    stage.seal("foreign", "--name minilm --model-version 2 --sign other.pem");
    let (header, payload) = halves(&stage, "foreign");
    let decisions = stage.shop.mvault("broker log broker --json").ok().json()["size"].clone();
    refused(&stage, "good.eif", serve(header, payload), &["[E-4]", "F-20"]);
    assert_eq!(stage.shop.mvault("broker log broker --json").ok().json()["size"], decisions);
}

#[test]
fn unsigned_older_or_renamed_models_are_refused_before_a_byte_is_loaded() {
    let Some(stage) = stage() else { return };
    stage.seal("unsigned", "--name minilm --model-version 2");
    let (header, payload) = halves(&stage, "unsigned");
    refused(&stage, "good.eif", serve(header, payload), &["[E-4]", "not signed"]);
    stage.seal("one", "--name minilm --model-version 1 --sign sign.pem");
    let (header, payload) = halves(&stage, "one");
    refused(&stage, "good.eif", serve(header, payload), &["[E-6] the model's version: expected 2 or later, found 1"]);
    stage.seal("renamed", "--name minilm2 --model-version 2 --sign sign.pem");
    let (header, payload) = halves(&stage, "renamed");
    refused(&stage, "good.eif", serve(header, payload), &["[E-6] the model's name: expected minilm, found minilm2"]);
}

#[test]
fn swapped_payloads_are_refused() {
    let Some(stage) = stage() else { return };
    stage.seal("three", "--name minilm --model-version 3 --sign sign.pem");
    let (header, _) = halves(&stage, "two");
    let (_, payload) = halves(&stage, "three");
    refused(&stage, "good.eif", serve(header, payload), &["[E-6]", "F-25"]);
}

#[test]
fn a_changed_chunk_is_refused_however_often_it_is_sent() {
    let Some(stage) = stage() else { return };
    let (header, mut payload) = halves(&stage, "two");
    let middle = payload.len() / 2;
    payload[middle] ^= 1;
    refused(&stage, "good.eif", serve(header, payload), &["[E-7]", "F-25"]);
}

#[test]
fn a_payload_that_ends_early_is_refused() {
    let Some(stage) = stage() else { return };
    let (header, mut payload) = halves(&stage, "two");
    payload.truncate(payload.len() - 100_000);
    refused(&stage, "good.eif", serve(header, payload), &["[E-6]", "F-2"]);
}

#[test]
fn a_wrong_answer_of_the_golden_set_stops_the_service() {
    let Some(stage) = stage() else { return };
    let golden = String::from_utf8(stage.shop.read("minilm/golden.json")).unwrap();
    let wrong = golden.replacen("This is an example sentence", "This is another sentence", 1);
    stage.shop.write("minilm/golden.json", wrong.as_bytes());
    stage.seal("golden", "--name minilm --model-version 2 --sign sign.pem");
    stage.shop.write("minilm/golden.json", golden.as_bytes());
    let (header, payload) = halves(&stage, "golden");
    refused(&stage, "good.eif", serve(header, payload), &["[E-8] golden sentence 0: differs by"]);
}

/// Every connection is cut after some bytes, and each place of the payload is wrong the first time it is asked for, here and there.
#[test]
fn cut_connections_and_bytes_changed_on_the_way_are_asked_for_again() {
    let Some(stage) = stage() else { return };
    let (header, payload) = halves(&stage, "two");
    let wrong_once = Arc::new(Mutex::new(HashSet::new()));
    let cuts = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (wrong, cut) = (Arc::clone(&wrong_once), Arc::clone(&cuts));
    let model = move |mut stream: UnixStream| {
        let mut budget = 3_000_000_i64;
        let mut request = [0; 16];
        while stream.read_exact(&mut request).is_ok() {
            let object = if request[0] == 1 { &header } else { &payload };
            let length = u32::from_be_bytes(request[4..8].try_into().unwrap()) as usize;
            let offset = usize::try_from(u64::from_be_bytes(request[8..].try_into().unwrap())).unwrap();
            let mut bytes = object[offset.min(object.len())..(offset + length).min(object.len())].to_vec();
            let first = request[0] == 2 && (offset / 100_000) % 7 == 3 && wrong.lock().unwrap().insert(offset);
            if let Some(byte) = bytes.first_mut().filter(|_| first) {
                *byte ^= 0x80;
            }
            let mut all = (object.len() as u64).to_be_bytes().to_vec();
            all.extend(bytes);
            budget -= i64::try_from(all.len()).unwrap();
            if budget < 0 {
                cut.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let half = all.len() / 2;
                let _ = stream.write_all(&all[..half]);
                return; // cut in the middle of an answer
            }
            for piece in all.chunks(32 * 1024) {
                if stream.write_all(piece).is_err() {
                    return;
                }
            }
        }
    };
    let mut parent = Parent::boot(&stage, "good.eif", model);
    let line = parent.until(&["failed:", "[E-10] ready"]);
    let (cuts, wrong) = (cuts.load(std::sync::atomic::Ordering::Relaxed), wrong_once.lock().unwrap().len());
    println!("{line}; {cuts} connections cut, {wrong} answers changed");
    assert!(line.contains("[E-10] ready") && cuts >= 10 && wrong >= 10, "{line}: {cuts} cuts, {wrong} changed");
}
