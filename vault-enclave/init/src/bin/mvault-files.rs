//! An example of an image's own server (`mvault enclave build --add … --cmd /app/mvault-files`): `GET /PATH` answers with the size and BLAKE3 of a
//! file of the opened model. HTTP/1.1, one request a connection, no more than a demonstration needs.

#![allow(clippy::print_stderr)] // nobody sees it: the enclave gives it no terminal

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};

fn main() -> std::io::Result<()> {
    let model = PathBuf::from(std::env::var_os("MVAULT_MODEL").unwrap_or_default());
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        if let Err(error) = answer(stream?, &model) {
            eprintln!("{error}"); // the client is gone
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream, model: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut line) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let (status, body) = match std::fs::read(model.join(path)) {
        Ok(bytes) if plain => ("200 OK", format!("{} {}\n", bytes.len(), blake3::hash(&bytes).to_hex())),
        _ => ("404 Not Found", "no such file\n".to_owned()),
    };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
