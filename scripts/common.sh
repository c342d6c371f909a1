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

# Python environments: one folder for each lock file and interpreter. venv_dir is the tests' own, servers_venv_dir has the
# S3 and KMS servers, bench_venv_dir the benches' peers, deploy_venv_dir what judges deploy/, localstack_venv_dir the one server that
# needs a later Python.
venv_dir() { venv_of venv requirements.txt python3; }
bench_venv_dir() { venv_of bench bench.txt python3; }
servers_venv_dir() { venv_of servers servers.txt python3; }
deploy_venv_dir() { venv_of deploy deploy.txt python3; }
emulator_venv_dir() { venv_of emulator-python emulator.txt python3; }
localstack_venv_dir() {
    local python
    python=$(python_313) || return
    venv_of localstack localstack.txt "$python"
}
venv_of() {
    local key
    key=$( (cat "$REPO/scripts/$2" && "$3" --version) | sha256sum | cut -c1-12)
    printf '%s/%s-%s\n' "$CACHE" "$1" "$key"
}

# Prints a Python 3.13 that runs; fails when there is none.
python_313() {
    local python
    # A shim of pyenv is found in PATH and runs nothing unless its version is switched on.
    for python in python3.13 "$HOME"/.pyenv/versions/3.13.*/bin/python3.13; do
        "$python" --version >/dev/null 2>&1 && printf '%s\n' "$python" && return
    done
    return 1
}

# Prints the folder of PostgreSQL's programs, the newest that Debian has here; fails when there is none.
postgres_bin() {
    local bin
    bin=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
    [[ -n $bin ]] && dirname "$bin"
}

# The folder of the emulated Nitro Enclave (scripts/emulator.sh), keyed by all that goes into it.
emulator_dir() {
    local key
    key=$(cd "$REPO" && cat scripts/emulator.sh scripts/emulator.txt deploy/emulator/* | sha256sum | cut -c1-12)
    printf '%s/emulator-%s\n' "$CACHE" "$key"
}

# The archive of a clean Debian of this machine's release, in which the package is tried.
debian_root() { printf '%s/debian-%s-%s.tar\n' "$CACHE" "$(debian_codename)" "$(dpkg --print-architecture)"; }
debian_codename() { (source /etc/os-release && printf '%s\n' "${VERSION_CODENAME:?}"); }

# The folder of mvault-eif, keyed by all that goes into it.
eif_dir() {
    local key
    key=$(cd "$REPO/vault-enclave/eif" && cat Cargo.toml Cargo.lock src/* | sha256sum | cut -c1-12)
    printf '%s/eif-%s\n' "$CACHE" "$key"
}

# Cargo tools are kept by version, beside any other version: tool_dir NAME prints the folder of the pinned one.
tool_version() {
    case $1 in
        cargo-audit) echo 0.22.2 ;;
        cargo-deny) echo 0.20.2 ;;
        cargo-fuzz) echo 0.13.2 ;;
        rage) echo 0.12.1 ;;
        *) die "no version is pinned for '$1'" ;;
    esac
}
tool_dir() { printf '%s/tools/%s-%s\n' "$CACHE" "$1" "$(tool_version "$1")"; }

# Builds programs and examples with the features that `make test` has too: one set, so that nothing, and least of all
# the AWS SDK, is built twice.
build_workspace() { (cd "$REPO" && cargo build --quiet --release --workspace --exclude mvault-bench --exclude mvault-init --bins --examples); }

# Builds mvault as releases have it, and prints its path: no folder of this machine is named in it, so that another one gives the same bytes. In a
# target folder of its own, unless all is built with these flags already, as CI does (release_environment).
release_build() {
    local target
    target=$(cd "$REPO" && target_dir)
    if [[ ${RUSTFLAGS:-} != "$(release_rustflags "$target")" ]]; then
        target=$target/remapped
        (cd "$REPO" && cargo fetch --quiet --locked)
    fi
    (
        cd "$REPO"
        release_environment "$target" || exit 1
        cargo build --quiet --release --locked -p vault-cli --target-dir "$target" >&2
    ) || die "the release does not build" # in $(…) bash does not stop by itself
    printf '%s\n' "$target/release/mvault"
}

# The flags of a build into a target folder; what the crates' sources are in has to be there.
release_environment() {
    RUSTFLAGS=$(release_rustflags "$1") && CFLAGS=$(release_paths "$1" -ffile-prefix-map) || return 1
    CXXFLAGS=$CFLAGS
    export RUSTFLAGS CFLAGS CXXFLAGS
}
release_rustflags() { release_paths "$1" --remap-path-prefix; }

# Of two names that fit the later counts. The folder of a registry is named after its host.
release_paths() {
    local flags=("$2=$REPO=/mvault" "$2=$1=/target") sources
    for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        flags+=("$2=${sources%/}=/crates")
    done
    ((${#flags[@]} == $(wc -w <<<"${flags[*]}"))) || die "a folder with a space in its name: $REPO, $1"
    printf '%s\n' "${flags[*]}"
}

# Where cargo puts what it builds for the workspace.
target_dir() {
    cargo metadata --quiet --no-deps --format-version 1 --manifest-path "$REPO/Cargo.toml" |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
