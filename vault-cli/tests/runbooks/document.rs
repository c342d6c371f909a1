//! The section "Runbooks" of docs/OPERATIONS.md: its blocks by name.

use crate::common::console::{Step, steps};
use std::collections::BTreeSet;

pub const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
const FENCE: &str = "```console runbook=";

fn text() -> String {
    std::fs::read_to_string(FILE).unwrap()
}

/// The commands of all blocks of this name, in order.
pub fn commands(name: &str) -> Vec<Step> {
    let steps = steps(&text(), &format!("{FENCE}{name}"));
    assert!(!steps.is_empty(), "{FILE} has no runbook {name}");
    steps
}

/// The names of all blocks; every block of the section has one, and no block elsewhere.
pub fn names() -> BTreeSet<String> {
    let text = text();
    let (before, section) = text.split_once("\n## Runbooks\n").unwrap();
    let (section, after) = section.split_once("\n## ").unwrap();
    assert!(!before.contains(FENCE) && !after.contains(FENCE), "a runbook outside its section");
    let fences: Vec<_> = section.lines().filter(|line| line.starts_with("```")).collect();
    let opened = fences.chunks(2).map(|pair| {
        assert!(pair.len() == 2 && pair[1] == "```", "{pair:?}");
        let name = pair[0].strip_prefix(FENCE);
        name.unwrap_or_else(|| panic!("{}: not executed: it begins with no {FENCE}NAME", pair[0])).to_owned()
    });
    opened.collect()
}
