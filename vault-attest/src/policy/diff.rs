//! What two policies say differently, key by key; comments and order do not count.

use super::Policy;
use crate::nitro::hex;
use crate::time::rfc3339;
use std::collections::{BTreeMap, BTreeSet};

/// A key whose values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Such as `max_age_s` or `release.1.4.0.pcr1`.
    pub key: String,
    /// In the first; `None` if it is not there.
    pub before: Option<String>,
    /// In the second.
    pub after: Option<String>,
}

impl Policy {
    /// What differs from this policy to another, in the order of the schema, releases by name.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut all = compare(&settings(self), &settings(other));
        let (before, after) = (releases(self), releases(other));
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let none = Vec::new();
        for name in names {
            all.extend(compare(before.get(name).unwrap_or(&none), after.get(name).unwrap_or(&none)));
        }
        all
    }
}

type Lines = Vec<(String, String)>;

fn compare(before: &Lines, after: &Lines) -> Vec<Difference> {
    let find = |lines: &Lines, key: &str| lines.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let added = after.iter().filter(|(key, _)| find(before, key).is_none());
    let keys = before.iter().chain(added).map(|(key, _)| key);
    let all = keys.map(|key| Difference { key: key.clone(), before: find(before, key), after: find(after, key) });
    all.filter(|d| d.before != d.after).collect()
}

fn settings(policy: &Policy) -> Lines {
    let scope = policy.scope();
    let mut all = vec![
        ("name".to_owned(), policy.name().to_owned()),
        ("platform".into(), policy.platform().to_string()),
        ("max_age_s".into(), policy.max_age_s().to_string()),
    ];
    all.extend(policy.minimum_model_version().map(|v| ("minimum_model_version".into(), v.to_string())));
    let ids = |list: &Option<Vec<[u8; 32]>>| list.as_ref().map(|list| list.iter().map(|id| hex(id)).collect());
    let signers = scope.signers.as_ref();
    let lists: [(&str, Option<Vec<String>>); 4] = [
        ("scope.artifacts", ids(&scope.artifacts)),
        ("scope.models", scope.models.clone()),
        ("scope.recipients", ids(&scope.recipients)),
        ("scope.signers", signers.map(|list| list.iter().map(|signer| hex(signer.id())).collect())),
    ];
    for (key, list) in lists {
        all.extend(list.map(|mut list| {
            list.sort();
            (key.to_owned(), list.join(", "))
        }));
    }
    all
}

fn releases(policy: &Policy) -> BTreeMap<&str, Lines> {
    let lines = |release: &super::Release| {
        let key = |of: &str| format!("release.{}.{of}", release.name);
        let mut all: Lines = release.pcrs.iter().map(|(i, pcr)| (key(&format!("pcr{i}")), hex(pcr))).collect();
        all.extend(release.not_before_s.map(|t| (key("not_before"), rfc3339(t))));
        all.extend(release.not_after_s.map(|t| (key("not_after"), rfc3339(t))));
        all
    };
    policy.releases().iter().map(|r| (r.name.as_str(), lines(r))).collect()
}
