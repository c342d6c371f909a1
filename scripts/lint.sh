#!/usr/bin/env bash
# make lint: everything that can be said of the sources without running them.

source "$(dirname "$0")/common.sh"

"$REPO/scripts/setup.sh" build lint
PATH=$(tool_dir cargo-deny)/bin:$PATH
cd "$REPO"

# A lock file out of step is found here, in a second, not by `--locked` on CI's machine.
for manifest in Cargo.toml fuzz/Cargo.toml vault-enclave/eif/Cargo.toml; do
    cargo metadata --quiet --locked --format-version 1 --manifest-path "$manifest" >/dev/null
done
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
cargo fmt --manifest-path vault-enclave/eif/Cargo.toml --check
cargo clippy --quiet --release --workspace --all-targets -- -D warnings
# Advisories are audit.sh's: cargo-deny would fetch them.
cargo deny --log-level error check bans licenses sources
scripts/audit.sh
RUSTDOCFLAGS='-D warnings' cargo doc --quiet --release --workspace --no-deps --document-private-items
shellcheck scripts/*.sh .ci/run deploy/tests/*.sh deploy/container/*.sh deploy/ci/*.sh
python3 scripts/check_docs.py
python3 deploy/tests/dashboards.py
