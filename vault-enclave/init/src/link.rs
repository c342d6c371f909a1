//! vsock to and from the parent: docs/ENCLAVE.md section 4. Writes are short: longer ones stall the emulator's device.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_vsock::VsockListener;
use vault_enclave::fetch::MAX_WRITE;
use vault_enclave::serve::Accept;
use vault_enclave::{Connection, Dial, port};
use vsock::{VMADDR_CID_ANY, VsockAddr, VsockStream};

/// The parent on EC2, and in the emulator.
const PARENTS: [u32; 2] = [3, 2];
/// How long the parent may be silent.
const SILENCE: Duration = Duration::from_mins(1);

/// Finds the parent: the first CID that takes the journal's connection.
pub fn find_parent() -> io::Result<(u32, VsockStream)> {
    let (found, first) = mpsc::channel();
    for cid in PARENTS {
        let found = found.clone();
        std::thread::spawn(move || {
            for _ in 0..40 {
                if let Ok(stream) = VsockStream::connect_with_cid_port(cid, port::JOURNAL) {
                    let _ = found.send((cid, stream)); // the other one was first
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    }
    drop(found);
    first.recv().map_err(|_| io::Error::new(io::ErrorKind::NotConnected, "no parent listens on the journal's port"))
}

/// One port of the parent.
#[derive(Debug, Clone)]
pub struct Parent {
    /// The parent's.
    pub cid: u32,
    /// Which.
    pub port: u32,
}

impl Dial for Parent {
    fn dial(&self) -> io::Result<Box<dyn Connection>> {
        let stream = VsockStream::connect(&VsockAddr::new(self.cid, self.port))?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Box::new(Short(stream)))
    }
}

/// A stream whose writes are short.
#[derive(Debug)]
pub struct Short<S>(S);

fn short(data: &[u8]) -> &[u8] {
    data.get(..data.len().min(MAX_WRITE)).unwrap_or(data)
}

impl<S: Read> Read for Short<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<S: Write> Write for Short<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(short(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Short<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Short<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, short(data))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Connections from clients, which the parent forwards.
pub struct Listener(VsockListener);

impl Listener {
    /// On the serving port.
    pub fn bind() -> io::Result<Self> {
        Ok(Self(VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port::SERVE))?))
    }
}

impl Accept for Listener {
    type Stream = Short<tokio_vsock::VsockStream>;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        Ok(Short(self.0.accept().await?.0))
    }
}
