//! A folder with models, a home of its own, and `mvault` run in it.

#![allow(dead_code)] // each test file uses its part

pub mod console;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Where a test works.
pub struct Workshop {
    folder: tempfile::TempDir,
}

/// What a command did.
pub struct Done {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", self.text(), self.stderr))
    }

    /// Succeeded, or the test fails with what it said.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.text(), self.stderr);
        self
    }

    /// Failed with this exit code and these words.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, code, "{}{}", self.text(), self.stderr);
        assert!(self.stderr.contains(words), "expected {words:?} in: {}", self.stderr);
        self
    }
}

impl Workshop {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shop = Self { folder };
        shop.write("model.pkl", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02K\x03e.");
        shop.write("evil.pkl", b"cposix\nsystem\n(S'true'\ntR.");
        shop.write("bert/config.json", b"{\"hidden_size\": 4}\n");
        shop.write("bert/model.safetensors", &safetensors());
        shop.write("build.json", build().as_bytes());
        shop.write("signed.eif", include_bytes!("../../../tests/vectors/eif/signed.eif"));
        shop
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// All names in the folder, hidden ones too.
    pub fn names(&self) -> Vec<String> {
        let items = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = items.map(|i| i.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A command in this folder, with a home in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let bin = PathBuf::from(env!("CARGO_BIN_EXE_mvault"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(bin.parent().unwrap().to_owned()).chain(std::env::split_paths(&path));
        command
            .current_dir(self.folder.path())
            .env("PATH", std::env::join_paths(paths).unwrap())
            .env("HOME", self.folder.path().join("home"))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell line.
    pub fn sh(&self, line: &str) -> Done {
        self.command("bash").args(["-c", line]).output().unwrap().into()
    }

    /// Runs `mvault` with arguments split at blanks.
    pub fn mvault(&self, args: &str) -> Done {
        self.command(env!("CARGO_BIN_EXE_mvault")).args(args.split_whitespace()).output().unwrap().into()
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What `nitro-cli build-enclave` prints.
fn build() -> String {
    let pcr = |n: u8| format!("\"PCR{n}\": \"{}\"", format!("c{n}").repeat(48));
    format!("{{\"Measurements\": {{\"HashAlgorithm\": \"Sha384 {{ ... }}\", {}, {}, {}}}}}\n", pcr(0), pcr(1), pcr(2))
}

/// One tensor `wte`, F32, 3 x 4.
pub fn safetensors() -> Vec<u8> {
    let header = br#"{"wte":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]}}     "#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend((0..48_u8).map(|i| i.wrapping_mul(5)));
    file
}

/// Numbers that do not compress and are not a model.
pub fn noise(len: usize) -> Vec<u8> {
    let mut x = 88_172_645_463_325_252_u64;
    let mut bytes: Vec<u8> = (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()[3]
        })
        .collect();
    if let Some(first) = bytes.first_mut() {
        *first = 0xF7;
    }
    bytes
}
