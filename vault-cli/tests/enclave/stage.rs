//! What every story needs, made once: a development authority, a broker that serves, an image, and sealed models.

use crate::common::Workshop;
use mvault_tests::front::Front;
use mvault_tests::server::process::{Folder, Process};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a machine: emulation on a busy host is slow.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Programs from outside the workspace.
pub struct Parts {
    pub emulator: PathBuf,
    pub guest: PathBuf,
    pub eif: PathBuf,
    pub models: PathBuf,
}

/// Files and a broker.
pub struct Stage {
    pub shop: Workshop,
    pub parts: Parts,
    pub broker: SocketAddr,
    /// Ends with this test process, and takes the workshop with it: a static is never dropped.
    process: Process,
    log: PathBuf,
}

impl Parts {
    fn find() -> Option<Self> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        let found = (|| {
            let (emulator, guest) = (path("MVAULT_TEST_EMULATOR")?, path("MVAULT_TEST_GUEST")?);
            Some(Self { emulator, guest, eif: path("MVAULT_TEST_EIF")?, models: path("MVAULT_TEST_MODELS")? })
        })();
        if found.is_none() {
            let ci = std::env::var_os("CI").is_some_and(|v| v == "true");
            assert!(
                !ci,
                "no emulated enclave: set MVAULT_TEST_EMULATOR, _GUEST, _EIF and _MODELS, as scripts/test.sh does"
            );
            println!("skipped: no emulated enclave");
        }
        found
    }
}

/// The stage, for one test at a time: two machines on two cores would only wait for each other.
pub fn stage() -> Option<MutexGuard<'static, Stage>> {
    static STAGE: OnceLock<Option<Mutex<Stage>>> = OnceLock::new();
    let stage = STAGE.get_or_init(|| Some(Mutex::new(Stage::set(Parts::find()?)))).as_ref()?;
    Some(stage.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Stage {
    fn set(parts: Parts) -> Self {
        let shop = Workshop::new();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/dev-root.sh");
        // Its cache is not used, and the tests' home has none.
        shop.sh(&format!("MVAULT_CACHE=$PWD/cache {script} dev")).ok();
        shop.mvault("keygen").ok();
        shop.mvault("keygen --signing -o sign.pem").ok();
        shop.mvault("keygen --signing -o other.pem").ok();
        shop.mvault("broker init broker --host localhost --listen 127.0.0.1:0 --admin 127.0.0.1:0").ok();
        let (process, log, broker) = serve(&shop);
        let stage = Self { shop, parts, broker, process, log };
        stage.configure("enclave.toml", "--min-version 2 --golden golden.json");
        stage.build("good.eif", "enclave.toml", &stage.parts.guest);
        stage.policy("good.eif");
        let minilm = stage.parts.models.join("minilm");
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/minilm/golden.json");
        stage.shop.sh(&format!("cp -r {} minilm && cp {golden} minilm/", minilm.display())).ok();
        let line = stage.shop.mvault("broker recipient broker prod").ok().text();
        stage.shop.write("line.txt", line.as_bytes());
        stage.seal("two", "--name minilm --model-version 2 --sign sign.pem");
        stage
    }

    /// Seals the model for the broker.
    pub fn seal(&self, name: &str, more: &str) {
        self.shop.mvault(&format!("seal minilm -o {name}.mvault -R line.txt {more}")).ok();
    }

    /// A measured configuration that asks AWS KMS.
    pub fn configure_kms(&self, name: &str, arn: &str, front: &Front) {
        self.shop.write("kms-ca.pem", front.ca_pem.as_bytes());
        let fixed = "--model minilm --signer sign.pem.pub --min-version 2 --golden golden.json --kms-ca kms-ca.pem";
        self.shop.mvault(&format!("enclave config {fixed} --kms {arn} --kms-url {} -o {name}", front.url())).ok();
    }

    /// A measured configuration.
    pub fn configure(&self, name: &str, more: &str) {
        let fixed = "--broker broker/client.toml --model minilm --signer sign.pem.pub";
        self.shop.mvault(&format!("enclave config {fixed} {more} -o {name}")).ok();
    }

    /// An image of this configuration and init.
    pub fn build(&self, name: &str, config: &str, init: &std::path::Path) {
        let (emulator, init, eif) = (self.parts.emulator.display(), init.display(), self.parts.eif.display());
        let line = format!("--kernel {emulator}/bzImage --init {init} --eif-tool {eif} --config {config} -o {name}");
        self.shop.mvault(&format!("enclave build {line}")).ok();
    }

    /// The policy `prod` for this image alone, in force at once.
    pub fn policy(&self, image: &str) {
        self.shop.sh("rm -f prod.toml").ok();
        self.shop.mvault(&format!("enclave measure {image} --policy prod -o prod.toml")).ok();
        self.shop.sh("cp prod.toml broker/policies/prod.toml").ok();
        let before = self.broker_log().matches("read anew").count();
        let pid = self.process.pid().unwrap().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        wait("the broker's new policy", || self.broker_log().matches("read anew").count() > before);
    }

    pub fn broker_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// `mvault enclave run` with its output in a file; ends when dropped.
    pub fn run(&self, image: &str, model: &str, more: &str, env: &[(String, String)]) -> Run {
        self.run_with(&format!("--broker {}", self.broker), image, model, more, env)
    }

    /// With another place where keys are.
    pub fn run_with(&self, keys: &str, image: &str, model: &str, more: &str, env: &[(String, String)]) -> Run {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("run-{count}.log");
        let log = File::create(self.shop.path(&name)).unwrap();
        let emulator = self.parts.emulator.display();
        let line = format!("enclave run {image} {model} {keys} --listen 127.0.0.1:0 --emulator {emulator} {more}");
        let mut command = self.shop.command(env!("CARGO_BIN_EXE_mvault"));
        command.args(line.split_whitespace()).envs(env.iter().cloned());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Run { child: command.spawn().unwrap(), log: self.shop.path(&name) }
    }
}

fn serve(shop: &Workshop) -> (Process, PathBuf, SocketAddr) {
    let mut command = shop.command(env!("CARGO_BIN_EXE_mvault"));
    command.args(["broker", "serve"]).arg(shop.path("broker"));
    command.arg("--dangerous-dev-root").arg(shop.path("dev/root.pem"));
    let folder = Folder::new();
    let log = folder.path().join("server.log");
    let mut process = Process::new(folder, command, vec![shop.path("")]);
    process.start();
    let said = || std::fs::read_to_string(&log).unwrap();
    wait("the broker", || said().contains("health on"));
    let address = said().split_once("https://").unwrap().1.split([',', '\n']).next().unwrap().parse().unwrap();
    (process, log, address)
}

/// A machine that runs by `mvault enclave run`.
pub struct Run {
    child: Child,
    log: PathBuf,
}

impl Run {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Where clients connect, once it is ready.
    #[track_caller]
    pub fn ready(&mut self) -> String {
        let began = Instant::now();
        loop {
            let log = self.log();
            if let Some((_, rest)) = log.split_once("ready after ") {
                return rest.lines().next().unwrap().split_once(": ").unwrap().1.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "not ready: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Exit code and all that was said, once it has ended by itself.
    #[track_caller]
    pub fn ended(mut self) -> (i32, String) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code().unwrap_or(-1), self.log());
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ctrl-C.
    pub fn interrupt(self) -> (i32, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.ended()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Its children end with it when it ends by a signal that it takes.
            let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        }
        let _ = self.child.wait();
    }
}

#[track_caller]
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
