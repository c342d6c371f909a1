//! `mvault attest verify`: a verdict in a line and an exit code.

use super::{Case, Input, report};
use crate::error::CliError;
use crate::output::{Output, printable};
use serde_json::json;
use vault_attest::VerifiedEvidence;
use vault_attest::policy::AttestationResult;
use vault_attest::time::{rfc3339, rfc3339_ms};
use vault_core::header::hex;

/// Check that evidence is genuine, and what a policy says of it
///
/// Verifies an AWS Nitro attestation document: form, certificates up to AWS's root, signatures, validity now (or at
/// --at), no debug mode; with --policy, measurements and age too. The steps are those of docs/KEY_RELEASE.md.
/// Without an artifact at hand, what a policy says of artifacts and models is not judged.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault attest verify doc.bin                                  is it genuine now?
  mvault attest verify doc.bin --at 2026-11-24T23:00:00Z        was it genuine then?
  mvault attest verify doc.bin --policy prod.toml --nonce 8f0c…
  base64 -d doc.txt | mvault attest verify - --json

Exit codes: 0 genuine (and allowed), 3 not authentic, 4 debug mode or denied by the policy.")]
pub struct Args {
    #[command(flatten)]
    input: Input,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let case = args.input.load(out)?;
    let verified = case.verify(case.live()).map_err(|refusal| case.refused(&refusal))?;
    let result = appraise(&case, &verified)?;
    let mut json = report::verified_json(&verified);
    if let Some(json) = json.as_object_mut() {
        json.insert("ok".into(), true.into());
        json.insert("document".into(), case.name.clone().into());
        json.insert("judged_at".into(), rfc3339(case.now_s).into());
        json.insert("policy".into(), result.as_ref().map_or(json!(null), policy_json));
    }
    out.result(&json, &text(&case, &verified, result.as_ref()))
}

fn appraise(case: &Case, verified: &VerifiedEvidence) -> Result<Option<AttestationResult>, CliError> {
    let Some(policy) = &case.policy else { return Ok(None) };
    let appraised = policy.appraise(verified, &case.demand()).map_err(|denial| case.denied(&denial))?;
    Ok(Some(appraised.without_model()))
}

fn policy_json(result: &AttestationResult) -> serde_json::Value {
    let not_judged: Vec<_> = result.not_judged().iter().map(ToString::to_string).collect();
    json!({
        "name": result.policy(),
        "digest": hex(result.policy_digest()),
        "release": result.release(),
        "minimum_model_version": result.minimum_model_version(),
        "not_judged": not_judged,
    })
}

fn text(case: &Case, verified: &VerifiedEvidence, result: Option<&AttestationResult>) -> String {
    let text = format!(
        "{}: genuine: {} {}\nmade {}, judged as of {} (V-1 to V-23)\n",
        case.name,
        verified.platform(),
        printable(verified.module_id()),
        rfc3339_ms(verified.time_ms()),
        rfc3339(case.now_s),
    );
    let policy = match result {
        None => "no policy was asked: any enclave's document is as genuine\n".into(),
        Some(result) => {
            let skipped: Vec<_> = result.not_judged().iter().map(ToString::to_string).collect();
            let (policy, release, skipped) = (result.policy(), result.release(), skipped.join(", "));
            format!("allowed by policy {policy}: release {release}\nnot judged: {skipped}\n")
        }
    };
    text + &policy
}
