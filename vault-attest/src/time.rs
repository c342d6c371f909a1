//! Times as people and log entries have them: RFC 3339 in UTC. The clock itself is always an argument.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970 as `2026-11-24T23:00:00Z`; the number itself beyond year 9999.
pub fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    time.and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

/// Milliseconds since 1970 as `2026-11-24T23:00:00.123Z`.
pub fn rfc3339_ms(ms: u64) -> String {
    let whole = rfc3339(ms / 1000);
    whole.strip_suffix('Z').map_or_else(|| whole.clone(), |seconds| format!("{seconds}.{:03}Z", ms % 1000))
}

/// Seconds since 1970 of an RFC 3339 time, of any offset.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_back() {
        assert_eq!(rfc3339(1_572_269_285), "2019-10-28T13:28:05Z");
        assert_eq!(rfc3339_ms(1_572_269_285_007), "2019-10-28T13:28:05.007Z");
        assert_eq!(parse_rfc3339("2019-10-28T14:28:05+01:00"), Some(1_572_269_285));
        assert_eq!(rfc3339(u64::MAX), u64::MAX.to_string());
        for bad in ["", "2019-10-28", "2019-10-28T14:28:05", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
