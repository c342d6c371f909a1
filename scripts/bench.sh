#!/usr/bin/env bash
# make bench: builds what is measured, gives the bench a folder in tmpfs (and one on disk for what does not fit), and
# removes both whatever happens. Arguments go to mvault-bench: --size 512M, --rounds N, --growth-max 1G, --json FILE.

source "$(dirname "$0")/common.sh"

"$REPO/scripts/setup.sh" build bench
models=$("$REPO/scripts/models.sh")
cd "$REPO"
cargo build --quiet --release -p mvault-bench -p vault-cli
bin=$(target_dir)/release

place=/dev/shm
[[ -d $place && -w $place ]] || { place=${TMPDIR:-/tmp}; say "bench: no /dev/shm: measuring in $place"; }
memory=$(mktemp -d "$place/mvault-bench.XXXXXX")
disk=$(mktemp -d "${TMPDIR:-/tmp}/mvault-bench.XXXXXX")
trap 'rm -rf "$memory" "$disk"' EXIT
trap 'exit 130' INT TERM

TMPDIR=$disk "$bin/mvault-bench" --dir "$memory" --mvault "$bin/mvault" \
    --rage "$(tool_dir rage)/bin/rage" --models "$models" "$@"
