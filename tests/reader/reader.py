#!/usr/bin/env python3
"""A second reader of the mvault sealed format, written from docs/FORMAT.md alone, to prove it complete.
    reader.py vectors FILE.vec... | reader.py open FILE.mvault IDENTITY_FILE OUTDIR [SIGNER.pem]
A test tool: it keeps the artifact in memory, but reads from the front and releases chunk by chunk. All that
FORMAT.md says is here; standard.py has published algorithms (BLAKE3, X-Wing, CBOR), commands.py the commands.
`need(F4=x)` refuses under rule [F-4] unless x holds, and quotes the rule."""
import base64, hashlib, hmac, itertools, pathlib, re, struct, sys
import standard
from standard import array, blob, boolean, mapping, null_or, p256_verifies, record, row, text, uint, unseal
FORMAT = (pathlib.Path(__file__).resolve().parents[2] / "docs/FORMAT.md").read_text()
class Refused(Exception): """args: the rule that is violated, what it says"""
def need(**rules):
    for rule in (name.replace("F", "F-") for name, kept in rules.items() if not kept):
        raise Refused(rule, re.search(rf"\[{rule}\] (.*)", FORMAT)[1])
def u64(n): return struct.pack(">Q", n)
def padded(n): return (n + 4095) // 4096 * 4096
def tagged(label, *parts): return b"mvault/v1/" + label + b"\0" + b"".join(parts)
def sha256(label, *parts): return hashlib.sha256(tagged(label, *parts)).digest()
def derive(salt, key, label, x, n): return standard.hkdf_sha512(salt, key, tagged(label, x), n)
KEY_ARN = re.compile(rb"arn:L:kms:L:[0-9]{12}:key/[A-Za-z0-9_-]+".replace(b"L", rb"(?!-)[a-z0-9-]{1,63}(?<!-)"))
def argon2id_cost(body):  # stanzas: 4.1 to 4.4
    m, t, p = struct.unpack_from(">3I", body)
    need(F14=65536 <= m <= 2097152 and 1 <= t <= 16 and 1 <= p <= 16 and m * t >= 196608)
    return m * t
def argon2id_open(kind, salt, body, passphrase):
    r = standard.argon2id(passphrase, body[12:28], *struct.unpack_from(">3I", body))
    kek = derive(salt, r, b"argon2id", b"", 64)
    if not hmac.compare_digest(kek[32:], body[28:60]): return None
    secret = unseal(kek[:32], bytes(12), body[60:], kind + salt + body[:60])
    need(F16=secret)
    return secret
def xwing_open(salt, body, pair):
    if body[:8] != sha256(b"x-wing tag", salt, pair.pk)[:8]: return None
    kek = derive(salt, pair.decapsulate(body[8:1128]), b"x-wing", body[8:1128] + pair.pk, 32)
    return unseal(kek, bytes(12), body[1128:], b"\0\2" + salt + body[:1128])
def aws_kms_open(salt, body, data_key):
    k = 2 + int.from_bytes(body[:2])
    arn, b = body[2:k], int.from_bytes(body[k:k + 2])
    good = len(body) == k + 2 + b + 48 and 20 <= len(arn) <= 2048 and 1 <= b <= 6144 and KEY_ARN.fullmatch(arn)  # F-40
    kek = derive(salt, data_key, b"aws-kms", arn, 32)
    return unseal(kek, bytes(12), body[-48:], b"\0\3" + salt + body[:-48]) if good else None
def broker_open(salt, body, pair):
    n = 1129 + int.from_bytes(body[1128:1129])
    good = len(body) == n + 80 and re.fullmatch(rb"[a-z0-9._-]{1,64}", body[1129:n])  # F-47
    if not good or body[:8] != sha256(b"broker tag", salt, sha256(b"broker key", pair.pk))[:8]: return None
    kek = derive(salt, pair.decapsulate(body[8:1128]), b"broker", body[8:1128] + pair.pk, 32)
    return unseal(kek, bytes(12), body[-48:], b"\0\4" + salt + body[:-48])
def dek_of(salt, sections, seeds, passphrases, data_keys, broker_seeds):
    for pair, (kind, body) in itertools.product(map(standard.XWing, filter(None, seeds)), sections):
        if kind == 2 and (dek := xwing_open(salt, body, pair)): return dek
    for passphrase, (kind, body) in itertools.product(passphrases, sections):
        if kind == 1 and (dek := argon2id_open(b"\0\1", salt, body, passphrase)): return dek
    for data_key, (kind, body) in itertools.product(data_keys, sections):
        if kind == 3 and (dek := aws_kms_open(salt, body, data_key)): return dek
    for pair, (kind, body) in itertools.product(map(standard.XWing, broker_seeds), sections):
        if kind == 4 and (dek := broker_open(salt, body, pair)): return dek
    need(F18=False)
def seeds_of(lines, passphrases):  # a key file: 9
    for line in (line for line in lines if line and line[0] != "#"):
        found = re.fullmatch("MVAULT-(SECRET|PROTECTED)-XW1-([A-Za-z0-9_-]{54}|[A-Za-z0-9_-]{155})", line)
        need(F39=found)
        data = base64.urlsafe_b64decode(found[2] + "==")[:108 if found[1] == "PROTECTED" else 32]
        checksum = sha256(found[1].lower().encode(), data)[:8]
        need(F39=base64.urlsafe_b64encode(data + checksum).decode().rstrip("=") == found[2])
        if len(data) == 32: yield data
        elif argon2id_cost(data): yield from (argon2id_open(b"\0\0", bytes(32), data, p) for p in passphrases)
# shapes: 7
SCAN = row(text(255), uint(4), array(row(null_or(text(1024)), text(255), uint()), 16), uint())
ENTRY = row(text(1024), uint(), uint(), blob(32, 32), null_or(blob(32, 32)), SCAN)
TABLE = record({0: array(row(text(1024), null_or(uint())), 16384), 1: boolean})
MANIFEST = record({0: text(255), 1: uint(), 2: uint(1), 3: array(ENTRY, 16384), 4: text(255), 5: uint(),
                   6: mapping(text(255), blob(0, 65536), 64)}, optional=[5])
ABOUT = record({0: text(255), 1: uint(), 2: text(255), 3: mapping(text(255), text(255), 64)})
def good(part): return 0 < len(part.encode()) < 256 and not re.search(r"^\.\.?$|[\0-\x1f\x7f\\/]", part)
def parse(data, shape):
    try: value = standard.cbor(data); need(F31=shape(value))
    except ValueError: need(F31=False)
    except standard.TooLong: need(F34=False)
    need(F34=shape is TABLE or good(value[0]))
    return value
def check_table(paths, sizes):
    need(F30=paths, F29=len(sizes) == 1 or None not in sizes,
         F32=all(good(part) for path in paths for part in path.split("/")))
    lower = {path.lower() for path in paths}
    parents = {path[:i] for path in lower for i, letter in enumerate(path) if letter == "/"}
    need(F33=paths == sorted(paths) and len(lower) == len(paths) and not parents & lower)
def read_header(source):  # 2, 4
    head = source.read(24)
    H, C, S = struct.unpack(">3I", head[12:].ljust(12, b"\0"))
    need(F1=head[:8] == b"\x89mvault\n", F2=head[8:12] == b"\0\0\0\1", F3=H % 4096 == 0 < H <= 1 << 20)
    head += source.read(H - 24)
    need(F3=len(head) == H, F4=4096 <= C & -C == C <= 1 << 20, F5=120 + S <= H, F6=not any(head[120 + S:]))
    sections, at, end = [], 88, 88 + S
    while at < end:
        kind, n = struct.unpack_from(">HH", head, at)
        sections.append((kind, head[at + 4:at + 4 + n]))
        at += 4 + n
    kinds = [kind & 0x7FFF for kind, _ in sections]
    rest = kinds[sum(0 < kind < 256 for kind in kinds):]
    need(F9=at == end, F10=all(a < b for a, b in zip([255] + rest, rest)), F11=len(rest) < len(kinds) <= 512)
    sizes = {1: [108], 2: [1176], 3: range(65536), 4: range(65536), 0x100: range(304, 4145, 256), 0x101: [168]}
    known = [(kind, body) for kind, body in sections if kind & 0x7FFF in sizes]
    need(F12=all(len(body) in sizes.get(kind, ()) for kind, body in known), F13=max(sections)[0] < 0x8000)
    costs = [argon2id_cost(body) for kind, body in sections if kind == 1]
    need(F15=len(costs) <= 8 and sum(costs) <= 8388608)
    return head[:end], head[end:end + 32], C, sections
def read(source, seeds, passphrases, signers, released, data_keys=(), broker_seeds=()):
    """The manifest and the entries' bytes; `released` collects what a streaming reader gives out."""
    head, mac, C, sections = read_header(source)
    suite, salt, commitment, bodies = head[8:12] + head[16:20], head[24:56], head[56:88], dict(sections)
    dek = dek_of(salt, sections, seeds, passphrases, data_keys, broker_seeds)
    need(F7=hmac.compare_digest(derive(salt, dek, b"commitment", suite, 32), commitment))
    need(F8=hmac.compare_digest(hmac.digest(derive(salt, dek, b"header", b"", 64), head, "sha512")[:32], mac))
    if about := bodies.get(0x100):
        about_key, aad = derive(salt, dek, b"about", about[:32], 32), b"\1\0" + salt + about[:32]
        box = unseal(about_key, bytes(12), about[32:], aad) or b""
        n = 2 + int.from_bytes(box[:2])
        need(F19=len(box) - 256 < n <= len(box) and not any(box[n:]))
        about = parse(box[2:n], ABOUT)
    sig = bodies.get(0x101, bytes(168))
    statement = tagged(b"signature", suite, salt, commitment, sig[:104])
    need(F20=not signers or sig[:32] in signers and p256_verifies(signers[sig[:32]], sig[104:], statement))
    plain, edge, N, leaves, table = b"", 0, 0, [], None  # payload: 5, 6; bytes before `edge` are released
    for i in itertools.count():
        chunk = source.read(C + 16)
        N, last = N + len(chunk), len(chunk) < C + 16
        need(F26=chunk, F23=len(chunk) >= 16, F24=i < 2**32)
        if i % 2**20 == 0: key = derive(salt, dek, b"payload", head[16:20] + u64(i >> 20), 44)
        opened = unseal(key[:32], (int.from_bytes(key[32:]) ^ i).to_bytes(12, "big"), chunk)
        need(F25=opened is not None)
        plain, leaves = plain + opened, leaves + [standard.blake3(chunk)] if signers else []
        if table is None:
            t, start = 4 + int.from_bytes(plain[:4]), padded(4 + int.from_bytes(plain[:4]))
            need(F27=t - 4 <= 4 << 20 and not (last and len(plain) < start))
            if len(plain) < start: continue
            table = parse(plain[4:t], TABLE)
            paths, sizes = [path for path, _ in table[0]], [size for _, size in table[0]]
            check_table(paths, sizes)
            piped = sizes == [None]
            starts = [*itertools.accumulate(() if piped else map(padded, sizes), initial=start)]
            need(F28=not any(plain[t:start]), F24=starts[-1] <= 1 << 52)
        upto = len(plain) if not piped else edge if last else max(start, len(plain) - 69648)
        for at, size in zip(starts, [2**64] if piped else sizes):
            released.append(plain[max(at, edge):min(at + size, upto)])
            need(F28=not any(plain[max(at + size, edge):min(at + padded(size), upto)]))
        if last: break
        edge = upto
    m, M = int.from_bytes(plain[-8:]), len(plain) - 16 - int.from_bytes(plain[-8:])
    need(F21=not signers or sig[64:104] == u64(N) + sha256(b"payload", *leaves, u64(N)),
         F27=plain[-16:-8] == b"mvault-m" and m <= (65536 if piped else 8 << 20) and M >= 0,
         F29=M >= start if piped else M == starts[-1])
    manifest = parse(plain[M:-16], MANIFEST)
    name, version, folder, entries = (manifest[k] for k in range(4))
    need(F30=entries, F32=folder or len(paths) == 1 and "/" not in paths[0])
    if piped: sizes, starts = [entries[0][1]], [start, start + padded(entries[0][1])]
    need(F29=M == starts[-1], F28=not piped or not any(plain[start + sizes[0]:M]),
         F35=[(*e[:3], bool(e[4])) for e in entries] == [(*r, table[1]) for r in zip(paths, sizes, starts)])
    identity = sha256(b"identity", salt, u64(version), name.encode())
    need(F36=not about or (about[0], about[1]) == (name, version), F22=not signers or sig[32:64] == identity)
    data = [plain[at:at + size] for at, size in zip(starts, sizes)]
    need(F37=all(entry[3] == standard.blake3(content) and entry[4] in (None, hashlib.sha256(content).digest())
                 for content, entry in zip(data, entries)))
    released += [plain[max(edge, start):start + sizes[0]]] if piped else []
    return manifest, data
if __name__ == "__main__":
    import commands
    commands.main(*sys.argv[1:])
