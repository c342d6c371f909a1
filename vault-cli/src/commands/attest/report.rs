//! What evidence says, as text of 80 columns and as JSON.

use crate::output::printable;
use serde_json::{Map, Value, json};
use vault_attest::VerifiedEvidence;
use vault_attest::nitro::{CertificateOutline, UnverifiedOutline};
use vault_attest::time::{rfc3339, rfc3339_ms};
use vault_core::header::hex;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Where values stand.
const INDENT: usize = 14;
/// Bytes of public key, user data and nonce that are shown.
const MOST_SHOWN: usize = 128;

/// Verified evidence.
pub fn verified_json(verified: &VerifiedEvidence) -> Value {
    let pcrs: Map<_, _> = verified.pcrs().map(|(i, pcr)| (i.to_string(), hex(pcr).into())).collect();
    let (from, to) = verified.validity_s();
    json!({
        "platform": verified.platform().name(),
        "module_id": verified.module_id(),
        "time": rfc3339_ms(verified.time_ms()),
        "pcrs": pcrs,
        "nonce": hex(verified.nonce()),
        "user_data": hex(verified.user_data()),
        "public_key": hex(verified.public_key()),
        "valid_from": rfc3339(from),
        "valid_to": rfc3339(to),
        "root": hex(verified.root()),
        "sha256": hex(verified.digest()),
    })
}

/// What a document says of itself, verified or not.
pub fn outline_json(outline: &UnverifiedOutline) -> Value {
    let pcrs: Map<_, _> = outline.pcrs.iter().map(|(i, pcr)| (i.to_string(), hex(pcr).into())).collect();
    json!({
        "module_id": outline.module_id,
        "time": outline.time_ms.map(rfc3339_ms),
        "debug": is_debug(outline),
        "pcrs": pcrs,
        "nonce": hex(&outline.nonce),
        "user_data": hex(&outline.user_data),
        "public_key": hex(&outline.public_key),
        "certificates": outline.certificates.iter().map(certificate_json).collect::<Vec<_>>(),
    })
}

fn certificate_json(certificate: &CertificateOutline) -> Value {
    let content = certificate.content.as_ref();
    json!({
        "place": certificate.place,
        "sha256": hex(&certificate.fingerprint),
        "subject": content.map(|c| &c.subject),
        "issuer": content.map(|c| &c.issuer),
        "serial": content.map(|c| &c.serial),
        "not_before": content.map(|c| rfc3339(c.validity_s.0)),
        "not_after": content.map(|c| rfc3339(c.validity_s.1)),
    })
}

/// Whether PCR0, 1 or 2 is all zero; `None` if one is not there.
pub fn is_debug(outline: &UnverifiedOutline) -> Option<bool> {
    let pcr = |index| outline.pcrs.iter().find(|(i, _)| *i == index).map(|(_, pcr)| pcr.iter().all(|&b| b == 0));
    Some(pcr(0)? || pcr(1)? || pcr(2)?)
}

/// What is in a document.
pub fn content(outline: &UnverifiedOutline) -> String {
    let debug = match is_debug(outline) {
        Some(false) => "no: PCR0, PCR1 and PCR2 are measurements",
        Some(true) => "YES: its parent can read its console, or it measures nothing",
        None => "not known: PCR0, PCR1 or PCR2 is missing",
    };
    let mut text = row("enclave", outline.module_id.as_deref().unwrap_or("none"));
    text += &row("made", &outline.time_ms.map_or("no time".into(), rfc3339_ms));
    text += &row("debug mode", debug);
    for (name, data) in
        [("nonce", &outline.nonce), ("user data", &outline.user_data), ("public key", &outline.public_key)]
    {
        text += &row(name, &data_text(data));
    }
    text
}

fn data_text(data: &[u8]) -> String {
    let shown = data.get(..data.len().min(MOST_SHOWN)).unwrap_or_default();
    match data.len() {
        0 => "none".into(),
        1..=MOST_SHOWN => format!("{} ({} bytes)", hex(shown), data.len()),
        len => format!("{}… ({len} bytes)", hex(shown)),
    }
}

/// PCRs that say something, then those of zeros in a line.
pub fn measurements(outline: &UnverifiedOutline) -> String {
    let mut pcrs: Vec<_> = outline.pcrs.iter().collect();
    pcrs.sort();
    let (zero, other): (Vec<_>, Vec<_>) = pcrs.into_iter().partition(|(_, pcr)| pcr.iter().all(|&b| b == 0));
    let mut text = String::from("Measurements\n");
    for (index, pcr) in other {
        let value = match meaning(*index) {
            "" => hex(pcr),
            meaning => format!("{} {meaning}", hex(pcr)),
        };
        text += &row(&format!("PCR{index}"), &value);
    }
    if outline.pcrs.is_empty() {
        text += &row("none", "");
    }
    if !zero.is_empty() {
        let list: Vec<_> = zero.iter().map(|(index, _)| index.to_string()).collect();
        text += &row("all zero", &format!("PCR {}", list.join(", ")));
    }
    text
}

fn meaning(index: u64) -> &'static str {
    match index {
        0 => "(image)",
        1 => "(kernel and boot)",
        2 => "(application)",
        3 => "(parent's role)",
        4 => "(parent instance)",
        8 => "(image signer)",
        _ => "",
    }
}

/// Who signed, from the root to the document's own key.
pub fn signers(outline: &UnverifiedOutline) -> String {
    let mut text = String::from("Signed by\n");
    if outline.certificates.is_empty() {
        text += &row("nobody", "no certificate could be read");
    }
    for certificate in &outline.certificates {
        let Some(content) = &certificate.content else {
            text += &row(&certificate.place, "not an X.509 certificate");
            continue;
        };
        text += &row(&certificate.place, &content.subject);
        text += &row("", &format!("{} to {}", rfc3339(content.validity_s.0), rfc3339(content.validity_s.1)));
        text += &row("", &format!("serial {}", content.serial));
        if certificate.place == "cabundle[0]" {
            text += &row("", &format!("SHA-256 {}", hex(&certificate.fingerprint)));
        } else {
            text += &row("", &format!("issued by {}", content.issuer));
        }
    }
    text
}

/// A name and its value, in lines of at most 80 columns.
pub fn row(name: &str, value: &str) -> String {
    let (mut out, mut line) = (String::new(), format!("  {name:<width$}", width = INDENT - 2));
    let mut empty = true;
    for piece in pieces(&printable(value)) {
        if !empty && line.chars().count() + piece.trim_end().chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(INDENT);
        }
        line.push_str(&piece);
        empty = false;
    }
    out + line.trim_end() + "\n"
}

/// Where a value may be broken: behind blanks and commas, and after 48 characters in any case.
fn pieces(value: &str) -> Vec<String> {
    let (mut pieces, mut piece, mut len) = (Vec::new(), String::new(), 0);
    for c in value.chars() {
        piece.push(c);
        len += 1;
        if c == ' ' || c == ',' || len == 48 {
            pieces.push(std::mem::take(&mut piece));
            len = 0;
        }
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_a_terminal() {
        for value in ["", "a", &"a".repeat(500), &"a,b ".repeat(100), &"CN=x,".repeat(40), &"é".repeat(300)] {
            let text = row("cabundle[0]", value);
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            let back: String = text.lines().map(|line| line.chars().skip(INDENT).collect::<String>()).collect();
            assert_eq!(back.replace(' ', ""), value.replace(' ', ""));
        }
        assert!(!row("a", "b\x1b[2J").contains('\x1b'));
    }
}
