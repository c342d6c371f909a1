# shellcheck shell=bash
# What every script of this folder shares: where the cache is, how to say what is being done, and how to take the
# cache's lock. Sourced, never run.

set -euo pipefail
umask 022

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${MVAULT_CACHE:-$HOME/.cache/mvault}
mkdir -p "$CACHE"

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$(basename "$0"): error: $*"
    exit 1
}

# Two runs at once must not build the same thing twice. The lock is this process's descriptor 9: it ends with it.
lock_cache() {
    exec 9>"$CACHE/$1.lock"
    flock 9
}

# Runs a command quietly; its output is shown only when it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    if ((status != 0)); then
        cat "$log" >&2
        rm -f "$log"
        die "failed: $*"
    fi
    rm -f "$log"
}

# The Python environment of a lock file of this folder: one folder for each lock file and interpreter.
venv_of() {
    local key
    key=$( (cat "$REPO/scripts/$1" && python3 --version) | sha256sum | cut -c1-12)
    printf '%s/venv-%s\n' "$CACHE" "$key"
}
# That of the tests.
venv_dir() { venv_of requirements.txt; }

# Cargo tools are kept by version, beside any other version: tool_dir NAME prints the folder of the pinned one.
tool_version() {
    case $1 in
        cargo-deny) echo 0.20.2 ;;
        cargo-fuzz) echo 0.13.2 ;;
        rage) echo 0.12.1 ;;
        *) die "no version is pinned for '$1'" ;;
    esac
}
tool_dir() { printf '%s/tools/%s-%s\n' "$CACHE" "$1" "$(tool_version "$1")"; }

# Where cargo puts what it builds for the workspace.
target_dir() {
    cargo metadata --quiet --no-deps --format-version 1 --manifest-path "$REPO/Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
