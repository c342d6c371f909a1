#!/usr/bin/env bash
# make fuzz SECONDS=60: runs every fuzz target that long, one a core at a time, on the stable toolchain.
# Corpora stay in fuzz/corpus (not under version control), seeded from the vectors and models that fit; a finding is kept
# in fuzz/artifacts and its target's last lines are shown. Usage: fuzz.sh [SECONDS [TARGET]...]

source "$(dirname "$0")/common.sh"

SECONDS_EACH=${1:-60}
# A seed over this size only slows the fuzzer down.
SEED_MAX=64k

main() {
    [[ $SECONDS_EACH =~ ^[0-9]+$ ]] || die "not a number of seconds: $SECONDS_EACH"
    "$REPO/scripts/setup.sh" build fuzz
    PATH=$(tool_dir cargo-fuzz)/bin:$PATH
    # Sanitizers are a compiler option of the nightly toolchain; this lets the stable one take it, for this build only.
    export RUSTC_BOOTSTRAP=1
    CARGO_TARGET_DIR=$(target_dir)/fuzz
    export CARGO_TARGET_DIR
    cd "$REPO"

    local targets=("${@:2}")
    ((${#targets[@]} > 0)) || mapfile -t targets < <(cargo fuzz list)
    ((${#targets[@]} > 0)) || die "there is no fuzz target"
    quietly cargo fuzz build
    local logs failed=0 target
    logs=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder as it is now
    trap "rm -rf '$logs'" EXIT
    for target in "${targets[@]}"; do seed "$target"; done
    # With the product's own profile: the tests have built it already.
    (
        unset RUSTC_BOOTSTRAP CARGO_TARGET_DIR
        build_workspace
        quietly "$(target_dir)/release/examples/fuzz_seeds" "$REPO/fuzz/corpus"
    )

    export -f fuzz_one
    printf '%s\n' "${targets[@]}" |
        xargs -P "$(nproc)" -I{} bash -c 'fuzz_one "$@"' fuzz {} "$SECONDS_EACH" "$logs" || failed=1
    for target in "${targets[@]}"; do
        if [[ -e $logs/$target.ok ]]; then
            printf 'fuzz %-18s %s\n' "$target:" "$(grep -E '^Done [0-9]+ runs' "$logs/$target.log" | tail -n 1)"
        else
            printf 'fuzz %-18s FAILED\n' "$target:"
            tail -n 60 "$logs/$target.log"
            failed=1
        fi
    done
    ((failed == 0)) || die "a fuzz target failed: the input is in fuzz/artifacts"
}

# fuzz_one TARGET SECONDS LOGS  (a shell of its own for xargs, so it takes everything as arguments)
fuzz_one() {
    # A hostile input of at most 1 MiB may not take 256 MiB at once, nor 10 s.
    cargo fuzz run "$1" -- -max_total_time="$2" -max_len=1048576 -rss_limit_mb=1024 -malloc_limit_mb=256 \
        -timeout=10 -print_final_stats=1 >"$3/$1.log" 2>&1 </dev/null && touch "$3/$1.ok"
}

# Copies what a target could start from into its corpus, named by content so that a second run adds nothing.
seed() {
    local corpus=$REPO/fuzz/corpus/$1 source=() file
    mkdir -p "$corpus"
    case $1 in
        scan_pickle) source=("$REPO/../shared/vectors/pickle" "$REPO/tests/vectors") names='*.p*kl*' ;;
        scan_zip) source=("$REPO/../shared/vectors/pickle" "$REPO/tests/vectors") names='*.[npz][ipt][pz]' ;;
        scan_safetensors) source=("$REPO/tests/vectors" "$CACHE/models") names='*.safetensors' ;;
        scan_gguf) source=("$REPO/tests/vectors" "$CACHE/models") names='*.gguf' ;;
        scan_onnx) source=("$REPO/tests/vectors" "$CACHE/models") names='*.onnx' ;;
        kms_recipient) source=("$REPO/../shared/vectors/kms") names='*.?er' ;;
        *) return ;; # made by the fuzz_seeds example
    esac
    while IFS= read -r -d '' file; do
        # Of a large model the head alone, which is where its structure is.
        head -c "$SEED_MAX" "$file" >"$corpus/$(sha256sum "$file" | cut -c1-16)"
    done < <(find "${source[@]}" -type f -name "$names" -print0 2>/dev/null)
}

main "$@"
