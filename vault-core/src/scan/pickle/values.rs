//! What stands on the abstract stack and in the abstract memo of the pickle machine.
//!
//! Values are small and copied; text, tuples and dicts are kept only in bounded rings of the
//! most recent ones. A value that fell out of a ring is *unknown*, and everything that needs
//! to know it is refused: memory is bounded and nothing is guessed.

use crate::scan::allow::{self, Kind};
use std::collections::VecDeque;
use std::rc::Rc;

/// Longest text that can be a module, a name or a storage key, in bytes.
pub(super) const MAX_NAME: usize = 256;
/// Texts kept: at most this many times [`MAX_NAME`], 1 MiB.
const TEXTS: usize = 4096;
/// Tuples kept.
const TUPLES: usize = 2048;
/// Longest tuple whose items are kept; a dtype's state has nine.
const TUPLE_ITEMS: usize = 16;
/// Dicts kept, and the items of one that are kept: joblib's wrapper has six.
const DICTS: usize = 64;
const DICT_ITEMS: usize = 16;
/// Element types kept.
const DTYPES: usize = 4096;
/// Memo entries kept, 16 bytes each; later ones are unknown when fetched.
const MEMO: u64 = 1 << 19;
const MEMO_CHUNK: u64 = 1024;

/// An abstract value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Val {
    /// Any object whose kind does not matter.
    Other,
    /// A list, set, float, bytes: plain data that is certainly not callable.
    Plain,
    /// What a refused global or call gave; already reported.
    Refused,
    /// Past a limit: could be anything.
    Unknown,
    None,
    Bool(bool),
    Int(i64),
    /// torch's legacy magic number.
    Magic,
    /// A text that is a word of the allow-list.
    Word(u16),
    /// Another short text, in the ring.
    Text(u32),
    /// A text that is not kept: long, escaped or not UTF-8.
    Opaque,
    /// An allowed global and the word of its name.
    Global(Kind, u16),
    EmptyTuple,
    Tuple(u32),
    Dict(u32),
    Dtype(u32),
    Wrapper(u32),
}

/// What is known of an element type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::scan) enum Descr {
    /// Fixed-size elements without objects, in bytes.
    Raw(u64),
    /// Python objects: a pickle stands in place of raw bytes.
    Objects,
    /// Structured or odd: not modelled.
    Odd,
}

#[derive(Clone)]
struct Ring<T> {
    items: VecDeque<T>,
    first: u32,
    cap: usize,
}

impl<T> Ring<T> {
    fn new(cap: usize) -> Self {
        Self { items: VecDeque::new(), first: 0, cap }
    }

    fn push(&mut self, item: T) -> Option<u32> {
        if self.items.len() >= self.cap {
            self.items.pop_front();
            self.first = self.first.checked_add(1)?;
        }
        let id = self.first.checked_add(u32::try_from(self.items.len()).ok()?)?;
        self.items.push_back(item);
        Some(id)
    }

    fn get(&self, id: u32) -> Option<&T> {
        self.items.get(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.items.get_mut(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }
}

type Items = Vec<(Val, Val)>;

/// Keeper of everything a [`Val`] points to.
#[derive(Clone)]
pub(super) struct Arena {
    texts: Ring<Rc<str>>,
    tuples: Ring<Rc<[Val]>>,
    dicts: Ring<Option<Items>>,
    dtypes: Ring<Descr>,
    wrappers: Ring<bool>,
}

impl Arena {
    pub fn new() -> Self {
        Self {
            texts: Ring::new(TEXTS),
            tuples: Ring::new(TUPLES),
            dicts: Ring::new(DICTS),
            dtypes: Ring::new(DTYPES),
            wrappers: Ring::new(DICTS),
        }
    }

    /// A value for a text of at most [`MAX_NAME`] bytes.
    pub fn text(&mut self, text: &str) -> Val {
        if let Some(id) = allow::word(text) {
            return Val::Word(id);
        }
        self.texts.push(Rc::from(text)).map_or(Val::Opaque, Val::Text)
    }

    /// The text of a value, if it is one and still kept.
    pub fn text_of(&self, val: Val) -> Option<&str> {
        match val {
            Val::Word(id) => Some(allow::word_text(id)),
            Val::Text(id) => self.texts.get(id).map(AsRef::as_ref),
            _ => None,
        }
    }

    pub fn tuple(&mut self, items: &[Val]) -> Val {
        if items.is_empty() {
            return Val::EmptyTuple;
        }
        if items.len() > TUPLE_ITEMS {
            return Val::Other;
        }
        self.tuples.push(Rc::from(items)).map_or(Val::Other, Val::Tuple)
    }

    /// The items of a tuple, if it is one and still kept.
    pub fn items_of(&self, val: Val) -> Option<Rc<[Val]>> {
        match val {
            Val::EmptyTuple => Some(Rc::from([])),
            Val::Tuple(id) => self.tuples.get(id).cloned(),
            _ => None,
        }
    }

    pub fn dict(&mut self) -> Val {
        self.dicts.push(Some(Vec::new())).map_or(Val::Plain, Val::Dict)
    }

    /// Records items set on a dict; one with too many is forgotten for good.
    pub fn set_items(&mut self, id: u32, pairs: &[Val]) {
        if let Some(slot) = self.dicts.get_mut(id) {
            let fits = slot.as_ref().is_some_and(|items| items.len() + pairs.len() / 2 <= DICT_ITEMS);
            match slot {
                Some(items) if fits => {
                    items.extend(pairs.chunks_exact(2).filter_map(|p| Some((*p.first()?, *p.last()?))));
                }
                _ => *slot = None,
            }
        }
    }

    /// All items ever set on a dict, if they are still known.
    pub fn dict_items(&self, val: Val) -> Option<&Items> {
        match val {
            Val::Dict(id) => self.dicts.get(id)?.as_ref(),
            _ => None,
        }
    }

    pub fn dtype(&mut self, descr: Descr) -> Val {
        self.dtypes.push(descr).map_or(Val::Other, Val::Dtype)
    }

    pub fn descr(&self, val: Val) -> Option<Descr> {
        match val {
            Val::Dtype(id) => self.dtypes.get(id).copied(),
            _ => None,
        }
    }

    pub fn set_descr(&mut self, id: u32, descr: Descr) {
        if let Some(slot) = self.dtypes.get_mut(id) {
            *slot = descr;
        }
    }

    pub fn wrapper(&mut self) -> Val {
        self.wrappers.push(false).map_or(Val::Unknown, Val::Wrapper)
    }

    /// Marks a wrapper as built; false when it was before, or is no longer known.
    pub fn build_wrapper(&mut self, id: u32) -> bool {
        self.wrappers.get_mut(id).is_some_and(|built| !std::mem::replace(built, true))
    }
}

type Chunk = Rc<[Option<Val>]>;

/// The memo: exact below [`MEMO`], unknown above. Cloning is cheap, chunks are shared.
#[derive(Clone)]
pub(super) struct Memo {
    chunks: Vec<Option<Chunk>>,
    /// Distinct entries, which is the index MEMOIZE uses.
    count: u64,
    /// A PUT went past the limit, so `count` is no longer certain.
    lost: bool,
}

impl Memo {
    pub fn new() -> Self {
        Self { chunks: Vec::new(), count: 0, lost: false }
    }

    pub fn put(&mut self, index: u64, val: Val) {
        if index >= MEMO {
            self.lost = true;
            return;
        }
        let at = usize::try_from(index / MEMO_CHUNK).unwrap_or(usize::MAX);
        let within = usize::try_from(index % MEMO_CHUNK).unwrap_or(usize::MAX);
        if self.chunks.len() <= at {
            self.chunks.resize(at.saturating_add(1), None);
        }
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let chunk = chunk.get_or_insert_with(|| (0..MEMO_CHUNK).map(|_| None).collect());
        if let Some(slot) = Rc::make_mut(chunk).get_mut(within)
            && slot.replace(val).is_none()
        {
            self.count += 1;
        }
    }

    pub fn memoize(&mut self, val: Val) {
        if self.lost {
            return;
        }
        if self.count < MEMO {
            self.put(self.count, val);
        } else {
            self.count = self.count.saturating_add(1);
        }
    }

    /// The value at an index; `None` when nothing was put there, which a loader refuses.
    pub fn get(&self, index: u64) -> Option<Val> {
        if self.lost {
            return Some(Val::Unknown);
        }
        if index >= MEMO {
            return (index < self.count).then_some(Val::Unknown);
        }
        let at = usize::try_from(index / MEMO_CHUNK).ok()?;
        let within = usize::try_from(index % MEMO_CHUNK).ok()?;
        self.chunks.get(at)?.as_ref()?.get(within).copied().flatten()
    }
}
