//! The way to the broker or to KMS: TLS 1.3 over a connection that someone else opens (TCP here, vsock in an enclave). HTTP is
//! ureq's; nothing is resolved, redirected or proxied.

use crate::release::ReleaseError;
use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConnection, RootCertStore, StreamOwned};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Agent, Error};

/// How long a peer may be silent.
const SILENCE: Duration = Duration::from_mins(1);
/// Longest time for one request and its answer.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a TCP connection may take to open.
const OPENING: Duration = Duration::from_secs(10);

/// An open connection in both directions.
pub trait Connection: Read + Write + fmt::Debug + Send + Sync {}

impl<T: Read + Write + fmt::Debug + Send + Sync> Connection for T {}

/// Opens connections to the one place that was configured.
pub trait Dial: fmt::Debug + Send + Sync {
    /// A new connection. Reads and writes on it must not block for ever.
    fn dial(&self) -> io::Result<Box<dyn Connection>>;
}

/// A host and port, over TCP.
#[derive(Debug, Clone)]
pub struct Tcp(pub String);

impl Dial for Tcp {
    fn dial(&self) -> io::Result<Box<dyn Connection>> {
        let mut last = io::Error::other("the name has no address");
        for address in self.0.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, OPENING) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(SILENCE))?;
                    stream.set_write_timeout(Some(SILENCE))?;
                    stream.set_nodelay(true)?;
                    return Ok(Box::new(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// TLS 1.3 alone, X25519MLKEM768 before X25519, and these CA certificates (PEM) alone.
pub(crate) fn tls(ca_pem: &[u8], clock: Arc<dyn TimeProvider>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|e| format!("the pinned CA is not PEM: {e}"))?;
        roots.add(certificate).map_err(|e| format!("the pinned CA is no certificate: {e}"))?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in the pinned CA".into());
    }
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    let builder = ClientConfig::builder_with_details(Arc::new(provider), clock);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(|e| e.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// HTTP to one pinned host and nowhere else: no redirects, no proxies, an end to everything.
pub(crate) fn agent(
    url: &str,
    ca_pem: &[u8],
    dial: Arc<dyn Dial>,
    clock: Arc<dyn TimeProvider>,
) -> Result<Agent, String> {
    let host = host_of(url).ok_or_else(|| format!("{url}: not https://HOST[:PORT] and nothing behind it"))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host}: neither a name nor an address"))?;
    let tls = tls(ca_pem, clock)?;
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .max_idle_connections(2)
        .build();
    Ok(Agent::with_parts(config, Secured { dial, tls, name }, NoNames))
}

/// What a failed request comes down to.
pub(crate) fn failure(url: &str, error: &Error) -> ReleaseError {
    let url = url.to_owned();
    if let Error::Io(io) = error
        && let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return ReleaseError::Tls { url, message: tls.to_string() };
    }
    ReleaseError::Connection { url, message: error.to_string() }
}

/// The host of `https://HOST[:PORT]`, without brackets.
pub fn host_of(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("https://")?;
    if authority.contains(['/', '?', '#', '@']) {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let good = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
    (good && !host.is_empty()).then_some(host)
}

/// ureq's connector: dial, then TLS.
#[derive(Debug)]
pub(crate) struct Secured {
    pub dial: Arc<dyn Dial>,
    pub tls: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

impl Connector for Secured {
    type Out = TlsTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let mut stream = Timed { connection: self.dial.dial()?, until: None };
        stream.until(details.timeout);
        let as_io = |e: rustls::Error| Error::Io(io::Error::new(io::ErrorKind::InvalidData, e));
        let mut connection = ClientConnection::new(Arc::clone(&self.tls), self.name.clone()).map_err(as_io)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(TlsTransport { stream: StreamOwned::new(connection, stream), buffers, open: true }))
    }
}

/// A connection that ends at a time: a peer that sends a byte now and then does not hold the enclave for ever.
struct Timed {
    connection: Box<dyn Connection>,
    until: Option<Instant>,
}

impl Timed {
    fn until(&mut self, timeout: NextTimeout) {
        self.until = Instant::now().checked_add(*timeout.after);
    }

    fn check(&self) -> io::Result<()> {
        match self.until {
            Some(until) if Instant::now() >= until => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.connection.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.connection.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection.flush()
    }
}

/// A TLS connection as ureq wants it.
pub(crate) struct TlsTransport {
    stream: StreamOwned<ClientConnection, Timed>,
    buffers: LazyBuffers,
    open: bool,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive() // nothing of what goes through it
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.until(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        Ok(self.stream.flush()?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.until(timeout);
        let space = self.buffers.input_append_buf();
        let read = self.stream.read(space)?;
        self.buffers.input_appended(read);
        self.open &= read > 0;
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.open
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Where the connection goes is the dialer's: names are not looked up.
#[derive(Debug)]
pub(crate) struct NoNames;

impl Resolver for NoNames {
    fn resolve(&self, _: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
        Ok(addresses)
    }
}
