//! `mvault-eif`: kernel, command line and ramdisks in, an enclave image file out, its measurements on stdout as
//! `nitro-cli build-enclave` prints them. The bytes depend on the arguments alone, but for a signature's (ECDSA is
//! randomized; it is not measured). No clock, no environment, no network: keys are PEM files, never KMS.

use aws_nitro_enclaves_image_format::defs::{EifBuildInfo, EifIdentityInfo, MAX_NUM_SECTIONS};
use aws_nitro_enclaves_image_format::utils::eif_signer::SignKey;
use aws_nitro_enclaves_image_format::utils::{EifBuilder, SignKeyData};
use clap::Parser;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use serde_json::json;
use sha2::{Digest, Sha384};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write an AWS Nitro Enclave image file (EIF), and print its measurements as JSON
///
/// `mvault enclave build` makes the ramdisks and runs this program.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The kernel, a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT")]
    cmdline: String,
    /// A ramdisk; the first is measured into PCR1, the others into PCR2; repeated
    #[arg(long = "ramdisk", value_name = "FILE", required = true)]
    ramdisks: Vec<PathBuf>,
    /// A P-384 private key in PEM, without passphrase
    #[arg(long, value_name = "FILE", requires = "sign_cert")]
    sign_key: Option<PathBuf>,
    /// Its certificate in PEM, measured into PCR8
    #[arg(long, value_name = "FILE", requires = "sign_key")]
    sign_cert: Option<PathBuf>,
    /// The image's name, in its metadata
    #[arg(long, default_value = "mvault")]
    name: String,
    /// The image's version, in its metadata
    #[arg(long, default_value = "1")]
    image_version: String,
    /// The build time in its metadata, in seconds since 1970
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    build_time: u32,
    /// The file to write; there must be none of that name
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "mvault-eif: error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let signer = signer(args)?;
    check(args, signer.is_some())?;
    let folder = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut building = tempfile::Builder::new()
        .prefix(".mvault-eif-")
        .permissions(Permissions::from_mode(0o666)) // less the umask
        .tempfile_in(folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    let measurements = write(args, signer, building.as_file_mut())?;
    let failed = |e: std::io::Error| format!("{}: {e}", args.output.display());
    building.as_file().sync_all().map_err(failed)?;
    building.persist_noclobber(&args.output).map_err(|e| failed(e.error))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed)?;
    let out = format!("{:#}\n", json!({ "Measurements": measurements }));
    std::io::stdout().write_all(out.as_bytes()).map_err(|e| format!("standard output: {e}"))
}

/// What the writer would panic on.
fn check(args: &Args, signed: bool) -> Result<(), String> {
    for path in [&args.kernel].into_iter().chain(&args.ramdisks) {
        let found = File::open(path).and_then(|f| f.metadata()).map_err(|e| format!("{}: {e}", path.display()))?;
        if !found.is_file() {
            return Err(format!("{}: not a plain file", path.display()));
        }
    }
    if args.cmdline.contains('\0') {
        return Err("--cmdline: a zero byte in it".into());
    }
    // kernel, command line and metadata
    let most = MAX_NUM_SECTIONS - 3 - usize::from(signed);
    if args.ramdisks.len() > most {
        return Err(format!("{} ramdisks; an image holds {most}", args.ramdisks.len()));
    }
    Ok(())
}

fn write(args: &Args, signer: Option<SignKeyData>, file: &mut File) -> Result<BTreeMap<String, String>, String> {
    let time = chrono::DateTime::from_timestamp(i64::from(args.build_time), 0).ok_or("--build-time: no such time")?;
    let info = EifIdentityInfo {
        img_name: args.name.clone(),
        img_version: args.image_version.clone(),
        build_info: EifBuildInfo {
            build_time: time.to_rfc3339(),
            build_tool: env!("CARGO_PKG_NAME").into(),
            build_tool_version: env!("CARGO_PKG_VERSION").into(),
            img_os: "Linux".into(),
            img_kernel: "Unknown".into(),
        },
        docker_info: json!({}),
        custom_info: json!({}),
    };
    let x86_64 = 0;
    let mut builder = EifBuilder::new(&args.kernel, args.cmdline.clone(), signer, Sha384::new(), x86_64, info);
    for path in &args.ramdisks {
        builder.add_ramdisk(path);
    }
    let mut measurements = builder.write_to(file);
    measurements.insert("HashAlgorithm".into(), "Sha384 { ... }".into()); // as nitro-cli has it; the hasher's own name varies
    Ok(measurements)
}

/// Key and certificate, which must fit. Of the certificate's file only the first certificate goes into the image,
/// encoded anew: a key that stands in the same file does not.
fn signer(args: &Args) -> Result<Option<SignKeyData>, String> {
    let (Some(key_path), Some(cert_path)) = (&args.sign_key, &args.sign_cert) else { return Ok(None) };
    let (key_shown, cert_shown) = (key_path.display(), cert_path.display());
    let pem = fs::read(cert_path).map_err(|e| format!("{cert_shown}: {e}"))?;
    let cert = X509::from_pem(&pem).map_err(|_| format!("{cert_shown}: no certificate in PEM"))?;
    let pem = fs::read(key_path).map_err(|e| format!("{key_shown}: {e}"))?;
    // A passphrase is refused rather than asked for on the terminal.
    let key = PKey::private_key_from_pem_callback(&pem, |_| Ok(0))
        .map_err(|_| format!("{key_shown}: no private key in PEM without passphrase"))?;
    if !is_p384(&key) {
        return Err(format!("{key_shown}: not a P-384 key"));
    }
    let public = cert.public_key().map_err(|_| format!("{cert_shown}: no public key in it"))?;
    if !key.public_eq(&public) {
        return Err(format!("{cert_shown}: not the certificate of {key_shown}"));
    }
    let cert = cert.to_pem().map_err(|e| format!("{cert_shown}: {e}"))?;
    Ok(Some(SignKeyData { cert, key: SignKey::LocalPrivateKey(pem) }))
}

fn is_p384(key: &PKey<Private>) -> bool {
    key.ec_key().is_ok_and(|ec| ec.group().curve_name() == Some(Nid::SECP384R1))
}
