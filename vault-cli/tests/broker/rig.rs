//! A broker's folder, made by `mvault broker init`, and a process that serves it.

use crate::common::Workshop;
use mvault_tests::asker::Asker;
use mvault_tests::asker::wire::Wire;
use mvault_tests::evidence::{Evidence, TestRoot};
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use vault_broker::keyring::Keyring;
use vault_core::header::{Header, hex};
use vault_core::recipient::keyfile::{KeyLine, parse_identities};

/// A broker with the policy `prod`, for images of [`Evidence::at`].
pub struct Rig {
    pub shop: Workshop,
    pub root: TestRoot,
    child: Option<Child>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

/// How long the broker may take to listen, or to end.
const PATIENCE: Duration = Duration::from_mins(1);

impl Rig {
    /// Serves nothing yet.
    pub fn new() -> Self {
        Self::at(0)
    }

    /// One that will listen at this port, which client.toml names; 0 is any.
    pub fn at(port: u16) -> Self {
        let shop = Workshop::new();
        shop.mvault("keygen").ok();
        shop.mvault(&format!("broker init broker --host localhost --listen 127.0.0.1:{port} --admin 127.0.0.1:0")).ok();
        let root = TestRoot::new();
        shop.write("root.pem", root.pem().as_bytes());
        shop.write("root.key", root.key_pem().as_bytes());
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let rig = Self { shop, root, child: None, address: none, admin: none };
        rig.policy("prod", "", "");
        rig
    }

    /// One that serves.
    pub fn started() -> Self {
        let mut rig = Self::new();
        rig.start();
        rig
    }

    /// Writes a policy for good evidence. `top` goes above its release, `release` into it.
    pub fn policy(&self, name: &str, top: &str, release: &str) {
        let text = policy_text(name, top, release, &Evidence::pcr(0));
        self.shop.write(&format!("broker/policies/{name}.toml"), text.as_bytes());
    }

    /// Puts `key = value` in the place of its commented line in broker.toml.
    pub fn set(&self, key: &str, value: &str) {
        let text = String::from_utf8(self.shop.read("broker/broker.toml")).unwrap();
        let found = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
        let old = text.lines().find(found).unwrap_or_else(|| panic!("no {key} in broker.toml"));
        self.shop.write("broker/broker.toml", text.replace(old, &format!("{key} = {value}")).as_bytes());
    }

    pub fn start(&mut self) {
        let mut command = self.shop.command(env!("CARGO_BIN_EXE_mvault"));
        command.args(["broker", "serve", "broker", "--dangerous-dev-root", "root.pem"]);
        self.start_as(command);
    }

    /// Starts a broker by another command line.
    pub fn start_as(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.shop.path("serve.log")).unwrap();
        let before = self.log().len();
        command.stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let began = Instant::now();
        loop {
            let log = self.log();
            let said = &log[before..];
            let after = |mark: &str| said.split_once(mark)?.1.split([',', '\n', ' ']).next()?.parse().ok();
            if let (Some(listen), Some(admin)) = (after("listening on https://"), after("health on http://")) {
                (self.address, self.admin) = (listen, admin);
                return;
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "not started: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the broker said on stderr, in all its lives.
    pub fn log(&self) -> String {
        String::from_utf8(self.shop.read("serve.log")).unwrap()
    }

    /// Waits until the broker has logged these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) {
        let began = Instant::now();
        while !self.log().contains(words) {
            assert!(began.elapsed() < PATIENCE, "expected {words:?} in: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.pid().to_string()]).status().unwrap().success());
    }

    /// kill -9
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the broker's end.
    pub fn wait(&mut self) -> ExitStatus {
        let (mut child, began) = (self.child.take().unwrap(), Instant::now());
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("the broker does not stop: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn stop(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    pub fn ca(&self) -> String {
        String::from_utf8(self.shop.read("broker/tls/ca.pem")).unwrap()
    }

    pub fn wire(&self) -> Wire {
        Wire::new(self.address, &self.ca())
    }

    pub fn asker(&self) -> Asker {
        let key = String::from_utf8(self.shop.read("root.key")).unwrap();
        Asker::new(self.wire(), TestRoot::from_pem(&self.root.pem(), &key))
    }

    /// A value of client.toml.
    pub fn client(&self, key: &str) -> String {
        let text = String::from_utf8(self.shop.read("broker/client.toml")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = \""))).unwrap();
        line.trim_end_matches('"').to_owned()
    }

    /// The recipient line for a policy, which need not be there.
    pub fn line(&self, policy: &str) -> String {
        format!("{}/{policy}", self.client("recipient"))
    }

    /// Seals `bert` for a policy of this broker; gives the header.
    pub fn seal(&self, name: &str, policy: &str) -> Vec<u8> {
        self.seal_for(name, &self.line(policy), "")
    }

    /// Seals `bert` for this line; gives the header.
    pub fn seal_for(&self, name: &str, line: &str, more: &str) -> Vec<u8> {
        self.shop.write("line.txt", line.as_bytes());
        self.shop.mvault(&format!("seal bert -o {name}.mvault -R line.txt {more}")).ok();
        self.header(name)
    }

    pub fn header(&self, name: &str) -> Vec<u8> {
        let file = self.shop.read(&format!("{name}.mvault"));
        Header::read(&mut &file[..]).unwrap().unpadded().to_vec()
    }

    /// The broker's keys, opened as its operator could.
    pub fn keyring(&self) -> Keyring {
        let text = self.shop.read("home/.config/mvault/identity.txt");
        let Some(KeyLine::Secret(identity)) = parse_identities(&text).unwrap().into_iter().next() else { panic!() };
        Keyring::open_with(&self.shop.read("broker/broker.keys"), &[&identity]).unwrap()
    }

    /// All of `GET path` on the admin address.
    pub fn admin(&self, path: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.admin).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// `mvault broker why` for a decision.
    pub fn why(&self, id: &[u8]) -> String {
        self.shop.mvault(&format!("broker why broker {}", hex(id))).ok().text()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill(); // it may have ended by itself
            let _ = child.wait();
        }
    }
}

/// A policy file whose one release has this PCR0.
pub fn policy_text(name: &str, top: &str, release: &str, pcr0: &[u8]) -> String {
    let (pcr1, pcr2) = (hex(&Evidence::pcr(1)), hex(&Evidence::pcr(2)));
    let max_age = if top.contains("max_age_s") { "" } else { "max_age_s = 300\n" };
    format!(
        "version = 1\nname = \"{name}\"\nplatform = \"aws-nitro\"\n{max_age}{top}\n[[release]]\nname = \"1.4.0\"\n\
         pcr0 = \"{}\"\npcr1 = \"{pcr1}\"\npcr2 = \"{pcr2}\"\n{release}\n",
        hex(pcr0)
    )
}
