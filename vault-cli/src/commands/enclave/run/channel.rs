//! Ports between a parent and its enclave, docs/ENCLAVE.md section 4: vsock on EC2, Unix sockets of the vsock device in the emulator.

use crate::error::{CliError, io};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;
use vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// How long the device may take to open a connection.
const OPENING: Duration = Duration::from_secs(10);
/// How often a vsock listener looks whether it shall stop: nobody can connect to it from here.
const GLANCE: Duration = Duration::from_millis(20);

/// Where an enclave's ports are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The vsock device's socket; port P of the host is this with `_P` behind it.
    Unix(PathBuf),
    /// The CID of the enclave.
    Vsock(u32),
}

/// A port of the parent that is open.
pub enum Door {
    /// In the emulator.
    Unix(UnixListener),
    /// On EC2: open to this CID and to no other.
    Vsock(VsockListener, u32),
}

/// A connection with the enclave.
pub enum Stream {
    /// In the emulator.
    Unix(UnixStream),
    /// On EC2.
    Vsock(VsockStream),
}

impl Way {
    /// Opens a port of the parent.
    pub fn listen(&self, port: u32) -> Result<Door, CliError> {
        match self {
            Self::Unix(_) => {
                let path = self.unix(port);
                UnixListener::bind(&path).map(Door::Unix).map_err(io(path.display()))
            }
            Self::Vsock(cid) => {
                let listener = VsockListener::bind(&VsockAddr::new(VMADDR_CID_ANY, port)).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(Door::Vsock(listener, *cid))
                });
                listener.map_err(|e| {
                    io(format!("vsock port {port}"))(e)
                        .hint("one `mvault enclave run` at a time serves enclaves of a machine")
                })
            }
        }
    }

    /// A connection to a port of the enclave.
    pub fn connect(&self, port: u32) -> io::Result<Stream> {
        match self {
            Self::Vsock(cid) => Ok(Stream::Vsock(VsockStream::connect(&VsockAddr::new(*cid, port))?)),
            Self::Unix(device) => {
                let mut stream = UnixStream::connect(device)?;
                stream.set_read_timeout(Some(OPENING))?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
                let (mut said, mut byte) = (Vec::new(), [0]);
                while said.last() != Some(&b'\n') && said.len() < 32 {
                    stream.read_exact(&mut byte)?;
                    said.extend(byte);
                }
                stream.set_read_timeout(None)?;
                let opened = said.starts_with(b"OK ");
                if opened { Ok(Stream::Unix(stream)) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        }
    }

    fn unix(&self, port: u32) -> PathBuf {
        match self {
            Self::Unix(device) => PathBuf::from(format!("{}_{port}", device.display())),
            Self::Vsock(_) => PathBuf::new(),
        }
    }
}

impl Door {
    /// The next connection of the enclave; an error when there is none, or it is time to stop.
    pub fn accept(&self, stopped: &AtomicBool) -> io::Result<Stream> {
        match self {
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
            Self::Vsock(listener, cid) => loop {
                match listener.accept() {
                    Ok((stream, peer)) if peer.cid() == *cid => return Ok(Stream::Vsock(stream)),
                    Ok(_) => {} // another machine's: no business here
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && !stopped.load(Ordering::SeqCst) => sleep(GLANCE),
                    Err(e) => return Err(e),
                }
            },
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Vsock(listener, _) => listener.as_fd(),
        }
    }
}

impl Stream {
    /// The same connection, for another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Vsock(stream) => stream.try_clone().map(Self::Vsock),
        }
    }

    /// Ends a direction, or both.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Vsock(stream) => stream.shutdown(how),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => { stream }.read(into),
            Stream::Vsock(stream) => { stream }.read(into),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => { stream }.write(data),
            Stream::Vsock(stream) => { stream }.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => { stream }.flush(),
            Stream::Vsock(stream) => { stream }.flush(),
        }
    }
}
