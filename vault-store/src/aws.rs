//! The AWS side that S3 and KMS share: one runtime, one configuration found where every AWS tool looks for it
//! (environment, profiles, SSO, IMDS, web identity), rustls with optional own CAs, and the refusal of plain http.
//!
//! Nothing here keeps a credential: the SDK does, and signs with it. [`Aws::credentials`] hands them to who signs elsewhere.

use crate::error::{Cause, Result, StoreError};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a user may say of where AWS is.
#[derive(Debug, Clone, Default)]
pub struct AwsOptions {
    /// Another S3 endpoint than AWS's own, over AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL.
    pub endpoint_url: Option<String>,
    /// Another KMS endpoint than AWS's own, over AWS_ENDPOINT_URL_KMS and AWS_ENDPOINT_URL.
    pub kms_endpoint_url: Option<String>,
    /// The region, over what environment and profile say.
    pub region: Option<String>,
    /// The profile, over AWS_PROFILE.
    pub profile: Option<String>,
    /// PEM file of further CAs to trust for TLS.
    pub ca_bundle: Option<PathBuf>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`. Always so with an endpoint URL.
    pub path_style: bool,
    /// Allow http to hosts that are not this machine.
    pub dangerous_plain_http: bool,
}

/// A connection to AWS: cheap to clone, used from any thread.
#[derive(Clone)]
pub struct Aws {
    runtime: Arc<tokio::runtime::Runtime>,
    config: SdkConfig,
    options: AwsOptions,
}

impl Aws {
    /// Finds region, credentials and endpoint. No request is sent but those of the credential chain.
    pub fn connect(options: &AwsOptions) -> Result<Self> {
        let runtime = runtime()?;
        let client = client(options)?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(client)
            .retry_config(RetryConfig::standard().with_max_attempts(5).with_initial_backoff(Duration::from_millis(200)))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .read_timeout(Duration::from_mins(1))
                    .build(),
            );
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &options.profile {
            loader = loader.profile_name(profile);
        }
        let config = runtime.block_on(loader.load());
        Ok(Self::on(runtime, config, options))
    }

    /// With credentials, region and endpoint that the caller has, for programs that do not take them from their
    /// environment.
    pub fn with_config(config: SdkConfig, options: &AwsOptions) -> Result<Self> {
        let config = config.into_builder().http_client(client(options)?).build();
        Ok(Self::on(runtime()?, config, options))
    }

    fn on(runtime: tokio::runtime::Runtime, config: SdkConfig, options: &AwsOptions) -> Self {
        let config = if config.region().is_none() {
            // S3 redirects to the right region; KMS keys name theirs.
            config.into_builder().region(Region::new("us-east-1")).build()
        } else {
            config
        };
        Self { runtime: Arc::new(runtime), config, options: options.clone() }
    }

    /// What an S3 client is configured with.
    pub fn s3(&self) -> aws_sdk_s3::config::Builder {
        let mut builder = aws_sdk_s3::config::Builder::from(&self.config).interceptor(self.guard());
        if let Some(url) = &self.options.endpoint_url {
            builder.set_endpoint_url(Some(url.clone()));
        }
        // A server that is not AWS has no certificate, and often no name, for each bucket.
        let elsewhere = self.options.endpoint_url.is_some()
            || self.config.endpoint_url().is_some()
            || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        builder.force_path_style(self.options.path_style || elsewhere)
    }

    /// What a KMS client is configured with; `region` is that of the key, if it names one.
    pub fn kms(&self, region: Option<&str>) -> aws_sdk_kms::config::Builder {
        let mut builder = aws_sdk_kms::config::Builder::from(&self.config).interceptor(self.guard());
        if let Some(url) = &self.options.kms_endpoint_url {
            builder.set_endpoint_url(Some(url.clone()));
        }
        if let Some(region) = region {
            builder = builder.region(Region::new(region.to_owned()));
        }
        builder
    }

    /// The region of the environment, the profile or the user.
    pub fn region(&self) -> &str {
        self.config.region().map_or("us-east-1", AsRef::as_ref)
    }

    /// The credentials that requests would be signed with now, for someone who signs by itself: an enclave.
    pub fn credentials(&self) -> Result<Credentials> {
        let none = |cause, why: String| StoreError::new("credentials", "AWS", cause, why);
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or_else(|| none(Cause::NoCredentials, "no credentials were found".into()))?;
        self.wait(provider.provide_credentials()).map_err(|e| match e {
            CredentialsError::CredentialsNotLoaded(_) => none(Cause::NoCredentials, "no credentials were found".into()),
            other => none(Cause::BadCredentials, other.to_string()),
        })
    }

    /// Waits for `future`.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Waits for `future`, which runs on the network's threads: it and the connection that it reads from wake each other
    /// without changing threads.
    pub fn wait_there<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self.runtime.block_on(self.runtime.spawn(future)) {
            Ok(output) => output,
            Err(e) => std::panic::resume_unwind(e.into_panic()), // nobody cancels it
        }
    }

    /// Another client's transport, whose connections belong to the thread that uses it, and a runtime for them.
    pub fn alone(&self) -> Result<(aws_sdk_s3::config::Builder, tokio::runtime::Runtime)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StoreError::io("start", "network threads"))?;
        Ok((self.s3().http_client(client(&self.options)?), runtime))
    }

    /// What every client gets: requests over plain http leave only for this machine.
    fn guard(&self) -> PlainHttpGuard {
        PlainHttpGuard { allowed: self.options.dangerous_plain_http }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("mvault-net")
        .enable_all()
        .build()
        .map_err(StoreError::io("start", "network threads"))
}

fn client(options: &AwsOptions) -> Result<SharedHttpClient> {
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(tls_context(options)?)
        .build_https())
}

fn tls_context(options: &AwsOptions) -> Result<TlsContext> {
    let mut roots = TrustStore::default();
    let bundle = options.ca_bundle.clone().or_else(|| std::env::var_os("AWS_CA_BUNDLE").map(PathBuf::from));
    if let Some(path) = bundle {
        let place = path.display().to_string();
        let pem = std::fs::read(&path).map_err(StoreError::io("read the CA bundle", &place))?;
        if !pem.windows(11).any(|w| w == b"-----BEGIN ") {
            return Err(StoreError::new("read the CA bundle", place, Cause::Tls, "no certificate in PEM in it"));
        }
        roots = roots.with_pem_certificate(pem);
    }
    let built = TlsContext::builder().with_trust_store(roots).build();
    built.map_err(|e| StoreError::new("set up TLS", "trusted roots", Cause::Tls, e.to_string()))
}

/// Refuses a request over plain http to another machine, whatever named the endpoint.
#[derive(Debug)]
struct PlainHttpGuard {
    allowed: bool,
}

const PLAIN_HTTP: &str = "plain http to a host that is not this machine";

impl Intercept for PlainHttpGuard {
    fn name(&self) -> &'static str {
        "PlainHttpGuard"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let uri = context.request().uri();
        if self.allowed || !uri.to_ascii_lowercase().starts_with("http://") || is_loopback(uri) {
            return Ok(());
        }
        Err(PLAIN_HTTP.into())
    }
}

/// Whether the host of an http URI is this machine: `localhost`, 127.0.0.0/8 or ::1.
fn is_loopback(uri: &str) -> bool {
    let rest = uri.get("http://".len()..).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What an SDK error says, by cause.
pub(crate) fn classify<E>(operation: &'static str, place: &str, error: &SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let response = error.raw_response();
    let status = response.map(|r| r.status().as_u16());
    let request_id = error.request_id().or_else(|| response?.headers().get("x-amz-request-id")).map(plain);
    let code = error.code().map(plain);
    let said = error.message().map(plain);
    let chain = chain(error);
    let cause = cause(operation, status, code.as_deref(), said.as_deref().unwrap_or_default(), &chain, error);
    let cause = match cause {
        Cause::WrongRegion(None) => {
            Cause::WrongRegion(response.and_then(|r| r.headers().get("x-amz-bucket-region")).map(str::to_owned))
        }
        other => other,
    };
    let message = said.filter(|m| !m.is_empty()).unwrap_or_else(|| words(&cause, status, &chain));
    StoreError { operation, place: place.into(), status, code, request_id, cause, message }
}

/// A server's words, fit for a terminal.
fn plain(said: &str) -> String {
    said.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).take(500).collect()
}

fn words(cause: &Cause, status: Option<u16>, chain: &str) -> String {
    match cause {
        Cause::PlainHttp => PLAIN_HTTP.into(),
        Cause::NotFound => "not found".into(),
        Cause::UnknownKey => "no such key there".into(),
        Cause::KeyUnusable => "the key is disabled or pending deletion".into(),
        Cause::KeyKind => "the key is not one that makes data keys".into(),
        Cause::OtherCiphertext => "not of this key and encryption context".into(),
        Cause::NoCredentials => "no credentials were found".into(),
        Cause::Refused => "connection refused".into(),
        Cause::UnknownHost => "the host name does not resolve".into(),
        Cause::Precondition => "the condition does not hold".into(),
        Cause::NotS3 => "the answer is not one of S3".into(),
        _ if status.is_some() => "refused, and the server does not say why".into(),
        _ => chain.rsplit(": ").next().unwrap_or(chain).into(),
    }
}

fn cause<E>(
    operation: &str,
    status: Option<u16>,
    code: Option<&str>,
    said: &str,
    chain: &str,
    error: &SdkError<E, HttpResponse>,
) -> Cause {
    if chain.contains(PLAIN_HTTP) {
        return Cause::PlainHttp;
    }
    if let Some(known) = code.and_then(|code| by_code(operation, code, said)) {
        return known;
    }
    match status {
        Some(404) => return Cause::NotFound,
        Some(412 | 409) => return Cause::Precondition,
        Some(301 | 307) => return Cause::WrongRegion(None),
        Some(403 | 401) => return Cause::AccessDenied,
        Some(429) => return Cause::Throttled,
        Some(500..) => return Cause::Server,
        Some(200..=299) => return Cause::NotS3,
        _ => {}
    }
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Cause::Connection,
        _ => by_words(chain),
    }
}

/// S3's and KMS's error codes. <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
fn by_code(operation: &str, code: &str, said: &str) -> Option<Cause> {
    Some(match code {
        "NoSuchBucket" => Cause::NoSuchBucket,
        "NoSuchKey" | "NotFound" if operation != "HeadBucket" => Cause::NotFound,
        "NotFoundException" if said.starts_with("Invalid arn") => Cause::WrongRegion(None),
        "NotFoundException" => Cause::UnknownKey,
        "NoSuchUpload" => Cause::NoSuchUpload,
        "PreconditionFailed" | "ConditionalRequestConflict" => Cause::Precondition,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            Cause::WrongRegion(region_in(said))
        }
        "RequestTimeTooSkewed" | "RequestExpired" => Cause::ClockSkew,
        "InvalidSignatureException" if said.contains("scoped to a valid region") => Cause::WrongRegion(None),
        "InvalidSignatureException" if said.contains("Signature expired") || said.contains("not yet current") => {
            Cause::ClockSkew
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Cause::ExpiredCredentials,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidToken"
        | "IncompleteSignature"
        | "InvalidSignatureException" => Cause::BadCredentials,
        "AccessDenied" | "AccessDeniedException" | "AllAccessDisabled" | "Forbidden" | "AccountProblem" => {
            Cause::AccessDenied
        }
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "LimitExceededException" => Cause::Throttled,
        "InternalError"
        | "ServiceUnavailable"
        | "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException" => Cause::Server,
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "InvalidDigest"
        | "IncompleteBody" => Cause::BadDigest,
        "RequestTimeout" => Cause::Connection,
        "DisabledException" | "KMSInvalidStateException" => Cause::KeyUnusable,
        "InvalidKeyUsageException" => Cause::KeyKind,
        "InvalidCiphertextException" | "IncorrectKeyException" => Cause::OtherCiphertext,
        "NotImplemented" | "MethodNotAllowed" => Cause::NotS3,
        _ => return None,
    })
}

/// `…; expecting 'eu-west-1'` in the server's words.
fn region_in(said: &str) -> Option<String> {
    let rest = said.split("expecting '").nth(1)?;
    rest.split('\'').next().filter(|r| !r.is_empty()).map(str::to_owned)
}

/// No answer: what the connector says.
fn by_words(chain: &str) -> Cause {
    let lower = chain.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    if has(&[
        "no providers in chain",
        "credentials provider",
        "no credentials",
        "credentialsnotloaded",
        "could not load credentials",
        "did not enable",
    ]) {
        Cause::NoCredentials
    } else if has(&["certificate", "invalid peer", "tls", "handshake", "corrupt message"]) {
        Cause::Tls
    } else if has(&["dns error", "lookup address", "name or service not known", "failed to lookup"]) {
        Cause::UnknownHost
    } else if has(&["connection refused"]) {
        Cause::Refused
    } else if has(&["checksum"]) {
        Cause::BadDigest
    } else if has(&[
        "timed out",
        "timeout",
        "reset",
        "broken pipe",
        "closed",
        "eof",
        "incomplete",
        "connect",
        "i/o",
        "io error",
        "dispatch failure",
        "unreachable",
    ]) {
        Cause::Connection
    } else {
        Cause::Other
    }
}

/// An error and its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for uri in [
            "http://localhost:1/x",
            "http://127.0.0.1",
            "http://127.8.9.1:80/",
            "http://[::1]:9/",
            "http://b.localhost/",
        ] {
            assert!(is_loopback(uri), "{uri}");
        }
        for uri in [
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://10.0.0.1/",
            "http://[fe80::1]/",
            "http://evil.example/?localhost",
        ] {
            assert!(!is_loopback(uri), "{uri}");
        }
    }

    #[test]
    fn servers_words_move_no_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\u{FFFD}[2Jb\u{FFFD}");
        assert_eq!(plain(&"x".repeat(9000)).len(), 500);
    }

    #[test]
    fn codes_become_causes() {
        assert_eq!(by_code("PutObject", "SlowDown", ""), Some(Cause::Throttled));
        assert_eq!(
            by_code("PutObject", "AuthorizationHeaderMalformed", "the region 'a' is wrong; expecting 'eu-west-1'"),
            Some(Cause::WrongRegion(Some("eu-west-1".into())))
        );
        assert_eq!(by_code("Decrypt", "InvalidSignatureException", "Signature expired: now"), Some(Cause::ClockSkew));
        assert_eq!(by_code("PutObject", "Unheard", ""), None);
    }
}
