#!/usr/bin/env bash
# Builds the emulated Nitro Enclave, once, into the cache: QEMU with the machine `nitro-enclave` (no Debian binary has
# it) and an NSM device that can sign (deploy/emulator/nsm-sign.patch), the enclave's kernel, and the vsock device.
# About 20 minutes on two cores. Prints the folder: qemu-system-x86_64, bzImage, vhost-device-vsock.
# What it makes is keyed by this script and by deploy/emulator; the sources come from Debian, signed.

source "$(dirname "$0")/common.sh"

main() {
    local dir
    dir=$(emulator_dir)
    lock_cache emulator
    if [[ ! -e $dir/complete ]]; then
        mkdir -p "$dir"
        [[ -x $dir/qemu-system-x86_64 ]] || build qemu "QEMU (once, about 8 minutes)"
        [[ -e $dir/bzImage ]] || build kernel "the enclave's kernel (once, about 11 minutes)"
        [[ -x $dir/vhost-device-vsock ]] || build vsock "vhost-device-vsock (once, a minute)"
        touch "$dir/complete"
    fi
    printf '%s\n' "$dir"
}

# build PART WHAT  builds in a folder of its own, so that what is in the cache is whole.
build() {
    say "setup: $2"
    WORK=$dir/work-$1
    rm -rf "$WORK"
    mkdir -p "$WORK"
    (cd "$WORK" && quietly "build_$1" "$dir")
    rm -rf "$WORK"
}

# QEMU 10 is in Debian 13; its source package, with Debian's patches, builds on 12 as well.
build_qemu() {
    local source
    debian_source trixie qemu
    source=$(find . -maxdepth 1 -type d -name 'qemu-*' | head -n 1)
    cd "$source"
    patch -p1 <"$REPO/deploy/emulator/nsm-sign.patch"
    local target
    for target in i386 x86_64; do
        echo CONFIG_NITRO_ENCLAVE=y >"configs/devices/$target-softmmu/nitro.mak"
    done
    mkdir build
    cd build
    PATH="$(emulator_venv_dir)/bin:$PATH" ../configure --python="$(emulator_venv_dir)/bin/python" \
        --target-list=x86_64-softmmu --without-default-features --without-default-devices --with-devices-x86_64=nitro \
        --enable-system --enable-tcg --enable-gnutls --enable-libcbor --enable-vhost-user --enable-vhost-kernel \
        --enable-fdt=system --disable-docs --disable-install-blobs
    ninja -j"$(nproc)" qemu-system-x86_64
    strip -o "$1/qemu-system-x86_64.new" qemu-system-x86_64
    mv "$1/qemu-system-x86_64.new" "$1/qemu-system-x86_64"
}

# Small, everything built in, no module loader. The time, user and host of the build are fixed: same bytes every time.
build_kernel() {
    tar xf /usr/src/linux-source-6.12.tar.xz
    cd linux-source-6.12
    make tinyconfig
    scripts/kconfig/merge_config.sh -m .config "$REPO/deploy/emulator/kernel.config"
    make olddefconfig
    KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=mvault KBUILD_BUILD_HOST=mvault make -j"$(nproc)" bzImage
    cp .config "$1/kernel.config"
    cp arch/x86/boot/bzImage "$1/bzImage.new"
    mv "$1/bzImage.new" "$1/bzImage"
}

build_vsock() {
    CARGO_TARGET_DIR=$PWD/target cargo install --locked --root "$PWD" --version "=0.3.0" vhost-device-vsock
    mv bin/vhost-device-vsock "$1/"
}

# debian_source RELEASE PACKAGE  fetches a source package of another Debian release, verified by Debian's keyring, and
# leaves the machine's own package lists as they are.
debian_source() {
    local mirror
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/*$')
    mkdir -p apt/state/lists/partial apt/cache/archives/partial
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >apt/sources.list
    cat >apt/apt.conf <<END
Dir::State "$PWD/apt/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$PWD/apt/cache";
Dir::Etc::sourcelist "$PWD/apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "";
END
    APT_CONFIG=$PWD/apt/apt.conf apt-get update -q
    APT_CONFIG=$PWD/apt/apt.conf apt-get source -q "$2"
}

main
