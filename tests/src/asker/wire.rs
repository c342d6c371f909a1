//! HTTP/1.1 over TLS 1.3, by hand, so that a test can send what no client library would.

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A way to one broker, with a connection that is opened anew when it was closed.
pub struct Wire {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    stream: Option<Stream>,
}

/// An open connection.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// An HTTP answer.
pub struct Answer {
    pub status: u16,
    pub media_type: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Wire {
    /// Trusts this CA (PEM) for the name `localhost`.
    pub fn new(address: SocketAddr, ca_pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let tls = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Self { address, tls, stream: None }
    }

    /// Another connection to the same place.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { address: self.address, tls: Arc::clone(&self.tls), stream: None }
    }

    /// A connection whose handshake is done.
    pub fn connect(&self) -> io::Result<Stream> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.send("POST", path, body)
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, b"")
    }

    /// One request on the open connection, or on a new one where there is none.
    fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let mut stream = self.stream.take().map_or_else(|| self.connect(), Ok)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let (answer, open) = read_answer(&mut stream)?;
        self.stream = open.then_some(stream);
        Ok(answer)
    }
}

/// Reads one answer; whether the connection stays open after it.
pub fn read_answer(stream: &mut impl Read) -> io::Result<(Answer, bool)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        read_some(stream, &mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length: usize = header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    while bytes.len() < end + length {
        read_some(stream, &mut bytes)?;
    }
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| io::Error::other("no status"))?;
    let media_type = header("content-type").unwrap_or_default().to_owned();
    let open = header("connection") != Some("close");
    Ok((Answer { status, media_type, body: bytes[end..end + length].to_vec() }, open))
}

fn read_some(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => {
            bytes.extend_from_slice(&buffer[..n]);
            Ok(())
        }
    }
}
