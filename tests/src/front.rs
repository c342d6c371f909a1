//! TLS before a server that speaks none: TLS 1.3, with a certificate for `localhost` from an authority of its own.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Carries requests one by one. It ends with the process.
pub struct Front {
    /// What to trust, PEM.
    pub ca_pem: String,
    /// Of 127.0.0.1.
    pub port: u16,
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Front {
    /// Before the server at `http://HOST:PORT`.
    pub fn new(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let (ca_pem, tls) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Self { ca_pem, port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let requests = Arc::clone(&front.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, requests, server) = (Arc::clone(&tls), Arc::clone(&requests), server.clone());
                std::thread::spawn(move || carry(stream, &tls, &requests, &server));
            }
        });
        front
    }

    /// For clients.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Head and body of every request so far.
    pub fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().clone()
    }
}

/// One request and its answer, each whole, and the end of the connection.
fn carry(
    stream: TcpStream,
    tls: &Arc<ServerConfig>,
    requests: &Mutex<Vec<(String, String)>>,
    server: &str,
) -> Option<()> {
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(Arc::clone(tls)).ok()?, stream));
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((_, value)) = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    requests.lock().unwrap().push((head.clone(), String::from_utf8_lossy(&body).into_owned()));
    let mut server = TcpStream::connect(server).ok()?;
    server.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).ok()?;
    server.write_all(&body).ok()?;
    let answer = answer(&mut BufReader::new(server))?;
    let mut client = reader.into_inner();
    client.write_all(&answer).ok()?;
    client.conn.send_close_notify();
    client.flush().ok()
}

/// An answer with a length: a server may keep its connection open all the same.
fn answer(server: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut all, mut length) = (Vec::new(), None);
    loop {
        let from = all.len();
        server.read_until(b'\n', &mut all).ok()?;
        let line = String::from_utf8_lossy(&all[from..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<u64>().ok();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    match length {
        Some(length) => server.take(length).read_to_end(&mut all).ok()?,
        None => server.read_to_end(&mut all).ok()?,
    };
    Some(all)
}

fn certificates() -> (String, Arc<ServerConfig>) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let server = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let chain = vec![server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    (ca_pem, Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}
