#!/usr/bin/env bash
# make test: brings the tests' Python and models, runs every test, and closes with one line that adds them up.
# Tests read where these are from MVAULT_TEST_PYTHON and MVAULT_TEST_MODELS. Arguments go to cargo test.

source "$(dirname "$0")/common.sh"

"$REPO/scripts/setup.sh" build python
MVAULT_TEST_PYTHON=$(venv_dir)/bin/python
MVAULT_TEST_MODELS=$("$REPO/scripts/models.sh")
export MVAULT_TEST_PYTHON MVAULT_TEST_MODELS
cd "$REPO"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --release --workspace --exclude mvault-bench --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

awk '/^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) passed += $(i - 1)
                                                   if ($i ~ /^failed/) failed += $(i - 1)
                                                   if ($i ~ /^ignored/) skipped += $(i - 1) } }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$status"
