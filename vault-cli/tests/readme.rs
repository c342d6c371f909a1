//! The README's tour, run line by line: commands, outputs (`…` stands for anything) and exit codes.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

mod common;

use common::Workshop;

struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
    code: i32,
}

fn steps(readme: &str) -> Vec<Step> {
    let (mut steps, mut inside): (Vec<Step>, bool) = (Vec::new(), false);
    for (n, line) in readme.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            steps.push(Step { line: n + 1, command: command.into(), expected: Vec::new(), code: 0 });
        } else if let (true, Some(code)) = (inside, line.strip_prefix("# exit ")) {
            steps.last_mut().unwrap().code = code.parse().unwrap();
        } else if inside {
            steps.last_mut().unwrap().expected.push(line.to_owned());
        }
    }
    steps
}

/// `…` matches any run of characters, blanks included.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn tour_does_what_it_says() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (shop, steps) = (Workshop::new(), steps(&readme));
    assert!(steps.len() > 25, "{} steps", steps.len());
    for step in steps {
        let done = shop.sh(&format!("{{ {} ; }} 2>&1", step.command));
        let output = done.text();
        let output: Vec<_> = output.lines().map(str::trim_end).collect();
        let same = output.len() == step.expected.len()
            && step.expected.iter().zip(&output).all(|(e, o)| matches(e.trim_end(), o));
        let Step { line, command, expected, code } = step;
        assert!(same, "README.md:{line}: {command}\nexpected {expected:#?}\nfound {output:#?}");
        assert_eq!(done.code, code, "README.md:{line}: {command}");
    }
}
