//! One strict CBOR encoding: FORMAT.md section 7. Decoding is followed by encoding and comparing, so that
//! indefinite lengths, long integers, duplicate, unsorted or unknown keys and trailing bytes are all refused
//! by one rule. Parsing is `minicbor`'s; it neither recurses nor allocates by a length it has not seen the bytes of.

use crate::error::{Result, refused};
use crate::manifest::{MAX_ENTRIES, MAX_FINDINGS, MAX_LABELS};
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::collections::BTreeMap;

/// The canonical bytes of a value.
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default() // writing to a Vec does not fail
}

/// Decodes bytes that are the canonical encoding of what they decode to `[F-31]`.
pub(crate) fn decode<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8], what: &str) -> Result<T> {
    let value: T = minicbor::decode(bytes).map_err(|e| {
        let text = e.to_string();
        let rule = [(30, TOO_MANY_ENTRIES), (34, TOO_MANY)].into_iter().find(|(_, m)| text.contains(m));
        refused(rule.map_or(31, |(rule, _)| rule), format!("{what}: {text}"))
    })?;
    if encode(&value) != bytes {
        return Err(refused(31, format!("{what}: not in canonical CBOR")));
    }
    Ok(value)
}

/// `[F-30]`
const TOO_MANY_ENTRIES: &str = "more entries than allowed";
/// `[F-34]`
const TOO_MANY: &str = "more items than allowed";

/// The entries of a table or manifest. Their number is refused before they are decoded: decoded items are many
/// times larger than the bytes that they come from.
pub(crate) fn entries<'b, C, T: Decode<'b, C>>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Vec<T>, DecodeError> {
    at_most(MAX_ENTRIES, TOO_MANY_ENTRIES, d, ctx)
}

/// The findings of an entry, in the same way.
pub(crate) fn findings<'b, C, T: Decode<'b, C>>(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Vec<T>, DecodeError> {
    at_most(MAX_FINDINGS, TOO_MANY, d, ctx)
}

fn at_most<'b, C, T: Decode<'b, C>>(
    max: usize,
    message: &'static str,
    d: &mut Decoder<'b>,
    ctx: &mut C,
) -> Result<Vec<T>, DecodeError> {
    let mut items = Vec::new();
    for item in d.array_iter_with(ctx)? {
        if items.len() == max {
            return Err(DecodeError::message(message));
        }
        items.push(item?);
    }
    Ok(items)
}

/// A text key, ordered as its encoded bytes are: shorter first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub String);

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

/// A map from text to `V`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextMap<V>(pub BTreeMap<Key, V>);

impl<V> Default for TextMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> TextMap<V> {
    /// Sets a key.
    pub fn insert(&mut self, key: impl Into<String>, value: V) {
        self.0.insert(Key(key.into()), value);
    }

    /// Looks a key up.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.0.get(&Key(key.into()))
    }

    /// Pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(k, v)| (k.0.as_str(), v))
    }
}

impl<C, V: Encode<C>> Encode<C> for TextMap<V> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.map(self.0.len() as u64)?;
        for (key, value) in &self.0 {
            e.str(&key.0)?;
            value.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C, V: Decode<'b, C>> Decode<'b, C> for TextMap<V> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let mut map = BTreeMap::new();
        for pair in d.map_iter_with::<C, String, V>(ctx)? {
            if map.len() == MAX_LABELS {
                return Err(DecodeError::message(TOO_MANY));
            }
            let (key, value) = pair?;
            map.insert(Key(key), value); // a duplicate shows in the comparison of the encodings
        }
        Ok(Self(map))
    }
}

/// A value or null. Unlike `Option`, null at the end of an array is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nullable<T>(pub Option<T>);

impl<C, T: Encode<C>> Encode<C> for Nullable<T> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        match &self.0 {
            Some(value) => value.encode(e, ctx),
            None => e.null().map(|_| ()),
        }
    }
}

impl<'b, C, T: Decode<'b, C>> Decode<'b, C> for Nullable<T> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        Option::<T>::decode(d, ctx).map(Self)
    }
}
