//! `mvault attest explain`: what is in a document, who signed it, and what each step says, for people.

use super::report::{self, row};
use super::{Case, Input, words};
use crate::error::CliError;
use crate::output::{Output, printable};
use serde_json::json;
use vault_attest::nitro::{Mode, unverified_outline};
use vault_attest::policy::{Appraised, Denial, Policy};
use vault_attest::time::rfc3339;
use vault_attest::{Refusal, Step, VerifiedEvidence};
use vault_core::header::hex;

/// Show what is in an attestation document, who signed it, and what holds
///
/// Shows documents that are not genuine too, with the step that refuses them. What stands above the verdict is what
/// the document says of itself.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault attest explain doc.bin
  mvault attest explain doc.bin --at 2026-11-24T23:00:00Z --policy prod.toml

Exit codes: 0 genuine (and allowed), 3 not authentic, 4 debug mode or denied by the policy.")]
pub struct Args {
    #[command(flatten)]
    input: Input,
}

/// What each step of a policy is about, and the key of the policy it is in.
const POLICY_STEPS: [(u8, &str, &str); 10] = [
    (2, "platform", "platform"),
    (3, "age", "max_age_s"),
    (4, "nonce", ""),
    (5, "measurements", ""),
    (6, "times of the release", ""),
    (7, "artifact", "scope.artifacts"),
    (8, "broker key", "scope.recipients"),
    (9, "model's name", "scope.models"),
    (10, "model's version", "minimum_model_version"),
    (11, "model's signer", "scope.signers"),
];

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let case = args.input.load(out)?;
    let verified = case.verify(case.live());
    let lines = case.policy.as_ref().map(|policy| judge(&case, policy, verified.as_ref().ok()));
    let denial = lines.as_ref().and_then(|lines| lines.denial.as_ref());
    let error = match (&verified, denial) {
        (Err(refusal), _) => Some(case.refused(refusal)),
        (_, Some(denial)) => Some(case.denied(denial)),
        _ => None,
    };
    let verified = verified.map(|_| ());
    out.result(&json(&case, &verified, lines.as_ref()), &text(&case, &verified, lines.as_ref()))?;
    error.map_or(Ok(()), |error| Err(error.already_reported()))
}

/// What a policy says, step by step.
struct PolicyLines {
    /// Step, subject, verdict, and the policy's line.
    steps: Vec<(Step, &'static str, &'static str, String)>,
    denial: Option<Denial>,
}

fn judge(case: &Case, policy: &Policy, verified: Option<&VerifiedEvidence>) -> PolicyLines {
    let outcome = verified.map(|verified| policy.appraise(verified, &case.demand()).map(Appraised::without_model));
    let release = outcome.as_ref().and_then(|outcome| outcome.as_ref().ok()).map(|result| result.release().to_owned());
    let denial = outcome.as_ref().and_then(|outcome| outcome.as_ref().err().cloned());
    let refused = denial.as_ref().map(|denial| denial.refusal.step);
    let steps = POLICY_STEPS.map(|(n, subject, key)| {
        let step = Step::P(n);
        let given = n < 7 && (n != 4 || case.nonce.is_some());
        let verdict = match refused {
            Some(refused) if refused == step => "REFUSES",
            Some(refused) if refused < step => "not judged",
            _ if verified.is_none() || !given => "not judged",
            _ => "holds",
        };
        let line = match (&denial, &release) {
            (Some(denial), _) if refused == Some(step) => denial.policy_line.clone(),
            (_, Some(release)) if n == 5 => format!("release {release}"),
            _ => policy.line(key).map_or(String::new(), |(number, text)| format!("{}:{number}: {text}", policy.name())),
        };
        (step, subject, verdict, line)
    });
    PolicyLines { steps: steps.into(), denial }
}

fn text(case: &Case, verified: &Result<(), Refusal>, lines: Option<&PolicyLines>) -> String {
    let outline = unverified_outline(&case.document);
    let mut parts = vec![
        format!("{}: {} bytes\n", printable(&case.name), case.document.len()),
        report::content(&outline),
        report::measurements(&outline),
        report::signers(&outline),
        format!("Verdict as of {}\n", rfc3339(case.now_s)),
    ];
    match verified {
        Ok(()) => parts.push(row("genuine", "V-1 to V-23 hold")),
        Err(refusal) => {
            let name = match refusal.step {
                Step::V(23) => "DEBUG MODE",
                Step::V(9 | 20) => "NOT VALID",
                _ => "NOT GENUINE",
            };
            parts.push(row(name, &words(refusal)));
            parts.extend(archived(case, refusal).map(|line| row("", &line)));
        }
    }
    if let Some((policy, lines)) = case.policy.as_ref().zip(lines) {
        parts.push(policy_text(policy, lines));
    }
    parts.concat()
}

fn policy_text(policy: &Policy, lines: &PolicyLines) -> String {
    let mut parts = vec![format!("Policy {}\n", policy.name()), row("SHA-256", &hex(policy.digest()))];
    for (step, subject, verdict, line) in &lines.steps {
        let line = if line.is_empty() { String::new() } else { format!(": {line}") };
        parts.push(row(verdict, &format!("{step} {subject}{line}")));
    }
    parts.extend(lines.denial.as_ref().map(|denial| row("because", &words(&denial.refusal))));
    parts.concat()
}

/// What is said of a document that is refused for its time: whether it was genuine when it was made.
fn archived(case: &Case, refusal: &Refusal) -> Option<String> {
    matches!(refusal.step, Step::V(9 | 20)).then(|| match case.verify(Mode::Archived) {
        Ok(_) => "it was genuine when it was made".into(),
        Err(then) => format!("at its own time: {}", words(&then)),
    })
}

fn json(case: &Case, verified: &Result<(), Refusal>, lines: Option<&PolicyLines>) -> serde_json::Value {
    let refusal = |refusal: &Refusal| {
        json!({
            "step": refusal.step.to_string(), "what": refusal.what,
            "expected": refusal.expected, "actual": refusal.actual,
        })
    };
    let refused = verified.as_ref().err();
    let policy = case.policy.as_ref().zip(lines).map(|(policy, lines)| {
        let steps: Vec<_> = lines
            .steps
            .iter()
            .map(|(step, subject, verdict, line)| {
                json!({ "step": step.to_string(), "subject": subject, "verdict": verdict.to_lowercase(), "line": line })
            })
            .collect();
        json!({
            "name": policy.name(), "digest": hex(policy.digest()), "steps": steps,
            "refusal": lines.denial.as_ref().map(|denial| refusal(&denial.refusal)),
            "fix": lines.denial.as_ref().map(|denial| &denial.fix),
        })
    });
    json!({
        "ok": refused.is_none() && lines.is_none_or(|lines| lines.denial.is_none()),
        "document": case.name,
        "judged_at": rfc3339(case.now_s),
        "unverified": report::outline_json(&unverified_outline(&case.document)),
        "refusal": refused.map(refusal),
        "hint": refused.map(|refused| case.hint(refused)),
        "genuine_when_made": case.verify(Mode::Archived).is_ok(),
        "policy": policy,
    })
}
