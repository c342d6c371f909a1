//! Opcodes that name a global, call something or set an object's state.
//!
//! A name is allowed by the list or it is a finding; a callable is an allowed global or it is
//! a finding: results of calls, fetched attributes and anything past a limit are never called
//! in a pickle that scans as safe.

use super::machine::Machine;
use super::values::{Descr, MAX_NAME, Val};
use super::{name_of, plausible};
use crate::scan::allow::{self, Kind};
use crate::scan::log::Grade;
use crate::scan::source::{Halt, Source, bad};

/// Text encodings `_codecs.encode` may be given.
const ENCODINGS: &[&str] = &["latin1", "latin-1", "utf-8", "utf8", "ascii"];
/// TorchScript's own name space.
const TORCHSCRIPT: &str = "__torch__";

impl Machine {
    /// GLOBAL, INST, STACK_GLOBAL and the extension registry.
    pub fn name_op(&mut self, src: &mut Source<'_>, op: u8, at: u64) -> Result<(), Halt> {
        match op {
            b'c' => {
                let (module, name) = (src.line(MAX_NAME)?, src.line(MAX_NAME)?);
                let val = self.line_global(&module, &name, "global", at)?;
                self.push(val);
            }
            b'i' => {
                let (module, name) = (src.line(MAX_NAME)?, src.line(MAX_NAME)?);
                // pickle.py imports before it looks for the mark.
                let class = self.line_global(&module, &name, "INST global", at)?;
                self.pop_mark()?;
                let made = self.called(class, Val::Other, "INST", at)?;
                self.push(made);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let val = self.stack_global(module, name, at)?;
                self.push(val);
            }
            _ => {
                let code = match op {
                    0x82 => u32::from(src.byte()?),
                    0x83 => u32::from(src.u16()?),
                    _ => src.u32()?,
                };
                self.saw_global = true;
                self.log.add(Grade::Danger, &format!("opcode EXT: code {code} of the extension registry"), at);
                self.push(Val::Refused);
            }
        }
        Ok(())
    }

    fn line_global(&mut self, module: &Line, name: &Line, what: &str, at: u64) -> Result<Val, Halt> {
        match (module.text(), name.text()) {
            (Some(module), Some(name)) => self.global(module, name, what, at),
            _ if module.broken() || name.broken() => bad("a global's name is not UTF-8"),
            _ => Ok(self.unnamed("a global with an overlong name", at)),
        }
    }

    fn stack_global(&mut self, module: Val, name: Val, at: u64) -> Result<Val, Halt> {
        let words = self.arena.text_of(module).zip(self.arena.text_of(name));
        if let Some((module, name)) = words.map(|(m, n)| (m.to_owned(), n.to_owned())) {
            return self.global(&module, &name, "global", at);
        }
        let certain = |v| matches!(v, Val::None | Val::Bool(_) | Val::Int(_) | Val::Plain | Val::EmptyTuple);
        if !self.committed && (certain(module) || certain(name)) {
            return bad("STACK_GLOBAL requires str");
        }
        Ok(self.unnamed("STACK_GLOBAL on a name that is not a plain string", at))
    }

    fn unnamed(&mut self, what: &str, at: u64) -> Val {
        self.saw_global = true;
        self.log.add(Grade::Danger, what, at);
        Val::Refused
    }

    fn global(&mut self, module: &str, name: &str, what: &str, at: u64) -> Result<Val, Halt> {
        if !(self.committed || plausible(module) && plausible(name)) {
            return bad("a global with an impossible name");
        }
        self.saw_global = true;
        if let Some(kind) = allow::lookup(module, name) {
            self.committed = true;
            self.saw_wrapper |= kind == Kind::Wrapper;
            return Ok(Val::Global(kind, allow::word(name).unwrap_or_default()));
        }
        if module == TORCHSCRIPT || module.starts_with("__torch__.") {
            self.committed = true;
            self.log.pend(&format!("{what} {module}.{name}: TorchScript's names outside of a TorchScript archive"), at);
            return Ok(Val::Global(Kind::Class, u16::MAX));
        }
        let why = allow::known_bad(module, name);
        self.committed |= why.is_some();
        let why = why.unwrap_or("not on the allow-list");
        self.log.add(Grade::Danger, &format!("{what} {module}.{name}: {why}"), at);
        Ok(Val::Refused)
    }

    /// REDUCE, OBJ, NEWOBJ, NEWOBJ_EX.
    pub fn call_op(&mut self, op: u8, at: u64) -> Result<(), Halt> {
        let (callable, args, name) = match op {
            b'o' => {
                let items = self.pop_mark()?;
                let class = items.first().copied().ok_or_else(|| Halt::Bad("OBJ without a class".into()))?;
                (class, Val::Other, "OBJ")
            }
            0x92 => {
                let (_, args) = (self.pop()?, self.pop()?);
                (self.pop()?, args, "NEWOBJ_EX")
            }
            _ => {
                let args = self.pop()?;
                (self.pop()?, args, if op == b'R' { "REDUCE" } else { "NEWOBJ" })
            }
        };
        // pickle.py, which joblib uses, takes any iterable; the C code a tuple only.
        if matches!(args, Val::None | Val::Bool(_) | Val::Int(_) | Val::Magic | Val::Wrapper(_) | Val::Global(..)) {
            return bad(format!("{name} with arguments that are no sequence"));
        }
        let made = self.called(callable, args, name, at)?;
        self.push(made);
        Ok(())
    }

    /// What a call gives, and whether it is allowed.
    fn called(&mut self, callable: Val, args: Val, op: &str, at: u64) -> Result<Val, Halt> {
        if !self.saw_global && callable != Val::Unknown {
            return bad(format!("{op} on a value that is not callable"));
        }
        self.committed = true;
        let (kind, name) = match callable {
            Val::Global(kind, name) => (kind, name),
            Val::Refused => return Ok(Val::Refused),
            Val::Unknown => {
                self.log.add(Grade::NotScanned, &format!("opcode {op} on a value past the memo limit"), at);
                return Ok(Val::Refused);
            }
            _ => {
                self.log.add(Grade::Danger, &format!("opcode {op} on a computed value"), at);
                return Ok(Val::Refused);
            }
        };
        let newobj = op.starts_with("NEWOBJ");
        let fits = match kind {
            Kind::Class => true,
            Kind::Dtype if op == "REDUCE" => return Ok(self.dtype(args)),
            Kind::Wrapper if op == "NEWOBJ" && args == Val::EmptyTuple => return Ok(self.arena.wrapper()),
            Kind::Wrapper => {
                self.log.add(Grade::NotScanned, &format!("array wrapper made by {op}"), at);
                return Ok(Val::Refused);
            }
            Kind::Func => !newobj,
            Kind::Encode => !newobj && self.second_is_encoding(args),
            Kind::Retype => !newobj && self.first_is_function(args),
            Kind::Dtype | Kind::Data | Kind::Storage(_) => false,
        };
        if !fits {
            let what =
                format!("opcode {op} on {}, which is allowed as data or with other arguments only", name_of(name));
            self.log.add(Grade::Danger, &what, at);
            return Ok(Val::Refused);
        }
        Ok(Val::Other)
    }

    fn second_is_encoding(&self, args: Val) -> bool {
        let items = self.arena.items_of(args);
        let second = items.as_ref().and_then(|items| items.get(1)).and_then(|v| self.arena.text_of(*v));
        second.is_some_and(|text| ENCODINGS.contains(&text))
    }

    fn first_is_function(&self, args: Val) -> bool {
        let items = self.arena.items_of(args);
        let first = items.as_ref().and_then(|items| items.first());
        matches!(first, Some(Val::Global(Kind::Func | Kind::Class, _)))
    }

    fn dtype(&mut self, args: Val) -> Val {
        let items = self.arena.items_of(args);
        let code = items.as_ref().and_then(|items| items.first()).and_then(|v| self.arena.text_of(*v));
        let descr = code.map_or(Descr::Odd, crate::scan::npy::element);
        self.arena.dtype(descr)
    }

    /// BUILD: `__setstate__` or the object's `__dict__`.
    pub fn build(&mut self, src: &mut Source<'_>, at: u64) -> Result<(), Halt> {
        let state = self.pop()?;
        let target = self.top()?;
        if !self.saw_global && target != Val::Unknown {
            // With an empty state that is no error, and on plain data it does nothing.
            return Ok(());
        }
        self.committed = true;
        match target {
            Val::Global(_, name) => {
                let what = format!("opcode BUILD on the global {}, changing it for the whole process", name_of(name));
                self.log.add(Grade::Danger, &what, at);
            }
            Val::Unknown => self.log.add(Grade::NotScanned, "opcode BUILD on a value past the memo limit", at),
            Val::Dtype(id) => self.build_dtype(id, state),
            Val::Wrapper(id) => return self.build_wrapper(src, id, state, at),
            _ => {}
        }
        Ok(())
    }

    /// A dtype's state `(version, order, subarray, names, fields, ...)`: with any of the last
    /// three it is not a plain element any more.
    fn build_dtype(&mut self, id: u32, state: Val) {
        let items = self.arena.items_of(state);
        let plain = matches!(items.as_deref(), Some([_, _, Val::None, Val::None, Val::None, ..]));
        if !plain {
            self.arena.set_descr(id, Descr::Odd);
        }
    }
}

type Line = (Vec<u8>, bool);

trait Text {
    fn text(&self) -> Option<&str>;
    fn broken(&self) -> bool;
}

impl Text for Line {
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().filter(|_| self.1)
    }

    fn broken(&self) -> bool {
        self.1 && std::str::from_utf8(&self.0).is_err()
    }
}
