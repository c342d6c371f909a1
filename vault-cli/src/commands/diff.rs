//! `mvault diff`: what changed between two versions of a model, sealed or not, and which tensors changed in an unusual way.
//! What is compared and scored is vault-core's `compare`; here are the sides, the history and the report.

mod html;
mod report;
mod side;

use crate::aws::AwsArgs;
use crate::error::CliError;
use crate::files::{Access, NewFile};
use crate::keys::{IdentityArgs, SignerArgs};
use crate::output::Output;
use crate::vaults::VaultArgs;
use indicatif::ProgressBar;
use report::Report;
use side::{Opened, Opener};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use vault_core::compare::score::{Step, scores};
use vault_core::compare::{CompareError, CompareOptions, Comparison, Side, compare};

/// Show what changed between two versions of a model, and which tensors changed in an unusual way
///
/// Files are compared by their digests, tensors of safetensors files value by value. Each tensor has a score from 0 to 100: how far its
/// change is from what others of its kind did, and from what it did itself in older versions; below 3 is usual, above 4 wants
/// a look. Older versions are those of the vault before A, or what --against names. A and B are files, folders, sealed models, versions in
/// a vault, in any mix. docs/OPERATIONS.md says how the score is made and what it cannot see.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault diff bert-v1/ bert-v2/                              plain folders
  mvault diff --vault models bert:3 bert:4                   versions, scored against 1 to 3
  mvault diff s3://models/team/bert@prod bert/ --html r.html what is about to be published
  mvault diff v2.mvault v3.mvault --against v1.mvault --json
  mvault diff --vault models bert:3 bert:4 --fail-above 5    for CI jobs

Exit codes: 0 compared, whether or not they differ; 1 failed, or --fail-above was exceeded.")]
#[expect(clippy::struct_excessive_bools)] // flags
pub struct Args {
    /// The earlier version: a file, a folder, a sealed model, `NAME[:VERSION|@TAG]` or `s3://BUCKET/PREFIX/NAME[:VERSION|@TAG]`
    #[arg(value_name = "A")]
    a: String,
    /// The later version
    #[arg(value_name = "B")]
    b: String,
    /// A version older than A to score against, oldest first; may be repeated [default: the last 8 before A in its vault]
    #[arg(long, value_name = "OLDER")]
    against: Vec<String>,
    #[command(flatten)]
    vault: VaultArgs,
    /// Only digests of files: no tensor is read
    #[arg(long, conflicts_with_all = ["against", "fail_above", "top", "all"])]
    quick: bool,
    /// Also write a page with plots, for a browser, without scripts or network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace an existing page
    #[arg(short, long, requires = "html")]
    force: bool,
    /// Tensors to show, the highest scores first
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Show every tensor
    #[arg(long, conflicts_with = "top")]
    all: bool,
    /// Fail with exit code 1 if a tensor's score is higher, or weights changed that cannot be scored
    #[arg(long, value_name = "SCORE", value_parser = parse_score)]
    fail_above: Option<f64>,
    /// Read what symbolic links in plain folders point to
    #[arg(long)]
    follow_symlinks: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    signers: SignerArgs,
    #[command(flatten)]
    aws: AwsArgs,
}

/// Older versions of a vault that are read.
const HISTORY: usize = 8;

fn parse_score(text: &str) -> Result<f64, String> {
    let score = text.parse::<f64>().ok().filter(|s| (0.0..=100.0).contains(s));
    score.ok_or_else(|| "expected a number from 0 to 100".into())
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let page = args.html.as_deref().map(|path| NewFile::create(path, Access::Owner, args.force)).transpose()?;
    let mut opener = Opener::new(args)?;
    let a = opener.open(&args.a, "A", out)?;
    let b = opener.open(&args.b, "B", out)?;
    if a.is(&b) {
        return Err(CliError::usage(format!("A and B are the same: {}", a.label))
            .hint("name two versions; `mvault ls VAULT NAME` lists those of a model"));
    }
    let older = if args.quick { Vec::new() } else { history(args, &mut opener, &a, &b, out)? };
    let bar = out.progress("comparing", None);
    let done = all_steps(args, &older, &a, &b, &bar);
    bar.finish_and_clear();
    let (comparison, steps) = done?;
    let scores = scores(&comparison, &steps);
    let report = Report::new(args, &a, &b, &older, &comparison, &steps, scores);
    if let (Some(page), Some(path)) = (page, &args.html) {
        let html = html::page(&report);
        page.file().write_all_at(html.as_bytes(), 0).map_err(crate::error::io(path.display()))?;
        page.finish()?;
    }
    report.print(out)
}

/// Versions older than A, the oldest first.
fn history(
    args: &Args,
    opener: &mut Opener<'_>,
    a: &Opened,
    b: &Opened,
    out: &Output,
) -> Result<Vec<Opened>, CliError> {
    if !args.against.is_empty() {
        return args.against.iter().map(|text| opener.open(text, "--against", out)).collect();
    }
    let mut older = Vec::new();
    for version in a.versions_before(b, HISTORY)? {
        older.extend(opener.older(a, version, out)?);
    }
    Ok(older)
}

/// A against B, and each older version against the next.
fn all_steps(
    args: &Args,
    older: &[Opened],
    a: &Opened,
    b: &Opened,
    bar: &ProgressBar,
) -> Result<(Comparison, Vec<Step>), CliError> {
    let comparison = one_step(args.quick, (a, "A"), (b, "B"), bar)?;
    let chain: Vec<_> = older.iter().map(|o| (o, "older")).chain([(a, "A")]).collect();
    let pairs = chain.iter().zip(chain.iter().skip(1));
    let steps = pairs.map(|(x, y)| Ok(Step::of(&one_step(false, *x, *y, bar)?))).collect::<Result<_, CliError>>()?;
    for opened in older.iter().chain([a, b]) {
        opened.check_unchanged()?;
    }
    Ok((comparison, steps))
}

/// Two models, and what messages call them.
fn one_step(
    digests_only: bool,
    (a, name_a): (&Opened, &str),
    (b, name_b): (&Opened, &str),
    bar: &ProgressBar,
) -> Result<Comparison, CliError> {
    let options = CompareOptions { digests_only, progress: &|n| bar.inc(n) };
    let compared = a.with_entries(name_a, |in_a| b.with_entries(name_b, |in_b| Ok(compare(in_a, in_b, options))))?;
    compared.map_err(|error| {
        let of = |side: Side| if side == Side::A { (name_a, a) } else { (name_b, b) };
        failed(error, of)
    })
}

fn failed<'o>(error: CompareError, of: impl Fn(Side) -> (&'o str, &'o Opened)) -> CliError {
    let said = crate::output::printable(&error.to_string());
    match error {
        CompareError::Read { side, path, error } => {
            let (name, opened) = of(side);
            CliError::from(error).about(crate::output::printable(&path)).about(opened.called(name))
        }
        CompareError::Header { side, .. } | CompareError::TooMany { side } => {
            let (name, opened) = of(side);
            CliError::failed(said).about(opened.called(name)).hint("--quick compares digests alone")
        }
        CompareError::FalseDigest { .. } => {
            CliError::not_authentic(said).hint("`mvault verify` says whose manifest is false")
        }
        _ => CliError::failed(said),
    }
}
