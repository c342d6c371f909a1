//! What KMS would answer to a request, as far as the key policy's text says: yes, no, or it depends.
//!
//! Whatever the text leaves open is the attacker's to choose: an Allow that may apply counts as applying, a Deny only
//! if it surely does. So an answer of "refused" can be relied on.

use super::document::{Condition, Document, Principal, Set, Statement};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::Yes } else { Self::No }
    }
}

/// Who asks. Without an ARN: someone whom the document does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller<'a> {
    pub arn: Option<&'a str>,
    pub account: Option<&'a str>,
}

impl<'a> Caller<'a> {
    pub const STRANGER: Self = Self { arn: None, account: None };

    pub fn one(arn: &'a str) -> Self {
        Self { arn: Some(arn), account: arn.split(':').nth(4) }
    }
}

/// A PCR of the evidence that comes with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measured<'a> {
    /// This value, in lower-case hex.
    Exactly(&'a str),
    /// The attacker's choice, but not this one.
    AnyBut(&'a str),
    /// The attacker's choice.
    Any,
    /// A value that the document does not have.
    Fresh,
}

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// Such as `kms:Decrypt`.
    pub action: &'a str,
    pub caller: Caller<'a>,
    /// PCRs by index, if evidence comes with it.
    pub evidence: Option<&'a dyn Fn(u8) -> Measured<'a>>,
    /// Without an encryption context; otherwise the attacker's choice.
    pub no_context: bool,
}

/// Whether some Allow may apply and no Deny surely does.
pub(super) fn may(document: &Document, allow: &Statement, request: &Request<'_>) -> bool {
    applies(allow, request) != Truth::No && !denied(document, request)
}

/// Whether some Deny surely applies.
pub(super) fn denied(document: &Document, request: &Request<'_>) -> bool {
    document.statements.iter().any(|s| !s.allow && applies(s, request) == Truth::Yes)
}

/// Whether the statement is about this action.
pub(super) fn about(statement: &Statement, action: &str) -> bool {
    let matched = statement.actions.iter().any(|a| glob(&a.to_ascii_lowercase(), &action.to_ascii_lowercase()));
    matched != statement.not_action
}

fn applies(statement: &Statement, request: &Request<'_>) -> Truth {
    if !about(statement, request.action) {
        return Truth::No;
    }
    let mut truth = principal(statement, request.caller).min_with(resource(statement));
    for condition in &statement.conditions {
        truth = truth.min_with(holds(condition, request));
    }
    truth
}

impl Truth {
    fn min_with(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Maybe,
        }
    }
}

/// In a key's policy `*` is the key; anything else may be another.
fn resource(statement: &Statement) -> Truth {
    let star = !statement.not_resource && statement.resources.iter().any(|r| r == "*");
    if star { Truth::Yes } else { Truth::Maybe }
}

fn principal(statement: &Statement, caller: Caller<'_>) -> Truth {
    let listed = |p: &Principal| match p {
        Principal::Anyone => Truth::Yes,
        Principal::Account(account) => (caller.account == Some(account)).into(),
        Principal::One(arn) => (caller.arn == Some(arn)).into(),
        Principal::Deleted(_) => Truth::No,
        Principal::Other(_) => Truth::Maybe,
    };
    let all: Vec<_> = statement.principals.iter().map(listed).collect();
    let truth = any(&all);
    // Sessions of a listed role are others than the role: NotPrincipal is not relied on for a Deny.
    match (statement.not_principal, truth) {
        (false, truth) => truth,
        (true, Truth::Yes) => Truth::No,
        (true, _) => Truth::Maybe,
    }
}

fn any(all: &[Truth]) -> Truth {
    if all.contains(&Truth::Yes) {
        Truth::Yes
    } else if all.contains(&Truth::Maybe) {
        Truth::Maybe
    } else {
        Truth::No
    }
}

/// What a condition key has in a request.
enum Found<'a> {
    Absent,
    Pcr(Measured<'a>),
    /// An ARN or an account; `None` is one that the document does not name.
    Text(Option<&'a str>),
    /// Not known here.
    Unknown,
}

fn holds(condition: &Condition, request: &Request<'_>) -> Truth {
    let found = find(&condition.key.to_ascii_lowercase(), request);
    let negated = condition.operator.contains("not");
    if condition.operator == "null" {
        let wants = |absent: bool| condition.values.iter().any(|v| v.eq_ignore_ascii_case(&absent.to_string()));
        return match found {
            Found::Unknown => Truth::Maybe,
            Found::Absent => wants(true).into(),
            Found::Pcr(_) | Found::Text(_) => wants(false).into(),
        };
    }
    match found {
        Found::Unknown => Truth::Maybe,
        // The three traps of IAM: without the key, these hold.
        Found::Absent => match condition.set {
            Set::ForAny => false,
            Set::ForAll => true,
            Set::Single => negated || condition.if_exists,
        }
        .into(),
        Found::Pcr(_) | Found::Text(_) => {
            let all: Vec<_> = condition.values.iter().map(|v| compare(&condition.operator, v, &found)).collect();
            if negated { any(&all).not() } else { any(&all) }
        }
    }
}

fn find<'a>(key: &str, request: &Request<'a>) -> Found<'a> {
    if let Some(index) = pcr_index(key) {
        return request.evidence.map_or(Found::Absent, |pcrs| Found::Pcr(pcrs(index)));
    }
    match key {
        "aws:principalarn" => Found::Text(request.caller.arn),
        "aws:principalaccount" | "kms:calleraccount" => Found::Text(request.caller.account),
        key if key.starts_with("kms:encryptioncontext") && request.no_context => Found::Absent,
        _ => Found::Unknown,
    }
}

/// The PCR that a condition key is about.
pub(super) fn pcr_index(key: &str) -> Option<u8> {
    let name = key.to_ascii_lowercase();
    let name = name.strip_prefix("kms:recipientattestation:")?;
    if name == "imagesha384" { Some(0) } else { name.strip_prefix("pcr")?.parse().ok() }
}

fn compare(operator: &str, value: &str, found: &Found<'_>) -> Truth {
    if value.contains("${") {
        return Truth::Maybe;
    }
    let (like, ignore_case) = match operator {
        "stringequals" | "stringnotequals" => (false, false),
        "stringequalsignorecase" | "stringnotequalsignorecase" => (false, true),
        "stringlike" | "stringnotlike" | "arnequals" | "arnlike" | "arnnotequals" | "arnnotlike" => (true, false),
        _ => return Truth::Maybe,
    };
    let open = like && value.contains(['*', '?']);
    let same = |text: &str| {
        if like {
            glob(value, text)
        } else if ignore_case {
            value.eq_ignore_ascii_case(text)
        } else {
            value == text
        }
    };
    match found {
        Found::Pcr(Measured::Exactly(pcr)) => same(pcr).into(),
        Found::Pcr(Measured::AnyBut(pcr)) => {
            if open || !same(pcr) {
                Truth::Maybe
            } else {
                Truth::No
            }
        }
        Found::Pcr(Measured::Any) => Truth::Maybe,
        Found::Text(Some(text)) => same(text).into(),
        _ if value == "*" && like => Truth::Yes,
        _ => {
            if open {
                Truth::Maybe
            } else {
                Truth::No
            }
        }
    }
}

/// `*` is any run of characters, `?` any one.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut back) = (0, 0, None);
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(&want) if want == b'?' || want == byte => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((star, from)) = back else { return false };
                back = Some((star, from + 1));
                (p, t) = (star + 1, from + 1);
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&b| b == b'*'))
}
