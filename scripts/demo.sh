#!/usr/bin/env bash
# make demo: the tour, on real models. Every result is compared with the original, and what must be refused is shown
# being refused: the script fails when any of it is not as it should be. Works in a temporary home of its own.

source "$(dirname "$0")/common.sh"

"$REPO/scripts/setup.sh" build python emulator eif
emulator=$(emulator_dir) eif=$(eif_dir)/mvault-eif guest=$("$REPO/scripts/guest.sh")
models=$("$REPO/scripts/models.sh")
cd "$REPO"
build_workspace
PATH=$(target_dir)/release:$PATH

work=$(mktemp -d "${TMPDIR:-/tmp}/mvault-demo.XXXXXX")
trap clean_up EXIT
true_home=$HOME
export HOME=$work/home XDG_CONFIG_HOME=$work/home/.config XDG_DATA_HOME=$work/home/.local/share
mkdir -p "$HOME"
cd "$work"
cp -r "$models" models

main() {
    heading "1. Keys: our own, a colleague's, and one to sign with"
    local us colleague
    run_to us.pub mvault keygen
    run_to colleague.pub mvault keygen -o colleague.txt
    run mvault keygen --signing -o sign.pem
    us=$(<us.pub) colleague=$(<colleague.pub)
    check "a recipient is one line" test "$(wc -l <us.pub)" = 1

    heading "2. Scan: real models are safe, a hostile pickle is named and refused"
    run mvault scan models
    # cos\nsystem: a pickle that would run a command when it is loaded
    printf 'cos\nsystem\n(S"echo pwned"\ntR.' >hostile.pkl
    expect 1 mvault scan hostile.pkl
    expect 1 mvault seal hostile.pkl
    check "nothing was written" test ! -e hostile.pkl.mvault

    heading "3. Seal a pickled model, and open it again"
    cp models/profanity/model.joblib .
    run mvault seal model.joblib
    run mvault open model.joblib.mvault -o opened
    check "the opened file is the original" cmp models/profanity/model.joblib opened/model.joblib

    heading "4. Seal a model folder, signed"
    run mvault seal models/minilm --sign sign.pem -o minilm.mvault
    run mvault inspect minilm.mvault
    # who has no key of it sees the header alone
    run env HOME=nobody XDG_CONFIG_HOME=nobody mvault inspect minilm.mvault
    run mvault verify minilm.mvault --signer sign.pem.pub
    run mvault open minilm.mvault --signer sign.pem.pub -o opened/minilm
    check "every file has its digest" same_digests models/minilm opened/minilm

    heading "5. Every other model, there and back"
    mkdir back
    local folder
    for folder in silero magika resemblyzer profanity gguf; do
        mvault seal "models/$folder" -o "$folder.mvault" >/dev/null
        mvault open "$folder.mvault" -o "back/$folder" >/dev/null
        check "$folder" same_digests "models/$folder" "back/$folder"
    done

    heading "6. Read one tensor and one range, without opening the rest"
    local tensor=embeddings.LayerNorm.weight
    run_to tensor.bin mvault cat minilm.mvault model.safetensors --tensor "$tensor"
    check "the tensor is the original's" cmp tensor.bin <(tensor_of models/minilm/model.safetensors "$tensor")
    run_to range.bin mvault cat minilm.mvault model.safetensors --range 1000000-1999999
    check "the range is the original's" cmp range.bin <(slice models/minilm/model.safetensors 1000000 1000000)

    heading "7. Change who can open it: the payload is not touched"
    local before after
    before=$(payload_digest minilm.mvault)
    expect 3 mvault verify minilm.mvault -i colleague.txt
    run mvault recipients add minilm.mvault -r "$colleague"
    run mvault verify minilm.mvault -i colleague.txt --signer sign.pem.pub
    run mvault recipients list minilm.mvault
    run mvault recipients remove minilm.mvault -i colleague.txt -r "$us"
    expect 3 mvault verify minilm.mvault
    run mvault verify minilm.mvault -i colleague.txt --signer sign.pem.pub
    after=$(payload_digest minilm.mvault)
    check "payload's SHA-256 before and after: ${before:0:16}..." test "$before" = "$after"

    heading "8. One flipped bit, a cut, another signer: refused with exit code 3"
    flipped model.joblib.mvault 200000 >flipped.mvault
    expect 3 mvault open flipped.mvault -o never
    head -c 300000 model.joblib.mvault >cut.mvault
    expect 3 mvault open cut.mvault -o never
    run mvault keygen --signing -o other.pem
    expect 3 mvault open minilm.mvault -i colleague.txt --signer other.pem.pub -o never
    check "nothing was released" test -z "$(find never -type f 2>/dev/null)"

    heading "9. A vault on a real S3 server: sealed while it is sent, opened while it arrives"
    serve
    run mvault push models/minilm s3://models/team minilm --sign sign.pem --tag prod
    run mvault push models/minilm s3://models/team minilm -i colleague.txt -r "$us" -r "$colleague"
    run mvault ls s3://models/team minilm
    run mvault pull s3://models/team minilm@prod --signer sign.pem.pub -o back/vault
    check "every file has its digest" same_digests models/minilm back/vault
    run_to tensor-s3.bin mvault cat s3://models/team/minilm:1 model.safetensors --tensor "$tensor"
    check "one tensor, fetched alone" cmp tensor.bin tensor-s3.bin
    expect 3 mvault pull s3://models/team minilm@prod --min-version 2 -o never
    expect 5 mvault push models/minilm s3://models/team minilm --model-version 1
    run mvault recipients add s3://models/team/minilm:1 -r "$colleague"
    run mvault pull s3://models/team minilm:1 -i colleague.txt -o back/colleague
    check "the colleague can open it now" same_digests models/minilm back/colleague
    run mvault rm s3://models/team minilm:2 --yes
    check "nothing was released" test -z "$(find never -type f 2>/dev/null)"

    heading "10. A key broker, and an image whose measurements its policy names"
    run mvault broker init broker --host localhost --listen 127.0.0.1:0 --admin 127.0.0.1:0
    cp "$REPO/tests/vectors/minilm/golden.json" models/minilm/
    run mvault enclave config --broker broker/client.toml --model minilm --signer sign.pem.pub --golden golden.json -o enclave.toml
    run mvault enclave build --kernel "$emulator/bzImage" --init "$guest" --eif-tool "$eif" --config enclave.toml -o model.eif
    run mvault enclave measure model.eif --policy prod -o broker/policies/prod.toml
    run "$REPO/scripts/dev-root.sh" dev
    broker

    heading "11. A CI job publishes to S3; the enclave in QEMU: attested, released, streamed, asked"
    run_to line.txt mvault broker recipient broker prod
    local job=(MVAULT_MODEL=models/minilm MVAULT_VAULT=s3://models/team MVAULT_NAME=minilm MVAULT_MODEL_VERSION=7
        MVAULT_RECIPIENTS=line.txt MVAULT_TAG=live MVAULT_JOB=team/minilm-c0ffee)
    echo "aws_secret_access_key = $(printf 'x0%.0s' {1..20})" >models/minilm/notes.txt
    expect 1 ci_job "${job[@]}"
    rm models/minilm/notes.txt
    run ci_job "${job[@]}"
    run ci_job "${job[@]}" # again, as a CI does after a cut: published once
    check "published once" grep -q already_published mvault-publish.json
    expect 3 mvault pull s3://models/team minilm:7 -o never
    enclave
    local call=(mvault enclave call --policy broker/policies/prod.toml --dangerous-dev-root dev/root.pem --model minilm)
    run_to answer.json "${call[@]}" --min-version 7 "$url" "This is an example sentence" "Each sentence is converted"
    check "the embeddings are those of sentence-transformers, within 1e-4" same_embeddings answer.json
    expect 4 "${call[@]}" --min-version 8 "$url" "never sent"
    expect 3 mvault enclave call --policy broker/policies/prod.toml "$url" "never sent"
    run mvault broker log broker --verify
    check "nothing was released" test -z "$(find never -type f 2>/dev/null)"

    printf '\ndemo: all %d checks passed\n' "$checks"
}

# An S3 server for this run alone, on a port that was free; ended with the script.
serve() {
    local lines port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    lines=$(HOME=$true_home "$REPO/scripts/serve-s3.sh" --background --port "$port" 2>messages) || die "$(<messages)"
    eval "$lines"
    children+=("$MVAULT_S3_PID")
    printf '  S3 server: %s\n' "$AWS_ENDPOINT_URL"
}

# The broker, for evidence of the development authority.
broker() {
    printf '  $ mvault broker serve broker --dangerous-dev-root dev/root.pem &\n'
    mvault broker serve broker --dangerous-dev-root dev/root.pem >/dev/null 2>broker.log &
    children+=($!)
    appears broker.log 'health on'
    broker_address=$(sed -n 's|.*listening on https://\([^,]*\),.*|\1|p' broker.log)
    indented "$(<broker.log)"
}

# What the GitHub action and the GitLab template run, the key as the CI's secret.
ci_job() {
    # Exported by the shell itself: in no argv. The words are NAME=VALUE.
    # shellcheck disable=SC2163
    (export "$@" && MVAULT_SIGN_KEY=$(<sign.pem) "$REPO/deploy/ci/publish.sh")
}

# The enclave, with its parent; what it says up to where it is ready.
enclave() {
    local command=(mvault enclave run model.eif s3://models/team/minilm:7 --broker "$broker_address" --listen 127.0.0.1:0)
    command+=(--emulator "$emulator" --dangerous-dev-signer dev)
    printf '  $ %s &\n' "$(shown "${command[*]}")"
    "${command[@]}" >enclave.log 2>&1 &
    children+=($!)
    appears enclave.log 'ready after'
    indented "$(<enclave.log)"
    url=$(sed -n 's|.*ready after .*: \(https://.*\)|\1|p' enclave.log)
}

# appears FILE WORDS  waits until a file has them; its writer must live.
appears() {
    local tries=0
    until grep -q "$2" "$1"; do
        if ! kill -0 "${children[-1]}" 2>/dev/null || ((++tries > 1800)); then die "$(<"$1")"; fi
        sleep 0.1
    done
}

children=()
clean_up() {
    ((${#children[@]} == 0)) || kill "${children[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}

same_embeddings() {
    python3 - "$1" "$REPO/tests/vectors/minilm/golden.json" <<'PY'
import json, sys

found = [row["embedding"] for row in json.load(open(sys.argv[1]))["data"]]
expected = json.load(open(sys.argv[2]))["embeddings"]
worst = max(abs(a - b) for f, e in zip(found, expected, strict=True) for a, b in zip(f, e, strict=True))
print(f"  largest difference of {sum(map(len, expected))} numbers: {worst:.1e}")
sys.exit(worst > 1e-4)
PY
}

checks=0

heading() { printf '\n%s\n' "$1"; }

# run COMMAND...  shows a command and what it prints; it must succeed.
run() { expect 0 "$@"; }

# run_to FILE COMMAND...  the same with standard output in a file.
run_to() {
    printf '  $ %s\n' "$(shown "${*:2}") > $1"
    "${@:2}" >"$1" 2>messages </dev/null || die "$(<messages)"
    indented "$(<messages)"
}

# expect STATUS COMMAND...  the same with an exit status that must be met.
expect() {
    local status=0 output
    printf '  $ %s\n' "$(shown "${*:2}")"
    output=$("${@:2}" 2>&1 </dev/null) || status=$?
    indented "$output"
    (($1 == 0)) || printf '    (exit status %d)\n' "$status"
    ((status == $1)) || die "expected exit status $1, got $status"
    checks=$((checks + 1))
}

indented() { [[ -z $1 ]] || printf '    %s\n' "${1//$'\n'/$'\n'    }"; }

# check WORDS COMMAND...  says that something holds, or ends the demo.
check() {
    "${@:2}" || die "does not hold: $1"
    printf '  ok: %s\n' "$1"
    checks=$((checks + 1))
}

# A command as it is shown: recipients are over a thousand characters long.
shown() { sed -E 's/[^ ]{72,}/RECIPIENT/g' <<<"$1"; }

same_digests() { diff <(cd "$1" && digests) <(cd "$2" && digests); }
digests() { find . -type f -exec sha256sum {} + | sort -k 2; }

# slice FILE OFFSET LENGTH
slice() { dd if="$1" iflag=skip_bytes,count_bytes skip="$2" count="$3" bs=64K status=none; }

# The bytes of one tensor, read by the safetensors layout alone: u64 length, JSON, data.
tensor_of() {
    python3 - "$1" "$2" <<'PY'
import json, struct, sys

with open(sys.argv[1], "rb") as file:
    (length,) = struct.unpack("<Q", file.read(8))
    start, end = json.loads(file.read(length))[sys.argv[2]]["data_offsets"]
    file.seek(8 + length + start)
    sys.stdout.buffer.write(file.read(end - start))
PY
}

# The header's length is a big-endian u32 at offset 12 (FORMAT.md, section 2); the rest is payload.
payload_digest() {
    local header
    header=$((16#$(slice "$1" 12 4 | od -An -tx1 | tr -d ' \n')))
    tail -c "+$((header + 1))" "$1" | sha256sum | cut -d' ' -f1
}

# flipped FILE OFFSET  the file with one bit of one byte changed.
flipped() {
    local byte
    byte=$(slice "$1" "$2" 1 | od -An -tu1)
    head -c "$2" "$1"
    printf '%b' "\\x$(printf '%02x' $((byte ^ 1)))"
    tail -c "+$(($2 + 2))" "$1"
}

main
