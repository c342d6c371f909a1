//! A key policy as written, before anything is made of it: the grammar of IAM's JSON, nothing added or left out.
//!
//! Names that occur twice are refused: readers differ in which of the two counts.

use super::MAX_KEY_POLICY;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// A key policy.
#[derive(Debug, Clone)]
pub struct Document {
    pub(super) statements: Vec<Statement>,
    /// Elements beside Version, Id and Statement.
    pub(super) unknown: Vec<String>,
}

/// Why a text is no key policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentError(String);

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools)] // independent facts, each read from one place of the document
pub(super) struct Statement {
    pub sid: Option<String>,
    pub allow: bool,
    pub principals: Vec<Principal>,
    pub not_principal: bool,
    pub actions: Vec<String>,
    pub not_action: bool,
    pub resources: Vec<String>,
    pub not_resource: bool,
    pub conditions: Vec<Condition>,
    pub unknown: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principal {
    /// `*`: anyone in any account.
    Anyone,
    /// An account: whoever its own IAM policies allow.
    Account(String),
    /// One role, user or session.
    One(String),
    /// Not an ARN: the id of an identity that was deleted.
    Deleted(String),
    /// An AWS service or an identity provider.
    Other(String),
}

/// One operator on one key.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub set: Set,
    /// Lower case, without `ForAllValues:` and `IfExists`.
    pub operator: String,
    pub if_exists: bool,
    /// As written.
    pub key: String,
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Single,
    ForAll,
    ForAny,
}

impl Document {
    /// Reads a key policy, at most twice as long as KMS takes (it may be indented).
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let mut top = read_top(bytes)?;
        // `aws kms get-key-policy` wraps it in an object, as text.
        if let (Some(Value::String(inner)), false) = (top.get("Policy"), top.contains_key("Statement")) {
            top = read_top(inner.as_bytes())?;
        }
        let statements = match top.remove("Statement") {
            Some(Value::Array(all)) => all,
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err(wrong("expected a Statement, one or a list")),
        };
        let read = |(i, value)| Statement::read(value).map_err(|e| wrong(format!("statement {}: {e}", i + 1)));
        let statements = statements.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let unknown = top.into_iter().map(|(key, _)| key).filter(|k| k != "Version" && k != "Id").collect();
        Ok(Self { statements, unknown })
    }
}

fn read_top(bytes: &[u8]) -> Result<Map<String, Value>, DocumentError> {
    if bytes.len() > 2 * MAX_KEY_POLICY {
        return Err(wrong(format!("expected at most {} bytes, found {}", 2 * MAX_KEY_POLICY, bytes.len())));
    }
    let Unique(value) = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    let Value::Object(top) = value else { return Err(wrong("expected an object with Version and Statement")) };
    Ok(top)
}

impl Statement {
    fn read(value: Value) -> Result<Self, DocumentError> {
        let Value::Object(mut map) = value else { return Err(wrong("expected an object")) };
        let allow = match map.remove("Effect") {
            Some(Value::String(effect)) if effect == "Allow" => true,
            Some(Value::String(effect)) if effect == "Deny" => false,
            _ => return Err(wrong("expected the Effect Allow or Deny")),
        };
        let sid = match map.remove("Sid") {
            Some(Value::String(sid)) => Some(sid),
            None => None,
            Some(_) => return Err(wrong("expected a text as Sid")),
        };
        let (principals, not_principal) = either(&mut map, "Principal", "NotPrincipal")?;
        let principals = read_principals(principals)?;
        let (actions, not_action) = either(&mut map, "Action", "NotAction")?;
        let actions = texts(actions, "Action")?;
        let (resources, not_resource) = either(&mut map, "Resource", "NotResource")?;
        let resources = texts(resources, "Resource")?;
        let conditions = read_conditions(map.remove("Condition"))?;
        let unknown = map.into_iter().map(|(key, _)| key).collect();
        Ok(Self {
            sid,
            allow,
            principals,
            not_principal,
            actions,
            not_action,
            resources,
            not_resource,
            conditions,
            unknown,
        })
    }

    /// As messages name it.
    pub fn name(&self, index: usize) -> String {
        self.sid.as_ref().map_or_else(|| format!("statement {}", index + 1), |sid| format!("{sid:?}"))
    }
}

/// An element or its opposite; exactly one of them.
fn either(map: &mut Map<String, Value>, name: &str, opposite: &str) -> Result<(Value, bool), DocumentError> {
    match (map.remove(name), map.remove(opposite)) {
        (Some(value), None) => Ok((value, false)),
        (None, Some(value)) => Ok((value, true)),
        (Some(_), Some(_)) => Err(wrong(format!("expected {name} or {opposite}, found both"))),
        (None, None) => Err(wrong(format!("expected a {name}"))),
    }
}

fn read_principals(value: Value) -> Result<Vec<Principal>, DocumentError> {
    let map = match value {
        Value::String(star) if star == "*" => return Ok(vec![Principal::Anyone]),
        Value::Object(map) => map,
        _ => return Err(wrong("expected the Principal \"*\" or {\"AWS\": …}")),
    };
    let mut all = Vec::new();
    for (kind, value) in map {
        for text in texts(value, "Principal")? {
            all.push(match kind.as_str() {
                "AWS" => aws_principal(text),
                "Service" | "Federated" | "CanonicalUser" => Principal::Other(text),
                _ => return Err(wrong(format!("expected a Principal of AWS, Service or Federated, found {kind:?}"))),
            });
        }
    }
    if all.is_empty() { Err(wrong("expected a Principal, found none")) } else { Ok(all) }
}

fn aws_principal(text: String) -> Principal {
    let account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    if text == "*" {
        return Principal::Anyone;
    }
    if account(&text) {
        return Principal::Account(text);
    }
    match text.split(':').collect::<Vec<_>>()[..] {
        ["arn", _, "iam", "", id, "root"] if account(id) => Principal::Account(id.to_owned()),
        ["arn", ..] => Principal::One(text),
        _ => Principal::Deleted(text),
    }
}

fn read_conditions(value: Option<Value>) -> Result<Vec<Condition>, DocumentError> {
    let operators = match value {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(wrong("expected an object as Condition")),
    };
    let mut all = Vec::new();
    for (written, keys) in operators {
        let lower = written.to_ascii_lowercase();
        let (set, rest) = match lower.split_once(':') {
            Some(("forallvalues", rest)) => (Set::ForAll, rest),
            Some(("foranyvalue", rest)) => (Set::ForAny, rest),
            _ => (Set::Single, &*lower),
        };
        let (operator, if_exists) = rest.strip_suffix("ifexists").map_or((rest, false), |rest| (rest, true));
        let Value::Object(keys) = keys else { return Err(wrong(format!("expected an object below {written:?}"))) };
        for (key, values) in keys {
            let values = texts(values, &key)?;
            all.push(Condition { set, operator: operator.to_owned(), if_exists, key, values });
        }
    }
    Ok(all)
}

/// One text or a list; booleans and numbers count as their text.
fn texts(value: Value, what: &str) -> Result<Vec<String>, DocumentError> {
    let list = if let Value::Array(list) = value { list } else { vec![value] };
    let text = |value| match value {
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => Err(wrong(format!("expected texts below {what:?}"))),
    };
    list.into_iter().map(text).collect()
}

fn wrong(what: impl Into<String>) -> DocumentError {
    DocumentError(what.into().chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).take(300).collect())
}

/// JSON in which no name occurs twice in an object. The depth is bounded by serde_json.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unique(value)) = from.next_element()? {
            all.push(value);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Unique(value))) = from.next_entry::<String, Unique>()? {
            if all.contains_key(&key) {
                return Err(A::Error::custom(format!("{key:?} occurs twice")));
            }
            all.insert(key, value);
        }
        Ok(all.into())
    }
}
