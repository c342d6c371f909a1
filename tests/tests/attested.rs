//! Attested TLS, docs/ENCLAVE.md section 6, both ends on loopback with evidence under a test root: a client sends nothing to what is
//! not the enclave that it wants, and an enclave answers nobody beyond its limits. Each test is named after the defect it would find.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

use mvault_tests::evidence::{Evidence, TestRoot};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use vault_attest::nitro::Roots;
use vault_attest::policy::Policy;
use vault_core::header::hex;
use vault_enclave::Tcp;
use vault_enclave::attested::{Attested, CallError, TlsKey, Wanted};
use vault_enclave::config::Config;
use vault_enclave::model::{Statement, tls_binding};
use vault_enclave::release::Attester;
use vault_enclave::serve::{Accept, Backend, Data, Embedded, Engine, EngineError, Infer, Port, Service, Tensor};

const CONFIG: &str = include_str!("../../vault-cli/tests/enclave.toml");

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn statement() -> Statement {
    let (artifact, payload, signer) = ([1; 32], [2; 32], [3; 32]);
    Statement { name: "minilm".into(), version: 2, artifact, payload, signer }
}

/// What the hardware says, given nonce, user_data and key.
type Hardware = fn(Evidence, &[u8; 32], &[u8; 32], &[u8]) -> Evidence;

fn honest(evidence: Evidence, nonce: &[u8; 32], user_data: &[u8; 32], key: &[u8]) -> Evidence {
    evidence.with_nonce(nonce).with_user_data(user_data).with_public_key(key).with_pcr(16, &statement().pcr16())
}

struct Nsm(TestRoot, Hardware);

impl Attester for Nsm {
    fn attest(&mut self, nonce: &[u8; 32], data: &[u8; 32], key: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let now_s = now_ms() / 1000;
        Ok(self.1(Evidence::at(now_s), nonce, data, key.unwrap()).sign(&self.0.chain(now_s)))
    }
}

/// One number for each text, and how often it was asked.
struct Toy(Arc<AtomicUsize>);

impl Engine for Toy {
    fn embed(&self, texts: &[&str]) -> Result<Embedded, EngineError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if texts.contains(&"slow") {
            std::thread::sleep(Duration::from_secs(3));
        }
        let unit = |text: &&str| {
            let angle = f32::from(text.bytes().fold(0_u8, |sum, b| sum.wrapping_mul(31).wrapping_add(b)));
            vec![angle.cos(), angle.sin()]
        };
        let tokens = texts.iter().map(|text| text.len() as u64).sum();
        Ok(Embedded { vectors: texts.iter().map(unit).collect(), tokens })
    }
}

struct Loopback(TcpListener);

impl Accept for Loopback {
    type Stream = TcpStream;

    async fn accept(&mut self) -> std::io::Result<TcpStream> {
        Ok(self.0.accept().await?.0)
    }
}

struct Enclave {
    root: TestRoot,
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    journal: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Enclave {
    fn start(hardware: Hardware, change: impl Fn(String) -> String) -> Self {
        Self::start_with(hardware, change, |asked| Backend::Engine(Arc::new(Toy(asked))))
    }

    fn start_with(
        hardware: Hardware,
        change: impl Fn(String) -> String,
        backend: impl Fn(Arc<AtomicUsize>) -> Backend,
    ) -> Self {
        let root = TestRoot::new();
        let config = Config::parse(change(CONFIG.to_owned()).as_bytes()).unwrap();
        let nsm = Nsm(TestRoot::from_pem(&root.pem(), &root.key_pem()), hardware);
        let (asked, journal) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let said = Arc::clone(&journal);
        let service = Service::new(
            config,
            statement(),
            TlsKey::generate().unwrap(),
            backend(Arc::clone(&asked)),
            Box::new(nsm),
            Box::new(move |line| said.lock().unwrap().push(line.to_owned())),
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(service.run(Loopback(listener)));
        Self { root, address, asked, journal, _runtime: runtime }
    }

    fn honest() -> Self {
        Self::start(honest, |config| config)
    }

    fn connect_to(&self, policy: &str, roots: &Roots, minimum_version: u64) -> Result<Attested, CallError> {
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let wanted = Wanted { policy: &policy, roots, name: Some("minilm"), minimum_version };
        Attested::connect(Arc::new(Tcp(self.address.to_string())), &wanted, [7; 32], now_ms())
    }

    fn connect(&self) -> Result<Attested, CallError> {
        self.connect_to(&policy(0xA0), &self.root.roots(), 0)
    }

    fn ask(&self, body: &str) -> (u16, String) {
        self.ask_as(body, None)
    }

    fn ask_as(&self, body: &str, token: Option<&str>) -> (u16, String) {
        let (status, answer) = self.connect().unwrap().request("/v1/embeddings", Some(body.as_bytes()), token).unwrap();
        (status, String::from_utf8(answer).unwrap())
    }

    /// The step at which a client refused, before it sent anything.
    #[track_caller]
    fn refused(&self) -> String {
        let error = self.connect().err().expect("it was believed");
        assert_eq!(self.asked.load(Ordering::SeqCst), 0);
        step(&error)
    }
}

fn step(error: &CallError) -> String {
    match error {
        CallError::NotAuthentic(refusal) => refusal.step.to_string(),
        CallError::Denied(denial) => denial.refusal.step.to_string(),
        CallError::Model { .. } => "T-6".into(),
        other => other.to_string(),
    }
}

/// For images with this PCR0.
fn policy(pcr0: u8) -> String {
    let pcr = |n: u8| hex(&[n; 48]);
    format!(
        "version = 1\nname = \"prod\"\nplatform = \"aws-nitro\"\nmax_age_s = 300\n[[release]]\nname = \"1\"\n\
         pcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n",
        pcr(pcr0),
        pcr(0xA1),
        pcr(0xA2)
    )
}

#[test]
fn an_enclave_that_is_what_it_should_be_is_asked() {
    let enclave = Enclave::honest();
    let attested = enclave.connect().unwrap();
    assert_eq!((attested.model.clone(), attested.release.as_str()), (statement(), "1"));
    let (status, answer) = attested.request("/v1/embeddings", Some(br#"{"input":["a","b"]}"#), None).unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((status, answer["data"].as_array().unwrap().len()), (200, 2));
    assert_eq!((answer["usage"]["total_tokens"].as_u64(), answer["model"].as_str()), (Some(2), Some("minilm")));
    let one = attested.request("/v1/embeddings", Some(br#"{"input":"a","model":"minilm"}"#), None).unwrap();
    assert_eq!(one.0, 200);
    assert_eq!(attested.request("/health", None, None).unwrap(), (200, b"ready\n".to_vec()));
}

/// A parent that ends TLS itself and shows an enclave's evidence, fresh and for the client's nonce.
#[test]
fn a_machine_in_the_middle_is_seen() {
    fn another_key(evidence: Evidence, nonce: &[u8; 32], _: &[u8; 32], key: &[u8]) -> Evidence {
        let enclaves: Vec<u8> = key.iter().map(|byte| byte ^ 1).collect();
        honest(evidence, nonce, &tls_binding(nonce, &enclaves), &enclaves)
    }
    assert_eq!(Enclave::start(another_key, |c| c).refused(), "T-3");
}

#[test]
fn evidence_made_for_something_else_is_refused() {
    fn for_a_release(evidence: Evidence, nonce: &[u8; 32], _: &[u8; 32], key: &[u8]) -> Evidence {
        honest(evidence, nonce, &[9; 32], key)
    }
    fn for_another_client(evidence: Evidence, _: &[u8; 32], _: &[u8; 32], key: &[u8]) -> Evidence {
        honest(evidence, &[8; 32], &tls_binding(&[8; 32], key), key)
    }
    fn without_nonce(evidence: Evidence, nonce: &[u8; 32], data: &[u8; 32], key: &[u8]) -> Evidence {
        Evidence { nonce: None, ..honest(evidence, nonce, data, key) }
    }
    assert_eq!(Enclave::start(for_a_release, |c| c).refused(), "T-4");
    assert_eq!(Enclave::start(for_another_client, |c| c).refused(), "P-4");
    assert_eq!(Enclave::start(without_nonce, |c| c).refused(), "P-4");
}

#[test]
fn a_model_that_is_not_measured_is_refused() {
    fn no_pcr16(evidence: Evidence, nonce: &[u8; 32], data: &[u8; 32], key: &[u8]) -> Evidence {
        let mut evidence = honest(evidence, nonce, data, key);
        evidence.pcrs.remove(&16);
        evidence
    }
    fn another_model(evidence: Evidence, nonce: &[u8; 32], data: &[u8; 32], key: &[u8]) -> Evidence {
        let other = Statement { version: 1, ..statement() };
        honest(evidence, nonce, data, key).with_pcr(16, &other.pcr16())
    }
    assert_eq!(Enclave::start(no_pcr16, |c| c).refused(), "T-5");
    assert_eq!(Enclave::start(another_model, |c| c).refused(), "T-5");
}

#[test]
fn another_root_image_or_model_and_debug_enclaves_are_refused() {
    fn debug(evidence: Evidence, nonce: &[u8; 32], data: &[u8; 32], key: &[u8]) -> Evidence {
        honest(evidence, nonce, data, key).debug()
    }
    assert_eq!(Enclave::start(debug, |c| c).refused(), "V-23");
    let enclave = Enclave::honest();
    let roots = enclave.root.roots();
    let refused =
        |policy: &str, roots: &Roots, minimum| step(&enclave.connect_to(policy, roots, minimum).err().unwrap());
    assert_eq!(refused(&policy(0xA0), &Roots::aws(), 0), "V-14");
    assert_eq!(refused(&policy(0xB0), &roots, 0), "P-5");
    assert_eq!(refused(&policy(0xA0), &roots, 3), "T-6");
    let newer = policy(0xA0).replace("max_age_s", "minimum_model_version = 3\nmax_age_s");
    assert_eq!(refused(&newer, &roots, 0), "T-6");
    assert_eq!(enclave.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn requests_that_are_too_large_or_wrong_are_refused_without_repeating_them() {
    let enclave = Enclave::start(honest, |c| c.replace("max_texts = 32", "max_texts = 2"));
    let many = r#"{"input":["a","b","c"]}"#;
    let large = format!(r#"{{"input":"{}"}}"#, "secret ".repeat(10_000));
    let cases = [
        (many, 400),
        (&large, 413),
        ("secret", 400),
        (r#"{"input":7}"#, 400),
        (r#"{"input":[]}"#, 400),
        ("", 400),
        (r#"{"input":"a","secret":1}"#, 400),
        (r#"{"input":"a","model":"secret"}"#, 404),
        (r#"{"input":"a","encoding_format":"base64"}"#, 400),
    ];
    for (body, expected) in cases {
        let (status, answer) = enclave.ask(body);
        assert_eq!(status, expected, "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
    assert_eq!(enclave.asked.load(Ordering::SeqCst), 0);
    let attested = enclave.connect().unwrap();
    let (_, metrics) = attested.request("/metrics", None, None).unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("requests_total{route=\"embeddings\",status=\"400\"}") && !metrics.contains("secret"));
    assert!(enclave.journal.lock().unwrap().is_empty());
}

#[test]
fn answers_that_are_too_large_or_too_slow_are_none() {
    let enclave = Enclave::start(honest, |c| {
        c.replace("max_answer_bytes = 1048576", "max_answer_bytes = 200")
            .replace("request_timeout_s = 60", "request_timeout_s = 1")
    });
    assert_eq!(enclave.ask(r#"{"input":"a"}"#).0, 200);
    let (status, answer) = enclave.ask(r#"{"input":["a","b","c","d"]}"#);
    assert!(status == 413 && answer.contains("at most 200"), "{answer}");
    assert_eq!(enclave.ask(r#"{"input":"slow"}"#).0, 504);
}

#[test]
fn clients_without_a_token_or_over_their_limits_wait() {
    let sha = |token: &str| {
        use sha2::{Digest, Sha256};
        hex(&Sha256::digest(token))
    };
    let clients =
        ["one", "two"].map(|n| format!("\n[[client]]\nname = \"{n}\"\ntoken_sha256 = \"{}\"\n", sha(n))).concat();
    let enclave = Enclave::start(honest, |c| {
        c.replace("requests_per_minute = 600", "requests_per_minute = 2")
            .replace("tokens_per_day = 10000000", "tokens_per_day = 5")
            + &clients
    });
    let ask = |token, text: &str| enclave.ask_as(&format!(r#"{{"input":"{text}"}}"#), token);
    assert_eq!((ask(None, "a").0, ask(Some("three"), "a").0), (401, 401));
    assert_eq!((ask(Some("one"), "a").0, ask(Some("one"), "a").0), (200, 200));
    let (status, answer) = ask(Some("one"), "a");
    assert!(status == 429 && answer.contains("in a minute"), "{answer}");
    assert_eq!(ask(Some("two"), "abcdefgh").0, 200);
    let (status, answer) = ask(Some("two"), "a");
    assert!(status == 429 && answer.contains("tokens in a day"), "{answer}");
}

#[test]
fn a_client_that_copies_the_model_is_told_of_slowed_and_stopped() {
    let enclave = Enclave::start(honest, |c| {
        c.replace("warn = 20000", "warn = 5").replace("slow = 50000", "slow = 10").replace("stop = 100000", "stop = 12")
    });
    let mut said = Vec::new();
    for n in 0..40 {
        let began = std::time::Instant::now();
        let (status, _) = enclave.ask(&format!(r#"{{"input":"text {n} {}"}}"#, n * 7919));
        said.push((status, began.elapsed() > Duration::from_millis(900)));
        if status == 429 {
            break;
        }
    }
    assert!(said.contains(&(200, true)), "{said:?}");
    assert_eq!(said.last(), Some(&(429, false)));
    let journal = enclave.journal.lock().unwrap();
    assert!(journal.len() == 1 && journal[0].contains("extraction") && !journal[0].contains("text "), "{journal:?}");
}

#[test]
fn silent_and_too_many_connections_keep_nobody_out_for_long() {
    let enclave = Enclave::start(honest, |c| c.replace("max_connections = 64", "max_connections = 3"));
    let silent: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(enclave.address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(200));
    assert!(enclave.connect().is_err());
    drop(silent);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(enclave.ask(r#"{"input":"a"}"#).0, 200);
}

/// A server of the image's own: it says what it was asked, and more than it should for some paths.
fn own_server() -> SocketAddr {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = n.trim().parse().unwrap();
                }
                head += &line;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = match head.split(' ').nth(1).unwrap_or_default() {
                "/large" => "x".repeat(5000),
                "/slow" => {
                    std::thread::sleep(Duration::from_secs(3));
                    String::new()
                }
                _ => format!("{head}{}", String::from_utf8_lossy(&body)),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 201 Made\r\ncontent-length: {}\r\nset-cookie: a\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    address
}

#[test]
fn the_images_own_server_is_asked_within_the_same_limits() {
    let change = |c: String| {
        c.replace("max_answer_bytes = 1048576", "max_answer_bytes = 4000")
            .replace("request_timeout_s = 60", "request_timeout_s = 1")
    };
    let address = own_server();
    let enclave = Enclave::start_with(honest, change, |_| Backend::Own(address));
    let attested = enclave.connect().unwrap();
    let ask = |path: &str, body: Option<&[u8]>| {
        let (status, answer) = attested.request(path, body, Some("secret-token")).unwrap();
        (status, String::from_utf8(answer).unwrap())
    };
    let (status, said) = ask("/v1/generate?n=1", Some(b"{\"prompt\":1}"));
    assert_eq!(status, 201);
    assert!(said.starts_with("POST /v1/generate?n=1 HTTP/1.1") && said.ends_with("{\"prompt\":1}"), "{said}");
    assert!(!said.contains("secret-token"), "the client's token is not the server's: {said}");
    assert_eq!(ask("/large", None).0, 413);
    assert_eq!(ask("/slow", None).0, 504);
    assert_eq!(ask("/x", Some(&vec![b'x'; 70_000])).0, 413);
    assert_eq!(ask("/health", None), (200, "ready\n".into()));
    let nobody = Enclave::start_with(honest, |c| c, |_| Backend::Own(SocketAddr::from(([127, 0, 0, 1], 1))));
    assert_eq!(nobody.connect().unwrap().request("/x", None, None).unwrap().0, 502);
}

/// Doubles a row of three, and says how many rows there were.
struct Doubling {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    asked: Arc<AtomicUsize>,
}

impl Doubling {
    fn new(asked: Arc<AtomicUsize>) -> Self {
        let port =
            |name: &str, datatype, shape: &[Option<usize>]| Port { name: name.into(), datatype, shape: shape.into() };
        let inputs = vec![port("x", "FP32", &[None, Some(3)]), port("flag", "BOOL", &[])];
        let outputs = vec![port("y", "FP32", &[None, Some(3)]), port("rows", "INT64", &[])];
        Self { inputs, outputs, asked }
    }
}

impl Infer for Doubling {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EngineError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let [Tensor { shape, data: Data::F32(x) }, Tensor { data: Data::Bool(_), .. }] = &inputs[..] else {
            panic!("{inputs:?}")
        };
        let doubled = x.iter().map(|x| x * 2.0).collect();
        let rows = i64::try_from(shape[0]).unwrap();
        let y = Tensor { shape: shape.clone(), data: Data::F32(doubled) };
        Ok(vec![y, Tensor { shape: vec![], data: Data::I64(vec![rows]) }])
    }
}

fn doubling() -> Enclave {
    Enclave::start_with(honest, |config| config, |asked| Backend::Infer(Arc::new(Doubling::new(asked))))
}

fn infer(enclave: &Enclave, path: &str, body: Option<&str>) -> (u16, serde_json::Value) {
    let (status, answer) = enclave.connect().unwrap().request(path, body.map(str::as_bytes), None).unwrap();
    (status, serde_json::from_slice(&answer).unwrap())
}

const FLAG: &str = r#"{"name":"flag","datatype":"BOOL","shape":[],"data":[true]}"#;

#[test]
fn tensors_go_in_and_out_in_the_open_inference_protocol() {
    let enclave = doubling();
    let (status, metadata) = infer(&enclave, "/v2/models/minilm", None);
    assert_eq!((status, &metadata["inputs"][0]["shape"]), (200, &serde_json::json!([-1, 3])));
    let expected = serde_json::json!([2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    for data in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]"] {
        let x = format!(r#"{{"name":"x","datatype":"FP32","shape":[2,3],"data":{data}}}"#);
        let body = format!(r#"{{"id":"7","inputs":[{FLAG},{x}]}}"#);
        let (status, answer) = infer(&enclave, "/v2/models/minilm/infer", Some(&body));
        assert_eq!((status, &answer["id"], &answer["model_version"]), (200, &"7".into(), &"2".into()), "{answer}");
        assert_eq!(
            (&answer["outputs"][0]["data"], &answer["outputs"][1]["data"]),
            (&expected, &serde_json::json!([2]))
        );
        let body = body.replace("\"inputs\"", "\"outputs\":[{\"name\":\"rows\"}],\"inputs\"");
        let (_, answer) = infer(&enclave, "/v2/models/minilm/infer", Some(&body));
        assert_eq!(answer["outputs"].as_array().map(|o| (o.len(), o[0]["name"].clone())), Some((1, "rows".into())));
    }
    assert_eq!(infer(&enclave, "/v1/embeddings", Some("{}")).0, 404);
    assert_eq!(infer(&enclave, "/v2/models/other/infer", Some("{}")).0, 404);
    assert_eq!(infer(&Enclave::honest(), "/v2/models/minilm", None).0, 404);
}

#[test]
fn tensors_that_do_not_fit_are_refused_before_the_engine_sees_them() {
    let enclave = doubling();
    let secret = "31415926";
    let x = |datatype: &str, shape: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}},{FLAG}]}}"#)
    };
    for (body, words) in [
        (secret.to_owned(), "expected {"),
        (format!("{{\"inputs\":[{FLAG}]}}"), "inputs: expected x, flag"),
        (format!("{{\"inputs\":[{FLAG},{FLAG}]}}"), "inputs: expected x, flag"),
        (x("FP64", "[1,3]", "[1,2,3]"), "x: expected datatype FP32"),
        (x("FP32", "[1,4]", "[1,2,3,4]"), "x: expected shape [-1, 3]"),
        (x("FP32", "[3]", "[1,2,3]"), "x: expected shape [-1, 3]"),
        (x("FP32", "[2,3]", "[1,2,31415926]"), "x: data is not as many"),
        (x("FP32", "[0,3]", "[]"), "x: data is not as many"),
        (x("FP32", "[1152921504606846976,3]", "[31415926]"), "x: data is not as many"),
        (x("FP32", "[6148914691236517206,3]", "[31415926,1]"), "x: data is not as many"), // the product wraps
        (x("FP32", "[1,3]", "[1,2,\"31415926\"]"), "x: data is not as many"),
        (x("FP32", "[1,3]", "[1,2,1e300]"), "x: data is not as many"),
        (x("FP32", "[1,3]", &format!("{}1,2,3{}", "[".repeat(9), "]".repeat(9))), "x: data is not as many"),
        (x("FP32", "[1,3]", &"[".repeat(5000)), "expected {"),
        (x("FP32", "[-1,3]", "[1,2,3]"), "expected {"),
        (
            x("FP32", "[1,3]", "[1,2,3]").replace("\"inputs\"", "\"outputs\":[{\"name\":\"z\"}],\"inputs\""),
            "outputs: expected some of y, rows",
        ),
        (x("FP32", "[1,3]", "[1,2,3]").replace("\"inputs\"", "\"raw\":1,\"inputs\""), "expected {"),
    ] {
        let (status, answer) = infer(&enclave, "/v2/models/minilm/infer", Some(&body));
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(words), "{body}: {status} {message}");
        assert!(!message.contains(secret), "{message}");
    }
    assert_eq!(enclave.asked.load(Ordering::SeqCst), 0);
    // The same numbers, however they are spelled, are one input to the watch; the enclave goes on.
    assert_eq!(infer(&enclave, "/v2/models/minilm/infer", Some(&x("FP32", "[1,3]", "[1,2.0,3e0]"))).0, 200);
}
