//! Who is measured, and the commands each one seals and opens with.
//!
//! Keys are made for this run in its temporary folder and thrown away with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::machine;
use crate::measure::{Runner, Step};

/// The three things that are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Plaintext file to sealed file.
    Seal,
    /// Sealed file to plaintext file.
    Open,
    /// Sealed file to memory: decrypted and checked, nothing written.
    Memory,
}

/// What is sealed: a file or a folder.
pub struct Input {
    /// Its path.
    pub path: PathBuf,
    /// Bytes of plaintext in it.
    pub bytes: u64,
    /// Whether it is a folder, which only mvault and cp take as it is: the others get a tar stream.
    pub folder: bool,
}

/// Where a contender's results go; removed and made again for every run.
pub struct Scratch {
    /// The sealed file.
    pub sealed: PathBuf,
    /// A folder for what is opened.
    pub opened: PathBuf,
}

/// Someone who seals and opens.
pub struct Contender(Kind);

/// The name of a row, and who is measured in it or why nobody is.
pub type Entry = (&'static str, Result<Contender, String>);

enum Kind {
    Mvault { program: PathBuf, seal: Vec<String>, open: Vec<String> },
    Age { program: PathBuf, recipient: String, identity: PathBuf },
    OpenSsl { key: PathBuf, mac: String },
    Gpg { key: PathBuf },
    Copy,
    Read,
    Write,
}

impl Contender {
    /// Whether what it opens is what it sealed; a limit that only writes has nothing of the sort.
    pub fn round_trips(&self) -> bool {
        !matches!(self.0, Kind::Write)
    }

    /// What this contender runs for a task; none where it does not do that.
    pub fn step(&self, task: Task, input: &Input, at: &Scratch) -> Option<Step> {
        let opened = at.opened.join(input.path.file_name()?);
        match &self.0 {
            Kind::Mvault { program, seal, open } => Some(mvault(program, seal, open, task, input, at, &opened)),
            Kind::Age { program, recipient, identity } => {
                Some(age(program, recipient, identity, task, input, at, &opened))
            }
            Kind::OpenSsl { key, mac } => Some(openssl(key, mac, task, input, at, &opened)),
            Kind::Gpg { key } => Some(gpg(key, task, input, at, &opened)),
            Kind::Copy => match task {
                Task::Seal => Some(Step::program("cp").args(["-r"]).args([&input.path, &at.sealed])),
                Task::Open => Some(Step::program("cp").args(["-r"]).args([&at.sealed, &opened])),
                Task::Memory => None,
            },
            Kind::Read if task == Task::Memory && !input.folder => Some(Step::program("cat").args([&input.path])),
            Kind::Read => None,
            Kind::Write if task == Task::Memory || input.folder => None,
            Kind::Write => {
                let to = if task == Task::Seal { &at.sealed } else { &opened };
                let program = std::env::current_exe().ok()?;
                Some(Step::program(&program).args([crate::limit::FLAG]).args([to]).args([input.bytes.to_string()]))
            }
        }
    }
}

/// Everyone, with keys made; who is missing comes with the reason.
pub fn all(runner: &Runner, mvault: &Path, rage: &Path) -> Vec<Entry> {
    let keys = runner.dir.join("keys");
    let made = fs::create_dir_all(&keys)
        .and_then(|()| fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)))
        .map_err(|e| e.to_string());
    let age = made.and_then(|()| age_key(runner, &keys));
    let flag = |text: &str| vec![text.to_owned()];
    let signer = keys.join("sign.pem.pub").to_string_lossy().into_owned();
    let signing = keys.join("sign.pem").to_string_lossy().into_owned();
    let sign_key = Step::program(mvault).args(["keygen", "--signing", "-o", &signing]);
    let mvault_with = |seal: Vec<String>, open: Vec<String>| {
        let (recipient, identity) = mvault_key(runner, mvault, &keys)?;
        let seal = [vec!["-r".to_owned(), recipient], seal].concat();
        let open = [vec!["-i".to_owned(), identity], open].concat();
        Ok(Kind::Mvault { program: mvault.to_owned(), seal, open })
    };
    let age_with = |program: &Path| {
        let (recipient, identity) = age.clone()?;
        runner.run(&Step::program(program).args(["--version"]))?;
        Ok(Kind::Age { program: program.to_owned(), recipient, identity })
    };
    let rows = [
        (MVAULT, mvault_with(vec![], vec![])),
        (
            "mvault, signed and checked",
            runner.run(&sign_key).and_then(|_| {
                mvault_with(vec!["--sign".to_owned(), signing.clone()], vec!["--signer".to_owned(), signer.clone()])
            }),
        ),
        ("mvault --sha256", mvault_with(flag("--sha256"), vec![])),
        (COPY, Ok(Kind::Copy)),
        (WRITE, Ok(Kind::Write)),
        (READ, Ok(Kind::Read)),
        (AGE, age_with(Path::new("age"))),
        ("rage", age_with(rage)),
        ("openssl aes-256-ctr + HMAC", openssl_key(runner, &keys)),
        ("gpg --symmetric", gpg_key(runner, &keys)),
    ];
    rows.into_iter().map(|(name, kind)| (name, kind.map(Contender))).collect()
}

/// The machine and everyone's versions.
pub fn describe(runner: &Runner, mvault: &Path, rage: &Path) -> String {
    let programs = [
        ("mvault", mvault, "--version"),
        ("age", Path::new("age"), "--version"),
        ("rage", rage, "--version"),
        ("openssl", Path::new("openssl"), "version"),
        ("gpg", Path::new("gpg"), "--version"),
        ("cp", Path::new("cp"), "--version"),
    ];
    machine::describe(runner, &programs)
}

/// The row that every other one is compared with.
pub const MVAULT: &str = "mvault";
/// The limit of writing a file.
pub const COPY: &str = "cp (limit)";
/// The limit of writing a file, with nothing to read and nothing to compute.
pub const WRITE: &str = "all cores writing one file (limit)";
/// The limit of reading a file.
pub const READ: &str = "cat >/dev/null (limit)";
/// The peer that the targets name.
pub const AGE: &str = "age";

/// What `mvault bench --json` says of the engine it would use here: GiB/s on all cores.
pub struct Engine {
    /// Sealing the same chunk, in cache.
    pub seal: f64,
    /// Opening the same chunk, in cache.
    pub open: f64,
    /// Opening a buffer far larger than the caches.
    pub open_memory: f64,
}

/// Asks for it.
pub fn engine(runner: &Runner, mvault: &Path) -> Result<Engine, String> {
    let text = runner.output(&Step::program(mvault).args(["bench", "--json"]))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("mvault bench --json: {e}"))?;
    let chosen = value.get("chosen").and_then(|name| name.as_str()).unwrap_or_default();
    let engines = value.get("engines").and_then(|list| list.as_array()).cloned().unwrap_or_default();
    let engine = engines.iter().find(|engine| engine.get("name").and_then(|name| name.as_str()) == Some(chosen));
    let rate =
        |key: &str| engine.and_then(|e| e.get(key)?.as_f64()).ok_or_else(|| format!("mvault bench --json: no {key}"));
    Ok(Engine {
        seal: rate("seal_all_cores_gib_s")?,
        open: rate("all_cores_gib_s")?,
        open_memory: rate("open_memory_all_cores_gib_s")?,
    })
}

fn mvault(
    program: &Path,
    seal: &[String],
    open: &[String],
    task: Task,
    input: &Input,
    at: &Scratch,
    opened: &Path,
) -> Step {
    let step = Step::program(program);
    // A file goes into the folder that -o names, a folder becomes it.
    let target = if input.folder { opened } else { &at.opened };
    match task {
        Task::Seal => step.args(["seal"]).args([&input.path]).args(seal).args(["-o"]).args([&at.sealed]),
        Task::Open => step.args(["open"]).args([&at.sealed]).args(open).args(["-o"]).args([target]),
        Task::Memory => step.args(["verify"]).args([&at.sealed]).args(open),
    }
}

fn mvault_key(runner: &Runner, program: &Path, keys: &Path) -> Result<(String, String), String> {
    let identity = keys.join("mvault.txt");
    let recipient = keys.join("mvault.recipient");
    if !identity.exists() {
        let text = runner.output(&Step::program(program).args(["keygen", "-o"]).args([&identity]))?;
        let line =
            text.lines().rev().find(|line| !line.trim().is_empty()).ok_or("mvault keygen printed no recipient")?;
        fs::write(&recipient, line.trim()).map_err(|e| e.to_string())?;
    }
    let recipient = fs::read_to_string(&recipient).map_err(|e| e.to_string())?;
    Ok((recipient, identity.to_string_lossy().into_owned()))
}

/// age and rage share their key files.
fn age_key(runner: &Runner, keys: &Path) -> Result<(String, PathBuf), String> {
    let identity = keys.join("age.txt");
    runner.run(&Step::program("age-keygen").args(["-o"]).args([&identity]))?;
    let recipient = runner.output(&Step::program("age-keygen").args(["-y"]).args([&identity]))?;
    Ok((recipient.trim().to_owned(), identity))
}

fn age(
    program: &Path,
    recipient: &str,
    identity: &Path,
    task: Task,
    input: &Input,
    at: &Scratch,
    opened: &Path,
) -> Step {
    match (task, input.folder) {
        (Task::Seal, false) => Step::program(program).args(["-r", recipient, "-o"]).args([&at.sealed, &input.path]),
        (Task::Seal, true) => Step::bash(r#"tar -c -C "$1" . | "$2" -r "$3" -o "$4""#)
            .args([&input.path])
            .args([program])
            .args([recipient])
            .args([&at.sealed]),
        (Task::Open, false) => {
            Step::program(program).args(["-d", "-i"]).args([identity, Path::new("-o"), opened, &at.sealed])
        }
        (Task::Open, true) => Step::bash(r#"mkdir "$4" && "$1" -d -i "$2" "$3" | tar -x -C "$4""#)
            .args([program, identity, &at.sealed, opened]),
        (Task::Memory, _) => Step::program(program).args(["-d", "-i"]).args([identity, &at.sealed]),
    }
}

/// OpenSSL's command line has no authenticated file encryption for streams, so: encrypt, then HMAC over the
/// ciphertext, both in one pass. OpenSSL 3.0 takes the MAC key in argv only, which nobody should do with a real key.
fn openssl(key: &Path, mac: &str, task: Task, input: &Input, at: &Scratch, opened: &Path) -> Step {
    const ENC: &str = r#"openssl enc -aes-256-ctr -pbkdf2 -kfile "$1""#;
    const MAC: &str = r#"openssl dgst -sha256 -mac HMAC -macopt "hexkey:$2""#;
    // The opened file gets its name only when the MAC is right, as with the others.
    let check = format!(
        r#"mkfifo "$3.pipe"; {MAC} <"$3.pipe" >"$3.seen" & dgst=$!
        <"$3" tee "$3.pipe" | {ENC} -d"#
    );
    let compare = r#"; wait "$dgst"; rm "$3.pipe"; cmp -s "$3.mac" "$3.seen""#;
    let script = match (task, input.folder) {
        (Task::Seal, false) => format!(r#"{ENC} -in "$4" | tee "$3" | {MAC} >"$3.mac""#),
        (Task::Seal, true) => format!(r#"tar -c -C "$4" . | {ENC} | tee "$3" | {MAC} >"$3.mac""#),
        (Task::Open, false) => format!(r#"{check} >"$4.new"{compare} && mv "$4.new" "$4""#),
        (Task::Open, true) => format!(r#"mkdir "$4.new"; {check} | tar -x -C "$4.new"{compare} && mv "$4.new" "$4""#),
        (Task::Memory, _) => format!("{check} >/dev/null{compare}"),
    };
    let last = if task == Task::Seal { &input.path } else { opened };
    Step::bash(&script).args([key]).args([mac]).args([&at.sealed, last])
}

fn openssl_key(runner: &Runner, keys: &Path) -> Result<Kind, String> {
    let key = keys.join("openssl.txt");
    runner.run(&Step::program("openssl").args(["rand", "-hex", "-out"]).args([&key]).args(["32"]))?;
    let mac = runner.output(&Step::program("openssl").args(["rand", "-hex", "32"]))?.trim().to_owned();
    Ok(Kind::OpenSsl { key, mac })
}

fn gpg(key: &Path, task: Task, input: &Input, at: &Scratch, opened: &Path) -> Step {
    const GPG: &str = r#"gpg --batch --yes --quiet --pinentry-mode loopback --passphrase-file "$1""#;
    const SEAL: &str = "--symmetric --cipher-algo AES256 --compress-algo none";
    let script = match (task, input.folder) {
        (Task::Seal, false) => format!(r#"exec {GPG} -o "$2" {SEAL} "$3""#),
        (Task::Seal, true) => format!(r#"tar -c -C "$3" . | {GPG} -o "$2" {SEAL}"#),
        (Task::Open, false) => format!(r#"exec {GPG} -o "$3" --decrypt "$2""#),
        (Task::Open, true) => format!(r#"mkdir "$3" && {GPG} --decrypt "$2" | tar -x -C "$3""#),
        (Task::Memory, _) => format!(r#"exec {GPG} --decrypt "$2""#),
    };
    let last = if task == Task::Seal { &input.path } else { opened };
    Step::bash(&script).args([key, &at.sealed, last])
}

fn gpg_key(runner: &Runner, keys: &Path) -> Result<Kind, String> {
    let key = keys.join("gpg.txt");
    runner.run(&Step::program("openssl").args(["rand", "-hex", "-out"]).args([&key]).args(["32"]))?;
    runner.run(&Step::program("gpg").args(["--version"]))?;
    Ok(Kind::Gpg { key })
}
