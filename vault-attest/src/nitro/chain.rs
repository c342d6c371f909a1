//! The certificate path from the pinned root to the leaf: V-15 to V-21. Its order is the document's; nothing is searched for.

use super::certificate::Certificate;
use crate::step::{Refusal, Step};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};

/// V-15 to V-20: everything about the path that costs no signature.
pub(super) fn check(path: &[Certificate<'_>], time_s: u64) -> Result<(), Refusal> {
    check_order(path)?;
    let Some((leaf, authorities)) = path.split_last() else { return Ok(()) };
    for authority in authorities {
        check_is_ca(authority)?;
    }
    check_is_no_ca(leaf)?;
    for (below, authority) in authorities.iter().rev().enumerate() {
        check_path_length(authority, below)?;
    }
    for authority in authorities {
        check_usage(authority, true)?;
    }
    check_usage(leaf, false)?;
    path.iter().try_for_each(Certificate::check_extensions)?;
    path.iter().try_for_each(|certificate| check_validity(certificate, time_s))
}

/// `[V-21]`: each certificate but the pinned root is signed by the one before.
pub(super) fn check_signatures(path: &[Certificate<'_>]) -> Result<(), Refusal> {
    for pair in path.windows(2) {
        let [issuer, certificate] = pair else { continue };
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, &issuer.point);
        if key.verify(certificate.tbs, certificate.signature()).is_err() {
            let (what, by) = (format!("signature of {}", certificate.name), format!("made by {}", issuer.name));
            return Err(Refusal::new(Step::V(21), what, by, "not made by that key"));
        }
    }
    Ok(())
}

/// When all certificates are valid, in seconds since 1970.
pub(super) fn window(path: &[Certificate<'_>]) -> (u64, u64) {
    let validities = || path.iter().map(Certificate::validity);
    (validities().map(|v| v.0).max().unwrap_or(0), validities().map(|v| v.1).min().unwrap_or(0))
}

/// `[V-15]`
fn check_order(path: &[Certificate<'_>]) -> Result<(), Refusal> {
    for pair in path.windows(2) {
        let [issuer, certificate] = pair else { continue };
        if !certificate.is_issued_by(issuer) {
            let what = format!("issuer of {}", certificate.name);
            return Err(Refusal::new(Step::V(15), what, issuer.subject(), certificate.issuer()));
        }
    }
    Ok(())
}

/// `[V-16]` of a bundle's member.
fn check_is_ca(authority: &Certificate<'_>) -> Result<(), Refusal> {
    let found = match authority.basic_constraints() {
        Ok(Some((true, constraints))) if constraints.ca => return Ok(()),
        Ok(Some((true, _))) => "basicConstraints of an end entity",
        Ok(Some((false, _))) => "basicConstraints that is not critical",
        Ok(None) => "no basicConstraints",
        Err(_) => "malformed basicConstraints",
    };
    Err(Refusal::new(Step::V(16), authority.name.clone(), "critical basicConstraints of a CA", found))
}

/// `[V-16]` of the leaf.
fn check_is_no_ca(leaf: &Certificate<'_>) -> Result<(), Refusal> {
    let found = match leaf.basic_constraints() {
        Ok(None) => return Ok(()),
        Ok(Some((_, constraints))) if !constraints.ca => return Ok(()),
        Ok(Some(_)) => "a CA",
        Err(_) => "malformed basicConstraints",
    };
    Err(Refusal::new(Step::V(16), leaf.name.clone(), "no CA", found))
}

/// `[V-17]`: `below` authorities follow this one.
fn check_path_length(authority: &Certificate<'_>, below: usize) -> Result<(), Refusal> {
    let limit = authority.basic_constraints().ok().flatten().and_then(|(_, c)| c.path_len_constraint);
    match limit {
        Some(limit) if below > usize::from(limit) => {
            let expected = format!("at most {limit} authorities below");
            Err(Refusal::new(Step::V(17), authority.name.clone(), expected, below))
        }
        _ => Ok(()),
    }
}

/// `[V-18]`
fn check_usage(certificate: &Certificate<'_>, signs_certificates: bool) -> Result<(), Refusal> {
    let expected = if signs_certificates { "keyCertSign" } else { "digitalSignature without keyCertSign" };
    let found = match certificate.key_usage() {
        Ok(Some(usage)) if signs_certificates && usage.key_cert_sign() => return Ok(()),
        Ok(Some(usage)) if !signs_certificates && usage.digital_signature() && !usage.key_cert_sign() => return Ok(()),
        Ok(Some(usage)) => format!("{:?}", usage.0),
        Ok(None) => "no keyUsage".into(),
        Err(_) => "malformed keyUsage".into(),
    };
    Err(Refusal::new(Step::V(18), format!("key usage of {}", certificate.name), expected, found))
}

/// `[V-20]`
fn check_validity(certificate: &Certificate<'_>, time_s: u64) -> Result<(), Refusal> {
    let (from, to) = certificate.validity();
    if (from..=to).contains(&time_s) {
        return Ok(());
    }
    let expected = format!("{} to {}", crate::time::rfc3339(from), crate::time::rfc3339(to));
    let what = format!("validity of {}", certificate.name);
    Err(Refusal::new(Step::V(20), what, expected, crate::time::rfc3339(time_s)))
}
