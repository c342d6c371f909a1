//! Plots as inline SVG: scores, changes in the order of the file, and figures across versions. Readable without colour:
//! what stands out is named.

use super::{HIGH, Report, brief, escape};
use crate::commands::diff::report::short;
use std::fmt::Write;
use vault_core::compare::score::Figures;
use vault_core::compare::{Status, TensorChange};

/// Bars of the plot of scores.
const BARS: usize = 30;
/// Dots of the plot of changes.
const DOTS: usize = 4000;
/// Tensors shown across versions.
const FEW: usize = 8;

/// Bars: the highest scores.
pub fn scores(page: &mut String, report: &Report<'_>) {
    let bars: Vec<_> = report.ranked().filter_map(|(t, s)| Some((t, s.value?, s.why))).take(BARS).collect();
    if bars.is_empty() {
        return;
    }
    let height = 18 * bars.len() + 24;
    let scale = 450.0 / bars.first().map_or(0.0, |(_, highest, _)| *highest).max(10.0);
    let _ = writeln!(page, "<h2>Scores</h2>\n<figure><svg viewBox=\"0 0 900 {height}\" role=\"img\">");
    for (n, (tensor, score, why)) in bars.iter().enumerate() {
        let y = 18 * n + 4;
        let class = if *score >= HIGH { "hot" } else { "mark" };
        let (name, title) = (brief(&tensor.name, 52), escape(&tensor.name));
        let length = scale * score;
        let end = 366.0 + length;
        let _ = writeln!(
            page,
            "<text x=\"350\" y=\"{}\" text-anchor=\"end\">{name}<title>{title}</title></text>\
             <rect class=\"{class}\" x=\"360\" y=\"{y}\" width=\"{length:.1}\" height=\"12\"/>\
             <text class=\"s\" x=\"{end:.1}\" y=\"{}\">{score:.1} {}</text>",
            y + 10,
            y + 10,
            why.as_str()
        );
    }
    let limit = 360.0 + scale * HIGH;
    let bottom = height - 20;
    let _ = writeln!(
        page,
        "<line class=\"axis\" x1=\"{limit:.1}\" y1=\"0\" x2=\"{limit:.1}\" y2=\"{bottom}\"/>\
         <text class=\"s\" x=\"{limit:.1}\" y=\"{}\" text-anchor=\"middle\">{HIGH}</text></svg>\n\
         <figcaption>From 0 to 100. Below 3 is usual; above {HIGH} wants a look.</figcaption></figure>",
        height - 8
    );
}

/// Dots: how much each tensor changed, in the order of the file.
pub fn changes(page: &mut String, report: &Report<'_>) {
    let pairs = report.comparison.tensors.iter().zip(&report.scores);
    let all: Vec<_> = pairs.filter(|(t, _)| matches!(t.status, Status::Same | Status::Changed)).collect();
    let step = all.len().div_ceil(DOTS).max(1);
    let _ = writeln!(
        page,
        "<h2>Change of each tensor, in the order of the file</h2>\n<figure><svg viewBox=\"0 0 900 300\" role=\"img\">"
    );
    for decade in (-8..=0).step_by(2) {
        let y = height_of(f64::from(decade));
        let _ = writeln!(
            page,
            "<line class=\"axis\" x1=\"60\" y1=\"{y:.1}\" x2=\"890\" y2=\"{y:.1}\"/>\
             <text class=\"s\" x=\"54\" y=\"{:.1}\" text-anchor=\"end\">1e{decade}</text>",
            y + 4.0
        );
    }
    page.push_str("<text class=\"s\" x=\"54\" y=\"289\" text-anchor=\"end\">none</text>\n");
    #[allow(clippy::cast_precision_loss)] // places of dots
    let place = |n: usize| 65.0 + 820.0 * n as f64 / all.len().max(2) as f64;
    for (n, (tensor, score)) in all.iter().enumerate() {
        let hot = score.value.is_some_and(|v| v >= HIGH);
        if n % step != 0 && !hot {
            continue;
        }
        let y = match tensor.relative() {
            _ if tensor.status == Status::Same => 285.0,
            relative => height_of(relative.unwrap_or(1.0).max(1e-9).log10()),
        };
        let (class, radius) = if hot { ("hot", 4.5) } else { ("mark", 2.5) };
        let title = escape(&format!("{}: {}", tensor.name, short(tensor.relative())));
        let x = place(n);
        let _ = writeln!(
            page,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{title}</title></circle>"
        );
    }
    page.push_str(
        "</svg>\n<figcaption>Norm of the difference over the norm of A, on a logarithmic scale; larger dots have a high score.\
         </figcaption></figure>\n",
    );
}

/// Where a decade is in the plot of changes.
fn height_of(decade: f64) -> f64 {
    20.0 + (1.0 - decade.clamp(-9.0, 1.0)) * 25.0
}

/// Norm and range across versions, of the tensors with the highest scores.
pub fn versions(page: &mut String, report: &Report<'_>) {
    page.push_str("<h2>Across versions</h2>\n<div class=\"few\">\n");
    for (tensor, score) in report.ranked().filter(|(t, _)| t.status == Status::Changed).take(FEW) {
        let mut series: Vec<Option<Figures>> = report.steps.iter().map(|s| s.before(tensor)).collect();
        series.extend(tensor.statistics.iter().map(|s| s.as_ref().map(Figures::of)));
        let value = score.value.map_or_else(|| "-".into(), |v| format!("{v:.1}"));
        let _ = writeln!(page, "<figure><svg viewBox=\"0 0 320 150\" role=\"img\">");
        few(page, tensor, &series);
        let _ = writeln!(page, "</svg><figcaption>{}, score {value}</figcaption></figure>", brief(&tensor.name, 48));
    }
    page.push_str("</div>\n<p>The curve is the norm, the band the range of values; each on a scale of its own (the norm's spans a tenth of it or more), in the order of the versions, the last two A and B.</p>\n");
}

/// Where a value is between the least and the greatest, 0 to 1.
fn between(x: f64, low: f64, high: f64) -> f64 {
    if high > low { (x / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0) } else { 0.5 }
}

fn few(page: &mut String, tensor: &TensorChange, series: &[Option<Figures>]) {
    #[allow(clippy::cast_precision_loss)] // places of versions
    let x = |n: usize| 20.0 + 280.0 * n as f64 / (series.len().max(2) - 1) as f64;
    let ranges: Vec<_> = series.iter().enumerate().filter_map(|(n, f)| Some((n, (*f)?.range?))).collect();
    let norms: Vec<_> = series.iter().enumerate().filter_map(|(n, f)| Some((n, (*f)?.norm?))).collect();
    let low = ranges.iter().map(|(_, (min, _))| *min).fold(f64::INFINITY, f64::min);
    let high = ranges.iter().map(|(_, (_, max))| *max).fold(f64::NEG_INFINITY, f64::max);
    let y = |v: f64| 130.0 - 110.0 * between(v, low, high);
    let upper = ranges.iter().map(|(n, (_, max))| format!("{:.1},{:.1}", x(*n), y(*max)));
    let lower = ranges.iter().rev().map(|(n, (min, _))| format!("{:.1},{:.1}", x(*n), y(*min)));
    let band: Vec<_> = upper.chain(lower).collect();
    let _ = writeln!(page, "<polygon class=\"band\" points=\"{}\"/>", band.join(" "));
    let low = norms.iter().map(|(_, norm)| *norm).fold(f64::INFINITY, f64::min);
    let high = norms.iter().map(|(_, norm)| *norm).fold(f64::NEG_INFINITY, f64::max);
    let room = (high / 20.0 - (high / 2.0 - low / 2.0)).max(0.0); // what hardly moves must not look as if it did
    let (low, high) = (low - room, high + room);
    let y = |v: f64| 130.0 - 110.0 * between(v, low, high);
    let curve: Vec<_> = norms.iter().map(|(n, norm)| format!("{:.1},{:.1}", x(*n), y(*norm))).collect();
    let _ = writeln!(page, "<polyline class=\"curve\" points=\"{}\"/>", curve.join(" "));
    for (n, norm) in &norms {
        let _ = writeln!(
            page,
            "<circle class=\"mark\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>norm {}</title></circle>",
            x(*n),
            y(*norm),
            short(Some(*norm))
        );
    }
    let [a, b] = [0, 1].map(|side| tensor.statistics.get(side).copied().flatten().unwrap_or_default());
    let range = format!("{} to {} / {} to {}", short(a.min), short(a.max), short(b.min), short(b.max));
    let _ = writeln!(page, "<text class=\"s\" x=\"20\" y=\"146\">A / B: {range}</text>");
}
