//! For the bench: the enclave's engine outside of one. `mvault-embed SEALED IDENTITY_FILE N` loads a sealed model by the same code, and embeds a
//! sentence N times.

#![allow(clippy::cast_precision_loss, clippy::print_stdout)] // a report is all this program makes

#[path = "../bert.rs"]
mod bert;

use bert::Bert;
use std::fs::File;
use std::time::Instant;
use vault_core::aead::Engine as Aead;
use vault_core::header::Header;
use vault_core::io::Input;
use vault_core::open::{OpenOptions, RangeReader, Release, open};
use vault_core::recipient::Identity;
use vault_core::recipient::keyfile::{KeyLine, parse_identities};
use vault_enclave::serve::Engine;
use vault_enclave::weights::Weights;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [sealed, identity, count] = args.as_slice() else { return Err("mvault-embed SEALED IDENTITY_FILE N".into()) };
    let Some(KeyLine::Secret(identity)) = parse_identities(&std::fs::read(identity)?)?.into_iter().next() else {
        return Err("no identity".into());
    };
    let mut file = File::open(sealed)?;
    let header = Header::read(&mut file)?;
    let offset = header.bytes().len() as u64;
    let len = file.metadata()?.len() - offset;
    let header = header.unlock(&[&identity as &dyn Identity])?;
    let began = Instant::now();
    let weights = Weights::plan(&RangeReader::new(&file, offset, len, &header, Aead::fastest())?)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = OpenOptions { threads, ..OpenOptions::default() };
    open(Input::At { file: &file, offset, len }, &header, &options, Release::Files(&weights))?;
    let loaded = began.elapsed().as_secs_f64();
    println!("outside: loaded {:.0} MB/s", len as f64 / 1e6 / loaded);
    let (tensors, files) = weights.finish();
    let bert = Bert::new(tensors, &files, 256)?;
    let count: u32 = count.parse()?;
    bert.embed(&["This is an example sentence"])?; // warm
    let began = Instant::now();
    for _ in 0..count {
        bert.embed(&["This is an example sentence"])?;
    }
    println!("outside: {:.1} inferences/s", f64::from(count) / began.elapsed().as_secs_f64());
    Ok(())
}
