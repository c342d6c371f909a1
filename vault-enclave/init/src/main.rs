//! `/init` of an mvault enclave: docs/ENCLAVE.md section 3, step by step. Whatever fails is one line, and the end of the machine.

mod bert;
mod golden;
mod journal;
mod link;
mod machine;
mod nsm;
mod onnx;
mod own;

use bert::Bert;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use journal::Journal;
use link::{Listener, Parent, find_parent};
use nsm::Nsm;
use onnx::Onnx;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::net::SocketAddr;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vault_core::header::hex;
use vault_enclave::attested::TlsKey;
use vault_enclave::config::{self, Config, Keys, PATH};
use vault_enclave::kms::KmsClient;
use vault_enclave::model::{Chosen, ModelError, Sealed};
use vault_enclave::port;
use vault_enclave::release::{Client, ReleaseError, ReleasedKey};
use vault_enclave::serve::{Backend, Service};

/// How often broker or KMS is asked where asking again can help.
const ASKED: u32 = 5;

fn main() {
    let journal = Journal::new();
    if std::process::id() != 1 {
        journal
            .say("this is /init of an enclave image: `mvault enclave build` makes one, `mvault enclave run` boots it");
        std::process::exit(2);
    }
    let told = journal.clone();
    std::panic::set_hook(Box::new(move |panic| {
        // Where, not what: a panic's message may hold what it stumbled over.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        told.last(&format!("failed: panic at {place}"));
        machine::power_off();
    }));
    let Err(error) = boot(&journal);
    journal.last(&format!("failed: {error}"));
    machine::power_off();
}

/// A step's number before what it says.
fn at(step: &'static str) -> impl Fn(String) -> String {
    move |error| format!("[{step}] {error}")
}

fn boot(journal: &Journal) -> Result<std::convert::Infallible, String> {
    machine::mount_all().map_err(at("E-1"))?;
    machine::open_console();
    let (cid, stream) = find_parent().map_err(|e| at("E-1")(e.to_string()))?;
    journal.connect(stream);
    journal.say(&format!("[E-1] mvault-init {}, parent is CID {cid}", env!("CARGO_PKG_VERSION")));

    let mut nsm = Nsm::open().map_err(at("E-2"))?;
    machine::add_entropy(&nsm.random().map_err(at("E-2"))?).map_err(at("E-2"))?;
    let pcr0 = nsm.pcr0().map_err(at("E-2"))?;
    if pcr0.iter().all(|byte| *byte == 0) {
        return Err("[E-2] PCR0 is zero: a debug enclave, whose parent reads its console".into());
    }
    let clock = Arc::new(NsmClock::new(nsm.now_s().map_err(at("E-2"))?));
    let id = nsm.module_id().map_err(at("E-2"))?;
    journal.say(&format!("[E-2] NSM {id}, PCR0 {}…", hex(pcr0.get(..8).unwrap_or_default())));

    let file = std::fs::read(PATH).map_err(|e| format!("[E-3] {PATH}: {e}"))?;
    let config = Config::parse(&file).map_err(|e| format!("[E-3] {PATH}: {e}"))?;
    journal.say(&format!(
        "[E-3] model {:?} from version {}, {}",
        config.model.name, config.model.minimum_version, config.keys
    ));

    let dial = Parent { cid, port: port::MODEL };
    let sealed = Sealed::fetch(&dial, &config.model).map_err(|e| e.to_string())?;
    journal.say(&format!(
        "[E-4] artifact {}…, signed by the pinned signer",
        hex(sealed.header().prelude().salt.get(..8).unwrap_or_default())
    ));

    let began = Instant::now();
    let key = request_key(journal, &config.keys, cid, clock, &sealed, &mut nsm).map_err(|e| at("E-5")(told(&e)))?;
    journal.say(&format!("[E-5] key released, {}, in {} ms", key.source, began.elapsed().as_millis()));

    let chosen = sealed.choose(&key).map_err(|e| e.to_string())?;
    drop(key);
    let statement = chosen.statement().clone();
    journal.say(&format!("[E-6] {:?} version {}", statement.name, statement.version));

    let (backend, own) = match own::command().map_err(at("E-3"))? {
        None => (load(journal, &chosen, &config)?, None),
        Some(command) => {
            let (child, address) = load_own(journal, &chosen, &config, &command)?;
            (Backend::Own(address), Some(child))
        }
    };
    nsm.measure_model(&statement.measurement()).map_err(at("E-9"))?;
    journal.say(&format!("[E-9] PCR16 {}…", hex(statement.pcr16().get(..8).unwrap_or_default())));

    let tls = TlsKey::generate().map_err(at("E-10"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| at("E-10")(e.to_string()))?;
    let said = journal.clone();
    let service = Service::new(config, statement, tls, backend, Box::new(nsm), Box::new(move |line| said.say(line)));
    if let Some(child) = own {
        end_with(journal.clone(), child);
    }
    runtime.block_on(async {
        let listener = Listener::bind().map_err(|e| at("E-10")(e.to_string()))?;
        journal.say("[E-10] ready");
        match service.run(listener).await {}
    })
}

/// The error with what helps.
fn told(error: &ReleaseError) -> String {
    format!("{error}; {}", error.hint())
}

/// E-5, as often as asking again can help.
fn request_key(
    journal: &Journal,
    keys: &Keys,
    cid: u32,
    clock: Arc<NsmClock>,
    sealed: &Sealed<'_, '_>,
    nsm: &mut Nsm,
) -> Result<ReleasedKey, ReleaseError> {
    let parent = |port| Arc::new(Parent { cid, port });
    let releaser = match keys {
        Keys::Broker(broker) => Releaser::Broker(Client::new(broker.clone(), parent(port::BROKER), clock)?),
        Keys::Kms(kms) => {
            Releaser::Kms(KmsClient::new(kms.clone(), parent(port::BROKER), parent(port::CREDENTIALS), clock)?)
        }
    };
    let mut asked = 0;
    loop {
        asked += 1;
        let rng = &mut UnwrapErr(SysRng);
        let answer = match &releaser {
            Releaser::Broker(client) => client.request_key(sealed.header(), nsm, rng),
            Releaser::Kms(client) => client.request_key(sealed.header(), nsm, rng),
        };
        let error = match answer {
            Err(error) if error.may_pass() && asked < ASKED => error,
            answer => return answer,
        };
        let wait_s = match &error {
            ReleaseError::Refused { wait_s, .. } => wait_s.unwrap_or(1).min(30),
            _ => 1 << asked,
        };
        journal.say(&format!("[E-5] asked {asked} of {ASKED} times: {error}; again in {wait_s} s"));
        std::thread::sleep(Duration::from_secs(wait_s));
    }
}

/// Who is asked.
enum Releaser {
    Broker(Client),
    Kms(KmsClient),
}

/// E-7 and E-8 for the image's own server.
fn load_own(
    journal: &Journal,
    chosen: &Chosen<'_>,
    config: &Config,
    command: &[String],
) -> Result<(Child, SocketAddr), String> {
    if config.model.golden.is_some() {
        return Err("[E-3] model.golden is for built-in engines; this image has a command of its own".into());
    }
    let (began, total) = (Instant::now(), chosen.sealed_len());
    stream(journal, total, |threads, progress| chosen.stream(&own::Folder::new(), threads, progress))?;
    let took = began.elapsed().as_secs_f64();
    journal.say(&format!("[E-7] opened {} MB to {} in {took:.2} s", total / 1_000_000, own::MODEL));
    let started = own::start(command, chosen.statement()).map_err(at("E-8"))?;
    journal.say(&format!("[E-8] {} listens", command.first().map_or("", String::as_str)));
    Ok(started)
}

/// Without its server an enclave has nothing to say.
fn end_with(journal: Journal, mut child: Child) {
    std::thread::spawn(move || {
        let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        journal.last(&format!("failed: the image's server ended: {status}"));
        machine::power_off();
    });
}

/// Runs a load with a line each tenth.
fn stream<T>(
    journal: &Journal,
    total: u64,
    load: impl FnOnce(usize, &(dyn Fn(u64) + Sync)) -> Result<T, ModelError>,
) -> Result<T, String> {
    // More than processors: while one waits for its bytes another opens what it has.
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let bytes = AtomicU64::new(0);
    let progress = |n: u64| {
        let before = bytes.fetch_add(n, Ordering::Relaxed);
        let tenth = |n: u64| n * 10 / total.max(1);
        if tenth(before) != tenth(before + n) {
            journal.say(&format!("[E-7] {} of {} MB", (before + n) / 1_000_000, total / 1_000_000));
        }
    };
    load(threads, &progress).map_err(|e| e.to_string())
}

/// E-7 and E-8 for the built-in engines.
fn load(journal: &Journal, chosen: &Chosen<'_>, config: &Config) -> Result<Backend, String> {
    let (began, total) = (Instant::now(), chosen.sealed_len());
    let weights = stream(journal, total, |threads, progress| chosen.load(threads, progress))?;
    let took = began.elapsed().as_secs_f64();
    let entries: u64 = chosen.manifest().entries.iter().map(|entry| entry.size).sum();
    let (tensors, files) = weights.finish();
    let golden = config.model.golden.as_ref().map(|path| {
        let file = files.iter().find(|(name, _)| name == path);
        file.map(|(_, file)| file.as_slice()).ok_or_else(|| format!("[E-8] the model has no {path}"))
    });
    let golden = golden.transpose()?;
    let (backend, right) = match config.serve.engine {
        config::Engine::Bert => {
            let bert = Bert::new(tensors, &files, config.serve.max_tokens).map_err(at("E-8"))?;
            let right = golden.map(|file| golden::run(&bert, file)).transpose().map_err(at("E-8"))?;
            (Backend::Engine(Arc::new(bert)), right.map(|(count, worst)| (count, f64::from(worst))))
        }
        config::Engine::Onnx => {
            let graph = Onnx::new(&files).map_err(at("E-8"))?;
            let right = golden.map(|file| golden::run_cases(&graph, file)).transpose().map_err(at("E-8"))?;
            (Backend::Infer(Arc::new(graph)), right)
        }
    };
    #[expect(clippy::cast_precision_loss)] // shown with one digit
    let megabytes = |n: u64| n as f64 / 1e6;
    journal.say(&format!(
        "[E-7] loaded {:.1} MB in {took:.2} s, {:.0} MB/s; peak memory {:.1} MB, of {:.1} MB allowed",
        megabytes(entries),
        megabytes(total) / took,
        megabytes(machine::peak_memory()),
        megabytes(entries) * 1.05 + 67.1,
    ));
    match right {
        None => journal.say("[E-8] no golden set"),
        Some((count, worst)) => {
            journal.say(&format!("[E-8] golden set: {count} right, largest difference {worst:.1e}"));
        }
    }
    Ok(backend)
}

/// The hypervisor's time at boot, carried on by the machine's counter.
#[derive(Debug)]
struct NsmClock {
    at_boot_s: u64,
    boot: Instant,
}

impl NsmClock {
    fn new(now_s: u64) -> Self {
        Self { at_boot_s: now_s, boot: Instant::now() }
    }
}

impl TimeProvider for NsmClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.at_boot_s) + self.boot.elapsed()))
    }
}
