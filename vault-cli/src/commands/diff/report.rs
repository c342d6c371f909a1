//! What a diff found: for people, in lines of at most 80 columns, and for scripts. Names come from whoever made the models.

use super::Args;
use super::side::Opened;
use crate::error::CliError;
use crate::keys::count;
use crate::output::{Output, printable, size, table};
use serde_json::{Value, json};
use std::fmt::Write;
use vault_core::compare::score::{Score, Step, Why};
use vault_core::compare::values::Statistics;
use vault_core::compare::{Comparison, EntryChange, Status, TensorChange};
use vault_core::header::hex;

/// Columns of a path, and of a tensor's name.
const PATH: usize = 36;
const NAME: usize = 71;

/// All that is reported.
pub struct Report<'a> {
    args: &'a Args,
    pub a: &'a Opened,
    pub b: &'a Opened,
    pub older: &'a [Opened],
    pub comparison: &'a Comparison,
    pub steps: &'a [Step],
    /// In the order of the comparison's tensors.
    pub scores: Vec<Score>,
    /// Tensors by score, the highest first; then what changed without a score.
    pub by_score: Vec<usize>,
}

impl<'a> Report<'a> {
    pub fn new(
        args: &'a Args,
        a: &'a Opened,
        b: &'a Opened,
        older: &'a [Opened],
        comparison: &'a Comparison,
        steps: &'a [Step],
        scores: Vec<Score>,
    ) -> Self {
        let mut by_score: Vec<_> = (0..scores.len()).collect();
        let key = |i: &usize| {
            let (tensor, score) = comparison.tensors.get(*i).zip(scores.get(*i))?;
            let share = tensor.change.map_or(1.0, |c| c.share());
            Some((score.value.unwrap_or(-1.0), share))
        };
        by_score.sort_by(|x, y| {
            let ((x, x_share), (y, y_share)) = (key(x).unwrap_or_default(), key(y).unwrap_or_default());
            y.total_cmp(&x).then(y_share.total_cmp(&x_share))
        });
        Self { args, a, b, older, comparison, steps, scores, by_score }
    }

    /// Tensors with their scores, the highest first.
    pub fn ranked(&self) -> impl Iterator<Item = (&TensorChange, &Score)> {
        self.by_score.iter().filter_map(|i| self.comparison.tensors.get(*i).zip(self.scores.get(*i)))
    }

    /// Prints it, and fails if --fail-above says so.
    pub fn print(&self, out: &mut Output) -> Result<(), CliError> {
        let refused = self.refusal();
        let mut json = self.json();
        if let Some(object) = json.as_object_mut() {
            object.insert("ok".into(), refused.is_none().into());
            object.insert("exceeded".into(), json!(refused));
        }
        out.result(&json, &self.text())?;
        refused.map_or(Ok(()), |why| {
            Err(CliError::reported(why).hint("look at what changed; the scores are explained in docs/OPERATIONS.md"))
        })
    }

    /// What exceeds --fail-above.
    fn refusal(&self) -> Option<String> {
        let limit = self.args.fail_above?;
        let highest = self.ranked().find(|(_, s)| s.value.is_some_and(|v| v > limit));
        if let Some((tensor, score)) = highest {
            let value = score.value.unwrap_or_default();
            return Some(format!("{}: score {value:.1} is above {limit}", printable(&tensor.name)));
        }
        let unscored = self.ranked().find(|(t, s)| t.status != Status::Same && s.value.is_none());
        if let Some((tensor, _)) = unscored {
            return Some(format!("{}: {}, and cannot be scored", printable(&tensor.name), words(tensor.status)));
        }
        // Text beside the weights changes as it likes.
        let opaque = |e: &&EntryChange| e.status != Status::Same && !e.by_tensors && e.format != "other";
        let entry = self.comparison.entries.iter().find(opaque)?;
        Some(format!("{}: {}, and cannot be scored", printable(&entry.path), words(entry.status)))
    }

    /// What the scores rest on.
    pub fn basis(&self) -> String {
        let earlier = self.scores.iter().map(|s| s.earlier).max().unwrap_or_default();
        let scored = self.scores.iter().any(|s| s.value.is_some());
        match (scored, earlier) {
            (false, _) => "no scores: fewer than 4 tensors of a kind, and no older versions".into(),
            (true, 0) => "the scores rest on this one step: no older versions".into(),
            (true, n) => format!("the scores rest on this step and {}", count(n, "earlier one")),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("A  {}\nB  {}\n", elide(&self.a.label, 77), elide(&self.b.label, 77));
        self.entries_text(&mut text);
        if self.args.quick {
            text.push_str("only digests were compared: --quick\n");
            return text;
        }
        if !self.comparison.tensors.is_empty() {
            self.tensors_text(&mut text);
        }
        text
    }

    fn entries_text(&self, text: &mut String) {
        let differing: Vec<_> = self.comparison.entries.iter().filter(|e| e.status != Status::Same).collect();
        if !differing.is_empty() {
            let mut rows = vec![["file", "", "by", "size"].map(String::from).to_vec()];
            rows.extend(differing.iter().map(|e| {
                let status = if self.header_alone(e) { "header" } else { e.status.as_str() };
                let by = if e.by_tensors { "tensors" } else { "digest" };
                vec![elide(&e.path, PATH), status.into(), by.into(), sizes(e)]
            }));
            let _ = write!(text, "\n{}", table(&rows));
        }
        let same = self.comparison.entries.len() - differing.len();
        let opaque = self.comparison.entries.iter().filter(|e| !e.by_tensors).count();
        let _ = writeln!(text, "\n{} the same; {opaque} compared by digest only", count(same, "file"));
    }

    /// The bytes differ and the tensors do not.
    pub fn header_alone(&self, entry: &EntryChange) -> bool {
        let single = self.comparison.entries.len() == 1;
        let inside = |t: &&TensorChange| single || t.entries.iter().flatten().any(|path| *path == entry.path);
        entry.status == Status::Changed
            && entry.by_tensors
            && self.comparison.tensors.iter().filter(inside).all(|t| t.status == Status::Same)
    }

    fn tensors_text(&self, text: &mut String) {
        let tensors = &self.comparison.tensors;
        let of = |status| tensors.iter().filter(|t| t.status == status).count();
        let parts = [Status::Same, Status::Changed, Status::Type, Status::Shape, Status::Added, Status::Removed];
        let parts = parts.into_iter().map(|s| (s, of(s))).filter(|(_, n)| *n > 0);
        let parts: Vec<_> = parts.map(|(s, n)| format!("{n} {}", words(s))).collect();
        let _ = writeln!(text, "{}: {}\n{}", count(tensors.len(), "tensor"), parts.join(", "), self.basis());
        let limit = if self.args.all { usize::MAX } else { self.args.top };
        self.structure_text(text, limit);
        self.scored_text(text, limit);
    }

    /// What has no counterpart, or one of another type or shape.
    fn structure_text(&self, text: &mut String, limit: usize) {
        let all: Vec<_> =
            self.comparison.tensors.iter().filter(|t| !matches!(t.status, Status::Same | Status::Changed)).collect();
        if all.is_empty() {
            return;
        }
        text.push('\n');
        for tensor in all.iter().take(limit) {
            let [a, b] = [0, 1].map(|side| elide(&kind(tensor, side), 32));
            let _ = writeln!(text, "{:<7}  {}", tensor.status.as_str(), elide(&tensor.name, NAME));
            let _ = writeln!(text, "         {a} -> {b}");
        }
        more(text, all.len(), limit);
    }

    fn scored_text(&self, text: &mut String, limit: usize) {
        let shown = |(t, s): &(&TensorChange, &Score)| match t.status {
            Status::Changed => true,
            Status::Same => self.args.all || s.value.is_some_and(|v| v >= 1.0),
            _ => false,
        };
        let all: Vec<_> = self.ranked().filter(shown).collect();
        if all.is_empty() {
            return;
        }
        text.push_str("\nscore  tensor\n");
        for (tensor, score) in all.iter().take(limit) {
            let value = score.value.map_or_else(|| "-".into(), |v| format!("{v:.1}"));
            let _ = writeln!(text, "{value:>5}  {}", elide(&tensor.name, NAME));
            let _ = writeln!(text, "       {}", summary(tensor, score));
            if tensor.status == Status::Changed {
                let [a, b] = &tensor.statistics;
                statistics(text, "A", a.as_ref());
                statistics(text, "B", b.as_ref());
            }
        }
        more(text, all.len(), limit);
    }

    fn json(&self) -> Value {
        let entries: Vec<_> = self.comparison.entries.iter().map(|e| self.entry_json(e)).collect();
        let tensors: Vec<_> = self.ranked().map(|(t, s)| tensor_json(t, s)).collect();
        let same = self.comparison.entries.iter().all(|e| e.status == Status::Same);
        json!({
            "a": self.a.json(),
            "b": self.b.json(),
            "against": self.older.iter().map(Opened::json).collect::<Vec<_>>(),
            "quick": self.args.quick,
            "same": same && self.comparison.tensors.iter().all(|t| t.status == Status::Same),
            "earlier_steps": self.steps.len(),
            "highest_score": self.ranked().next().and_then(|(_, s)| s.value),
            "entries": entries,
            "tensors": tensors,
        })
    }

    fn entry_json(&self, entry: &EntryChange) -> Value {
        json!({
            "path": entry.path,
            "status": entry.status.as_str(),
            "format": entry.format,
            "compared_by": if entry.by_tensors { "tensors" } else { "digest" },
            "header_only": self.header_alone(entry),
            "size": entry.sizes,
            "blake3": entry.digests.map(|d| d.map(|d| hex(&d))),
        })
    }
}

fn tensor_json(tensor: &TensorChange, score: &Score) -> Value {
    let [a, b] = tensor.statistics.map(|s| s.map(|s| statistics_json(&s)));
    json!({
        "name": tensor.name,
        "entry": tensor.entries,
        "status": tensor.status.as_str(),
        "dtype": tensor.dtypes,
        "shape": tensor.shapes,
        "score": score.value,
        "why": score.why.as_str(),
        "earlier_steps": score.earlier,
        "a": a,
        "b": b,
        "change": tensor.change.map(|c| json!({
            "changed": c.changed,
            "share": c.share(),
            "relative": tensor.relative(),
            "norm": c.norm,
            "largest": c.largest,
            "new_nan": c.new_nan,
            "new_inf": c.new_inf,
        })),
    })
}

fn statistics_json(s: &Statistics) -> Value {
    json!({
        "count": s.count, "nan": s.nan, "inf": s.inf, "min": s.min, "max": s.max, "mean": s.mean, "std": s.std,
        "norm": s.norm, "kurtosis": s.kurtosis,
    })
}

/// A status in a sentence.
pub fn words(status: Status) -> &'static str {
    match status {
        Status::Same => "the same",
        Status::Type => "of another type",
        Status::Shape => "of another shape",
        other => other.as_str(),
    }
}

/// `F32 2 x 3`.
pub fn kind(tensor: &TensorChange, side: usize) -> String {
    let (dtype, shape) = (tensor.dtypes.get(side), tensor.shapes.get(side));
    let (Some(Some(dtype)), Some(Some(shape))) = (dtype, shape) else { return "-".into() };
    format!("{dtype} {}", shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")).trim_end().into()
}

fn sizes(entry: &EntryChange) -> String {
    match entry.sizes {
        [Some(a), Some(b)] if a != b => format!("{} -> {}", size(a), size(b)),
        [a, b] => b.or(a).map(size).unwrap_or_default(),
    }
}

fn more(text: &mut String, all: usize, limit: usize) {
    if all > limit {
        let _ = writeln!(text, "and {} more: --all, or --json", all - limit);
    }
}

/// How much of a tensor changed, and why that is unusual.
fn summary(tensor: &TensorChange, score: &Score) -> String {
    let change = tensor.change.filter(|_| tensor.status == Status::Changed);
    let Some(change) = change else { return score.why.as_str().into() };
    let why = if score.why == Why::Nothing { String::new() } else { format!("{}: ", score.why.as_str()) };
    let (relative, largest) = (short(tensor.relative()), short(change.largest));
    format!("{why}{} changed, relative {relative}, largest {largest}", percent(change.share()))
}

fn statistics(text: &mut String, side: &str, statistics: Option<&Statistics>) {
    let Some(s) = statistics else { return };
    if s.min.is_some() {
        let range = format!("{} to {}", short(s.min), short(s.max));
        let _ = writeln!(text, "       {side} {range}, mean {}, norm {}", short(s.mean), short(s.norm));
    }
    if s.nan + s.inf > 0 {
        let _ = writeln!(text, "       {side} {} NaN, {} infinite, of {}", s.nan, s.inf, s.count);
    }
}

/// A share, 0 to 1, in at most seven columns.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.1 => "<0.1 %".into(),
        p if p > 99.9 && p < 100.0 => ">99.9 %".into(),
        p => format!("{p:.1} %"),
    }
}

/// A number in at most nine columns.
pub fn short(x: Option<f64>) -> String {
    match x {
        None => "-".into(),
        Some(0.0) => "0".into(),
        Some(x) if (1e-3..1e5).contains(&x.abs()) => {
            let digits = if x.abs() < 1.0 {
                4
            } else if x.abs() < 100.0 {
                3
            } else {
                1
            };
            format!("{x:.digits$}")
        }
        Some(x) => format!("{x:.2e}"),
    }
}

/// Fit for a terminal, and in at most `columns`: the middle is left out.
pub fn elide(text: &str, columns: usize) -> String {
    let text = printable(text);
    if width(&text) <= columns {
        return text;
    }
    let take = |chars: &mut dyn Iterator<Item = char>, columns: usize| {
        let mut used = 0;
        let fits = chars.take_while(|c| {
            used += char_width(*c);
            used <= columns
        });
        fits.collect::<Vec<_>>()
    };
    let front = take(&mut text.chars(), (columns - 1) / 2);
    let back = take(&mut text.chars().rev(), columns - 1 - (columns - 1) / 2);
    front.into_iter().chain(['…']).chain(back.into_iter().rev()).collect()
}

fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Two columns for whatever may take two: from Hangul on.
fn char_width(c: char) -> usize {
    if c >= '\u{1100}' && c != '…' && c != '\u{FFFD}' { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_wider_than_a_terminal() {
        let name = "encoder.layer.11.attention.self.query.weight".repeat(3);
        for name in [name.as_str(), "模型".repeat(40).as_str(), "\u{1b}[31mred\u{202e}", ""] {
            let shown = elide(name, NAME);
            assert!(width(&shown) <= NAME && !shown.chars().any(char::is_control), "{shown:?}");
        }
        assert_eq!(elide("abcdefghij", 5), "ab…ij");
        for x in [0.0, 1.0, -0.123_456, 99_999.9, 1e5, -1.23e-10, f64::MAX, f64::MIN_POSITIVE, 9.999_999] {
            assert!(short(Some(x)).len() <= 9, "{}", short(Some(x)));
        }
        let shares = [1.0, 1e-9, 0.999_999, 0.0].map(percent);
        assert_eq!(shares, ["100.0 %", "<0.1 %", ">99.9 %", "0.0 %"]);
    }
}
