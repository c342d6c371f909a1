#!/usr/bin/env bash
# make test: brings the tests' Python, models and servers, runs every test, and closes with one line that adds them up.
# Tests read where these are from MVAULT_TEST_PYTHON, _MODELS, _WEED (SeaweedFS), _SERVERS, _LOCALSTACK and
# _POSTGRES (folders of commands; LocalStack's only where there is a Python for it), _EMULATOR (a folder), _EIF and _GUEST (programs).
# Arguments go to cargo test.

source "$(dirname "$0")/common.sh"

"$REPO/scripts/setup.sh" build python servers runbooks localstack postgres eif emulator
MVAULT_TEST_PYTHON=$(venv_dir)/bin/python
MVAULT_TEST_MODELS=$("$REPO/scripts/models.sh")
MVAULT_TEST_SERVERS=$(servers_venv_dir)/bin
MVAULT_TEST_WEED=$MVAULT_TEST_SERVERS/weed
MVAULT_TEST_POSTGRES=$(postgres_bin)
MVAULT_TEST_EIF=$(eif_dir)/mvault-eif
MVAULT_TEST_EMULATOR=$(emulator_dir)
MVAULT_TEST_GUEST=$("$REPO/scripts/guest.sh")
export MVAULT_TEST_PYTHON MVAULT_TEST_MODELS MVAULT_TEST_SERVERS MVAULT_TEST_WEED MVAULT_TEST_POSTGRES MVAULT_TEST_EIF
export MVAULT_TEST_EMULATOR MVAULT_TEST_GUEST
if localstack=$(localstack_venv_dir); then
    export MVAULT_TEST_LOCALSTACK=$localstack/bin
fi
cd "$REPO"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --release --workspace --exclude mvault-bench --exclude mvault-init --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

awk '/^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) passed += $(i - 1)
                                                   if ($i ~ /^failed/) failed += $(i - 1)
                                                   if ($i ~ /^ignored/) skipped += $(i - 1) } }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$status"
