//! joblib's raw arrays: bytes in the stream right after the BUILD of an array wrapper.
//!
//! The stream has two readers, and both must be safe. joblib takes the bytes as array data;
//! plain `pickle.load` takes them as opcodes. With joblib 1.2 and later the first of them is a
//! padding length, which is no opcode and stops plain pickle; older streams are tried as
//! opcodes too.

use super::machine::{Machine, Mode};
use super::values::{Descr, Val};
use crate::scan::Plain;
use crate::scan::allow::word_text;
use crate::scan::log::{Grade, MAX_DEPTH};
use crate::scan::source::{Halt, Source, WINDOW, limit};

/// Largest padding joblib writes before an array, in bytes. No opcode is that small.
const MAX_PADDING: u8 = 16;

/// What follows a wrapper.
struct Follows {
    descr: Descr,
    count: u64,
    padded: bool,
}

impl Machine {
    /// BUILD of an array wrapper.
    pub fn build_wrapper(&mut self, src: &mut Source<'_>, id: u32, state: Val, at: u64) -> Result<(), Halt> {
        if !self.arena.build_wrapper(id) {
            return limit("array wrapper built twice");
        }
        if !self.mode.joblib {
            self.log.add(Grade::NotScanned, "array wrapper inside an array of objects", at);
            return Ok(());
        }
        let Some(follows) = self.follows(state) else { return limit("array wrapper with an unusual state") };
        if self.messy || self.frame.is_some_and(|end| end > src.offset()) {
            return limit("array wrapper in the middle of a frame");
        }
        match follows.descr {
            Descr::Odd => return limit("raw array of a structured type"),
            Descr::Objects => self.objects(src)?,
            Descr::Raw(size) => self.raw(src, &follows, size)?,
        }
        self.set_top(Val::Other);
        Ok(())
    }

    /// Reads the wrapper's attributes; `None` when any of them is missing, doubled or unclear.
    fn follows(&self, state: Val) -> Option<Follows> {
        let items = self.arena.dict_items(state)?;
        let (mut shape, mut descr, mut padded, mut subclass) = (None, None, None, None);
        for (key, value) in items {
            let Val::Word(key) = key else { return None };
            let doubled = match word_text(*key) {
                "shape" => shape.replace(self.arena.items_of(*value)?).is_some(),
                "dtype" => descr.replace(self.arena.descr(*value)?).is_some(),
                "numpy_array_alignment_bytes" => {
                    let some = match value {
                        Val::Int(_) => true,
                        Val::None => false,
                        _ => return None,
                    };
                    padded.replace(some).is_some()
                }
                "subclass" => subclass.replace(matches!(value, Val::Global(..)).then_some(())?).is_some(),
                "order" | "allow_mmap" => false,
                _ => return None,
            };
            if doubled {
                return None;
            }
        }
        subclass?;
        let mut count: u64 = 1;
        for dim in shape?.iter() {
            let Val::Int(dim) = dim else { return None };
            count = count.checked_mul(u64::try_from(*dim).ok()?).filter(|n| *n < 1 << 60)?;
        }
        Some(Follows { descr: descr?, count, padded: padded.unwrap_or(false) })
    }

    fn raw(&mut self, src: &mut Source<'_>, follows: &Follows, size: u64) -> Result<(), Halt> {
        let Some(bytes) = follows.count.checked_mul(size).filter(|_| size > 0) else {
            return limit("raw array of impossible size");
        };
        if follows.padded {
            let padding = src.byte()?;
            if padding > MAX_PADDING {
                return limit("raw array with too much padding");
            }
            src.skip_exact(u64::from(padding))?;
        } else {
            self.try_as_opcodes(src)?;
        }
        src.skip_exact(bytes)
    }

    /// What plain pickle would make of an unpadded array's bytes, from this very state.
    fn try_as_opcodes(&mut self, src: &mut Source<'_>) -> Result<(), Halt> {
        let at = src.offset();
        let head = src.peek(WINDOW)?.to_vec();
        let mut fork = self.clone();
        fork.log = crate::scan::log::Log::default();
        fork.mode = Mode { joblib: false, ..self.mode };
        let mut plain = Plain(head.as_slice());
        let end = fork.run(&mut Source::new(&mut plain));
        if !fork.log.is_clean() {
            self.log.add(Grade::Danger, "raw array whose bytes are opcodes for plain pickle", at);
            return Ok(());
        }
        match end {
            Ok(_) | Err(Halt::Bad(_)) => Ok(()),
            Err(Halt::Io(e)) => Err(Halt::Io(e)),
            Err(_) => limit("raw array that plain pickle would read on"),
        }
    }

    /// An array of objects: a pickle of its own. Plain pickle would go on with the outer memo,
    /// so MEMOIZE, whose index differs between the two, is refused inside (joblib writes
    /// protocol 2 here); every other opcode means the same to both.
    fn objects(&mut self, src: &mut Source<'_>) -> Result<(), Halt> {
        if self.depth >= MAX_DEPTH {
            return limit("arrays of objects nested too deep");
        }
        let mode = Mode { named: true, joblib: false, nested: true };
        let mut inner = Machine::new(mode, self.depth + 1);
        let end = inner.run(src);
        inner.log.pickles = 0;
        self.log.absorb(inner.log, None);
        end.map(|_| ())
    }
}
