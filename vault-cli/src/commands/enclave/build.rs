//! `mvault enclave build`: kernel, init, configuration and application in, a measured image out, the same bytes for the same
//! input.

use super::ramdisk::{Ramdisk, read_member, read_named};
use super::{contents, lines, measurements, tool};
use crate::error::{CliError, io};
use crate::files::{exists, folder_of, place};
use crate::output::{Output, size};
use crate::process::{keep_on_interrupt, remove_on_interrupt};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use vault_attest::Pcr;
use vault_attest::eif::Image;
use vault_core::header::hex;

/// What boots on Nitro and in QEMU alike: end at a panic, look for no hardware, load no modules.
const CMDLINE: &str = "reboot=k panic=30 pci=off nomodules console=ttyS0 random.trust_cpu=on";
/// Longest command line: x86-64 takes 2048 bytes, and who boots the image adds to it.
const MAX_CMDLINE: usize = 1024;

/// Build an enclave image, and print what it measures
///
/// PCR0 covers everything; PCR1 kernel, command line and init; PCR2 configuration and application. The image
/// holds no shell, no package manager, no model and no secret: what looks like one is refused. The same input gives the
/// same bytes, wherever and whenever it is built; a signature's bytes differ, and are not measured.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault enclave build --kernel bzImage --config enclave.toml -o model.eif
  mvault enclave build --kernel bzImage --config enclave.toml --add app --cmd '/app/server --port 8080' -o model.eif
  mvault enclave build --kernel bzImage --config enclave.toml --sign-key k.pem --sign-cert c.pem -o model.eif --json")]
pub struct Args {
    /// The kernel, a bzImage with the NSM's and vsock's drivers built in
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The static program that becomes /init [default: mvault-init, beside mvault or in PATH]
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// The measured configuration, /etc/mvault/enclave.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A folder that becomes /app
    #[arg(long, value_name = "DIR")]
    add: Option<PathBuf>,
    /// The image's own server, a program of /app, and its arguments, split at blanks
    #[arg(long, value_name = "PROGRAM ARGUMENTS", requires = "add")]
    cmd: Option<String>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = CMDLINE)]
    cmdline: String,
    /// Sign PCR0 with this P-384 key (PEM); the certificate is then measured into PCR8
    #[arg(long, value_name = "FILE", requires = "sign_cert")]
    sign_key: Option<PathBuf>,
    /// The key's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    sign_cert: Option<PathBuf>,
    /// The build time in the image's metadata, in seconds since 1970; not measured
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    build_time: u32,
    /// The program that writes image files [default: mvault-eif, beside mvault, in PATH or built by scripts/setup.sh]
    #[arg(long, value_name = "FILE")]
    eif_tool: Option<PathBuf>,
    /// The image
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace a file of that name
    #[arg(short, long)]
    force: bool,
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    if !args.force && args.output.symlink_metadata().is_ok() {
        return Err(exists(&args.output));
    }
    let [boot, app] = [boot(args)?, app(args)?];
    let tool = tool::find(args.eif_tool.as_deref(), "mvault-eif", tool::built()).ok_or_else(|| {
        CliError::failed("mvault-eif, which writes image files, is not there")
            .hint("`scripts/setup.sh eif` builds it, once; --eif-tool FILE takes another")
    })?;
    check_kernel(args, out)?;
    let folder = tempfile::Builder::new().prefix(".mvault-image-").tempdir_in(folder_of(&args.output));
    let folder = folder.map_err(io(args.output.display()))?;
    remove_on_interrupt(folder.path().to_owned());
    let built = write(args, &tool, [&boot, &app], folder.path());
    keep_on_interrupt(folder.path());
    let (image, len) = built?;
    report(args, &image, len, out)
}

/// The first ramdisk: /init and where it mounts things.
fn boot(args: &Args) -> Result<Ramdisk, CliError> {
    let path = tool::find(args.init.as_deref(), "mvault-init", None).ok_or_else(|| {
        CliError::failed("mvault-init, which becomes /init, is not there")
            .hint("`scripts/guest.sh` builds it; --init FILE takes another")
    })?;
    let init = read_named(&path)?;
    if let Some(why) = contents::not_static(&init) {
        return Err(CliError::failed(format!("{}: {why}", path.display()))
            .hint("/init is all there is in the image: a static program, as `scripts/guest.sh` builds it"));
    }
    contents::no_secret(&path.display().to_string(), &init)?;
    let mut ramdisk = Ramdisk::default();
    for name in ["dev", "proc", "run", "sys", "tmp"] {
        ramdisk.folder(name);
    }
    ramdisk.program("init", init);
    Ok(ramdisk)
}

/// The second ramdisk: configuration and application.
fn app(args: &Args) -> Result<Ramdisk, CliError> {
    let mut ramdisk = Ramdisk::default();
    ramdisk.folder("etc");
    ramdisk.folder("etc/mvault");
    if let Some(path) = &args.config {
        let config = read_named(path)?;
        contents::no_secret(&path.display().to_string(), &config)?;
        super::config::check(&config, path)?; // or it would not get past E-3
        ramdisk.data("etc/mvault/enclave.toml", config);
    }
    if let Some(folder) = &args.add {
        ramdisk.tree("app", folder)?;
    }
    if let Some(command) = &args.cmd {
        ramdisk.data("etc/mvault/command.toml", command_file(command, &ramdisk)?.into_bytes());
    }
    Ok(ramdisk)
}

/// `command = ["/app/server", …]`, of a program that is there and can start.
fn command_file(text: &str, ramdisk: &Ramdisk) -> Result<String, CliError> {
    let wrong = |what: String| CliError::usage(format!("--cmd: {what}"));
    if let Some(c) = text.chars().find(|c| "'\"\\`$|&;<>*".contains(*c) || c.is_control()) {
        return Err(wrong(format!("{c:?} means nothing here"))
            .hint("no shell reads it: words are split at blanks, and that is all"));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let program = words.first().copied().unwrap_or_default();
    let path = program.strip_prefix("/app/").map(|name| format!("app/{name}"));
    let file = path.as_deref().and_then(|path| ramdisk.program_at(path));
    let Some(file) = file else {
        return Err(wrong(format!("no program /app/… of --add: {program:?}"))
            .hint("give its path in the image, such as /app/server; the file must be executable"));
    };
    let loader = contents::Program::read(&read_member(file)?).and_then(|program| program.loader);
    if let Some(loader) = loader.filter(|loader| !ramdisk.has(loader.trim_start_matches('/'))) {
        return Err(CliError::failed(format!("{program}: it needs the loader {loader}, which is not in the image"))
            .hint("link it statically: an image has no system libraries"));
    }
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    Ok(format!("command = [{}]\n", words.join(", ")))
}

fn check_kernel(args: &Args, out: &Output) -> Result<(), CliError> {
    let plain = args.cmdline.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if !plain || args.cmdline.len() > MAX_CMDLINE {
        return Err(CliError::usage(format!("--cmdline: expected up to {MAX_CMDLINE} bytes of plain ASCII")));
    }
    let kernel = File::open(&args.kernel).map_err(io(args.kernel.display()))?;
    let mut magic = [0; 4];
    let found = std::os::unix::fs::FileExt::read_exact_at(&kernel, &mut magic, 0x202);
    if found.is_err() || magic != *b"HdrS" {
        out.note(&format!("{}: no bzImage; nothing says that it boots", args.kernel.display()));
    }
    Ok(())
}

/// Builds the image in a folder of its own, reads it back, and gives it its name.
fn write(args: &Args, tool: &Path, ramdisks: [&Ramdisk; 2], folder: &Path) -> Result<(Image, u64), CliError> {
    let paths = ["boot.gz", "app.gz"].map(|name| folder.join(name));
    ramdisks.iter().zip(&paths).try_for_each(|(ramdisk, path)| ramdisk.write(path))?;
    let building = folder.join("image.eif");
    let mut arguments: Vec<(&str, OsString)> = vec![
        ("--kernel", args.kernel.clone().into()),
        ("--cmdline", args.cmdline.clone().into()),
        ("--build-time", args.build_time.to_string().into()),
        ("--output", building.clone().into()),
    ];
    arguments.extend(paths.iter().map(|path| ("--ramdisk", path.clone().into())));
    arguments.extend(args.sign_key.iter().map(|path| ("--sign-key", path.clone().into())));
    arguments.extend(args.sign_cert.iter().map(|path| ("--sign-cert", path.clone().into())));
    let stated = tool::run(tool, &arguments)?;
    let (image, len) = super::measure::read(&building)?;
    compare(&stated, image.pcrs())?;
    place(&building, &args.output, args.force)?;
    Ok((image, len))
}

/// Two implementations, one result.
fn compare(stated: &BTreeMap<u8, Pcr>, read: &BTreeMap<u8, Pcr>) -> Result<(), CliError> {
    if stated == read {
        return Ok(());
    }
    let index = (0..=8).find(|index| stated.get(index) != read.get(index)).unwrap_or_default();
    let shown = |pcrs: &BTreeMap<u8, Pcr>| pcrs.get(&index).map_or("nothing".into(), |pcr| hex(pcr));
    let (stated, read) = (shown(stated), shown(read));
    Err(CliError::not_authentic(format!("PCR{index}: mvault-eif printed {stated}, its file measures {read}"))
        .hint("nothing was written; is --eif-tool the one that scripts/setup.sh builds?"))
}

fn report(args: &Args, image: &Image, len: u64, out: &mut Output) -> Result<(), CliError> {
    if args.config.is_none() {
        out.note("no --config: what boots has nothing to take a model from");
    }
    let shown = args.output.display().to_string();
    let json = json!({ "ok": true, "file": shown, "bytes": len, "Measurements": measurements(image) });
    let text = format!("{shown}: enclave image, {}\n{}", size(len), lines(image));
    out.result(&json, &text)
}
