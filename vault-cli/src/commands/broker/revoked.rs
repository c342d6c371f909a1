//! The text of `[revoked]` in a broker.toml, with an id more or less. All other bytes stay; whoever writes the result checks with
//! [`change`] that it says what was meant, since these functions look at lines and a file may be laid out in any way.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use vault_attest::policy::parse_id;
use vault_core::header::hex;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Ids of artifacts.
    Artifacts,
    /// Ids of broker keys.
    Recipients,
}

/// What is revoked.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Revoked {
    pub artifacts: Vec<String>,
    pub recipients: Vec<String>,
}

type Places = Spanned<Vec<Spanned<String>>>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Table {
    artifacts: Option<Places>,
    recipients: Option<Places>,
}

#[derive(Deserialize)]
struct Document<T> {
    #[serde(default)]
    revoked: T,
}

impl List {
    fn key(self) -> &'static str {
        match self {
            Self::Artifacts => "artifacts",
            Self::Recipients => "recipients",
        }
    }

    fn find(self, text: &str) -> Result<Option<Places>, toml::de::Error> {
        let table = toml::from_str::<Document<Table>>(text)?.revoked;
        Ok(match self {
            Self::Artifacts => table.artifacts,
            Self::Recipients => table.recipients,
        })
    }
}

/// The text with this id in the list; the same if it is there. `None` if the text is not laid out as expected.
pub fn with(text: &str, list: List, id: &[u8; 32]) -> Option<String> {
    let word = format!("\"{}\"", hex(id));
    let Some(places) = list.find(text).ok()? else { return Some(with_line(text, list, &word)) };
    if places.get_ref().iter().any(|place| is(place, id)) {
        return Some(text.to_owned());
    }
    let Range { start, end } = places.span();
    let inner = text.get(start..end)?.strip_prefix('[')?.strip_suffix(']')?;
    let (first, rest) = inner.split_once('\n').unwrap_or((inner, ""));
    let insert = if inner.trim().is_empty() {
        word
    } else if first.trim().is_empty() && !places.get_ref().is_empty() {
        let indent: String = rest.chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
        format!("\n{indent}{word},")
    } else if first.starts_with([' ', '\t']) {
        format!("{word},")
    } else {
        format!("{word}, ")
    };
    let at = start + 1;
    Some([text.get(..at)?, &insert, text.get(at..)?].concat())
}

/// Where there is no such list: a line of its own, below the one that shows the default.
fn with_line(text: &str, list: List, word: &str) -> String {
    let line = format!("{} = [{word}]\n", list.key());
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(head) = lines.iter().position(|line| line.trim_start().starts_with("[revoked]")) else {
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        return format!("{text}{end}\n[revoked]\n{line}");
    };
    let shown = format!("{} =", list.key());
    let below = lines.iter().skip(head + 1).take_while(|line| !line.trim_start().starts_with('['));
    let comment = |line: &&str| line.trim_start().strip_prefix('#').is_some_and(|l| l.trim_start().starts_with(&shown));
    let at = below.clone().position(comment).map_or(head + 1, |n| head + 2 + n);
    let (above, below) = lines.split_at(at.min(lines.len()));
    let end = if above.last().is_some_and(|line| line.ends_with('\n')) { "" } else { "\n" };
    format!("{}{end}{line}{}", above.concat(), below.concat())
}

/// The text without this id in the list. `None` if the text is not laid out as expected.
pub fn without(text: &str, list: List, id: &[u8; 32]) -> Option<String> {
    let mut text = text.to_owned();
    while let Some(places) = list.find(&text).ok()? {
        let all = places.get_ref();
        let Some(n) = all.iter().position(|place| is(place, id)) else { break };
        let before = n.checked_sub(1).and_then(|n| all.get(n)).map(Spanned::span);
        let cut = cut(&text, before, all.get(n)?.span(), places.span().end)?;
        text.replace_range(cut, "");
    }
    Some(text)
}

/// What goes with an element: its comma, and its line if nothing else is on it.
fn cut(text: &str, before: Option<Range<usize>>, element: Range<usize>, end: usize) -> Option<Range<usize>> {
    let after = text.get(element.end..end)?;
    let Some(comma) = after.find(|c: char| !c.is_whitespace()).filter(|&at| after.get(at..at + 1) == Some(",")) else {
        let from =
            before.map(|before| before.end).filter(|&from| text.get(from..element.start).map(str::trim) == Some(","));
        return Some(from.unwrap_or(element.start)..element.end);
    };
    let to = element.end + comma + 1;
    let blanks = |text: &str| text.len() - text.trim_start_matches([' ', '\t']).len();
    let to = to + blanks(text.get(to..end)?);
    let line = text.get(..element.start)?.rfind('\n').map_or(0, |at| at + 1);
    let alone = text.get(line..element.start)?.trim().is_empty();
    match text.get(to..end)?.strip_prefix('\r').unwrap_or(text.get(to..end)?).strip_prefix('\n') {
        Some(rest) if alone => Some(line..end - rest.len()),
        _ => Some(element.start..to),
    }
}

fn is(place: &Spanned<String>, id: &[u8; 32]) -> bool {
    parse_id(place.get_ref()).as_ref() == Some(id)
}

/// What is revoked after the change, if that is what was before with these ids more (or less, for `undo`), and nothing else of
/// the file changed its meaning.
pub fn change(before: &str, after: &str, named: &[(List, Vec<[u8; 32]>)], undo: bool) -> Option<Revoked> {
    let others = |text: &str| {
        let mut table: toml::Table = toml::from_str(text).ok()?;
        table.remove("revoked");
        Some(table)
    };
    let read = |text: &str| Some(toml::from_str::<Document<Revoked>>(text).ok()?.revoked);
    let (was, is) = (read(before)?, read(after)?);
    let ids = |list: &[String]| list.iter().map(|id| parse_id(id)).collect::<Option<BTreeSet<_>>>();
    let meant = [(List::Artifacts, &was.artifacts, &is.artifacts), (List::Recipients, &was.recipients, &is.recipients)]
        .into_iter()
        .all(|(list, was, is)| {
            let Some(mut wanted) = ids(was) else { return false };
            for id in named.iter().filter(|(of, _)| *of == list).flat_map(|(_, ids)| ids) {
                if undo {
                    wanted.remove(id)
                } else {
                    wanted.insert(*id)
                };
            }
            ids(is) == Some(wanted)
        });
    (meant && others(before)? == others(after)?).then_some(is)
}

#[cfg(test)]
mod tests {
    use super::List::{Artifacts, Recipients};
    use super::*;

    const TOP: &str = "origin = \"a\" # ours\n\n";
    const A: [u8; 32] = [0xAA; 32];
    const B: [u8; 32] = [0xBB; 32];

    fn word(id: &[u8; 32]) -> String {
        format!("\"{}\"", hex(id))
    }

    #[track_caller]
    fn goes(before: &str, list: List, after: &str) {
        let before = format!("{TOP}{before}");
        let found = with(&before, list, &A).unwrap_or_default();
        assert_eq!(found, format!("{TOP}{after}").replace("$A", &word(&A)));
        let now = change(&before, &found, &[(list, vec![A])], false);
        assert!(now.is_some_and(|now| now.artifacts.len() + now.recipients.len() >= 1), "{found}");
        assert_eq!(with(&found, list, &A).as_ref(), Some(&found), "twice");
    }

    #[test]
    fn an_id_goes_in_where_it_belongs_and_nothing_else_moves() {
        let template = "[revoked] # no key\n# artifacts = [\"64 hex digits\"]\n# recipients = [\"64\"]\n";
        goes(template, Artifacts, &template.replace("s\"]\n# r", "s\"]\nartifacts = [$A]\n# r"));
        goes(template, Recipients, &format!("{template}recipients = [$A]\n"));
        goes("[quotas]\nper_key = 1", Artifacts, "[quotas]\nper_key = 1\n\n[revoked]\nartifacts = [$A]\n");
        goes("[revoked]", Artifacts, "[revoked]\nartifacts = [$A]\n");
        goes("[revoked]\n\n[quotas]\n", Artifacts, "[revoked]\nartifacts = [$A]\n\n[quotas]\n");
        goes("[revoked]\nartifacts = []\n", Artifacts, "[revoked]\nartifacts = [$A]\n");
        let b = word(&B);
        goes(&format!("[revoked]\nartifacts = [{b}]#x"), Artifacts, &format!("[revoked]\nartifacts = [$A, {b}]#x"));
        goes(
            &format!("[revoked]\nartifacts = [ # all\n  # lost\n  {b} # b\n]\n"),
            Artifacts,
            &format!("[revoked]\nartifacts = [$A, # all\n  # lost\n  {b} # b\n]\n"),
        );
        goes(
            &format!("[revoked]\nrecipients = [\n\t# lost\n\t{b}, # b\n]\n"),
            Recipients,
            &format!("[revoked]\nrecipients = [\n\t$A,\n\t# lost\n\t{b}, # b\n]\n"),
        );
        goes(&format!("revoked.artifacts = [{b}]\n"), Artifacts, &format!("revoked.artifacts = [$A, {b}]\n"));
    }

    #[test]
    fn an_id_comes_out_with_its_comma_and_line() {
        let (a, b) = (word(&A), word(&B));
        for (before, after) in [
            (format!("[{a}]"), "[]".into()),
            (format!("[{a}, {b}]"), format!("[{b}]")),
            (format!("[{b}, {a}]"), format!("[{b}]")),
            (format!("[{b},{a},{b}]"), format!("[{b},{b}]")),
            (format!("[{a}, {b}, {a}]"), format!("[{b}]")),
            (format!("[\n  {a},\n  # b\n  {b},\n]"), format!("[\n  # b\n  {b},\n]")),
            (format!("[\n  {b}, # b\n  {a}, # why\n]"), format!("[\n  {b}, # b\n  # why\n]")),
            (format!("[\n  {b}, # b\n  {a}\n]"), format!("[\n  {b}, # b\n  \n]")),
            (format!("[{}]", a.to_uppercase()), "[]".into()),
        ] {
            let before = format!("{TOP}[revoked]\nartifacts = {before} # c\n[quotas]\n");
            let after = format!("{TOP}[revoked]\nartifacts = {after} # c\n[quotas]\n");
            assert_eq!(without(&before, Artifacts, &A).as_ref(), Some(&after), "{before}");
            assert!(change(&before, &after, &[(Artifacts, vec![A])], true).is_some(), "{before}");
        }
    }

    #[test]
    fn a_text_that_says_something_else_too_is_not_taken() {
        let before = format!("{TOP}[revoked]\nartifacts = [{}]\n", word(&B));
        let named = [(Artifacts, vec![A])];
        let good = with(&before, Artifacts, &A).unwrap_or_default();
        assert!(change(&before, &good, &named, false).is_some());
        assert_eq!(change(&before, &before, &named, false), None, "not in it");
        assert_eq!(change(&before, &good.replace(&word(&B), &word(&[0xCC; 32])), &named, false), None, "another lost");
        assert_eq!(change(&before, &good.replace("\"a\"", "\"b\""), &named, false), None, "another key");
        assert_eq!(
            change(&before, &format!("{good}recipients = [{}]\n", word(&B)), &named, false),
            None,
            "another list"
        );
        assert_eq!(
            with("revoked = { }\n", Artifacts, &A).and_then(|t| change("revoked = { }\n", &t, &named, false)),
            None
        );
        assert_eq!(with("revoked = 5", Artifacts, &A), None);
    }
}
