#!/usr/bin/env bash
# make audit: known weaknesses in what the three lock files name, by RustSec's advisories. Without a network: scripts/advisories.tsv has their
# facts as of a day (advisories.py says how they are brought up to date). `audit.sh --online` asks RustSec itself.

source "$(dirname "$0")/common.sh"

main() {
    "$REPO/scripts/setup.sh" lint
    PATH=$(tool_dir cargo-audit)/bin:$PATH
    cd "$REPO"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    local lock
    if [[ ${1:-} == --online ]]; then
        for lock in Cargo.lock fuzz/Cargo.lock vault-enclave/eif/Cargo.lock; do cargo audit --quiet --deny warnings --file "$lock"; done
        return
    fi
    python3 scripts/advisories.py expand "$work/db"
    finds_what_is_there
    for lock in Cargo.lock fuzz/Cargo.lock vault-enclave/eif/Cargo.lock; do
        audit "$lock" || die "$lock: see above; update the crate, or take it with a reason in .cargo/audit.toml"
        echo "audit: $lock: $(grep -c '^name = ' "$lock") crates, no known vulnerability"
    done
    say "audit: by advisories that are $(python3 scripts/advisories.py age) days old"
}

# Yanked crates are a matter of the registry's index, which --online asks.
audit() { quiet_unless_it_fails cargo audit --quiet --deny warnings --no-yanked --db "$work/db" --no-fetch --stale --file "$1"; }

# What a command says, if it fails.
quiet_unless_it_fails() {
    local said
    said=$("$@" 2>&1) || { printf '%s\n' "$said"; return 1; }
}

# A database that finds nothing would pass everything.
finds_what_is_there() {
    mkdir "$work/bad"
    printf 'version = 4\n\n[[package]]\nname = "ring"\nversion = "0.17.5"\nsource = "registry+https://github.com/rust-lang/crates.io-index"\n' >"$work/bad/Cargo.lock"
    local said
    said=$(audit "$work/bad/Cargo.lock" 2>&1) && die "ring 0.17.5 passes: $said"
    [[ $said == *RUSTSEC-2025-0009* ]] || die "ring 0.17.5 is refused for another reason: $said"
}

main "$@"
