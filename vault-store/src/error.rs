//! What can go wrong with a store, by cause. An error names the operation, the object, what the server said
//! (HTTP status, its code, its request id) and, through [`StoreError::hint`], the next step. No credential and no
//! plaintext is ever in one.

use std::fmt;
use std::io;
use vault_attest::step::Step;

/// A store's result.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why it failed, as far as the answer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// There is no such object.
    NotFound,
    /// There is no such bucket or folder.
    NoSuchBucket,
    /// Something is there already, or is not what the condition says.
    Precondition,
    /// The version is another publisher's.
    Taken,
    /// The multipart upload is gone: completed, aborted or cleaned up.
    NoSuchUpload,
    /// Signed by someone without the right.
    AccessDenied,
    /// The bucket or key is in another region.
    WrongRegion(Option<String>),
    /// This machine's clock is off.
    ClockSkew,
    /// The credentials were valid once.
    ExpiredCredentials,
    /// The access key is unknown, or its secret is another.
    BadCredentials,
    /// No credentials were found.
    NoCredentials,
    /// Nobody listens at the endpoint.
    Refused,
    /// The endpoint's name does not resolve.
    UnknownHost,
    /// TLS could not be set up.
    Tls,
    /// No answer in time, or the connection broke.
    Connection,
    /// The server asks to slow down.
    Throttled,
    /// The server failed (5xx).
    Server,
    /// What arrived is not what was sent.
    BadDigest,
    /// Plain http to a host that is not this machine.
    PlainHttp,
    /// The KMS key is disabled or on its way to deletion.
    KeyUnusable,
    /// There is no such KMS key, or not there.
    UnknownKey,
    /// The KMS key is not one that makes data keys.
    KeyKind,
    /// What KMS was to decrypt is not of this key and encryption context.
    OtherCiphertext,
    /// KMS refused a request with evidence: its policy demands other measurements, or the credentials lack the action.
    AttestationDenied,
    /// A step of KEY_RELEASE.md section 9 refused the evidence to be sent, or the answer.
    Step(Step),
    /// The source is not what it was when it was read first.
    SourceChanged,
    /// The local disk is full.
    DiskFull,
    /// An object is not what it should be.
    Malformed,
    /// The endpoint is not S3, or does not know the operation.
    NotS3,
    /// Anything else.
    Other,
}

/// A store failed.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// The operation, in S3's words: `PutObject`, `UploadPart`, `Decrypt`.
    pub operation: &'static str,
    /// The object or bucket: `s3://bucket/key`, a path, or a key's ARN.
    pub place: String,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The server's error code.
    pub code: Option<String>,
    /// The server's request id, for its support and logs.
    pub request_id: Option<String>,
    /// Why.
    pub cause: Cause,
    /// What was said, for people.
    pub message: String,
}

impl StoreError {
    /// An error without an answer from a server.
    pub fn new(operation: &'static str, place: impl Into<String>, cause: Cause, message: impl Into<String>) -> Self {
        let (place, message) = (place.into(), message.into());
        Self { operation, place, status: None, code: None, request_id: None, cause, message }
    }

    /// From the system, for a local path.
    pub fn io(operation: &'static str, place: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let place = place.into();
        move |error| {
            let cause = match error.kind() {
                io::ErrorKind::NotFound => Cause::NotFound,
                io::ErrorKind::AlreadyExists => Cause::Precondition,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Cause::AccessDenied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::DiskFull,
                _ => Cause::Other,
            };
            Self::new(operation, place, cause, plain(&error))
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.cause,
            Cause::Refused
                | Cause::Connection
                | Cause::Throttled
                | Cause::Server
                | Cause::UnknownHost
                | Cause::BadDigest
        )
    }

    /// Whether it is about one KMS key, so that another may do.
    pub fn is_of_key(&self) -> bool {
        matches!(
            self.cause,
            Cause::AccessDenied
                | Cause::UnknownKey
                | Cause::KeyUnusable
                | Cause::KeyKind
                | Cause::OtherCiphertext
                | Cause::AttestationDenied
                | Cause::WrongRegion(_)
        )
    }

    /// The next step.
    pub fn hint(&self) -> Option<String> {
        if let Some(key) = self.place.strip_prefix("aws-kms:")
            && let Some(hint) = self.kms_hint(key)
        {
            return Some(hint);
        }
        let here = self.place.starts_with("s3://");
        Some(match &self.cause {
            Cause::NotFound if here => "check the name; `mvault ls` lists what is there".into(),
            Cause::NotFound => "check the path; `mvault ls` lists what is there".into(),
            Cause::NoSuchBucket if here => {
                "check the bucket's name and the endpoint; mvault does not create buckets: `aws s3 mb s3://BUCKET`"
                    .into()
            }
            Cause::NoSuchBucket => "check the path".into(),
            Cause::AccessDenied if here => format!(
                "the credentials lack {}; `mvault iam` prints the policy that mvault needs",
                permission(self.operation)
            ),
            Cause::AccessDenied => "check the permissions of the folder".into(),
            Cause::WrongRegion(Some(region)) => {
                format!("it is in {region}: set AWS_REGION={region} or --region {region}")
            }
            Cause::WrongRegion(None) => "it is in another region: set AWS_REGION or --region".into(),
            Cause::ClockSkew => "this machine's clock is off: compare `date -u` and set it (NTP)".into(),
            Cause::ExpiredCredentials => "get new ones: `aws sso login`, or whatever made them".into(),
            Cause::BadCredentials => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile; they must be of this endpoint"
                    .into()
            }
            Cause::NoCredentials => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws sso login`".into()
            }
            Cause::Refused => {
                "nobody listens there: check --endpoint-url or AWS_ENDPOINT_URL, and that the server runs".into()
            }
            Cause::UnknownHost => "check the endpoint's host name, the region and the network".into(),
            Cause::Tls => {
                "for a server with a certificate of your own, name its CA with --ca-bundle or AWS_CA_BUNDLE".into()
            }
            Cause::Connection => "check the network; run the same command again to go on where it stopped".into(),
            Cause::Throttled => "the server asks to slow down; run the same command again later to go on".into(),
            Cause::Server => "the server failed; run the same command again to go on where it stopped".into(),
            Cause::BadDigest => "bytes were changed on the way; check the network and any proxy in between".into(),
            Cause::PlainHttp => {
                "use https; for a server you trust on a network you trust there is --dangerous-plain-http".into()
            }
            Cause::SourceChanged => "nothing was published; run the same command again when nobody writes to it".into(),
            Cause::DiskFull => "free some space, and run the same command again to go on where it stopped".into(),
            Cause::Taken => {
                "versions are never overwritten: push without --model-version to take the next one, or pull theirs"
                    .into()
            }
            Cause::NotS3 => "is the endpoint an S3 server? check --endpoint-url and AWS_ENDPOINT_URL".into(),
            _ => return None,
        })
    }

    /// The next step where it is another for KMS than for S3.
    fn kms_hint(&self, key: &str) -> Option<String> {
        Some(match &self.cause {
            Cause::AccessDenied => format!(
                "the credentials lack {} on {key}: in their IAM policy, in the key's policy, or, for a key of another \
                 account, in one of both; `mvault iam` prints what they need",
                permission(self.operation)
            ),
            Cause::AttestationDenied => format!(
                "its key policy does not release it to this machine. Compare its kms:RecipientAttestation conditions \
                 with the measurements of this image (another release?); in debug mode PCRs are zeros, and no policy \
                 may want those; else the credentials lack {} on {key}",
                permission(self.operation)
            ),
            Cause::Step(step) => return step_hint(*step).map(Into::into),
            Cause::UnknownKey => {
                "check the key's name, and the region: --region or AWS_REGION, where the name does not say it".into()
            }
            Cause::WrongRegion(_) => {
                "the endpoint is of another region than the key: check --kms-endpoint-url, AWS_ENDPOINT_URL_KMS and \
                 --region"
                    .into()
            }
            Cause::KeyUnusable => "enable the key in AWS KMS, or cancel its deletion".into(),
            Cause::KeyKind => "name a symmetric key for encryption (SYMMETRIC_DEFAULT)".into(),
            Cause::OtherCiphertext => {
                "the recipient's stanza was changed or is of another artifact; get the artifact again".into()
            }
            Cause::Refused => "nobody listens there: check --kms-endpoint-url, AWS_ENDPOINT_URL_KMS and \
                 AWS_ENDPOINT_URL"
                .into(),
            Cause::Throttled => "AWS KMS asks to slow down; run the same command again later".into(),
            Cause::Server | Cause::Connection => "run the same command again; check the network".into(),
            Cause::NotS3 => "is the endpoint AWS KMS? check --kms-endpoint-url and AWS_ENDPOINT_URL_KMS".into(),
            _ => return None,
        })
    }
}

/// The next step after one of KEY_RELEASE.md section 9 refused.
fn step_hint(step: Step) -> Option<&'static str> {
    Some(match step {
        Step::C(1) => "is this an enclave, and does its /dev/nsm answer?",
        Step::C(2) => {
            "who answered did not read the evidence: it is no AWS KMS, or something in between took Recipient out. The \
             data key crossed the network in the clear; check --kms-endpoint-url and AWS_ENDPOINT_URL_KMS, then seal anew"
        }
        Step::C(3) => "who answered used another key than the one asked for; check --kms-endpoint-url",
        Step::C(18) => "it is encrypted to another key than this request's, or was changed on the way; try again",
        Step::C(_) => "is the endpoint AWS KMS? check --kms-endpoint-url and AWS_ENDPOINT_URL_KMS",
        _ => return None,
    })
}

/// The IAM action that an operation needs.
fn permission(operation: &str) -> String {
    match operation {
        "GenerateDataKey" | "Decrypt" | "DescribeKey" => format!("kms:{operation}"),
        "HeadObject" => "s3:GetObject (and s3:ListBucket)".into(),
        "ListObjectsV2" => "s3:ListBucket".into(),
        "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => "s3:PutObject".into(),
        "ListParts" => "s3:ListMultipartUploadParts".into(),
        "ListMultipartUploads" => "s3:ListBucketMultipartUploads".into(),
        other => format!("s3:{other}"),
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.operation, self.message)?;
        let said = [
            self.status.map(|s| format!("HTTP {s}")),
            self.code.clone(),
            self.request_id.as_ref().map(|id| format!("request {id}")),
        ];
        let said: Vec<_> = said.into_iter().flatten().collect();
        if said.is_empty() { Ok(()) } else { write!(f, " ({})", said.join(", ")) }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match error.cause {
            Cause::NotFound | Cause::NoSuchBucket => io::ErrorKind::NotFound,
            Cause::DiskFull => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The store's error in a system error that passed through vault-core.
pub fn in_io(error: &io::Error) -> Option<&StoreError> {
    error.get_ref()?.downcast_ref()
}

/// A time for people and for JSON: RFC 3339, UTC.
pub fn time_text(seconds: u64) -> String {
    let time = aws_smithy_types::DateTime::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap_or_else(|_| seconds.to_string())
}

/// The system's words without its error number.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
