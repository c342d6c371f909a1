#!/usr/bin/env bash
# make release: what is given to others, in target/dist: a tar archive, a Debian package, the bill of materials of what is linked, SHA256SUMS.
# The same binary gives the same bytes: times are the last commit's (or SOURCE_DATE_EPOCH), owners are root, order is by name.
# Usage: release.sh [FOLDER]   MVAULT_BIN names a built mvault; otherwise it is built, for this machine.

source "$(dirname "$0")/common.sh"

main() {
    "$REPO/scripts/setup.sh" build release
    cd "$REPO"
    dist=$(realpath -m "${1:-$(target_dir)/dist}")
    built=${MVAULT_BIN:-}
    if [[ -z $built ]]; then
        built=$(release_build)
    fi
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
    export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
    target=$(rustc -vV | sed -n 's/^host: //p')
    work=$(mktemp -d "${TMPDIR:-/tmp}/mvault-release.XXXXXX")
    trap 'rm -rf "$work"' EXIT

    rm -rf "$dist"
    mkdir -p "$dist"
    parts
    python3 scripts/sbom.py "$target" >"$work/mvault.cdx.json"
    cp "$work/mvault.cdx.json" "$dist/mvault-$version.cdx.json"
    archive "mvault-$version-$(uname -m)-linux"
    debian_package "mvault_${version}_$(dpkg --print-architecture).deb"
    (cd "$dist" && sha256sum -- * >SHA256SUMS.new && mv SHA256SUMS.new SHA256SUMS)
    find "$dist" -type f -printf "%10s  %f\n" | sort -k 2
    say "release: in $dist"
}

# The profile keeps line numbers for backtraces, ten times the program's size: what is given away is stripped.
parts() {
    strip -o "$work/mvault" "$built"
    mkdir "$work/completions"
    "$work/mvault" completions bash >"$work/completions/mvault.bash"
    "$work/mvault" completions zsh >"$work/completions/_mvault"
    "$work/mvault" completions fish >"$work/completions/mvault.fish"
    "$work/mvault" man -o "$work/man" >/dev/null
}

archive() {
    local top=$work/$1
    mkdir -p "$top/man/man1"
    install -m 755 "$work/mvault" "$top/"
    install -m 644 README.md CHANGELOG.md "$work/mvault.cdx.json" "$top/"
    licences "$top"
    install -m 644 "$work"/man/*.1 "$top/man/man1/"
    cp -r "$work/completions" "$top/"
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu -C "$work" -c "$1" | gzip -9n >"$dist/$1.tar.gz"
}

debian_package() {
    local root=$work/deb doc
    doc=$root/usr/share/doc/mvault
    mkdir -p "$root/DEBIAN" "$doc/examples" "$root"/usr/{bin,lib/systemd/system,lib/sysusers.d,share/man/man1} \
        "$root"/usr/share/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
    install -m 755 "$work/mvault" "$root/usr/bin/"
    install -m 644 "$work/completions/mvault.bash" "$root/usr/share/bash-completion/completions/mvault"
    install -m 644 "$work/completions/_mvault" "$root/usr/share/zsh/vendor-completions/"
    install -m 644 "$work/completions/mvault.fish" "$root/usr/share/fish/vendor_completions.d/"
    install -m 644 "$work"/man/*.1 "$root/usr/share/man/man1/"
    install -m 644 README.md SECURITY.md docs/*.md "$work/mvault.cdx.json" "$doc/"
    install -m 644 CHANGELOG.md "$doc/changelog"
    gzip -9n "$root"/usr/share/man/man1/*.1 "$doc/changelog" "$doc/mvault.cdx.json"
    licences "$doc"
    copyright >"$doc/copyright"
    # The package's program is in /usr/bin.
    local unit
    for unit in deploy/systemd/*.service; do
        sed 's#/usr/local/bin/mvault#/usr/bin/mvault#g' "$unit" >"$root/usr/lib/systemd/system/${unit##*/}"
    done
    sed 's#/usr/local/bin/mvault#/usr/bin/mvault#g' deploy/systemd/passphrase.conf >"$doc/examples/passphrase.conf"
    install -m 644 deploy/systemd/mvault.sysusers "$root/usr/lib/sysusers.d/mvault.conf"
    postinst >"$root/DEBIAN/postinst"
    chmod 755 "$root/DEBIAN/postinst"
    (cd "$root" && find usr -type f -printf '%P\n' | sort | sed 's#^#usr/#' | xargs md5sum) >"$root/DEBIAN/md5sums"
    control "$root" >"$root/DEBIAN/control"
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" "$dist/$1" >/dev/null
}

control() {
    local depends
    mkdir -p "$work/shlibs/debian"
    printf 'Source: mvault\n\nPackage: mvault\nArchitecture: any\n' >"$work/shlibs/debian/control"
    depends=$(cd "$work/shlibs" && dpkg-shlibdeps -O "$work/mvault" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
    [[ $depends == *libc6* ]] || die "dpkg-shlibdeps does not say what mvault needs: '$depends'"
    cat <<END
Package: mvault
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: ${MVAULT_MAINTAINER:-mvault maintainers <maintainers@mvault.invalid>}
Section: utils
Priority: optional
Depends: $depends
Recommends: ca-certificates
Installed-Size: $(find "$1/usr" -type f -printf '%s\n' | awk '{ sum += int(($1 + 1023) / 1024) } END { print sum }')
Description: encrypted vault for machine learning models
 Seals models for recipients, keeps them in folders or S3, and releases their
 keys to machines that proved what they run. The units of a key broker and of
 an enclave host are in the package; neither is enabled or started.
END
}

# Users of the units, where there is a systemd to make them.
postinst() {
    cat <<'END'
#!/bin/sh
set -e
if [ "$1" = configure ] && command -v systemd-sysusers >/dev/null; then
    systemd-sysusers mvault.conf
fi
END
}

copyright() {
    cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: mvault

Files: *
Copyright: the authors of mvault
License: $(sed -n 's/^license = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
Comment: The licences of the crates that are linked are in mvault.cdx.json.gz.
END
}

# Licence texts, where the tree has any.
licences() { find . -maxdepth 1 -type f \( -name 'LICENSE*' -o -name 'NOTICE*' \) -exec install -m 644 -t "$1" {} +; }

main "$@"
