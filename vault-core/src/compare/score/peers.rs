//! Who is whose peer in one step, and what is usual among them.

use super::{Class, Distances, MARKS, Measured, PEERS, UNCHANGED, Usual, float_class, from_none, values_of};
use crate::compare::{Comparison, TensorChange};
use std::collections::HashMap;

/// Who is whose peer.
pub(super) struct Groups {
    /// The group of each tensor.
    of: Vec<Option<usize>>,
    groups: Vec<Group>,
}

struct Group {
    mostly_changed: bool,
    /// The marks of the changed members.
    usual: [Option<Usual>; MARKS],
}

impl Groups {
    pub(super) fn of(comparison: &Comparison, measured: &[Option<Measured>]) -> Self {
        let names: Vec<_> = comparison.tensors.iter().map(names).collect();
        let mut members: HashMap<&str, Vec<Measured>> = HashMap::new();
        for (names, measured) in names.iter().zip(measured) {
            for (name, measured) in names.iter().filter_map(|n| Some((n, (*measured)?))) {
                members.entry(name).or_default().push(measured);
            }
        }
        let (mut groups, mut numbers, mut of) = (Vec::new(), HashMap::new(), Vec::new());
        for names in &names {
            let fits = |name: &&String| members.get(name.as_str()).is_some_and(|m| m.len() >= PEERS);
            of.push(names.iter().find(fits).map(|name| {
                *numbers.entry(name.as_str()).or_insert_with(|| {
                    groups.push(Group::of(members.get(name.as_str()).map(Vec::as_slice).unwrap_or_default()));
                    groups.len() - 1
                })
            }));
        }
        Self { of, groups }
    }

    /// Held against its peers, and whether it changed where most did not; `None` without peers.
    pub(super) fn distances(&self, index: usize, now: &Measured) -> Option<(Distances, bool)> {
        let group = self.groups.get((*self.of.get(index)?)?)?;
        let mut distances = [None; MARKS];
        let [change, ..] = &mut distances;
        let most = group.mostly_changed && now.class == Class::MostlyChanged;
        match (now.changed, most) {
            (false, true) => *change = Some(UNCHANGED),
            (false, false) => *change = Some(0.0),
            (true, false) => *change = from_none(now),
            (true, true) => {
                for (distance, (usual, mark)) in distances.iter_mut().zip(group.usual.iter().zip(now.marks)) {
                    *distance = usual.zip(mark).map(|(usual, x)| usual.distance(x));
                }
            }
        }
        Some((distances, now.changed && !most))
    }
}

impl Group {
    fn of(members: &[Measured]) -> Self {
        let changed: Vec<Measured> = members.iter().copied().filter(|m| m.changed).collect();
        let mostly_changed = 2 * changed.len() > members.len();
        // More than half of four are three.
        let usual = std::array::from_fn(|mark| Usual::of(mark, values_of(&changed, mark), PEERS - 1));
        Self { mostly_changed, usual }
    }
}

/// The groups a tensor may be in, the closest first.
fn names(tensor: &TensorChange) -> [String; 4] {
    let class = if float_class(tensor) { "float" } else { "integer" };
    let rank = tensor.shapes.iter().flatten().next_back().map_or(0, |shape| shape.len().clamp(1, 2));
    let (mut role, mut in_number) = (String::new(), false);
    for c in tensor.name.chars() {
        if !(c.is_ascii_digit() && in_number) {
            role.push(if c.is_ascii_digit() { '#' } else { c });
        }
        in_number = c.is_ascii_digit();
    }
    let parts: Vec<_> = role.rsplitn(3, '.').take(2).collect();
    let last = format!("{class} {rank} *.{}", parts.join("."));
    [format!("{class} {rank} {role}"), last, format!("{class} {rank}"), class.to_owned()]
}
