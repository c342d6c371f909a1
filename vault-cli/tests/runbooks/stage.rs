//! Where a runbook is played: a folder as the document describes it, a broker's process, and stand-ins for what is not here:
//! `systemctl`, `build-image`, `ask-for-key`, and `sleep 120`. A stand-in is a script in PATH that hands its words over to the
//! test over a socket; the test holds the broker's process and the hardware's key.

use crate::common::Done;
use crate::common::console::Step;
use crate::document::{FILE, commands};
use crate::rig::Rig;
use mvault_tests::asker::now_s;
use mvault_tests::evidence::{Evidence, TestRoot};
use mvault_tests::server::process::free_ports;
use rand_core::UnwrapErr;
use rustls::time_provider::DefaultTimeProvider;
use sha2::{Digest, Sha384};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vault_core::header::{Header, hex};
use vault_enclave::Tcp;
use vault_enclave::config::{Config, Keys};
use vault_enclave::release::{Attester, Client, Pinned, ReleaseError};

/// How long a runbook may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Hands its words over to the test, which answers with an exit code and text.
const STAND_IN: &str = r#"#!/bin/bash
exec 3<>"/dev/tcp/127.0.0.1/$RUNBOOK_PORT" || exit 99
printf '%s\n' "${0##*/} $*" >&3
IFS= read -r code <&3
cat <&3
exit "$code"
"#;
const STAND_INS: [&str; 4] = ["systemctl", "build-image", "ask-for-key", "sleep"];

/// Marks in what bash prints: a command begins; it ended with this code.
const BEGINS: char = '\u{1e}';
const ENDED: char = '\u{1d}';

type Env = [(String, String)];

pub struct Stage {
    rig: Rig,
    listener: TcpListener,
}

impl Stage {
    /// A model, your key, and a broker that serves the policy `prod` to enclaves of `image`.
    pub fn new() -> Self {
        let mut stage = Self::without_broker();
        stage.ok("mvault keygen --public home/.config/mvault/identity.txt > operators.pub");
        stage.ok("mvault keygen --signing -o sign.pem");
        stage.config("image", 1);
        stage.build("image");
        stage.ok("mvault policy new --from image.json --release 1.4.0 -o broker/policies/prod.toml --force");
        stage.ok("mvault seal bert -R operators.pub -r \"$(mvault broker recipient broker prod)\" --sign sign.pem");
        stage.rig.start();
        stage
    }

    /// The folder alone; its broker does not run.
    pub fn without_broker() -> Self {
        let [port] = free_ports();
        let rig = Rig::at(port);
        for name in STAND_INS {
            let name = format!("bin/{name}");
            rig.shop.write(&name, STAND_IN.as_bytes());
            std::fs::set_permissions(rig.shop.path(&name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { rig, listener }
    }

    /// The configuration of an image that is not built yet.
    pub fn next_image(&mut self) {
        self.config("next", 2);
    }

    fn config(&self, name: &str, texts: u32) {
        self.ok(&format!(
            "mvault enclave config --broker broker/client.toml --model bert --signer sign.pem.pub -o {name}.toml"
        ));
        // Two images differ in something.
        self.ok(&format!("sed -i 's/^max_texts = .*/max_texts = {texts}/' {name}.toml"));
    }

    /// What `build-image NAME.toml > NAME.json` does.
    pub fn build(&self, name: &str) {
        self.rig.shop.write(&format!("{name}.json"), self.measured(&format!("{name}.toml")).as_bytes());
    }

    /// Runs a line that is not the document's.
    pub fn sh(&self, line: &str, env: &Env) -> Done {
        let mut command = self.rig.shop.command("bash");
        command.args(["-ec", line]).envs(env.iter().map(|(k, v)| (k, v)));
        command.output().unwrap().into()
    }

    #[track_caller]
    pub fn ok(&self, line: &str) -> Done {
        self.sh(line, &[]).ok()
    }

    #[track_caller]
    pub fn ok_with(&self, line: &str, env: &Env) -> Done {
        self.sh(line, env).ok()
    }

    /// Runs the lines of all blocks of this name in one shell, and compares what they print and their exit codes.
    pub fn play(&mut self, name: &str, env: &Env) {
        let steps = commands(name);
        let said = self.run(&script(&steps), env);
        let mut parts = said.split(BEGINS).skip(1);
        for step in &steps {
            let Step { line, command, expected, code } = step;
            let part = parts.next().unwrap_or_else(|| panic!("{FILE}:{line}: {command}: never came to it: {said}"));
            let (output, ended) =
                part.split_once(ENDED).unwrap_or_else(|| panic!("{FILE}:{line}: {command}: no end: {part}"));
            let found: Vec<_> = output.lines().map(str::to_owned).collect();
            assert!(step.is_met_by(&found), "{FILE}:{line}: {command}\nexpected {expected:#?}\nfound {found:#?}");
            assert_eq!(ended.trim(), code.to_string(), "{FILE}:{line}: {command}: exit code");
        }
    }

    /// Answers the stand-ins until bash is done; gives what it printed.
    fn run(&mut self, script: &str, env: &Env) -> String {
        let shop = &self.rig.shop;
        shop.write("runbook.sh", script.as_bytes());
        let port = self.listener.local_addr().unwrap().port();
        let mut command = shop.command("timeout");
        let path = command.get_envs().find_map(|(k, v)| (k == "PATH").then(|| v.unwrap().to_owned())).unwrap();
        let mut paths = shop.path("bin").into_os_string();
        paths.push(":");
        paths.push(path);
        command.args(["-k", "5", &PATIENCE.as_secs().to_string(), "bash", "runbook.sh"]);
        command.env("PATH", paths).env("RUNBOOK_PORT", port.to_string()).envs(env.iter().map(|(k, v)| (k, v)));
        let output = File::create(shop.path("runbook.out")).unwrap();
        let mut bash = Bash(command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap());
        while bash.0.try_wait().unwrap().is_none() {
            match self.listener.accept() {
                Ok((stream, _)) => self.answer(stream),
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => panic!("{e}"),
            }
        }
        String::from_utf8(self.rig.shop.read("runbook.out")).unwrap()
    }

    fn answer(&mut self, mut stream: TcpStream) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let (code, text) = match words[..] {
            ["sleep", "120"] => (0, String::new()),
            ["systemctl", verb, "mvault-broker"] => self.systemctl(verb),
            ["build-image", config] => (0, self.measured(config)),
            ["ask-for-key", artifact, image] => self.ask(artifact, image),
            _ => panic!("the stand-ins do not know {line:?}"),
        };
        write!(stream, "{code}\n{text}").unwrap();
    }

    fn systemctl(&mut self, verb: &str) -> (i32, String) {
        if matches!(verb, "stop" | "restart") {
            assert!(self.rig.stop().success());
        }
        if matches!(verb, "start" | "restart") {
            self.rig.start();
        }
        if verb == "reload" {
            self.reload();
        }
        (0, String::new())
    }

    /// SIGHUP, and the broker took the new rules.
    pub fn reload(&self) {
        let (began, before) = (Instant::now(), self.rig.log().matches("read anew").count());
        self.rig.signal("-HUP");
        while self.rig.log().matches("read anew").count() == before {
            assert!(began.elapsed() < PATIENCE, "no reload: {}", self.rig.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        let log = self.rig.log();
        assert!(!log.contains("not read anew"), "{log}");
    }

    /// The broker's machine breaks, and its disk.
    pub fn lose_broker(&mut self) {
        self.rig.kill();
        std::fs::remove_dir_all(self.rig.shop.path("broker")).unwrap();
    }

    /// What a build prints of an image with this configuration.
    fn measured(&self, config: &str) -> String {
        let [image, kernel, second] = pcrs(&self.rig.shop.read(config)).map(|pcr| hex(&pcr));
        let json = serde_json::json!({
            "Measurements": { "HashAlgorithm": "Sha384 { ... }", "PCR0": image, "PCR1": kernel, "PCR2": second }
        });
        format!("{json}\n")
    }

    /// An enclave of this image asks as its code does, with what its configuration pins. Exit code and line are those of
    /// `mvault enclave run`.
    pub fn ask(&self, artifact: &str, image: &str) -> (i32, String) {
        let config = self.rig.shop.read(&format!("{image}.toml"));
        let Keys::Broker(pinned) = Config::parse(&config).unwrap().keys else { panic!("{image}.toml pins no broker") };
        match self.released(artifact, pinned, &config) {
            Ok(decision) => (0, format!("[E-5] key released, {decision}\n")),
            Err(error) => {
                let code = if matches!(error, ReleaseError::Refused { .. }) { 4 } else { 1 };
                (code, format!("[E-5] {error}; {}\n", error.hint()))
            }
        }
    }

    fn released(&self, artifact: &str, pinned: Pinned, config: &[u8]) -> Result<String, ReleaseError> {
        let shop = &self.rig.shop;
        let header = Header::read(&mut &shop.read(artifact)[..]).unwrap();
        let key = String::from_utf8(shop.read("root.key")).unwrap();
        let mut hardware = Hardware { root: TestRoot::from_pem(&self.rig.root.pem(), &key), pcrs: pcrs(config) };
        let dial = Arc::new(Tcp(self.rig.address.to_string()));
        let client = Client::new(pinned, dial, Arc::new(DefaultTimeProvider))?;
        let key = client.request_key(&header, &mut hardware, &mut UnwrapErr(getrandom::SysRng))?;
        header.unlock(&[key.identity()]).unwrap();
        Ok(key.source.to_string())
    }
}

/// Each command runs in the one shell, between marks; what it prints to stderr stands where it was printed.
fn script(steps: &[Step]) -> String {
    let marked = |step: &Step| format!("printf '{BEGINS}'\n{}\nprintf '{ENDED}%d' \"$?\"\n", step.command);
    format!("exec 2>&1\n{}", steps.iter().map(marked).collect::<Vec<_>>().concat())
}

/// PCR0 to PCR2 of an image with this configuration.
fn pcrs(config: &[u8]) -> [[u8; 48]; 3] {
    [b"image".as_slice(), b"kernel", b"second ramdisk"].map(|what| {
        let measured = if what == b"kernel" { b"".as_slice() } else { config };
        Sha384::new().chain_update(what).chain_update(measured).finalize().into()
    })
}

/// Evidence as the hardware would make it for an enclave of this image.
struct Hardware {
    root: TestRoot,
    pcrs: [[u8; 48]; 3],
}

impl Attester for Hardware {
    fn attest(&mut self, nonce: &[u8; 32], user_data: &[u8; 32], _: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let evidence = Evidence::at(now_s()).with_nonce(nonce).with_user_data(user_data);
        let evidence = (0..).zip(&self.pcrs).fold(evidence, |evidence, (index, pcr)| evidence.with_pcr(index, pcr));
        Ok(evidence.sign(&self.root.chain(now_s())))
    }
}

/// `timeout` and the shell below it; ended when the test fails meanwhile.
struct Bash(Child);

impl Drop for Bash {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status(); // `timeout` ends the shell with it
            let _ = self.0.wait();
        }
    }
}
