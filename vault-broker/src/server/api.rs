//! The four routes that enclaves use: docs/KEY_RELEASE.md sections 4 and 6.

use super::Shared;
use crate::advice;
use crate::judge::Judged;
use crate::ledger::Unavailable;
use crate::limits::Source;
use base64ct::{Base64, Encoding};
use bytes::Bytes;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use minicbor::bytes::{ByteArray, ByteVec};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use vault_attest::Step;
use vault_attest::release::{Challenge, Grant, MAX_REQUEST, MEDIA_TYPE, NONCE_LIFE_S, RefusalMessage, Retry, encode};
use vault_core::header::hex;

type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Answers one request.
pub(super) async fn answer(shared: Arc<Shared>, source: Source, request: Request<Incoming>) -> Answer {
    let route = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/challenge") => "challenge",
        (&Method::POST, "/v1/release") => "release",
        (&Method::GET, "/v1/log/checkpoint") => "checkpoint",
        (&Method::GET, "/v1/log/consistency") => "consistency",
        _ => "other",
    };
    let answer = match shared.gate.request(source) {
        Err(limit) => {
            shared.metrics.limited(limit);
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "too many requests; wait a second\n");
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
        Ok(()) => match route {
            "challenge" => challenge(&shared),
            "release" => release(&shared, source, request).await,
            "checkpoint" => checkpoint(&shared).await,
            "consistency" => consistency(&shared, request.uri().query().unwrap_or_default()).await,
            _ => text(StatusCode::NOT_FOUND, "a key broker of mvault: POST /v1/challenge, POST /v1/release\n"),
        },
    };
    shared.metrics.request(route, answer.status().as_u16());
    answer
}

fn challenge(shared: &Shared) -> Answer {
    let nonce = shared.judge.nonce(now_ms() / 1000, &mut UnwrapErr(SysRng));
    let keys = shared.judge.key_ids().map(|id| ByteArray::from(*id)).collect();
    cbor(StatusCode::OK, encode(&Challenge { nonce: ByteArray::from(nonce), life_s: NONCE_LIFE_S, keys }))
}

async fn release(shared: &Arc<Shared>, source: Source, request: Request<Incoming>) -> Answer {
    let started = Instant::now();
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect();
    let body = match timeout(Duration::from_secs(shared.limits.body_timeout_s), body).await {
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n"),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "at most 98304 bytes\n"),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let wait = Duration::from_secs(shared.limits.decision_timeout_s);
    let Ok(Ok(_permit)) = timeout(wait, shared.decisions.acquire()).await else {
        shared.metrics.limited("decisions");
        return unavailable("too many decisions are being made; ask again later\n");
    };
    let deciding = Arc::clone(shared);
    // A decision that was begun is finished and logged, whether or not the peer is still there.
    match spawn_blocking(move || decide(&deciding, source, &body, started)).await {
        Ok(answer) => answer,
        Err(_) => unavailable("the decision was cut short; ask again\n"),
    }
}

fn decide(shared: &Shared, source: Source, body: &[u8], started: Instant) -> Answer {
    let rules = shared.rules();
    let mut rng = UnwrapErr(SysRng);
    let judged = shared.judge.judge(body, &source.to_string(), &rules, now_ms(), &mut rng);
    let Judged { id, answer: ref granted, .. } = judged;
    let granted = granted.clone();
    let settled = match shared.ledger.settle(judged) {
        Ok(settled) => settled,
        Err(error) => {
            shared.metrics.state_error();
            tracing::error!(decision = hex(&id), %error, "no decision: the database failed; nothing was released");
            return unavailable("the broker cannot decide now; ask again later\n");
        }
    };
    let took = started.elapsed();
    shared.metrics.decision(settled.refused, took);
    let outcome = if settled.refused.is_some() { "refused" } else { "granted" };
    let step = settled.refused.map(|step| step.to_string());
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(decision = hex(&id), outcome, step, source = %source, ms, "decision");
    match (settled.refused, granted) {
        (None, Some((enc, wrapped))) => {
            let (id, wrapped) = (ByteArray::from(id), ByteArray::from(wrapped));
            let (enc, entry) = (ByteVec::from(enc), ByteVec::from(settled.entry));
            cbor(StatusCode::OK, encode(&Grant { id, enc, wrapped, entry, proof: settled.proof }))
        }
        (refused, _) => refusal(&id, refused.unwrap_or(Step::R(1)), settled.wait_s),
    }
}

fn refusal(id: &[u8; 16], step: Step, wait_s: Option<u64>) -> Answer {
    let status = match step {
        Step::R(1) => StatusCode::BAD_REQUEST,
        Step::R(12) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    };
    let (retry, hint) = (Retry::after(step).to_string(), advice::hint(step).to_owned());
    let id = ByteArray::from(*id);
    cbor(status, encode(&RefusalMessage { id, step: step.to_string(), retry, hint, wait_s }))
}

async fn checkpoint(shared: &Arc<Shared>) -> Answer {
    from_log(shared, |shared| Ok(text(StatusCode::OK, shared.ledger.checkpoint()?))).await
}

async fn consistency(shared: &Arc<Shared>, query: &str) -> Answer {
    let size = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        value.parse::<u64>().ok()
    };
    let (Some(from), Some(to)) = (size("from"), size("to")) else {
        return text(StatusCode::BAD_REQUEST, "?from=SIZE&to=SIZE\n");
    };
    from_log(shared, move |shared| {
        let Some(proof) = shared.ledger.consistency(from, to)? else {
            return Ok(text(StatusCode::NOT_FOUND, "no such sizes, in order, of this log\n"));
        };
        let lines: String = proof.iter().map(|hash| Base64::encode_string(hash) + "\n").collect();
        Ok(text(StatusCode::OK, lines))
    })
    .await
}

async fn from_log(
    shared: &Arc<Shared>,
    read: impl FnOnce(&Shared) -> Result<Answer, Unavailable> + Send + 'static,
) -> Answer {
    let Ok(_permit) = shared.decisions.acquire().await else { return unavailable("stopping\n") };
    let reading = Arc::clone(shared);
    match spawn_blocking(move || read(&reading)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            shared.metrics.state_error();
            tracing::error!(%error, "the log cannot be read");
            unavailable("the log cannot be read now; ask again later\n")
        }
        Err(_) => unavailable("cut short; ask again\n"),
    }
}

fn unavailable(why: &'static str) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn cbor(status: StatusCode, body: Vec<u8>) -> Answer {
    typed(status, MEDIA_TYPE, body.into())
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, TEXT, body.into())
}

fn typed(status: StatusCode, media_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
