//! A server for AWS clients that answers what a test says, and counts: for refusals that no emulator gives, and for
//! showing that nobody was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is answered: status and body.
pub type Answer = (u16, String);

/// What comes with each answer of a KMS.
const KMS: &str = "content-type: application/x-amz-json-1.1\r\nx-amzn-requestid: canned-1";

/// One such server, on a port of its own of 127.0.0.1. It ends with the process.
pub struct Canned {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    /// Answers with `answer`, which is given the action (`Decrypt`) and the body of each request.
    pub fn new(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(KMS, answer)
    }

    /// An S3 that refuses everything, from a region; without one it does not say.
    pub fn s3(status: u16, code: &str, message: &str, region: Option<&str>) -> Self {
        let region = region.map_or_else(String::new, |r| format!("\r\nx-amz-bucket-region: {r}"));
        let headers = format!("content-type: application/xml\r\nx-amz-request-id: canned-1{region}");
        let said =
            format!("<Error><Code>{code}</Code><Message>{message}</Message><RequestId>canned-1</RequestId></Error>");
        Self::with(&headers, move |_, _| (status, said.clone()))
    }

    fn with(headers: &str, answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, connections: Arc::default(), requests: Arc::default() };
        let (connections, requests) = (server.connections.clone(), server.requests.clone());
        let (answer, headers) = (Arc::new(answer), headers.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, answer, headers) = (requests.clone(), answer.clone(), headers.clone());
                std::thread::spawn(move || serve(stream, &headers, &requests, &*answer));
            }
        });
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often someone connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The bodies of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    headers: &str,
    requests: &Mutex<Vec<String>>,
    answer: &dyn Fn(&str, &str) -> Answer,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut action, mut line, mut is_head) = (0, String::new(), String::new(), false);
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            is_head |= line.starts_with("HEAD ");
            let Some((name, value)) = line.split_once(':') else {
                if line.trim().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok()?,
                "x-amz-target" => action = value.trim().rsplit('.').next()?.into(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8_lossy(&body).into_owned();
        requests.lock().unwrap().push(body.clone());
        let (status, said) = answer(&action, &body);
        let head = format!("HTTP/1.1 {status} Canned\r\n{headers}\r\ncontent-length: {}\r\n\r\n", said.len());
        let said = if is_head { "" } else { said.as_str() };
        reader.get_mut().write_all(&[head.as_bytes(), said.as_bytes()].concat()).ok()?;
    }
}
