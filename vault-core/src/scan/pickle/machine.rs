//! The abstract pickle machine: every opcode's effect on stack and memo, nothing executed.
//!
//! It mirrors CPython's unpickler. Where the two could differ it is the more permissive one
//! (a pickle CPython refuses may be scanned, never the other way round), so [`Halt::Bad`]
//! means that a loader stops here too. Numbers and texts are in `literals.rs`, what names or calls in `calls.rs`, joblib's raw arrays in `joblib.rs`.

use super::literals::{integer, length};
use super::values::{Arena, MAX_NAME, Memo, Val};
use crate::scan::log::{Grade, Log};
use crate::scan::source::{Halt, Source, bad, limit};
use std::collections::HashMap;

/// Values on the stack, 16 bytes each.
const MAX_STACK: usize = 1 << 17;
/// Open marks.
const MAX_MARKS: usize = 1 << 16;
/// Opcodes after PROTO that make a stream of unknown name a pickle for good: random bytes get
/// that far once in some hundred million files.
const FIRM_OPS: u64 = 7;
/// Storages of one legacy PyTorch file, and its keys.
const MAX_STORAGES: usize = 1 << 14;
/// How a pickle is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    /// The name says that it is a pickle, so that failing to parse is a finding.
    pub named: bool,
    /// joblib may be the loader: raw arrays are followed.
    pub joblib: bool,
    /// Inside a joblib stream, where a plain loader would go on with the outer memo.
    pub nested: bool,
}

/// One run from PROTO to STOP.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations of one run")]
pub(super) struct Machine {
    pub mode: Mode,
    pub log: Log,
    pub stack: Vec<Val>,
    pub marks: Vec<usize>,
    pub memo: Memo,
    pub arena: Arena,
    pub depth: u32,
    /// This is a pickle, whatever the name says.
    pub committed: bool,
    /// Some global was named, so a call can do something.
    pub saw_global: bool,
    pub saw_wrapper: bool,
    pub saw_proto: bool,
    ops: u64,
    /// End of the current frame, and whether frames overlapped.
    pub frame: Option<u64>,
    pub messy: bool,
    /// Legacy storages by key, with their sizes in elements and bytes per element.
    pub storages: HashMap<String, (u64, u64)>,
    pub storage_trouble: bool,
    /// Texts appended to lists, in order, while `collect` is on.
    pub collect: bool,
    pub keys: Vec<String>,
    pub only_list: bool,
}

impl Machine {
    pub fn new(mode: Mode, depth: u32) -> Self {
        Self {
            mode,
            log: Log::default(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::new(),
            arena: Arena::new(),
            depth,
            committed: mode.named,
            saw_global: false,
            saw_wrapper: false,
            saw_proto: false,
            ops: 0,
            frame: None,
            messy: false,
            storages: HashMap::new(),
            storage_trouble: false,
            collect: false,
            keys: Vec::new(),
            only_list: true,
        }
    }

    /// Runs to STOP and returns what the pickle would load as.
    pub fn run(&mut self, src: &mut Source<'_>) -> Result<Val, Halt> {
        loop {
            let at = src.offset();
            let op = src.byte()?;
            self.ops = self.ops.saturating_add(1);
            if op == b'.' {
                let result = self.pop()?;
                self.log.pickles = self.log.pickles.saturating_add(1);
                return Ok(result);
            }
            self.step(src, op, at)?;
            if self.stack.len() > MAX_STACK || self.marks.len() > MAX_MARKS {
                return limit("more values on the stack than the scanner keeps");
            }
            if self.saw_proto && self.ops > FIRM_OPS {
                self.committed = true;
            }
        }
    }

    fn step(&mut self, src: &mut Source<'_>, op: u8, at: u64) -> Result<(), Halt> {
        let listish = matches!(op, 0x80 | 0x94 | 0x95 | b']' | b'(' | b'q' | b'r' | b'X' | b'U' | 0x8c | b'a' | b'e');
        self.only_list &= listish;
        match op {
            0x80 | 0x95 | 0x97 | 0x98 => self.framing(src, op, at),
            b'N' | 0x88 | 0x89 | b'I' | b'J' | b'K' | b'M' | b'L' | 0x8a | 0x8b | b'F' | b'G' => self.number(src, op),
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => self.string(src, op),
            b'(' | b'0' | b'1' | b'2' | b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => {
                self.container(op)
            }
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(op, at),
            b'p' | b'q' | b'r' | b'g' | b'h' | b'j' | 0x94 => self.memo_op(src, op),
            b'c' | b'i' | 0x93 | 0x82..=0x84 => self.name_op(src, op, at),
            b'o' | 0x81 | 0x92 | b'R' => self.call_op(op, at),
            b'b' => self.build(src, at),
            b'P' => self.persistent_line(src),
            b'Q' => self.persistent(),
            _ => bad(format!("unknown opcode 0x{op:02x}")),
        }
    }

    pub fn push(&mut self, val: Val) {
        self.stack.push(val);
    }

    fn fence(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub fn pop(&mut self) -> Result<Val, Halt> {
        if self.stack.len() <= self.fence() {
            return bad("stack underflow");
        }
        self.stack.pop().ok_or_else(|| Halt::Bad("stack underflow".into()))
    }

    pub fn top(&self) -> Result<Val, Halt> {
        if self.stack.len() <= self.fence() {
            return bad("stack underflow");
        }
        self.stack.last().copied().ok_or_else(|| Halt::Bad("stack underflow".into()))
    }

    pub fn set_top(&mut self, val: Val) {
        if let Some(top) = self.stack.last_mut() {
            *top = val;
        }
    }

    /// The values above the last mark, which goes away.
    pub fn pop_mark(&mut self) -> Result<Vec<Val>, Halt> {
        let mark = self.marks.pop().ok_or_else(|| Halt::Bad("no mark on the stack".into()))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn framing(&mut self, src: &mut Source<'_>, op: u8, at: u64) -> Result<(), Halt> {
        match op {
            0x80 => {
                if src.byte()? > 5 {
                    return bad("unsupported protocol");
                }
                self.saw_proto |= at == 0 || self.ops == 1;
            }
            0x95 => {
                let len = length(src.u64()?)?;
                self.messy |= self.frame.is_some_and(|end| end > at);
                self.frame = Some(src.offset().saturating_add(len));
            }
            0x97 => {
                self.log.add(Grade::NotScanned, "opcode NEXT_BUFFER takes data from outside the file", at);
                self.push(Val::Other);
            }
            _ => {
                self.top()?;
            }
        }
        Ok(())
    }

    fn container(&mut self, op: u8) -> Result<(), Halt> {
        match op {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                if self.stack.len() > self.fence() {
                    self.stack.pop();
                } else {
                    self.pop_mark()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => self.push(self.top()?),
            b')' => self.push(Val::EmptyTuple),
            b't' => {
                let items = self.pop_mark()?;
                let tuple = self.arena.tuple(&items);
                self.push(tuple);
            }
            0x85..=0x87 => {
                let count = usize::from(op - 0x84);
                let at = self.stack.len().checked_sub(count).filter(|at| *at >= self.fence());
                let Some(at) = at else { return bad("stack underflow") };
                let items = self.stack.split_off(at);
                let tuple = self.arena.tuple(&items);
                self.push(tuple);
            }
            b']' | 0x8f => self.push(Val::Plain),
            b'l' | 0x91 => {
                self.pop_mark()?;
                self.push(Val::Plain);
            }
            b'}' => {
                let dict = self.arena.dict();
                self.push(dict);
            }
            _ => {
                let items = self.pop_mark()?;
                let dict = self.arena.dict();
                if let Val::Dict(id) = dict {
                    self.arena.set_items(id, &items);
                }
                self.push(dict);
            }
        }
        Ok(())
    }

    /// APPEND(S), SETITEM(S), ADDITEMS: put items into the object below them.
    fn fill(&mut self, op: u8, at: u64) -> Result<(), Halt> {
        let items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        match self.top()? {
            Val::Global(_, name) => {
                self.log.add(Grade::Danger, &format!("items set on the global {}", super::name_of(name)), at);
            }
            Val::Unknown => self.log.add(Grade::NotScanned, "items set on a value past the memo limit", at),
            Val::Wrapper(_) => self.log.add(Grade::NotScanned, "items set on an array wrapper", at),
            Val::Dict(id) if matches!(op, b's' | b'u') => self.arena.set_items(id, &items),
            _ => {}
        }
        if self.collect {
            for item in items {
                match self.arena.text_of(item) {
                    Some(text) if self.keys.len() < MAX_STORAGES => self.keys.push(text.to_owned()),
                    _ => self.only_list = false,
                }
            }
        }
        Ok(())
    }

    fn memo_op(&mut self, src: &mut Source<'_>, op: u8) -> Result<(), Halt> {
        let index = match op {
            b'p' | b'g' => match integer(&src.line(MAX_NAME)?.0)? {
                Val::Int(n) if n >= 0 => n.unsigned_abs(),
                _ => return bad("memo index is not a number"),
            },
            b'q' | b'h' => u64::from(src.byte()?),
            b'r' | b'j' => u64::from(src.u32()?),
            _ if self.mode.nested => return limit("MEMOIZE in an array of objects"),
            _ => {
                let top = self.top()?;
                self.memo.memoize(top);
                return Ok(());
            }
        };
        if matches!(op, b'p' | b'q' | b'r') {
            let top = self.top()?;
            self.memo.put(index, top);
            return Ok(());
        }
        let val = self.memo.get(index).ok_or_else(|| Halt::Bad(format!("memo has no entry {index}")))?;
        self.push(val);
        Ok(())
    }

    /// PERSID: a loader takes ASCII only.
    fn persistent_line(&mut self, src: &mut Source<'_>) -> Result<(), Halt> {
        if !src.line(MAX_NAME)?.0.is_ascii() {
            return bad("persistent id is not ASCII");
        }
        self.storage_trouble = true;
        self.push(Val::Other);
        Ok(())
    }

    /// BINPERSID: torch's storages.
    fn persistent(&mut self) -> Result<(), Halt> {
        let id = self.pop()?;
        if self.storage(id).is_none() {
            self.storage_trouble = true;
        }
        self.push(Val::Other);
        Ok(())
    }

    fn storage(&mut self, id: Val) -> Option<()> {
        let items = self.arena.items_of(id)?;
        let [kind, class, key, _, Val::Int(count), ..] = items.as_ref() else { return None };
        let Val::Global(crate::scan::allow::Kind::Storage(size), _) = class else { return None };
        let (kind, key) = (self.arena.text_of(*kind)?, self.arena.text_of(*key)?);
        let entry = (u64::try_from(*count).ok()?, u64::from(*size));
        if kind != "storage" || (self.storages.len() >= MAX_STORAGES && !self.storages.contains_key(key)) {
            return None;
        }
        let before = self.storages.insert(key.to_owned(), entry);
        (before.is_none() || before == Some(entry)).then_some(())
    }
}
