//! The two ends of a proxied connection: a server that remembers what it was sent, and a client that reads one answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as the server got it; `body` ends where the connection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

/// A server that gives every request the same answer, and keeps what came.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    /// `answer` is sent as it is, when the request has come in whole.
    pub fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (seen.clone(), answer.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, answer) = (kept.clone(), answer.clone());
                thread::spawn(move || serve(&stream.unwrap(), &kept, &answer));
            }
        });
        Self { address, seen }
    }

    /// What has come; waits until it is as many as expected, and for no more than five seconds.
    pub fn seen(&self, expected: usize) -> Vec<Seen> {
        for _ in 0..500 {
            if self.seen.lock().unwrap().len() >= expected {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Vec<Seen>>, answer: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(head) = read_head(&mut reader) {
        if head.contains("100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        let (body, whole) = read_body(&mut reader, &head);
        kept.lock().unwrap().push(Seen { head, body });
        if !whole || stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// The body, in whatever framing, and whether it is whole.
fn read_body(reader: &mut impl BufRead, head: &str) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    if !head.contains("chunked") {
        let length = head.split_once("Content-Length: ").map_or("0", |(_, rest)| rest.split("\r\n").next().unwrap());
        let length: u64 = length.parse().unwrap();
        let ended = reader.take(length).read_to_end(&mut body).is_ok();
        let whole = ended && body.len() as u64 == length;
        return (body, whole);
    }
    loop {
        let mut line = String::new();
        if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            return (body, false);
        }
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        if reader.read_exact(&mut chunk).is_err() {
            return (body, false);
        }
        if size == 0 {
            return (body, true);
        }
        body.extend(&chunk[..size]);
    }
}

/// A client's connection.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn send(&self, request: &[u8]) -> io::Result<()> {
        self.0.get_ref().write_all(request)
    }

    /// The next answer: its head and its body.
    pub fn answer(&mut self) -> io::Result<(String, Vec<u8>)> {
        self.partial_answer().and_then(
            |(head, body, whole)| {
                if whole { Ok((head, body)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            },
        )
    }

    /// The same, and whether the body is whole.
    pub fn partial_answer(&mut self) -> io::Result<(String, Vec<u8>, bool)> {
        let head = self.head()?;
        let (body, whole) = read_body(&mut self.0, &head);
        Ok((head, body, whole))
    }

    /// The next answer's head alone.
    pub fn head(&mut self) -> io::Result<String> {
        self.0.fill_buf()?; // its error, if it has one
        read_head(&mut self.0).ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    pub fn ask(&mut self, request: &str) -> io::Result<(String, Vec<u8>)> {
        self.send(request.as_bytes())?;
        self.answer()
    }

    pub fn timeout(&self, time: Duration) {
        self.0.get_ref().set_read_timeout(Some(time)).unwrap();
    }
}
