//! Who moves the model, and the commands each one does it with.

use std::fs;
use std::path::{Path, PathBuf};

use super::servers::{BUCKET, sdk_loop};
use super::{Kind, Options};
use crate::machine;
use crate::measure::{Runner, Step};

/// The row that every other one is compared with.
pub const MVAULT: &str = "mvault push, pull";
/// A plain loop over aws-sdk-s3, as PARTS.md measures it.
pub const LOOP: &str = "aws-sdk-s3 loop, 8 x 16 MiB";
/// The same, smaller: cheaper for the client.
pub const SMALL_LOOP: &str = "aws-sdk-s3 loop, 4 x 8 MiB";
/// Who moves the bytes as they are: targets compare with the fastest of them.
pub const RAW: [&str; 5] = [LOOP, SMALL_LOOP, "s5cmd", "aws s3 cp, classic", "aws s3 cp, CRT"];

/// How one contender puts and gets.
pub struct Contender {
    /// Run before a put, not measured.
    pub prepare: Option<Step>,
    /// File to server.
    pub put: Step,
    /// Server to a file below the output folder.
    pub get: Step,
    /// Another way to get, with a row of its own, and what makes the plaintext of its result.
    pub other_get: Option<(&'static str, Step, Step)>,
}

/// The name of a row, and who is measured in it or why nobody is.
pub type Entry = (&'static str, Result<Contender, String>);

/// Everything that a command line needs.
pub struct Place<'a> {
    /// For keys and configuration.
    pub runner: &'a Runner,
    /// Programs.
    pub options: &'a Options,
    /// The server.
    pub url: &'a str,
    /// The plaintext.
    pub source: &'a Path,
    /// Prefix of what is put.
    pub put: &'a str,
    /// Prefix of what is got.
    pub get: &'a str,
    /// The folder for what is got.
    pub out: &'a Path,
}

/// Everyone who takes part on this kind of server.
pub fn all(place: &Place, kind: Kind) -> Vec<Entry> {
    let mut entries = vec![
        (MVAULT, place.mvault()),
        (LOOP, place.sdk_loop("8", "16")),
        (SMALL_LOOP, place.sdk_loop("4", "8")),
        ("s5cmd", place.s5cmd()),
    ];
    if kind == Kind::Real {
        entries.extend([
            ("aws s3 cp, classic", place.aws("default")),
            ("aws s3 cp, CRT", place.aws("crt")),
            ("rclone crypt", place.rclone()),
            ("restic", place.restic()),
            ("age | aws s3 cp -", place.age()),
        ]);
    }
    entries
}

/// The row of a pull that leaves the model sealed.
pub const SEALED: &str = "mvault pull --sealed";

/// Debian's, whatever stands before it in PATH.
const AWS: &str = "/usr/bin/aws";
const AGE_PUT: &str =
    r#"export AWS_CONFIG_FILE=$1; age -r "$2" "$3" | "$4" --endpoint-url "$5" s3 cp --only-show-errors - "$6""#;
const AGE_GET: &str = r#"export AWS_CONFIG_FILE=$1
    "$4" --endpoint-url "$5" s3 cp --only-show-errors "$6" - | age -d -i "$2" -o "$3""#;

impl Place<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.runner.dir.join(name)
    }

    fn result(&self) -> PathBuf {
        self.out.join("result.bin")
    }

    fn mvault(&self) -> Result<Contender, String> {
        let mvault = || Step::program(&self.options.mvault);
        let key = self.path("mvault.txt");
        let line = self.path("mvault.recipient");
        if !key.exists() {
            let text = self.runner.output(&mvault().args(["keygen", "-o"]).args([&key]))?;
            let recipient = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
            fs::write(&line, recipient).map_err(|e| e.to_string())?;
        }
        self.runner.run(&mvault().args(["push", "--help"])).map_err(|_| "mvault has no push here".to_owned())?;
        let recipient = fs::read_to_string(&line).map_err(|e| e.to_string())?;
        let vault = |prefix: &str| format!("s3://{BUCKET}/{prefix}");
        let at = |step: Step| step.args(["--endpoint-url", self.url]);
        let pull = || mvault().args(["pull", &vault(self.get), "model"]);
        let sealed = self.out.join("model.mvault");
        Ok(Contender {
            prepare: None,
            put: at(mvault().args(["push"]).args([self.source]).args([&vault(self.put), "model", "-r", &recipient])),
            get: at(pull().args(["-i"]).args([&key]).args(["-o"]).args([self.out])),
            other_get: Some((
                SEALED,
                at(pull().args(["--sealed", "-o"]).args([&sealed])),
                Step::bash(r#""$1" open "$2" -i "$3" -o "$4" && rm "$2""#)
                    .args([&self.options.mvault, &sealed, &key])
                    .args([self.out]),
            )),
        })
    }

    fn sdk_loop(&self, workers: &str, part: &str) -> Result<Contender, String> {
        let name = format!("loop{workers}");
        let key = |prefix: &str| format!("{prefix}/{name}");
        let at = |step: Step| step.args(["--endpoint-url", self.url, "--workers", workers, "--part", part]);
        let put = sdk_loop()?.args(["put"]).args([self.source]).args([BUCKET, &key(self.put)]);
        let get = sdk_loop()?.args(["get", BUCKET, &key(self.get)]).args([self.result()]);
        Ok(Contender { prepare: None, put: at(put), get: at(get), other_get: None })
    }

    fn s5cmd(&self) -> Result<Contender, String> {
        let program = self.options.peers.join("s5cmd");
        self.runner.run(&Step::program(&program).args(["version"]))?;
        let copy = || Step::program(&program).args(["--endpoint-url", self.url, "cp", "-c", "8", "-p", "16"]);
        let put = copy().args([self.source]).args([object(self.put, "s5cmd")]);
        let get = copy().args([object(self.get, "s5cmd")]).args([self.result()]);
        Ok(Contender { prepare: None, put, get, other_get: None })
    }

    /// `aws s3 cp` with its own engine ("default") or with the CRT's.
    fn aws(&self, engine: &str) -> Result<Contender, String> {
        let config = self.aws_config(engine)?;
        let copy = || {
            let setting = format!("AWS_CONFIG_FILE={}", config.display());
            Step::program("env").args([&setting, AWS, "--endpoint-url", self.url, "s3", "cp", "--only-show-errors"])
        };
        let put = copy().args([self.source]).args([object(self.put, engine)]);
        let get = copy().args([object(self.get, engine)]).args([self.result()]);
        Ok(Contender { prepare: None, put, get, other_get: None })
    }

    fn aws_config(&self, engine: &str) -> Result<PathBuf, String> {
        self.runner.run(&Step::program(AWS).args(["--version"]))?;
        let config = self.path(&format!("aws-{engine}.cfg"));
        let text = format!(
            "[default]\nregion = us-east-1\ns3 =\n  preferred_transfer_client = {engine}\n  \
             max_concurrent_requests = 8\n  multipart_chunksize = 16MB\n  addressing_style = path\n"
        );
        fs::write(&config, text).map_err(|e| e.to_string())?;
        Ok(config)
    }

    fn rclone(&self) -> Result<Contender, String> {
        let program = self.options.peers.join("rclone");
        let obscured = self.runner.output(&Step::program(&program).args(["obscure", "bench"]))?;
        let config = self.path("rclone.conf");
        let text = format!(
            "[s]\ntype = s3\nprovider = SeaweedFS\nenv_auth = true\nendpoint = {}\n\
             [c]\ntype = crypt\nremote = s:{BUCKET}/{}/rclone\nfilename_encryption = off\n\
             directory_name_encryption = false\npassword = {}\n",
            self.url,
            self.put,
            obscured.trim()
        );
        fs::write(&config, text).map_err(|e| e.to_string())?;
        let run = |options: &[&str]| {
            Step::program(&program).args(["--config"]).args([&config]).args(options).args(["copyto"])
        };
        let put = run(&["--s3-upload-concurrency", "8", "--s3-chunk-size", "16M", "--ignore-times"]);
        let get = run(&["--multi-thread-streams", "8", "--multi-thread-chunk-size", "16M"]);
        Ok(Contender {
            prepare: None,
            put: put.args([self.source]).args(["c:model"]),
            get: get.args(["c:model"]).args([self.result()]),
            other_get: None,
        })
    }

    fn restic(&self) -> Result<Contender, String> {
        self.runner.run(&Step::program("restic").args(["version"]))?;
        let password = self.path("restic.password");
        fs::write(&password, "bench\n").map_err(|e| e.to_string())?;
        let repository = format!("s3:{}/{BUCKET}/{}/restic", self.url, self.put);
        let run = || {
            let step = Step::program("restic").args(["-r", &repository, "--no-cache", "-q", "-o", "s3.connections=8"]);
            step.args(["-p"]).args([&password])
        };
        Ok(Contender {
            prepare: Some(run().args(["init"])),
            put: run().args(["backup"]).args([self.source]),
            get: run().args(["restore", "latest", "--target"]).args([self.out]),
            other_get: None,
        })
    }

    fn age(&self) -> Result<Contender, String> {
        let config = self.aws_config("default")?;
        let identity = self.path("age.txt");
        if !identity.exists() {
            self.runner.run(&Step::program("age-keygen").args(["-o"]).args([&identity]))?;
        }
        let recipient = self.runner.output(&Step::program("age-keygen").args(["-y"]).args([&identity]))?;
        let put = Step::bash(AGE_PUT).args([&config]).args([recipient.trim()]).args([self.source]);
        let get = Step::bash(AGE_GET).args([&config, &identity, &self.result()]);
        Ok(Contender {
            prepare: None,
            put: put.args([AWS, self.url]).args([object(self.put, "age")]),
            get: get.args([AWS, self.url]).args([object(self.get, "age")]),
            other_get: None,
        })
    }
}

fn object(prefix: &str, name: &str) -> String {
    format!("s3://{BUCKET}/{prefix}/{name}")
}

/// The machine and everyone's versions.
pub fn describe(runner: &Runner, options: &Options) -> String {
    let peers = |name: &str| options.peers.join(name);
    let programs = [
        ("mvault", options.mvault.clone(), "--version"),
        ("SeaweedFS", options.weed.clone(), "version"),
        ("s5cmd", peers("s5cmd"), "version"),
        ("awscli", AWS.into(), "--version"),
        ("rclone", peers("rclone"), "version"),
        ("restic", "restic".into(), "version"),
        ("age", "age".into(), "--version"),
    ];
    let programs: Vec<_> = programs.iter().map(|(name, path, arg)| (*name, path.as_path(), *arg)).collect();
    machine::describe(runner, &programs)
}
