"""What reader.py takes from published standards: calls of PyPI `cryptography` and, by hand, what it lacks:
X-Wing, BLAKE3, canonical CBOR. Nothing here is particular to mvault. For tests: slow, not constant-time.
"""
import functools, hashlib, struct
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf import argon2, hkdf


def hkdf_sha512(salt, key, info, size):
    return hkdf.HKDF(hashes.SHA512(), size, salt, info).derive(key)


def argon2id(passphrase, salt, m, t, p):
    return argon2.Argon2id(salt=salt, length=32, iterations=t, lanes=p, memory_cost=m).derive(passphrase)


def unseal(key, nonce, data, aad=b""):
    """The plaintext, or None if the tag is wrong."""
    try:
        return AESGCM(key).decrypt(nonce, data, aad)
    except InvalidTag:
        return None


def p256_public(der_or_pem):
    """A public key, and its DER SubjectPublicKeyInfo with an uncompressed point."""
    pem = der_or_pem.startswith(b"-----")
    key = (serialization.load_pem_public_key if pem else serialization.load_der_public_key)(der_or_pem)
    assert isinstance(key.curve, ec.SECP256R1)
    return key, key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def p256_verifies(key, signature, message):
    """Whether r || s is a signature with SHA-256."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        return True
    except InvalidSignature:
        return False


class XWing:
    """An X-Wing key pair (draft-connolly-cfrg-xwing-kem) of a 32-byte seed."""

    def __init__(self, seed):
        full = hashlib.shake_256(seed).digest(96)
        self.m = mlkem.MLKEM768PrivateKey.from_seed_bytes(full[:64])
        self.x = x25519.X25519PrivateKey.from_private_bytes(full[64:])
        self.pk_x = self.x.public_key().public_bytes_raw()
        self.pk = self.m.public_key().public_bytes_raw() + self.pk_x

    def decapsulate(self, ct):
        try:
            ss_x = self.x.exchange(x25519.X25519PublicKey.from_public_bytes(ct[1088:]))
        except ValueError:  # `cryptography` refuses points of low order, X-Wing does not
            ss_x = bytes(32)
        ss_m = self.m.decapsulate(ct[:1088])
        return hashlib.sha3_256(ss_m + ss_x + ct[1088:] + self.pk_x + b"\\.//^\\").digest()


# BLAKE3, plain hash of 32 bytes (https://github.com/BLAKE3-team/BLAKE3-specs)
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MIXES = [[4 * k + (i + i // 4 * k) % 4 for k in range(4)] for i in range(8)]  # four columns, four diagonals
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def compress(cv, block, counter, flags):
    m = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = [*cv, *IV[:4], counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(MIXES):
            for word, r, s in (m[2 * i], 16, 12), (m[2 * i + 1], 8, 7):
                v[a] = v[a] + v[b] + word & 0xFFFFFFFF
                v[d] = (v[d] ^ v[a]) * 0x100000001 >> r & 0xFFFFFFFF  # rotated right by r
                v[c] = v[c] + v[d] & 0xFFFFFFFF
                v[b] = (v[b] ^ v[c]) * 0x100000001 >> s & 0xFFFFFFFF
        m = [m[p] for p in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3_node(data, first_chunk, root):
    if len(data) > 1024:  # the left gets the most chunks, a power of two, that leaves a right
        cut = 512 << ((len(data) - 1) // 1024).bit_length()
        left = blake3_node(data[:cut], first_chunk, 0)
        right = blake3_node(data[cut:], first_chunk + cut // 1024, 0)
        return compress(IV, struct.pack("<16I", *left, *right), 0, PARENT | root)
    cv = IV
    for at in range(0, max(len(data), 1), 64):
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | root if at + 64 >= len(data) else 0)
        cv = compress(cv, data[at:at + 64], first_chunk, flags)
    return cv


@functools.lru_cache(256)
def blake3(data):
    return struct.pack("<8I", *blake3_node(data, 0, ROOT))


def cbor(data):
    """The value of data, one item of canonical CBOR (RFC 8949, 4.2.1) of unsigned numbers, strings, arrays,
    maps, booleans and null; ValueError if it is anything else."""
    try:
        value, end = cbor_item(data, 0)
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("not canonical CBOR") from error
    if end != len(data):
        raise ValueError("CBOR ends early or late")
    return value


def cbor_item(b, at):
    kind, n, at = b[at] >> 5, b[at] & 31, at + 1
    if kind == 7:
        return {20: False, 21: True, 22: None}[n], at
    if n > 23:
        size, least = {24: (1, 24), 25: (2, 256), 26: (4, 65536), 27: (8, 2**32)}[n]
        n, at = int.from_bytes(b[at:at + size]), at + size
        if n < least:
            raise ValueError("CBOR number or length is not the shortest")
    if kind == 0:
        return n, at
    if kind in (2, 3):  # a string that ends after the data shows in `end`
        return b[at:at + n] if kind == 2 else b[at:at + n].decode(), at + n
    items, keys = [], []
    for i in range({4: n, 5: 2 * n}[kind]):
        start, (item, at) = at, cbor_item(b, at)
        items.append(item)
        if kind == 5 and i % 2 == 0:
            keys.append(b[start:at])
    if any(a >= b for a, b in zip(keys, keys[1:])):
        raise ValueError("CBOR map keys do not ascend")
    return items if kind == 4 else dict(zip(items[::2], items[1::2])), at


# Shapes of CBOR values: each returns a test. Limits of length are tested apart, by an exception.
class TooLong(Exception):
    pass


def limited(size, top):
    if size > top:
        raise TooLong(f"{size} where at most {top} are allowed")
    return True


def uint(top=2**64 - 1):
    return lambda v: type(v) is int and v <= top


def boolean(v):
    return type(v) is bool


def text(top):
    return lambda v: type(v) is str and limited(len(v.encode()), top)


def blob(least, top):
    return lambda v: type(v) is bytes and len(v) >= least and limited(len(v), top)


def null_or(shape):
    return lambda v: v is None or shape(v)


def array(shape, top):
    return lambda v: type(v) is list and all(map(shape, v)) and limited(len(v), top)


def row(*shapes):
    return lambda v: type(v) is list and len(v) == len(shapes) and all(s(x) for s, x in zip(shapes, v))


def mapping(key, shape, top):
    return lambda v: type(v) is dict and all(key(k) and shape(v[k]) for k in v) and limited(len(v), top)


def record(fields, optional=()):
    return lambda v: (type(v) is dict and {*fields} - {*optional} <= {*v} <= {*fields}
                      and all(type(k) is int and fields[k](v[k]) for k in v))
