//! The allow-list: every global a pickle may name, with the reason, group by group.
//!
//! Everything else is refused, known or not. A name is allowed with a [`Kind`] that says how
//! the unpickler may use it; `Data` may lie in a pickle but not be called. The test of an entry:
//! called with any arguments an attacker picks out of allowed values, it builds a value and
//! runs no code taken from its arguments, opens no file, and imports nothing by name.
//! (It may use memory: a pickle can always ask for a large value.) `getattr`, `eval`, `exec`,
//! `__import__`, `operator.*`, `functools.*`, `torch.load`, `torch.storage._load_from_bytes`,
//! `joblib.load`, `numpy.load`, `pickle.*` and every user function wrapper fail that test.

mod tables;

use std::collections::HashMap;
use std::sync::LazyLock;
use tables::{GROUPS, KNOWN_BAD};

/// How an allowed global may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A class: called, or made through NEWOBJ.
    Class,
    /// A function: called.
    Func,
    /// A value or type that is only mentioned: calling it is refused.
    Data,
    /// A torch storage type with its element size in bytes; only mentioned.
    Storage(u8),
    /// `numpy.dtype`: its result is followed, raw arrays need it.
    Dtype,
    /// joblib's array wrapper: raw bytes follow its BUILD.
    Wrapper,
    /// `_codecs.encode`: only with one of the plain text encodings.
    Encode,
    /// `torch._tensor._rebuild_from_type_v2`: calls its first argument, which must be an
    /// allowed function itself.
    Retype,
}

/// Modules times names that are allowed for one reason.
pub(super) struct Group {
    /// Why calling these is harmless.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people, and by the test that there is one"))]
    pub reason: &'static str,
    pub kind: Kind,
    pub modules: &'static [&'static str],
    pub names: &'static [&'static str],
}

/// Words the pickle machine looks for on its stack besides the names of the list.
const EXTRA: &[&str] = &[
    "storage",
    "subclass",
    "shape",
    "order",
    "dtype",
    "allow_mmap",
    "numpy_array_alignment_bytes",
    "latin1",
    "latin-1",
    "utf-8",
    "utf8",
    "ascii",
];

struct Words {
    ids: HashMap<&'static str, u16>,
    texts: Vec<&'static str>,
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let mut words = Words { ids: HashMap::new(), texts: Vec::new() };
    let listed = GROUPS.iter().flat_map(|g| g.modules.iter().chain(g.names));
    for word in listed.chain(EXTRA) {
        if let (false, Ok(id)) = (words.ids.contains_key(word), u16::try_from(words.texts.len())) {
            words.ids.insert(word, id);
            words.texts.push(word);
        }
    }
    words
});

/// The number of a word of the list.
pub(super) fn word(text: &str) -> Option<u16> {
    WORDS.ids.get(text).copied()
}

/// The word of a number.
pub(super) fn word_text(id: u16) -> &'static str {
    WORDS.texts.get(usize::from(id)).copied().unwrap_or_default()
}

/// How `module.name` may be used; `None` means refused.
pub(super) fn lookup(module: &str, name: &str) -> Option<Kind> {
    GROUPS.iter().find(|g| g.modules.contains(&module) && g.names.contains(&name)).map(|g| g.kind)
}

/// What a refused global is known to do, for better words only.
pub(super) fn known_bad(module: &str, name: &str) -> Option<&'static str> {
    let root = module.split('.').next().unwrap_or(module);
    KNOWN_BAD
        .iter()
        .find(|(modules, names, _)| modules.contains(&root) && (names.is_empty() || names.contains(&name)))
        .map(|found| found.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_is_a_known_way_to_run_code() {
        let never = [
            "eval",
            "exec",
            "execfile",
            "compile",
            "getattr",
            "setattr",
            "open",
            "__import__",
            "apply",
            "input",
            "attrgetter",
            "methodcaller",
            "itemgetter",
            "partial",
            "reduce",
            "system",
            "popen",
            "run",
            "load",
            "loads",
            "_load_from_bytes",
            "memmap",
            "map",
            "filter",
            "vars",
            "globals",
            "type",
            "FunctionTransformer",
        ];
        for group in GROUPS {
            assert!(!group.reason.is_empty());
            for name in group.names {
                assert!(!never.contains(name), "{name} is on the list");
                assert!(!name.contains('.') && !name.is_empty());
            }
        }
    }

    #[test]
    fn words_of_the_list_are_found_back() {
        let id = word("_rebuild_tensor_v2").expect("listed");
        assert_eq!(word_text(id), "_rebuild_tensor_v2");
        assert_eq!(word("system"), None);
    }

    #[test]
    fn unknown_is_refused_and_known_is_not() {
        assert_eq!(lookup("collections", "OrderedDict"), Some(Kind::Class));
        assert_eq!(lookup("torch", "FloatStorage"), Some(Kind::Storage(4)));
        assert_eq!(lookup("torch._inductor.codecache", "compile_file"), None);
        assert_eq!(lookup("sklearn.utils._joblib", "load"), None);
        assert_eq!(lookup("collections", "OrderedDict.__reduce__"), None);
    }
}
