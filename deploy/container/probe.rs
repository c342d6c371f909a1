//! Asks a broker's admin port how it is, for an orchestrator that can only run a program in the container: that port is on loopback, and
//! there is no shell and no curl in the image. `probe ADDRESS:PORT PATH`: exit 0 if the answer is 200, 1 otherwise. One file, no crates: rustc builds it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
const OK: &[u8] = b"HTTP/1.1 200 ";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, path] = words.as_slice() else {
        eprintln!("usage: probe ADDRESS:PORT PATH");
        return ExitCode::from(2);
    };
    match ask(address, path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("probe: {address}{path}: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn ask(address: &str, path: &str) -> Result<(), String> {
    let address: SocketAddr = address.parse().map_err(|_| "expected an address and a port".to_owned())?;
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.to_string())?;
    connection.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    connection.set_write_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut start = [0; OK.len()];
    connection.read_exact(&mut start).map_err(|e| e.to_string())?;
    if start == OK { Ok(()) } else { Err(String::from_utf8_lossy(&start).trim_end().to_owned()) }
}
