#!/bin/sh
# Lays out the broker's image: mvault, the probe, the libraries that they load, CAs, a user. No shell, no package manager, nothing setuid.
# Usage: rootfs.sh MVAULT PROBE FOLDER. Used by deploy/Containerfile, and by scripts/deploy.sh, which runs a broker in it.

set -eu
umask 022

mvault=$1 probe=$2 root=$3
[ ! -e "$root" ] || { echo "rootfs.sh: error: $root is there already" >&2 && exit 1; }
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/run" "$root/tmp"
chmod 1777 "$root/tmp"
strip -o "$root/usr/bin/mvault" "$mvault"
strip -o "$root/usr/bin/probe" "$probe"
# `lib.so => /path (0x…)`, and the loader, which stands alone
ldd "$mvault" "$probe" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u |
    while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'mvault:x:65532:65532:mvault:/tmp:/nonexistent' >"$root/etc/passwd"
echo 'mvault:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
