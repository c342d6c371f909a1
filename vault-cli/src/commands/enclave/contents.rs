//! What may not go into an image: secrets, models, shells and package managers, programs that could not start. An image
//! is published with its measurements; whoever has it reads all of it.

use crate::error::{CliError, io};
use vault_core::header::MAGIC;
use vault_core::recipient::keyfile::{PROTECTED_PREFIX, SECRET_PREFIX, parse_identities};
use vault_core::scan::{Format, Plain, scan};

/// Largest file that may look like a model, such as a table of the tokenizer's.
const SMALL: usize = 1024 * 1024;
/// Names that models go by.
const MODELS: [&str; 12] =
    [".safetensors", ".gguf", ".onnx", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npz", ".h5", ".keras"];
/// Programs that turn a hole in the server into a way to run anything.
const SHELLS: [&str; 12] =
    ["sh", "bash", "dash", "ash", "zsh", "ksh", "csh", "tcsh", "fish", "rbash", "busybox", "toybox"];
const PACKAGE_MANAGERS: [&str; 14] = [
    "apt", "apt-get", "aptitude", "dpkg", "rpm", "yum", "dnf", "zypper", "apk", "pacman", "snap", "pip", "pip3",
    "conda",
];

/// Refuses what an image must not hold; `shown` names the file to the user.
pub fn check(shown: &str, name: &str, bytes: &[u8]) -> Result<(), CliError> {
    let base = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    if SHELLS.contains(&base.as_str()) {
        return Err(
            CliError::failed(format!("{shown}: a shell")).hint("no shell goes into an image: leave it out of --add")
        );
    }
    if PACKAGE_MANAGERS.contains(&base.as_str()) {
        return Err(CliError::failed(format!("{shown}: a package manager"))
            .hint("no package manager goes into an image: install before, and leave it out of --add"));
    }
    no_secret(shown, bytes)?;
    no_model(shown, &base, bytes)
}

/// Private keys, by their content.
pub fn no_secret(shown: &str, bytes: &[u8]) -> Result<(), CliError> {
    let what = if has_private_pem(bytes) {
        "a private key"
    } else if has_mvault_secret(bytes) {
        "an mvault key file"
    } else {
        return Ok(());
    };
    Err(CliError::failed(format!("{shown}: {what}"))
        .hint("an image carries no secret, as everyone can read it: keys come to the enclave by attestation"))
}

fn no_model(shown: &str, base: &str, bytes: &[u8]) -> Result<(), CliError> {
    let sealed = bytes.starts_with(&MAGIC) || base.ends_with(".mvault");
    let named = MODELS.iter().any(|end| base.ends_with(end));
    let large = bytes.len() > SMALL;
    if sealed || (large && (named || is_model(base, bytes)?)) {
        let what = if sealed { "a sealed model" } else { "a model" };
        return Err(CliError::failed(format!("{shown}: {what}"))
            .hint("an image carries no model: seal it, and the enclave fetches and opens it when it runs"));
    }
    Ok(())
}

fn is_model(base: &str, bytes: &[u8]) -> Result<bool, CliError> {
    let report = scan(base, &mut Plain(bytes)).map_err(io(base))?;
    Ok(!matches!(report.format, Format::Zip | Format::Compressed | Format::Archive | Format::Other))
}

/// `-----BEGIN … PRIVATE KEY-----` with something of a key behind it: programs hold the line alone.
fn has_private_pem(bytes: &[u8]) -> bool {
    const END: &[u8] = b"PRIVATE KEY-----";
    positions(bytes, END).any(|at| {
        let before = bytes.get(at.saturating_sub(32)..at).unwrap_or_default();
        let behind = bytes.get(at + END.len()..).unwrap_or_default();
        let line = behind.strip_prefix(b"\r\n").or_else(|| behind.strip_prefix(b"\n")).unwrap_or_default();
        let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
        let key = line.get(..16).is_some_and(|start| start.iter().all(base64)) || line.starts_with(b"Proc-Type:");
        key && positions(before, b"-----BEGIN ").next().is_some()
    })
}

/// A key's line whose checksum is right: programs hold the prefix alone.
fn has_mvault_secret(bytes: &[u8]) -> bool {
    [SECRET_PREFIX, PROTECTED_PREFIX].iter().any(|prefix| {
        positions(bytes, prefix.as_bytes()).any(|at| {
            let rest = bytes.get(at..).unwrap_or_default();
            let len = rest.iter().take(1024).take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)).count();
            parse_identities(rest.get(..len).unwrap_or_default()).is_ok()
        })
    })
}

fn positions<'a>(bytes: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = bytes.windows(what.len()).enumerate();
    windows.filter(move |(_, window)| window.first() == what.first() && *window == what).map(|(at, _)| at)
}

/// Why this cannot be /init: a static x86-64 program is all that starts in an image without a loader.
pub fn not_static(bytes: &[u8]) -> Option<String> {
    match Program::read(bytes) {
        None => Some("no x86-64 program (ELF)".into()),
        Some(Program { loader: Some(loader) }) => Some(format!("not static: it needs the loader {loader}")),
        Some(_) => None,
    }
}

/// What of an x86-64 ELF file matters here.
pub struct Program {
    /// The loader it needs.
    pub loader: Option<String>,
}

impl Program {
    /// `None` if it is no x86-64 program.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        const X86_64: [u8; 2] = [62, 0];
        const INTERPRETER: [u8; 4] = [3, 0, 0, 0];
        if !bytes.starts_with(b"\x7fELF\x02\x01") || bytes.get(18..20)? != X86_64 {
            return None;
        }
        let number = |at: usize, len: usize| {
            let field = bytes.get(at..at.checked_add(len)?)?;
            usize::try_from(field.iter().rev().fold(0_u64, |n, b| n << 8 | u64::from(*b))).ok()
        };
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for index in 0..count {
            let at = table.checked_add(index.checked_mul(size)?)?;
            if bytes.get(at..at.checked_add(4)?)? == INTERPRETER {
                let (start, len) = (number(at + 8, 8)?, number(at + 32, 8)?);
                let path = bytes.get(start..start.checked_add(len)?)?;
                let path = String::from_utf8_lossy(path).trim_end_matches('\0').to_owned();
                return Some(Self { loader: Some(crate::output::printable(&path)) });
            }
        }
        Some(Self { loader: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_core::recipient::keyfile::encode_secret;
    use vault_core::recipient::xwing::XWingIdentity;

    fn refused(name: &str, bytes: &[u8]) -> String {
        check(name, name, bytes).map_or_else(|e| e.message().to_owned(), |()| String::new())
    }

    #[test]
    fn shells_and_package_managers_are_refused_by_name() {
        assert_eq!(refused("bin/sh", b""), "bin/sh: a shell");
        assert_eq!(refused("usr/bin/BusyBox", b""), "usr/bin/BusyBox: a shell");
        assert_eq!(refused("apt-get", b""), "apt-get: a package manager");
        assert_eq!(refused("shop", b""), "");
        assert_eq!(refused("sh/readme", b""), "");
    }

    #[test]
    fn secrets_are_refused_by_content_and_their_names_are_not() {
        let pem = "-----BEGIN EC PRIVATE KEY-----\nMIGkAgEBBDBv0mfT8kUq1y\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(refused("a.txt", pem.as_bytes()), "a.txt: a private key");
        assert_eq!(refused("a", pem.replace('\n', "\r\n").as_bytes()), "a: a private key");
        assert_eq!(refused("a", &[&[0xFF; 3000][..], pem.as_bytes()].concat()), "a: a private key");
        assert_eq!(refused("a", b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"), "a: a private key");
        assert_eq!(refused("server", b"-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----\n"), "");
        assert_eq!(refused("cert.pem", b"-----BEGIN CERTIFICATE-----\nMIGkAgEBBDBv0mfT8kUq1y\n"), "");
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let line = encode_secret(&XWingIdentity::generate(&mut rng));
        assert_eq!(refused("notes", format!("key = \"{}\"", *line).as_bytes()), "notes: an mvault key file");
        assert_eq!(refused("server", format!("{SECRET_PREFIX}{PROTECTED_PREFIX}mvault-bk1-").as_bytes()), "");
    }

    #[test]
    fn models_are_refused_by_name_content_and_size() {
        assert_eq!(refused("m.mvault", b"x"), "m.mvault: a sealed model");
        assert_eq!(refused("data", b"\x89mvault\n\0\0\0\x01"), "data: a sealed model");
        assert_eq!(refused("m.safetensors", &vec![0; SMALL + 1]), "m.safetensors: a model");
        assert_eq!(refused("m.safetensors", &vec![0; SMALL]), "");
        assert_eq!(refused("m.dat", &[&b"GGUF\x03\0\0\0"[..], &vec![0; SMALL]].concat()), "m.dat: a model");
        assert_eq!(refused("libc.a", &[&b"!<arch>\n"[..], &vec![0; SMALL]].concat()), "");
    }

    #[test]
    fn programs_that_need_a_loader_are_no_init() {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64 + 56 + 8, 0);
        (elf[18], elf[32], elf[54], elf[56]) = (62, 64, 56, 1);
        assert_eq!(not_static(&elf), None);
        (elf[64], elf[64 + 8], elf[64 + 32]) = (3, 120, 8);
        elf[120..].copy_from_slice(b"/lib/ld\0");
        assert_eq!(not_static(&elf).unwrap(), "not static: it needs the loader /lib/ld");
        for cut in 0..elf.len() {
            assert!(not_static(&elf[..cut]).is_some(), "{cut}");
        }
        elf[18] = 40;
        assert!(not_static(&elf).unwrap().starts_with("no x86-64 program"));
        assert!(not_static(b"#!/bin/sh\n").is_some());
    }
}
