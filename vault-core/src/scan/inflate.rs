//! Decompression of deflate bodies as a stream, under one budget for the whole scan.
//!
//! Used for zip members, and for gzip and zlib files (what joblib writes with `compress=`).
//! Broken data ends the stream and is remembered as a fault: the caller must ask for it. A
//! bomb is a fault as well.

use super::log::{Budget, Ctx, Grade};
use super::source::{Halt, Source, bad};
use super::{Format, ScanRead, detect};
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, Read};
use std::rc::Rc;

/// Output that is free of the ratio test, in bytes.
const FREE_OUTPUT: u64 = 64 << 20;
/// Output allowed for each byte of the outermost file beyond that. Deflate reaches 1032; real
/// weights stay under 3, sparse masks under 200.
const MAX_RATIO: u64 = 256;
/// Output of one scan in total, in bytes.
const MAX_OUTPUT: u64 = 1 << 40;
/// Compressed input looked at in one step, and output made of it.
const STEP: usize = 32 * 1024;
/// Output that settles the question whether a head is zlib.
const INFLATES_ENOUGH: u64 = 1 << 20;
/// gzip header flags.
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;

/// How a deflate stream is wrapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrap {
    /// Bare, as in zip.
    Raw,
    /// zlib, with its own checksum.
    Zlib,
    /// gzip, one member after another.
    Gzip,
}

/// A decompressing reader. Consumes exactly the compressed stream from the source.
pub(super) struct Inflate<'x, 'y> {
    src: &'x mut Source<'y>,
    machine: Decompress,
    wrap: Wrap,
    out: Vec<u8>,
    lo: usize,
    budget: Rc<Budget>,
    crc: crc32fast::Hasher,
    started: bool,
    done: bool,
    /// Bytes made so far.
    pub total: u64,
    member: u64,
    /// Why the stream ended before its end.
    pub fault: Option<String>,
}

impl<'x, 'y> Inflate<'x, 'y> {
    pub fn new(src: &'x mut Source<'y>, wrap: Wrap, budget: Rc<Budget>) -> Self {
        Self {
            src,
            machine: Decompress::new(wrap == Wrap::Zlib),
            wrap,
            out: Vec::new(),
            lo: 0,
            budget,
            crc: crc32fast::Hasher::new(),
            started: false,
            done: false,
            total: 0,
            member: 0,
            fault: None,
        }
    }

    /// CRC-32 of everything made so far.
    pub fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Makes some output; leaves `out` empty only at the end.
    fn fill(&mut self) -> io::Result<()> {
        self.out.clear();
        self.lo = 0;
        while self.out.is_empty() && !self.done {
            match self.step() {
                Ok(()) => {}
                Err(Halt::Io(e)) => return Err(e),
                Err(Halt::End) => self.fail("compressed data ends too early".to_owned()),
                Err(Halt::Bad(what) | Halt::Limit(what)) => self.fail(what),
            }
        }
        Ok(())
    }

    fn fail(&mut self, what: String) {
        self.fault = Some(what);
        self.done = true;
        self.out.clear();
    }

    fn step(&mut self) -> Result<(), Halt> {
        if self.wrap == Wrap::Gzip && !self.started {
            gzip_header(self.src)?;
        }
        self.started = true;
        let chunk = self.src.chunk()?;
        if chunk.is_empty() {
            return Err(Halt::End);
        }
        let input = chunk.get(..STEP.min(chunk.len())).unwrap_or_default();
        self.out.reserve(STEP);
        let before = (self.machine.total_in(), self.machine.total_out());
        let status = self.machine.decompress_vec(input, &mut self.out, FlushDecompress::None);
        let Ok(status) = status else { return bad("compressed data is broken") };
        let used = usize::try_from(self.machine.total_in() - before.0).unwrap_or(usize::MAX);
        let made = self.machine.total_out() - before.1;
        self.src.consume(used);
        self.crc.update(&self.out);
        self.account(made)?;
        match status {
            Status::StreamEnd => self.end_of_stream(),
            _ if used == 0 && made == 0 => bad("compressed data makes no progress"),
            _ => Ok(()),
        }
    }

    fn account(&mut self, made: u64) -> Result<(), Halt> {
        self.total = self.total.saturating_add(made);
        self.member = self.member.saturating_add(made);
        let all = self.budget.inflated.get().saturating_add(made);
        self.budget.inflated.set(all);
        let allowed = FREE_OUTPUT.saturating_add(self.budget.outer.get().saturating_mul(MAX_RATIO));
        if all > allowed.min(MAX_OUTPUT) {
            return bad("decompresses to far more than the file's size: a zip bomb");
        }
        Ok(())
    }

    fn end_of_stream(&mut self) -> Result<(), Halt> {
        if self.wrap != Wrap::Gzip {
            self.done = true;
            return Ok(());
        }
        let (crc, len) = (self.src.u32()?, self.src.u32()?);
        let hasher = std::mem::take(&mut self.crc);
        if crc != hasher.finalize() || u64::from(len) != self.member & 0xffff_ffff {
            return bad("gzip checksum does not fit");
        }
        self.member = 0;
        self.done = self.src.at_end()?;
        self.started = false;
        self.machine.reset(false);
        Ok(())
    }
}

fn gzip_header(src: &mut Source<'_>) -> Result<(), Halt> {
    let [a, b, method, flags, ..] = src.array::<10>()?;
    if (a, b, method) != (0x1f, 0x8b, 8) || flags & 0xe0 != 0 {
        return bad("bytes after the gzip stream, or no gzip header");
    }
    if flags & FEXTRA != 0 {
        let len = src.u16()?;
        src.skip_exact(u64::from(len))?;
    }
    for text in [FNAME, FCOMMENT] {
        while flags & text != 0 && src.byte()? != 0 {}
    }
    if flags & FHCRC != 0 {
        src.u16()?;
    }
    Ok(())
}

impl Read for Inflate<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.lo >= self.out.len() {
            self.fill()?;
        }
        let ready = self.out.get(self.lo..).unwrap_or_default();
        let n = ready.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(ready) {
            *to = *from;
        }
        self.lo += n;
        Ok(n)
    }
}

impl ScanRead for Inflate<'_, '_> {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let mut done = 0;
        while done < n {
            if self.lo >= self.out.len() {
                self.fill()?;
            }
            let ready = (self.out.len() - self.lo) as u64;
            if ready == 0 {
                break;
            }
            let step = ready.min(n - done);
            self.lo += usize::try_from(step).unwrap_or(0);
            done += step;
        }
        Ok(done)
    }
}

/// Scans what a gzip or zlib file holds; `None` when it is neither.
pub(super) fn scan_compressed(
    ctx: &mut Ctx,
    path: &str,
    named: bool,
    head: &[u8],
    src: &mut Source<'_>,
) -> io::Result<Option<Format>> {
    let wrap = match head {
        [0x1f, 0x8b, 8, ..] => Wrap::Gzip,
        // The compression method and the header's own check.
        [0x78, flags, ..] if (0x7800 + u32::from(*flags)).is_multiple_of(31) => Wrap::Zlib,
        _ => return Ok(None),
    };
    // Text can begin like zlib ("x^"): then it must also read like it, or hold something.
    let certain = named || wrap == Wrap::Gzip || inflates(head);
    let Some(outer) = ctx.enter(None) else {
        ctx.add(Grade::NotScanned, "containers nested too deep", 0);
        return Ok(Some(Format::Compressed));
    };
    let inner_name = path.strip_suffix(".gz").or_else(|| path.strip_suffix(".z")).unwrap_or(path);
    let mut body = Inflate::new(src, wrap, ctx.budget.clone());
    let format = detect::scan_stream(ctx, inner_name, &mut Source::new(&mut body))?;
    let fault = body.fault.take();
    ctx.leave(outer);
    if fault.is_some() && !certain && format == Format::Other {
        return Ok(Some(Format::Other));
    }
    if let Some(fault) = fault {
        ctx.add(Grade::NotScanned, &fault, src.offset());
    } else if !src.at_end()? {
        ctx.add(Grade::NotScanned, "bytes after the compressed data", src.offset());
    }
    let pickled = matches!(format, Format::Pickle | Format::Joblib);
    Ok(Some(if pickled { Format::Joblib } else { Format::Compressed }))
}

/// Whether a head is zlib for certain: it decompresses to its end, or all of a full window does.
fn inflates(head: &[u8]) -> bool {
    let mut machine = Decompress::new(true);
    let mut out = Vec::new();
    let mut rest = head;
    while !rest.is_empty() {
        out.clear();
        out.reserve(STEP);
        let before = machine.total_in();
        let status = machine.decompress_vec(rest, &mut out, FlushDecompress::None);
        let used = usize::try_from(machine.total_in() - before).unwrap_or(usize::MAX);
        rest = rest.get(used..).unwrap_or_default();
        match status {
            Ok(Status::StreamEnd) => return true,
            Err(_) => return false,
            Ok(_) if used == 0 && out.is_empty() => return false,
            // A head can hold a bomb of 1000 times its size; that much is zlib.
            Ok(_) if machine.total_out() > INFLATES_ENOUGH => return true,
            Ok(_) => {}
        }
    }
    head.len() == super::source::WINDOW
}
