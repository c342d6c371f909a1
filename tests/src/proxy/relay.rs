//! One client's connection: request by request, to the server and back, with the harm that the rules want.

use super::http::{Framing, Head};
use super::{Exchange, Fault, Id, Request, Shared, lock};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, atomic::Ordering};
use std::thread;
use std::time::Duration;

const UP: usize = 0;
const DOWN: usize = 1;

/// Serves a client until one of the two ends it.
pub fn serve(stream: TcpStream, id: Id, shared: &Shared) {
    let mut client = BufReader::new(stream);
    let _ = client.get_ref().set_nodelay(true);
    while let Ok(Some(head)) = Head::read(&mut client) {
        let Ok(request) = head.request() else { break };
        let exchange = shared.enter(&request);
        let relay = Relay { shared, faults: lock(&exchange).faults.clone(), exchange: &exchange, request };
        match relay.run(&mut client, &head) {
            Ok(true) => {}
            Ok(false) => break,
            Err(end) => {
                if end.kind() == ErrorKind::ConnectionReset {
                    reset_on_close(client.get_ref());
                }
                break;
            }
        }
    }
    // the copy goes first: the last to close sends the reset
    lock(&shared.open).remove(&id);
}

/// Makes the connection end in a reset instead of an orderly end.
pub fn reset_on_close(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)); // it may be gone already
}

struct Relay<'a> {
    shared: &'a Shared,
    exchange: &'a Mutex<Exchange>,
    request: Request,
    faults: Vec<Fault>,
}

impl Relay<'_> {
    /// Whether the connection can carry another request.
    fn run(&self, client: &mut BufReader<TcpStream>, head: &Head) -> io::Result<bool> {
        if self.suffers(Fault::Reset) {
            return Err(reset());
        }
        for fault in &self.faults {
            match *fault {
                Fault::Delay(time) => thread::sleep(time),
                Fault::Answer(status, code) => return self.answer(client, head, status, code),
                _ => {}
            }
        }
        let server = TcpStream::connect(self.shared.upstream).map_err(|_| reset())?;
        let _ = server.set_nodelay(true);
        let mut to_server = server.try_clone()?;
        let mut server = BufReader::new(server);
        to_server.write_all(&head.raw)?;

        let mut answer = None;
        if head.says("expect", "100-continue") {
            // the client waits for a word of the server before it sends its body
            let first = Head::read(&mut server)?.ok_or_else(reset)?;
            if first.status()? == 100 {
                client.get_ref().write_all(&first.raw)?;
            } else {
                answer = Some(first);
            }
        }
        let early = answer.is_some();
        if !early {
            let sent = self.pass(client, &mut to_server, head.request_framing(), UP);
            match sent.as_ref().map_err(io::Error::kind) {
                // the server has heard enough: what it says is the answer
                Err(ErrorKind::BrokenPipe) => {
                    return self.pass_answer(None, &mut server, client.get_ref()).map(|_| false);
                }
                Err(ErrorKind::ConnectionReset) => reset_on_close(&to_server),
                _ => {}
            }
            sent?;
        }
        let keeps = self.pass_answer(answer, &mut server, client.get_ref())?;
        Ok(keeps && !early && !head.says("connection", "close"))
    }

    fn pass_answer(
        &self,
        early: Option<Head>,
        server: &mut BufReader<TcpStream>,
        mut client: &TcpStream,
    ) -> io::Result<bool> {
        let mut next = early;
        let (head, status) = loop {
            let head = match next.take() {
                Some(head) => head,
                None => Head::read(server)?.ok_or_else(reset)?,
            };
            let status = head.status()?;
            if status >= 200 {
                break (head, status);
            }
            client.write_all(&head.raw)?;
        };
        lock(self.exchange).status = Some(status);
        let framing = head.response_framing(&self.request.method, status);
        if self.suffers(Fault::DropAnswer) {
            // the server has done its work when its answer has come
            return Err(reset());
        }
        if framing == Framing::Length(0) {
            self.completed(DOWN);
        }
        client.write_all(&head.raw)?;
        self.pass(server, &mut client, framing, DOWN)?;
        Ok(framing != Framing::ToEnd && !head.says("connection", "close"))
    }

    /// Answers in the server's place.
    fn answer(&self, client: &mut BufReader<TcpStream>, head: &Head, status: u16, code: &str) -> io::Result<bool> {
        let waits = head.says("expect", "100-continue");
        if !waits {
            self.pass(client, &mut io::sink(), head.request_framing(), UP)?;
        }
        let json = self.request.header("x-amz-target").is_some();
        let body = if json {
            format!(r#"{{"__type":"{code}","message":"said the test's proxy"}}"#)
        } else {
            let told = format!("<Code>{code}</Code><Message>said the test's proxy</Message>");
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>{told}<RequestId>PROXY</RequestId></Error>")
        };
        let kind = if json { "x-amz-json-1.1" } else { "xml" };
        let length = body.len();
        let mut stream = client.get_ref();
        let close = if waits { "Connection: close\r\n" } else { "" };
        let sent = if self.request.method == "HEAD" { "" } else { body.as_str() };
        lock(self.exchange).status = Some(status);
        self.count(sent.len(), DOWN);
        self.completed(DOWN);
        write!(
            stream,
            "HTTP/1.1 {status} {code}\r\nContent-Type: application/{kind}\r\nx-amz-request-id: PROXY\r\n\
             Content-Length: {length}\r\n{close}\r\n{sent}"
        )?;
        Ok(!waits)
    }

    /// Passes a body on, in its framing.
    fn pass(
        &self,
        from: &mut BufReader<TcpStream>,
        to: &mut impl Write,
        framing: Framing,
        direction: usize,
    ) -> io::Result<()> {
        let mut at = 0;
        match framing {
            Framing::Length(length) => self.pass_bytes(from, to, length, direction, (&mut at, true)),
            Framing::ToEnd => {
                self.pass_bytes(from, to, u64::MAX, direction, (&mut at, true))?;
                self.completed(direction);
                Ok(())
            }
            Framing::Chunked => loop {
                let line = pass_line(from, to)?;
                let digits = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
                if size == 0 {
                    self.completed(direction);
                    // trailers, up to the empty line
                    while !pass_line(from, to)?.trim_end().is_empty() {}
                    return Ok(());
                }
                self.pass_bytes(from, to, size, direction, (&mut at, false))?;
                pass_line(from, to)?;
            },
        }
    }

    /// Passes `length` bytes on, `at` bytes into the body; whether they are its `last`.
    fn pass_bytes(
        &self,
        from: &mut BufReader<TcpStream>,
        to: &mut impl Write,
        length: u64,
        direction: usize,
        (at, last): (&mut u64, bool),
    ) -> io::Result<()> {
        let end = at.saturating_add(length);
        let mut buffer = vec![0; 64 << 10];
        while *at < end {
            let most = usize::try_from(end - *at).unwrap_or(usize::MAX).min(self.shared.grain(buffer.len()));
            let got = from.read(&mut buffer[..most])?;
            if got == 0 {
                return if length == u64::MAX { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            let stop = self.stop_at(direction).filter(|stop| *stop <= *at + got as u64);
            let passing = stop.map_or(got, |stop| usize::try_from(stop.saturating_sub(*at)).unwrap_or(0));
            let bytes = &mut buffer[..passing];
            if direction == UP {
                lock(self.exchange).body.push(bytes);
            }
            self.flip(bytes, *at, direction);
            self.shared.pace(direction, bytes.len());
            *at += bytes.len() as u64;
            self.count(bytes.len(), direction);
            if last && *at == end {
                self.completed(direction);
            }
            send(to, bytes)?;
            if stop.is_some() {
                return Err(self.stopped(direction));
            }
        }
        Ok(())
    }

    /// Counted before they are sent: who has an answer finds it in the log.
    fn count(&self, bytes: usize, direction: usize) {
        let mut exchange = lock(self.exchange);
        let counter = if direction == UP { &mut exchange.request_bytes } else { &mut exchange.response_bytes };
        *counter += bytes as u64;
    }

    fn completed(&self, direction: usize) {
        if direction == DOWN {
            lock(self.exchange).complete = true;
        }
    }

    /// After how many bytes of a body its way ends.
    fn stop_at(&self, direction: usize) -> Option<u64> {
        self.faults.iter().find_map(|fault| match *fault {
            Fault::CutRequest(at) if direction == UP => Some(at),
            Fault::CutResponse(at) | Fault::StallResponse(at) if direction == DOWN => Some(at),
            _ => None,
        })
    }

    /// Ends the way of a body there; the error says whether in a reset.
    fn stopped(&self, direction: usize) -> io::Error {
        if direction == UP {
            return reset();
        }
        // a stalled connection ends with the proxy
        let stalls = self.faults.iter().any(|fault| matches!(fault, Fault::StallResponse(_)));
        while stalls && !self.shared.blocked.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
        ErrorKind::ConnectionAborted.into()
    }

    fn flip(&self, bytes: &mut [u8], at: u64, direction: usize) {
        for fault in &self.faults {
            let (Fault::FlipRequest(offset) | Fault::FlipResponse(offset)) = *fault else { continue };
            if matches!(fault, Fault::FlipRequest(_)) != (direction == UP) {
                continue;
            }
            let index = offset.checked_sub(at).and_then(|index| usize::try_from(index).ok());
            if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
                *byte ^= 1;
            }
        }
    }

    fn suffers(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

fn pass_line(from: &mut BufReader<TcpStream>, to: &mut impl Write) -> io::Result<String> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    send(to, &line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// One kind of error for whoever reads no more.
fn send(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).map_err(|_| ErrorKind::BrokenPipe.into())
}

fn reset() -> io::Error {
    ErrorKind::ConnectionReset.into()
}
