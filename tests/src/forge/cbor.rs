//! CBOR by hand, so that what no encoder writes can be written.

/// One data item; encoded canonically but for what `Raw` holds and the order of map keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cbor {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(Cbor, Cbor)>),
    Bool(bool),
    Null,
    /// These very bytes.
    Raw(Vec<u8>),
}

impl Cbor {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A map with keys 0, 1, 2, …; values that are absent are left out.
    pub fn record(values: Vec<Option<Self>>) -> Self {
        let fields = (0..).zip(values).filter_map(|(key, value)| Some((Self::Uint(key), value?)));
        Self::Map(fields.collect())
    }

    /// A map from text, with keys in the order of their encoding.
    pub fn text_map(pairs: impl IntoIterator<Item = (String, Self)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by_key(|(key, _)| (key.len(), key.clone()));
        Self::Map(pairs.into_iter().map(|(key, value)| (Self::Text(key), value)).collect())
    }

    /// The item at `path`: positions in arrays, positions of pairs in maps.
    pub fn at(&mut self, path: &[usize]) -> &mut Self {
        let Some((first, rest)) = path.split_first() else { return self };
        match self {
            Self::Array(items) => items[*first].at(rest),
            Self::Map(pairs) => pairs[*first].1.at(rest),
            _ => panic!("no item at {path:?}"),
        }
    }

    /// The items of an array.
    pub fn items(&mut self) -> &mut Vec<Self> {
        let Self::Array(items) = self else { panic!("not an array") };
        items
    }

    /// The pairs of a map.
    pub fn pairs(&mut self) -> &mut Vec<(Self, Self)> {
        let Self::Map(pairs) = self else { panic!("not a map") };
        pairs
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Uint(n) => out.extend(head(0, *n)),
            Self::Bytes(bytes) => {
                out.extend(head(2, bytes.len() as u64));
                out.extend(bytes);
            }
            Self::Text(text) => {
                out.extend(head(3, text.len() as u64));
                out.extend(text.as_bytes());
            }
            Self::Array(items) => {
                out.extend(head(4, items.len() as u64));
                for item in items {
                    item.encode_into(out);
                }
            }
            Self::Map(pairs) => {
                out.extend(head(5, pairs.len() as u64));
                for (key, value) in pairs {
                    key.encode_into(out);
                    value.encode_into(out);
                }
            }
            Self::Bool(value) => out.push(0xF4 + u8::from(*value)),
            Self::Null => out.push(0xF6),
            Self::Raw(bytes) => out.extend(bytes),
        }
    }
}

/// The shortest head of major type `major` with argument `n`.
pub fn head(major: u8, n: u64) -> Vec<u8> {
    let all = n.to_be_bytes();
    let (info, argument) = match n {
        0..24 => return vec![major << 5 | all[7]],
        24..256 => (24, &all[7..]),
        256..65_536 => (25, &all[6..]),
        65_536..4_294_967_296 => (26, &all[4..]),
        _ => (27, &all[..]),
    };
    [&[major << 5 | info], argument].concat()
}

/// A head that is longer than need be: an eight-byte argument.
pub fn long_head(major: u8, n: u64) -> Vec<u8> {
    [&[major << 5 | 0x1B][..], &n.to_be_bytes()].concat()
}
