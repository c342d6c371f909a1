//! How far a tensor's change is from what was to be expected: from what tensors of its kind did in the same step, and
//! from what it did itself in earlier steps. docs/OPERATIONS.md ("What changed between two versions") has the same in prose.
//!
//! A step A -> B has five marks for each tensor that changed, in decades (log10), never under -9:
//!
//! - change: norm of the difference over the larger of both norms;
//! - mean: shift of the mean over A's standard deviation; spread: |ln| of the ratio of standard deviations; tails: |ln|
//!   of the ratio of kurtoses;
//! - peak: largest difference over the root mean square of the difference.
//!
//! Distances are robust z-scores: from the median, over 1.4826 MAD or a least scale. Change counts both ways, the other
//! marks upwards only. *Peers*: the changed tensors whose name is the same but for digits, if that is four tensors or
//! more, else whose last two parts are the same, else those of the same class (float or integer) and rank (up to 1, or
//! more), else the class. Where most did not
//! change, whoever did is as far as its change is from none (-9); where most did, whoever did not is at 6. *Past*: marks less
//! the median of the changed tensors of the class in their step, over the n steps in which the class changed at all.
//! All marks but change need three steps of it. A mark's distance is past 2n/(2n+1) and peers 1/(2n+1); past alone for who
//! changes where most do not, and did so in most earlier steps. The score is the largest, at most 99, and 100 for new
//! NaN or infinities, or figures beyond f64.
#![allow(clippy::cast_precision_loss)] // counts of values as f64

mod peers;

use super::values::{Change, Statistics, is_float};
use super::{Comparison, Status, TensorChange, qualified};
use peers::Groups;
use std::collections::HashMap;

/// Marks of a tensor.
const MARKS: usize = 5;
/// The least mark: a change of one part in 10^9 is none.
const NONE: f64 = -9.0;
/// The least scale of each mark, in decades. Those that are differences of estimates scatter by themselves.
const LEAST_SCALE: [f64; MARKS] = [0.2, 0.4, 0.4, 0.4, 0.3];
/// The distance of a tensor that did not change where others did.
const UNCHANGED: f64 = 6.0;
/// Fewest tensors to be anyone's peers.
const PEERS: usize = 4;
/// Highest score of a change between finite numbers.
const HIGHEST: f64 = 99.0;
/// The score of what became NaN, infinite, or beyond f64.
const NOT_FINITE: f64 = 100.0;

/// What a score rests on most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing stands out, or there is no score.
    Nothing,
    /// NaN, infinities or figures beyond f64 that are new.
    NotFinite,
    /// How much changed.
    Change,
    /// It did not change, and others did.
    Unchanged,
    /// The mean moved.
    Mean,
    /// The standard deviation changed.
    Spread,
    /// The kurtosis changed.
    Tails,
    /// A few values changed much more than the rest.
    Peak,
}

impl Why {
    const OF_MARK: [Self; MARKS] = [Self::Change, Self::Mean, Self::Spread, Self::Tails, Self::Peak];

    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "-",
            Self::NotFinite => "nan/inf",
            Self::Change => "change",
            Self::Unchanged => "unchanged",
            Self::Mean => "mean",
            Self::Spread => "spread",
            Self::Tails => "tails",
            Self::Peak => "peak",
        }
    }
}

/// A tensor's score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// 0 to 100; `None` without peers and without a past, or where type or shape changed.
    pub value: Option<f64>,
    /// What it rests on most.
    pub why: Why,
    /// Earlier steps it was held against.
    pub earlier: usize,
}

/// Figures of a tensor in an older version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Least, greatest.
    pub range: Option<(f64, f64)>,
    /// L2 norm.
    pub norm: Option<f64>,
}

impl Figures {
    /// Of these statistics.
    pub fn of(statistics: &Statistics) -> Self {
        Self { range: statistics.min.zip(statistics.max), norm: statistics.norm }
    }
}

/// An earlier step from one version to the next.
pub struct Step {
    seen: HashMap<String, Seen>,
}

struct Seen {
    measured: Option<Measured>,
    before: Option<Figures>,
}

impl Step {
    /// What is kept of a comparison of two earlier versions.
    pub fn of(comparison: &Comparison) -> Self {
        let measured = measure(comparison);
        let mut seen = HashMap::new();
        for (tensor, measured) in comparison.tensors.iter().zip(measured) {
            let before = tensor.statistics.first().and_then(Option::as_ref).map(Figures::of);
            if let Some(path) = tensor.entries.iter().flatten().next_back() {
                seen.insert(qualified(path, &tensor.name), Seen { measured, before });
            }
            seen.insert(tensor.key.clone(), Seen { measured, before });
        }
        Self { seen }
    }

    fn seen(&self, tensor: &TensorChange) -> Option<&Seen> {
        let path = tensor.entries.iter().flatten().next();
        self.seen.get(&tensor.key).or_else(|| self.seen.get(&qualified(path?, &tensor.name)))
    }

    /// A tensor's figures in the older version of the step.
    pub fn before(&self, tensor: &TensorChange) -> Option<Figures> {
        self.seen(tensor)?.before
    }
}

/// Scores of `now`'s tensors, in their order, against their peers and `earlier` steps.
pub fn scores(now: &Comparison, earlier: &[Step]) -> Vec<Score> {
    let measured = measure(now);
    let groups = Groups::of(now, &measured);
    let score = |(index, tensor): (usize, &TensorChange)| {
        if not_finite(tensor) {
            return Score { value: Some(NOT_FINITE), why: Why::NotFinite, earlier: 0 };
        }
        let Some(measured) = measured.get(index).copied().flatten() else {
            return Score { value: None, why: Why::Nothing, earlier: 0 };
        };
        let past: Vec<Measured> = earlier.iter().filter_map(|s| s.seen(tensor)?.measured).collect();
        join(&measured, groups.distances(index, &measured), &past)
    };
    now.tensors.iter().enumerate().map(score).collect()
}

/// One score of two views.
fn join(now: &Measured, peers: Option<(Distances, bool)>, past: &[Measured]) -> Score {
    let past: Vec<_> = past.iter().filter(|p| p.class != Class::Still).collect();
    let weight = 2.0 * past.len() as f64 / (2.0 * past.len() as f64 + 1.0);
    let own = past_distances(now, &past);
    // Who always changes where others do not is no news.
    let usual = 2 * past.iter().filter(|p| p.changed).count() > past.len();
    let peers = peers.filter(|(_, alone)| !(*alone && usual)).map(|(distances, _)| distances);
    let mut best: Option<(f64, Why)> = None;
    for mark in 0..MARKS {
        let of = |d: Option<Distances>| d.and_then(|d| d.get(mark).copied().flatten());
        let distance = match (of(own), of(peers)) {
            (Some(own), Some(peers)) => weight * own + (1.0 - weight) * peers,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => continue,
        };
        let why = if now.changed { Why::OF_MARK.get(mark).copied() } else { Some(Why::Unchanged) };
        if best.is_none_or(|(highest, _)| distance > highest) {
            best = Some((distance, why.unwrap_or(Why::Nothing)));
        }
    }
    let why = best.map_or(Why::Nothing, |(value, why)| if value < 1.0 { Why::Nothing } else { why });
    Score { value: best.map(|(value, _)| value.min(HIGHEST)), why, earlier: past.len() }
}

/// Distances by mark; `None` where there is nothing to hold it against.
type Distances = [Option<f64>; MARKS];

/// How much of a class of tensors changed in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Still,
    MostlyUnchanged,
    MostlyChanged,
}

/// A tensor in one step.
#[derive(Clone, Copy)]
struct Measured {
    changed: bool,
    marks: Distances,
    /// Marks less the class's medians.
    residuals: Distances,
    class: Class,
}

/// New NaN, infinities, or figures that f64 cannot hold.
fn not_finite(tensor: &TensorChange) -> bool {
    if let Some(change) = &tensor.change {
        let [a, b] = tensor.statistics.map(|s| s.is_some_and(|s| s.min.is_some() && s.norm.is_none()));
        return change.new_nan > 0 || change.new_inf > 0 || (b && !a);
    }
    let [Some(a), Some(b)] = &tensor.statistics else { return false };
    (b.nan > 0 && a.nan == 0) || (b.inf > 0 && a.inf == 0)
}

fn measure(comparison: &Comparison) -> Vec<Option<Measured>> {
    let mut all: Vec<Option<Measured>> = comparison.tensors.iter().map(marks_of).collect();
    for float in [true, false] {
        let of_class: Vec<usize> =
            (0..all.len()).filter(|i| comparison.tensors.get(*i).is_some_and(|t| float_class(t) == float)).collect();
        let members: Vec<Measured> = of_class.iter().filter_map(|i| *all.get(*i)?).collect();
        let changed: Vec<Measured> = members.iter().copied().filter(|m| m.changed).collect();
        let class = match changed.len() {
            0 => Class::Still,
            n if 2 * n > members.len() => Class::MostlyChanged,
            _ => Class::MostlyUnchanged,
        };
        let medians: [f64; MARKS] = std::array::from_fn(|mark| {
            let values = values_of(&changed, mark);
            if values.len() < PEERS { 0.0 } else { median(values) }
        });
        for index in of_class {
            if let Some(Some(measured)) = all.get_mut(index) {
                measured.class = class;
                let pairs = measured.marks.iter().zip(medians);
                for (residual, (mark, median)) in measured.residuals.iter_mut().zip(pairs) {
                    *residual = mark.map(|m| m - median);
                }
            }
        }
    }
    all
}

fn float_class(tensor: &TensorChange) -> bool {
    tensor.dtypes.iter().flatten().next_back().is_some_and(|d| is_float(d))
}

/// The marks of a tensor whose type and shape are the same on both sides, and whose values are numbers.
fn marks_of(tensor: &TensorChange) -> Option<Measured> {
    let (change, [Some(a), Some(b)]) = (tensor.change.as_ref()?, &tensor.statistics) else { return None };
    let (norm_a, norm_b) = (a.norm?, b.norm?);
    let changed = tensor.status == Status::Changed;
    if !changed && norm_a == 0.0 {
        return None; // zeros that stay so say nothing
    }
    let marks = if changed { marks(change, a, b, norm_a.max(norm_b))? } else { [None; MARKS] };
    Some(Measured { changed, marks, residuals: [None; MARKS], class: Class::Still })
}

fn marks(change: &Change, a: &Statistics, b: &Statistics, norm: f64) -> Option<Distances> {
    let difference = change.norm?;
    let decades = |x: f64| Some(x).filter(|x| x.is_finite()).map(|x| x.max(1e-9).log10());
    let log_ratio = |a: Option<f64>, b: Option<f64>| decades((b? / a?).ln().abs());
    let relative = if norm > 0.0 { difference / norm } else { 0.0 };
    let root_mean_square = difference / (change.count as f64).sqrt();
    Some([
        decades(relative),
        a.mean.zip(b.mean).zip(a.std).and_then(|((a, b), std)| decades((b - a).abs() / std)),
        log_ratio(a.std, b.std),
        log_ratio(a.kurtosis, b.kurtosis),
        change.largest.and_then(|largest| decades(largest / root_mean_square)),
    ])
}

/// Held against its own past; `None` without one.
fn past_distances(now: &Measured, past: &[&Measured]) -> Option<Distances> {
    let changed: Vec<Measured> = past.iter().filter(|p| p.changed).map(|p| **p).collect();
    let mut distances = [None; MARKS];
    let [change, ..] = &mut distances;
    if past.is_empty() {
        return None;
    }
    if !now.changed {
        let usual = 2 * changed.len() > past.len() && now.class == Class::MostlyChanged;
        *change = Some(if usual { UNCHANGED } else { 0.0 });
    } else if 2 * changed.len() < past.len() {
        *change = from_none(now);
    } else {
        for (mark, distance) in distances.iter_mut().enumerate() {
            let values = changed.iter().filter_map(|m| m.residuals.get(mark).copied().flatten()).collect();
            let now = now.residuals.get(mark).copied().flatten();
            *distance = Usual::of(mark, values, if mark == 0 { 1 } else { PEERS - 1 })
                .zip(now)
                .map(|(usual, x)| usual.distance(x));
        }
    }
    Some(distances)
}

/// The distance of a change where none was to be expected.
fn from_none(now: &Measured) -> Option<f64> {
    let ([mark, ..], [scale, ..]) = (now.marks, LEAST_SCALE);
    mark.map(|mark| (mark - NONE) / scale)
}

fn values_of(measured: &[Measured], mark: usize) -> Vec<f64> {
    measured.iter().filter_map(|m| m.marks.get(mark).copied().flatten()).collect()
}

/// Where values of a mark lie, and how far apart.
#[derive(Clone, Copy)]
struct Usual {
    center: f64,
    scale: f64,
    both_ways: bool,
}

impl Usual {
    /// Of at least `least` values.
    fn of(mark: usize, values: Vec<f64>, least: usize) -> Option<Self> {
        if values.len() < least {
            return None;
        }
        let center = median(values.clone());
        let spread = 1.4826 * median(values.into_iter().map(|v| (v - center).abs()).collect());
        let scale = spread.max(LEAST_SCALE.get(mark).copied().unwrap_or(1.0));
        Some(Self { center, scale, both_ways: mark == 0 })
    }

    fn distance(self, x: f64) -> f64 {
        let beyond = x - self.center;
        (if self.both_ways { beyond.abs() } else { beyond.max(0.0) }) / self.scale
    }
}

/// The middle value; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or_default();
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}
