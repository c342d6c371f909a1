//! Pickle files: one pickle after another to the end of the stream, and what torch appends.
//!
//! Owns when a stream of unknown name counts as a pickle. It does once it names an allowed or
//! known dangerous global, calls something, or has come some opcodes past PROTO; before that,
//! bytes that break the format mean "not a pickle", because no loader gets further either.
//! Bytes and texts *inside* a pickle that look like pickles are data: nothing on the
//! allow-list loads them.

mod calls;
mod joblib;
mod literals;
mod machine;
mod values;

use super::Format;
use super::Plain;
use super::allow;
use super::log::{Ctx, Grade, Log};
use super::source::{Halt, Source, bad, limit};
use machine::{Machine, Mode};
use std::io;
use values::Val;

pub(super) use values::Descr;

/// Whether a prefix is a pickle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// It breaks or ends before it could do any harm.
    No,
    /// It names or calls something that is not allowed.
    Yes,
    /// It ends too early to tell.
    Maybe,
}

/// Tries a prefix that belongs to some other format: a file can be two things at once.
pub(super) fn probe(prefix: &[u8], whole: bool) -> io::Result<Probe> {
    let mut plain = Plain(prefix);
    let mut src = Source::new(&mut plain);
    loop {
        let mode = Mode { named: false, joblib: false, nested: false };
        let mut machine = Machine::new(mode, 0);
        let end = machine.run(&mut src);
        if machine.committed && !machine.log.is_clean() {
            return Ok(Probe::Yes);
        }
        match end {
            Ok(_) if src.at_end()? => return Ok(if whole { Probe::No } else { Probe::Maybe }),
            Ok(_) => {}
            Err(Halt::Io(e)) => return Err(e),
            Err(Halt::Bad(_)) => return Ok(Probe::No),
            Err(Halt::End) if whole => return Ok(Probe::No),
            Err(Halt::End | Halt::Limit(_)) => return Ok(Probe::Maybe),
        }
    }
}

/// Scans a stream of pickles. `None`: it is none, nothing was reported.
pub(super) fn scan(ctx: &mut Ctx, src: &mut Source<'_>, named: bool) -> io::Result<Option<Format>> {
    let mut run = Run { log: Log::default(), named, committed: named, wrappers: false };
    let end = run.all(ctx, src);
    let format = match end {
        Ok(format) => format,
        Err(Halt::Io(e)) => return Err(e),
        Err(halt) => {
            // Our own limit is no proof that the stream is harmless: it is reported always.
            if !run.committed && !matches!(halt, Halt::Limit(_)) {
                return Ok(None);
            }
            run.log.add(Grade::NotScanned, &format!("pickle: {}", words(halt)), src.offset());
            Format::Pickle
        }
    };
    let format = if run.wrappers { Format::Joblib } else { format };
    ctx.absorb(run.log);
    Ok(Some(format))
}

fn words(halt: Halt) -> String {
    match halt {
        Halt::Io(e) => e.to_string(),
        Halt::End => "ends in the middle".to_owned(),
        Halt::Bad(what) | Halt::Limit(what) => what,
    }
}

struct Run {
    log: Log,
    named: bool,
    committed: bool,
    wrappers: bool,
}

impl Run {
    fn all(&mut self, ctx: &Ctx, src: &mut Source<'_>) -> Result<Format, Halt> {
        if src.at_end()? {
            return bad("empty");
        }
        let mut first = true;
        loop {
            let start = src.offset();
            let machine = Machine::new(self.mode(), ctx.depth);
            let result = self.one(src, machine).map_err(|halt| trailing(halt, first, start))?.0;
            if first && result == Val::Magic {
                self.committed = true;
                self.torch_legacy(ctx, src)?;
                return Ok(Format::TorchLegacy);
            }
            first = false;
            if src.at_end()? {
                self.committed = true;
                return Ok(Format::Pickle);
            }
        }
    }

    fn mode(&self) -> Mode {
        Mode { named: self.committed, joblib: true, nested: false }
    }

    /// Runs one pickle and keeps its findings if the stream is a pickle at all.
    fn one(&mut self, src: &mut Source<'_>, mut machine: Machine) -> Result<(Val, Machine), Halt> {
        let result = machine.run(src);
        self.committed |= machine.committed || (result.is_ok() && (machine.saw_proto || src.at_end()?));
        self.wrappers |= machine.saw_wrapper;
        let log = std::mem::take(&mut machine.log);
        let limited = matches!(result, Err(Halt::Limit(_)));
        if self.committed || limited {
            self.log.absorb(log, None);
        } else {
            self.log.pickles = self.log.pickles.saturating_add(log.pickles);
        }
        result.map(|val| (val, machine))
    }

    /// After the magic number: protocol, system, object, storage keys, then each storage as its
    /// element count and raw bytes, and nothing more.
    fn torch_legacy(&mut self, ctx: &Ctx, src: &mut Source<'_>) -> Result<(), Halt> {
        for _ in 0..2 {
            self.one(src, Machine::new(self.torch_mode(), ctx.depth))?;
        }
        let (_, object) = self.one(src, Machine::new(self.torch_mode(), ctx.depth))?;
        let mut list = Machine::new(self.torch_mode(), ctx.depth);
        list.collect = true;
        let (_, list) = self.one(src, list)?;
        if object.storage_trouble {
            return limit("torch: a persistent id that is no plain storage");
        }
        if !list.only_list || list.keys.len() != object.storages.len() {
            return bad("torch: the storage keys do not match the object");
        }
        let mut storages = object.storages;
        self.raw_is_no_pickle(src)?;
        for key in list.keys {
            let Some((count, size)) = storages.remove(&key) else {
                return bad("torch: a storage key that the object does not name, or names twice");
            };
            if src.u64()? != count {
                return bad("torch: a storage of another size than the object says");
            }
            src.skip_exact(count.checked_mul(size).ok_or(Halt::End)?)?;
        }
        if src.at_end()? { Ok(()) } else { bad("torch: bytes after the last storage") }
    }

    fn torch_mode(&self) -> Mode {
        Mode { named: self.named || self.committed, joblib: false, nested: false }
    }

    /// A loader that just loads pickle after pickle would go on into the storages.
    fn raw_is_no_pickle(&mut self, src: &mut Source<'_>) -> Result<(), Halt> {
        let at = src.offset();
        let head = src.peek(super::source::WINDOW)?.to_vec();
        if probe(&head, false)? == Probe::Yes {
            self.log.add(Grade::Danger, "torch: storages that are a pickle themselves", at);
        }
        Ok(())
    }
}

/// Says that it is what follows the last good pickle that cannot be explained.
fn trailing(halt: Halt, first: bool, start: u64) -> Halt {
    match halt {
        Halt::Bad(what) if !first => {
            Halt::Bad(format!("the bytes from offset {start} on are no further pickle: {what}"))
        }
        halt => halt,
    }
}

/// A name that a module or attribute can have without help from outside.
fn plausible(name: &str) -> bool {
    let part = |part: &str| {
        !part.starts_with(|c: char| c.is_ascii_digit())
            && !part.is_empty()
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    name.split('.').all(part)
}

/// The name behind a [`Val::Global`].
fn name_of(word: u16) -> String {
    if word == u16::MAX { "a TorchScript class".to_owned() } else { format!("'{}'", allow::word_text(word)) }
}
