#!/usr/bin/env bash
# Judges what scripts/release.sh makes: twice the same bytes; the archive runs; the bill of materials is whole; and the Debian package on a clean
# Debian: installs, seals and opens, and is removed without a trace. The Debian is an archive of a debootstrap, unpacked and entered by chroot.
# One line a check on stdout; fails at the first that fails. Usage (as root): release.sh MVAULT DEBIAN.tar

set -euo pipefail
umask 022
mvault=$1 debian=$2
repo=$(cd "$(dirname "$0")/../.." && pwd)

die() {
    printf 'release.sh: error: %s\n' "$*" >&2
    exit 1
}

work=$(mktemp -d "${TMPDIR:-/tmp}/mvault-release-test.XXXXXX")
trap 'rm -rf "$work"' EXIT

main() {
    twice_the_same
    archive
    materials
    debian_root
    installs
    works
    leaves_nothing
}

twice_the_same() {
    MVAULT_BIN=$mvault timeout 300 "$repo/scripts/release.sh" "$work/dist" >"$work/said" 2>&1 || die "$(cat "$work/said")"
    # in another folder, and as somebody with another umask and clock
    mkdir "$work/elsewhere"
    (umask 077 && TMPDIR=$work/elsewhere TZ=Asia/Tokyo LC_ALL=C MVAULT_BIN=$mvault timeout 300 "$repo/scripts/release.sh" "$work/again" >"$work/said" 2>&1) ||
        die "$(cat "$work/said")"
    diff -r "$work/dist" "$work/again" || die "two runs differ"
    [[ $(find "$work/dist" -type f | wc -l) == 4 ]] || die "other files than four: $(ls "$work/dist")"
    (cd "$work/dist" && sha256sum --quiet --check SHA256SUMS && [[ $(wc -l <SHA256SUMS) == 3 ]]) || die "SHA256SUMS"
    echo "release: twice the same bytes, and SHA256SUMS of them"
}

archive() {
    mkdir "$work/unpacked"
    tar -xzf "$work"/dist/*.tar.gz -C "$work/unpacked"
    local top
    top=$(echo "$work"/unpacked/*)
    version=$("$top/mvault" --version)
    [[ $version == "mvault ${top##*/mvault-}"* || ${top##*/} == "mvault-${version#mvault }-"* ]] || die "${top##*/} has $version"
    [[ -s $top/man/man1/mvault-seal.1 && -s $top/completions/_mvault && -s $top/README.md ]] || die "the archive lacks a part"
    bash -n "$top/completions/mvault.bash"
    echo "archive: ${top##*/} runs, with man pages and completions"
}

materials() {
    python3 - "$work"/dist/*.cdx.json <<'END'
import json, re, sys

bom = json.load(open(sys.argv[1], encoding="utf-8"))
crates = bom["components"]
refs = {crate["bom-ref"] for crate in crates} | {bom["metadata"]["component"]["bom-ref"]}
assert bom["bomFormat"] == "CycloneDX" and len(refs) == len(crates) + 1 > 100, "too few crates, or one twice"
graph = {node["ref"]: node["dependsOn"] for node in bom["dependencies"]}
assert set(graph) == refs and all(set(others) <= refs for others in graph.values()), "the graph names what is not there"
reached, todo = set(), [bom["metadata"]["component"]["bom-ref"]]
while todo:
    crate = todo.pop()
    if crate not in reached:
        reached.add(crate)
        todo += graph[crate]
assert reached == refs, f"nobody needs {sorted(refs - reached)}"
for crate in crates:
    assert crate["licenses"][0]["expression"], crate
    if not crate["name"].startswith("vault-"):
        assert crate["purl"].startswith("pkg:cargo/"), crate
        assert re.fullmatch("[0-9a-f]{64}", crate["hashes"][0]["content"]), crate
print(f"bill of materials: {len(crates)} crates, each with a licence, those of a registry with their SHA-256, all reached from mvault")
END
}

debian_root() {
    root=$work/root
    mkdir "$root"
    tar -xf "$debian" -C "$root" --numeric-owner
    cp "$work"/dist/*.deb "$root/tmp/mvault.deb"
    files >"$work/before"
}

files() { (cd "$root" && find . -xdev \( -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./root \) -prune -o -print | sort); }
# With /proc, through which mvault gives its finished files their names; in a mount namespace, so that it is gone with the command.
# shellcheck disable=SC2016 # for the other shell
inside() {
    timeout 120 unshare --mount sh -ec 'mount -t proc -o nosuid,nodev,noexec proc "$0/proc"; exec chroot "$0" "$@"' "$root" /usr/bin/env -i \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

installs() {
    inside dpkg -i /tmp/mvault.deb >"$work/said" 2>&1 || die "dpkg -i: $(cat "$work/said")"
    # shellcheck disable=SC2016 # dpkg's own
    [[ $(inside dpkg-query -W -f '${Status}' mvault) == "install ok installed" ]] || die "dpkg does not say that it is installed"
    # what dpkg -V prints differs from the package
    [[ -z $(inside dpkg -V mvault) ]] || die "dpkg -V: $(inside dpkg -V mvault)"
    [[ $(inside mvault --version) == "$version" ]] || die "mvault --version"
    local unit
    for unit in mvault-broker.service mvault-enclave@.service; do
        grep -q '^ExecStart=/usr/bin/mvault ' "$root/usr/lib/systemd/system/$unit" || die "$unit does not start /usr/bin/mvault"
    done
    [[ -s $root/usr/lib/sysusers.d/mvault.conf ]] || die "no users for the units"
    local name
    for name in mvault mvault-seal mvault-broker-serve; do
        gzip -t "$root/usr/share/man/man1/$name.1.gz" || die "no man page $name"
    done
    echo "package: installs on a clean Debian $(cat "$root/etc/debian_version") by dpkg alone, $version"
}

works() {
    head -c 300000 /dev/urandom >"$root/root/weights.bin"
    # shellcheck disable=SC2016
    inside sh -ec 'cd
        mvault keygen --quiet >/dev/null
        mvault seal weights.bin --quiet -o weights.mvault
        mvault open weights.mvault --quiet -o out
        cmp weights.bin out/weights.bin
        ! cmp -s weights.bin weights.mvault' >"$work/said" 2>&1 || die "in the package's Debian: $(cat "$work/said")"
    echo "package: seals and opens there"
}

leaves_nothing() {
    inside dpkg -r mvault >"$work/said" 2>&1 || die "dpkg -r: $(cat "$work/said")"
    files >"$work/after"
    diff "$work/before" "$work/after" || die "dpkg -r leaves something"
    echo "package: dpkg -r leaves nothing"
}

main
