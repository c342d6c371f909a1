//! Signed requests for tests that look at a bucket behind the client's back: list it, read raw objects, put garbage.
//!
//! The signature (AWS Signature Version 4, payload signed) is made here, curl only carries it: curl's own signs neither
//! binary bodies nor spaces in keys rightly before version 8. Not a client: no retries, no streaming.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::vector::sha256;

/// An access key and its secret, for tests: nothing here is worth hiding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    pub access: String,
    pub secret: String,
}

impl Keys {
    pub fn new(access: &str, secret: &str) -> Self {
        Self { access: access.to_owned(), secret: secret.to_owned() }
    }
}

/// An answer, whatever its status.
#[derive(Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What stands in each `<tag>…</tag>` of the body, with XML's five names put back.
    pub fn all(&self, tag: &str) -> Vec<String> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let text = self.text();
        text.split(&open).skip(1).filter_map(|rest| rest.split_once(&close)).map(|(value, _)| plain(value)).collect()
    }

    fn parse(raw: &[u8]) -> Option<Self> {
        let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&raw[..end]);
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self { status, headers, body: raw[end + 4..].to_vec() })
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:.500}", self.status, self.headers, self.text())
    }
}

fn plain(xml: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(xml.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Signs and sends; `Err` when no answer came.
pub fn request(
    keys: &Keys,
    endpoint: &str,
    ca: Option<&Path>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Response, String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (path, query) = (encode(path, true), sorted(query));
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    let signed = sign(keys, SystemTime::now(), [method, host, &path, &query], headers, body);
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "-i", "-g", "--http1.1", "--path-as-is", "--max-time", "120", "--noproxy", "*"]);
    if method == "HEAD" {
        curl.arg("-I");
    } else {
        curl.args(["-X", method]);
    }
    if !body.is_empty() || method == "PUT" || method == "POST" {
        curl.args(["--data-binary", "@-"]);
    }
    if let Some(ca) = ca {
        curl.arg("--cacert").arg(ca);
    }
    let given = headers.iter().map(|(name, value)| format!("{name}: {value}"));
    // what curl would add by itself
    for header in given.chain(signed).chain(["Expect:".into(), "Accept:".into()]) {
        curl.arg("-H").arg(header);
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        curl.args(["-H", "Content-Type: application/octet-stream"]);
    }
    let question = if query.is_empty() { String::new() } else { format!("?{query}") };
    run(curl.arg(format!("{endpoint}{path}{question}")), body)
}

fn run(curl: &mut Command, body: &[u8]) -> Result<Response, String> {
    let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("curl");
    // curl reads all of it before it connects, or none of it
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(body));
    let output = child.wait_with_output().expect("curl");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Response::parse(&output.stdout).ok_or_else(|| format!("not HTTP: {:?}", output.stdout))
}

/// The headers that sign a request.
fn sign(keys: &Keys, now: SystemTime, request: [&str; 4], headers: &[(&str, &str)], body: &[u8]) -> Vec<String> {
    let [method, host, path, query] = request;
    let (day, time) = timestamp(now);
    let digest = sha256(body);
    let own = [("host", host), ("x-amz-content-sha256", &digest), ("x-amz-date", &time)];
    let amz = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.trim()));
    let mut signed: Vec<_> = amz.filter(|(name, _)| name.starts_with("x-amz-")).collect();
    signed.extend(own.map(|(name, value)| (name.to_owned(), value)));
    signed.sort();
    let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let lines = signed.iter().map(|(name, value)| [name, ":", value, "\n"].concat()).collect::<String>();

    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}");
    // LocalStack asks the signature which service is meant
    let service = if headers.iter().any(|(_, value)| value.starts_with("TrentService.")) { "kms" } else { "s3" };
    let scope = format!("{day}/us-east-1/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let steps = [&day, "us-east-1", service, "aws4_request", &text];
    let first = format!("AWS4{}", keys.secret).into_bytes();
    let signature = vault_core::header::hex(&steps.iter().fold(first, |key, step| mac(&key, step)));
    vec![
        format!("x-amz-date: {time}"),
        format!("x-amz-content-sha256: {digest}"),
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            keys.access
        ),
    ]
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `a=b&c` as signed and sent: encoded, sorted, each with its `=`.
fn sorted(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut pairs: Vec<_> =
        pairs.map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false))).collect();
    pairs.sort();
    pairs.join("&")
}

fn encode(text: &str, slash: bool) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            b'/' if slash => out.push('/'),
            _ => write!(out, "%{byte:02X}").expect("a string takes it"),
        }
        out
    })
}

/// `20261124` and `20261124T201518Z`, both UTC.
fn timestamp(now: SystemTime) -> (String, String) {
    let seconds = now.duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years: a year that begins in March ends with its leap day.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month < 3);
    let date = format!("{year:04}{month:02}{day:02}");
    let clock = format!("{date}T{:02}{:02}{:02}Z", time / 3600, time / 60 % 60, time % 60);
    (date, clock)
}

#[cfg(test)]
mod tests {
    use super::{Keys, Response, sign, sorted, timestamp};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn days_around_leap_days() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds)).1;
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_782_400), "20000229T000000Z");
        assert_eq!(at(1_709_251_199), "20240229T235959Z");
        assert_eq!(at(1_709_251_200), "20240301T000000Z");
        assert_eq!(at(4_107_542_400), "21000301T000000Z");
    }

    /// AWS's published example (S3 API reference, "GET Bucket (List Objects)").
    #[test]
    fn signature_of_the_published_example() {
        let keys = Keys::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let query = sorted("prefix=J&max-keys=2");
        let request = ["GET", "examplebucket.s3.amazonaws.com", "/", &query];
        let headers = sign(&keys, UNIX_EPOCH + Duration::from_hours(15_849 * 24), request, &[], b"");
        let expected = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert!(headers[2].ends_with(expected), "{headers:?}");
    }

    #[test]
    fn listing_with_names_that_xml_escapes() {
        let body = b"<L><Key>a&amp;lt;</Key><Key>b&lt;</Key></L>".to_vec();
        let listing = Response { status: 200, headers: Vec::new(), body };
        assert_eq!(listing.all("Key"), ["a&lt;", "b<"]);
    }
}
