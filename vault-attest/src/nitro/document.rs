//! The signed payload of a Nitro document: its fields (V-6, V-7) and what they may hold (V-8 to V-12).

use super::reader::Reader;
use super::{MAX_SKEW_S, Mode};
use crate::evidence::{MAX_PCRS, Pcr};
use crate::step::{Refusal, Step};

/// Seconds since 1970 when AWS's root was made: 2019-10-28T13:28:05Z `[V-9]`.
const EARLIEST_S: u64 = 1_572_269_285;
/// 2100-01-01T00:00:00Z `[V-9]`.
const LATEST_S: u64 = 4_102_444_800;
/// Largest certificate in bytes `[V-11]`.
const MAX_CERTIFICATE: usize = 2048;
/// Most certificates of a bundle `[V-11]`.
const MAX_BUNDLE: usize = 8;
/// Largest public_key, user_data and nonce in bytes `[V-12]`.
const MAX_DATA: usize = 1024;
/// Longest module_id in bytes.
const MAX_MODULE_ID: usize = 255;

/// The fields as they stand in the payload.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub module_id: Option<&'a str>,
    pub digest: Option<&'a str>,
    pub timestamp: Option<u64>,
    pub pcrs: Option<Vec<(u64, &'a [u8])>>,
    pub certificate: Option<&'a [u8]>,
    pub cabundle: Option<Vec<&'a [u8]>>,
    pub public_key: Option<&'a [u8]>,
    pub user_data: Option<&'a [u8]>,
    pub nonce: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// V-6 and V-7. What is allocated grows with the bytes that are there.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(payload, Step::V(6));
        let mut fields = Self::default();
        let len = reader.map("the payload")?;
        let mut read = 0;
        while reader.more(len, read, "the payload")? {
            let name = reader.text("a field's name")?;
            reader.set_step(Step::V(7));
            fields.read(name, &mut reader)?;
            reader.set_step(Step::V(6));
            read += 1;
        }
        reader.end("the payload")?;
        Ok(fields)
    }

    fn read(&mut self, name: &str, reader: &mut Reader<'a>) -> Result<(), Refusal> {
        match name {
            "module_id" => once(&mut self.module_id, name, reader.text(name)?),
            "digest" => once(&mut self.digest, name, reader.text(name)?),
            "timestamp" => once(&mut self.timestamp, name, reader.unsigned(name)?),
            "pcrs" => once(&mut self.pcrs, name, pcrs(reader)?),
            "certificate" => once(&mut self.certificate, name, reader.bytes(name)?),
            "cabundle" => once(&mut self.cabundle, name, bundle(reader)?),
            "public_key" => once(&mut self.public_key, name, reader.bytes_or_null(name)?),
            "user_data" => once(&mut self.user_data, name, reader.bytes_or_null(name)?),
            "nonce" => once(&mut self.nonce, name, reader.bytes_or_null(name)?),
            _ => Err(Refusal::new(Step::V(7), "the payload", "the nine known fields", format!("a field {name:?}"))),
        }
    }
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(Step::V(7), name, "the field once", "twice")),
    }
}

fn pcrs<'a>(reader: &mut Reader<'a>) -> Result<Vec<(u64, &'a [u8])>, Refusal> {
    let mut found = Vec::new();
    let len = reader.map("pcrs")?;
    while reader.more(len, found.len() as u64, "pcrs")? {
        let index = reader.unsigned("a PCR's index")?;
        found.push((index, reader.bytes("a PCR")?));
    }
    Ok(found)
}

fn bundle<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, Refusal> {
    let mut found = Vec::new();
    let len = reader.array("cabundle")?;
    while reader.more(len, found.len() as u64, "cabundle")? {
        found.push(reader.bytes("a certificate of cabundle")?);
    }
    Ok(found)
}

/// The fields, within their bounds; not yet authentic.
pub(super) struct Document<'a> {
    pub module_id: &'a str,
    pub timestamp_ms: u64,
    pub pcrs: [Option<Pcr>; MAX_PCRS],
    pub certificate: &'a [u8],
    pub cabundle: Vec<&'a [u8]>,
    pub public_key: &'a [u8],
    pub user_data: &'a [u8],
    pub nonce: &'a [u8],
}

impl<'a> Document<'a> {
    /// V-7 (nothing is missing) to V-12.
    pub fn check(fields: &Fields<'a>, mode: Mode) -> Result<Self, Refusal> {
        let found = Self {
            module_id: present(fields.module_id, "module_id")?,
            timestamp_ms: present(fields.timestamp, "timestamp")?,
            pcrs: [None; MAX_PCRS],
            certificate: present(fields.certificate, "certificate")?,
            cabundle: present(fields.cabundle.clone(), "cabundle")?,
            public_key: present(fields.public_key, "public_key")?,
            user_data: present(fields.user_data, "user_data")?,
            nonce: present(fields.nonce, "nonce")?,
        };
        let (digest, pcrs) = (present(fields.digest, "digest")?, present(fields.pcrs.as_ref(), "pcrs")?);
        check_module_id(found.module_id)?;
        if digest != "SHA384" {
            return Err(Refusal::new(Step::V(8), "digest", "SHA384", digest));
        }
        check_time(found.timestamp_ms, mode)?;
        let pcrs = check_pcrs(pcrs)?;
        check_certificates(found.certificate, &found.cabundle)?;
        for (name, data) in [("public_key", found.public_key), ("user_data", found.user_data), ("nonce", found.nonce)] {
            at_most(Step::V(12), name, 0..=MAX_DATA, data)?;
        }
        Ok(Self { pcrs, ..found })
    }
}

fn present<T>(field: Option<T>, name: &str) -> Result<T, Refusal> {
    field.ok_or_else(|| Refusal::new(Step::V(7), name, "the field", "nothing"))
}

fn at_most(step: Step, name: &str, bytes: std::ops::RangeInclusive<usize>, data: &[u8]) -> Result<(), Refusal> {
    if bytes.contains(&data.len()) {
        return Ok(());
    }
    let expected = format!("{} to {} bytes", bytes.start(), bytes.end());
    Err(Refusal::new(step, name, expected, format!("{} bytes", data.len())))
}

fn check_module_id(id: &str) -> Result<(), Refusal> {
    let good = (1..=MAX_MODULE_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let expected = format!("1 to {MAX_MODULE_ID} printable characters");
    if good { Ok(()) } else { Err(Refusal::new(Step::V(7), "module_id", expected, id)) }
}

/// `[V-9]`
fn check_time(timestamp: u64, mode: Mode) -> Result<(), Refusal> {
    let seconds = timestamp / 1000;
    if !(EARLIEST_S..LATEST_S).contains(&seconds) {
        let expected = "a time in milliseconds, 2019-10-28 to 2100";
        return Err(Refusal::new(Step::V(9), "timestamp", expected, timestamp));
    }
    if let Mode::Live { now_s } = mode
        && seconds > now_s.saturating_add(MAX_SKEW_S)
    {
        let expected = format!("at most {MAX_SKEW_S} s after now ({now_s})");
        return Err(Refusal::new(Step::V(9), "timestamp", expected, format!("{} s after", seconds - now_s)));
    }
    Ok(())
}

/// `[V-10]`
fn check_pcrs(list: &[(u64, &[u8])]) -> Result<[Option<Pcr>; MAX_PCRS], Refusal> {
    let refuse = |what: String, expected: &str, found: String| Err(Refusal::new(Step::V(10), what, expected, found));
    let mut pcrs = [None; MAX_PCRS];
    for &(index, value) in list {
        let Some(slot) = usize::try_from(index).ok().and_then(|i| pcrs.get_mut(i)) else {
            return refuse("a PCR's index".into(), "0 to 31", index.to_string());
        };
        let Ok(value) = Pcr::try_from(value) else {
            return refuse(format!("PCR{index}"), "48 bytes", format!("{} bytes", value.len()));
        };
        if slot.replace(value).is_some() {
            return refuse(format!("PCR{index}"), "it once", "twice".into());
        }
    }
    match (0..3).find(|&i| pcrs.get(i).is_none_or(Option::is_none)) {
        Some(missing) => refuse(format!("PCR{missing}"), "a value", "nothing".into()),
        None => Ok(pcrs),
    }
}

/// `[V-11]`
fn check_certificates(leaf: &[u8], bundle: &[&[u8]]) -> Result<(), Refusal> {
    at_most(Step::V(11), "certificate", 1..=MAX_CERTIFICATE, leaf)?;
    if !(1..=MAX_BUNDLE).contains(&bundle.len()) {
        let expected = format!("1 to {MAX_BUNDLE} certificates");
        return Err(Refusal::new(Step::V(11), "cabundle", expected, bundle.len()));
    }
    let mut members = bundle.iter().enumerate();
    members.try_for_each(|(i, c)| at_most(Step::V(11), &format!("cabundle[{i}]"), 1..=MAX_CERTIFICATE, c))
}
