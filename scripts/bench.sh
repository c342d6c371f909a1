#!/usr/bin/env bash
# make bench: builds what is measured, gives the benches a folder in tmpfs (and one on disk for what does not fit), and
# removes both whatever happens. First sealing and opening, then push and pull on an S3 server, then evidence, then releases
# by a broker, then an emulated enclave; --only seal, s3, attest, broker or enclave runs one of them. Other arguments go to the
# first three: --rounds N, --json FILE (FILE with -s3 or -attest before its suffix), --size 512M (not evidence); --growth-max 1G
# concerns sealing only.

source "$(dirname "$0")/common.sh"

only='' common=() seal=() s3=() attest=()
while (($# > 0)); do
    (($# > 1)) || die "$1 needs a value"
    case $1 in
        --only) only=$2 ;;
        --growth-max) seal+=("$1" "$2") ;;
        --json)
            seal+=("$1" "$2")
            [[ $2 == *.* ]] && end=.${2##*.} || end=
            s3+=("$1" "${2%"$end"}-s3$end")
            attest+=("$1" "${2%"$end"}-attest$end")
            ;;
        --rounds) common+=("$1" "$2") attest+=("$1" "$2") ;;
        *) common+=("$1" "$2") ;;
    esac
    shift 2
done
[[ $only =~ ^(|seal|s3|attest|broker|enclave)$ ]] || die "--only seal, s3, attest, broker or enclave, not '$only'"

"$REPO/scripts/setup.sh" build
cd "$REPO"
# One command for all, so that every dependency is built once, with the same features.
cargo build --quiet --release -p mvault-bench -p vault-cli -p mvault-tests --bins --example broker_load --example enclave_load
bin=$(target_dir)/release

place=/dev/shm
[[ -d $place && -w $place ]] || { place=${TMPDIR:-/tmp}; say "bench: no /dev/shm: measuring in $place"; }
memory=$(mktemp -d "$place/mvault-bench.XXXXXX")
disk=$(mktemp -d "${TMPDIR:-/tmp}/mvault-bench.XXXXXX")
trap 'rm -rf "$memory" "$disk"' EXIT
trap 'exit 130' INT TERM

if [[ $only == '' || $only == seal ]]; then
    "$REPO/scripts/setup.sh" bench
    models=$("$REPO/scripts/models.sh")
    mkdir "$memory/seal"
    TMPDIR=$disk "$bin/mvault-bench" --dir "$memory/seal" --mvault "$bin/mvault" \
        --rage "$(tool_dir rage)/bin/rage" --models "$models" "${common[@]}" "${seal[@]}"
    rm -rf "$memory/seal"
fi
if [[ $only == '' || $only == s3 ]]; then
    "$REPO/scripts/setup.sh" bench-s3
    mkdir "$memory/s3"
    TMPDIR=$disk "$bin/mvault-bench" s3 --dir "$memory/s3" --mvault "$bin/mvault" --peers "$(bench_venv_dir)/bin" \
        --weed "$(servers_venv_dir)/bin/weed" "${common[@]}" "${s3[@]}"
fi
if [[ $only == '' || $only == attest ]]; then
    documents=$REPO/../shared/vectors/nitro
    if [[ -d $documents ]]; then
        "$bin/mvault-bench" attest --documents "$documents" "${attest[@]}"
    else
        say "bench: evidence skipped: no documents in $documents"
    fi
fi
if [[ $only == '' || $only == broker ]]; then
    load=$bin/examples/broker_load
    TMPDIR=$disk "$load" "$bin/mvault"
    # Memory: flat over so many.
    TMPDIR=$disk "$load" "$bin/mvault" 100000 128
fi
if [[ $only == '' || $only == enclave ]]; then
    TMPDIR=$disk "$REPO/scripts/bench-enclave.sh" 3
fi
