//! The parent's ports: docs/ENCLAVE.md section 4. Bounded in connections; forwards to the addresses of the command line and to no other.

use super::Args;
use super::channel::{Door, Stream, Way};
use crate::error::{CliError, io};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread::{Scope, sleep};
use std::time::Duration;
use vault_core::io::ReadAt;
use vault_enclave::fetch::{MAX_WRITE, answer};
use vault_enclave::port;
use vault_store::aws::Aws;

/// Connections at once, of each port.
const MOST: usize = 64;
/// Longest line of the journal, in bytes.
const MAX_LINE: u64 = 4096;
/// How long a TCP connection may take to open.
const OPENING: Duration = Duration::from_secs(10);

/// What happens around an enclave.
pub enum Event {
    /// A line of its journal.
    Line(String),
    /// The end of its journal: it powers off.
    Last,
    /// A line of its console.
    Console(String),
    /// Something the operator of the relay should know.
    Relay(String),
    /// The machine ended.
    Ended(String),
    /// Ctrl-C.
    Interrupted,
}

/// Header, and where the payload is.
type Model<'a> = (&'a [u8], &'a dyn ReadAt, u64, u64);

/// The ports, open.
pub struct Relay {
    /// Where clients connect.
    pub address: SocketAddr,
    stopped: Arc<AtomicBool>,
    open: Vec<Closing>,
}

/// A listener that can be closed while a thread waits at it.
type Closing = Arc<dyn AsFd + Send + Sync>;

/// A payload that starts somewhere in a file.
struct From<'a>(&'a dyn ReadAt, u64);

impl ReadAt for From<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, self.1.saturating_add(offset))
    }
}

impl Relay {
    /// Opens all ports, before the enclave looks for them.
    pub fn start<'s, 'e: 's>(
        scope: &'s Scope<'s, 'e>,
        way: &Way,
        args: &'e Args,
        model: Model<'e>,
        credentials: Option<Aws>,
        events: Sender<Event>,
    ) -> Result<Self, CliError> {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut open: Vec<Closing> = Vec::new();
        let mut listen = |port: u32| {
            let door = Arc::new(way.listen(port)?);
            open.push(Arc::clone(&door) as Closing);
            Ok::<_, CliError>(door)
        };
        let (journal, models, brokers) = (listen(port::JOURNAL)?, listen(port::MODEL)?, listen(port::BROKER)?);
        let credentials = match credentials {
            Some(aws) => Some((listen(port::CREDENTIALS)?, aws)),
            None => None,
        };
        let clients = TcpListener::bind(args.listen)
            .map_err(|e| io(args.listen)(e).hint("something else listens there; --listen takes another address"))?;
        let address = clients.local_addr().map_err(io(args.listen))?;
        let clients = Arc::new(clients);
        open.push(Arc::clone(&clients) as Closing);

        let said = events.clone();
        serve(scope, &stopped, from(journal), move |stream| read_journal(&stream, &said));
        let told = events.clone();
        serve(scope, &stopped, from(models), move |stream| {
            let (header, file, offset, len) = model;
            if let Err(e) = answer(&mut &stream, header, &From(file, offset), len) {
                let cut = [std::io::ErrorKind::BrokenPipe, std::io::ErrorKind::ConnectionReset];
                if !cut.contains(&e.kind()) {
                    let _ = told.send(Event::Relay(format!("the model: {e}")));
                }
            }
        });
        let told = events.clone();
        let (what, to) = args.keys.address();
        serve(scope, &stopped, from(brokers), move |stream| match dial(to) {
            Ok(tcp) => forward(&stream, &tcp),
            Err(e) => drop(told.send(Event::Relay(format!("{what} {to}: {e}")))),
        });
        if let Some((listener, aws)) = credentials {
            serve(scope, &stopped, from(listener), move |stream| {
                if let Err(e) = say_credentials(&aws, &stream) {
                    let _ = events.send(Event::Relay(format!("AWS credentials: {e}"))); // it may have ended
                }
            });
        }
        let guest = way.clone();
        serve(
            scope,
            &stopped,
            move |_| Ok(clients.accept()?.0),
            move |tcp| {
                if let Ok(guest) = guest.connect(port::SERVE) {
                    forward(&guest, &tcp); // before the enclave is ready there is nobody: the client sees a closed connection
                }
            },
        );
        Ok(Self { address, stopped, open })
    }
}

/// Closes the ports, whatever went wrong: nobody waits for threads that wait for connections. Those that are open end with the machine.
impl Drop for Relay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        for listener in &self.open {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both); // wakes who waits at it
        }
    }
}

/// Connections of the enclave at this port.
fn from(door: Arc<Door>) -> impl Fn(&AtomicBool) -> std::io::Result<Stream> {
    move |stopped| door.accept(stopped)
}

/// Accepts until it is stopped, a thread for each connection.
fn serve<'s, S: Send + 's>(
    scope: &'s Scope<'s, '_>,
    stopped: &Arc<AtomicBool>,
    accept: impl Fn(&AtomicBool) -> std::io::Result<S> + Send + 's,
    work: impl Fn(S) + Send + Sync + 's,
) {
    let (stopped, work, open) = (Arc::clone(stopped), Arc::new(work), Arc::new(AtomicUsize::new(0)));
    scope.spawn(move || {
        loop {
            let stream = accept(&stopped);
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else {
                sleep(Duration::from_millis(50)); // out of descriptors: some will be given back
                continue;
            };
            if open.fetch_add(1, Ordering::SeqCst) >= MOST {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (work, open) = (Arc::clone(&work), Arc::clone(&open));
            scope.spawn(move || {
                work(stream);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
}

fn read_journal(stream: &Stream, events: &Sender<Event>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        let text: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
        if events.send(if text.is_empty() { Event::Last } else { Event::Line(text) }).is_err() {
            return;
        }
    }
}

/// docs/ENCLAVE.md section 4. They go to the enclave alone: its port is a socket in a folder of this user's.
fn say_credentials(aws: &Aws, mut stream: &Stream) -> Result<(), String> {
    let keys = aws.credentials().map_err(|e| e.to_string())?;
    let said = serde_json::json!({
        "access_key_id": keys.access_key_id(),
        "secret_access_key": keys.secret_access_key(),
        "session_token": keys.session_token(),
    });
    let said = zeroize::Zeroizing::new(said.to_string());
    stream.write_all(said.as_bytes()).map_err(|e| e.to_string())
}

fn dial(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, OPENING) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Carries bytes both ways until both ends are done.
fn forward(guest: &Stream, tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let (Ok(guest_too), Ok(tcp_too)) = (guest.try_clone(), tcp.try_clone()) else { return };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            copy(&guest_too, &tcp_too);
            let _ = tcp_too.shutdown(Shutdown::Both); // the guest is done, or gone: whoever is at the other end shall not wait
        });
        copy(tcp, guest);
        let _ = guest.shutdown(Shutdown::Write);
    });
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; MAX_WRITE];
    while let Ok(n) = from.read(&mut buffer) {
        let sent = buffer.get(..n).is_some_and(|data| to.write_all(data).is_ok());
        if n == 0 || !sent {
            return;
        }
    }
}
