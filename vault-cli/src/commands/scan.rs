//! `mvault scan`: static checks of model files, without loading them.

use crate::error::{CliError, io};
use crate::output::{Output, printable, table};
use crate::sources::Model;
use serde_json::json;
use std::path::PathBuf;
use vault_core::scan::{Plain, Report, Verdict, scan};

/// Check model files for dangerous pickles and broken structure, without loading them
///
/// Pickles are read opcode by opcode; only functions known to be needed and harmless are allowed, everything
/// else is named and refused. `mvault seal` runs the same checks. Exit code 1 if anything would be refused.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault scan model.pkl
  mvault scan downloads/ --json

Verdicts: safe, dangerous, not-scanned (encrypted or unreadable), not-a-pickle,
malformed (safetensors, GGUF or ONNX with a broken structure).")]
pub struct Args {
    /// Files or folders
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Scan what symbolic links in folders point to
    #[arg(long)]
    follow_symlinks: bool,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let mut rows = vec![["verdict", "format", "file", "finding"].map(String::from).to_vec()];
    let (mut values, mut refused) = (Vec::new(), 0);
    for path in &args.paths {
        let model = Model::open(path, args.follow_symlinks)?;
        for (name, file) in model.files() {
            let report = scan(name, &mut Plain(file)).map_err(io(name))?;
            let shown = if model.folder { path.join(name) } else { path.clone() };
            let shown = printable(&shown.display().to_string());
            refused += usize::from(!matches!(report.verdict, Verdict::Safe | Verdict::NotAPickle));
            values.push(to_json(&shown, &report));
            rows.extend(to_rows(&shown, &report));
        }
    }
    let json = json!({ "ok": refused == 0, "refused": refused, "files": values });
    out.result(&json, &table(&rows))?;
    if refused == 0 {
        return Ok(());
    }
    Err(CliError::reported(format!("{refused} of {} would be refused by `mvault seal`", values.len())))
}

fn to_rows(path: &str, report: &Report) -> Vec<Vec<String>> {
    let first =
        |finding: String| vec![report.verdict.as_str().into(), report.format.as_str().into(), path.to_owned(), finding];
    let mut findings = report.findings.iter().map(|f| {
        let member = f.member.as_deref().map(|m| format!("{}: ", printable(m))).unwrap_or_default();
        format!("{member}{} at byte {}", printable(&f.what), f.offset)
    });
    let mut rows = vec![first(findings.next().unwrap_or_default())];
    rows.extend(findings.map(|f| vec![String::new(), String::new(), String::new(), f]));
    if report.more > 0 {
        rows.push(vec![String::new(), String::new(), String::new(), format!("and {} more", report.more)]);
    }
    rows
}

fn to_json(path: &str, report: &Report) -> serde_json::Value {
    json!({
        "path": path,
        "verdict": report.verdict.as_str(),
        "format": report.format.as_str(),
        "bytes": report.bytes,
        "findings": report.findings.iter().map(|f| json!({
            "member": f.member, "what": f.what, "offset": f.offset,
        })).collect::<Vec<_>>(),
        "more": report.more,
    })
}
