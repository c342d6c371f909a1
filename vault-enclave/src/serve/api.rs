//! The routes: docs/ENCLAVE.md section 6.

use super::infer::{self, Infer};
use super::{Backend, Embedded, Engine, EngineError, Service, proxy};
use crate::attested::AttestationAnswer;
use crate::model::tls_binding;
use crate::watch::{Limit, Sign};
use base64ct::{Base64, Encoding};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use vault_attest::policy::parse_id;

type Answer = Response<Full<Bytes>>;

/// How much longer an answer takes to a client that looks like an extractor.
const SLOWER: Duration = Duration::from_secs(1);
/// The client's name where the configuration names none.
const ANYONE: &str = "anyone";

/// `POST /v1/embeddings`, in OpenAI's form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsRequest {
    /// One text or several.
    pub input: Input,
    /// Ignored unless it names another model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Only `float`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<String>,
}

/// One text or several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Input {
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts.iter().map(String::as_str).collect(),
        }
    }
}

/// Why a request is not answered.
struct Refused {
    status: StatusCode,
    kind: &'static str,
    message: String,
    wait_s: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), wait_s: None }
    }
}

/// Answers one request.
pub(super) async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Answer {
    let began = Instant::now();
    let route = match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/attestation") => "attestation",
        (&Method::GET, "/v1/models") => "models",
        (&Method::GET, "/health") => "health",
        (&Method::GET, "/metrics") => "metrics",
        (method, path) => match service.backend {
            Backend::Own(_) => "own",
            Backend::Engine(_) if (method, path) == (&Method::POST, "/v1/embeddings") => "embeddings",
            Backend::Engine(_) => "other",
            Backend::Infer(_) => infer::route(method, path, &service.model.name),
        },
    };
    let answered = match route {
        "attestation" => attestation(&service, request.uri().query().unwrap_or_default()).await,
        "embeddings" | "infer" | "own" => limited_request(&service, request).await,
        "metadata" => metadata(&service),
        "models" => Ok(json(StatusCode::OK, &models(&service))),
        "health" => Ok(text("ready\n")),
        "metrics" => Ok(text(&service.metrics.text())),
        _ => {
            let then = match service.backend {
                Backend::Infer(_) => format!("POST /v2/models/{}/infer", service.model.name),
                _ => "POST /v1/embeddings".into(),
            };
            Err(Refused::new(StatusCode::NOT_FOUND, "not_found", format!("GET /v1/attestation first, then {then}")))
        }
    };
    let answer = answered.unwrap_or_else(|refused| refusal(&refused));
    service.metrics.request(route, answer.status().as_u16(), began.elapsed());
    answer
}

/// `[T-1]` to `[T-5]`: a document for this connection's key and the client's nonce. Before any limit of a client: who asks it is
/// not known yet.
async fn attestation(service: &Arc<Service>, query: &str) -> Result<Answer, Refused> {
    let nonce = query.strip_prefix("nonce=").and_then(parse_id);
    let nonce = nonce.ok_or_else(|| bad("expected ?nonce= and 64 hex digits"))?;
    let permit = Arc::clone(&service.work).acquire_owned().await;
    let service = Arc::clone(service);
    let made = spawn_blocking(move || {
        let _permit = permit;
        let key = service.key.public_key();
        let mut attester = service.attester.lock().unwrap_or_else(PoisonError::into_inner);
        let document = attester.attest(&nonce, &tls_binding(&nonce, key), Some(key))?;
        Ok::<_, String>(AttestationAnswer { document: Base64::encode_string(&document), model: service.model.text() })
    });
    let made = made.await.map_err(|_| internal("no evidence"))?;
    Ok(json(StatusCode::OK, &made.map_err(internal)?))
}

async fn limited_request(service: &Arc<Service>, request: Request<Incoming>) -> Result<Answer, Refused> {
    let client = client(service, request.headers())?;
    service.clients.admit(&client, Instant::now()).map_err(|(limit, wait_s)| {
        service.metrics.limited(limit);
        limited(limit, wait_s)
    })?;
    let patience = Duration::from_secs(service.config.serve.request_timeout_s);
    let slow = || Refused::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the request took too long");
    let work = async {
        let (head, body) = request.into_parts();
        let body = body_of(service, body).await?;
        match &service.backend {
            Backend::Engine(engine) => embed(service, Arc::clone(engine), client, &body).await,
            Backend::Infer(engine) => infer(service, Arc::clone(engine), client, &body).await,
            Backend::Own(address) => own(service, *address, head, body).await,
        }
    };
    timeout(patience, work).await.map_err(|_| slow())?
}

async fn body_of(service: &Service, body: Incoming) -> Result<Bytes, Refused> {
    let most = service.config.serve.max_request_bytes;
    let read = Limited::new(body, most).collect().await.map_err(|e| {
        if e.is::<LengthLimitError>() {
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("at most {most} bytes"))
        } else {
            bad("the body broke off")
        }
    })?;
    Ok(read.to_bytes())
}

/// The image's own server answers.
async fn own(service: &Service, address: SocketAddr, head: Parts, body: Bytes) -> Result<Answer, Refused> {
    let most = service.config.serve.max_answer_bytes;
    proxy::ask(address, head, body, most).await.map_err(|failure| match failure {
        proxy::Failure::TooLarge => {
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("the answer has over {most} bytes"))
        }
        proxy::Failure::Silent => {
            Refused::new(StatusCode::BAD_GATEWAY, "internal", "the image's server does not answer")
        }
    })
}

async fn embed(
    service: &Arc<Service>,
    engine: Arc<dyn Engine>,
    client: String,
    body: &Bytes,
) -> Result<Answer, Refused> {
    let limits = &service.config.serve;
    // The message of serde_json would repeat what was sent.
    let not = || bad("expected {\"input\": \"TEXT\"} or {\"input\": [\"TEXT\", …]}");
    let request: EmbeddingsRequest = serde_json::from_slice(body).map_err(|_| not())?;
    if request.encoding_format.as_deref().is_some_and(|format| format != "float") {
        return Err(bad("encoding_format: only float"));
    }
    if request.model.as_ref().is_some_and(|model| *model != service.model.name) {
        return Err(Refused::new(StatusCode::NOT_FOUND, "not_found", "this enclave has another model"));
    }
    let count = request.input.texts().len();
    if !(1..=limits.max_texts).contains(&count) {
        return Err(bad(format!("{count} texts; expected 1 to {}", limits.max_texts)));
    }
    let permit = Arc::clone(&service.work).acquire_owned().await;
    let working = Arc::clone(service);
    let work = spawn_blocking(move || {
        let _permit = permit;
        let texts = request.input.texts();
        let embedded = engine.embed(&texts)?;
        let Embedded { vectors, tokens } = &embedded;
        let sign = working.clients.answered(&client, Instant::now(), &texts, vectors, *tokens);
        Ok::<_, EngineError>((embedded, sign, client))
    });
    let done = work.await.map_err(|_| internal("the engine failed"))?;
    let (Embedded { vectors, tokens }, sign, client) = done.map_err(|e| internal(e.0))?;
    act_on(service, sign, &client).await;
    service.metrics.embedded(vectors.len(), tokens);
    let data: Vec<_> = vectors.into_iter().enumerate().map(|(index, v)| Embedding::new(index, v)).collect();
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    let answer = Embeddings { object: "list", data, model: service.model.name.clone(), usage };
    bounded(service, json(StatusCode::OK, &answer))
}

/// What the watch says of a client.
async fn act_on(service: &Service, sign: Sign, client: &str) {
    match sign {
        Sign::Quiet => {}
        Sign::Warn(score) => {
            (service.journal)(&format!("watch: queries of {client} look like extraction, score {score:.0}"));
        }
        Sign::Slow => sleep(SLOWER).await,
    }
}

/// An answer that is not too large.
fn bounded(service: &Service, answer: Answer) -> Result<Answer, Refused> {
    let (size, most) = (answer.body().size_hint().exact().unwrap_or(u64::MAX), service.config.serve.max_answer_bytes);
    if size > most as u64 {
        let message = format!("the answer has {size} bytes; at most {most}: ask for less at once");
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    Ok(answer)
}

fn metadata(service: &Service) -> Result<Answer, Refused> {
    let Backend::Infer(engine) = &service.backend else { return Err(internal("another engine")) };
    Ok(json(StatusCode::OK, &infer::metadata(&**engine, &service.model)))
}

async fn infer(
    service: &Arc<Service>,
    engine: Arc<dyn Infer>,
    client: String,
    body: &Bytes,
) -> Result<Answer, Refused> {
    let asked = infer::read(body, engine.inputs(), engine.outputs()).map_err(bad)?;
    let permit = Arc::clone(&service.work).acquire_owned().await;
    let working = Arc::clone(service);
    let work = spawn_blocking(move || {
        let _permit = permit;
        let (numbers, input) = (asked.numbers(), asked.digest());
        let infer::Asked { id, inputs, outputs: wanted } = asked;
        let outputs = engine.infer(inputs)?;
        let direction = outputs.first().map(infer::Tensor::direction).unwrap_or_default();
        let sign = working.clients.answered(&client, Instant::now(), &[input], &[direction], numbers);
        let answer = infer::answer(&working.model, id, outputs, &wanted, engine.outputs())?;
        Ok::<_, EngineError>((answer, numbers, sign, client))
    });
    let done = work.await.map_err(|_| internal("the engine failed"))?;
    let (answer, numbers, sign, client) = done.map_err(|e| internal(e.0))?;
    act_on(service, sign, &client).await;
    service.metrics.embedded(1, numbers);
    bounded(service, json(StatusCode::OK, &answer))
}

#[derive(Serialize)]
struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    #[serde(rename = "embedding")]
    vector: Vec<f32>,
}

impl Embedding {
    fn new(index: usize, vector: Vec<f32>) -> Self {
        Self { object: "embedding", index, vector }
    }
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

fn models(service: &Service) -> serde_json::Value {
    let model = &service.model;
    serde_json::json!({ "object": "list", "data": [{ "id": model.name, "object": "model", "version": model.version }] })
}

/// Who asks: by the token, where the configuration has clients.
fn client(service: &Service, headers: &HeaderMap) -> Result<String, Refused> {
    if service.config.clients.is_empty() {
        return Ok(ANYONE.into());
    }
    let token = headers.get(AUTHORIZATION).and_then(|h| h.as_bytes().strip_prefix(b"Bearer "));
    let hash: Option<[u8; 32]> = token.map(|token| Sha256::digest(token).into());
    let is = |client: &&crate::config::Client| hash.is_some_and(|hash| hash.ct_eq(&client.token_sha256).into());
    let found = service.config.clients.iter().find(is).map(|client| client.name.clone());
    found.ok_or_else(|| Refused::new(StatusCode::UNAUTHORIZED, "unauthorized", "expected Authorization: Bearer TOKEN"))
}

fn limited(limit: Limit, wait_s: u64) -> Refused {
    let message = match limit {
        Limit::Requests => "too many requests in a minute",
        Limit::Tokens => "too many tokens in a day",
        Limit::Extraction => "too many different inputs in a day: it looks like model extraction",
    };
    let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, "limited", message);
    Refused { wait_s: Some(wait_s), ..refused }
}

fn bad(message: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "invalid_request", message)
}

fn internal(message: impl Into<String>) -> Refused {
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}

fn refusal(refused: &Refused) -> Answer {
    let Refused { status, kind, message, wait_s } = refused;
    let body = serde_json::json!({ "error": { "message": message, "type": kind, "code": status.as_u16() } });
    let mut answer = json(*status, &body);
    if let Some(wait) = wait_s {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*wait));
    }
    answer
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default(); // texts and finite numbers only
    with_type(status, "application/json", body)
}

fn text(words: &str) -> Answer {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", words.into())
}

fn with_type(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
