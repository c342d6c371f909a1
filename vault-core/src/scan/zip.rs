//! Zip archives as a forward-only walk over local headers, members scanned as they pass.
//!
//! Python's zipfile believes the central directory, this walk meets the local headers first:
//! afterwards both must say the same, member for member and byte for byte (`directory.rs`), or
//! the archive is not scanned. Danger inside a member is named all the same. Also decides what
//! only a whole archive can tell: whether it is TorchScript.

mod directory;
mod member;

use super::log::{Ctx, Grade};
use super::source::{Halt, Source, bad, limit};
use super::{Finding, Format, detect};
use directory::{Directory, Entry};
use member::{Body, Header};
use std::io;

/// Members of one archive.
const MAX_MEMBERS: usize = 1 << 16;
/// Bytes of all member names together.
const MAX_NAMES: usize = 4 << 20;

/// Scans a zip archive from its first local header on.
pub(super) fn scan(ctx: &mut Ctx, src: &mut Source<'_>) -> io::Result<Format> {
    let mut walk = Walk { directory: Directory::default(), pending: Vec::new(), code: None, constants: None, npy: 0 };
    let end = walk.all(ctx, src);
    walk.torchscript(ctx);
    let format = walk.format();
    match end {
        Ok(()) => Ok(format),
        Err(Halt::Io(e)) => Err(e),
        Err(Halt::End) => {
            ctx.add(Grade::NotScanned, "zip: the archive is truncated", src.offset());
            Ok(format)
        }
        Err(Halt::Bad(what) | Halt::Limit(what)) => {
            ctx.add(Grade::NotScanned, &format!("zip: {what}"), src.offset());
            Ok(format)
        }
    }
}

struct Walk {
    directory: Directory,
    /// TorchScript names found, with the root folder of the archive they may be allowed in.
    pending: Vec<(String, Finding)>,
    /// Root folders that hold `code/` and `constants.pkl`, which make an archive TorchScript.
    code: Option<String>,
    constants: Option<String>,
    npy: usize,
}

impl Walk {
    fn all(&mut self, ctx: &mut Ctx, src: &mut Source<'_>) -> Result<(), Halt> {
        loop {
            match src.peek(4)? {
                b"PK\x03\x04" => self.member(ctx, src)?,
                b"PK\x01\x02" | b"PK\x05\x06" | b"PK\x06\x06" => return self.directory.check(src),
                [] | [_] | [_, _] | [_, _, _] => return Err(Halt::End),
                _ => return bad("bytes between the members that nothing explains"),
            }
        }
    }

    fn member(&mut self, ctx: &mut Ctx, src: &mut Source<'_>) -> Result<(), Halt> {
        let offset = src.offset();
        let header = Header::read(src)?;
        if self.directory.len() >= MAX_MEMBERS || self.directory.name_bytes() + header.name.len() > MAX_NAMES {
            return limit("more members than the scanner keeps");
        }
        let name = String::from_utf8_lossy(&header.name).into_owned();
        let header_end = src.offset();
        let before = ctx.log.pending.take();
        let Some(outer) = ctx.enter(Some(&name)) else { return limit("containers nested too deep") };
        let result = body(ctx, src, &header, &name);
        ctx.leave(outer);
        self.note(ctx, &name);
        ctx.log.pending = before;
        let (crc, packed, size) = match result {
            // The next member's place is still known: go on, for the danger in it must be named.
            Err(Halt::Bad(what)) if !header.streamed() && src.offset() - header_end <= header.packed => {
                ctx.add(Grade::NotScanned, &format!("zip: {what}"), offset);
                src.skip_exact(header.packed - (src.offset() - header_end))?;
                (header.crc, header.packed, header.size)
            }
            other => other?,
        };
        self.directory
            .add(&header.name, Entry { offset, method: header.method, flags: header.flags, crc, packed, size });
        Ok(())
    }

    /// Remembers what only the whole archive can judge.
    fn note(&mut self, ctx: &mut Ctx, name: &str) {
        let (root, rest) = name.split_once('/').unwrap_or(("", name));
        if rest.starts_with("code/") {
            self.code.get_or_insert_with(|| root.to_owned());
        }
        if rest == "constants.pkl" {
            self.constants.get_or_insert_with(|| root.to_owned());
        }
        self.npy += usize::from(name.to_ascii_lowercase().ends_with(".npy"));
        if let Some(finding) = ctx.log.pending.take() {
            let own = rest == "data.pkl" || rest == "constants.pkl";
            if own && self.pending.len() < 2 {
                self.pending.push((root.to_owned(), finding));
            } else {
                ctx.log.push(Grade::Danger, finding);
            }
        }
    }

    /// Names of TorchScript's own space are classes that the archive's `code/` defines and
    /// torch resolves itself, never an import: fine in such an archive, and only there.
    fn torchscript(&mut self, ctx: &mut Ctx) {
        for (root, finding) in self.pending.drain(..) {
            if self.code.as_ref() != Some(&root) || self.constants.as_ref() != Some(&root) {
                ctx.log.push(Grade::Danger, finding);
            }
        }
    }

    fn format(&self) -> Format {
        if self.directory.has(|name| name == b"data.pkl" || name.ends_with(b"/data.pkl")) {
            Format::TorchZip
        } else if self.npy > 0 && self.npy == self.directory.len() {
            Format::Npz
        } else {
            Format::Zip
        }
    }
}

/// Scans one member's bytes; returns checksum, packed and unpacked size as they really are.
fn body(ctx: &mut Ctx, src: &mut Source<'_>, header: &Header, name: &str) -> Result<(u32, u64, u64), Halt> {
    let refused = if header.encrypted() {
        Some("encrypted zip member".to_owned())
    } else if !matches!(header.method, member::STORED | member::DEFLATED) {
        Some(format!("zip member with compression method {}", header.method))
    } else {
        None
    };
    if let Some(refused) = refused {
        ctx.add(Grade::NotScanned, &refused, 0);
        if header.streamed() {
            return bad("a member that cannot be read and does not say its size");
        }
        src.skip_exact(header.packed)?;
        return Ok((header.crc, header.packed, header.size));
    }
    let start = src.offset();
    let mut body = Body::new(src, header, ctx.budget.clone());
    {
        let mut inner = Source::new(&mut body);
        detect::scan_stream(ctx, name, &mut inner)?;
    }
    let (crc, size, fault) = body.finish();
    if let Some(fault) = fault {
        return bad(format!("member '{name}': {fault}"));
    }
    let packed = src.offset() - start;
    member::check(src, header, crc, packed, size)?;
    Ok((crc, packed, size))
}
