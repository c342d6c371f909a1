"""The command line of reader.py: `open`, and `vectors`, which holds the reader to the test vectors.

A vector is lines `key: value`, an empty line, and the artifact compressed by zlib. Keys: mvault-vector (1),
name, about (a comment), expect (open or refuse), rule (those a reader may name), identity, passphrase, data-key
and broker-seed (hex) and signer (base64 of DER; what the reader is given), model (VERSION NAME), entry (SHA256 SIZE PATH, each) and
released (SIZE SHA256: the entry bytes a reader from the front, chunk by chunk, gave out before it stops).
"""
import base64, getpass, hashlib, io, pathlib, sys, zlib
import reader, standard


def signers_of(files):
    return {hashlib.sha256(der).digest(): key for key, der in map(standard.p256_public, files)}


def open_artifact(file, identity_file, out, *signers):
    passphrases = [getpass.getpass().encode()] if sys.stdin.isatty() else []
    seeds = list(reader.seeds_of(pathlib.Path(identity_file).read_text().split("\n"), passphrases))
    signers = signers_of(pathlib.Path(signer).read_bytes() for signer in signers)
    with open(file, "rb") as source:
        manifest, data = reader.read(source, seeds, passphrases, signers, [])
    for entry, content in zip(manifest[3], data):  # F-38: everything is verified by now
        path = pathlib.Path(out, entry[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as target:
            target.write(content)
        print(f"{hashlib.sha256(content).hexdigest()} {len(content)} {entry[0]}")
    print(f"opened {manifest[0]}, version {manifest[1]}")


def run_vector(file):
    """What is wrong, or an empty list."""
    header, _, packed = file.read_bytes().partition(b"\n\n")
    fields = [line.partition(":") for line in header.decode().split("\n")]

    def get(key):
        return [value.removeprefix(" ") for name, _, value in fields if name == key]

    released, passphrases = [], [passphrase.encode() for passphrase in get("passphrase")]
    got = {"mvault-vector": ["1"]}
    try:
        seeds = list(reader.seeds_of(get("identity"), passphrases))
        signers = signers_of(map(base64.b64decode, get("signer")))
        source = io.BytesIO(zlib.decompress(packed))
        keys = [list(map(bytes.fromhex, get(key))) for key in ("data-key", "broker-seed")]
        manifest, data = reader.read(source, seeds, passphrases, signers, released, *keys)
        got |= {"expect": ["open"], "rule": [], "model": [f"{manifest[1]} {manifest[0]}"]}
        got["entry"] = [f"{hashlib.sha256(content).hexdigest()} {len(content)} {entry[0]}"
                        for content, entry in zip(data, manifest[3])]
    except reader.Refused as refused:
        fits = refused.args[0] in " ".join(get("rule")).split()
        got |= {"expect": ["refuse"], "rule": get("rule") if fits else [": ".join(refused.args)]}
    out = b"".join(released)
    got["released"] = [f"{len(out)} {hashlib.sha256(out).hexdigest()}"]
    return [f"{key} is {value}, not {get(key)}" for key, value in got.items() if value != get(key)]


def main(use="", *args):
    if use == "open" and len(args) >= 3:
        try:
            sys.exit(open_artifact(*args))
        except reader.Refused as refused:
            sys.exit(f"refused: {': '.join(refused.args)}")
    if use != "vectors":
        sys.exit(reader.__doc__)
    failed = 0
    for file in map(pathlib.Path, args):
        try:
            wrong = run_vector(file)
        except Exception as error:  # a reader must refuse, not break
            wrong = [f"{type(error).__name__}: {error}"]
        failed += bool(wrong)
        print(f"FAIL {file.stem}: {'; '.join(wrong)}" if wrong else f"ok {file.stem}")
    print(f"{len(args) - failed} passed, {failed} failed")
    sys.exit(failed > 0)
