//! Commands and what they print, as documents have them:
//!
//! ```console
//! $ a command
//! > that goes on here
//! what it prints; … stands for anything
//! # exit 3
//! ```

/// A command of a document, and what is to be seen.
pub struct Step {
    /// Its line in the document, from 1.
    pub line: usize,
    pub command: String,
    pub expected: Vec<String>,
    pub code: i32,
}

impl Step {
    /// Whether this was printed, line by line.
    pub fn is_met_by(&self, output: &[String]) -> bool {
        let same = |(wanted, found): (&String, &String)| matches(wanted.trim_end(), found.trim_end());
        output.len() == self.expected.len() && self.expected.iter().zip(output).all(same)
    }
}

/// The commands of the blocks that begin with exactly this line.
pub fn steps(text: &str, fence: &str) -> Vec<Step> {
    let (mut steps, mut inside): (Vec<Step>, bool) = (Vec::new(), false);
    for (n, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == fence;
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            steps.push(Step { line: n + 1, command: command.into(), expected: Vec::new(), code: 0 });
        } else if let (true, Some(more)) = (inside, line.strip_prefix("> ")) {
            let command = &mut steps.last_mut().unwrap().command;
            *command = format!("{command}\n{more}");
        } else if let (true, Some(code)) = (inside, line.strip_prefix("# exit ")) {
            steps.last_mut().unwrap().code = code.parse().unwrap();
        } else if inside {
            steps.last_mut().unwrap().expected.push(line.to_owned());
        }
    }
    steps
}

/// `…` matches any run of characters, blanks included.
pub fn matches(pattern: &str, text: &str) -> bool {
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
