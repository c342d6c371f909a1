//! What an operator can do about a refused step: the `fix` of a log entry, shown by `mvault broker why`, and the hint that a peer gets, which
//! tells nothing of policies and measurements.

use vault_attest::nitro::unverified_outline;
use vault_attest::time::rfc3339;
use vault_attest::{Refusal, Step};

/// A leaf certificate of Nitro lives three hours.
const LEAF_LIFE_S: u64 = 3 * 3600;

/// What to do about a step that refused.
pub fn fix(refusal: &Refusal) -> String {
    let text = match refusal.step {
        Step::V(n) => evidence(n),
        Step::P(_) => "compare the image with the policy: `mvault policy check`, `mvault attest explain`",
        Step::R(7) if refusal.what == "broker key" => {
            "the key was revoked in broker.toml: add the newest one with `mvault recipients add`, or take it out of [revoked]"
        }
        Step::R(6) if refusal.what.starts_with("digest") => {
            "the policy was changed after the model was sealed for this very file: add the recipient anew (`mvault broker recipient --pin`), or put the old file back"
        }
        Step::R(5) if refusal.actual == "no broker stanza" => {
            "the model is sealed for no broker: `mvault recipients add -r LINE/POLICY` with the line of `mvault broker recipient`"
        }
        Step::R(n) => protocol(n),
        Step::T(3) => {
            "another machine ends this TLS connection, and shows an enclave's evidence: nothing was sent to it"
        }
        Step::T(5) => "the enclave loaded another model than it says, or none: nothing was sent to it",
        Step::T(_) => "what answers is no enclave of mvault, or of another version; see docs/ENCLAVE.md section 6",
        Step::C(_) | Step::L(_) => "see docs/KEY_RELEASE.md",
    };
    text.to_owned()
}

/// The same for evidence, with what the document says of its own time.
pub fn fix_evidence(refusal: &Refusal, document: &[u8], now_s: u64) -> String {
    let made_s = unverified_outline(document).time_ms.map(|ms| ms / 1000);
    match (refusal.step, made_s) {
        (Step::V(20), Some(made)) if now_s > made && now_s - made > LEAF_LIFE_S => format!(
            "the document says it was made at {}: an old document was sent again, or this host's clock is ahead (chronyc tracking)",
            rfc3339(made)
        ),
        (Step::V(20), Some(made)) if made > now_s => format!(
            "the document says it was made at {}, after now: set this host's clock (chronyc tracking)",
            rfc3339(made)
        ),
        (Step::V(20), _) => {
            "the certificate expired while the enclave ran: attest anew for each request; check this host's clock"
                .into()
        }
        _ => fix(refusal),
    }
}

fn evidence(step: u8) -> &'static str {
    match step {
        1 | 2 | 6 | 7 | 10..=12 => "send the document as the NSM gave it, unchanged: the raw bytes, not base64 or hex",
        3 | 5 => "not signed by Nitro hardware: an emulator that does not sign, or a changed document",
        4 => "send the document as the NSM gave it; headers that were added are not signed",
        8 => "not a Nitro document of this generation",
        9 => "set the clock of this host (chronyc tracking); the document is dated by the hardware",
        14 => {
            "another root than AWS's: a development enclave, which needs --dangerous-dev-root on a development broker, or forged evidence"
        }
        13 | 15..=19 => "the certificates are not those of Nitro hardware",
        21 | 22 => "the document was changed or forged: send it as the NSM gave it",
        23 => {
            "the enclave runs in debug mode, where its parent reads its console: `nitro-cli run-enclave` without --debug-mode"
        }
        _ => "attest anew for each request",
    }
}

fn protocol(step: u8) -> &'static str {
    match step {
        1 => "the client and the broker differ in version, or something else speaks to this port",
        2 => "ask this broker for a challenge; replicas must share one keyring",
        3 => {
            "the enclave took over two minutes from challenge to request: ask for a new challenge; if it did not, compare the replicas' clocks"
        }
        4 => "send the header of a sealed model, unchanged",
        5 => {
            "the model is sealed for another broker: add this one with `mvault recipients add -r LINE/POLICY`, or ask the other broker"
        }
        6 => {
            "put a policy of this name into the policies folder and send SIGHUP; if the name is misspelt, add the recipient anew"
        }
        7 => "the artifact was revoked in broker.toml: publish a new one, or take it out of [revoked]",
        8 => {
            "the evidence was made for another request: user_data must be the binding of this nonce, key, artifact and stanza"
        }
        9 => "the stanza was changed after sealing; get the artifact again from where it was published",
        10 => "the header's parts are not of one artifact, or were changed; get it again from where it was published",
        11 => {
            "a nonce is good for one request: ask for a new challenge; if the enclave did, someone else sent its request before it"
        }
        12 => "wait, or raise [quotas] in broker.toml",
        _ => "see docs/KEY_RELEASE.md section 4",
    }
}

/// What the peer may know: the kind of step, never an expected value.
pub fn hint(step: Step) -> &'static str {
    match step {
        Step::V(23) => "the enclave runs in debug mode",
        Step::V(9 | 20) | Step::P(3) => {
            "the evidence is not of now: attest anew; if it is new, the broker's clock is off"
        }
        Step::V(_) => "the evidence is not genuine Nitro evidence as the hardware gave it",
        Step::P(4) | Step::R(8) => "the evidence is not bound to this request",
        Step::P(5 | 6) => "the policy does not name this image",
        Step::P(7..=11) => "the policy is not for this model",
        Step::R(1) => "not a request of this protocol version",
        Step::R(2 | 3 | 11) => "ask for a new challenge",
        Step::R(4 | 9 | 10) => "the header was changed, or is none",
        Step::R(5) => "the model is not sealed for this broker",
        Step::R(6) => "the broker does not have the policy that the model names",
        Step::R(7) => "revoked",
        Step::R(12) => "quota",
        _ => "refused",
    }
}
