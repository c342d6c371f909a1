//! The machine under /init: mounts, console, entropy, memory, the end. docs/ENCLAVE.md E-1, E-2.

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use std::ffi::CStr;
use std::fs;

/// `[E-1]`
pub fn mount_all() -> Result<(), String> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    let mounts: [(&CStr, &str, MountFlags); 5] = [
        (c"devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC),
        (c"proc", "/proc", quiet | MountFlags::NODEV),
        (c"sysfs", "/sys", quiet | MountFlags::NODEV),
        (c"tmpfs", "/run", quiet | MountFlags::NODEV),
        (c"tmpfs", "/tmp", quiet | MountFlags::NODEV),
    ];
    for (kind, at, flags) in mounts {
        fs::create_dir_all(at).map_err(|e| format!("{at}: {e}"))?;
        mount(kind, at, kind, flags, None::<&CStr>).map_err(|e| format!("{at}: {e}"))?;
    }
    Ok(())
}

/// Standard streams to the console: the kernel found none in the image.
pub fn open_console() {
    let Ok(console) = open("/dev/console", OFlags::RDWR | OFlags::NOCTTY, Mode::empty()) else { return };
    let _ = rustix::stdio::dup2_stdin(&console); // without a console there is nobody to tell
    let _ = rustix::stdio::dup2_stdout(&console);
    let _ = rustix::stdio::dup2_stderr(&console);
}

/// Entropy into the kernel's pool, counted, before any key is made `[E-2]`.
pub fn add_entropy(random: &[u8]) -> Result<(), String> {
    let random = random.get(..random.len().min(ENTROPY)).unwrap_or_default();
    let bytes = u32::try_from(random.len()).unwrap_or_default();
    let mut pool = PoolInfo { bits: bytes.cast_signed() * 8, len: bytes.cast_signed(), bytes: [0; ENTROPY] };
    pool.bytes.iter_mut().zip(random).for_each(|(to, from)| *to = *from);
    let device = fs::File::options().write(true).open("/dev/random").map_err(|e| format!("/dev/random: {e}"))?;
    // SAFETY: the opcode is RNDADDENTROPY of random(4), and `PoolInfo` is its struct rand_pool_info, of which the kernel reads `len`
    // bytes of buffer: at most ENTROPY.
    #[allow(unsafe_code)] // an edge to the system: no safe call adds entropy
    let added = unsafe {
        let add = rustix::ioctl::Setter::<RNDADDENTROPY, PoolInfo>::new(pool);
        rustix::ioctl::ioctl(&device, add)
    };
    added.map_err(|e| format!("/dev/random: {e}"))
}

const ENTROPY: usize = 256;
/// `_IOW('R', 0x03, int[2])`
const RNDADDENTROPY: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<[i32; 2]>(b'R', 0x03);

#[repr(C)]
struct PoolInfo {
    bits: i32,
    len: i32,
    bytes: [u8; ENTROPY],
}

/// Switches the loopback interface on.
pub fn loopback_up() -> Result<(), String> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|e| e.to_string())?;
    let mut request = InterfaceFlags { name: [0; 16], flags: IFF_UP | IFF_RUNNING, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the opcode is SIOCSIFFLAGS of netdevice(7), which reads a struct ifreq: 40 bytes, as `InterfaceFlags` has, with the name of an
    // interface and its flags.
    #[allow(unsafe_code)] // an edge to the system: no safe call sets an interface's flags
    let set = unsafe {
        let set = rustix::ioctl::Setter::<SIOCSIFFLAGS, InterfaceFlags>::new(request);
        rustix::ioctl::ioctl(&socket, set)
    };
    set.map_err(|e| e.to_string())
}

const SIOCSIFFLAGS: rustix::ioctl::Opcode = 0x8914;
const IFF_UP: u16 = 1;
const IFF_RUNNING: u16 = 0x40;

#[repr(C)]
struct InterfaceFlags {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// The largest resident memory that this process had, in bytes (proc(5): VmHWM).
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Ends the machine.
pub fn power_off() -> ! {
    let _ = reboot(RebootCommand::Restart); // with -no-reboot, and on Nitro, that is the end
    loop {
        std::thread::park();
    }
}
