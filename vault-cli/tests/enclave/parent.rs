//! A hostile parent: it boots the machine as `mvault enclave run` does, and serves what it likes.

use crate::stage::{PATIENCE, Stage};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use vault_enclave::port;

pub struct Parent {
    lines: Receiver<String>,
    seen: Vec<String>,
    qemu: Child,
    vsock: Child,
    _folder: tempfile::TempDir,
}

impl Parent {
    /// `model` has each connection for the model; the broker's are carried as they are.
    pub fn boot(stage: &Stage, image: &str, model: impl Fn(UnixStream) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (socket, uds) = (folder.path().join("vhost"), folder.path().join("vsock"));
        let vm = format!("guest-cid=4,socket={},uds-path={}", socket.display(), uds.display());
        let device = stage.parts.emulator.join("vhost-device-vsock");
        let vsock =
            Command::new(device).args(["--vm", &vm]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        crate::stage::wait("the vsock device", || socket.exists());
        let listen = |port: u32| UnixListener::bind(PathBuf::from(format!("{}_{port}", uds.display()))).unwrap();
        let (say, lines) = channel();
        each(listen(port::JOURNAL), move |stream| {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = say.send(line); // the test may be over
            }
        });
        each(listen(port::MODEL), model);
        let broker = stage.broker;
        each(listen(port::BROKER), move |stream| carry(stream, broker));
        let mut command = Command::new(stage.parts.emulator.join("qemu-system-x86_64"));
        command.args(["-L", "/usr/share/qemu", "-L", "/usr/share/seabios", "-nodefaults", "-display", "none"]);
        command.args(["-M", "nitro-enclave,vsock=c,id=i-0123-enc4567", "-serial", "null", "-no-reboot"]);
        command.args(["-global", "virtio-mmio.ioeventfd=off"]); // as `mvault enclave run`
        command.args(["-accel", "tcg", "-cpu", "max", "-m", "1G", "-smp", "2", "-kernel"]);
        command.arg(stage.shop.path(image));
        command.args(["-chardev", &format!("socket,id=c,path={}", socket.display())]);
        for (name, file) in [("dev-key", "key.pem"), ("dev-cert", "leaf.pem"), ("dev-cabundle", "bundle.pem")] {
            let file = stage.shop.path("dev").join(file);
            command.args(["-global", &format!("virtio-nsm-device.{name}={}", file.display())]);
        }
        let qemu = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { lines, seen: Vec::new(), qemu, vsock, _folder: folder }
    }

    /// The journal up to the first line with one of these words.
    #[track_caller]
    pub fn until(&mut self, words: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let Ok(line) = self.lines.recv_timeout(left.max(Duration::from_millis(1))) else {
                panic!("none of {words:?} in: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if words.iter().any(|word| line.contains(word)) {
                return line;
            }
        }
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.vsock] {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

fn each(listener: UnixListener, work: impl Fn(UnixStream) + Send + Sync + 'static) {
    let work = Arc::new(work);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let work = Arc::clone(&work);
            std::thread::spawn(move || work(stream));
        }
    });
}

fn carry(guest: UnixStream, broker: SocketAddr) {
    let Ok(tcp) = TcpStream::connect(broker) else { return };
    let (guest_too, tcp_too) = (guest.try_clone().unwrap(), tcp.try_clone().unwrap());
    std::thread::spawn(move || copy(guest_too, tcp_too));
    copy(tcp, guest);
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
