//! The sealed artifact through the parent: docs/ENCLAVE.md section 4, port 7002. Both ends of it.
//!
//! The parent is not trusted: what it sends is ciphertext that is verified later, and lengths that are held to what was asked.

use crate::connect::{Connection, Dial};
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;
use vault_core::io::ReadAt;

/// Most bytes of one answer.
pub const MAX_READ: u32 = 1024 * 1024;
/// Most bytes of one write: longer ones stall the emulator's vsock.
pub const MAX_WRITE: usize = 32 * 1024;
/// How often a request is made before it fails.
const ATTEMPTS: u32 = 8;
/// The first pause; each is twice the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The header.
    Header,
    /// The payload.
    Payload,
}

/// The parent's header or payload, read over as many connections as there are threads that read.
pub struct Remote<'d> {
    dial: &'d dyn Dial,
    what: What,
    len: u64,
    idle: Mutex<Vec<Box<dyn Connection>>>,
}

impl<'d> Remote<'d> {
    /// Asks how long it is.
    pub fn open(dial: &'d dyn Dial, what: What) -> io::Result<Self> {
        let mut remote = Self { dial, what, len: 0, idle: Mutex::default() };
        remote.len = remote.again_and_again(&mut |remote, connection| ask(connection, remote.what, 0, &mut []))?;
        Ok(remote)
    }

    /// Its length in bytes: what the parent said first, and is held to.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn again_and_again<T>(
        &self,
        request: &mut dyn FnMut(&Self, &mut dyn Connection) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let tried = self.connection().and_then(|mut connection| {
                let answer = request(self, &mut *connection)?;
                self.lock().push(connection);
                Ok(answer)
            });
            match tried {
                Err(_) if attempt < ATTEMPTS => {
                    self.lock().clear(); // what was idle while this one broke is likely broken too
                    sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn connection(&self) -> io::Result<Box<dyn Connection>> {
        let idle = self.lock().pop();
        idle.map_or_else(|| self.dial.dial(), Ok)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Connection>>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ReadAt for Remote<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in buf.chunks_mut(MAX_READ as usize) {
            let end = at.checked_add(piece.len() as u64).filter(|end| *end <= self.len);
            let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.again_and_again(&mut |remote, connection| {
                let total = ask(connection, remote.what, at, piece)?;
                if total == remote.len { Ok(()) } else { Err(io::Error::other("its length changed")) }
            })?;
            at = end;
        }
        Ok(())
    }

    /// What came through the parent may come right another time.
    fn forget(&self, _: u64, _: u64) -> bool {
        true
    }
}

/// One request. Fills `into`, which lies within the object unless its length is still to be learned.
fn ask(connection: &mut dyn Connection, what: What, offset: u64, into: &mut [u8]) -> io::Result<u64> {
    let mut request = [0; 16];
    let length = u32::try_from(into.len()).map_err(io::Error::other)?;
    request[0] = match what {
        What::Header => 1,
        What::Payload => 2,
    };
    request[4..8].copy_from_slice(&length.to_be_bytes());
    request[8..].copy_from_slice(&offset.to_be_bytes());
    connection.write_all(&request)?;
    connection.flush()?;
    let mut total = [0; 8];
    connection.read_exact(&mut total)?;
    let total = u64::from_be_bytes(total);
    if total.saturating_sub(offset) < into.len() as u64 {
        return Err(io::Error::other("it ends before what was asked for"));
    }
    connection.read_exact(into)?;
    Ok(total)
}

/// The parent's end: answers requests of one connection until it ends.
pub fn answer(
    connection: &mut (impl Read + Write + ?Sized),
    header: &[u8],
    payload: &dyn ReadAt,
    payload_len: u64,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let mut request = [0; 16];
        match connection.read_exact(&mut request) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let [what, _, _, _, l0, l1, l2, l3, offset @ ..] = request;
        let (length, offset) = (u32::from_be_bytes([l0, l1, l2, l3]), u64::from_be_bytes(offset));
        let (object, total): (&dyn ReadAt, u64) = match what {
            1 => (&header, header.len() as u64),
            2 => (payload, payload_len),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a request")),
        };
        let there = total.saturating_sub(offset).min(u64::from(length.min(MAX_READ)));
        buffer.resize(usize::try_from(there).map_err(io::Error::other)?, 0);
        object.read_exact_at(&mut buffer, offset)?;
        connection.write_all(&total.to_be_bytes())?;
        for piece in buffer.chunks(MAX_WRITE) {
            connection.write_all(piece)?;
        }
        connection.flush()?;
    }
}

#[cfg(test)]
mod tests;
