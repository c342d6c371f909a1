//! The page of a diff: one file, no script, nothing from elsewhere. Whatever comes from a model passes `escape`; the policy in
//! its head allows one style, by its digest, and nothing else, should that be forgotten somewhere.

mod plots;

use super::report::{Report, elide, kind, percent, short, words};
use crate::keys::count;
use crate::output::{printable, size};
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use vault_core::compare::score::Score;
use vault_core::compare::values::Statistics;
use vault_core::compare::{Status, TensorChange};

/// Rows of the largest table.
const ROWS: usize = 500;
/// From here on a score wants a look.
const HIGH: f64 = 4.0;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1c20;--soft:#5d636f;--line:#d5d8de;--paper:#fff;--mark:#3d6fb4;--hot:#c4392b;--band:#3d6fb433}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e6ea;--soft:#9aa1ad;--line:#3a3f48;--paper:#16181c;--mark:#7ba6e6;--hot:#ff7a6b;--band:#7ba6e633}}\
body{margin:0 auto;max-width:70rem;padding:1.5rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}p,figcaption{color:var(--soft)}figure{margin:0}\
table{border-collapse:collapse;width:100%;font-size:.85rem}th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}\
td.w{white-space:nowrap}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}tr.hot td:first-child{color:var(--hot);font-weight:600}\
svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--ink)}svg text.s{fill:var(--soft)}\
.mark{fill:var(--mark)}.hot{fill:var(--hot)}.axis{stroke:var(--line);stroke-width:1}.curve{fill:none;stroke:var(--mark);stroke-width:1.5}.band{fill:var(--band)}\
.few{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem}\
@media print{body{max-width:none;padding:0}figure,tr{break-inside:avoid}}";

/// The whole page.
pub fn page(report: &Report<'_>) -> String {
    let digest = Base64::encode_string(&Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'");
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>mvault diff</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    head(&mut page, report);
    entries(&mut page, report);
    structure(&mut page, report);
    if report.ranked().next().is_some() {
        plots::scores(&mut page, report);
        plots::changes(&mut page, report);
        plots::versions(&mut page, report);
        tensors(&mut page, report);
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Text of a page: nothing of it is markup, or hidden, or turns the writing.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn head(page: &mut String, report: &Report<'_>) {
    let (a, b) = (escape(&report.a.label), escape(&report.b.label));
    let _ = write!(page, "<h1>What changed from A to B</h1>\n<p>A: {a}<br>B: {b}");
    for (n, older) in report.older.iter().enumerate() {
        let _ = write!(page, "<br>older {}: {}", n + 1, escape(&older.label));
    }
    let differ = report.comparison.tensors.iter().filter(|t| t.status != Status::Same).count();
    let all = count(report.comparison.tensors.len(), "tensor");
    let _ = writeln!(page, "</p>\n<p>{all}, {differ} not the same; {}.</p>", escape(&report.basis()));
}

fn entries(page: &mut String, report: &Report<'_>) {
    page.push_str(
        "<h2>Files</h2>\n<table><tr><th>file<th>change<th>compared by<th class=\"n\">A<th class=\"n\">B</tr>\n",
    );
    for entry in &report.comparison.entries {
        let status = if report.header_alone(entry) { "header alone" } else { words(entry.status) };
        let by = if entry.by_tensors { "tensors" } else { "digest only" };
        let [a, b] = entry.sizes.map(|s| s.map(size).unwrap_or_default());
        let path = escape(&entry.path);
        let _ = writeln!(page, "<tr><td>{path}<td>{status}<td>{by}<td class=\"n\">{a}<td class=\"n\">{b}</tr>");
    }
    page.push_str("</table>\n");
}

fn structure(page: &mut String, report: &Report<'_>) {
    let all = report.comparison.tensors.iter().filter(|t| !matches!(t.status, Status::Same | Status::Changed));
    let all: Vec<_> = all.collect();
    if all.is_empty() {
        return;
    }
    page.push_str("<h2>Tensors without a like counterpart</h2>\n<table><tr><th>tensor<th>change<th>A<th>B</tr>\n");
    for tensor in all.iter().take(ROWS) {
        let [a, b] = [0, 1].map(|side| escape(&kind(tensor, side)));
        let (name, status) = (escape(&tensor.name), words(tensor.status));
        let _ = writeln!(page, "<tr><td>{name}<td>{status}<td>{a}<td>{b}</tr>");
    }
    page.push_str("</table>\n");
    rest(page, all.len());
}

fn rest(page: &mut String, all: usize) {
    if all > ROWS {
        let _ = writeln!(page, "<p>and {} more; --json has them all</p>", all - ROWS);
    }
}

fn tensors(page: &mut String, report: &Report<'_>) {
    page.push_str(
        "<h2>Tensors by score</h2>\n<table><tr><th class=\"n\">score<th>tensor<th>why<th class=\"n\">changed\
         <th class=\"n\">relative<th class=\"n\">largest<th>A: range, mean, norm<th>B: range, mean, norm</tr>\n",
    );
    for (tensor, score) in report.ranked().take(ROWS) {
        row(page, tensor, score);
    }
    page.push_str("</table>\n");
    rest(page, report.by_score.len());
}

fn row(page: &mut String, tensor: &TensorChange, score: &Score) {
    let hot = if score.value.is_some_and(|v| v >= HIGH) { " class=\"hot\"" } else { "" };
    let value = score.value.map_or_else(|| "-".into(), |v| format!("{v:.1}"));
    let (share, largest) = match &tensor.change {
        Some(change) => (percent(change.share()), short(change.largest)),
        None => (words(tensor.status).into(), "-".into()),
    };
    let [a, b] = tensor.statistics.map(|s| s.map(|s| figures(&s)).unwrap_or_default());
    let (name, why, relative) = (escape(&tensor.name), score.why.as_str(), short(tensor.relative()));
    let _ = writeln!(
        page,
        "<tr{hot}><td class=\"n\">{value}<td>{name}<td class=\"w\">{why}<td class=\"n\">{share}<td class=\"n\">{relative}\
         <td class=\"n\">{largest}<td>{a}<td>{b}</tr>"
    );
}

fn figures(s: &Statistics) -> String {
    let finite = format!("{} to {}, {}, {}", short(s.min), short(s.max), short(s.mean), short(s.norm));
    if s.nan + s.inf == 0 { finite } else { format!("{finite}; {} NaN, {} infinite", s.nan, s.inf) }
}

/// A name for a plot.
fn brief(name: &str, columns: usize) -> String {
    escape(&elide(name, columns))
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_are_markup() {
        let name = "</title><script>alert(1)</script>\" onload='x' &amp; \u{202e}\u{1b}[0m";
        let shown = escape(name);
        assert!(!shown.contains(['<', '>', '"', '\'', '\u{202e}', '\u{1b}']), "{shown}");
        assert!(shown.contains("&amp;amp;"), "{shown}");
    }
}
