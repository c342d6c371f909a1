//! Sealing into memory and opening from it, in every way the core has.

use crate::rng;
use std::io::{self, Write};
use std::sync::Mutex;
use vault_core::header::{AuthenticatedHeader, Header, Section};
use vault_core::io::{Input, Output, WriteAt};
use vault_core::keys::Dek;
use vault_core::open::{EntrySink, OpenOptions, RangeReader, Release, Verified, open};
use vault_core::recipient::aws_kms::Stanza;
use vault_core::recipient::broker::BrokerKey;
use vault_core::recipient::xwing::XWingIdentity;
use vault_core::recipient::{Identity, Recipient};
use vault_core::seal::{SealOptions, Sealed, SourceEntry, seal};
use vault_core::secret::Secret;
use vault_core::signature::PublisherPublicKey;
use vault_core::{Error, Result};

/// A fixed key file.
pub fn identity(seed: u64) -> XWingIdentity {
    XWingIdentity::generate(&mut rng(seed ^ 0x006B_6579))
}

/// The data key of an aws-kms stanza, as if KMS had given it.
pub struct DataKey(pub Secret);

impl Identity for DataKey {
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> Result<Option<Dek>> {
        Ok(Stanza::parse(stanza).and_then(|stanza| stanza.unwrap_dek(salt, &self.0)))
    }

    fn describe(&self) -> String {
        "a data key".into()
    }
}

/// A broker that opens its stanzas for itself, which none does.
pub struct BrokerSeed(pub BrokerKey);

impl Identity for BrokerSeed {
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> Result<Option<Dek>> {
        Ok(self.0.unwrap_dek(salt, stanza))
    }

    fn describe(&self) -> String {
        "a broker's key".into()
    }
}

/// Memory that can be written at any offset.
#[derive(Default)]
pub struct Memory(pub Mutex<Vec<u8>>);

impl WriteAt for Memory {
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut memory = self.0.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        if memory.len() < at + data.len() {
            memory.resize(at + data.len(), 0);
        }
        memory[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Options for a test artifact.
pub fn options(name: &str) -> SealOptions<'static> {
    SealOptions { threads: 3, chunk_size: 4096, header_len: 4096, ..SealOptions::new(name) }
}

/// Files to seal.
pub type Files<'a> = [(&'a str, &'a [u8])];

/// Seals files into memory, through offsets.
pub fn seal_files(
    files: &Files<'_>,
    to: &[&dyn Recipient],
    options: &SealOptions<'_>,
    seed: u64,
) -> Result<(Vec<u8>, Sealed)> {
    let entries = files.iter().map(|(path, data)| SourceEntry {
        path: (*path).into(),
        input: Input::At { file: data, offset: 0, len: data.len() as u64 },
    });
    let memory = Memory::default();
    let sealed = seal(entries.collect(), to, options, &mut rng(seed), Output::At(&memory))?;
    Ok((memory.0.into_inner().unwrap(), sealed))
}

/// Seals one entry from a stream, to a stream.
pub fn seal_stream(
    path: &str,
    data: &[u8],
    to: &[&dyn Recipient],
    options: &SealOptions<'_>,
    seed: u64,
) -> Result<(Vec<u8>, Sealed)> {
    let (mut input, mut out) = (Trickle(data), Vec::new());
    let entry = SourceEntry { path: path.into(), input: Input::Stream(&mut input) };
    let sealed = seal(vec![entry], to, options, &mut rng(seed), Output::Stream(&mut out))?;
    Ok((out, sealed))
}

/// A pipe that gives odd amounts.
pub struct Trickle<'a>(pub &'a [u8]);

impl io::Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(7919);
        self.0.read(&mut buf[..n])
    }
}

/// Opens the header of an artifact in memory.
pub fn unlock(bytes: &[u8], identity: &dyn Identity) -> Result<AuthenticatedHeader> {
    Header::parse(bytes)?.unlock(&[identity])
}

/// Files written under temporary names.
#[derive(Default)]
pub struct Files2(pub Mutex<Vec<(String, Vec<u8>)>>);

impl EntrySink for Files2 {
    fn begin(&self, entries: &[(String, Option<u64>)]) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        *files = entries.iter().map(|(path, _)| (path.clone(), Vec::new())).collect();
        Ok(())
    }

    fn write_at(&self, index: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        let file = &mut self.0.lock().unwrap()[index].1;
        let at = usize::try_from(offset).unwrap();
        if file.len() < at + data.len() {
            file.resize(at + data.len(), 0);
        }
        file[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// How an artifact was read, and what came out before it ended.
pub struct Outcome {
    pub result: Result<Verified>,
    /// Entry bytes released by a streaming reader.
    pub released: Vec<u8>,
}

/// Opens as a stream, chunk by chunk, releasing as it goes.
pub fn open_streaming(bytes: &[u8], identities: &[&dyn Identity], signers: &[PublisherPublicKey]) -> Outcome {
    let mut released = Vec::new();
    let mut input = Trickle(bytes);
    let result = Header::read(&mut input).and_then(|h| h.unlock(identities)).and_then(|header| {
        let options = OpenOptions { signers, threads: 3, ..OpenOptions::default() };
        open(Input::Stream(&mut input), &header, &options, Release::Stream(&mut released))
    });
    Outcome { result, released }
}

/// Opens as a file, into files.
pub fn open_file(
    bytes: &[u8],
    identities: &[&dyn Identity],
    signers: &[PublisherPublicKey],
) -> (Result<Verified>, Vec<(String, Vec<u8>)>) {
    let files = Files2::default();
    let result = Header::parse(bytes).and_then(|h| h.unlock(identities)).and_then(|header| {
        let options = OpenOptions { signers, threads: 3, ..OpenOptions::default() };
        open(payload(&bytes, &header), &header, &options, Release::Files(&files))
    });
    (result, files.0.into_inner().unwrap())
}

/// The payload of an artifact in memory.
pub fn payload<'a>(bytes: &'a &'a [u8], header: &AuthenticatedHeader) -> Input<'a> {
    let offset = u64::from(header.header().prelude().header_len);
    Input::At { file: bytes, offset, len: bytes.len() as u64 - offset }
}

/// Reads every entry through the range reader in pieces of `step` bytes.
pub fn read_ranges(bytes: &[u8], identities: &[&dyn Identity], step: u64) -> Result<Vec<(String, Vec<u8>)>> {
    let header = Header::parse(bytes)?.unlock(identities)?;
    let offset = u64::from(header.header().prelude().header_len);
    let len = bytes.len() as u64 - offset;
    let engine = vault_core::aead::Engine::AesGcm;
    let reader = RangeReader::new(&bytes, offset, len, &header, engine)?;
    let mut files = Vec::new();
    for entry in &reader.manifest().entries {
        let (mut data, mut at) = (Vec::new(), 0);
        while at < entry.size {
            let end = (at + step).min(entry.size);
            reader.read(entry, at..end, &mut |bytes| Write::write_all(&mut data, bytes))?;
            at = end;
        }
        files.push((entry.path.clone(), data));
    }
    Ok(files)
}

/// The rule a result was refused by.
pub fn rule<T>(result: &Result<T>) -> Option<u8> {
    result.as_ref().err().and_then(Error::rule).map(|r| r.0)
}
